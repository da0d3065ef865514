//! What becomes of messages after they were sent: edited, deleted, reacted to, answered.
//!
//! The message is looked up as history shows it, in Postgres with the log's tail over it, so that one
//! that was just acknowledged can be edited at once, and what is asked twice changes nothing. What is
//! allowed is decided here, before the change is published; the worker and everybody who folds the
//! tail apply what the log holds.

use std::{collections::HashSet, slice, time::Duration};

use natter_bus::follow::Arrival;
use natter_protocol::{
    client::Edit,
    error::{ErrorCode, WireError},
    feed::{Deleted, Edited, Event, Feed, Reacted, Target},
    ids::{ChatId, MessageId, UserId},
    limits,
    server::{Changed, Message, Quote, Role},
};
use time::OffsetDateTime;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    app::App,
    auth::Caller,
    changes::Changes,
    chats::not_member,
    fault,
    history::read_tail,
    hook::{Kind, Question},
    hub::{Command, frames},
    send::{self, Sender},
};

/// How long a reply waits for what it quotes. Sending must go on when Postgres hangs.
const QUOTE_WAIT: Duration = Duration::from_secs(1);
/// A user's id in a text.
const UUID_CHARS: usize = 36;

/// Gives a message of the caller's another content.
///
/// # Errors
/// `forbidden` for somebody else's or one that was sent too long ago; `conflict` for a deleted one;
/// `refused` by the deployment's own check; `not_found`, `not_member`, `bad_request`, `too_large`, `unavailable`.
pub async fn edit(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    message: MessageId,
    edit: Edit,
) -> Result<Changed, WireError> {
    let Edit { content, mentions } = edit;
    check_mentions(&mentions)?;
    let feed = send::writable_feed(app, caller.user_id, chat).await?;
    let (message, _) = find(app, feed, chat, message).await?.ok_or_else(unknown)?;
    if message.sender_id != caller.user_id {
        return Err(forbidden("only its sender edits a message"));
    }
    if message.deleted {
        return Err(gone());
    }
    let window = time::Duration::seconds(i64::from(app.config.messages.edit_seconds));
    if OffsetDateTime::now_utc() - message.created_at > window {
        return Err(forbidden("the time in which the message may be edited is over"));
    }
    send::check_content(&content, message.media.is_some())?;
    let content = checked(app, caller, &message, content, &mentions).await?;
    let mentions = mentioned(app, chat, &content, mentions).await;
    if (&content, &mentions) == (&message.content, &message.mentions) {
        return Ok(Changed { seq: message.seq });
    }
    let edited = Edited { target: target(&message), actor_id: caller.user_id, content, mentions };
    publish(app, feed, &Uuid::now_v7().to_string(), Event::Edited(edited)).await
}

/// The text that the message is given, once the deployment's own check has seen it.
async fn checked(
    app: &App,
    caller: &Caller,
    message: &Message,
    content: String,
    mentions: &[UserId],
) -> Result<String, WireError> {
    // What it says already has been let through.
    let Some(hook) = app.hook.as_ref().filter(|_| content != message.content) else {
        return Ok(content);
    };
    let question = Question {
        chat_id: message.chat_id,
        message_id: message.id,
        sender: &Sender::from(caller).card,
        device_id: Some(caller.device_id),
        content: &content,
        media_id: message.media.as_ref().map(|media| media.id),
        reply_to: message.reply_to,
        mentions,
    };
    Ok(hook.check(Kind::Editing, &question).await?.unwrap_or(content))
}

/// Takes a message back: one of the caller's own, or anybody's where the caller manages the chat.
///
/// # Errors
/// `forbidden`, `not_found`, `not_member`, `unavailable`.
pub async fn delete(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    message: MessageId,
) -> Result<Changed, WireError> {
    let feed = send::writable_feed(app, caller.user_id, chat).await?;
    let (message, _) = find(app, feed, chat, message).await?.ok_or_else(unknown)?;
    if message.sender_id != caller.user_id {
        // As it is at this moment: a role may have been taken away since the connection began.
        let member = app.store.membership(caller.user_id, chat).await.map_err(fault::store)?;
        if !matches!(member.ok_or_else(not_member)?.role, Role::Owner | Role::Admin) {
            return Err(forbidden("only its sender and who manages the chat delete a message"));
        }
    }
    take_back(app, feed, caller.user_id, &message).await
}

