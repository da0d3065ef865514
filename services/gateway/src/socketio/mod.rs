//! The transport of Socket.IO's clients: Engine.IO 4 at `/socket.io/`, over polling, a WebSocket,
//! or polling that is upgraded to one.
//!
//! Sessions are the same as on `/v1/ws`: what is here brings them packets.
//! - `polling`: packets that wait for requests, and those that requests have brought
//! - `sessions`: whose requests may reach any node

pub mod polling;
mod sessions;

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::{
    Extension, Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequest, Query, Request, State, WebSocketUpgrade,
        rejection::QueryRejection,
        ws::{Message, Utf8Bytes, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{FutureExt, future::BoxFuture};
use natter_protocol::{
    error::close,
    limits,
    socketio::{self, ENGINE_VERSION, Engine, Open},
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

pub use self::sessions::Sessions;
use self::sessions::{Answer, Ask, Sid};
use crate::{
    app::App,
    rest,
    serve::Place,
    socket::{Client, Moving, Session, Wire, admit, bearer, bounded, turn_away, unavailable},
};

/// Where stock clients look for it.
const PATH: &str = "/socket.io/";

/// A session on its way from polling to a WebSocket, which may be at another node.
#[derive(Serialize, Deserialize)]
pub enum Moved {
    /// Its client has not said yet who it is; this came with its first request.
    Fresh {
        /// A token.
        token: Option<String>,
        /// Packets that no poll has fetched.
        waiting: Vec<String>,
    },
    /// Its client is in.
    Session(Box<Moving>),
}

#[derive(Debug, Deserialize)]
struct Parameters {
    #[serde(rename = "EIO")]
    version: Option<String>,
    transport: Option<String>,
    sid: Option<String>,
    /// Another one in each request of a stock client.
    t: Option<String>,
}

/// Why a request is refused, as Engine.IO numbers it.
#[derive(Clone, Copy, Debug, Serialize)]
struct Refused {
    code: u8,
    message: &'static str,
}

const TRANSPORT: Refused = Refused { code: 0, message: "Transport unknown" };
const SESSION: Refused = Refused { code: 1, message: "Session ID unknown" };
const METHOD: Refused = Refused { code: 2, message: "Bad handshake method" };
const REQUEST: Refused = Refused { code: 3, message: "Bad request" };
const VERSION: Refused = Refused { code: 5, message: "Unsupported protocol version" };

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (StatusCode::BAD_REQUEST, Json(self)).into_response()
    }
}

/// The routes of the transport.
pub fn router(app: App) -> Router {
    let cors = rest::cors(&app.config.rest.cors_origins);
    let handlers = || get(on_get).head(async || METHOD).post(on_post).fallback(async || METHOD);
    Router::new()
        .route(PATH, handlers())
        .route(PATH.trim_end_matches('/'), handlers())
        .with_state(app)
        .layer(DefaultBodyLimit::max(limits::FRAME_BYTES))
        .layer(cors)
}

/// What a request is about.
enum Wanted {
    Handshake(Transport),
    Session(Transport, Sid, Option<u64>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Polling,
    WebSocket,
}

fn wanted(query: Result<Query<Parameters>, QueryRejection>) -> Result<Wanted, Refused> {
    let Query(Parameters { version, transport, sid, t }) = query.map_err(|_| REQUEST)?;
    let transport = match transport.as_deref() {
        Some("polling") => Transport::Polling,
        Some("websocket") => Transport::WebSocket,
        _ => return Err(TRANSPORT),
    };
    if version.as_deref() != Some(ENGINE_VERSION) {
        return Err(VERSION);
    }
    Ok(match sid {
        None => Wanted::Handshake(transport),
        Some(sid) => {
            let sid = Sid::try_from(sid).map_err(|_| SESSION)?;
            Wanted::Session(transport, sid, t.as_deref().map(name))
        }
    })
}

/// What a request calls itself, in short.
fn name(t: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    t.hash(&mut hasher);
    hasher.finish()
}

async fn on_get(
    State(app): State<App>,
    query: Result<Query<Parameters>, QueryRejection>,
    place: Option<Extension<Place>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let place = place.map(|Extension(place)| place);
    let wanted = match wanted(query) {
        Ok(wanted) => wanted,
        Err(refused) => return refused.into_response(),
    };
    if matches!(wanted, Wanted::Handshake(_))
        && let Some(refusal) = turn_away(&app)
    {
        return refusal;
    }
    match (wanted, upgrade) {
        (Wanted::Handshake(Transport::Polling), Err(_)) => open(app, &headers),
        (Wanted::Session(Transport::Polling, sid, name), Err(_)) => {
            answered(app.sessions.ask(Ask::Poll(sid, name)).await)
        }
        (Wanted::Handshake(Transport::WebSocket), Ok(upgrade)) => {
            let token = bearer(&headers);
            bounded(upgrade).on_upgrade(move |socket| connect(app, socket, token, place))
        }
        (Wanted::Session(Transport::WebSocket, sid, _), Ok(upgrade)) => {
            bounded(upgrade).on_upgrade(move |socket| take_over(app, socket, sid, place))
        }
        _ => REQUEST.into_response(),
    }
}

async fn on_post(
    State(app): State<App>,
    query: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Response {
    let (sid, name) = match wanted(query) {
        Ok(Wanted::Session(Transport::Polling, sid, name)) => (sid, name),
        Ok(Wanted::Session(Transport::WebSocket, ..)) => return REQUEST.into_response(),
        Ok(Wanted::Handshake(_)) => return METHOD.into_response(),
        Err(refused) => return refused.into_response(),
    };
    // A body that does not come to its end would hold its connection's place for ever.
    let body = timeout(app.config.socket.handshake(), Bytes::from_request(request, &()));
    let Ok(body) = body.await else { return StatusCode::REQUEST_TIMEOUT.into_response() };
    let Ok(body) = body else {
        app.sessions.ask(Ask::End(sid)).await;
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let Ok(payload) = String::from_utf8(body.into()) else {
        app.sessions.ask(Ask::End(sid)).await;
        return REQUEST.into_response();
    };
    answered(app.sessions.ask(Ask::Post(sid, payload, name)).await)
}

fn answered(answer: Answer) -> Response {
    match answer {
        Answer::Payload(payload) => packets(payload),
        Answer::Done => packets("ok".to_owned()),
        Answer::Malformed => REQUEST.into_response(),
        Answer::Unknown | Answer::Moved(_) => SESSION.into_response(),
        Answer::Unavailable => unavailable(),
    }
}

fn packets(payload: String) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/plain; charset=UTF-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, payload).into_response()
}

/// Opens a session over polling, which waits for its client to say who it is.
fn open(app: App, headers: &HeaderMap) -> Response {
    let sid = app.sessions.sid();
    let Some(end) = app.sessions.open(sid) else {
        return unavailable();
    };
    let opened = opened(&app, sid, true);
    let token = bearer(headers);
    tokio::spawn(begin(app, Wire::Polling(Box::new(end)), token, None));
    packets(opened.to_string())
}

fn opened(app: &App, sid: Sid, polling: bool) -> Utf8Bytes {
    let heartbeat = app.config.socket.heartbeat_seconds * 1000;
    let open = Open {
        sid: sid.into(),
        upgrades: polling.then(|| "websocket".to_owned()).into_iter().collect(),
        ping_interval: heartbeat,
        ping_timeout: heartbeat,
        max_payload: limits::FRAME_BYTES,
    };
    ["0", crate::hub::frames::frame(&open).as_str()].concat().into()
}

/// A WebSocket that is a session of its own.
fn connect(
    app: App,
    mut socket: WebSocket,
    token: Option<String>,
    place: Option<Place>,
) -> BoxFuture<'static, ()> {
    async move {
        let opened = opened(&app, app.sessions.sid(), false);
        let sent = timeout(app.config.socket.handshake(), socket.send(Message::Text(opened))).await;
        if matches!(sent, Ok(Ok(()))) {
            begin(app, Wire::SocketIo(socket), token, place).await;
        }
    }
    .boxed()
}

/// The handshake of a session, and its beginning.
fn begin(
    app: App,
    wire: Wire,
    token: Option<String>,
    place: Option<Place>,
) -> BoxFuture<'static, ()> {
    let client = Client { token, ..Client::default() };
    let admitted = admit(app, wire, client);
    async move {
        if let Some(session) = admitted.await {
            session.start(place);
        }
    }
    .boxed()
}

