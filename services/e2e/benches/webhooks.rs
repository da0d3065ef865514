//! How fast somebody's server is told of what happens: `cargo bench --bench webhooks`.
//!
//! `MESSAGES` (20,000) messages in `CHATS` (200) chats, over one release gateway, while one endpoint on this
//! machine takes each event at once. First `RATE` (100) a second for `SECONDS` (10), of which the time is told
//! from the moment that the log has stored a message until the endpoint has it; then all of them as fast as
//! the gateway takes them. Printed are events a second, until the last one is told, that same time, the push
//! worker's memory at half and at the end, and its CPU time for an event. It fails when an event is missing, or
//! comes before an earlier one of its chat. The endpoint is of this process, and shares the machine with
//! everything else.

use std::{
    collections::{HashMap, HashSet},
    env,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use futures::{StreamExt, TryStreamExt, stream};
use natter_cluster::{Cluster, Node, progress::Progress};
use natter_e2e::{
    Api, Socket,
    api::client,
    crowd::{AT_ONCE, introduce, invite, setting},
    soon,
    soon::within,
    tokens, usage,
};
use natter_protocol::{
    ids::{ChatId, MessageId, Seq},
    timestamp,
    webhook::{HookFilter, HookKind},
};
use natter_store::{NewEndpoint, Store, StoreConfig};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::{net::TcpListener, time::MissedTickBehavior};

/// Messages on their way at once.
const PIPELINED: usize = 64;
/// Everything is told by then.
const PATIENCE: Duration = Duration::from_mins(5);
/// A secret like any other.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What is looked at of an event.
#[derive(Deserialize)]
struct Event {
    #[serde(with = "timestamp")]
    timestamp: OffsetDateTime,
    data: Said,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    id: MessageId,
    chat_id: ChatId,
    seq: Seq,
}

/// What the endpoint was told.
#[derive(Default)]
struct Told {
    messages: HashSet<MessageId>,
    /// How far each chat is.
    chats: HashMap<ChatId, Seq>,
    /// Since the last look, in milliseconds.
    delays: Vec<f64>,
    again: usize,
    wrong: Option<String>,
}

type Listening = Arc<Mutex<Told>>;

fn lock(told: &Listening) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn hook(State(listening): State<Listening>, body: Bytes) -> StatusCode {
    let now = OffsetDateTime::now_utc();
    let mut told = lock(&listening);
    match serde_json::from_slice::<Event>(&body) {
        Ok(Event { timestamp, data: Said { id, chat_id, seq } }) => {
            if !told.messages.insert(id) {
                told.again += 1;
                return StatusCode::NO_CONTENT;
            }
            let before = told.chats.insert(chat_id, seq).unwrap_or(0);
            if before > seq {
                told.wrong = Some(format!("{seq} of {chat_id} came after {before}"));
            }
            told.delays.push((now - timestamp).as_seconds_f64() * 1_000.0);
        }
        Err(error) => told.wrong = Some(error.to_string()),
    }
    StatusCode::NO_CONTENT
}

struct World {
    cluster: Cluster,
    speakers: Vec<(ChatId, Socket)>,
    told: Listening,
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let messages = setting("MESSAGES", 20_000)?;
    let world = World::build().await?;
    world.steadily().await?;
    world.at_once(messages).await?;
    world.cluster.stop().await
}

impl World {
    async fn build() -> Result<Self> {
        let cluster = tokens::trusted(Cluster::builder())
            .progress(Progress::detect())
            .gateway_env("NATTER_CALLS_PER_SECOND", "0")
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_EVENTS_PER_SECOND", "100000")
            .gateway_env("NATTER_EVENTS_BURST", "100000")
            .start()
            .await?;
        let apis = [Api::new(client()?, cluster.gateway(0).address())];
        let chats = setting("CHATS", 200)?;
        // Two chats for each, with one other.
        let guests = invite(&apis, chats).await?;
        let introduced = introduce(&apis, &guests, 2, 2).await?;
        let gateway = cluster.gateway(0).address();
        let speakers = stream::iter(introduced)
            .map(async |(chat, guest)| {
                anyhow::Ok((chat, Socket::connect(gateway, &guests[guest].token).await?))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let told = Listening::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let router = Router::new().route("/", post(hook)).with_state(told.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let world = Self { cluster, speakers, told };
        world.make_known(url).await?;
        Ok(world)
    }

    /// Makes the endpoint, and waits until a worker tells it.
    async fn make_known(&self, url: String) -> Result<()> {
        let store = Store::connect(&StoreConfig::new(self.cluster.database_url()))?;
        let new = NewEndpoint {
            name: "bench".to_owned(),
            url,
            secret: SECRET.to_owned(),
            filter: HookFilter { kinds: Some(vec![HookKind::Message]), chats: None },
        };
        let endpoint = store.add_endpoint(&new, 1).await?;
        soon("a worker tells it", async || {
            let lanes = store.endpoint_lanes(endpoint.id).await?;
            Ok(lanes.iter().any(|lane| lane.owner.is_some() && lane.seq.is_some()).then_some(()))
        })
        .await?;
        // The first is told once all is open.
        let (chat, socket) = self.speakers.first().context("no chats")?;
        socket.say(*chat, "is anybody there?").await?;
        self.until(1).await?;
        lock(&self.told).delays.clear();
        Ok(())
    }

    fn worker(&self) -> &Node {
        self.cluster.pusher(0)
    }

    /// So many messages have been told of, all in all.
    async fn until(&self, count: usize) -> Result<()> {
        within(PATIENCE, "all of it", async || {
            let told = lock(&self.told);
            ensure!(told.wrong.is_none(), "{:?}", told.wrong);
            Ok((told.messages.len() >= count).then_some(()))
        })
        .await
    }

    /// At a pace that leaves everybody time.
    async fn steadily(&self) -> Result<()> {
        let (rate, seconds) = (setting("RATE", 100)?, setting("SECONDS", 10)?);
        let before = lock(&self.told).messages.len();
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate as f64));
        pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let cpu = usage::cpu(self.worker())?;
        let mut said = stream::FuturesUnordered::new();
        for n in 0..rate * seconds {
            pace.tick().await;
            let (chat, socket) = &self.speakers[n % self.speakers.len()];
            said.push(socket.say(*chat, "is anybody there?"));
            // Those that are answered are done with.
            while let Some(Some(answered)) = futures::FutureExt::now_or_never(said.next()) {
                answered?;
            }
        }
        said.try_collect::<Vec<_>>().await?;
        self.until(before + rate * seconds).await?;
        println!("{rate} a second: {}", self.delays());
        self.print_cpu(cpu, rate * seconds)
    }

    /// As fast as they are taken.
    async fn at_once(&self, messages: usize) -> Result<()> {
        let before = lock(&self.told).messages.len();
        let cpu = usage::cpu(self.worker())?;
        println!("the worker: {} KiB before", usage::resident(self.worker())?);
        let began = Instant::now();
        let sent = async {
            let said = stream::iter((0..messages).map(|n| &self.speakers[n % self.speakers.len()]))
                .map(async |(chat, socket)| socket.say(*chat, "is anybody there?").await)
                .buffer_unordered(PIPELINED);
            said.try_collect::<Vec<_>>().await?;
            let took = began.elapsed().as_secs_f64();
            println!("sent in {took:.1} s: {:.0} a second", messages as f64 / took);
            anyhow::Ok(())
        };
        let half = async {
            self.until(before + messages / 2).await?;
            println!("the worker: {} KiB at half", usage::resident(self.worker())?);
            Ok(())
        };
        tokio::try_join!(sent, half)?;
        self.until(before + messages).await?;
        let took = began.elapsed().as_secs_f64();
        println!("the worker: {} KiB at the end", usage::resident(self.worker())?);
        println!("told in {took:.1} s: {:.0} events a second", messages as f64 / took);
        println!("at once: {}", self.delays());
        println!("told again: {}", lock(&self.told).again);
        self.print_cpu(cpu, messages)
    }

    /// The times since the last look.
    fn delays(&self) -> String {
        let mut delays = std::mem::take(&mut lock(&self.told).delays);
        delays.sort_by(f64::total_cmp);
        let of = |share: f64| delays.get((delays.len() as f64 * share) as usize).copied();
        let (half, most) = (of(0.5).unwrap_or(0.0), of(0.99).unwrap_or(0.0));
        format!("from stored to told p50 {half:.0} ms, p99 {most:.0} ms")
    }

    fn print_cpu(&self, before: f64, events: usize) -> Result<()> {
        let micros = (usage::cpu(self.worker())? - before) * 1_000_000.0 / events as f64;
        println!("the worker: {micros:.0} µs of CPU an event");
        Ok(())
    }
}
