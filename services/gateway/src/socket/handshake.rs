//! From a socket to a session: who it is, and everything that the user follows is followed.
//!
//! A token that is refused ends the socket after the upgrade, with a close code, since browsers
//! do not show the status of a refused upgrade.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use natter_protocol::{
    client::{Authenticate, ClientFrame, Command},
    cursor::{Cursor, CursorError},
    error::{ErrorCode, WireError, close},
    feed::Feed,
    ids::{ConnectionId, UserId},
    limits,
    server::{Authenticated, ErrorReply, Limits, Ready, Reply, ResumeRefusal, ServerEvent},
};
use natter_store::Followed;
use tokio::{sync::oneshot, time::timeout};

use super::{ConnectOptions, code_of, goodbye, session::Session};
use crate::{
    admission::Admitted,
    app::App,
    auth::Caller,
    fault,
    hub::{Attach, Command as HubCommand, Hub, Standing, frames::frame},
    outlet::Outlet,
    registry::Connection,
    replay::{self, NoReplay, Replay, Viewer},
};

/// How long following everything may take, with the broker away for instance.
const ADMISSION: Duration = Duration::from_secs(15);

/// The whole handshake. `None`: the socket has been closed.
pub async fn admit(
    app: App,
    mut socket: WebSocket,
    token: Option<String>,
    mut options: ConnectOptions,
) -> Option<Box<Session>> {
    let admitted = match authenticate(&app, &mut socket, token, &mut options.cursor).await {
        Ok(admitted) => admitted,
        Err(code) => {
            if let Some(code) = code {
                goodbye(socket, code).await;
            }
            return None;
        }
    };
    let mut place = Place::new(&app, &admitted.caller);
    let begun = async {
        let (standing, snapshot) = place.take(&app, &admitted, options.echo).await?;
        let viewer = place.viewer(&admitted.caller, options.echo);
        resume(&app, viewer, options.cursor.as_deref(), standing, snapshot.as_ref()).await
    };
    let begin = match timeout(ADMISSION, begun).await {
        Ok(Ok(begin)) => begin,
        Ok(Err(error)) => {
            let code = match error.code {
                ErrorCode::Unauthenticated => close::DEVICE_REVOKED,
                _ => close::TRY_AGAIN,
            };
            let _ = socket.send(Message::Text(frame(&ServerEvent::Exception(&error)))).await;
            goodbye(socket, code).await;
            return None;
        }
        Err(_) => {
            goodbye(socket, close::TRY_AGAIN).await;
            return None;
        }
    };
    let caller = admitted.caller;
    let ready = ready(&app, &caller, place.connection, &begin);
    match timeout(app.config.socket.handshake(), socket.send(Message::Text(ready))).await {
        Ok(Ok(())) => Some(Session::new(app, caller, socket, place, begin, options.echo)),
        Ok(Err(_)) | Err(_) => None,
    }
}

/// How a connection begins.
pub enum Begin {
    /// Here, with nothing before.
    Afresh(Cursor, Option<ResumeRefusal>),
    /// With what it has missed.
    Resumed(Box<Replay>),
}

async fn resume(
    app: &App,
    viewer: Viewer,
    cursor: Option<&str>,
    standing: Standing,
    snapshot: Option<&Followed>,
) -> Result<Begin, WireError> {
    let at = standing.at.clone();
    let Some(text) = cursor else { return Ok(Begin::Afresh(at, None)) };
    let from = match parse_cursor(app, text, viewer) {
        Ok(from) => from,
        Err(refusal) => return Ok(Begin::Afresh(at, Some(refusal))),
    };
    match replay::everything(app, viewer, from, standing, snapshot).await {
        Ok(replay) => Ok(Begin::Resumed(Box::new(replay))),
        Err(NoReplay::Refused(refusal)) => Ok(Begin::Afresh(at, Some(refusal))),
        Err(NoReplay::Revoked) => {
            Err(WireError::new(ErrorCode::Unauthenticated, "the device was revoked"))
        }
        Err(NoReplay::Failed(error)) => Err(error),
    }
}

/// A client's cursor, or why it is none.
pub fn parse_cursor(app: &App, text: &str, viewer: Viewer) -> Result<Cursor, ResumeRefusal> {
    Cursor::parse(text, viewer.user, app.seals.all()).map_err(|error| match error {
        CursorError::Malformed => ResumeRefusal::Malformed,
        CursorError::Foreign => ResumeRefusal::Foreign,
    })
}

