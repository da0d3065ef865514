//! What a client asks for over the socket, and the frames that answer it.

use std::{sync::Arc, time::Duration};

use axum::extract::ws::Utf8Bytes;
use natter_protocol::{
    client::{
        ChatTarget, Command, EditMessage, History, JoinChat, MessageTarget, MuteChat,
        PresenceSubscribe, React, SendMessage,
    },
    error::{self as wire, ErrorCode, WireError},
    feed::{Feed, Origin, Signal},
    ids::{ChatId, ConnectionId, UserId},
    limits,
    server::{Authenticated, Empty, Joined, Presence, PresenceList, Sent, ServerEvent, UserCard},
};
use natter_runtime::{causes, context};
use serde::Serialize;
use tokio::time::timeout;
use tracing::{Instrument, info_span};

use super::managing;
use crate::{
    app::App,
    auth::Caller,
    chats::not_member,
    codec::Codec,
    edits, fault, history,
    hub::Command as HubCommand,
    search,
    send::{self, InFlight, Preparation, Sender},
    text,
};

/// How long a request may take; the same as a call's over REST.
const LONGEST: Duration = Duration::from_secs(10);
/// Typing ends by itself after this long, in milliseconds (`wire`: 5 s).
const TYPING_MS: u32 = 5_000;

/// Whose requests these are.
#[derive(Debug)]
pub struct Who {
    /// The user and device, as at the handshake.
    pub caller: Caller,
    /// The connection.
    pub connection: ConnectionId,
    /// How it is answered.
    pub codec: Codec,
}

/// What a request came to.
pub struct Done {
    /// The client's number for it.
    pub request: Option<u64>,
    /// The answer.
    pub result: Result<Outcome, WireError>,
}

/// An answer.
pub enum Outcome {
    /// To be written.
    Frames(Vec<Utf8Bytes>),
    /// To be written, by whom the presence of these users is watched from here on.
    Watching(Vec<UserId>, Vec<Utf8Bytes>),
    /// A message is on its way.
    Published(Box<InFlight>),
    /// A message had been sent before.
    Sent(Sent),
    /// The connection types in this chat, on this feed; or, without it, has stopped.
    Typing(ChatId, Option<Feed>),
    /// The token was renewed, by this one.
    Renewed(Authenticated, String),
}

/// Does what a client asks for, or gives it up: a Postgres that hangs says nothing, and until a
/// request is done the connection is not read.
pub async fn run_in_time(app: App, who: Arc<Who>, request: Option<u64>, command: Command) -> Done {
    // What is given up has not been handed to the broker: that does not wait.
    let sending = matches!(command, Command::SendMessage(_));
    let done = timeout(LONGEST, run(app, who, request, command)).await;
    done.unwrap_or_else(|_| {
        let error = fault::unavailable("what this needs");
        let error = if sending { error.outcome(wire::Outcome::NotSent) } else { error };
        Done { request, result: Err(error) }
    })
}

