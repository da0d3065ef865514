//! The transports beside each other: `cargo bench --bench transports`.
//!
//! Two release gateways hold `CONNECTIONS` (2,000) connections, each of another user, who follows
//! `CHATS_PER_USER` (4) chats with `PARTICIPANTS` (50) participants: first over the native
//! WebSocket, then, on gateways that have started anew, as Socket.IO's clients do, over a
//! WebSocket and over polling. Printed is the gateways' resident memory for each idle connection,
//! and how many deliveries of `MESSAGES` (4,000) messages they make in a CPU-second of theirs. It
//! fails when a delivery is missing.
//!
//! Over polling only the memory is printed: what a client costs there is HTTP, request by request.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use natter_cluster::{Cluster, progress::Progress};
use natter_e2e::{
    Api, Socket,
    api::client,
    crowd::{AT_ONCE, Guest, introduce, invite, setting},
    socket::{Presenting, Stream, Unopened, open, request},
    soon::within,
    tokens, usage,
};
use natter_protocol::ids::ChatId;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

/// Connections from one source address: it has 28,000 ports, and others want some.
const PER_ADDRESS: usize = 1_000;
/// How long the gateways are left alone before memory is looked at.
const SETTLED: Duration = Duration::from_secs(5);
/// Messages of one sender that wait for their replies.
const PIPELINED: usize = 32;
/// How long all deliveries may take.
const PATIENCE: Duration = Duration::from_mins(5);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Transport {
    Native,
    SocketIo,
    Polling,
}

impl Transport {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "native WebSocket",
            Self::SocketIo => "Socket.IO, WebSocket",
            Self::Polling => "Socket.IO, polling",
        }
    }
}

struct World {
    cluster: Cluster,
    guests: Vec<Guest>,
    /// Each with one who is in it.
    chats: Vec<(ChatId, usize)>,
    participants: usize,
    messages: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let world = World::build().await?;
    let mut rows = Vec::new();
    for transport in [Transport::Native, Transport::SocketIo, Transport::Polling] {
        rows.push((transport, world.measure(transport).await?));
    }
    let World { guests, participants, messages, .. } = &world;
    println!("{} connections, {messages} messages to {participants} each", guests.len());
    println!("{:24}{:>16}{:>30}", "", "idle connection", "deliveries a CPU-second");
    for (transport, (kib, deliveries)) in rows {
        let deliveries = deliveries.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"));
        println!("{:24}{kib:>12.2} KiB{deliveries:>30}", transport.name());
    }
    world.cluster.stop().await
}

impl World {
    async fn build() -> Result<Self> {
        let connections = setting("CONNECTIONS", 2_000)?;
        let participants = setting("PARTICIPANTS", 50)?.min(connections);
        let cluster = tokens::trusted(Cluster::builder().gateways(2))
            .progress(Progress::detect())
            .gateway_env("NATTER_CALLS_PER_SECOND", "0")
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_EVENTS_PER_SECOND", "100000")
            .gateway_env("NATTER_EVENTS_BURST", "100000")
            .start()
            .await?;
        let api = |node: &natter_cluster::Node| Ok(Api::new(client()?, node.address()));
        let apis: Vec<Api> = cluster.gateways().iter().map(api).collect::<Result<_>>()?;
        let guests = invite(&apis, connections).await?;
        let rounds = setting("CHATS_PER_USER", 4)?;
        let chats = introduce(&apis, &guests, rounds, participants).await?;
        eprintln!("{} users in {} chats", guests.len(), chats.len());
        let messages = setting("MESSAGES", 4_000)?;
        Ok(Self { cluster, guests, chats, participants, messages })
    }

    /// KiB for each idle connection, and deliveries for each CPU-second of the gateways.
    async fn measure(&self, transport: Transport) -> Result<(f64, Option<f64>)> {
        for gateway in self.cluster.gateways() {
            gateway.restart().await?;
        }
        let heard = Arc::new(AtomicUsize::new(0));
        // The first of each gateway brings in what is there only once.
        for n in 0..2 {
            self.connect(transport, n, &heard).await?;
        }
        let empty = self.memory()?;
        stream::iter(2..self.guests.len())
            .map(|n| self.connect(transport, n, &heard))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        tokio::time::sleep(SETTLED).await;
        let grown = self.memory()?.saturating_sub(empty);
        let each = grown as f64 / (self.guests.len() - 2) as f64;
        eprintln!("{}: {each:.2} KiB", transport.name());
        if transport == Transport::Polling {
            return Ok((each, None));
        }
        Ok((each, Some(self.talk(transport, &heard).await?)))
    }

