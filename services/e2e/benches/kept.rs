//! What a message costs where it is kept: `cargo bench --bench kept`.
//!
//! `MESSAGES` (50,000) messages of `BYTES` (100) bytes are sent into `CHATS` (200) chats over two
//! release gateways, with the worker running; then as many again while it is away, and it has to
//! catch up. Printed is what one takes in the log, in Postgres (with its indexes) and in Postgres'
//! write-ahead log, what it costs each process in CPU time, and how many a second the worker writes
//! when it has them before it. Postgres and NATS sync as they do by default.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use natter_bus::{Bus, BusConfig};
use natter_cluster::{Cluster, Node, install, progress::Progress};
use natter_e2e::{
    Api, Socket,
    api::client,
    crowd::{AT_ONCE, Guest, introduce, invite, setting},
    soon,
    soon::within,
    tokens, usage,
};
use natter_protocol::ids::ChatId;

/// Messages on their way at once.
const PIPELINED: usize = 256;
/// Everything is written by then.
const PATIENCE: Duration = Duration::from_mins(10);

struct World {
    cluster: Cluster,
    bus: Bus,
    psql: PathBuf,
    speakers: Vec<(ChatId, Socket)>,
    messages: usize,
    content: String,
}

/// What everything has used so far.
struct Used {
    log_entries: u64,
    log_bytes: u64,
    table: f64,
    indexes: f64,
    wal: f64,
    cpu: Vec<(&'static str, f64)>,
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let world = World::build().await?;
    let before = world.used().await?;
    let began = Instant::now();
    world.talk().await?;
    let sent = began.elapsed().as_secs_f64();
    world.is_written().await?;
    let after = world.used().await?;
    let n = world.messages as f64;
    println!("{n} messages of {} bytes, {} chats", world.content.len(), world.speakers.len());
    println!("sent and acked                  {:>10.0} a second", n / sent);
    let entries = (after.log_entries - before.log_entries) as f64;
    let log = (after.log_bytes - before.log_bytes) as f64 / entries;
    println!("in the log                      {log:>10.0} bytes each");
    println!(
        "in Postgres, the row            {:>10.0} bytes each",
        (after.table - before.table) / n
    );
    println!(
        "in Postgres, its indexes        {:>10.0} bytes each",
        (after.indexes - before.indexes) / n
    );
    println!("in Postgres' write-ahead log    {:>10.0} bytes each", (after.wal - before.wal) / n);
    for ((name, before), (_, after)) in before.cpu.iter().zip(&after.cpu) {
        println!("CPU of {name:24} {:>10.0} µs each", (after - before) / n * 1e6);
    }
    world.catches_up().await?;
    world.cluster.stop().await
}

impl World {
    async fn build() -> Result<Self> {
        let chats = setting("CHATS", 200)?;
        let cluster = tokens::trusted(Cluster::builder().gateways(2))
            .throwaway(false)
            .progress(Progress::detect())
            .gateway_env("NATTER_CALLS_PER_SECOND", "0")
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_EVENTS_PER_SECOND", "100000")
            .gateway_env("NATTER_EVENTS_BURST", "100000")
            .start()
            .await?;
        let api = |node: &Node| Ok(Api::new(client()?, node.address()));
        let apis: Vec<Api> = cluster.gateways().iter().map(api).collect::<Result<_>>()?;
        let guests = invite(&apis, chats * 2).await?;
        let chats = introduce(&apis, &guests, 1, 2).await?;
        let speakers = Self::speakers(&cluster, &guests, &chats).await?;
        let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "bench")).await?;
        soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
        let psql = install::postgres(None).context("no PostgreSQL")?.psql;
        let content = "x".repeat(setting("BYTES", 100)?);
        let messages = setting("MESSAGES", 50_000)?;
        Ok(Self { cluster, bus, psql, speakers, messages, content })
    }

    async fn speakers(
        cluster: &Cluster,
        guests: &[Guest],
        chats: &[(ChatId, usize)],
    ) -> Result<Vec<(ChatId, Socket)>> {
        stream::iter(chats.iter().enumerate())
            .map(async |(n, (chat, guest))| {
                let gateway = cluster.gateway(n % 2).address();
                anyhow::Ok((*chat, Socket::connect(gateway, &guests[*guest].token).await?))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Everybody says as much, each one message after the other.
    async fn talk(&self) -> Result<()> {
        let next = AtomicUsize::new(0);
        let talk = |socket: usize| {
            let (next, (chat, socket)) = (&next, &self.speakers[socket]);
            async move {
                while next.fetch_add(1, Ordering::Relaxed) < self.messages {
                    socket.say(*chat, &self.content).await?;
                }
                anyhow::Ok(())
            }
        };
        try_join_all((0..self.speakers.len().min(PIPELINED)).map(talk)).await?;
        Ok(())
    }

    async fn is_written(&self) -> Result<()> {
        let last = self.bus.log_state(0).await?.context("no log")?.last_seq;
        within(PATIENCE, "it is written", async || {
            let written = self.ask("SELECT persisted_seq FROM shards WHERE shard = 0")?;
            Ok((written >= last as f64).then_some(()))
        })
        .await
    }

    async fn catches_up(&self) -> Result<()> {
        let worker = self.cluster.worker(0);
        worker.terminate().await?;
        self.talk().await?;
        let began = Instant::now();
        worker.start().await?;
        self.is_written().await?;
        let (took, used) = (began.elapsed().as_secs_f64(), usage::cpu(worker)?);
        println!(
            "a worker that has them all writes {:>8.0} a second, its start included; {:.0} µs of its CPU each",
            self.messages as f64 / took,
            used / self.messages as f64 * 1e6
        );
        Ok(())
    }

    async fn used(&self) -> Result<Used> {
        let log = self.bus.log_state(0).await?.context("no log")?;
        let parts = "FROM pg_inherits WHERE inhparent = 'messages'::regclass";
        let cpu = [
            ("the gateways", self.cluster.gateways().iter().map(usage::cpu).sum::<Result<f64>>()?),
            ("the worker", usage::cpu(self.cluster.worker(0))?),
            ("nats-server", usage::cpu(self.cluster.nats())?),
        ];
        Ok(Used {
            log_entries: log.entries,
            log_bytes: log.bytes,
            table: self.ask(&format!("SELECT sum(pg_table_size(inhrelid)) {parts}"))?,
            indexes: self.ask(&format!("SELECT sum(pg_indexes_size(inhrelid)) {parts}"))?,
            wal: self.ask("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")?,
            cpu: cpu.to_vec(),
        })
    }

    /// A number out of Postgres.
    fn ask(&self, question: &str) -> Result<f64> {
        let output = Command::new(&self.psql)
            .args(["-XqtA", "-d", &self.cluster.database_url(), "-c", question])
            .stdin(Stdio::null())
            .output()
            .context("cannot run psql")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "Postgres refused {question}");
        said.trim().parse().with_context(|| format!("{said} is no number"))
    }
}