/// Takes anybody's message back, for the deployment itself.
///
/// # Errors
/// `not_found`, `unavailable`.
pub async fn moderate(app: &App, chat: ChatId, message: MessageId) -> Result<Changed, WireError> {
    let feed = send::any_feed(app, chat).await?;
    let (message, _) = find(app, feed, chat, message).await?.ok_or_else(unknown)?;
    take_back(app, feed, UserId::SYSTEM, &message).await
}

async fn take_back(
    app: &App,
    feed: Feed,
    actor_id: UserId,
    message: &Message,
) -> Result<Changed, WireError> {
    if message.deleted {
        return Ok(Changed { seq: message.seq });
    }
    let target = target(message);
    let deleted = Deleted { target, actor_id };
    // The same id for all who delete it at once.
    publish(app, feed, &format!("{}.deleted", target.message_id), Event::Deleted(deleted)).await
}

/// Reacts to a message, or takes that back.
///
/// # Errors
/// `bad_request` for what is no emoji; `conflict` for a deleted message, and for more different emoji
/// than may be; `not_found`, `not_member`, `unavailable`.
pub async fn react(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    message: MessageId,
    emoji: &str,
    on: bool,
) -> Result<Changed, WireError> {
    let emoji = emoji_of(emoji)?;
    let user_id = caller.user_id;
    let feed = send::writable_feed(app, user_id, chat).await?;
    let (mut message, changes) = find(app, feed, chat, message).await?.ok_or_else(unknown)?;
    if message.deleted {
        return Err(gone());
    }
    let shown = slice::from_mut(&mut message);
    let none = std::collections::HashMap::new();
    changes.surround(&app.store, chat, user_id, shown, true, &none).await.map_err(fault::store)?;
    let there = message.reactions.iter().find(|known| known.emoji == emoji);
    if there.is_some_and(|known| known.mine) == on {
        return Ok(Changed { seq: message.seq });
    }
    let mine = message.reactions.iter().filter(|known| known.mine).count();
    if on && mine >= limits::REACTIONS_OF_USER {
        return Err(conflict("too many reactions of yours to this message"));
    }
    if on && there.is_none() && message.reactions.len() >= limits::REACTIONS {
        return Err(conflict("too many different reactions to this message"));
    }
    let emoji = emoji.to_owned();
    let reacted = Reacted { target: target(&message), user_id, emoji, on };
    publish(app, feed, &Uuid::now_v7().to_string(), Event::Reacted(reacted)).await
}

