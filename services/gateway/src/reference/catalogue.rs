//! What the types do not tell of the socket's events: what a request is answered with and by which
//! errors, whom an event goes to, examples. What they do tell comes from [`schemas`](super::schemas).

use natter_protocol::{
    error::{ErrorCode, close},
    rest::SearchPage,
    server::{
        Authenticated, Changed, Chat, Empty, HistoryPage, Joined, PresenceList, Resumed, Sent,
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    asyncapi::reference,
    samples::{BEN, CHAT, CLIENT_MSG_ID, CODE, CURSOR, Samples, TOKEN},
};
use crate::codec;

/// A request over the socket.
pub struct Request {
    /// As the wire spells it.
    pub event: &'static str,
    /// The event that it is another name for.
    pub like: Option<&'static str>,
    /// An example of its payload.
    pub data: Value,
    /// The answer.
    pub answer: Answer,
    /// Codes that it may be answered by besides [`ALWAYS`].
    pub errors: &'static [ErrorCode],
    /// What there is to say besides.
    pub more: &'static str,
}

/// What a request is answered with.
pub struct Answer {
    /// The name of its schema.
    pub schema: String,
    /// An example.
    pub data: Value,
    /// Beside the data comes a cursor.
    pub cursor: bool,
}

/// Codes that any request may be answered by.
pub const ALWAYS: [ErrorCode; 5] = [
    ErrorCode::BadRequest,
    ErrorCode::Forbidden,
    ErrorCode::RateLimited,
    ErrorCode::Unavailable,
    ErrorCode::Internal,
];

fn answer<T: Serialize + ToSchema>(value: &T) -> Answer {
    let data = serde_json::to_value(value).unwrap_or_default();
    Answer { schema: T::name().into_owned(), data, cursor: false }
}

/// All of them, in the order that they are read about.
pub fn requests(samples: &Samples) -> Vec<Request> {
    use ErrorCode as Code;
    let empty = || answer(&Empty {});
    let chat = || json!({"chatId": CHAT});
    let up_to = || json!({"chatId": CHAT, "seq": 4_021});
    let request = |event, data, answer, errors, more| Request {
        event,
        like: None,
        data,
        answer,
        errors,
        more,
    };
    vec![
        request(
            "authenticate",
            json!({"token": TOKEN}),
            answer::<Authenticated>(&samples.authenticated),
            &[Code::Unauthenticated],
            "As the first frame of a WebSocket that shows no token otherwise, within 10 s; a token \
             that is refused closes it (4401). Later it renews the token: for the same user and \
             device, before the old one expires.",
        ),
        request(
            "send_message",
            json!({"chatId": CHAT, "content": "Hello Ben", "clientMsgId": CLIENT_MSG_ID}),
            Answer { cursor: true, ..answer::<Sent>(&samples.sent) },
            &[Code::NotMember, Code::NotFound, Code::Conflict, Code::TooLarge],
            "The reply means that the message is stored durably, and stands at the message's own \
             place in the feed. Retry what is `unavailable`, or was never answered, with the same \
             `clientMsgId`: it is one message for ever. `forbidden`: a one-to-one in which messages \
             cannot be sent.",
        ),
        request(
            "create_chat",
            json!({"isGroup": true, "title": "Sailing", "participantIds": [BEN], "open": true}),
            answer::<Chat>(&samples.chat),
            &[Code::NotFound],
            "A one-to-one that exists already is answered with. `forbidden`: one with this user \
             cannot be opened.",
        ),
        request(
            "join_chat",
            json!({"chatId": CHAT, "history": {"limit": 50}}),
            answer::<Joined>(&samples.joined),
            &[Code::NotFound],
            "The event `chat_history` comes before the reply. `forbidden`: the chat is not open, or \
             the caller is banned from it.",
        ),
        request(
            "leave_chat",
            chat(),
            empty(),
            &[Code::NotMember],
            "The others hear of it by `system`. When the last owner leaves, the admin who has been \
             there for longest becomes one, or else whoever has. `forbidden`: a one-to-one cannot be \
             left.",
        ),
        request(
            "history",
            json!({"chatId": CHAT, "before": 4_022, "limit": 50}),
            answer::<HistoryPage>(&samples.page),
            &[Code::NotMember],
            "Without `before`, `after` and `around` the newest ones.",
        ),
        request(
            "search_messages",
            json!({"q": "hello", "chatId": CHAT, "limit": 20}),
            answer::<SearchPage>(&samples.found),
            &[Code::NotMember],
            "What was sent a moment ago is found within a second of being written. `history` with \
             `around` shows what stands around it.",
        ),
        request(
            "typing_start",
            chat(),
            empty(),
            &[Code::NotMember],
            "To be repeated while it goes on; sending ends it too.",
        ),
        Request {
            like: Some("typing_start"),
            ..request("typing_ping", chat(), empty(), &[Code::NotMember], "")
        },
        request("typing_stop", chat(), empty(), &[Code::NotMember], ""),
        request(
            "presence_subscribe",
            json!({"userIds": [BEN]}),
            answer::<PresenceList>(&samples.presence),
            &[Code::TooLarge],
            "Of people one shares a chat with; changes come as `presence`.",
        ),
        request(
            "add_participants",
            json!({"chatId": CHAT, "userIds": [BEN]}),
            answer::<Chat>(&samples.chat),
            &[Code::NotMember, Code::NotFound, Code::Conflict],
            "Each of them is told of by `system`. `conflict`: one of them is banned.",
        ),
        request(
            "remove_participant",
            json!({"chatId": CHAT, "participantId": BEN, "ban": true}),
            empty(),
            &[Code::NotMember, Code::NotFound, Code::Conflict],
            "They get nothing more of the chat from the `system` event on that tells of it. With \
             `ban` they need take no part just now. `conflict`: one leaves oneself.",
        ),
        request(
            "set_role",
            json!({"chatId": CHAT, "participantId": BEN, "role": "owner", "transfer": true}),
            empty(),
            &[Code::NotMember, Code::NotFound, Code::Conflict],
            "`conflict`: the group would have no owner.",
        ),
        request(
            "update_chat",
            json!({"chatId": CHAT, "title": "Sailing club", "description": null}),
            answer::<Chat>(&samples.chat),
            &[Code::NotMember],
            "What is missing stays; `null` takes the description away, or the chat's own retention. \
             Everybody is told by `system`, which has the new title, description or `retentionSecs`. \
             `retentionSecs` is also for both of a one-to-one.",
        ),
        request(
            "delete_chat",
            chat(),
            empty(),
            &[Code::NotMember],
            "Everybody's part ends with the `system` event that tells of it.",
        ),
        request(
            "join_by_invite",
            json!({"code": CODE, "history": {"limit": 50}}),
            answer::<Joined>(&samples.joined),
            &[Code::NotFound],
            "As `join_chat`. `forbidden`: the caller is banned from the group.",
        ),
        request(
            "resume",
            json!({"cursor": CURSOR}),
            answer::<Resumed>(&samples.resumed),
            &[Code::Conflict],
            "Once, on a connection that has not resumed; better is to show the cursor when \
             connecting. What was missed follows, then `resume_done`. When it is refused, fetch \
             afresh by `history` and `GET /v1/chats`.",
        ),
        request(
            "edit_message",
            json!({"chatId": CHAT, "messageId": samples.message.id, "content": "Hello, Ben"}),
            answer::<Changed>(&samples.changed),
            &[Code::NotMember, Code::NotFound, Code::Conflict, Code::TooLarge],
            "The event comes besides, at its place in the feed. What the message says already changes \
             nothing. `forbidden`: somebody else's, or sent too long ago. `conflict`: it is deleted.",
        ),
        request(
            "delete_message",
            json!({"chatId": CHAT, "messageId": samples.message.id}),
            answer::<Changed>(&samples.changed),
            &[Code::NotMember, Code::NotFound],
            "The event comes besides. Deleting again changes nothing. `forbidden`: neither its sender \
             nor one who manages the chat.",
        ),
        request(
            "react",
            json!({"chatId": CHAT, "messageId": samples.message.id, "emoji": "👍"}),
            answer::<Changed>(&samples.changed),
            &[Code::NotMember, Code::NotFound, Code::Conflict],
            "With `on: false` it is taken back. The event comes besides. The same again changes \
             nothing. `conflict`: the message is deleted, or has as many reactions as may be.",
        ),
        request(
            "read",
            up_to(),
            empty(),
            &[Code::NotMember],
            "Stored durably when it is replied to. It only goes up, on all of the user's devices; \
             sending moves it too. `bad_request`: there is no such place yet.",
        ),
        request(
            "delivered",
            up_to(),
            empty(),
            &[Code::NotMember],
            "Of one chat the first is stored when it is replied to, those that follow within a second.",
        ),
        request(
            "mute_chat",
            json!({"chatId": CHAT, "forever": true}),
            answer::<Chat>(&samples.muted),
            &[Code::NotMember],
            "With `until`, a time, or `forever`. The user's other devices hear of it by `chat_updated`.",
        ),
        request("unmute_chat", chat(), answer::<Chat>(&samples.chat), &[Code::NotMember], ""),
        request(
            "hide_chat",
            chat(),
            answer::<Chat>(&samples.hidden),
            &[Code::NotMember],
            "The user's other devices hear of it by `chat_updated`. `forbidden`: a group.",
        ),
    ]
}

/// What is to be said of an event that the server sends.
pub struct Told {
    /// Whom it goes to, and when.
    pub to: &'static str,
    /// It is on a feed: it comes with a cursor.
    pub feed: bool,
}

/// Nothing for an event that is not known here, which a test sees.
pub fn told(event: &str) -> Option<Told> {
    let (to, feed) = match event {
        "ready" => ("To every connection, first of all.", false),
        "message" => (
            "To every connection of every participant but the one that sent it, which has the reply; \
             with `echo` also there.",
            true,
        ),
        "system" => ("To every connection of every participant.", true),
        "chat_history" => ("To whoever has joined by `join_chat`, before the reply.", false),
        "user_typing" => (
            "To the participants' connections, but not the typist's own. `false` comes when they \
             stop, send or are gone, or 5 s after the last `typing_start`.",
            false,
        ),
        "chat_added" | "chat_removed" => ("To the user's own devices.", true),
        "presence" => ("To whoever has subscribed by `presence_subscribe`.", false),
        "device_revoked" => ("To that device; the connection closes (4403).", false),
        "reconnect" => ("To every connection of a node that drains; it closes (1012).", false),
        "resume_done" => ("To whoever has resumed.", false),
        "exception" => ("To whoever has sent it.", false),
        "message_edited" | "message_deleted" => (
            "To every connection of every participant, also the one that asked. One for a message \
             that is deleted already changes nothing.",
            true,
        ),
        "reaction" => (
            "To every connection of every participant, also the one that asked. How many there are \
             history tells.",
            true,
        ),
        "messages_expired" => (
            "To every connection of every participant, when messages are older than the chat keeps \
             them: drop what you have up to `upTo`, quotes of it included, and count it as read. \
             What was missed up to there is not replayed; whoever knew less of the chat than that \
             fetches the chat anew, for who takes part in it.",
            true,
        ),
        "read" => (
            "To the user's own devices, but the connection that said so, on their feed, with a \
             cursor; and to the other participants of chats that are not too large, as a signal \
             without one. State is at `GET /v1/chats/{id}/receipts`.",
            false,
        ),
        "delivered" => (
            "To the other participants of chats that are not too large. State is at \
             `GET /v1/chats/{id}/receipts`.",
            false,
        ),
        "chat_updated" => (
            "To the user's own devices, when they have muted or hidden a chat. What of it is older \
             than `lastSeq` may have been told since.",
            true,
        ),
        "blocking" => (
            "To the own devices of whoever has blocked somebody; whom they have blocked is not told.",
            true,
        ),
        _ => return None,
    };
    Some(Told { to, feed })
}

/// Events that are on no feed, and tell Socket.IO's clients of a place to come back to all the same.
pub const PLACES: [&str; 2] = ["ready", "resume_done"];

/// Events that are on a feed for some and signals for others: a cursor comes with the former.
pub const SOMETIMES: [&str; 1] = ["read"];

/// An event that only Socket.IO's clients get.
pub struct SocketIoEvent {
    /// As the wire spells it.
    pub event: &'static str,
    /// What it tells.
    pub summary: &'static str,
    /// Its payload's schema.
    pub schema: Value,
    /// An example of it.
    pub example: Value,
    /// It is to be acknowledged.
    pub acknowledged: bool,
}

/// All of them.
pub fn socketio_events() -> [SocketIoEvent; 3] {
    [
        SocketIoEvent {
            event: "cursor",
            summary: "Where the connection stands after one's own message, which is replied to and \
                      is no event. A stock client keeps it by itself.",
            schema: json!({"type": "string"}),
            example: json!(CURSOR),
            acknowledged: false,
        },
        SocketIoEvent {
            event: "checkpoint",
            summary: "With `checkpoints` when connecting: acknowledge it once everything up to here \
                      has been dealt with. Four may be open; then what is on feeds waits.",
            schema: reference("Checkpoint"),
            example: json!({"cursor": CURSOR}),
            acknowledged: true,
        },
        SocketIoEvent {
            event: "closing",
            summary: "The close code, before the server disconnects.",
            schema: reference("Closing"),
            example: json!({"code": close::SLOW_CONSUMER, "reason": codec::reason(close::SLOW_CONSUMER)}),
            acknowledged: false,
        },
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use natter_protocol::client::Command;
    use serde_json::value::to_raw_value;

    use super::{
        super::{samples::ADA, schemas::Schemas},
        *,
    };

    #[test]
    fn every_request_of_the_protocol_is_told_of_and_no_other() -> anyhow::Result<()> {
        let requests = requests(&Samples::new());
        let own = requests.iter().filter(|request| request.like.is_none());
        let told: BTreeSet<_> = own.map(|request| request.event.to_owned()).collect();
        let known: BTreeSet<_> =
            Schemas::new().requests().into_iter().map(|event| event.name).collect();
        assert_eq!(told, known, "the catalogue, and the variants of Command");
        for request in requests {
            let read = |event| -> anyhow::Result<Command> {
                Ok(Command::parse(event, Some(&to_raw_value(&request.data)?), Some(ADA))?)
            };
            let command = read(request.event)?;
            assert_eq!(command, read(request.like.unwrap_or(request.event))?);
        }
        Ok(())
    }

    #[test]
    fn every_event_of_the_protocol_is_told_of_and_has_an_example() -> anyhow::Result<()> {
        let samples = Samples::new();
        let mut shown = BTreeSet::new();
        for event in samples.events() {
            let spelled = serde_json::to_value(&event)?;
            shown.insert(spelled["event"].as_str().unwrap_or_default().to_owned());
        }
        let known: BTreeSet<_> =
            Schemas::new().events().into_iter().map(|event| event.name).collect();
        assert_eq!(shown, known, "the examples, and the variants of ServerEvent");
        for event in &known {
            assert!(told(event).is_some(), "{event} goes to nobody");
        }
        Ok(())
    }
}
