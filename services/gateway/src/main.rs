//! `natter-gateway`: see `--help`.

use clap::Parser;
use natter_gateway::config::Config;
use natter_runtime::{
    Health, admin, config::NodeArgs, metrics, shutdown, telemetry, telemetry::TelemetryArgs,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Deliveries are many small allocations on several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Natter's gateway: sockets, REST and the page.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    #[command(flatten)]
    config: Config,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Cli { node, telemetry, config } = Cli::parse();
    let telemetry = telemetry::init(&telemetry, "natter-gateway", &node.node_id)?;
    metrics::install()?;
    let stop = shutdown::signal()?;
    let health = Health::new();
    let listener = TcpListener::bind(config.listen).await?;
    // The admin port outlives the drain, so that probes see "draining" and not a dead port.
    let admin_stop = CancellationToken::new();
    let admin_listener = TcpListener::bind(node.admin_listen).await?;
    let admin = tokio::spawn(admin::serve(admin_listener, health.clone(), admin_stop.clone()));
    let outcome = natter_gateway::run(config, &node.node_id, listener, health, stop).await;
    admin_stop.cancel();
    admin.await??;
    telemetry.shutdown().await;
    Ok(outcome?)
}
