//! What a worker takes from flags or the environment.

use std::time::Duration;

use clap::Args;
use natter_bus::HooksConfig;
use natter_outbound::Bounds;
use natter_protocol::ids::Shard;

/// A connection is there by then, or by the deadline.
const CONNECT: Duration = Duration::from_secs(5);

/// The settings of webhooks. The endpoints themselves are made by `natter webhook add`.
#[derive(Args, Clone, Debug)]
pub struct WebhooksArgs {
    /// Events that an endpoint is sent at the same time by one worker, of different chats: 1 to 1,000.
    #[arg(long, env = "NATTER_WEBHOOK_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub webhook_concurrency: u16,

    /// Seconds that an endpoint may take to answer: 1 to 60.
    #[arg(long, env = "NATTER_WEBHOOK_DEADLINE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub webhook_deadline_seconds: u64,

    /// How often an event is tried before it is a dead letter: 1 to 100.
    #[arg(long, env = "NATTER_WEBHOOK_ATTEMPTS", default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub webhook_attempts: u16,

    /// Seconds after an event's first failure before it is tried again; twice as long each time, up to a
    /// quarter of an hour: 1 to 600.
    #[arg(long, env = "NATTER_WEBHOOK_RETRY_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub webhook_retry_seconds: u64,

    /// Seconds after its first failure at which an event is a dead letter, however often it was tried: 60
    /// to 2,419,200; a day by default.
    #[arg(long, env = "NATTER_WEBHOOK_GIVE_UP_SECONDS", default_value_t = 86_400, value_parser = clap::value_parser!(u64).range(60..=2_419_200))]
    pub webhook_give_up_seconds: u64,

    /// Failures in a row after which an endpoint is left alone for a while: 1 to 10,000.
    #[arg(long, env = "NATTER_WEBHOOK_FAILURES", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub webhook_failures: u32,

    /// Seconds for which it is, at first; twice as long each time, up to ten times: 1 to 3,600.
    #[arg(long, env = "NATTER_WEBHOOK_PAUSE_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub webhook_pause_seconds: u64,

    /// Seconds for which events are kept for endpoints that are away, and to be replayed: 3,600 to
    /// 31,536,000; three days by default.
    #[arg(long, env = "NATTER_WEBHOOK_KEPT_SECONDS", default_value_t = 259_200, value_parser = clap::value_parser!(u64).range(3_600..=31_536_000))]
    pub webhook_kept_seconds: u64,

    /// Bytes of events that are kept of a shard, beyond which the oldest go: 1,000,000 to 2^50, 512 MiB by
    /// default. An event is about 700. Nothing is kept while there is no endpoint.
    #[arg(long, env = "NATTER_WEBHOOK_MAX_BYTES", default_value_t = 512 * 1024 * 1024, value_parser = clap::value_parser!(u64).range(1_000_000..=1 << 50))]
    pub webhook_max_bytes: u64,

    /// Dead letters that are kept of an endpoint, beyond which the oldest go: 1 to 1,000,000.
    #[arg(long, env = "NATTER_WEBHOOK_DEAD_LETTERS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub webhook_dead_letters: u32,
}

/// How webhooks are told.
#[derive(Clone, Debug)]
pub struct WebhooksConfig {
    /// How many shards there are.
    pub shards: Shard,
    /// What holds for each endpoint.
    pub bounds: Bounds,
    /// How often an event is tried.
    pub attempts: u16,
    /// The first pause between two tries.
    pub retry: Duration,
    /// How long it is tried at most.
    pub give_up: Duration,
    /// How a shard's events are kept.
    pub stream: HooksConfig,
    /// Dead letters of an endpoint.
    pub letters: u32,
}

impl WebhooksConfig {
    /// As the settings say, for so many shards, whose streams so many servers hold.
    #[must_use]
    pub fn new(args: &WebhooksArgs, shards: Shard, replicas: u8) -> Self {
        let deadline = Duration::from_secs(args.webhook_deadline_seconds);
        Self {
            shards,
            bounds: Bounds {
                concurrency: usize::from(args.webhook_concurrency),
                connect: CONNECT.min(deadline),
                deadline,
                failures: args.webhook_failures,
                pause: Duration::from_secs(args.webhook_pause_seconds),
            },
            attempts: args.webhook_attempts,
            retry: Duration::from_secs(args.webhook_retry_seconds),
            give_up: Duration::from_secs(args.webhook_give_up_seconds),
            stream: HooksConfig {
                replicas: usize::from(replicas),
                max_bytes: args.webhook_max_bytes,
                max_age: Duration::from_secs(args.webhook_kept_seconds),
            },
            letters: args.webhook_dead_letters,
        }
    }
}
