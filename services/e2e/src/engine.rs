//! Engine.IO as a client speaks it that need not keep to it: one request, or one frame, at a time.
//!
//! Requests go to the nodes in turn, so that a session is never where the request before has been.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt};
use natter_cluster::{Cluster, Node};
use reqwest::{
    Client, Method, RequestBuilder,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    api::client,
    socket::{Presenting, Refusal, Unopened, open, request},
    soon::SOON,
};

/// What stands between two packets of a payload.
pub const SEPARATOR: &str = "\u{1e}";

/// Where sessions can be had.
#[derive(Clone, Debug)]
pub struct Engine {
    client: Client,
    nodes: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
}

/// What an `open` packet says: exactly this.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Open {
    /// The session.
    pub sid: String,
    /// Transports that it could move to.
    pub upgrades: Vec<String>,
    /// Milliseconds between pings.
    pub ping_interval: u64,
    /// Milliseconds that an answer to one may take.
    pub ping_timeout: u64,
    /// Bytes that a payload may have.
    pub max_payload: usize,
}

impl Open {
    fn parse(packet: &str) -> Result<Self> {
        let open = packet.strip_prefix('0').with_context(|| format!("no open packet: {packet}"))?;
        serde_json::from_str(open).with_context(|| packet.to_owned())
    }

    /// By when a session has ended that nobody answers for, and somebody has seen it.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.ping_interval + self.ping_timeout) + SOON
    }
}

/// What a request was answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

impl Reply {
    /// The packets of a payload.
    ///
    /// # Errors
    /// When it is none.
    pub fn packets(&self) -> Result<Vec<String>> {
        let kind = self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        ensure!(self.status == 200 && kind.starts_with("text/plain"), "no payload: {self:?}");
        Ok(self.text.split(SEPARATOR).map(str::to_owned).collect())
    }

    /// That a payload was taken.
    ///
    /// # Errors
    /// When it was not.
    pub fn accepted(&self) -> Result<()> {
        ensure!(self.status == 200 && self.text == "ok", "not accepted: {self:?}");
        Ok(())
    }

    /// That the request was bad, in one of these ways.
    ///
    /// # Errors
    /// When it was answered otherwise.
    pub fn refused(&self, codes: &[u64]) -> Result<()> {
        let body: Value = serde_json::from_str(&self.text).unwrap_or_default();
        let code = body["code"].as_u64().filter(|_| body["message"].is_string());
        let expected = self.status == 400 && code.is_some_and(|code| codes.contains(&code));
        ensure!(expected, "a refusal with {codes:?} was expected: {self:?}");
        Ok(())
    }
}

/// Which transport a session begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Requests.
    Polling,
    /// Frames.
    WebSocket,
}

/// Both of them.
pub const KINDS: [Kind; 2] = [Kind::Polling, Kind::WebSocket];

