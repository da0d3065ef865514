//! What the worker takes from flags or the environment.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use natter_bus::{BusConfig, LogConfig};
use natter_protocol::ids::Shard;
use natter_runtime::{NodeArgs, TelemetryArgs};
use natter_store::StoreConfig;

/// Writes what the log holds to Postgres.
#[derive(Parser)]
#[command(name = "natter-persistence", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the worker can do.
#[derive(Subcommand)]
pub enum Command {
    /// Bring the database's schema and the streams up to date, then exit. Safe to repeat.
    Migrate(MigrateArgs),
    /// Own shards of the log and write them to the database, until SIGTERM.
    Run(RunArgs),
}

/// Of `migrate`.
#[derive(Args)]
pub struct MigrateArgs {
    /// Both servers, and how the streams are kept.
    #[command(flatten)]
    pub servers: ServerArgs,

    /// Seconds to wait for servers that are still coming up.
    #[arg(long, env = "NATTER_MIGRATE_PATIENCE", default_value = "60", value_parser = seconds)]
    pub patience: Duration,

    /// Name in the logs and in the servers' lists of connections.
    #[arg(long, env = "NATTER_NODE_ID", default_value = "migrate")]
    pub node_id: String,

    /// How to log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Of `run`.
#[derive(Args)]
pub struct RunArgs {
    /// Both servers, and how the streams are kept.
    #[command(flatten)]
    pub servers: ServerArgs,

    /// Bytes of a shard's log that are kept after they are written to Postgres, so that resuming
    /// and repair rarely need it; half of the log's limit by default. What is not yet written is
    /// never purged.
    #[arg(long, env = "NATTER_LOG_RETAIN_BYTES")]
    pub log_retain_bytes: Option<u64>,

    /// Who this process is.
    #[command(flatten)]
    pub node: NodeArgs,

    /// How to log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// Postgres, NATS, and how the streams are kept.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// `postgres://user:password@host:port/database`.
    #[arg(long, env = "NATTER_DATABASE_URL", hide_env_values = true)]
    pub database_url: String,

    /// Connections to Postgres, at most.
    #[arg(long, env = "NATTER_DATABASE_CONNECTIONS", default_value_t = 10)]
    pub database_connections: u32,

    /// `nats://host:port` or `tls://…`, several separated by commas; may carry
    /// `user:password@` or `token@`.
    #[arg(long, env = "NATTER_NATS_URL", hide_env_values = true)]
    pub nats_url: String,

    /// A NATS credentials file.
    #[arg(long, env = "NATTER_NATS_CREDENTIALS")]
    pub nats_credentials: Option<PathBuf>,

    /// A PEM file with further authorities that the NATS server's certificate may come from.
    #[arg(long, env = "NATTER_NATS_CA")]
    pub nats_ca: Option<PathBuf>,

    /// Streams that new chats and users are spread over, 1 to 16. May grow, never shrink.
    #[arg(long, env = "NATTER_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: Shard,

    /// Bytes at which a shard's log refuses new entries.
    #[arg(long, env = "NATTER_LOG_MAX_BYTES", default_value_t = 1024 * 1024 * 1024)]
    pub log_max_bytes: u64,

    /// NATS servers that hold each log, 1 to 5; 3 in production.
    #[arg(long, env = "NATTER_LOG_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub log_replicas: u8,

    /// Seconds within which the log stores a message id once. Gateways must know the same value.
    #[arg(long, env = "NATTER_DUPLICATE_WINDOW", default_value = "300", value_parser = seconds)]
    pub duplicate_window: Duration,
}

impl ServerArgs {
    /// How to reach Postgres.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            max_connections: self.database_connections,
            ..StoreConfig::new(&self.database_url)
        }
    }

    /// How to reach NATS, as `name`.
    #[must_use]
    pub fn bus(&self, name: &str) -> BusConfig {
        BusConfig {
            credentials: self.nats_credentials.clone(),
            root_certificates: self.nats_ca.clone(),
            ..BusConfig::new(&self.nats_url, format!("persistence {name}"))
        }
    }

    /// How a shard's log is kept.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        LogConfig {
            replicas: usize::from(self.log_replicas),
            max_bytes: self.log_max_bytes,
            duplicate_window: self.duplicate_window,
            in_memory: false,
        }
    }
}

/// How a worker works, apart from where its servers are.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Names this worker among those that want the same shards.
    pub owner: String,
    /// Shards 0 to this, exclusive.
    pub shards: Shard,
    /// How a shard's log is kept.
    pub log: LogConfig,
    /// Bytes of a log that stay after they are written.
    pub retain_bytes: u64,
    /// A shard whose owner does not renew its claim for so long is free.
    pub lease: Duration,
}

impl WorkerConfig {
    /// The defaults.
    #[must_use]
    pub fn new(owner: impl Into<String>, shards: Shard, log: LogConfig) -> Self {
        let retain_bytes = log.max_bytes / 2;
        let lease = Duration::from_secs(5);
        Self { owner: owner.into(), shards, log, retain_bytes, lease }
    }
}

impl From<&RunArgs> for WorkerConfig {
    fn from(args: &RunArgs) -> Self {
        // A process that was killed and started again is another owner: should the old one
        // still be writing, only one of the two can go on.
        let incarnation = uuid::Uuid::new_v4().simple().to_string();
        let owner = format!("{}.{}", args.node.node_id, &incarnation[..8]);
        let mut config = Self::new(owner, args.servers.shards, args.servers.log());
        if let Some(bytes) = args.log_retain_bytes {
            config.retain_bytes = bytes;
        }
        config
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_bounds_of_the_command_line() -> anyhow::Result<()> {
        let servers = ["--database-url", "postgres://x", "--nats-url", "nats://x"];
        let cli = Cli::try_parse_from(["natter-persistence", "run"].iter().chain(&servers))?;
        let Command::Run(args) = cli.command else { anyhow::bail!("not run") };
        let config = WorkerConfig::from(&args);
        assert_eq!(config.retain_bytes, config.log.max_bytes / 2);
        assert_eq!(config.shards, 1);
        let many = ["natter-persistence", "migrate", "--shards", "17"];
        assert!(Cli::try_parse_from(many.iter().chain(&servers)).is_err());
        Ok(())
    }
}
