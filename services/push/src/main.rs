//! `natter-push`: see `--help`.

use natter_push::config::Cli;
use natter_runtime::{Health, admin, config, metrics, shutdown, strangers, telemetry};
use tokio_util::sync::CancellationToken;

/// Notifications are many small allocations that go one by one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { args } = config::parse();
    let telemetry = telemetry::init(&args.telemetry, "natter-push", &args.node.node_id)?;
    strangers::warn();
    metrics::install()?;
    let stop = shutdown::signal()?;
    let health = Health::new();
    // The admin port outlives the drain, so that probes see "draining" and not a dead port.
    let admin_stop = CancellationToken::new();
    let listener = args.node.bind_admin().await?;
    let admin = tokio::spawn(admin::serve(listener, health.clone(), admin_stop.clone()));
    let outcome = natter_push::run_by(&args, health, stop).await;
    admin_stop.cancel();
    admin.await??;
    telemetry.shutdown().await;
    outcome
}
