//! From a socket to a session: who it is, and everything that the user follows is followed.
//!
//! A token that is refused ends the socket after the upgrade, with a close code, since browsers
//! do not show the status of a refused upgrade.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{Message, WebSocket};
use natter_protocol::{
    client::{ClientFrame, Command},
    error::{ErrorCode, WireError, close},
    feed::Feed,
    ids::ConnectionId,
    limits,
    server::{Authenticated, ErrorReply, Limits, Ready, Reply, ServerEvent},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{code_of, goodbye, session::Session};
use crate::{
    app::App,
    auth::Caller,
    fault,
    hub::{Attach, Command as HubCommand, frames::frame},
    registry::{Closing, Connection, Outgoing, Outlet},
};

/// How long following everything may take, with the broker away for instance.
const ADMISSION: Duration = Duration::from_secs(15);

/// The whole handshake. `None`: the socket has been closed.
pub async fn admit(
    app: App,
    mut socket: WebSocket,
    token: Option<String>,
    echo: bool,
) -> Option<Box<Session>> {
    let caller = match authenticate(&app, &mut socket, token).await {
        Ok(caller) => caller,
        Err(code) => {
            if let Some(code) = code {
                goodbye(socket, code).await;
            }
            return None;
        }
    };
    let mut place = Place::new(&app, &caller);
    match timeout(ADMISSION, place.take(echo)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let _ = socket.send(Message::Text(frame(&ServerEvent::Exception(&error)))).await;
            goodbye(socket, close::TRY_AGAIN).await;
            return None;
        }
        Err(_) => {
            goodbye(socket, close::TRY_AGAIN).await;
            return None;
        }
    }
    let settings = &app.config.socket;
    let ready = frame(&ServerEvent::Ready(&Ready {
        user_id: caller.user_id,
        device_id: caller.device_id,
        connection_id: place.connection,
        heartbeat_ms: settings.heartbeat_seconds * 1000,
        resumed: false,
        limits: Limits {
            frame_bytes: limits::FRAME_BYTES,
            content_bytes: limits::CONTENT_BYTES,
            page: limits::PAGE,
            events_per_second: settings.events_per_second,
        },
    }));
    match timeout(settings.handshake(), socket.send(Message::Text(ready))).await {
        Ok(Ok(())) => Some(Session::new(app, caller, socket, place)),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// Who it is, by the token that came with the upgrade or in the first frame. An error is the close
/// code, or none when the socket is gone.
async fn authenticate(
    app: &App,
    socket: &mut WebSocket,
    token: Option<String>,
) -> Result<Caller, Option<u16>> {
    let within = app.config.socket.handshake();
    let (token, request) = match token {
        Some(token) => (token, None),
        None => match timeout(within, first_frame(socket)).await {
            Ok(first) => first?,
            Err(_) => return Err(Some(close::TIMEOUT)),
        },
    };
    match app.auth.authenticate(&token).await {
        Ok(caller) => {
            if let Some(reply) = request {
                let data = &Authenticated { expires_at: caller.expires_at };
                let frame = frame(&Reply { reply, data });
                socket.send(Message::Text(frame)).await.map_err(|_| None)?;
            }
            Ok(caller)
        }
        Err(error) => {
            let code = match error.code {
                ErrorCode::Unauthenticated => close::UNAUTHENTICATED,
                _ => close::TRY_AGAIN,
            };
            refuse(socket, request, &error).await;
            Err(Some(code))
        }
    }
}

/// The token in the first frame, and the number of the request if it wants a reply.
async fn first_frame(socket: &mut WebSocket) -> Result<(String, Option<u64>), Option<u16>> {
    loop {
        let text = match socket.recv().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(Message::Binary(_))) => return Err(Some(close::MALFORMED)),
            Some(Ok(Message::Close(_))) | None => return Err(None),
            Some(Err(error)) => return Err(code_of(error)),
        };
        let Ok(first) = ClientFrame::parse(&text) else { return Err(Some(close::MALFORMED)) };
        let error = match Command::parse(&first.event, first.data, None) {
            Ok(Command::Authenticate(authenticate)) => {
                return Ok((authenticate.token, first.id));
            }
            Ok(_) => WireError::new(ErrorCode::Unauthenticated, "authenticate first"),
            Err(error) => error,
        };
        refuse(socket, first.id, &error).await;
        return Err(Some(close::UNAUTHENTICATED));
    }
}

async fn refuse(socket: &mut WebSocket, request: Option<u64>, error: &WireError) {
    let frame = match request {
        Some(reply) => frame(&ErrorReply { reply, error }),
        None => frame(&ServerEvent::Exception(error)),
    };
    let _ = socket.send(Message::Text(frame)).await;
}

/// A connection's place in the registry. Dropping it gives the place up.
pub struct Place {
    app: App,
    caller: Caller,
    /// The connection's id.
    pub connection: ConnectionId,
    /// What it is sent.
    pub frames: mpsc::Receiver<Outgoing>,
    /// How it is told to end.
    pub closing: Arc<Closing>,
    outlet: Outlet,
    taken: bool,
}

impl Place {
    fn new(app: &App, caller: &Caller) -> Self {
        let (outlet, frames, closing) = Outlet::new(app.config.socket.queue_frames as usize);
        Self {
            app: app.clone(),
            caller: caller.clone(),
            connection: ConnectionId::generate(),
            frames,
            closing,
            outlet,
            taken: false,
        }
    }

    /// Registers with the hub and waits until everything is followed. The chats come from
    /// Postgres, unless the user is connected here already.
    async fn take(&mut self, echo: bool) -> Result<(), WireError> {
        let user = self.caller.user_id;
        let mut known = self.app.hub.registry().user(user).is_some();
        loop {
            let snapshot = if known {
                None
            } else {
                Some(self.app.store.followed(user).await.map_err(fault::store)?)
            };
            let (admitted, answer) = oneshot::channel();
            self.taken = true;
            let attach = Attach {
                user,
                name: self.caller.name.as_str().into(),
                feed: Feed::user(self.caller.user_shard, user),
                connection: Connection {
                    id: self.connection,
                    device: self.caller.device_id,
                    session: self.caller.session,
                    outlet: self.outlet.clone(),
                    echo,
                },
                snapshot,
                admitted,
            };
            self.app.hub.tell(HubCommand::Attach(Box::new(attach))).await;
            match answer.await {
                Ok(true) => break,
                // The user's other connection has gone in between.
                Ok(false) => known = false,
                Err(_) => return Err(fault::unavailable("the node")),
            }
        }
        // The device may have been revoked or signed out after the token was checked and before its user's feed
        // was followed. Whatever is revoked from here on comes by the feed.
        let state = self.app.store.device_state(user, self.caller.device_id).await;
        match state.map_err(fault::store)? {
            Some(state)
                if !state.revoked
                    && (self.caller.session.is_none() || self.caller.session == state.session) =>
            {
                Ok(())
            }
            _ => {
                self.outlet.close(close::DEVICE_REVOKED);
                Ok(())
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            let (hub, user, connection) =
                (self.app.hub.clone(), self.caller.user_id, self.connection);
            tokio::spawn(async move { hub.tell(HubCommand::Detach(user, connection)).await });
        }
    }
}
