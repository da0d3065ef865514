//! What is counted of the connections to NATS, and of following feeds.

use metrics::Counter;

/// The connection was lost.
pub(crate) fn disconnects() -> Counter {
    metrics::counter!("natter_bus_disconnects_total")
}

/// A subscription did not take what the server sent.
pub(crate) fn slow_consumers() -> Counter {
    metrics::counter!("natter_bus_slow_consumers_total")
}

/// A feed had a hole, and is read from the log.
pub(crate) fn repairs() -> Counter {
    metrics::counter!("natter_follow_repairs_total")
}

/// A feed was cut before it was read.
pub(crate) fn lost() -> Counter {
    metrics::counter!("natter_follow_lost_total")
}

/// What every program counts, from now on.
pub(crate) fn register_connection() {
    drop([disconnects(), slow_consumers()]);
}

/// What those count that follow feeds.
pub(crate) fn register_following() {
    drop([repairs(), lost()]);
}
