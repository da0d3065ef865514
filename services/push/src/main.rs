//! `natter-push`: see `--help`.

use clap::Parser;
use natter_push::providers::{Providers, ProvidersArgs, ProvidersConfig};
use natter_runtime::config;

/// Notifies whoever is offline.
#[derive(Parser)]
#[command(name = "natter-push", version, about)]
struct Cli {
    #[command(flatten)]
    providers: ProvidersArgs,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli: Cli = config::parse();
    Providers::new(&ProvidersConfig::try_from(&cli.providers)?)?;
    Ok(())
}