fn ready(app: &App, caller: &Caller, connection: ConnectionId, begin: &Begin) -> Utf8Bytes {
    let settings = &app.config.socket;
    let (at, resumed, resume_reason) = match begin {
        Begin::Afresh(at, reason) => (at, false, *reason),
        Begin::Resumed(replay) => (&replay.from, true, None),
    };
    frame(&ServerEvent::Ready(&Ready {
        user_id: caller.user_id,
        device_id: caller.device_id,
        connection_id: connection,
        heartbeat_ms: settings.heartbeat_seconds * 1000,
        cursor: at.text(caller.user_id, app.seals.current()),
        resumed,
        resume_reason,
        limits: Limits {
            frame_bytes: limits::FRAME_BYTES,
            content_bytes: limits::CONTENT_BYTES,
            page: limits::PAGE,
            events_per_second: settings.events_per_second,
        },
    }))
}

/// Who it is, by the token that came with the upgrade or in the first frame. An error is the close
/// code, or none when the socket is gone.
async fn authenticate(
    app: &App,
    socket: &mut WebSocket,
    token: Option<String>,
    cursor: &mut Option<String>,
) -> Result<Admitted, Option<u16>> {
    let within = app.config.socket.handshake();
    let (token, request) = match token {
        Some(token) => (token, None),
        None => match timeout(within, first_frame(socket)).await {
            Ok(first) => {
                let (authenticate, request) = first?;
                if authenticate.cursor.is_some() {
                    *cursor = authenticate.cursor;
                }
                (authenticate.token, request)
            }
            Err(_) => return Err(Some(close::TIMEOUT)),
        },
    };
    let authenticated = async {
        let _turn = app.admissions.turn().await;
        app.admissions.authenticate(app, &token).await
    };
    // A turn that does not come in time is the node's trouble, not the client's.
    let authenticated = timeout(ADMISSION, authenticated).await;
    match authenticated.unwrap_or_else(|_| Err(fault::unavailable("the node"))) {
        Ok(admitted) => {
            if let Some(reply) = request {
                let data = &Authenticated { expires_at: admitted.caller.expires_at };
                let frame = frame(&Reply { reply, data });
                socket.send(Message::Text(frame)).await.map_err(|_| None)?;
            }
            Ok(admitted)
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
async fn first_frame(socket: &mut WebSocket) -> Result<(Authenticate, Option<u64>), Option<u16>> {
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
                return Ok((authenticate, first.id));
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
    hub: Hub,
    user: UserId,
    /// The connection's id.
    pub connection: ConnectionId,
    /// What it is sent, and how it is told to end.
    pub outlet: Arc<Outlet>,
    taken: bool,
}

impl Place {
    fn new(app: &App, caller: &Caller) -> Self {
        Self {
            hub: app.hub.clone(),
            user: caller.user_id,
            connection: ConnectionId::generate(),
            outlet: Outlet::new(app.config.socket.queue_frames),
            taken: false,
        }
    }

    /// For whom it is.
    pub fn viewer(&self, caller: &Caller, echo: bool) -> Viewer {
        Viewer {
            user: caller.user_id,
            feed: Feed::user(caller.user_shard, caller.user_id),
            device: caller.device_id,
            key: caller.key,
            session: caller.session,
            connection: self.connection,
            echo,
        }
    }

    /// Registers with the hub and waits until everything is followed; answers where the
    /// connection begins. The chats come from Postgres, unless the user is connected here already.
    async fn take(
        &mut self,
        app: &App,
        admitted: &Admitted,
        echo: bool,
    ) -> Result<(Standing, Option<Followed>), WireError> {
        let _turn = app.admissions.turn().await;
        let (user, caller) = (self.user, &admitted.caller);
        let mut known = self.hub.registry().user(user).is_some();
        let begun = loop {
            let snapshot =
                if known { None } else { Some(app.admissions.followed(app, admitted).await?) };
            let (attached, answer) = oneshot::channel();
            self.taken = true;
            let attach = Attach {
                user,
                name: caller.name.as_str().into(),
                feed: Feed::user(caller.user_shard, user),
                connection: Connection {
                    id: self.connection,
                    device: caller.device_id,
                    session: caller.session,
                    outlet: Arc::clone(&self.outlet),
                    echo,
                },
                snapshot: snapshot.clone(),
                admitted: attached,
            };
            self.hub.tell(HubCommand::Attach(Box::new(attach))).await;
            match answer.await {
                Ok(Some(standing)) => break (standing, snapshot),
                // The user's other connection has gone in between.
                Ok(None) => known = false,
                Err(_) => return Err(fault::unavailable("the node")),
            }
        };
        app.admissions.confirm(app, admitted, &begun.0).await?;
        Ok(begun)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.taken {
            let (hub, user, connection) = (self.hub.clone(), self.user, self.connection);
            tokio::spawn(async move { hub.tell(HubCommand::Detach(user, connection)).await });
        }
    }
}
