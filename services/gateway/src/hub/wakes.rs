//! When connections are woken to write what is queued for them.
//!
//! Writing to a socket costs several times what queueing for it does, and as much for one frame as
//! for ten. So connections are woken once the hub has queued all that is at hand; and while it
//! queues so much that waking for each entry would keep the node busy with writing, they are woken
//! every few milliseconds, and find more to write at once. While there is little to do nobody waits.

use std::{sync::Arc, thread, time::Duration};

use tokio::time::Instant;

use crate::outlet::Outlet;

/// What waking one connection may cost of all cores together. A write is about a fifth of it.
const COST: Duration = Duration::from_micros(80);
/// So much of it is spent at once: a timer is no more exact than that.
const AT_ONCE: Duration = Duration::from_millis(1);
/// Nobody waits for longer.
const LONGEST: Duration = Duration::from_millis(20);
/// Entries that are queued before those who wait are woken, also while there are more.
const ENTRIES: u32 = 64;

/// See the module.
#[derive(Debug)]
pub struct Wakes {
    waiting: Vec<Arc<Outlet>>,
    entries: u32,
    /// When all that was woken has been paid for.
    paid: Instant,
    cost: Duration,
}

impl Wakes {
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        Self { waiting: Vec::new(), entries: 0, paid: Instant::now(), cost: COST / cores }
    }

    /// Something is queued for it, and it has to be woken.
    pub fn add(&mut self, outlet: &Arc<Outlet>) {
        self.waiting.push(Arc::clone(outlet));
    }

    /// An entry has been queued; wakes when that were many in a row.
    pub fn entry(&mut self) {
        self.entries += 1;
        if self.entries >= ENTRIES {
            self.wake_if_paid();
        }
    }

    /// Whether somebody waits.
    pub fn pending(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When those who wait are to be woken, if not at once.
    pub fn due(&self) -> Instant {
        self.paid.checked_sub(AT_ONCE).unwrap_or(self.paid)
    }

    /// Wakes those who wait, if it is time.
    pub fn wake_if_paid(&mut self) {
        self.entries = 0;
        let now = Instant::now();
        if self.due() > now {
            return;
        }
        let cost = self.cost * u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        self.paid = (self.paid.max(now) + cost).min(now + LONGEST);
        for outlet in self.waiting.drain(..) {
            outlet.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wakes at a cost of 100 µs each, that many who wait.
    fn waiting(wakes: &mut Wakes, count: usize) {
        wakes.cost = Duration::from_micros(100);
        let outlet = Outlet::new(1);
        for _ in 0..count {
            wakes.add(&outlet);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_are_woken_at_once_and_many_by_and_by() {
        let mut wakes = Wakes::new();
        for _ in 0..3 {
            waiting(&mut wakes, 5);
            wakes.wake_if_paid();
            assert!(!wakes.pending());
        }
        waiting(&mut wakes, 5);
        wakes.wake_if_paid();
        assert!(wakes.pending(), "1.5 ms of work for nothing that has passed");
        tokio::time::sleep_until(wakes.due()).await;
        wakes.wake_if_paid();
        assert!(!wakes.pending());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long() {
        let mut wakes = Wakes::new();
        waiting(&mut wakes, 1_000_000);
        wakes.wake_if_paid();
        assert!(wakes.due() <= Instant::now() + LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hub_that_never_waits_wakes_all_the_same() {
        let mut wakes = Wakes::new();
        waiting(&mut wakes, 1);
        for _ in 0..ENTRIES {
            wakes.entry();
        }
        assert!(!wakes.pending());
    }
}