async fn run(app: App, who: Arc<Who>, request: Option<u64>, command: Command) -> Done {
    let result = match command {
        Command::SendMessage(message) => {
            let span = context::begin(|| info_span!("send_message", chat = %message.chat_id));
            send_message(&app, &who, request, message).instrument(span).await
        }
        Command::TypingStart(target) => typing(&app, &who.caller, target, true).await,
        Command::TypingStop(target) => typing(&app, &who.caller, target, false).await,
        Command::History(history) => page(&app, &who, request, history).await,
        Command::JoinChat(join) => join_chat(&app, &who, request, join).await,
        Command::LeaveChat(target) => {
            let left = app.chats.leave(&who.caller, target.chat_id).await;
            left.map(|()| answer(&who, request, &Empty {}))
        }
        Command::CreateChat(create) => {
            let checked = text::valid(&create);
            match checked {
                Ok(()) => {
                    let created = app.chats.create(&who.caller, create).await;
                    created.map(|(chat, _)| answer(&who, request, &chat))
                }
                Err(error) => Err(error),
            }
        }
        Command::PresenceSubscribe(subscribe) => {
            presence_subscribe(&app, &who, request, subscribe).await
        }
        Command::AddParticipants(add) => managing::add(&app, &who, request, add).await,
        Command::RemoveParticipant(remove) => managing::remove(&app, &who, request, remove).await,
        Command::SetRole(set) => managing::set_role(&app, &who, request, set).await,
        Command::UpdateChat(update) => managing::update(&app, &who, request, update).await,
        Command::DeleteChat(target) => managing::delete(&app, &who, request, target).await,
        Command::JoinByInvite(join) => managing::join(&app, &who, request, join).await,
        Command::Authenticate(authenticate) => renew(&app, &who.caller, authenticate.token).await,
        Command::EditMessage(EditMessage { chat_id, message_id, edit }) => {
            let span = context::begin(|| info_span!("edit_message", chat = %chat_id));
            let edited = edits::edit(&app, &who.caller, chat_id, message_id, edit);
            edited.instrument(span).await.map(|changed| answer(&who, request, &changed))
        }
        Command::DeleteMessage(MessageTarget { chat_id, message_id }) => {
            let span = context::begin(|| info_span!("delete_message", chat = %chat_id));
            let deleted = edits::delete(&app, &who.caller, chat_id, message_id);
            deleted.instrument(span).await.map(|changed| answer(&who, request, &changed))
        }
        Command::React(React { chat_id, message_id, emoji, on }) => {
            let span = context::begin(|| info_span!("react", chat = %chat_id));
            let reacted = edits::react(&app, &who.caller, chat_id, message_id, &emoji, on);
            reacted.instrument(span).await.map(|changed| answer(&who, request, &changed))
        }
        Command::Read(mark) => {
            let origin = Origin { connection: who.connection, request: None };
            let read = app.reads.read(&who.caller, mark, Some(origin)).await;
            read.map(|()| answer(&who, request, &Empty {}))
        }
        Command::Delivered(mark) => {
            let delivered = app.reads.delivered(&who.caller, mark).await;
            delivered.map(|()| answer(&who, request, &Empty {}))
        }
        Command::MuteChat(MuteChat { chat_id, mute }) => {
            let muted = app.reads.mute(&who.caller, chat_id, mute).await;
            muted.map(|chat| answer(&who, request, &chat))
        }
        Command::UnmuteChat(target) => {
            let unmuted = app.reads.unmute(&who.caller, target.chat_id).await;
            unmuted.map(|chat| answer(&who, request, &chat))
        }
        Command::HideChat(target) => {
            let hidden = app.reads.hide(&who.caller, target.chat_id).await;
            hidden.map(|chat| answer(&who, request, &chat))
        }
        Command::SearchMessages(asked) => {
            let found = search::page(&app.store, &who.caller, &asked).await;
            found.map(|page| answer(&who, request, &page))
        }
        // The session's own, since its queue waits for it.
        Command::Resume(_) => Err(WireError::new(ErrorCode::Internal, "not resumed")),
    };
    Done { request, result }
}

pub(super) fn answer<T: Serialize>(who: &Who, request: Option<u64>, data: &T) -> Outcome {
    Outcome::Frames(request.map(|request| who.codec.reply(request, data)).into_iter().collect())
}

async fn send_message(
    app: &App,
    who: &Who,
    request: Option<u64>,
    message: SendMessage,
) -> Result<Outcome, WireError> {
    let user = who.caller.user_id;
    let name = app.hub.registry().user(user).map(|user| user.name.to_string());
    let sender = Sender {
        card: UserCard {
            id: user,
            name: name.unwrap_or_else(|| who.caller.name.clone()),
            bot: who.caller.bot,
        },
        device: Some(who.caller.device_id),
    };
    match send::prepare(app, sender, message.chat_id, message.draft).await? {
        Preparation::Duplicate(sent) => Ok(Outcome::Sent(sent)),
        Preparation::New(prepared) => {
            let origin = Origin { connection: who.connection, request };
            let in_flight = send::publish(app, *prepared, Some(origin))?;
            Ok(Outcome::Published(Box::new(in_flight)))
        }
    }
}

/// Tells everybody by a signal, and Redis for those who come later: typing may be lost. Redis is
/// waited for, a second at most, so that a start and a stop get there in their order.
async fn typing(
    app: &App,
    caller: &Caller,
    target: ChatTarget,
    starts: bool,
) -> Result<Outcome, WireError> {
    let chat = target.chat_id;
    let known = app.hub.registry().writable(caller.user_id, chat);
    let (feed, shut) = if let Some(known) = known {
        known
    } else {
        let member = app.store.membership(caller.user_id, chat).await.map_err(fault::store)?;
        let member = member.ok_or_else(not_member)?;
        (Feed::chat(member.shard, chat), member.shut)
    };
    if shut && starts {
        // Nobody is told, not even that nobody is.
        return Ok(Outcome::Typing(chat, None));
    }
    let (user_id, device_id) = (caller.user_id, caller.device_id);
    let ttl_ms = if starts { TYPING_MS } else { 0 };
    let _ = app.bus.signal(feed, &Signal::Typing { user_id, device_id, ttl_ms });
    let kept = if starts {
        let ttl = std::time::Duration::from_millis(TYPING_MS.into());
        app.presence.typing_start(chat, user_id, device_id, ttl).await
    } else {
        app.presence.typing_stop(chat, user_id, device_id).await
    };
    if let Err(error) = kept {
        tracing::debug!(error = %causes(&error), "typing was not kept for those who come later");
    }
    Ok(Outcome::Typing(chat, starts.then_some(feed)))
}

