//! One address for all gateways of a cluster: a load balancer that knows nothing of sessions. Each
//! request goes to the next node, on a connection of its own; a WebSocket stays where it went. A
//! node that refuses is passed over.
//!
//! Each kind of request takes turns of its own. A client that posts and polls in strict alternation
//! would otherwise post to one node of two and poll the other, for as long as it keeps step.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, Node};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::soon::SOON;

/// How long the head of a request may be, in bytes.
const HEAD: usize = 16 * 1024;

/// How many requests are remembered, the oldest of all.
const REMEMBERED: usize = 100_000;

const NOBODY: &[u8] = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// What a request is to a Socket.IO server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Begins a session, by polling.
    Handshake,
    /// Waits for packets.
    Poll,
    /// Brings packets.
    Post,
    /// Moves a session to a WebSocket.
    Upgrade,
    /// A WebSocket from the beginning.
    WebSocket,
    /// Something else.
    Other,
}

impl Kind {
    /// How many there are.
    const COUNT: usize = Self::Other as usize + 1;
}

/// A request, and where it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// What it was.
    pub kind: Kind,
    /// The gateway, counted from 0.
    pub node: usize,
    /// The session that it named.
    pub session: Option<String>,
}

/// See the module. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    nodes: Vec<SocketAddr>,
    /// Of each kind, how many came.
    turns: [AtomicUsize; Kind::COUNT],
    pins: Mutex<VecDeque<(Kind, usize)>>,
    routed: Mutex<Vec<Routed>>,
    connections: Mutex<JoinSet<()>>,
}

impl Balancer {
    /// Before all gateways of a cluster.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn before(cluster: &Cluster) -> Result<Self> {
        Self::between(cluster.gateways().iter().map(Node::address).collect()).await
    }

    /// Before these addresses.
    ///
    /// # Errors
    /// When there is no port for it.
    pub async fn between(nodes: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            nodes,
            turns: Default::default(),
            pins: Mutex::default(),
            routed: Mutex::default(),
            connections: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, accepting })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next request of this kind goes to this node, and the one after that, told again, to
    /// that; then it goes on by turns.
    pub fn send_next(&self, kind: Kind, node: usize) {
        lock(&self.shared.pins).push_back((kind, node));
    }

    /// The requests so far.
    pub fn routed(&self) -> Vec<Routed> {
        lock(&self.shared.routed).clone()
    }

    /// Where the newest request of this kind went.
    ///
    /// # Errors
    /// When there was none.
    pub fn last(&self, kind: Kind) -> Result<usize> {
        let routed = lock(&self.shared.routed);
        let last = routed.iter().rev().find(|routed| routed.kind == kind);
        last.map(|routed| routed.node).with_context(|| format!("there was no {kind:?}"))
    }

    /// Cuts all connections, as when a network goes. A client that polls does not notice when it
    /// has no request under way.
    pub fn cut(&self) {
        lock(&self.shared.connections).abort_all();
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let connection = connection(client, Arc::clone(&shared));
        let mut connections = lock(&shared.connections);
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            // What ends badly is the clients' to see.
            connection.await.ok();
        });
    }
}

/// One request, and what it turns into.
async fn connection(mut client: TcpStream, shared: Arc<Shared>) -> Result<()> {
    client.set_nodelay(true)?;
    let (head, rest) = timeout(SOON, read_head(&mut client)).await??;
    let request = Request::read(&head)?;
    let Some((node, mut server)) = shared.route(&request).await else {
        return Ok(client.write_all(NOBODY).await?);
    };
    server.set_nodelay(true)?;
    let Request { kind, session, head, .. } = request;
    {
        let mut routed = lock(&shared.routed);
        if routed.len() < REMEMBERED {
            routed.push(Routed { kind, node, session });
        }
    }
    server.write_all(head.as_bytes()).await?;
    server.write_all(&rest).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The head of a request, and what came with it.
async fn read_head(client: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let mut read = Vec::new();
    loop {
        ensure!(client.read_buf(&mut read).await? > 0, "the client left");
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let rest = read.split_off(end + 4);
            return Ok((String::from_utf8(read)?, rest));
        }
        ensure!(read.len() < HEAD, "the head of a request is too long");
    }
}