impl Engine {
    /// Sessions of these nodes.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn new(nodes: impl IntoIterator<Item = SocketAddr>) -> Result<Self> {
        let nodes = nodes.into_iter().collect();
        Ok(Self { client: client()?, nodes, turn: Arc::default() })
    }

    /// Sessions of all gateways.
    ///
    /// # Errors
    /// When there is no HTTP client to be had.
    pub fn of(cluster: &Cluster) -> Result<Self> {
        Self::new(cluster.gateways().iter().map(Node::address))
    }

    /// The node whose turn it is.
    pub fn node(&self) -> SocketAddr {
        self.nodes[self.turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len()]
    }

    /// A request to the node whose turn it is.
    pub fn request(&self, method: Method, query: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}/socket.io/?{query}", self.node()))
    }

    /// A `GET`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, query: &str) -> Result<Reply> {
        answer(self.request(Method::GET, query)).await
    }

    /// A request for any address.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn fetch(&self, method: Method, url: &str) -> Result<Reply> {
        answer(self.client.request(method, url)).await
    }

    /// A `POST`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, query: &str, body: impl Into<reqwest::Body>) -> Result<Reply> {
        answer(self.request(Method::POST, query).body(body)).await
    }

    /// A new session over polling.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn polling(&self) -> Result<Polling> {
        self.polling_by(&self.get("EIO=4&transport=polling").await?)
    }

    /// The session that a handshake was answered with.
    ///
    /// # Errors
    /// When that is no session.
    pub fn polling_by(&self, handshake: &Reply) -> Result<Polling> {
        let packets = handshake.packets()?;
        let [packet] = packets.as_slice() else { bail!("not one packet: {packets:?}") };
        let open = Open::parse(packet)?;
        Ok(Polling { engine: self.clone(), open, waiting: VecDeque::new() })
    }

    /// A WebSocket, whatever comes of it.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn dial(&self, query: &str, presenting: Presenting<'_>) -> Result<Dialled> {
        let node = self.node();
        let request = request(&format!("ws://{node}/socket.io/?{query}"), presenting)?;
        match open(Ipv4Addr::LOCALHOST, node, request).await {
            Ok((stream, _)) => Ok(Dialled::Open(Wire { stream: Box::new(stream), open: None })),
            Err(Unopened::Refused(refusal)) => Ok(Dialled::Refused(refusal)),
            Err(Unopened::Failed(error)) => Err(error),
        }
    }

    /// A WebSocket for a session that there is already.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn upgrade(&self, sid: &str) -> Result<Wire> {
        let query = format!("EIO=4&transport=websocket&sid={sid}");
        match self.dial(&query, Presenting::Nothing).await? {
            Dialled::Open(wire) => Ok(wire),
            Dialled::Refused(refusal) => bail!("the WebSocket of {sid} is refused: {refusal}"),
        }
    }

    /// A new session over a WebSocket.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn wire(&self, presenting: Presenting<'_>) -> Result<Wire> {
        match self.dial("EIO=4&transport=websocket", presenting).await? {
            Dialled::Refused(refusal) => bail!("a WebSocket is refused: {refusal}"),
            Dialled::Open(mut wire) => match wire.frame().await? {
                Frame::Text(packet) => {
                    wire.open = Some(Open::parse(&packet)?);
                    Ok(wire)
                }
                other => bail!("{other:?} instead of an open packet"),
            },
        }
    }

    /// A new session.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn link(&self, kind: Kind) -> Result<Link> {
        Ok(match kind {
            Kind::Polling => Link::Polling(self.polling().await?),
            Kind::WebSocket => Link::WebSocket(self.wire(Presenting::Nothing).await?),
        })
    }
}

/// The answer to any request.
///
/// # Errors
/// When none comes.
pub async fn answer(request: RequestBuilder) -> Result<Reply> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Reply { status, headers, text: response.text().await? })
}

/// What became of a WebSocket.
#[derive(Debug)]
pub enum Dialled {
    /// It stands, though it may be closed the next moment.
    Open(Wire),
    /// It was refused before it was one.
    Refused(Refusal),
}

/// What a session has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A packet that is no ping, which was answered, and no noop.
    Packet(String),
    /// Its end; with the code of it, if there was one.
    Ended(Option<u16>),
}

/// A session over polling.
#[derive(Debug)]
pub struct Polling {
    engine: Engine,
    /// What the handshake said.
    pub open: Open,
    waiting: VecDeque<String>,
}

impl Polling {
    /// What its requests have in common.
    pub fn query(&self) -> String {
        format!("EIO=4&transport=polling&sid={}", self.open.sid)
    }

    /// One `GET`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn poll(&self) -> Result<Reply> {
        self.engine.get(&self.query()).await
    }

    /// One `POST`.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, payload: impl Into<reqwest::Body>) -> Result<Reply> {
        self.engine.post(&self.query(), payload).await
    }

    /// What comes next, after as many requests as it takes.
    ///
    /// # Errors
    /// When nothing does within [`SOON`].
    pub async fn next(&mut self) -> Result<Next> {
        let next = timeout(SOON, async {
            loop {
                match self.waiting.pop_front().as_deref() {
                    // Refused where the session has ended since: the next request tells.
                    Some("2") => drop(self.post("3").await?),
                    Some("6") => {}
                    Some("1") => return Ok(Next::Ended(None)),
                    Some(packet) => return Ok(Next::Packet(packet.to_owned())),
                    None => {
                        let reply = self.poll().await?;
                        if reply.status == 400 {
                            return Ok(Next::Ended(None));
                        }
                        self.waiting.extend(reply.packets()?);
                    }
                }
            }
        });
        next.await.context("no packet came")?
    }

    /// That nobody knows the session any more.
    ///
    /// # Errors
    /// When somebody does.
    pub async fn gone(&self) -> Result<()> {
        // Asked of every node: it is no node's own session.
        for _ in 0..self.engine.nodes.len() {
            self.poll().await?.refused(&[1])?;
            self.post("3").await?.refused(&[1])?;
        }
        Ok(())
    }
}

