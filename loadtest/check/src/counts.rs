use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// What devices did, and what came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub(crate) acked: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) connects: AtomicU64,
    pub(crate) refused_connects: AtomicU64,
    pub(crate) cut: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) resumed: AtomicU64,
    pub(crate) not_resumed: AtomicU64,
    pub(crate) joins: AtomicU64,
    pub(crate) leaves: AtomicU64,
    pub(crate) typed: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Sends that were acked for the first time.
    pub acked: u64,
    /// Sends that were acked as sent before.
    pub duplicates: u64,
    /// Sends that were refused, and are not stored.
    pub failed: u64,
    /// Sends of which nobody knows.
    pub unknown: u64,
    /// Connections that got their `ready`.
    pub connects: u64,
    /// Connections that did not.
    pub refused_connects: u64,
    /// Connections that the checker cut.
    pub cut: u64,
    /// Connections that ended otherwise.
    pub closed: u64,
    /// Connections that were resumed.
    pub resumed: u64,
    /// Connections that asked for it and were not.
    pub not_resumed: u64,
    /// Chats joined.
    pub joins: u64,
    /// Chats left.
    pub leaves: u64,
    /// Typing told.
    pub typed: u64,
}

impl Tally {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            acked: get(&self.acked),
            duplicates: get(&self.duplicates),
            failed: get(&self.failed),
            unknown: get(&self.unknown),
            connects: get(&self.connects),
            refused_connects: get(&self.refused_connects),
            cut: get(&self.cut),
            closed: get(&self.closed),
            resumed: get(&self.resumed),
            not_resumed: get(&self.not_resumed),
            joins: get(&self.joins),
            leaves: get(&self.leaves),
            typed: get(&self.typed),
        }
    }
}
