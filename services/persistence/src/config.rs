//! What the worker takes from flags or the environment.

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};
use natter_bus::{BusConfig, CLOSED_FOR, LogConfig, NatsArgs};
use natter_protocol::ids::Shard;
use natter_runtime::{NodeArgs, TelemetryArgs};
use natter_store::StoreConfig;
use secrecy::{ExposeSecret, SecretString};

use crate::retention::RetentionConfig;

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
    /// Begin a new epoch of every log, then exit: after the database and the log have both been
    /// restored, so that no place is given twice. Workers must be running, gateways need not.
    NewEpoch(MigrateArgs),
    /// Own shards of the log and write them to the database, until SIGTERM.
    Run(RunArgs),
}

/// Of `migrate` and `new-epoch`.
#[derive(Args)]
pub struct MigrateArgs {
    /// Both servers, and how the streams are kept.
    #[command(flatten)]
    pub servers: ServerArgs,

    /// Seconds to wait for servers that are still coming up, or for each step of a worker: 0 to
    /// 86,400.
    #[arg(long, env = "NATTER_MIGRATE_PATIENCE", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub patience: u64,

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
    /// and repair rarely need it: 0 to three quarters of the log's limit, half of it by default.
    /// What is not yet written is never purged. Webhooks have it from there: while no push worker
    /// runs, events are kept for no longer than this.
    #[arg(long, env = "NATTER_LOG_RETAIN_BYTES")]
    pub log_retain_bytes: Option<u64>,

    /// Where files are, as the gateways have it: a folder, or `s3://…`, `gs://…`, `az://…`.
    #[arg(long, env = "NATTER_MEDIA_STORE", default_value = "media")]
    pub media_store: String,

    /// Seconds after which an upload that does not go on has broken off, and what there is of it
    /// is removed: 6 to 86,400. Gateways say every 3 s that one goes on.
    #[arg(long, env = "NATTER_MEDIA_STALLED_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(6..=86_400))]
    pub media_stalled_seconds: u64,

    /// Seconds within which a file that was uploaded has to be sent: 1 to 31,536,000, a day by
    /// default.
    #[arg(long, env = "NATTER_MEDIA_UNSENT_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub media_unsent_seconds: u64,

    /// Seconds that an upload past the gateways may take after its URL is good for no other: 1 to
    /// 604,800. Then it is looked once more for what nobody will read.
    #[arg(long, env = "NATTER_MEDIA_LATE_SECONDS", default_value_t = 21_600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub media_late_seconds: u64,

    /// Seconds after which messages are removed in chats that say nothing of that themselves: 1 to
    /// 315,360,000; 0 for never.
    #[arg(long, env = "NATTER_RETENTION_SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=315_360_000))]
    pub retention_seconds: u64,

    /// Seconds between two looks for messages that are to be removed, and that they may stay too long:
    /// 1 to 86,400.
    #[arg(long, env = "NATTER_RETENTION_SWEEP_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub retention_sweep_seconds: u64,

    /// Seconds after which nothing is left of a group that was deleted: 0 to 31,536,000, a week by
    /// default.
    #[arg(long, env = "NATTER_DELETED_GROUPS_KEPT_SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(0..=31_536_000))]
    pub deleted_groups_kept_seconds: u64,

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
    /// Postgres, as `postgres://user:password@host:port/database`; with
    /// `?sslmode=verify-full&sslrootcert=/file` for TLS.
    #[arg(long, env = "NATTER_DATABASE_URL", hide_env_values = true, value_parser = natter_store::parse_url)]
    pub database_url: SecretString,

    /// Connections to Postgres that this process opens at most: 2 to 1,000.
    #[arg(long, env = "NATTER_DATABASE_CONNECTIONS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_connections: u32,

    /// NATS.
    #[command(flatten)]
    pub nats: NatsArgs,

    /// Shards, each a pair of streams, that new chats and users are spread over: 1 to 16, the same
    /// everywhere. It may grow, never shrink.
    #[arg(long, env = "NATTER_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: Shard,

    /// Bytes at which a shard's log refuses new entries: 1,000,000 to 2^50, 1 GiB by default.
    /// Gateways refuse users' messages at 90 % of it.
    #[arg(long, env = "NATTER_LOG_MAX_BYTES", default_value_t = 1024 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1_000_000..=1 << 50))]
    pub log_max_bytes: u64,

