//! What the logs are like, looked at once a second: whether there is room left in them, and whether
//! they remember what they have stored.
//!
//! User sends and new chats stop at 90 %, so that changes of membership and revocations can still be
//! published when the worker has been away for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use natter_bus::{Bus, LOOK_COUNTS, LogState};
use natter_protocol::ids::{EPOCH_GAP, Shard};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How full a log may get by user sends, of 1.
const FULL: f64 = 0.9;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks whether the broker is reached for the first time.
const CONNECTING: Duration = Duration::from_millis(50);
/// A log that replaces another knows none of its message ids. Those that matter are younger than
/// this: older ones are looked up in Postgres in any case.
const FORGETFUL: Duration = Duration::from_mins(5);

/// What the last looks found. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Room {
    logs: Arc<[Log]>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Log {
    full: AtomicBool,
    /// Milliseconds after `since` until which the log is known to remember.
    remembers_until: AtomicU64,
    /// The furthest end that was seen of it.
    reached: AtomicU64,
}

impl Room {
    /// Room in each of so many logs.
    #[must_use]
    pub fn new(shards: Shard) -> Self {
        let logs = (0..shards).map(|_| Log::default()).collect();
        Self { logs, since: Instant::now() }
    }

    /// Whether the log takes no more user sends.
    #[must_use]
    pub fn full(&self, shard: Shard) -> bool {
        self.log(shard).is_some_and(|log| log.full.load(Ordering::Relaxed))
    }

    /// Whether the log stores a message id once within its window: not for a while after it was
    /// made anew, nor when it was not looked at for [`LOOK_COUNTS`]: it may be another one by then,
    /// which its maker keeps closed for longer than that.
    #[must_use]
    pub fn remembers(&self, shard: Shard) -> bool {
        let until = self.log(shard).map_or(0, |log| log.remembers_until.load(Ordering::Relaxed));
        self.millis() < until
    }

    /// Whether any log takes no more: a new chat writes to the feeds of all its participants, which
    /// live anywhere, and far more than a message does.
    #[must_use]
    pub fn any_full(&self) -> bool {
        self.logs.iter().any(|log| log.full.load(Ordering::Relaxed))
    }

    /// Looks about once a second, until dropped.
    pub async fn watch(self, bus: Bus) {
        // Before that there is nothing to see.
        while !bus.connected() {
            sleep(CONNECTING).await;
        }
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // Side by side, so that one that is slow to answer makes none of the others old.
            let looks = (0..).zip(self.logs.iter()).map(async |(shard, log)| {
                let asked = self.millis();
                let state = bus.log_state(shard).await.ok().flatten();
                // A log that cannot be asked takes no sends either, and says so itself.
                if let Some(state) = &state {
                    log.full.store(state.fullness() >= FULL, Ordering::Relaxed);
                }
                let remembers = state.is_some_and(|state| {
                    // One that ends before where it was has lost what it knew of the rest.
                    state.last_seq >= log.reached.fetch_max(state.last_seq, Ordering::Relaxed)
                        && remembers(&state, OffsetDateTime::now_utc())
                });
                let until = if remembers { asked + LOOK_COUNTS.as_millis() as u64 } else { 0 };
                log.remembers_until.store(until, Ordering::Relaxed);
            });
            join_all(looks).await;
        }
    }

    fn log(&self, shard: Shard) -> Option<&Log> {
        self.logs.get(usize::from(shard))
    }

    fn millis(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
    }
}

/// The first log of a shard replaces nothing. One that is sealed is about to be replaced.
fn remembers(log: &LogState, now: OffsetDateTime) -> bool {
    !log.sealed && (log.last_seq < EPOCH_GAP || log.made_at + FORGETFUL < now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_replaces_another_remembers_nothing_for_a_while() {
        let now = OffsetDateTime::now_utc();
        let log = |last_seq, age: Duration| LogState {
            first_seq: 1,
            last_seq,
            entries: 0,
            bytes: 0,
            max_bytes: 1,
            made_at: now - age,
            sealed: false,
            closed: false,
        };
        assert!(remembers(&log(10, Duration::ZERO), now));
        assert!(!remembers(&log(EPOCH_GAP, Duration::from_secs(299)), now));
        assert!(remembers(&log(2 * EPOCH_GAP + 7, Duration::from_secs(301)), now));
        assert!(!remembers(&LogState { sealed: true, ..log(10, Duration::ZERO) }, now));
        assert!(!Room::new(1).remembers(0), "nobody has looked");
    }
}
