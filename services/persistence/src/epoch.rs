//! Whether a shard's log is the one that Postgres knows; when it is not, a new epoch.
//!
//! | the log | then |
//! |---|---|
//! | is missing, and always was | made, epoch 1 |
//! | is missing, and was there | made anew, 1,000,000,000 above all that was given |
//! | ends before what is written, or was stored anew beyond it | has lost its end: made anew likewise |
//! | starts after what is written | taken as it is, in a new epoch; what lies between is lost |
//! | goes on where Postgres ends | read on |
//!
//! `start_epoch` comes before the stream is made, since it lets one worker through, and only while
//! it owns the shard; one that dies between the two leaves a log that is missing, or ends before
//! the new epoch, and so another epoch. One that stands still in between finds the log of whoever
//! went on, and leaves it alone.

use natter_bus::{Bus, BusError, LogConfig, LogState, PublishError};
use natter_protocol::ids::Seq;
use natter_store::{ShardRow, Store, StoreError};
use time::Duration;

use crate::salvage;

/// How far a new epoch starts above the one before: more than a shard stores between two looks
/// of the worker, whatever it was that the old log lost.
pub(crate) const EPOCH_GAP: Seq = 1_000_000_000;
/// Of a time in Postgres.
pub(crate) const PRECISION: Duration = Duration::milliseconds(1);

/// Why a shard's log cannot be used just now.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The position cannot be read or moved; `Fenced` when another worker did.
    #[error("the shard's position")]
    Store(#[from] StoreError),
    /// The log cannot be looked at or made.
    #[error("the shard's log")]
    Bus(#[from] BusError),
    /// What the log that is made anew has to keep cannot be published.
    #[error("the end of the old log")]
    Publish(#[from] PublishError),
}

/// Makes sure that the log is there, goes on from what `row` says, and is kept as `config` says.
/// Returns the row as it is then.
pub(crate) async fn open_log(
    store: &Store,
    bus: &Bus,
    config: &LogConfig,
    row: ShardRow,
) -> Result<ShardRow, EpochError> {
    let shard = row.shard;
    let Some(log) = bus.log_state(shard).await? else {
        if row.epoch > 0 {
            tracing::error!(shard, epoch = row.epoch, "the shard's log is gone");
        }
        let first_seq = first_of_next(&row);
        let row = start(store, &row, first_seq).await?;
        bus.ensure_log(shard, config, Some(first_seq)).await?;
        return Ok(row);
    };
    bus.ensure_log(shard, config, None).await?;
    if row.epoch == 0 {
        // The database is new and the log is not.
        return start(store, &row, log.first_seq).await;
    }
    if log.first_seq > row.persisted_seq + 1 {
        tracing::error!(
            shard,
            persisted = row.persisted_seq,
            first = log.first_seq,
            "the log starts after what is written"
        );
        return start(store, &row, log.first_seq).await;
    }
    if !has_lost_its_end(bus, &row, &log).await? {
        return Ok(row);
    }
    tracing::error!(
        shard,
        persisted = row.persisted_seq,
        last = log.last_seq,
        "the log has lost its end"
    );
    let unwritten = salvage::keep(bus, &row, &log).await?;
    let first_seq = first_of_next(&row).max(log.last_seq + EPOCH_GAP);
    let row = start(store, &row, first_seq).await?;
    bus.replace_log(shard, config, first_seq, log.made_at).await?;
    salvage::publish_again(bus, unwritten).await?;
    Ok(row)
}

/// A log whose server lost what was not synced ends before what is written, or has stored
/// something else there since, which must then be younger.
async fn has_lost_its_end(bus: &Bus, row: &ShardRow, log: &LogState) -> Result<bool, BusError> {
    if log.last_seq < row.persisted_seq {
        return Ok(true);
    }
    if row.persisted_seq < log.first_seq {
        return Ok(false);
    }
    let stored_at = bus.stored_at(row.shard, row.persisted_seq).await?;
    Ok(stored_at.is_some_and(|at| at > row.persisted_at + PRECISION))
}

fn first_of_next(row: &ShardRow) -> Seq {
    if row.epoch == 0 { 1 } else { row.persisted_seq.max(row.first_seq) + EPOCH_GAP }
}

async fn start(store: &Store, row: &ShardRow, first_seq: Seq) -> Result<ShardRow, EpochError> {
    let owner = row.owner.as_deref();
    let started = store.start_epoch(row.shard, row.epoch + 1, first_seq, owner).await?;
    tracing::warn!(shard = row.shard, epoch = started.epoch, first_seq, "a new epoch");
    metrics::counter!("natter_persistence_epochs_total").increment(1);
    Ok(started)
}