/// Some of the message that is answered, as it is now. None while Postgres cannot tell: history shows
/// it later.
///
/// # Errors
/// `not_found` when the chat has no such message.
pub async fn quote(
    app: &App,
    feed: Feed,
    chat: ChatId,
    answered: MessageId,
) -> Result<Option<Box<Quote>>, WireError> {
    match timeout(QUOTE_WAIT, find(app, feed, chat, answered)).await {
        Ok(Ok(Some((message, _)))) => Ok(Some(Box::new(Quote::of(&message)))),
        Ok(Ok(None)) => {
            let what = "replyTo: there is no such message in this chat";
            Err(WireError::new(ErrorCode::NotFound, what))
        }
        Ok(Err(error)) if error.code != ErrorCode::Unavailable => Err(error),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// More than may be named at once.
///
/// # Errors
/// `bad_request`.
pub fn check_mentions(named: &[UserId]) -> Result<(), WireError> {
    if named.len() > limits::MENTIONS {
        let what = format!("mentions: more than {}", limits::MENTIONS);
        return Err(WireError::new(ErrorCode::BadRequest, what));
    }
    Ok(())
}

/// The participants that a message names: in its text, or beside it. While Postgres cannot tell who
/// takes part, those of them who are connected here.
pub async fn mentioned(app: &App, chat: ChatId, content: &str, named: Vec<UserId>) -> Vec<UserId> {
    // Most messages name nobody, and this is all that it costs them.
    let mut users: Vec<UserId> = named_in(content).chain(named).collect();
    if users.is_empty() {
        return users;
    }
    let mut seen = HashSet::new();
    users.retain(|user| seen.insert(*user));
    users.truncate(limits::MENTIONS);
    let here = |app: &App, user| app.hub.registry().membership(user, chat).is_some();
    let unsure: Vec<UserId> = users.iter().copied().filter(|user| !here(app, *user)).collect();
    if unsure.is_empty() {
        return users;
    }
    let found = match timeout(QUOTE_WAIT, app.store.take_part(chat, &unsure)).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    users.retain(|user| !unsure.contains(user) || found.contains(user));
    users
}

/// Each `@` with a user's id behind it.
fn named_in(content: &str) -> impl Iterator<Item = UserId> {
    content.match_indices('@').filter_map(|(at, _)| {
        let id = content.get(at + 1..at + 1 + UUID_CHARS)?;
        Uuid::try_parse(id).ok().map(UserId)
    })
}

/// The emoji as Unicode spells it in full, so that the same one counts as one.
fn emoji_of(text: &str) -> Result<&'static str, WireError> {
    let known = (text.len() <= limits::EMOJI_BYTES).then(|| emojis::get(text)).flatten();
    let no = || WireError::new(ErrorCode::BadRequest, "emoji: not one emoji");
    known.map(emojis::Emoji::as_str).ok_or_else(no)
}

/// The message as it is at this moment, and what the log's tail holds that changes messages.
pub(crate) async fn find(
    app: &App,
    feed: Feed,
    chat: ChatId,
    id: MessageId,
) -> Result<Option<(Message, Changes)>, WireError> {
    let (persisted, mut message) = app.store.message(chat, id).await.map_err(fault::store)?;
    let away = || fault::unavailable("the log");
    let tail = read_tail(app, feed, persisted).await.map_err(|_| away())?.ok_or_else(away)?;
    let mut changes = Changes::default();
    for arrival in tail.into_iter().map(Arrival::from) {
        let Some(entry) = frames::parse(&arrival) else { continue };
        match entry.event {
            Event::Message(sent) if sent.id == id && message.is_none() => {
                message = Some(frames::message(chat, &sent, &arrival));
            }
            event => changes.push(event, &arrival),
        }
    }
    let message = message.filter(|message| message.seq > changes.expired());
    Ok(message.map(|mut message| {
        changes.apply(slice::from_mut(&mut message));
        (message, changes)
    }))
}

fn target(message: &Message) -> Target {
    Target { message_id: message.id, message_seq: message.seq }
}

async fn publish(app: &App, feed: Feed, id: &str, event: Event) -> Result<Changed, WireError> {
    let seq = send::publish_event(app, feed, id, event).await?;
    // Were the live copy lost, it is fetched.
    app.hub.tell(Command::Acked(feed, seq)).await;
    Ok(Changed { seq })
}

fn forbidden(why: &str) -> WireError {
    WireError::new(ErrorCode::Forbidden, why)
}

fn conflict(why: &str) -> WireError {
    WireError::new(ErrorCode::Conflict, why)
}

fn unknown() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no such message in this chat")
}

fn gone() -> WireError {
    conflict("the message is deleted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emoji_is_one_and_spelled_in_one_way() {
        let code = |text: &str| emoji_of(text).map_err(|error| error.code);
        assert_eq!(code("👍"), Ok("👍"));
        assert_eq!(code("👍🏽"), Ok("👍🏽"));
        assert_eq!(code("👨‍👩‍👧‍👦"), Ok("👨‍👩‍👧‍👦"));
        assert_eq!(code("🏴󠁧󠁢󠁥󠁮󠁧󠁿"), Ok("🏴󠁧󠁢󠁥󠁮󠁧󠁿"));
        assert_eq!(code("👩🏿‍❤️‍💋‍👩🏿"), Ok("👩🏿‍❤️‍💋‍👩🏿"));
        assert_eq!(code("\u{2764}"), Ok("\u{2764}\u{fe0f}"), "spelled without its style");
        for no in
            ["", "a", "1", " ", "👍👍", "👍 ", ":+1:", "thumbs up", "\u{fe0f}", "🇦", "\u{200d}"]
        {
            assert_eq!(code(no), Err(ErrorCode::BadRequest), "{no:?}");
        }
        assert_eq!(code(&"👍".repeat(1_000)), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn a_text_names_users_by_their_ids() {
        let (one, two) = (UserId::generate(), UserId::generate());
        let text = format!("@{one}, @Ana and ä@{two}@ @@{one} mail@example.org @é");
        assert_eq!(named_in(&text).collect::<Vec<_>>(), [one, two, one]);
        assert_eq!(named_in("@0198c0de-0001-7a00-8000").count(), 0);
        assert_eq!(named_in(&format!("@{}", "é".repeat(30))).count(), 0);
    }
}
