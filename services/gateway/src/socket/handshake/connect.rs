//! How a Socket.IO client gets in: its `CONNECT` brings the token and, when it comes back, where it
//! stood.

use axum::extract::ws::Utf8Bytes;
use natter_protocol::{
    error::{ErrorCode, WireError},
    server::Ready,
    socketio::{Auth, Packet},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Client, admitted};
use crate::{
    admission::Admitted,
    app::App,
    auth::{Refusal, refused},
    codec,
    hub::frames::frame,
    socket::wire::{Heard, Over, Wire},
    socketio::Moved,
};

/// Refused attempts of one transport, each of which asks Postgres.
const TRIES: usize = 3;

/// Who it is. A token that is refused is told so, and the client does not come back by itself; when
/// nobody can tell, the transport ends, and it does.
///
/// # Errors
/// The transport is over.
pub async fn authenticate(
    app: &App,
    wire: &mut Wire,
    client: &mut Client,
) -> Result<Admitted, Over> {
    let shown = client.token.take();
    let within = app.config.socket.handshake();
    for _ in 0..TRIES {
        let asked = timeout(within, connect(wire, shown.as_deref())).await;
        let auth = asked.unwrap_or(Err(None))?;
        let token = auth.token.or_else(|| shown.clone());
        let admitted = match &token {
            Some(token) => admitted(app, token).await,
            None => Err(refused(Refusal::Missing, "a token is missing")),
        };
        match admitted {
            Ok(admitted) => {
                *client = Client {
                    token,
                    echo: auth.echo,
                    checkpoints: auth.checkpoints,
                    // Where it stood, or else where it began: no event may have come since.
                    cursor: match &auth.pid {
                        Some(pid) => auth.offset.or_else(|| Some(pid.clone())),
                        None => auth.cursor,
                    },
                    pid: auth.pid,
                };
                return Ok(admitted);
            }
            Err(error)
                if matches!(
                    error.code,
                    ErrorCode::Unauthenticated | ErrorCode::AccountDisabled
                ) =>
            {
                // Nobody is let in who does not read: nothing else would end this.
                timeout(within, wire.send(refusal(&error))).await.unwrap_or(Err(None))?;
            }
            Err(_) => return Err(None),
        }
    }
    Err(None)
}

/// The client's `CONNECT`. `shown` is the token that came with the transport.
async fn connect(wire: &mut Wire, shown: Option<&str>) -> Result<Auth, Over> {
    loop {
        let text = match wire.hear().await? {
            Heard::Frame(text) => text,
            Heard::Alive => continue,
            // Nothing may be said before it.
            Heard::Binary => return Err(None),
            Heard::MoveOut(moving) => {
                let (token, waiting) = (shown.map(str::to_owned), wire.waiting());
                let _ = moving.send(Moved::Fresh { token, waiting });
                return Err(None);
            }
        };
        let packet = text.strip_prefix('4').and_then(|packet| Packet::parse(packet).ok());
        match packet {
            Some(Packet::Connect { namespace: "", auth: None }) => return Ok(Auth::default()),
            Some(Packet::Connect { namespace: "", auth: Some(auth) }) => {
                // One that has another form shows no token.
                return Ok(serde_json::from_str(auth.get()).unwrap_or_default());
            }
            Some(Packet::Connect { namespace, .. }) => {
                wire.send(codec::no_namespace(namespace)).await?;
            }
            Some(Packet::Disconnect { .. } | Packet::Event(_) | Packet::Ack { .. }) | None => {
                return Err(None);
            }
        }
    }
}

#[derive(Serialize)]
struct Accepted<'a> {
    sid: String,
    /// A stock client counts the connection as recovered when this is what it had before.
    pid: &'a str,
}

/// Tells the client that it is in. What it shows when it comes back and has received nothing says
/// where it began.
pub fn accepted(ready: &Ready, pid: Option<&str>) -> Utf8Bytes {
    let pid = pid.filter(|_| ready.resumed).unwrap_or(&ready.cursor);
    let accepted = Accepted { sid: ready.connection_id.to_string(), pid };
    ["40", frame(&accepted).as_str()].concat().into()
}

/// A token that is refused: the `data` of `connect_error`.
#[derive(Serialize, ToSchema)]
#[schema(as = SocketIoRefused)]
pub(crate) struct Refused<'a> {
    /// For the developer who reads it.
    message: &'a str,
    /// What went wrong.
    data: &'a WireError,
}

fn refusal(error: &WireError) -> Utf8Bytes {
    ["44", frame(&Refused { message: &error.message, data: error }).as_str()].concat().into()
}
