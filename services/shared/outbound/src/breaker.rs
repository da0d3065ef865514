//! Circuits: who fails again and again is left alone for a while, and then tried with one request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use metrics::Gauge;
use tokio::time::Instant;

/// Pauses get longer up to this many times the first.
const LONGEST: u32 = 10;
/// Asked to stay away for longer, we look again after this.
const PATIENCE: Duration = Duration::from_mins(10);
/// While one request tries, the others look again after this.
const PROBING: Duration = Duration::from_secs(1);
/// Circuits that are remembered at most: origins of Web Push, of which hosts below an allowed one may be
/// many.
const CIRCUITS: usize = 1_000;

/// Circuits, one an origin or whatever else is left alone by itself: one that fails is no reason to leave the
/// others alone.
#[derive(Debug)]
pub struct Circuits {
    failures: u32,
    pause: Duration,
    open: Gauge,
    of: Mutex<HashMap<String, Arc<Circuit>>>,
}

/// One circuit.
#[derive(Debug)]
pub struct Circuit {
    failures: u32,
    pause: Duration,
    open: Gauge,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failed: u32,
    /// Pauses in a row.
    pauses: u32,
    /// The pause's end, from when one may try.
    until: Option<Instant>,
    /// One tries.
    probing: bool,
}

impl Circuits {
    /// All closed; `failures` in a row open one for `pause`. `open` counts those that are.
    #[must_use]
    pub fn new(failures: u32, pause: Duration, open: Gauge) -> Self {
        open.set(0.0);
        Self { failures, pause, open, of: Mutex::default() }
    }

    /// The circuit of an origin.
    #[must_use]
    pub fn of(&self, origin: &str) -> Arc<Circuit> {
        let mut circuits = lock(&self.of);
        if let Some(circuit) = circuits.get(origin) {
            return circuit.clone();
        }
        if circuits.len() >= CIRCUITS {
            circuits.retain(|_, circuit| circuit.troubled());
        }
        let circuit = Arc::new(Circuit {
            failures: self.failures,
            pause: self.pause,
            open: self.open.clone(),
            state: Mutex::default(),
        });
        if circuits.len() < CIRCUITS {
            circuits.insert(origin.to_owned(), circuit.clone());
        }
        circuit
    }

    /// Forgets the circuits that are not of these, since nothing is sent there any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        lock(&self.of).retain(|origin, _| wanted(origin));
    }

    /// How many may be sent now: `all`, or one to try each circuit that has been open for long enough,
    /// while there is none that is closed.
    #[must_use]
    pub fn room(&self, all: usize) -> usize {
        let circuits = lock(&self.of);
        if circuits.is_empty() || circuits.values().any(|circuit| circuit.closed()) {
            return all;
        }
        circuits.values().filter(|circuit| circuit.ready().is_ok()).count().min(all)
    }

    /// Whether anything can be sent, or when that may be so: all that is known is open.
    ///
    /// # Errors
    /// For how long.
    pub fn ready(&self) -> Result<(), Duration> {
        let circuits = lock(&self.of);
        let mut soonest: Option<Duration> = None;
        for circuit in circuits.values() {
            let Err(wait) = circuit.ready() else { return Ok(()) };
            soonest = Some(soonest.map_or(wait, |soonest| soonest.min(wait)));
        }
        soonest.map_or(Ok(()), Err)
    }
}

impl Circuit {
    /// Lets one through, or tells for how long it does not. What becomes of it is to be said of the
    /// pass; dropped without, it was as if it had not been.
    ///
    /// # Errors
    /// For how long.
    pub fn admit(self: &Arc<Self>) -> Result<Pass, Duration> {
        let mut state = lock(&self.state);
        state.ready()?;
        let probe = state.until.is_some();
        state.probing = probe;
        Ok(Pass { circuit: self.clone(), probe })
    }

    fn ready(&self) -> Result<(), Duration> {
        lock(&self.state).ready()
    }

    fn closed(&self) -> bool {
        lock(&self.state).until.is_none()
    }

    fn troubled(&self) -> bool {
        lock(&self.state).failed > 0
    }
}

/// One that nobody uses any more is none of those that are open.
impl Drop for Circuit {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.until.is_some() {
            self.open.decrement(1.0);
        }
    }
}

impl State {
    fn ready(&self) -> Result<(), Duration> {
        match self.until {
            None => Ok(()),
            Some(_) if self.probing => Err(PROBING),
            Some(until) => match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Ok(()),
                wait => Err(wait),
            },
        }
    }
}

/// One that was let through.
#[derive(Debug)]
#[must_use]
pub struct Pass {
    circuit: Arc<Circuit>,
    probe: bool,
}

impl Pass {
    /// It was dealt with, whatever the answer said.
    pub fn succeeded(self) {
        let mut state = lock(&self.circuit.state);
        // What was on its way when the circuit opened says nothing about now.
        if state.until.is_none() || self.probe {
            if state.until.is_some() {
                self.circuit.open.decrement(1.0);
            }
            *state = State::default();
        }
    }

