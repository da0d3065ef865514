//! What a log that is made anew leaves: entries that were acked and are not in Postgres. They go
//! over into the log that takes its place, by way of a stream of their own.
//!
//! Nothing is cut, and whoever dies on the way is followed: what is kept stays until it has been
//! published again, and each owner publishes what it finds. Both steps are idempotent by the
//! entries' message ids.

use std::time::Duration;

use natter_bus::{Bus, BusError, LogState, Publishing, Raw};
use natter_protocol::ids::{Seq, Shard};
use natter_store::ShardRow;

use crate::epoch::{EpochError, PRECISION};

/// Entries on their way at once, so much less than the bus lets wait.
const BATCH: usize = 1_000;
const WAIT: Duration = Duration::from_secs(2);

/// Keeps what a sealed log holds from a place on, which is what Postgres does not have.
pub(crate) async fn keep(
    bus: &Bus,
    shard: Shard,
    log: &LogState,
    from: Seq,
) -> Result<u64, EpochError> {
    let mut reader = bus.log_reader(shard, from);
    let mut kept = 0;
    while reader.next_seq() <= log.last_seq {
        let batch = reader.next_batch(BATCH, WAIT).await?;
        settle(&batch, |raw| bus.keep(raw)).await?;
        kept += batch.len() as u64;
    }
    Ok(kept)
}

/// Publishes what is kept into the shard's log, under the same message ids, and forgets it; closed
/// or open. Returns how much it was.
///
/// # Errors
/// When the log does not take it just now, or is full: what is left stays kept.
pub async fn carry_over(bus: &Bus, shard: Shard) -> Result<u64, EpochError> {
    let Some(kept) = bus.kept(shard).await? else { return Ok(0) };
    let closed = bus.log_state(shard).await?.is_some_and(|log| log.closed);
    let mut reader = bus.kept_reader(shard, kept.first);
    let mut next = kept.first;
    while next <= kept.last {
        let batch = reader.next_batch(BATCH, WAIT).await?;
        settle(&batch, |raw| if closed { bus.carry(raw) } else { bus.publish_again(raw) }).await?;
        // At once, so that one who comes after this has little to repeat: beyond the broker's
        // window a repetition would be another entry.
        let last = batch.last().map_or(next, |raw| raw.seq);
        bus.forget_kept(shard, last).await?;
        next = last + 1;
    }
    tracing::warn!(shard, entries = kept.entries, "carried over what the log before had taken");
    Ok(kept.entries)
}

/// Sends a batch and waits until all of it is stored. A batch that is empty was not read in time.
async fn settle<E>(
    batch: &[Raw],
    send: impl Fn(&Raw) -> Result<Publishing, E>,
) -> Result<(), EpochError>
where
    EpochError: From<E>,
{
    if batch.is_empty() {
        return Err(BusError::Timeout.into());
    }
    let sent: Vec<Publishing> = batch.iter().map(send).collect::<Result<_, _>>()?;
    for publishing in sent {
        publishing.await?;
    }
    Ok(())
}

/// Where what Postgres does not have begins. In a log that still holds what was written last, that
/// is after it. One that has lost it has stored other things in its place, which are younger; what
/// it has not lost is older, and written.
pub(crate) async fn first_unwritten(
    bus: &Bus,
    row: &ShardRow,
    log: &LogState,
) -> Result<Seq, BusError> {
    let after = row.persisted_seq + 1;
    let youngest_written = row.persisted_at + PRECISION;
    if after <= log.first_seq {
        return Ok(log.first_seq);
    }
    let is_younger = async |seq| -> Result<bool, BusError> {
        let at = bus.stored_at(row.shard, seq).await?;
        // A log has no holes. Should it have one here, nothing of it is passed over.
        Ok(at.is_none_or(|at| at > youngest_written))
    };
    if row.persisted_seq <= log.last_seq && !is_younger(row.persisted_seq).await? {
        return Ok(after);
    }
    let (mut low, mut high) = (log.first_seq, log.last_seq + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_younger(middle).await? {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}