async fn page(
    app: &App,
    who: &Who,
    request: Option<u64>,
    history: History,
) -> Result<Outcome, WireError> {
    let limit = history.limit.unwrap_or(limits::PAGE_DEFAULT);
    let History { chat_id, before, after, around, .. } = history;
    let page = match around {
        Some(_) if before.is_some() || after.is_some() => {
            return Err(text::bad_request("around: not with before or after"));
        }
        Some(around) => history::around(app, &who.caller, chat_id, around, limit).await?,
        None => history::page(app, &who.caller, chat_id, before, after, limit).await?,
    };
    Ok(answer(who, request, &page))
}

async fn join_chat(
    app: &App,
    who: &Who,
    request: Option<u64>,
    join: JoinChat,
) -> Result<Outcome, WireError> {
    let limit = join.history.and_then(|history| history.limit).unwrap_or(limits::PAGE_DEFAULT);
    let joined = history::join(app, &who.caller, join.chat_id, limit).await?;
    Ok(opened(who, request, &joined))
}

/// What one who has joined is sent.
pub(super) fn opened(who: &Who, request: Option<u64>, joined: &Joined) -> Outcome {
    let mut frames = vec![who.codec.event(&ServerEvent::ChatHistory(&joined.messages))];
    frames.extend(request.map(|request| who.codec.reply(request, joined)));
    Outcome::Frames(frames)
}

async fn presence_subscribe(
    app: &App,
    who: &Who,
    request: Option<u64>,
    subscribe: PresenceSubscribe,
) -> Result<Outcome, WireError> {
    if subscribe.user_ids.len() > limits::PRESENCE_USERS {
        let message = format!("userIds: more than {}", limits::PRESENCE_USERS);
        return Err(WireError::new(ErrorCode::TooLarge, message));
    }
    let items = watch(app, who, &subscribe.user_ids).await?;
    let reply = request.map(|request| who.codec.reply(request, &PresenceList { items }));
    Ok(Outcome::Watching(subscribe.user_ids, reply.into_iter().collect()))
}

/// From here on the connection hears of the presence of these users, and of no others; answers how
/// it is now.
///
/// # Errors
/// When Postgres cannot tell with whom the user shares a chat.
pub async fn watch(app: &App, who: &Who, users: &[UserId]) -> Result<Vec<Presence>, WireError> {
    let user = who.caller.user_id;
    let shared = if users.is_empty() {
        Vec::new()
    } else {
        app.store.shares_chat(user, users).await.map_err(fault::store)?
    };
    let feeds = shared.iter().map(|(user, shard)| (*user, Feed::user(*shard, *user))).collect();
    // Listened to first, looked up after: a change in between comes as an event.
    app.hub.tell(HubCommand::Watch(user, who.connection, feeds)).await;
    let users: Vec<UserId> = shared.into_iter().map(|(user, _)| user).collect();
    Ok(match app.presence.presence(&users).await {
        Ok(items) => items,
        Err(error) => {
            tracing::debug!(error = %causes(&error), "presence is blank");
            let blank = |user_id| Presence { user_id, online: false, last_seen_at: None };
            users.into_iter().map(blank).collect()
        }
    })
}

/// A fresh token for the same user and device, before the old one expires.
async fn renew(app: &App, caller: &Caller, token: String) -> Result<Outcome, WireError> {
    let renewed = app.admissions.authenticate(app, &token).await?.caller;
    if (renewed.user_id, renewed.device_id) != (caller.user_id, caller.device_id) {
        let message = "the token is for another user or device";
        return Err(WireError::new(ErrorCode::Forbidden, message));
    }
    Ok(Outcome::Renewed(Authenticated { expires_at: renewed.expires_at }, token))
}