    /// It was not, and nothing is wanted for `after` if the answer said so.
    pub fn failed(self, after: Option<Duration>) {
        let mut state = lock(&self.circuit.state);
        state.failed = state.failed.saturating_add(1);
        let opens = state.until.is_none() && state.failed >= self.circuit.failures;
        if !opens && !self.probe {
            return;
        }
        if opens {
            self.circuit.open.increment(1.0);
        }
        state.pauses = (state.pauses + 1).min(LONGEST);
        let longer = 1 << (state.pauses - 1).min(LONGEST.ilog2() + 1);
        let pause = self.circuit.pause * longer.min(LONGEST);
        let pause = pause.max(after.unwrap_or_default().min(PATIENCE));
        state.until = Some(Instant::now() + pause);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if self.probe {
            lock(&self.circuit.state).probing = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::advance;

    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn circuits() -> Circuits {
        Circuits::new(3, PAUSE, Gauge::noop())
    }

    fn fail(circuit: &Arc<Circuit>) {
        circuit.admit().expect("is closed").failed(None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_that_succeeds_closes_it() {
        let circuits = circuits();
        let circuit = circuits.of("a");
        fail(&circuit);
        fail(&circuit);
        circuit.admit().expect("is closed").succeeded();
        fail(&circuit);
        fail(&circuit);
        assert_eq!((circuits.ready(), circuits.room(64)), (Ok(()), 64));
        fail(&circuit);
        assert_eq!(circuit.admit().expect_err("is open"), PAUSE);
        assert_eq!((circuits.ready(), circuits.room(64)), (Err(PAUSE), 0));

        advance(PAUSE).await;
        assert_eq!((circuits.ready(), circuits.room(64)), (Ok(()), 1));
        let probe = circuit.admit().expect("one may try");
        assert_eq!((circuits.ready(), circuits.room(64)), (Err(PROBING), 0));
        assert_eq!(circuit.admit().expect_err("one at a time"), PROBING);
        probe.succeeded();
        drop((circuit.admit().expect("is closed"), circuit.admit().expect("is closed")));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_get_longer_up_to_a_bound() {
        let circuit = circuits().of("a");
        (0..3).for_each(|_| fail(&circuit));
        for times in [1, 2, 4, 8, 10, 10] {
            let pause = PAUSE * times;
            assert_eq!(circuit.admit().expect_err("is open"), pause);
            advance(pause).await;
            circuit.admit().expect("one may try").failed(None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_is_kept_within_reason() {
        for (asked, pause) in [(20, 20), (1, 10), (86_400, 600)] {
            let circuit = circuits().of("a");
            fail(&circuit);
            fail(&circuit);
            let asked = Duration::from_secs(asked);
            circuit.admit().expect("is closed").failed(Some(asked));
            assert_eq!(circuit.admit().expect_err("is open"), Duration::from_secs(pause));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_leaves_room_for_another() {
        let circuit = circuits().of("a");
        (0..3).for_each(|_| fail(&circuit));
        advance(PAUSE).await;
        drop(circuit.admit().expect("one may try"));
        circuit.admit().expect("another may").succeeded();
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_late_neither_closes_nor_prolongs() {
        let circuit = circuits().of("a");
        let late: Vec<_> = (0..2).map(|_| circuit.admit().expect("is closed")).collect();
        (0..3).for_each(|_| fail(&circuit));
        for (pass, succeeds) in late.into_iter().zip([true, false]) {
            if succeeds {
                pass.succeeded();
            } else {
                pass.failed(None);
            }
            assert_eq!(circuit.admit().expect_err("is open"), PAUSE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_origin_that_fails_leaves_the_others_alone() {
        let circuits = circuits();
        (0..3).for_each(|_| fail(&circuits.of("a")));
        assert_eq!(circuits.ready(), Err(PAUSE));
        drop(circuits.of("b").admit().expect("is closed"));
        assert_eq!((circuits.ready(), circuits.room(64)), (Ok(()), 64));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_uses_any_more_is_not_counted_as_open() {
        let shown = Arc::new(AtomicU64::default());
        let open = || f64::from_bits(shown.load(Ordering::Relaxed)) as u64;
        let circuits = Circuits::new(3, PAUSE, Gauge::from_arc(shown.clone()));
        let gone = circuits.of("gone");
        for origin in ["gone", "stays"] {
            (0..3).for_each(|_| fail(&circuits.of(origin)));
        }
        assert_eq!(open(), 2);
        circuits.retain(|origin| origin == "stays");
        assert_eq!(open(), 2, "somebody has it yet");
        drop(gone);
        assert_eq!(open(), 1);
        assert!(circuits.of("gone").admit().is_ok(), "another of the same name is new");
    }

    #[tokio::test(start_paused = true)]
    async fn origins_are_remembered_up_to_a_bound() {
        let circuits = circuits();
        fail(&circuits.of("kept"));
        for origin in 0..2 * CIRCUITS {
            drop(circuits.of(&origin.to_string()));
        }
        let known = lock(&circuits.of);
        assert!(known.len() <= CIRCUITS && known.contains_key("kept"));
    }
}