#[derive(Debug)]
struct Request {
    kind: Kind,
    session: Option<String>,
    /// As it is sent on: no other request follows on its connection.
    head: String,
}

impl Request {
    fn read(head: &str) -> Result<Self> {
        let (line, headers) = head.split_once("\r\n").context("no request line")?;
        let mut words = line.split(' ');
        let method = words.next().unwrap_or_default();
        let target = words.next().context("no target")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let session = query.split('&').find_map(|pair| pair.strip_prefix("sid="));
        let headers: Vec<&str> = headers.split("\r\n").filter(|line| !line.is_empty()).collect();
        let named = |line: &str, name: &str| {
            line.split_once(':').is_some_and(|(key, _)| key.eq_ignore_ascii_case(name))
        };
        let websocket = headers.iter().any(|line| named(line, "upgrade"));
        let socket_io = path.trim_end_matches('/') == "/socket.io";
        let kind = match (socket_io, method, websocket, session) {
            (true, "GET", true, Some(_)) => Kind::Upgrade,
            (true, "GET", true, None) => Kind::WebSocket,
            (true, "GET", false, Some(_)) => Kind::Poll,
            (true, "GET", false, None) => Kind::Handshake,
            (true, "POST", false, Some(_)) => Kind::Post,
            _ => Kind::Other,
        };
        let mut head = format!("{line}\r\n");
        for line in headers.iter().filter(|line| websocket || !named(line, "connection")) {
            head += line;
            head += "\r\n";
        }
        head += if websocket { "\r\n" } else { "connection: close\r\n\r\n" };
        Ok(Self { kind, session: session.map(str::to_owned), head })
    }
}

impl Shared {
    /// A connection to the node whose turn it is, or that the request is to go to.
    async fn route(&self, request: &Request) -> Option<(usize, TcpStream)> {
        let pinned = {
            let mut pins = lock(&self.pins);
            let place = pins.iter().position(|(kind, _)| *kind == request.kind);
            place.and_then(|place| pins.remove(place)).map(|(_, node)| node)
        };
        let turns = &self.turns[request.kind as usize];
        let first = pinned.unwrap_or_else(|| turns.fetch_add(1, Ordering::Relaxed));
        for turn in 0..self.nodes.len() {
            let node = (first + turn) % self.nodes.len();
            if let Ok(server) = TcpStream::connect(self.nodes[node]).await {
                return Some((node, server));
            }
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_and_end_their_connection() -> Result<()> {
        let kind = |line: &str, headers: &str| -> Result<Kind> {
            Ok(Request::read(&format!("{line} HTTP/1.1\r\n{headers}\r\n"))?.kind)
        };
        let polling = "/socket.io/?EIO=4&transport=polling";
        let websocket = "/socket.io/?EIO=4&transport=websocket";
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(kind(&format!("GET {polling}"), "")?, Kind::Handshake);
        assert_eq!(kind(&format!("GET {polling}&sid=a"), "")?, Kind::Poll);
        assert_eq!(kind(&format!("POST {polling}&sid=a"), "")?, Kind::Post);
        assert_eq!(kind(&format!("GET {websocket}&sid=a"), upgrade)?, Kind::Upgrade);
        assert_eq!(kind(&format!("GET {websocket}"), upgrade)?, Kind::WebSocket);
        assert_eq!(kind("GET /v1/ws", upgrade)?, Kind::Other);

        let head =
            "GET /socket.io/?sid=a&t=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n";
        let request = Request::read(head)?;
        assert_eq!(request.session.as_deref(), Some("a"));
        let sent_on = "GET /socket.io/?sid=a&t=1 HTTP/1.1\r\nHost: h\r\nconnection: close\r\n\r\n";
        assert_eq!(request.head, sent_on);
        Ok(())
    }
}
