//! `natter-gateway`: see `--help`.

use natter_gateway::config::Cli;
use natter_runtime::{Health, admin, config, metrics, shutdown, strangers, telemetry};
use tokio_util::sync::CancellationToken;

/// Deliveries are many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { node, telemetry, config: settings } = config::parse();
    let telemetry = telemetry::init(&telemetry, "natter-gateway", &node.node_id)?;
    strangers::warn();
    metrics::install()?;
    let stop = shutdown::signal()?;
    let health = Health::new();
    let listener = config::bind("NATTER_LISTEN (--listen)", settings.listen).await?;
    // The admin port outlives the drain, so that probes see "draining" and not a dead port.
    let admin_stop = CancellationToken::new();
    let admin_listener = node.bind_admin().await?;
    let admin = tokio::spawn(admin::serve(admin_listener, health.clone(), admin_stop.clone()));
    let outcome = natter_gateway::run(settings, &node.node_id, listener, health, stop).await;
    admin_stop.cancel();
    admin.await??;
    telemetry.shutdown().await;
    Ok(outcome?)
}
