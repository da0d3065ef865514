//! Socket.IO's own clients, as they come out of their packages, behind a balancer that knows
//! nothing of sessions: what the clients of the old backend do, and what their documentation
//! promises them, holds with any number of nodes.

use anyhow::{Context, Result};
use natter_cluster::Cluster;
use natter_e2e::{
    Balancer, Mode, Peer, Peers, Person, Stage, Stages, balancer::Kind, peers::Dial,
    peers::Language, tokens,
};
use natter_protocol::ids::ChatId;
use serde_json::{Value, json};

mod breaks;
mod checkpoints;
mod crowds;
mod embedded;
mod fresh_starts;
mod goodbyes;
mod old_flow;
mod reads;
mod requests;
mod roaming;
mod tokens_shown;

/// A page that may call from elsewhere.
const PAGE: &str = "https://chat.example.com";

/// Feeds are spread over several logs, an outside issuer is trusted, and nobody drains for long.
static STAGE: Stage = Stage::with(|builder| {
    tokens::trusted(builder)
        .shards(3)
        .gateway_env("NATTER_CORS_ORIGINS", PAGE)
        .gateway_env("NATTER_EVENTS_PER_SECOND", "1000")
        .gateway_env("NATTER_DRAIN_SECONDS", "2")
});

/// The same for those that stop something of it, so that the others need not wait for them.
static APART: Stages = Stages::with(|builder| {
    tokens::trusted(builder)
        .shards(3)
        .gateway_env("NATTER_EVENTS_PER_SECOND", "1000")
        .gateway_env("NATTER_DRAIN_SECONDS", "2")
});

/// Each client in each of the ways in which it can be told to connect.
const CLIENTS: [(Language, Mode); 6] = [
    (Language::JavaScript, Mode::WebSocket),
    (Language::JavaScript, Mode::Polling),
    (Language::JavaScript, Mode::Upgrade),
    (Language::Python, Mode::WebSocket),
    (Language::Python, Mode::Polling),
    (Language::Python, Mode::Upgrade),
];

/// Two people with a chat, one address for all gateways, and clients.
struct Scenery {
    ana: Person,
    ben: Person,
    chat: ChatId,
    balancer: Balancer,
    peers: Peers,
}

impl Scenery {
    async fn new(cluster: &Cluster, language: Language) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        let balancer = Balancer::before(cluster).await?;
        Ok(Self { ana, ben, chat, balancer, peers: Peers::start(language).await? })
    }

    fn dial(&self, person: &Person, mode: Mode) -> Dial {
        Dial::new(&self.balancer.url(), &person.first.access_token, mode)
    }

    /// Ana's client, once it has its last transport.
    async fn ana(&self, mode: Mode) -> Result<Peer> {
        self.settled(&self.dial(&self.ana, mode), mode).await
    }

    async fn settled(&self, dial: &Dial, mode: Mode) -> Result<Peer> {
        let peer = self.peers.connect("Ana", dial).await?;
        if mode == Mode::Upgrade {
            peer.expect("upgrade", |data| data["transport"] == "websocket").await?;
        }
        Ok(peer)
    }

    /// The node that has the session of the client that connected last.
    fn owner(&self, mode: Mode) -> Result<usize> {
        self.balancer.last(match mode {
            Mode::WebSocket => Kind::WebSocket,
            Mode::Polling => Kind::Handshake,
            Mode::Upgrade => Kind::Upgrade,
        })
    }
}

/// What somebody said, as this client heard it, in order.
fn heard_from(peer: &Peer, sender: &Person) -> Vec<String> {
    let sent = |data: &Value| data["senderId"] == json!(sender.id);
    let content = |data: Value| data["content"].as_str().unwrap_or_default().to_owned();
    peer.events("message").into_iter().filter(sent).map(content).collect()
}

fn text(value: &Value, name: &str) -> Result<String> {
    Ok(value[name].as_str().with_context(|| format!("no {name} in {value}"))?.to_owned())
}
