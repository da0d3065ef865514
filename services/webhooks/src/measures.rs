//! What is counted and timed, by its names.

use metrics::{Counter, Gauge, Histogram};
use natter_protocol::ids::Shard;

/// Where events were dropped before an endpoint was told of them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lost {
    /// By the log, before they were kept.
    Log,
    /// By their stream: too old, or too many.
    Stream,
    /// As dead letters: too old, or too many.
    Letters,
}

/// All that does not name an endpoint, from now on.
pub(crate) fn register(shards: Shard) {
    drop([stored(), failures(), lost(Lost::Log), lost(Lost::Stream), lost(Lost::Letters)]);
    drop([send_seconds(), latency_seconds()]);
    lanes().set(0.0);
    for shard in 0..shards {
        fullness(shard).set(0.0);
    }
}

/// Events put into the streams.
pub(crate) fn stored() -> Counter {
    metrics::counter!("natter_webhook_stored_total")
}

/// What failed on our side, and is done again.
pub(crate) fn failures() -> Counter {
    metrics::counter!("natter_webhook_failures_total")
}

/// Events that were dropped before they could be told.
pub(crate) fn lost(at: Lost) -> Counter {
    let at = match at {
        Lost::Log => "log",
        Lost::Stream => "stream",
        Lost::Letters => "letters",
    };
    metrics::counter!("natter_webhook_lost_total", "where" => at)
}

/// Endpoints and shards that this worker tells.
pub(crate) fn lanes() -> Gauge {
    metrics::gauge!("natter_webhook_lanes")
}

/// How full a shard's stream is, 0 to 1.
pub(crate) fn fullness(shard: Shard) -> Gauge {
    metrics::gauge!("natter_webhook_stream_fullness", "shard" => shard.to_string())
}

/// Endpoints that are left alone for now.
pub(crate) fn circuits_open() -> Gauge {
    metrics::gauge!("natter_webhook_circuits_open")
}

/// How long an endpoint took to answer.
pub(crate) fn send_seconds() -> Histogram {
    metrics::histogram!("natter_webhook_send_seconds")
}

/// From an event's being stored until its endpoint had it.
pub(crate) fn latency_seconds() -> Histogram {
    metrics::histogram!("natter_webhook_latency_seconds")
}

/// What is counted of an endpoint and a shard.
pub(crate) struct LaneMeasures {
    /// Told.
    pub(crate) accepted: Counter,
    /// Failed, and tried again.
    pub(crate) retry: Counter,
    /// The endpoint says that it is none any more.
    pub(crate) gone: Counter,
    /// Given up.
    pub(crate) letters: Counter,
    /// Events that are yet to be told.
    pub(crate) lag: Gauge,
    /// How long the oldest of them has been stored.
    pub(crate) lag_seconds: Gauge,
    /// Feeds that wait by themselves.
    pub(crate) behind: Gauge,
}

impl LaneMeasures {
    /// Of an endpoint, by its name, and a shard.
    pub(crate) fn of(endpoint: &str, shard: Shard) -> Self {
        let (endpoint, shard) = (endpoint.to_owned(), shard.to_string());
        let sent = |outcome: &'static str| metrics::counter!("natter_webhook_sent_total", "endpoint" => endpoint.clone(), "outcome" => outcome);
        Self {
            accepted: sent("accepted"),
            retry: sent("retry"),
            gone: sent("gone"),
            letters: metrics::counter!("natter_webhook_dead_letters_total", "endpoint" => endpoint.clone()),
            lag: metrics::gauge!("natter_webhook_lag_events", "endpoint" => endpoint.clone(), "shard" => shard.clone()),
            lag_seconds: metrics::gauge!("natter_webhook_lag_seconds", "endpoint" => endpoint.clone(), "shard" => shard.clone()),
            behind: metrics::gauge!("natter_webhook_behind", "endpoint" => endpoint.clone(), "shard" => shard.clone()),
        }
    }
}

/// Another worker shows them from here on.
impl Drop for LaneMeasures {
    fn drop(&mut self) {
        self.lag.set(0.0);
        self.lag_seconds.set(0.0);
        self.behind.set(0.0);
    }
}
