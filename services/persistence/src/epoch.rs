//! Whether a shard's log is the one that Postgres knows; when it is not, a new epoch.
//!
//! | the log | then |
//! |---|---|
//! | is missing, and always was | made, epoch 1 |
//! | is missing, and was there | made anew, 1,000,000,000 above all that was given |
//! | ends before what is written or was read, or was stored anew beyond it | has lost its end: made anew likewise |
//! | is sealed | its owner died while it made it anew: made anew likewise |
//! | is closed | its owner died before it opened it: carried over into, and opened |
//! | starts after what is written | taken as it is, in a new epoch; what lies between is lost |
//! | goes on where Postgres ends | read on |
//!
//! To make it anew: the log is sealed, so that nothing is acked that nobody looks at; what it holds
//! and Postgres does not is kept elsewhere; what webhooks have not looked at of the rest is added to their
//! stream of events; the epoch is started; the log is deleted and made, closed; what was kept is published
//! into it; it is opened. Whoever dies in between leaves a log that is sealed, missing or closed, and the
//! next owner goes on from that.
//!
//! Closed, it takes only what is carried over, so that nothing said later comes before that. It
//! remembers no message ids from before either: it stays closed for [`natter_bus::CLOSED_FOR`], until every
//! gateway has seen that it is another one, and looks messages that come again up in Postgres.
//!
//! `start_epoch` comes before the stream is made, since it lets one worker through, and only while
//! it owns the shard. One that stands still in between finds the log of whoever went on, and leaves
//! it alone.

use natter_bus::{Bus, BusError, LogConfig, LogState, PublishError};
use natter_protocol::ids::{EPOCH_GAP, Seq, Shard};
use natter_store::{ShardRow, Store, StoreError};
use time::{Duration, OffsetDateTime};
use tokio::time::sleep;

use crate::{measures, salvage, untold};

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

/// An entry that was read, and is therefore in the log for as long as that has not lost its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// In which epoch.
    pub epoch: i32,
    /// Its place.
    pub seq: Seq,
    /// When the broker stored it.
    pub at: OffsetDateTime,
}

/// Makes sure that the log is there, goes on from what `row` says, and is kept as `config` says.
/// Returns the row as it is then. `seen` is the last entry that was read of it, if any was: with
/// Postgres behind, it tells more than the row of where the log must at least end. One that replaces
/// another stays closed for `closed_for`: [`natter_bus::CLOSED_FOR`] where gateways are.
pub(crate) async fn open_log(
    store: &Store,
    bus: &Bus,
    config: &LogConfig,
    closed_for: std::time::Duration,
    row: ShardRow,
    seen: Option<Seen>,
) -> Result<ShardRow, EpochError> {
    let row = find_log(store, bus, config, row, seen).await?;
    let shard = row.shard;
    carry_over(bus, shard).await?;
    if bus.log_state(shard).await?.is_some_and(|log| log.closed) {
        sleep(closed_for).await;
        bus.open_log(shard).await?;
    }
    Ok(row)
}

async fn find_log(
    store: &Store,
    bus: &Bus,
    config: &LogConfig,
    row: ShardRow,
    seen: Option<Seen>,
) -> Result<ShardRow, EpochError> {
    let shard = row.shard;
    let seen = seen.filter(|seen| seen.epoch == row.epoch);
    let Some(log) = bus.update_log(shard, config).await? else {
        let first_seq = first_of_next(&row, seen);
        if row.epoch == 0 {
            let row = start(store, &row, first_seq).await?;
            bus.ensure_log(shard, config, Some(first_seq)).await?;
            return Ok(row);
        }
        tracing::error!(shard, epoch = row.epoch, "the shard's log is gone");
        let lost = untold::gone(store, bus, config.replicas, &row).await;
        let row = start(store, &row, first_seq).await?;
        bus.create_closed_log(shard, config, first_seq).await?;
        untold::count(store, shard, lost).await;
        return Ok(row);
    };
    if row.epoch == 0 {
        // The database is new and the log is not.
        return start(store, &row, log.first_seq).await;
    }
    if log.sealed || has_lost_its_end(bus, &row, seen, &log).await? {
        tracing::error!(
            shard,
            persisted = row.persisted_seq,
            seen = seen.map(|seen| seen.seq),
            last = log.last_seq,
            sealed = log.sealed,
            "the log has lost its end"
        );
        return make_anew(store, bus, config, row, seen, &log).await;
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
    Ok(row)
}

async fn make_anew(
    store: &Store,
    bus: &Bus,
    config: &LogConfig,
    row: ShardRow,
    seen: Option<Seen>,
    log: &LogState,
) -> Result<ShardRow, EpochError> {
    let shard = row.shard;
    // Nothing moves, but it fails for one who has stood still and lost the shard, and must not
    // seal the log of whoever went on.
    let (position, owner) = (row.persisted_seq, row.owner.clone().unwrap_or_default());
    store.persist(shard, &owner, position, position, row.persisted_at, &[]).await?;
    let log = bus.seal_log(shard, log.made_at).await?;
    bus.ensure_kept(shard, config.replicas).await?;
    let unwritten = salvage::first_unwritten(bus, &row, &log).await?;
    let kept = salvage::keep(bus, shard, &log, unwritten).await?;
    tracing::warn!(shard, kept, "kept what the log holds and Postgres does not");
    let lost = untold::hand_over(store, bus, config.replicas, (shard, &log, unwritten)).await;
    let first_seq = first_of_next(&row, seen).max(log.last_seq + EPOCH_GAP);
    let row = start(store, &row, first_seq).await?;
    bus.replace_log(shard, config, first_seq, log.made_at).await?;
    untold::count(store, shard, lost).await;
    Ok(row)
}

/// A log that is full must not keep its owner from writing what would make room: what is left is
/// carried over while it works.
async fn carry_over(bus: &Bus, shard: Shard) -> Result<(), EpochError> {
    match salvage::carry_over(bus, shard).await {
        Ok(_) => Ok(()),
        Err(EpochError::Publish(PublishError::Full)) => {
            tracing::warn!(shard, "no room yet for what the log before had taken");
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// A log whose server lost what was not synced ends before what is written or was read, or has
/// stored something else there since, which must then be younger.
async fn has_lost_its_end(
    bus: &Bus,
    row: &ShardRow,
    seen: Option<Seen>,
    log: &LogState,
) -> Result<bool, BusError> {
    let written = (row.persisted_seq, row.persisted_at);
    for (seq, at) in [Some(written), seen.map(|seen| (seen.seq, seen.at))].into_iter().flatten() {
        if log.last_seq < seq {
            return Ok(true);
        }
        if seq < log.first_seq {
            continue;
        }
        let stored_at = bus.stored_at(row.shard, seq).await?;
        if stored_at.is_some_and(|stored_at| stored_at > at + PRECISION) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn first_of_next(row: &ShardRow, seen: Option<Seen>) -> Seq {
    if row.epoch == 0 {
        return 1;
    }
    let given = row.persisted_seq.max(row.first_seq);
    given.max(seen.map_or(0, |seen| seen.seq)) + EPOCH_GAP
}

async fn start(store: &Store, row: &ShardRow, first_seq: Seq) -> Result<ShardRow, EpochError> {
    let owner = row.owner.as_deref();
    let started = store.start_epoch(row.shard, row.epoch + 1, first_seq, owner).await?;
    tracing::warn!(shard = row.shard, epoch = started.epoch, first_seq, "a new epoch");
    measures::epochs().increment(1);
    Ok(started)
}
