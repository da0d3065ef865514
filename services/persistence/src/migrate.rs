//! Brings the database's schema and the streams up to date.

use std::time::Duration;

use natter_bus::{Bus, BusError, CLOSED_FOR, LiveWatch, LogConfig};
use natter_protocol::ids::Shard;
use natter_runtime::causes;
use natter_store::{Store, StoreError};
use tokio::time::{Instant, sleep};

use crate::epoch::{self, EpochError};

const PAUSE: Duration = Duration::from_millis(200);

/// Why it could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Postgres.
    #[error("the database")]
    Store(#[from] StoreError),
    /// NATS.
    #[error("the streams")]
    Bus(#[from] BusError),
    /// A shard's first log.
    #[error("a shard")]
    Epoch(#[from] EpochError),
}

impl MigrateError {
    /// Whether trying again may help: all but a schema that this program cannot migrate.
    fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) | Self::Epoch(EpochError::Store(error)) => {
                error.is_unavailable() || matches!(error, StoreError::Fenced)
            }
            Self::Bus(error) | Self::Epoch(EpochError::Bus(error)) => {
                !matches!(error, BusError::Config { .. })
            }
            Self::Epoch(EpochError::Publish(_)) => true,
        }
    }
}

/// Does it all; what is there already stays. Tries again for as long as `patience`, since the
/// servers may still be coming up. Workers and gateways may be running.
///
/// # Errors
/// The last failure, when patience is over or it cannot help.
pub async fn migrate(
    store: &Store,
    bus: &Bus,
    shards: Shard,
    log: &LogConfig,
    patience: Duration,
) -> Result<(), MigrateError> {
    let deadline = Instant::now() + patience;
    loop {
        let Err(error) = attempt(store, bus, shards, log).await else { return Ok(()) };
        if !error.may_pass() || Instant::now() >= deadline {
            return Err(error);
        }
        tracing::info!(error = %causes(&error), "not yet; trying again");
        sleep(PAUSE).await;
    }
}

async fn attempt(
    store: &Store,
    bus: &Bus,
    shards: Shard,
    log: &LogConfig,
) -> Result<(), MigrateError> {
    store.migrate().await?;
    store.ensure_shards(shards).await?;
    bus.ensure_dead_letters(log.replicas).await?;
    for row in store.shards().await?.into_iter().filter(|row| row.shard < shards) {
        let shard = row.shard;
        if row.epoch == 0 {
            epoch::open_log(store, bus, log, CLOSED_FOR, row, None).await?;
        } else if bus.update_log(shard, log).await?.is_none() {
            // Only the shard's owner makes a log anew, so that no two do.
            tracing::warn!(shard, "the shard's log is missing; a worker will make it anew");
            continue;
        }
        bus.ensure_live(shard, &mut LiveWatch::default()).await?;
    }
    Ok(())
}