    async fn talk(&self, transport: Transport, heard: &AtomicUsize) -> Result<f64> {
        let speakers = stream::iter(self.chats.iter().enumerate())
            .map(async |(n, (chat, guest))| {
                let gateway = self.cluster.gateway(n % 2).address();
                anyhow::Ok((*chat, Socket::connect(gateway, &self.guests[*guest].token).await?))
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await?;
        let (began, before) = (Instant::now(), self.cpu()?);
        let said = stream::iter((0..self.messages).map(|n| &speakers[n % speakers.len()]))
            .map(async |(chat, socket)| socket.say(*chat, "is anybody there?").await)
            .buffer_unordered(PIPELINED);
        said.try_collect::<Vec<_>>().await?;
        let all = self.messages * self.participants;
        within(PATIENCE, "everybody hears everything", async || {
            Ok((heard.load(Ordering::Relaxed) >= all).then_some(()))
        })
        .await?;
        let used = self.cpu()? - before;
        ensure!(heard.load(Ordering::Relaxed) == all, "something was delivered twice");
        eprintln!("{}: {all} deliveries in {:.1?}", transport.name(), began.elapsed());
        Ok(all as f64 / used)
    }

    /// Connects the `n`th guest, and listens from then on.
    async fn connect(
        &self,
        transport: Transport,
        n: usize,
        heard: &Arc<AtomicUsize>,
    ) -> Result<()> {
        let (gateway, token) = (self.cluster.gateway(n % 2).address(), &self.guests[n].token);
        if transport == Transport::Polling {
            return self.poll(n % 2, token).await;
        }
        let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + n / PER_ADDRESS % 250)?);
        let (mut stream, begins) = match transport {
            Transport::Native => {
                (dial(from, gateway, "/v1/ws", token).await?, "{\"event\":\"message\"")
            }
            Transport::SocketIo | Transport::Polling => {
                let path = "/socket.io/?EIO=4&transport=websocket";
                (dial(from, gateway, path, token).await?, "42[\"message\"")
            }
        };
        if transport == Transport::SocketIo {
            expect(&mut stream, "0{").await?;
            stream.send(Message::text("40")).await?;
            expect(&mut stream, "40{").await?;
        }
        let ready = stream.next().await.context("hung up")??;
        ensure!(ready.to_text()?.contains("\"connectionId\""), "{ready}");
        let heard = Arc::clone(heard);
        tokio::spawn(async move {
            while let Some(Ok(frame)) = stream.next().await {
                let answer = match &frame {
                    Message::Text(text) if text.starts_with(begins) => {
                        heard.fetch_add(1, Ordering::Relaxed);
                        None
                    }
                    Message::Text(text) if text.as_str() == "2" => Some(Message::text("3")),
                    _ => None,
                };
                if let Some(answer) = answer
                    && stream.send(answer).await.is_err()
                {
                    return;
                }
            }
        });
        Ok(())
    }

    /// A session over polling, between two polls.
    async fn poll(&self, gateway: usize, token: &str) -> Result<()> {
        let http = client()?;
        let base = format!(
            "http://{}/socket.io/?EIO=4&transport=polling",
            self.cluster.gateway(gateway).address()
        );
        let open = http.get(&base).send().await?.error_for_status()?.text().await?;
        let open: serde_json::Value = serde_json::from_str(open.get(1..).context("nothing")?)?;
        let url = format!("{base}&sid={}", open["sid"].as_str().context("no sid")?);
        let connect = format!("40{}", json!({"token": token}));
        http.post(&url).body(connect).send().await?.error_for_status()?;
        let mut got = String::new();
        while !got.contains("\"connectionId\"") {
            got += &http.get(&url).send().await?.error_for_status()?.text().await?;
        }
        Ok(())
    }

    fn memory(&self) -> Result<u64> {
        self.cluster.gateways().iter().map(usage::resident).sum()
    }

    fn cpu(&self) -> Result<f64> {
        self.cluster.gateways().iter().map(usage::cpu).sum()
    }
}

async fn dial(from: Ipv4Addr, gateway: SocketAddr, path: &str, token: &str) -> Result<Stream> {
    let request = request(&format!("ws://{gateway}{path}"), Presenting::Header(token))?;
    let opened = open(from, gateway, request).await;
    let (stream, _) = opened.map_err(|error| match error {
        Unopened::Refused(status) => anyhow::anyhow!("refused with {status}"),
        Unopened::Failed(error) => error,
    })?;
    Ok(stream)
}

async fn expect(stream: &mut Stream, begins: &str) -> Result<()> {
    let frame = stream.next().await.context("hung up")??;
    ensure!(frame.to_text()?.starts_with(begins), "{frame}, not {begins}…");
    Ok(())
}