    /// NATS servers that hold each log, 1 to 5; 3 in production.
    #[arg(long, env = "NATTER_LOG_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub log_replicas: u8,

    /// Seconds within which the log stores a message id once: 300 to 86,400. Gateways look up what
    /// is sent again after 4 minutes in Postgres, and rely on the log before.
    #[arg(long, env = "NATTER_DUPLICATE_WINDOW", default_value_t = 300, value_parser = clap::value_parser!(u64).range(300..=86_400))]
    pub duplicate_window: u64,

    /// In its place, for tests of what comes after the window: a message that is sent again may be
    /// stored and delivered twice.
    #[arg(long, env = "NATTER_UNSAFE_DUPLICATE_WINDOW", hide = true)]
    pub unsafe_duplicate_window: Option<u64>,
}

impl ServerArgs {
    /// How to reach Postgres.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            max_connections: self.database_connections,
            ..StoreConfig::new(self.database_url.expose_secret())
        }
    }

    /// How to reach NATS, as `name`.
    #[must_use]
    pub fn bus(&self, name: &str) -> BusConfig {
        self.nats.config(format!("persistence {name}"))
    }

    /// How a shard's log is kept.
    #[must_use]
    pub fn log(&self) -> LogConfig {
        LogConfig {
            replicas: usize::from(self.log_replicas),
            max_bytes: self.log_max_bytes,
            duplicate_window: Duration::from_secs(
                self.unsafe_duplicate_window.unwrap_or(self.duplicate_window),
            ),
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
    /// How long one that is made anew stays closed.
    pub log_closed_for: Duration,
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
        Self { owner: owner.into(), shards, log, log_closed_for: CLOSED_FOR, retain_bytes, lease }
    }
}

impl From<&RunArgs> for RetentionConfig {
    fn from(args: &RunArgs) -> Self {
        let default = args.retention_seconds;
        Self {
            default: (default > 0).then(|| Duration::from_secs(default)),
            sweep: Duration::from_secs(args.retention_sweep_seconds),
            deleted: Duration::from_secs(args.deleted_groups_kept_seconds),
        }
    }
}

impl TryFrom<&RunArgs> for WorkerConfig {
    type Error = anyhow::Error;

    fn try_from(args: &RunArgs) -> Result<Self, Self::Error> {
        // A process that was killed and started again is another owner: should the old one
        // still be writing, only one of the two can go on.
        let incarnation = uuid::Uuid::new_v4().simple().to_string();
        let owner = format!("{}.{}", args.node.node_id, &incarnation[..8]);
        let mut config = Self::new(owner, args.servers.shards, args.servers.log());
        if let Some(bytes) = args.log_retain_bytes {
            // More, and what is kept would be what keeps users' messages out.
            let most = config.log.max_bytes / 4 * 3;
            ensure!(
                bytes <= most,
                "NATTER_LOG_RETAIN_BYTES (--log-retain-bytes): at most {most}, three quarters of NATTER_LOG_MAX_BYTES"
            );
            config.retain_bytes = bytes;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_bounds_of_the_command_line() -> anyhow::Result<()> {
        let servers = ["--database-url", "postgres://x", "--nats-url", "nats://x"];
        let cli = Cli::try_parse_from(["natter-persistence", "run"].iter().chain(&servers))?;
        let Command::Run(args) = cli.command else { anyhow::bail!("not run") };
        let config = WorkerConfig::try_from(&args)?;
        assert_eq!(config.retain_bytes, config.log.max_bytes / 2);
        assert_eq!(config.shards, 1);
        assert_eq!(config.log.duplicate_window, Duration::from_mins(5));
        let keep = RunArgs { log_retain_bytes: Some(config.log.max_bytes), ..args };
        assert!(WorkerConfig::try_from(&keep).is_err());
        for refused in [
            "--shards=17",
            // Within the time that gateways leave to the log.
            "--duplicate-window=299",
            "--log-max-bytes=0",
            "--patience=86401",
            "--database-connections=1",
        ] {
            let all = ["natter-persistence", "migrate", refused];
            assert!(Cli::try_parse_from(all.iter().chain(&servers)).is_err(), "{refused}");
        }
        Ok(())
    }
}
