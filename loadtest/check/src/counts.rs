//! What was done, counted by what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::observations::{Attempt, Kind, Operation, Outcome, Told};

/// What became of the devices' connections.
#[derive(Debug, Default)]
pub struct Tally {
    pub connects: AtomicU64,
    pub refused_connects: AtomicU64,
    pub cut: AtomicU64,
    pub closed: AtomicU64,
}

/// Operations of one kind. Those that are still under way count as unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// All of them.
    pub invoked: u64,
    /// Done, as the cluster said.
    pub ok: u64,
    /// Refused, as the cluster said.
    pub failed: u64,
    /// The rest: no answer has come, or one that says that nobody knows.
    pub unknown: u64,
}

/// What was done until one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Attempts to send over a socket.
    pub sends: Outcomes,
    /// Attempts to send by REST.
    pub rest_sends: Outcomes,
    /// Of those that are ok, how many were recognised as sent before.
    pub duplicates: u64,
    /// Typing started or stopped.
    pub typing: Outcomes,
    /// Chats joined.
    pub joins: Outcomes,
    /// Chats left.
    pub leaves: Outcomes,
    /// Connections that came with a cursor; failed when it was not resumed from.
    pub resumes: Outcomes,
    /// Devices revoked.
    pub revocations: Outcomes,
    /// Connections that got their `ready`.
    pub connects: u64,
    /// Connections that did not.
    pub refused_connects: u64,
    /// Connections that the checker cut.
    pub cut: u64,
    /// Connections that ended otherwise.
    pub closed: u64,
}

impl Tally {
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Outcomes {
    /// An operation done, refused, or neither as far as anybody knows.
    fn count(&mut self, ok: bool, failed: bool) {
        self.invoked += 1;
        self.ok += u64::from(ok);
        self.failed += u64::from(failed);
        self.unknown += u64::from(!ok && !failed);
    }
}

impl Counts {
    /// Of what was recorded so far.
    pub(crate) fn of(attempts: &[Attempt], operations: &[Operation], tally: &Tally) -> Self {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut counts = Self {
            connects: get(&tally.connects),
            refused_connects: get(&tally.refused_connects),
            cut: get(&tally.cut),
            closed: get(&tally.closed),
            ..Self::default()
        };
        for attempt in attempts {
            let by_socket = attempt.turn.is_some();
            let sends = if by_socket { &mut counts.sends } else { &mut counts.rest_sends };
            let acked = matches!(attempt.outcome, Outcome::Acked { .. });
            sends.count(acked, attempt.outcome == Outcome::Failed);
            let duplicate = matches!(attempt.outcome, Outcome::Acked { duplicate: true, .. });
            counts.duplicates += u64::from(duplicate);
        }
        for Operation { kind, told, .. } in operations {
            let outcomes = match kind {
                Kind::Join => &mut counts.joins,
                Kind::Leave => &mut counts.leaves,
                Kind::Typing => &mut counts.typing,
                Kind::Resume => &mut counts.resumes,
                Kind::Revoke => &mut counts.revocations,
            };
            outcomes.count(*told == Told::Ok, matches!(told, Told::Failed(_)));
        }
        counts
    }
}
