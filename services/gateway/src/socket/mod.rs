//! Connections, and the WebSocket transport: `GET /v1/ws`.
//!
//! A connection's life: upgrade → handshake → registered with the hub → session → gone.
//! - `wire`: the transports, which differ in nothing but how frames get there, and are spelled
//! - `handshake`: from a transport to a caller whose feeds are followed
//! - `session`: one loop that reads, writes and waits
//! - `writing`: what is queued, replayed and replied
//! - `playing`: what it has missed, replayed
//! - `checkpoints`: what its client has yet to acknowledge
//! - `moving`: to another transport
//! - `commands`: what a client asks for; `managing`: of that, what manages groups

mod checkpoints;
mod commands;
pub(crate) mod handshake;
mod managing;
mod moving;
mod playing;
mod session;
mod wire;
mod writing;

pub use self::{
    handshake::{Client, admit},
    moving::Moving,
    session::Session,
    wire::{Heard, Over, Wire, packet},
};

use std::time::Duration;

use axum::{
    Extension, Router,
    extract::{FromRef, Query, State, WebSocketUpgrade, ws::WebSocket},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::{FutureExt, future::BoxFuture};
use natter_protocol::limits;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{app::App, measures, serve::Place};

/// The subprotocol that the server speaks.
const PROTOCOL: &str = "natter.v1";
/// Browsers cannot set headers, so the token travels beside the subprotocol.
const BEARER: &str = "bearer.";
/// Most of what clients send is smaller, and the rest is read in several steps; the default of
/// 128 KiB is what makes idle sockets dear.
const READ_BUFFER: usize = 512;
/// Frames gathered before they are written.
const WRITE_BUFFER: usize = 8 * 1024;
/// More than any frame that the server makes: a page of history of the longest messages.
const WRITE_BUFFER_MAX: usize = 8 * 1024 * 1024;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a client asks for at connect, in the query; never a token.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SocketQuery)]
pub(crate) struct ConnectOptions {
    /// Its own messages come as events too.
    #[serde(default)]
    echo: bool,
    /// Where it stood before: what it has missed is replayed.
    #[serde(default)]
    #[schema(nullable = false)]
    cursor: Option<String>,
}

/// The route of the socket.
pub fn router<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    App: FromRef<S>,
{
    Router::new().route("/v1/ws", get(upgrade))
}

async fn upgrade(
    State(app): State<App>,
    Query(options): Query<ConnectOptions>,
    place: Option<Extension<Place>>,
    headers: HeaderMap,
    mut upgrade: WebSocketUpgrade,
) -> Response {
    let offered: Vec<HeaderValue> = upgrade.requested_protocols().cloned().collect();
    if offered.iter().any(|protocol| protocol == PROTOCOL) {
        upgrade.set_selected_protocol(HeaderValue::from_static(PROTOCOL));
    }
    let token = bearer(&headers).or_else(|| {
        let mut tokens = offered.iter().filter_map(|protocol| protocol.to_str().ok());
        tokens.find_map(|protocol| protocol.strip_prefix(BEARER)).map(str::to_owned)
    });
    if let Some(refusal) = turn_away(&app) {
        return refusal;
    }
    let ConnectOptions { echo, cursor } = options;
    let client = Client { token, echo, cursor, pid: None, checkpoints: false };
    let place = place.map(|Extension(place)| place);
    bounded(upgrade).on_upgrade(move |socket| serve(app, socket, client, place))
}

/// The answer to who comes while nobody can be let in: without the broker nobody can be told what
/// they follow. Before anything is upgraded, so that a load balancer may ask another node. Whoever is
/// in stays.
pub fn turn_away(app: &App) -> Option<Response> {
    if app.bus.connected() && app.hub.connected() {
        return None;
    }
    measures::handshakes_refused().increment(1);
    Some(unavailable())
}

/// What is answered over HTTP where it could be otherwise in a moment.
pub fn unavailable() -> Response {
    let retry_after = [(header::RETRY_AFTER, HeaderValue::from_static("1"))];
    (StatusCode::SERVICE_UNAVAILABLE, retry_after).into_response()
}

/// An upgrade with bounds on what its socket holds.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(limits::FRAME_BYTES)
        .max_frame_size(limits::FRAME_BYTES)
}

fn serve(
    app: App,
    socket: WebSocket,
    client: Client,
    place: Option<Place>,
) -> BoxFuture<'static, ()> {
    let admitted = handshake::admit(app, Wire::Native(socket), client);
    async move {
        if let Some(session) = admitted.await {
            session.start(place);
        }
    }
    .boxed()
}

/// The token in a request's `Authorization`.
pub fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.insert(header::AUTHORIZATION, value);
        }
        headers
    }

    proptest! {
        #[test]
        fn a_token_is_what_follows_the_scheme(
            scheme in "[Bb][Ee][Aa][Rr][Ee][Rr]", space in " {1,3}", token in "[!-~]{1,60}",
        ) {
            let found = bearer(&header(format!("{scheme}{space}{token}").as_bytes()));
            prop_assert_eq!(found, Some(token));
        }

        #[test]
        fn nothing_else_is_one(bytes: Vec<u8>, other in "[A-Za-z]{0,10}", token in "[ -~]{0,20}") {
            let _ = bearer(&header(&bytes));
            let found = bearer(&header(format!("{other} {token}").as_bytes()));
            prop_assert_eq!(found.is_some(), other.eq_ignore_ascii_case("bearer"));
        }
    }
}