/// A WebSocket that takes over the session of a polling client, from whichever node has it.
fn take_over(
    app: App,
    mut socket: WebSocket,
    sid: Sid,
    place: Option<Place>,
) -> BoxFuture<'static, ()> {
    async move {
        let within = app.config.socket.handshake();
        let moved = timeout(within, taken(&app, &mut socket, sid)).await.ok().flatten();
        let mut wire = Wire::SocketIo(socket);
        match moved {
            Some(Moved::Fresh { token, waiting }) => {
                let written = async {
                    for packet in waiting {
                        wire.feed(packet.into()).await?;
                    }
                    wire.flush().await
                };
                if !matches!(timeout(within, written).await, Ok(Ok(()))) {
                    return;
                }
                begin(app, wire, token, place).await;
            }
            Some(Moved::Session(moving)) => {
                let moved = Session::move_in(app, wire, *moving).boxed();
                if let Some(session) = moved.await {
                    session.start(place);
                }
            }
            None => wire.goodbye(close::TRY_AGAIN).await,
        }
    }
    .boxed()
}

/// The session, once its client has asked for that in due form.
async fn taken(app: &App, socket: &mut WebSocket, sid: Sid) -> Option<Moved> {
    let first = next(socket).await?;
    if Engine::parse(&first) != Ok(Engine::Probe) {
        return None;
    }
    let Answer::Done = app.sessions.ask(Ask::Probe(sid)).await else { return None };
    let probed = Utf8Bytes::from_static(socketio::PROBED);
    let asked = match socket.send(Message::Text(probed)).await {
        Ok(()) => next(socket).await,
        Err(_) => None,
    };
    if !matches!(asked.as_deref().map(Engine::parse), Some(Ok(Engine::Upgrade))) {
        app.sessions.ask(Ask::Abandon(sid)).await;
        return None;
    }
    match app.sessions.ask(Ask::Take(sid)).await {
        Answer::Moved(moved) => Some(moved),
        _ => None,
    }
}

async fn next(socket: &mut WebSocket) -> Option<Utf8Bytes> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(text),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Binary(_) | Message::Close(_)) | Err(_) => return None,
        }
    }
}
