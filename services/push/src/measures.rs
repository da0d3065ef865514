//! What a push worker counts and times, by its names. The push services' own numbers are with them.

use metrics::{Counter, Gauge, Histogram};
use natter_protocol::{
    ids::Shard,
    notify::{PushReason, PushState},
    push::Provider,
};

/// Everything that a worker of so many shards shows, from now on.
pub(crate) fn register(shards: Shard, providers: &[Provider]) {
    for (reason, _) in PushReason::MEANINGS {
        drop(skipped(*reason));
    }
    drop([notified(), failures(), presence_unknown(), requeued(), forgotten()]);
    drop([decide_seconds(), latency_seconds()]);
    for shard in 0..shards {
        held(shard).set(0.0);
        queue_fullness(shard).set(0.0);
    }
    for provider in providers {
        queue_waiting(*provider).set(0.0);
        queue_age_seconds(*provider).set(0.0);
        for state in ENDS {
            drop(ended(*provider, state));
        }
    }
}

/// How notifications end.
const ENDS: [PushState; 5] = [
    PushState::Delivered,
    PushState::Gone,
    PushState::Refused,
    PushState::Cancelled,
    PushState::GivenUp,
];

/// Devices that are to be notified of a message.
pub(crate) fn notified() -> Counter {
    metrics::counter!("natter_push_notified_total")
}

/// Recipients who are not.
pub(crate) fn skipped(reason: PushReason) -> Counter {
    metrics::counter!("natter_push_skipped_total", "reason" => reason.as_str())
}

/// Messages that are held until it is decided about them.
pub(crate) fn held(shard: Shard) -> Gauge {
    metrics::gauge!("natter_push_held", "shard" => shard.to_string())
}

/// Rounds of deciding, and batches of sending, that failed and are done again.
pub(crate) fn failures() -> Counter {
    metrics::counter!("natter_push_failures_total")
}

/// Pages of recipients of whom nobody could tell who is online.
pub(crate) fn presence_unknown() -> Counter {
    metrics::counter!("natter_push_presence_unknown_total")
}

/// Notifications queued again, of a queue that was lost.
pub(crate) fn requeued() -> Counter {
    metrics::counter!("natter_push_requeued_total")
}

/// Rows removed, as their time is over.
pub(crate) fn forgotten() -> Counter {
    metrics::counter!("natter_push_forgotten_total")
}

/// How long it took to decide about the messages of some chats that were due together.
pub(crate) fn decide_seconds() -> Histogram {
    metrics::histogram!("natter_push_decide_seconds")
}

/// From a message's being stored until a push service had a notification of it.
pub(crate) fn latency_seconds() -> Histogram {
    metrics::histogram!("natter_push_latency_seconds")
}

/// Notifications that have ended.
pub(crate) fn ended(provider: Provider, state: PushState) -> Counter {
    let (provider, state) = (provider.as_str(), state.as_str());
    metrics::counter!("natter_push_ended_total", "provider" => provider, "state" => state)
}

/// Notifications in the queues, those in hand among them.
pub(crate) fn queue_waiting(provider: Provider) -> Gauge {
    metrics::gauge!("natter_push_queue_waiting", "provider" => provider.as_str())
}

/// How long the oldest of them has been there.
pub(crate) fn queue_age_seconds(provider: Provider) -> Gauge {
    metrics::gauge!("natter_push_queue_age_seconds", "provider" => provider.as_str())
}

/// How full a shard's queue is, 0 to 1.
pub(crate) fn queue_fullness(shard: Shard) -> Gauge {
    metrics::gauge!("natter_push_queue_fullness", "shard" => shard.to_string())
}
