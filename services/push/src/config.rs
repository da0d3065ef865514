//! What the push worker takes from flags or the environment.

use std::time::Duration;

use anyhow::ensure;
use clap::{Args, Parser};
use natter_bus::{NatsArgs, QueueConfig};
use natter_presence::RedisArgs;
use natter_protocol::ids::Shard;
use natter_runtime::{NodeArgs, TelemetryArgs};
use natter_store::StoreConfig;
use natter_webhooks::WebhooksArgs;
use secrecy::{ExposeSecret, SecretString};

use crate::providers::ProvidersArgs;

/// Beyond the time that a push service may take: what a worker needs to write what came of it.
const TO_WRITE: Duration = Duration::from_secs(5);
/// A queue keeps what is given up for so much longer, so that whoever takes it says so.
const OVERDUE: Duration = Duration::from_mins(5);

/// Notifies devices that are offline.
#[derive(Parser)]
#[command(name = "natter-push", version, about)]
pub struct Cli {
    /// All of it.
    #[command(flatten)]
    pub args: RunArgs,
}

/// What there is to say.
#[derive(Args)]
pub struct RunArgs {
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

    /// Redis.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// Shards, each a pair of streams, that new chats and users are spread over: 1 to 16, the same
    /// everywhere. It may grow, never shrink.
    #[arg(long, env = "NATTER_SHARDS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub shards: Shard,

    /// NATS servers that hold each log, 1 to 5; 3 in production.
    #[arg(long, env = "NATTER_LOG_REPLICAS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub log_replicas: u8,

    /// Seconds that a message waits before anybody is notified of it: 0 to 300. Who reads it meanwhile,
    /// or comes online, is not.
    #[arg(long, env = "NATTER_PUSH_WAIT", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=300))]
    pub push_wait: u64,

    /// Seconds after which nobody is notified of a message any more, and push services show nothing of
    /// it: 60 to 2,419,200; a day by default.
    #[arg(long, env = "NATTER_PUSH_MAX_AGE_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(60..=2_419_200))]
    pub push_max_age_seconds: u64,

    /// How often a notification is tried, at most: 1 to 100.
    #[arg(long, env = "NATTER_PUSH_ATTEMPTS", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub push_attempts: u16,

    /// Seconds after the first failure before a notification is tried again; twice as long each time, up
    /// to a quarter of an hour: 1 to 600.
    #[arg(long, env = "NATTER_PUSH_RETRY_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub push_retry_seconds: u64,

    /// Seconds for which it can be told why somebody was or was not notified: 3,600 to 31,536,000, a week
    /// by default, and longer than `NATTER_PUSH_MAX_AGE_SECONDS`.
    #[arg(long, env = "NATTER_PUSH_KEPT_SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u64).range(3_600..=31_536_000))]
    pub push_kept_seconds: u64,

    /// Bytes at which a shard's queue of notifications takes no more, and deciding waits: 1,000,000 to
    /// 2^50, 256 MiB by default. A notification is about 350.
    #[arg(long, env = "NATTER_PUSH_QUEUE_MAX_BYTES", default_value_t = 256 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1_000_000..=1 << 50))]
    pub push_queue_max_bytes: u64,

    /// The push services.
    #[command(flatten)]
    pub providers: ProvidersArgs,

    /// Webhooks.
    #[command(flatten)]
    pub webhooks: WebhooksArgs,

    /// Who this process is.
    #[command(flatten)]
    pub node: NodeArgs,

    /// How to log.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl RunArgs {
    /// How to reach Postgres.
    #[must_use]
    pub fn store(&self) -> StoreConfig {
        StoreConfig {
            max_connections: self.database_connections,
            ..StoreConfig::new(self.database_url.expose_secret())
        }
    }
}

/// How a push worker works.
#[derive(Clone, Debug)]
pub struct PushConfig {
    /// How many shards there are.
    pub shards: Shard,
    /// How long a message waits.
    pub wait: Duration,
    /// When it is too old.
    pub max_age: Duration,
    /// How often a notification is tried.
    pub attempts: u16,
    /// The first pause between two tries.
    pub retry: Duration,
    /// How long it is known what became of it.
    pub kept: Duration,
    /// Who has taken a notification has to say what came of it within this time.
    pub lease: Duration,
    /// How a shard's queue is kept.
    pub queue: QueueConfig,
}

impl TryFrom<&RunArgs> for PushConfig {
    type Error = anyhow::Error;

    fn try_from(args: &RunArgs) -> Result<Self, Self::Error> {
        // Or what was decided would be forgotten while the log may hand it out again.
        ensure!(
            args.push_kept_seconds > args.push_max_age_seconds,
            "NATTER_PUSH_KEPT_SECONDS (--push-kept-seconds): more than NATTER_PUSH_MAX_AGE_SECONDS"
        );
        let max_age = Duration::from_secs(args.push_max_age_seconds);
        Ok(Self {
            shards: args.shards,
            wait: Duration::from_secs(args.push_wait),
            max_age,
            attempts: args.push_attempts,
            retry: Duration::from_secs(args.push_retry_seconds),
            kept: Duration::from_secs(args.push_kept_seconds),
            lease: Duration::from_secs(args.providers.push_deadline_seconds) + TO_WRITE,
            queue: QueueConfig {
                replicas: usize::from(args.log_replicas),
                max_bytes: args.push_queue_max_bytes,
                max_age: max_age + OVERDUE,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_and_bounds_of_the_command_line() -> anyhow::Result<()> {
        let servers = [
            "--database-url",
            "postgres://x",
            "--nats-url",
            "nats://x",
            "--redis-url",
            "redis://x",
        ];
        let parse = |more: &[&str]| {
            let all = ["natter-push"].iter().chain(&servers).chain(more);
            Cli::try_parse_from(all).map(|cli| cli.args)
        };
        let config = PushConfig::try_from(&parse(&[])?)?;
        assert_eq!((config.wait, config.lease), (Duration::from_secs(5), Duration::from_secs(15)));
        assert!(config.kept > config.max_age && config.queue.max_age > config.max_age);
        let forgetful = parse(&["--push-max-age-seconds=604800"])?;
        assert!(PushConfig::try_from(&forgetful).is_err());
        for refused in
            ["--shards=17", "--push-wait=301", "--push-attempts=0", "--push-kept-seconds=1"]
        {
            assert!(parse(&[refused]).is_err(), "{refused}");
        }
        Ok(())
    }
}
