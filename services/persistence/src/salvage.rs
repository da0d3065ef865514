//! A log that lost its end may have gone on storing before anybody noticed. Those entries were
//! acked, so they go over into the log that takes its place.

use std::time::Duration;

use natter_bus::{Bus, BusError, LogState, Raw};
use natter_store::ShardRow;

use crate::epoch::{EpochError, PRECISION};

/// Entries looked through from the log's end, at most; a worker looks at its log at least every
/// few seconds.
const LOOKED_THROUGH: u64 = 50_000;
const BATCH: usize = 1_000;
const REASON: &str = "stored by a log that had lost its end; published again in the next epoch";
const WAIT: Duration = Duration::from_secs(2);

/// What the log stored after the last thing that is written; what it held before and has not
/// lost is written already, since it is older. Each is a dead letter before this returns: should
/// the worker die before it has published them again, that is where an operator finds them.
pub(crate) async fn keep(
    bus: &Bus,
    row: &ShardRow,
    log: &LogState,
) -> Result<Vec<Raw>, EpochError> {
    let from = log.first_seq.max(log.last_seq.saturating_sub(LOOKED_THROUGH) + 1);
    let mut reader = bus.log_reader(row.shard, from);
    let mut unwritten = Vec::new();
    while reader.next_seq() <= log.last_seq {
        let batch = reader.next_batch(BATCH, WAIT).await?;
        if batch.is_empty() {
            return Err(BusError::Timeout.into());
        }
        unwritten.extend(batch.into_iter().filter(|raw| raw.at > row.persisted_at + PRECISION));
    }
    for raw in &unwritten {
        bus.dead_letter(row.shard, raw.seq, &raw.subject, REASON, raw.body.clone()).await?;
    }
    Ok(unwritten)
}

/// Publishes them again, under the same message ids.
pub(crate) async fn publish_again(bus: &Bus, unwritten: Vec<Raw>) -> Result<(), EpochError> {
    for raw in unwritten {
        bus.publish_again(&raw)?.await?;
    }
    Ok(())
}
