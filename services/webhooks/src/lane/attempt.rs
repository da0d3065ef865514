//! One event looked up, where its feed is behind, and told.

use std::time::Duration;

use natter_bus::{Bus, Hooked};
use natter_outbound::Outcome;
use natter_protocol::ids::Seq;
use natter_runtime::causes;
use natter_store::Behind;
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{book::Next, measures, target::Target};

/// What came of one attempt.
pub(super) struct Attempted {
    /// How often the event was tried before, and since when it fails.
    pub(super) before: (u16, Option<OffsetDateTime>),
    /// The event that was to be tried again was not there any more, and this is the one after it.
    pub(super) lost: bool,
    pub(super) result: Tried,
}

/// What that was.
pub(super) enum Tried {
    /// The endpoint was told.
    Told(Hooked, Outcome),
    /// There is nothing to tell of it.
    Unwanted(Hooked),
    /// The feed has nothing up to where it was passed over.
    Nothing(Behind, Seq),
    /// It could not be looked up.
    Unknown(Behind),
    /// Dead letters were told of, or stay.
    Letters,
    /// A test was sent.
    Test(Uuid, Outcome),
}

impl Attempted {
    /// Of nothing that was tried before.
    pub(super) fn of(result: Tried) -> Self {
        Self { before: (0, None), lost: false, result }
    }
}

/// Tells an endpoint of what is next.
pub(super) async fn attempt(target: &Target, bus: &Bus, next: Next) -> Attempted {
    let (event, before, lost) = match next {
        Next::Tell(event) => (event, (0, None), false),
        Next::LookUp(behind, upto) => match bus.next_hooked(behind.feed, behind.seq).await {
            Err(error) => {
                tracing::debug!(error = %causes(&error), "an event cannot be looked up");
                return Attempted::of(Tried::Unknown(behind));
            }
            Ok(found) => {
                let Some(event) = found.filter(|event| event.seq <= upto) else {
                    return Attempted::of(Tried::Nothing(behind, upto));
                };
                // Told before the stream was lost, and filled again.
                if event.log_seq < behind.log_seq {
                    return Attempted::of(Tried::Unwanted(event));
                }
                let other = event.log_seq != behind.log_seq;
                let lost = other && behind.attempts > 0;
                let before = (behind.attempts, behind.failing_since);
                (event, if other { (0, None) } else { before }, lost)
            }
        },
    };
    let began = Instant::now();
    let result = match target.tell(&event).await {
        Some(outcome) => {
            measures::send_seconds().record(began.elapsed());
            Tried::Told(event, outcome)
        }
        None => Tried::Unwanted(event),
    };
    Attempted { before, lost, result }
}

/// When an event that has failed since `failing_since` is tried again, where the next try is to wait for so long;
/// none once it has failed for `give_up`. However long it is to wait, it is tried once more by then.
pub(super) fn next_try(
    failing_since: OffsetDateTime,
    now: OffsetDateTime,
    wait: Duration,
    give_up: Duration,
) -> Option<OffsetDateTime> {
    let last = failing_since + give_up;
    (now < last).then(|| (now + wait).min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_given_up_when_it_has_failed_for_so_long_and_not_for_what_the_endpoint_asks_for()
    {
        let since = OffsetDateTime::UNIX_EPOCH;
        let hours = |hours| Duration::from_hours(hours);
        let tried = |now, wait| next_try(since, since + hours(now), hours(wait), hours(24));
        assert_eq!(tried(0, 1), Some(since + hours(1)));
        assert_eq!(tried(2, 23), Some(since + hours(24)), "asked to wait beyond that");
        assert_eq!(tried(0, 24 * 7), Some(since + hours(24)));
        assert_eq!((tried(24, 1), tried(25, 1)), (None, None));
    }
}
