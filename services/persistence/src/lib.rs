//! The persistence worker: what the log holds becomes rows of Postgres.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the command line |
//! | [`migrate`] | the schema and the streams, brought up to date |
//! | [`worker`] | a task for every shard, which owns it or stands by |
//! | [`owner`] | one shard while it is ours: read, tell, write; one [`owner::Owner::step`] a batch |
//! | [`ahead`] | its half that reads and tells, also while Postgres is away |
//! | [`epoch`] | whether the log is the one that Postgres knows |
//! | [`outbox`] | what handlers committed and did not get to relay |
//! | [`erasures`] | accounts that were deleted: what is left to do |
//! | [`media`] | files that are to be removed, thumbnails that are to be made |
//! | [`retention`] | messages that have expired, and groups that were deleted |
//! | [`search`] | what messages are found by, which follows what is written |
//! | [`upkeep`] | the live mirror, and the log's tail |
//! | [`batch`] | entries as rows; poison |
//! | `digest` | tells gateways what the log touched |
//! | [`renew`] | a new epoch because an operator says so |
//! | [`salvage`] | what goes over from a log that is made anew |
//! | `untold` | what webhooks have not looked at of such a log |
//! | `measures` | what is counted and timed |
//! | `trace` | the worker's part of a message's trace |

pub mod ahead;
pub mod batch;
pub mod config;
mod digest;
pub mod epoch;
pub mod erasures;
mod measures;
pub mod media;
pub mod migrate;
pub mod outbox;
pub mod owner;
pub mod renew;
pub mod retention;
pub mod salvage;
pub mod search;
mod trace;
mod untold;
pub mod upkeep;
pub mod worker;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use config::{MigrateArgs, RunArgs, WorkerConfig};
use media::SweepConfig;
use natter_bus::Bus;
use natter_media::Files;
use natter_protocol::node::{NodeDescription, NodeRole};
use natter_runtime::{Health, VERSION, causes};
use natter_store::{Store, schema_known};
use retention::RetentionConfig;
use tokio_util::sync::CancellationToken;

/// `migrate`, as the command line says.
///
/// # Errors
/// When a server stays away, or the schema cannot be migrated.
pub async fn migrate_by(args: &MigrateArgs) -> Result<()> {
    let (store, bus) = connect(&args.servers, &args.node_id).await?;
    let log = args.servers.log();
    let patience = Duration::from_secs(args.patience);
    migrate::migrate(&store, &bus, args.servers.shards, &log, patience).await?;
    tracing::info!(shards = args.servers.shards, "schema and streams are up to date");
    store.close();
    Ok(())
}

/// `new-epoch`, as the command line says.
///
/// # Errors
/// When a server is away, or no worker makes a log anew.
pub async fn begin_epochs_by(args: &MigrateArgs) -> Result<()> {
    let (store, bus) = connect(&args.servers, &args.node_id).await?;
    let patience = Duration::from_secs(args.patience);
    renew::begin_epochs(&store, &bus, args.servers.shards, patience).await?;
    tracing::info!("every log is in a new epoch");
    store.close();
    Ok(())
}

/// `run`, as the command line says, until `stop`.
///
/// # Errors
/// When the settings cannot work.
pub async fn run_by(args: &RunArgs, health: Health, stop: CancellationToken) -> Result<()> {
    let config = WorkerConfig::try_from(args)?;
    let (store, bus) = connect(&args.servers, &args.node.node_id).await?;
    if config.log.replicas == 1 {
        tracing::warn!("NATTER_LOG_REPLICAS is 1: acks rest on one broker; 3 in production");
    }
    let files = Files::open(&args.media_store, environment())
        .map_err(|error| anyhow!("NATTER_MEDIA_STORE (--media-store): {}", causes(&error)))?;
    let sweeps = SweepConfig {
        stalled: Duration::from_secs(args.media_stalled_seconds),
        unsent: Duration::from_secs(args.media_unsent_seconds),
        late: Duration::from_secs(args.media_late_seconds),
    };
    let files = tokio::spawn(media::look_after(store.clone(), files, sweeps, stop.clone()));
    let erasing = erasures::go_on_until(store.clone(), bus.clone(), config.shards, stop.clone());
    let erasing = tokio::spawn(erasing);
    let retention = RetentionConfig::from(args);
    let expiry =
        tokio::spawn(retention::look_after(store.clone(), bus.clone(), retention, stop.clone()));
    let described = tokio::spawn(bus.clone().describe(NodeDescription {
        node: args.node.node_id.clone(),
        role: NodeRole::Worker,
        version: VERSION.to_owned(),
        schema: schema_known(),
    }));
    worker::run(config, store.clone(), bus, health, stop).await;
    // What is under way is begun anew by another.
    for beside in [files, erasing, expiry, described] {
        beside.abort();
    }
    store.close();
    Ok(())
}

/// What the environment says in Unicode: nothing else is about a store of files.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

async fn connect(servers: &config::ServerArgs, name: &str) -> Result<(Store, Bus)> {
    let store = Store::connect(&servers.store()).context("NATTER_DATABASE_URL (--database-url)")?;
    let bus = Bus::connect(&servers.bus(name)).await?;
    Ok((store, bus))
}
