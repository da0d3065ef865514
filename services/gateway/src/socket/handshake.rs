//! From a socket to a session: who it is, and everything that the user follows is followed.
//!
//! A token that is refused ends the socket after the upgrade, with a close code, since browsers
//! do not show the status of a refused upgrade.
//!
//! - `connect`: the beginning as Socket.IO's clients have it

pub(crate) mod connect;

use std::{sync::Arc, time::Duration};

use natter_protocol::{
    client::{Authenticate, ClientFrame, Command},
    cursor::{Cursor, CursorError},
    error::{ErrorCode, WireError, close},
    feed::Feed,
    ids::{ConnectionId, UserId},
    limits,
    server::{Authenticated, Limits, Ready, ResumeRefusal, ServerEvent},
};
use natter_store::Followed;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    moving::Baggage,
    session::Session,
    wire::{Heard, Over, Wire},
};
use crate::{
    admission::Admitted,
    app::App,
    auth::{Caller, Refusal, refused},
    codec::Codec,
    fault,
    hub::{Attach, Command as HubCommand, Hub, Standing},
    measures,
    outlet::Outlet,
    registry::Connection,
    replay::{self, NoReplay, Replay, Viewer},
};

/// How long following everything may take, with the broker away for instance.
pub const ADMISSION: Duration = Duration::from_secs(15);

/// What a client comes with.
#[derive(Debug, Default)]
pub struct Client {
    /// The token, unless its first frame brings it.
    pub token: Option<String>,
    /// Its own messages come as events too.
    pub echo: bool,
    /// Of Socket.IO: it is asked to acknowledge what it was sent.
    pub checkpoints: bool,
    /// Where it stood before: what it has missed is replayed.
    pub cursor: Option<String>,
    /// Of Socket.IO: what it was told at the beginning of the connection that it had before.
    pub pid: Option<String>,
}

/// The whole handshake. `None`: the transport has been closed.
pub async fn admit(app: App, mut wire: Wire, mut client: Client) -> Option<Box<Session>> {
    let opened = Instant::now();
    let authenticated = match wire.codec() {
        Codec::Native => authenticate(&app, &mut wire, &mut client).await,
        Codec::SocketIo => connect::authenticate(&app, &mut wire, &mut client).await,
    };
    let admitted = match authenticated {
        Ok(admitted) => admitted,
        Err(code) => {
            if let Some(code) = code {
                wire.goodbye(code).await;
            }
            return None;
        }
    };
    // A long wait for its turn counts: the next ping must come before its client gives up.
    let mut place = Place::new(&app, &admitted.caller, ConnectionId::generate());
    let begin = match timeout(ADMISSION, begin(&app, &mut place, &admitted, &client)).await {
        Ok(Ok(begin)) => begin,
        Ok(Err(error)) => {
            let code = match error.code {
                ErrorCode::Unauthenticated => close::DEVICE_REVOKED,
                ErrorCode::AccountDisabled => close::ACCOUNT_DISABLED,
                _ => close::TRY_AGAIN,
            };
            let told = wire.send(wire.codec().event(&ServerEvent::Exception(&error)));
            let _ = timeout(app.config.socket.handshake(), told).await;
            wire.goodbye(code).await;
            return None;
        }
        Err(_) => {
            wire.goodbye(close::TRY_AGAIN).await;
            return None;
        }
    };
    let outcome = match &begin {
        Begin::Afresh(_, None) => "afresh",
        Begin::Afresh(_, Some(_)) => {
            measures::resumes("refused").increment(1);
            "refused"
        }
        Begin::Resumed(_) | Begin::Moved(..) => "resumed",
    };
    measures::handshakes(outcome).increment(1);
    measures::handshake_seconds().record(opened.elapsed());
    let caller = admitted.caller;
    let ready = async {
        let ready = ready(&app, &caller, place.connection, &begin);
        if wire.codec() == Codec::SocketIo {
            wire.feed(connect::accepted(&ready, client.pid.as_deref())).await?;
        }
        wire.send(wire.codec().event_at(&ServerEvent::Ready(&ready), &ready.cursor)).await
    };
    if !matches!(timeout(app.config.socket.handshake(), ready).await, Ok(Ok(()))) {
        return None;
    }
    let token = client.token.unwrap_or_default();
    let baggage =
        matches!(wire, Wire::Polling(_)).then(|| Box::new(Baggage { token, watching: Vec::new() }));
    let mut session = Session::new(app, caller, wire, place, begin, client.echo);
    session.baggage = baggage;
    session.pinged_before(opened.elapsed());
    session.checkpoints = client.checkpoints.then(Box::default);
    Some(session)
}

