//! What every Natter process does alike, so that an operator learns it once.
//!
//! - [`config`]: the command line read, and the settings every service takes: the node's name and
//!   the admin address.
//! - [`strangers`]: what the environment says to Natter and nobody knows.
//! - [`telemetry`]: logs to stderr, traces over OTLP when an endpoint is configured.
//! - [`causes()`]: an error with what led to it, for logs.
//! - [`context`]: the W3C trace context that a message carries from node to node.
//! - [`metrics`]: the Prometheus recorder behind the `metrics` macros.
//! - [`admin`]: `/live`, `/ready` and `/metrics` on a port of their own, and [`Health`].
//! - [`shutdown`]: signals become a cancellation token; draining has a deadline.
//!
//! A service's `main` reads downwards:
//!
//! ```no_run
//! # use clap::Parser;
//! # use natter_runtime::{
//! #     Health, NodeArgs, TelemetryArgs, admin, config, metrics, shutdown, strangers, telemetry,
//! # };
//! # use tokio_util::sync::CancellationToken;
//! #[derive(Parser)]
//! struct Args {
//!     #[command(flatten)]
//!     node: NodeArgs,
//!     #[command(flatten)]
//!     telemetry: TelemetryArgs,
//! }
//!
//! # async fn run(_: CancellationToken, _: Health) -> anyhow::Result<()> { Ok(()) }
//! #[tokio::main]
//! async fn main() -> anyhow::Result<()> {
//!     let args: Args = config::parse();
//!     let telemetry = telemetry::init(&args.telemetry, "natter-gateway", &args.node.node_id)?;
//!     strangers::warn();
//!     metrics::install()?;
//!     let stop = shutdown::signal()?;
//!     let health = Health::new();
//!     // The admin port outlives the drain, so that probes see "draining" and not a dead port.
//!     let admin_stop = CancellationToken::new();
//!     let listener = args.node.bind_admin().await?;
//!     let admin = tokio::spawn(admin::serve(listener, health.clone(), admin_stop.clone()));
//!     let outcome = run(stop, health).await;
//!     admin_stop.cancel();
//!     admin.await??;
//!     telemetry.shutdown().await;
//!     outcome
//! }
//! ```

/// The version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

pub mod admin;
mod causes;
pub mod config;
pub mod context;
mod exporter;
mod health;
pub mod metrics;
mod sampler;
pub mod shutdown;
pub mod strangers;
pub mod telemetry;

pub use causes::{Causes, causes};
pub use config::NodeArgs;
pub use exporter::ExporterError;
pub use health::Health;
pub use sampler::SamplerError;
pub use telemetry::{LogFormat, TelemetryArgs, TelemetryError, TelemetryGuard};
