//! What a run comes to.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{board::Board, used::Used};

/// What one run comes to.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Messages that were stored.
    pub messages: u64,
    /// Deliveries.
    pub deliveries: u64,
    /// From the first message until the last one was sent.
    pub sent: Duration,
    /// From the first message until everybody had heard everything.
    pub heard: Duration,
    /// From when a message was due until it was heard.
    pub latency: Quantiles,
    /// From when a message was due until its sender had the reply.
    pub acks: Quantiles,
    /// CPU-seconds, until the worker had written everything.
    pub used: Used,
    /// Deliveries that did not come.
    pub lost: u64,
    /// Deliveries that came again.
    pub twice: u64,
    /// Deliveries that came after a later one.
    pub disordered: u64,
}

/// In ms.
#[derive(Clone, Copy, Debug)]
pub struct Quantiles {
    /// Half.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p999: f64,
    /// All.
    pub max: f64,
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

impl Figures {
    pub(crate) fn of(
        board: &Board,
        used: Used,
        sent: Duration,
        heard: Duration,
        lost: u64,
    ) -> Self {
        Self {
            messages: board.stored.get(),
            deliveries: board.heard.get(),
            sent,
            heard,
            latency: Quantiles::of(&board.latency.borrow()),
            acks: Quantiles::of(&board.acks.borrow()),
            used,
            lost,
            twice: board.twice.get(),
            disordered: board.disordered.get(),
        }
    }

    /// Deliveries a second.
    pub fn rate(&self) -> f64 {
        self.deliveries as f64 / self.heard.as_secs_f64()
    }

    /// Deliveries for each CPU-second of the gateways.
    pub fn by_gateways(&self) -> f64 {
        self.deliveries as f64 / self.used.gateways
    }

    /// Deliveries for each CPU-second of all servers.
    pub fn by_servers(&self) -> f64 {
        self.deliveries as f64 / self.used.servers()
    }

    /// The driver's own share of what it and the servers used, in percent.
    pub fn driver_share(&self) -> f64 {
        100.0 * self.used.driver / (self.used.driver + self.used.servers())
    }

    /// Deliveries that were wrong in any way.
    pub fn faults(&self) -> u64 {
        self.lost + self.twice + self.disordered
    }
}
