//! `natter-persistence`: see `--help`.

use natter_persistence::config::{Cli, Command, MigrateArgs, RunArgs};
use natter_runtime::{Health, admin, config, metrics, shutdown, strangers, telemetry};
use tokio_util::sync::CancellationToken;

/// Batches are many small allocations that all go at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { command } = config::parse();
    match command {
        Command::Migrate(args) => migrate(args).await,
        Command::NewEpoch(args) => new_epoch(args).await,
        Command::Run(args) => run(args).await,
    }
}

async fn migrate(args: MigrateArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&args.telemetry, "natter-persistence", &args.node_id)?;
    strangers::warn();
    let outcome = natter_persistence::migrate_by(&args).await;
    telemetry.shutdown().await;
    outcome
}

async fn new_epoch(args: MigrateArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&args.telemetry, "natter-persistence", &args.node_id)?;
    strangers::warn();
    let outcome = natter_persistence::begin_epochs_by(&args).await;
    telemetry.shutdown().await;
    outcome
}

async fn run(args: RunArgs) -> anyhow::Result<()> {
    let telemetry = telemetry::init(&args.telemetry, "natter-persistence", &args.node.node_id)?;
    strangers::warn();
    metrics::install()?;
    let stop = shutdown::signal()?;
    let health = Health::new();
    // The admin port outlives the drain, so that probes see "draining" and not a dead port.
    let admin_stop = CancellationToken::new();
    let listener = args.node.bind_admin().await?;
    let admin = tokio::spawn(admin::serve(listener, health.clone(), admin_stop.clone()));
    let outcome = natter_persistence::run_by(&args, health, stop).await;
    admin_stop.cancel();
    admin.await??;
    telemetry.shutdown().await;
    outcome
}
