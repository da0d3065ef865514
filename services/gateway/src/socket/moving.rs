//! A session that moves from polling to a WebSocket, which may be at another node: what it has come
//! to goes along, and the rest is what anybody who comes back with a cursor gets.

use std::time::Duration;

use natter_protocol::{
    cursor::Cursor,
    error::{ErrorCode, WireError, close},
    feed::Feed,
    ids::{ChatId, ConnectionId, Shard, UserId},
    server::ServerEvent,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    GOODBYE,
    checkpoints::Checkpoints,
    commands::{self, Who},
    handshake::{ADMISSION, Begin, Client, Place, admitted, begin, parse_cursor},
    session::Session,
    wire::Wire,
};
use crate::{app::App, socketio::Moved};

/// What a session that may move keeps for that.
#[derive(Debug)]
pub struct Baggage {
    /// What let the device in.
    pub token: String,
    /// Whose presence it wants to hear of.
    pub watching: Vec<UserId>,
}

/// A session on its way from one transport to another.
#[derive(Serialize, Deserialize)]
pub struct Moving {
    token: String,
    connection: ConnectionId,
    /// What has been written, or waits here.
    cursor: String,
    /// Where it began, unless it has resumed.
    began: Option<String>,
    echo: bool,
    checkpoints: Option<Box<Checkpoints>>,
    /// Not all that it missed has been written, and its client is told when it is.
    resuming: bool,
    /// Milliseconds since its client was last pinged.
    pinged: u64,
    watching: Vec<UserId>,
    typing: Vec<(ChatId, Shard)>,
    /// Packets that no poll has fetched.
    waiting: Vec<String>,
}

impl Session {
    /// Leaves this transport, and gives what it has come to to the next. Nothing is under way.
    pub(super) async fn move_out(mut self: Box<Self>, moving: oneshot::Sender<Moved>) {
        let (user, seal) = self.owner();
        let Some(baggage) = self.baggage.take() else { return };
        let pinged = u64::try_from(self.pinged.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Self { cursor, began, echo, checkpoints, resuming, typing, place, mut wire, .. } =
            *self;
        // Whatever is delivered from here on is for the next one.
        place.outlet.close(close::DRAINING);
        let moved = Moving {
            token: baggage.token,
            connection: place.connection,
            cursor: cursor.text(user, seal),
            began: began.map(|began| began.text(user, seal)),
            echo,
            checkpoints,
            resuming,
            pinged,
            watching: baggage.watching,
            typing: typing.into_iter().map(|(chat, feed)| (chat, feed.shard)).collect(),
            waiting: wire.waiting(),
        };
        let _ = moving.send(Moved::Session(Box::new(moved)));
        drop(wire);
        // The device stays online until it is so at the next one.
        sleep(GOODBYE).await;
        drop(place);
    }

    /// Goes on with what a session had come to on another transport. `None`: the transport has been
    /// closed, and the client connects anew.
    pub async fn move_in(app: App, mut wire: Wire, moving: Moving) -> Option<Box<Self>> {
        let client = Client {
            token: None,
            echo: moving.echo,
            checkpoints: moving.checkpoints.is_some(),
            cursor: Some(moving.cursor.clone()),
            pid: None,
        };
        let admitted = match admitted(&app, &moving.token).await {
            Ok(admitted) => admitted,
            Err(error) => {
                wire.goodbye(code_of(&error, close::UNAUTHENTICATED)).await;
                return None;
            }
        };
        let mut place = Place::new(&app, &admitted.caller, moving.connection);
        let began = timeout(ADMISSION, begin(&app, &mut place, &admitted, &client)).await;
        let replay = match began {
            Ok(Ok(Begin::Resumed(replay))) => replay,
            Ok(Err(error)) => {
                let code = code_of(&error, close::DEVICE_REVOKED);
                if code == close::DEVICE_REVOKED {
                    // It was while the session moved, and nobody else tells its client.
                    let device_id = admitted.caller.device_id;
                    let revoked = ServerEvent::DeviceRevoked { device_id };
                    let _ = wire.send(wire.codec().event(&revoked)).await;
                }
                wire.goodbye(code).await;
                return None;
            }
            // What it stands at cannot be gone on from: the client is told so when it comes back.
            Ok(Ok(_)) | Err(_) => {
                wire.goodbye(close::TRY_AGAIN).await;
                return None;
            }
        };
        let who = Who {
            caller: admitted.caller.clone(),
            connection: place.connection,
            codec: wire.codec(),
        };
        let written =
            timeout(app.config.socket.handshake(), unpack(&app, &mut wire, &who, &moving));
        if !matches!(written.await, Ok(Ok(()))) {
            return None;
        }
        let viewer = place.viewer(&admitted.caller, moving.echo);
        let began = moving.began.as_deref().and_then(|text| parse_cursor(&app, text, viewer).ok());
        let begin = if moving.resuming {
            Begin::Resumed(replay)
        } else {
            Begin::Moved(replay, began.map(Box::<Cursor>::new))
        };
        let mut session = Self::new(app, admitted.caller, wire, place, begin, moving.echo);
        session.checkpoints = moving.checkpoints;
        session.pinged_before(Duration::from_millis(moving.pinged));
        let typing = moving.typing.into_iter();
        session.typing = typing.map(|(chat, shard)| (chat, Feed::chat(shard, chat))).collect();
        Some(session)
    }
}

/// What had not been fetched, and the presence of whom it watches: it may have changed meanwhile.
async fn unpack(app: &App, wire: &mut Wire, who: &Who, moving: &Moving) -> Result<(), Option<u16>> {
    for packet in &moving.waiting {
        wire.feed(packet.as_str().into()).await?;
    }
    if !moving.watching.is_empty()
        && let Ok(watched) = commands::watch(app, who, &moving.watching).await
    {
        for presence in &watched {
            wire.feed(wire.codec().event(&ServerEvent::Presence(presence))).await?;
        }
    }
    wire.flush().await
}

/// What a connection that cannot go on is closed with.
fn code_of(error: &WireError, refused: u16) -> u16 {
    match error.code {
        ErrorCode::Unauthenticated => refused,
        ErrorCode::AccountDisabled => close::ACCOUNT_DISABLED,
        _ => close::TRY_AGAIN,
    }
}
