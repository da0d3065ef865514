//! A new epoch because an operator says so: after Postgres and the log have both been put back to an
//! earlier time, neither of them knows of the places that were given since.
//!
//! Each log is sealed once all of it is written. Its owner finds it so, and makes it anew far above.

use std::time::Duration;

use futures::future::try_join_all;
use natter_bus::{Bus, BusError};
use natter_protocol::ids::Shard;
use natter_runtime::causes;
use natter_store::{ShardRow, Store, StoreError};
use tokio::time::{Instant, sleep};

/// Between two looks at how far the owner is: while people write, all is written for some milliseconds
/// at a time.
const PAUSE: Duration = Duration::from_millis(20);

/// Why a shard is not in a new epoch. It is safe to try again.
#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    /// Postgres.
    #[error("the shards' positions")]
    Store(#[from] StoreError),
    /// NATS.
    #[error("a shard's log")]
    Bus(#[from] BusError),
    /// Nobody has written its log to the end: is a worker running?
    #[error("shard {0} is not written to its log's end; a worker must be running")]
    Unwritten(Shard),
    /// Its log is sealed, so that senders are refused, and no owner has made another.
    #[error("shard {0} is sealed and not made anew; a worker must be running")]
    NotMadeAnew(Shard),
}

/// Begins a new epoch in each of the shards 0 to `shards - 1` that has one. Workers must be running,
/// since a log is made by its owner alone. Returns once all have begun and are open; each step is tried for as
/// long as `patience`, since servers may still be coming up. What a log takes meanwhile goes over.
///
/// # Errors
/// [`RenewError`], the last one when patience is over.
pub async fn begin_epochs(
    store: &Store,
    bus: &Bus,
    shards: Shard,
    patience: Duration,
) -> Result<(), RenewError> {
    begin_epochs_of(store, bus, &(0..shards).collect::<Vec<_>>(), patience).await
}

/// The same in these shards.
///
/// # Errors
/// As [`begin_epochs`].
pub async fn begin_epochs_of(
    store: &Store,
    bus: &Bus,
    shards: &[Shard],
    patience: Duration,
) -> Result<(), RenewError> {
    let rows = insist(patience, async || Ok(store.shards().await?)).await?;
    let rows = rows.iter().filter(|row| shards.contains(&row.shard) && row.epoch > 0);
    try_join_all(rows.map(|row| begin_epoch(store, bus, row, patience))).await?;
    Ok(())
}

async fn begin_epoch(
    store: &Store,
    bus: &Bus,
    before: &ShardRow,
    patience: Duration,
) -> Result<(), RenewError> {
    let shard = before.shard;
    insist(patience, async || {
        // One that was found missing is made anew without our help.
        if has_begun(store, before).await? {
            return Ok(());
        }
        let log = bus.log_state(shard).await?.ok_or(BusError::NoStream)?;
        let (written, _) = store.persisted_until(shard).await?;
        if written < log.last_seq {
            return Err(RenewError::Unwritten(shard));
        }
        bus.seal_log(shard, log.made_at).await?;
        Ok(())
    })
    .await?;
    tracing::info!(shard, "sealed; its owner makes it anew");
    insist(patience, async || {
        let begun = has_begun(store, before).await?;
        let open = bus.log_state(shard).await?.is_some_and(|log| !log.sealed && !log.closed);
        (begun && open).then_some(()).ok_or(RenewError::NotMadeAnew(shard))
    })
    .await
}

async fn has_begun(store: &Store, before: &ShardRow) -> Result<bool, StoreError> {
    let rows = store.shards().await?;
    Ok(rows.iter().any(|row| row.shard == before.shard && row.epoch > before.epoch))
}

async fn insist<T>(
    patience: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, RenewError>,
) -> Result<T, RenewError> {
    let deadline = Instant::now() + patience;
    loop {
        match attempt().await {
            Err(error) if Instant::now() < deadline => {
                tracing::debug!(error = %causes(&error), "not yet; trying again");
                sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
