//! The follower's own connection to the broker: one socket, no channel and no task for each
//! subscription, so that following a feed costs a table entry. (A subscription of `async-nats`
//! allocates about 7.5 KB, and gives no order between subscriptions.)

use std::{
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use futures::FutureExt;
use natter_protocol::{feed::Feed, ids::Shard};
use rand::RngExt;
use rustls::pki_types::ServerName;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tracing::{info, warn};
use watermelon_net::{Connection, StreamingConnection, connect_tcp, proto_connect};
use watermelon_proto::{
    Connect, Host, NonStandardConnect, ServerAddr, ServerMessage, Subject,
    headers::{HeaderMap, HeaderName},
    proto::{ClientOp, ServerOp},
};

use super::chain::Arrival;
use crate::{
    BusConfig, BusError,
    access::{self, Credentials, Login},
    config::with_causes,
    subjects,
};

/// Batches waiting for the follower. When it is full the socket is not read, and a broker that
/// cannot write for long drops us: the follower then repairs.
const BATCHES: usize = 64;
/// Messages handed over at once.
const BATCH: usize = 256;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(2);
/// A broker that has not answered a PING for this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(6);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// What the link tells the follower.
#[derive(Debug)]
pub enum Incoming {
    /// Connected: nothing is subscribed yet. Operations of earlier generations are forgotten.
    Up(u64),
    /// The connection is gone; whatever was published until the next `Up` is missed.
    Down,
    /// Messages in the order in which the broker sent them.
    Batch(Vec<Message>),
    /// The broker has taken in everything that was asked before [`Link::ping`] with this number.
    Pong(u64),
}

/// A message of interest.
#[derive(Debug)]
pub enum Message {
    /// An entry of a feed.
    Entry(Feed, Arrival),
    /// A signal of a feed.
    Signal(Feed, Bytes),
    /// A digest of a shard.
    Digest(Shard, Bytes),
}

#[derive(Debug)]
enum Op {
    Subscribe(u64, String),
    Unsubscribe(u64),
    Ping(u64),
}

/// What the follower wants of the connection. The queue is drained at the speed of the socket,
/// and a socket that does not take it for 10 s is given up, together with the queue.
struct Ops {
    /// The connection that takes them, and what waits for it.
    queue: Mutex<(u64, Vec<Op>)>,
    wake: Notify,
}

impl Ops {
    /// No connection: what is asked for is forgotten, since the next one begins with everything.
    const NOBODY: u64 = u64::MAX;

    fn new() -> Self {
        Self { queue: Mutex::new((Self::NOBODY, Vec::new())), wake: Notify::new() }
    }

    fn push(&self, generation: u64, op: Op) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.0 == generation {
            queue.1.push(op);
            self.wake.notify_one();
        }
    }

    fn take(&self) -> Vec<Op> {
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    fn open(&self, generation: u64) {
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = (generation, Vec::new());
    }
}

/// Tells how much has come and waits for the follower.
#[derive(Clone, Debug)]
pub struct Backlog(mpsc::WeakSender<Incoming>);

impl Backlog {
    /// Batches of messages, 64 at most; 0 once the follower is gone.
    #[must_use]
    pub fn batches(&self) -> usize {
        self.0.upgrade().map_or(0, |queue| queue.max_capacity() - queue.capacity())
    }
}

/// The follower's end of the connection, which reconnects by itself until this is dropped.
pub struct Link {
    incoming: mpsc::Receiver<Incoming>,
    backlog: Backlog,
    ops: Arc<Ops>,
    generation: u64,
    task: tokio::task::AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    /// Starts connecting.
    pub fn open(config: BusConfig) -> Self {
        let ops = Arc::new(Ops::new());
        let (sender, incoming) = mpsc::channel(BATCHES);
        let backlog = Backlog(sender.downgrade());
        let task = tokio::spawn(run(config, Arc::clone(&ops), sender)).abort_handle();
        Self { incoming, backlog, ops, generation: 0, task }
    }

    /// How much waits.
    pub fn backlog(&self) -> Backlog {
        self.backlog.clone()
    }

    /// What comes next. Cancel-safe.
    pub async fn next(&mut self) -> Incoming {
        match self.incoming.recv().await {
            Some(Incoming::Up(generation)) => {
                self.generation = generation;
                Incoming::Up(generation)
            }
            Some(incoming) => incoming,
            // The task ends only with this value; were it to panic, nothing would come any more.
            None => std::future::pending().await,
        }
    }

    /// Asks for a subject. Takes effect before what a later [`Link::ping`] confirms.
    pub fn subscribe(&self, id: u64, subject: String) {
        self.ops.push(self.generation, Op::Subscribe(id, subject));
    }

    /// The opposite.
    pub fn unsubscribe(&self, id: u64) {
        self.ops.push(self.generation, Op::Unsubscribe(id));
    }

    /// Answered by [`Incoming::Pong`] with the same number (not 0) once the broker has acted on
    /// everything before.
    pub fn ping(&self, number: u64) {
        self.ops.push(self.generation, Op::Ping(number));
    }
}

async fn run(config: BusConfig, ops: Arc<Ops>, sender: mpsc::Sender<Incoming>) {
    // By chance, so that gateways spread over a cluster; then one after the other, since one that
    // hangs takes a while to be found out.
    let mut server: usize = rand::rng().random_range(0..1_000);
    let mut generation = 0;
    let mut wait = RETRY_MIN;
    loop {
        generation += 1;
        server += 1;
        let connected = Instant::now();
        let end = connect_and_serve(&config, server, &ops, &sender, generation).await;
        if sender.is_closed() {
            return;
        }
        warn!(error = %end, "the receiving connection to NATS ended");
        if connected.elapsed() > RETRY_MAX * 5 {
            wait = RETRY_MIN;
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        tokio::time::sleep(wait.mul_f64(jitter)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

#[derive(Debug, thiserror::Error)]
enum LinkEnd {
    #[error(transparent)]
    Config(#[from] BusError),
    #[error("connecting: {0}")]
    Connect(String),
    #[error("TLS: {0}")]
    Tls(String),
    #[error("connecting took too long")]
    ConnectTimeout,
    #[error("the socket did not take what was written")]
    WriteTimeout,
    #[error("the server does not answer")]
    Silent,
    #[error("reading: {0}")]
    Read(String),
    #[error("writing: {0}")]
    Write(#[from] std::io::Error),
    #[error("the server said: {0}")]
    Server(String),
    #[error("the follower is gone")]
    Gone,
}

async fn connect_and_serve(
    config: &BusConfig,
    server: usize,
    ops: &Ops,
    sender: &mpsc::Sender<Incoming>,
    generation: u64,
) -> LinkEnd {
    match timeout(CONNECT_TIMEOUT, connect(config, server)).await {
        Ok(Ok(connection)) => serve(connection, ops, sender, generation).await,
        Ok(Err(end)) => end,
        Err(_) => LinkEnd::ConnectTimeout,
    }
}

/// Tries every server once, and tells of those that there is no connection to: their place in the
/// URL, from 1, and why.
pub async fn why_not(config: &BusConfig) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for server in 0..config.url.split(',').count() {
        let reason = match timeout(CONNECT_TIMEOUT, connect(config, server)).await {
            Ok(Ok(_)) => continue,
            Ok(Err(end)) => end.to_string(),
            Err(_) => LinkEnd::ConnectTimeout.to_string(),
        };
        found.push((server + 1, reason));
    }
    found
}

/// A socket, with TLS around it or not.
type Socket = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The server greets in the clear and TLS begins after that, as NATS has it by default.
async fn connect(config: &BusConfig, server: usize) -> Result<Connection<Socket, Socket>, LinkEnd> {
    let servers = config.servers()?;
    let (address, login) = (address(config, server)?, Login::of(&servers));
    let socket = connect_tcp(&address).await.map_err(|error| connecting(&error))?;
    socket.set_nodelay(true)?;
    let mut plain = StreamingConnection::new(socket);
    let info = match plain.read_next().await {
        Ok(ServerOp::Info { info }) => info,
        Ok(_) => return Err(LinkEnd::Connect("no INFO".to_owned())),
        Err(error) => return Err(connecting(&error)),
    };
    let secured = info.tls_required || config.wants_tls(&servers);
    let socket = if secured {
        let tls = TlsConnector::from(Arc::new(access::tls(config).await?));
        let name = server_name(&address)?;
        let upgraded = tls.connect(name, plain.into_inner()).await;
        Either::Right(Box::new(upgraded.map_err(|error| LinkEnd::Tls(error.to_string()))?))
    } else {
        Either::Left(plain.into_inner())
    };
    let mut connect = hello(config, login, secured);
    if let Some(path) = &config.credentials {
        let credentials = Credentials::read(path).await?;
        let nonce = info.nonce.as_deref().unwrap_or_default();
        let signature = credentials.sign(nonce.as_bytes()).map_err(|error| connecting(&error))?;
        connect.signature = Some(URL_SAFE_NO_PAD.encode(signature));
        connect.jwt = Some(credentials.jwt);
    }
    let mut connection = Connection::Streaming(StreamingConnection::new(socket));
    proto_connect(&mut connection, connect, |_| {}).await.map_err(|error| connecting(&error))?;
    Ok(connection)
}

fn connecting(error: &dyn Error) -> LinkEnd {
    LinkEnd::Connect(with_causes(error))
}

/// One of the configured servers, which go round.
fn address(config: &BusConfig, server: usize) -> Result<ServerAddr, LinkEnd> {
    let urls: Vec<&str> = config.url.split(',').map(str::trim).collect();
    let url = urls[server % urls.len()];
    // The parser's own error may repeat the URL, which may hold a password.
    url.parse().map_err(|_| LinkEnd::Connect("not a NATS URL".to_owned()))
}

/// What the server's certificate has to be for.
fn server_name(address: &ServerAddr) -> Result<ServerName<'static>, LinkEnd> {
    match address.host() {
        Host::Ip(ip) => Ok(ServerName::IpAddress((*ip).into())),
        Host::Dns(name) => {
            ServerName::try_from(name.to_string()).map_err(|error| LinkEnd::Tls(error.to_string()))
        }
    }
}

fn hello(config: &BusConfig, login: Login, secured: bool) -> Connect {
    let (auth_token, user) = match login {
        Login::Nobody => (None, None),
        Login::Token(token) => (Some(token), None),
        Login::User(user, password) => (None, Some((user, password))),
    };
    let (username, password) = user.unzip();
    Connect {
        verbose: false,
        pedantic: false,
        require_tls: secured,
        auth_token,
        username,
        password,
        client_name: Some(format!("{} follow", config.name)),
        client_lang: "rust-natter",
        client_version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        echo: true,
        signature: None,
        jwt: None,
        supports_no_responders: true,
        supports_headers: true,
        nkey: None,
        non_standard: NonStandardConnect::default(),
    }
}

async fn serve<S1, S2>(
    mut connection: Connection<S1, S2>,
    ops: &Ops,
    sender: &mpsc::Sender<Incoming>,
    generation: u64,
) -> LinkEnd
where
    S1: AsyncRead + AsyncWrite + Unpin,
    S2: AsyncRead + AsyncWrite + Unpin,
{
    info!("the receiving connection to NATS is up");
    ops.open(generation);
    if sender.send(Incoming::Up(generation)).await.is_err() {
        return LinkEnd::Gone;
    }
    let end = match exchange(&mut connection, ops, sender).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    ops.open(Ops::NOBODY);
    // The follower must hear of it even when its queue is full.
    if sender.send(Incoming::Down).await.is_err() { LinkEnd::Gone } else { end }
}

async fn exchange<S1, S2>(
    connection: &mut Connection<S1, S2>,
    ops: &Ops,
    sender: &mpsc::Sender<Incoming>,
) -> Result<std::convert::Infallible, LinkEnd>
where
    S1: AsyncRead + AsyncWrite + Unpin,
    S2: AsyncRead + AsyncWrite + Unpin,
{
    let names = Names::new();
    let mut pings: std::collections::VecDeque<(u64, Instant)> = std::collections::VecDeque::new();
    let mut keepalive = tokio::time::interval(KEEPALIVE);
    keepalive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            op = connection.read_next() => {
                let mut batch = Vec::new();
                let mut op = Some(op);
                while let Some(next) = op {
                    match next.map_err(|error| LinkEnd::Read(error.to_string()))? {
                        ServerOp::Message { message } => batch.extend(names.read(message)),
                        ServerOp::Pong => {
                            if let Some((number @ 1.., _)) = pings.pop_front() {
                                // In its place: after the messages that came before it.
                                if !batch.is_empty() {
                                    hand_over(sender, Incoming::Batch(std::mem::take(&mut batch))).await?;
                                }
                                hand_over(sender, Incoming::Pong(number)).await?;
                            }
                        }
                        ServerOp::Ping => {
                            connection.enqueue_write_op(&ClientOp::Pong);
                            write(connection).await?;
                        }
                        ServerOp::Error { error } => return Err(LinkEnd::Server(error.to_string())),
                        ServerOp::Success | ServerOp::Info { .. } => {}
                    }
                    op = if batch.len() < BATCH { connection.read_next().now_or_never() } else { None };
                }
                if !batch.is_empty() {
                    hand_over(sender, Incoming::Batch(batch)).await?;
                }
            }
            () = ops.wake.notified() => {
                for op in ops.take() {
                    let op = match op {
                        Op::Subscribe(id, subject) => {
                            let Ok(subject) = Subject::try_from(subject) else { continue };
                            ClientOp::Subscribe { id: id.into(), subject, queue_group: None }
                        }
                        Op::Unsubscribe(id) => ClientOp::Unsubscribe { id: id.into(), max_messages: None },
                        Op::Ping(number) => {
                            pings.push_back((number, Instant::now()));
                            ClientOp::Ping
                        }
                    };
                    connection.enqueue_write_op(&op);
                    if !connection.may_enqueue_more_ops() {
                        write(connection).await?;
                    }
                }
                write(connection).await?;
            }
            _ = keepalive.tick() => {
                if pings.front().is_some_and(|(_, sent)| sent.elapsed() > SILENCE_MAX) {
                    return Err(LinkEnd::Silent);
                }
                if pings.is_empty() {
                    pings.push_back((0, Instant::now()));
                    connection.enqueue_write_op(&ClientOp::Ping);
                    write(connection).await?;
                }
            }
        }
    }
}

async fn hand_over(sender: &mpsc::Sender<Incoming>, incoming: Incoming) -> Result<(), LinkEnd> {
    sender.send(incoming).await.map_err(|_| LinkEnd::Gone)
}

async fn write<S1, S2>(connection: &mut Connection<S1, S2>) -> Result<(), LinkEnd>
where
    S1: AsyncRead + AsyncWrite + Unpin,
    S2: AsyncRead + AsyncWrite + Unpin,
{
    timeout(WRITE_TIMEOUT, connection.write_and_flush())
        .await
        .map_err(|_| LinkEnd::WriteTimeout)?
        .map_err(LinkEnd::Write)
}

/// The header names, checked once instead of at every message.
struct Names {
    sequence: HeaderName,
    last_sequence: HeaderName,
    time_stamp: HeaderName,
    traceparent: HeaderName,
}

impl Names {
    fn new() -> Self {
        Self {
            sequence: HeaderName::from_static(subjects::SEQUENCE),
            last_sequence: HeaderName::from_static(subjects::LAST_SEQUENCE),
            time_stamp: HeaderName::from_static(subjects::TIME_STAMP),
            traceparent: HeaderName::from_static(subjects::TRACEPARENT),
        }
    }

    /// What the message is; `None` for what this version does not know.
    fn read(&self, message: ServerMessage) -> Option<Message> {
        let subject = message.base.subject.as_str();
        if let Some(feed) = subjects::parse_live(subject) {
            let headers = &message.base.headers;
            let arrival = Arrival {
                seq: text(headers, &self.sequence)?.parse().ok()?,
                prev: text(headers, &self.last_sequence).and_then(|s| s.parse().ok()).unwrap_or(0),
                at: text(headers, &self.time_stamp)
                    .and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok())?,
                traceparent: text(headers, &self.traceparent).map(Box::from),
                body: message.base.payload,
            };
            return Some(Message::Entry(feed, arrival));
        }
        if let Some(feed) = subjects::parse_signal(subject) {
            return Some(Message::Signal(feed, message.base.payload));
        }
        subjects::parse_digest(subject).map(|shard| Message::Digest(shard, message.base.payload))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
