//! What the fan-out is measured by. Handles are looked up once: it is the busiest path there is.

use metrics::{Counter, Histogram};
use natter_bus::follow::Arrival;
use time::OffsetDateTime;

/// See the module.
pub struct Measures {
    deliveries: Counter,
    delay: Histogram,
}

impl Measures {
    /// Of this process's recorder.
    pub fn new() -> Self {
        Self {
            deliveries: metrics::counter!("natter_deliveries_total"),
            delay: metrics::histogram!("natter_fan_out_seconds"),
        }
    }

    /// An entry has been queued for so many connections. The delay is that since the broker stored
    /// it, by the clocks of both.
    pub fn fanned_out(&self, arrival: &Arrival, connections: u64) {
        self.deliveries.increment(connections);
        let delay = OffsetDateTime::now_utc() - arrival.at;
        self.delay.record(delay.as_seconds_f64().max(0.0));
    }
}