/// A frame, or that there is none any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// The end; with its code, if there was one.
    Closed(Option<u16>),
}

/// A WebSocket that packets go over.
#[derive(Debug)]
pub struct Wire {
    // Boxed, for it is many times as large as the rest of a link.
    stream: Box<WebSocketStream<TcpStream>>,
    /// What the handshake said, where the session began with this WebSocket.
    pub open: Option<Open>,
}

impl Wire {
    /// What the handshake said.
    ///
    /// # Errors
    /// When the session did not begin here.
    pub fn open(&self) -> Result<&Open> {
        self.open.as_ref().context("an upgrade, no handshake")
    }

    /// Sends a frame. That the server has hung up shows when reading.
    pub async fn send(&mut self, frame: impl Into<Message>) {
        self.stream.send(frame.into()).await.ok();
    }

    /// The next frame of any kind.
    ///
    /// # Errors
    /// When none comes within [`SOON`].
    pub async fn frame(&mut self) -> Result<Frame> {
        self.frame_within(SOON).await
    }

    /// The same, which may take up to `limit`.
    ///
    /// # Errors
    /// When none comes.
    pub async fn frame_within(&mut self, limit: Duration) -> Result<Frame> {
        let frame = timeout(limit, async {
            loop {
                return match self.stream.next().await {
                    Some(Ok(Message::Text(text))) => Frame::Text(text.as_str().to_owned()),
                    Some(Ok(Message::Binary(bytes))) => Frame::Binary(bytes.to_vec()),
                    Some(Ok(Message::Close(frame))) => {
                        Frame::Closed(frame.map(|frame| frame.code.into()))
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => Frame::Closed(None),
                };
            }
        });
        frame.await.context("no frame came")
    }

    /// What comes next.
    ///
    /// # Errors
    /// When nothing does within [`SOON`].
    pub async fn next(&mut self) -> Result<Next> {
        let next = timeout(SOON, async {
            loop {
                match self.frame().await? {
                    Frame::Text(packet) if packet == "2" => self.send("3").await,
                    Frame::Text(packet) if packet == "6" => {}
                    Frame::Text(packet) => return Ok(Next::Packet(packet)),
                    Frame::Binary(bytes) => bail!("the server has sent bytes: {bytes:?}"),
                    Frame::Closed(code) => return Ok(Next::Ended(code)),
                }
            }
        });
        next.await.context("no packet came")?
    }

    /// Waits until it is closed, whatever comes before.
    ///
    /// # Errors
    /// When it is not within `limit`.
    pub async fn closed(&mut self, limit: Duration) -> Result<Option<u16>> {
        let closed = timeout(limit, async {
            loop {
                if let Frame::Closed(code) = self.frame_within(limit).await? {
                    return Ok(code);
                }
            }
        });
        closed.await.context("it is not closed")?
    }
}

/// A session, over whichever transport.
#[derive(Debug)]
pub enum Link {
    /// By requests.
    Polling(Polling),
    /// By frames.
    WebSocket(Wire),
}

impl Link {
    /// What the handshake said.
    ///
    /// # Errors
    /// When the session has been upgraded.
    pub fn open(&self) -> Result<&Open> {
        match self {
            Self::Polling(polling) => Ok(&polling.open),
            Self::WebSocket(wire) => wire.open(),
        }
    }

    /// Sends a packet. That the session has ended, or ends by it, shows when reading.
    ///
    /// # Errors
    /// When no answer comes to a request, or one that is neither acceptance nor refusal.
    pub async fn send(&mut self, packet: impl Into<String>) -> Result<()> {
        let packet = packet.into();
        match self {
            Self::Polling(polling) => {
                let reply = polling.post(packet).await?;
                ensure!(reply.status == 400 || reply.accepted().is_ok(), "{reply:?}");
            }
            Self::WebSocket(wire) => wire.send(packet).await,
        }
        Ok(())
    }

    /// What comes next.
    ///
    /// # Errors
    /// When nothing does within [`SOON`].
    pub async fn next(&mut self) -> Result<Next> {
        match self {
            Self::Polling(polling) => polling.next().await,
            Self::WebSocket(wire) => wire.next().await,
        }
    }
}
