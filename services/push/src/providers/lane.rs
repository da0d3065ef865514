//! What each provider has for itself: places, a deadline, circuits, numbers. So one that is dead slows no
//! other.

use std::{future::Future, time::Duration};

use metrics::Gauge;
use natter_outbound::breaker::Circuits;
use natter_protocol::push::Provider;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{Answer, Outcome, config::Bounds, measures::Measures};

/// One provider's.
#[derive(Debug)]
pub struct Lane {
    places: Semaphore,
    concurrency: usize,
    deadline: Duration,
    circuits: Circuits,
    measures: Measures,
}

impl Lane {
    /// For `provider`.
    pub fn new(provider: Provider, bounds: &Bounds) -> Self {
        let measures = Measures::of(provider);
        Self {
            places: Semaphore::new(bounds.concurrency),
            concurrency: bounds.concurrency,
            deadline: bounds.deadline,
            circuits: Circuits::new(bounds.failures, bounds.pause, measures.open.clone()),
            measures,
        }
    }

    /// See [`super::Providers::ready`].
    pub fn ready(&self) -> Result<(), Duration> {
        self.circuits.ready()
    }

    /// See [`super::Providers::room`].
    pub fn room(&self) -> usize {
        self.circuits.room(self.concurrency)
    }

    /// How many places there are.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// `delivering` to `origin`, when there is a place and the circuit lets it, up to the deadline.
    pub async fn carry(&self, origin: &str, delivering: impl Future<Output = Outcome>) -> Outcome {
        // Nobody closes it.
        let Ok(_place) = self.places.acquire().await else {
            return Outcome::Retry { after: None, answer: Answer::new("no place"), sent: false };
        };
        // Only now: what waits for a place while the circuit opens is not sent any more.
        let pass = match self.circuits.of(origin).admit() {
            Ok(pass) => pass,
            Err(wait) => {
                let answer = Answer::new("not sent: it has failed too often just now");
                return Outcome::Retry { after: Some(wait), answer, sent: false };
            }
        };
        let _in_flight = InFlight::new(&self.measures.in_flight);
        let began = Instant::now();
        let outcome = match timeout(self.deadline, delivering).await {
            Ok(outcome) => outcome,
            Err(_) => {
                Outcome::Retry { after: None, answer: Answer::new("no answer in time"), sent: true }
            }
        };
        self.measures.took(began.elapsed());
        match outcome {
            Outcome::Retry { after, .. } => pass.failed(after),
            _ => pass.succeeded(),
        }
        outcome
    }

    /// Counts what became of a notice.
    pub fn count(&self, outcome: &Outcome) {
        self.measures.count(outcome);
    }
}

/// Counts one that is with the provider, also when it is given up.
struct InFlight<'a>(&'a Gauge);

impl<'a> InFlight<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