/// Takes the connection's place, and finds what it has missed.
///
/// # Errors
/// When it cannot be told, or the device is not what it was.
pub async fn begin(
    app: &App,
    place: &mut Place,
    admitted: &Admitted,
    client: &Client,
) -> Result<Begin, WireError> {
    let (standing, snapshot) = place.take(app, admitted, client.echo).await?;
    let viewer = place.viewer(&admitted.caller, client.echo);
    resume(app, viewer, client.cursor.as_deref(), standing, snapshot.as_ref()).await
}

/// How a connection begins.
pub enum Begin {
    /// Here, with nothing before.
    Afresh(Cursor, Option<ResumeRefusal>),
    /// With what it has missed.
    Resumed(Box<Replay>),
    /// With what has come since it left another transport; and where it began there, unless it has
    /// resumed.
    Moved(Box<Replay>, Option<Box<Cursor>>),
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
        Err(NoReplay::Revoked) => Err(refused(Refusal::Device, "the device was revoked")),
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

fn ready(app: &App, caller: &Caller, connection: ConnectionId, begin: &Begin) -> Ready {
    let settings = &app.config.socket;
    let (at, resumed, resume_reason) = match begin {
        Begin::Afresh(at, reason) => (at, false, *reason),
        Begin::Resumed(replay) | Begin::Moved(replay, _) => (&replay.from, true, None),
    };
    Ready {
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
    }
}

/// Who shows this token, when it is the client's turn.
///
/// # Errors
/// `unauthenticated`, or `unavailable`.
pub async fn admitted(app: &App, token: &str) -> Result<Admitted, WireError> {
    let authenticated = async {
        let _turn = app.admissions.turn().await;
        app.admissions.authenticate(app, token).await
    };
    // A turn that does not come in time is the node's trouble, not the client's.
    let authenticated = timeout(ADMISSION, authenticated).await;
    authenticated.unwrap_or_else(|_| Err(fault::unavailable("the node")))
}

/// Who it is, by the token that came with the upgrade or in the first frame.
async fn authenticate(app: &App, wire: &mut Wire, client: &mut Client) -> Result<Admitted, Over> {
    let within = app.config.socket.handshake();
    let (token, request) = match client.token.take() {
        Some(token) => (token, None),
        None => match timeout(within, first_frame(wire)).await {
            Ok(first) => {
                let (authenticate, request) = first?;
                if authenticate.cursor.is_some() {
                    client.cursor = authenticate.cursor;
                }
                (authenticate.token, request)
            }
            Err(_) => return Err(Some(close::TIMEOUT)),
        },
    };
    match admitted(app, &token).await {
        Ok(admitted) => {
            if let Some(request) = request {
                let data = &Authenticated { expires_at: admitted.caller.expires_at };
                wire.send(wire.codec().reply(request, data)).await.map_err(|_| None)?;
            }
            Ok(admitted)
        }
        Err(error) => {
            let code = match error.code {
                ErrorCode::Unauthenticated => close::UNAUTHENTICATED,
                ErrorCode::AccountDisabled => close::ACCOUNT_DISABLED,
                _ => close::TRY_AGAIN,
            };
            let _ = wire.send(wire.codec().refusal(request, &error)).await;
            Err(Some(code))
        }
    }
}

/// The token in the first frame, and the number of the request if it wants a reply.
async fn first_frame(wire: &mut Wire) -> Result<(Authenticate, Option<u64>), Over> {
    loop {
        let text = match wire.hear().await? {
            Heard::Frame(text) => text,
            Heard::Alive => continue,
            Heard::Binary | Heard::MoveOut(_) => return Err(Some(close::MALFORMED)),
        };
        let Ok(first) = ClientFrame::parse(&text) else { return Err(Some(close::MALFORMED)) };
        let error = match Command::parse(&first.event, first.data, None) {
            Ok(Command::Authenticate(authenticate)) => {
                return Ok((authenticate, first.id));
            }
            Ok(_) => refused(Refusal::Missing, "authenticate first"),
            Err(error) => error,
        };
        let _ = wire.send(wire.codec().refusal(first.id, &error)).await;
        return Err(Some(close::UNAUTHENTICATED));
    }
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
    /// A place that is not taken yet, for a connection with this id.
    pub fn new(app: &App, caller: &Caller, connection: ConnectionId) -> Self {
        Self {
            hub: app.hub.clone(),
            user: caller.user_id,
            connection,
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
            bot: caller.bot,
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
            let outlet = Arc::clone(&self.outlet);
            tokio::spawn(
                async move { hub.tell(HubCommand::Detach(user, connection, outlet)).await },
            );
        }
    }
}
