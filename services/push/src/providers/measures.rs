//! What a provider is measured by.

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use natter_protocol::push::Provider;

use super::Outcome;

/// One provider's numbers, there from the start.
pub struct Measures {
    accepted: Counter,
    gone: Counter,
    refused: Counter,
    retry: Counter,
    seconds: Histogram,
    /// Notices that are with it.
    pub in_flight: Gauge,
    /// Circuits that are open.
    pub open: Gauge,
}

impl std::fmt::Debug for Measures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measures").finish_non_exhaustive()
    }
}

impl Measures {
    /// Of `provider`.
    pub fn of(provider: Provider) -> Self {
        let provider = provider.as_str();
        let sent = |outcome: &'static str| metrics::counter!("natter_push_sent_total", "provider" => provider, "outcome" => outcome);
        Self {
            accepted: sent("accepted"),
            gone: sent("gone"),
            refused: sent("refused"),
            retry: sent("retry"),
            seconds: metrics::histogram!("natter_push_send_seconds", "provider" => provider),
            in_flight: metrics::gauge!("natter_push_in_flight", "provider" => provider),
            open: metrics::gauge!("natter_push_circuits_open", "provider" => provider),
        }
    }

    /// What became of a notice.
    pub fn count(&self, outcome: &Outcome) {
        let counter = match outcome {
            Outcome::Accepted { .. } => &self.accepted,
            Outcome::Gone { .. } => &self.gone,
            Outcome::Refused { .. } => &self.refused,
            Outcome::Retry { .. } => &self.retry,
        };
        counter.increment(1);
    }

    /// How long a provider had one.
    pub fn took(&self, time: Duration) {
        self.seconds.record(time);
    }
}
