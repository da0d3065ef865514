//! What clients send: one frame, parsed into one [`Command`].

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MediaId, MessageId, Seq, UserId},
    media::MediaKind,
    rest::{ChangeChat, CreateChat, Mute},
    server::Role,
    timestamp,
    words::words,
};

/// A frame of the WebSocket transport: `{"event":"send_message","id":7,"data":{…}}`.
#[derive(Debug, Deserialize)]
pub struct ClientFrame<'a> {
    /// Which event; see [`Command`].
    #[serde(borrow)]
    pub event: std::borrow::Cow<'a, str>,
    /// Asks for a reply with the same number.
    #[serde(default)]
    pub id: Option<u64>,
    /// The event's payload.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
}

impl<'a> ClientFrame<'a> {
    /// Reads a text frame.
    ///
    /// # Errors
    /// `bad_request` when it is not such an object.
    pub fn parse(text: &'a str) -> Result<Self, WireError> {
        serde_json::from_str(text).map_err(|error| malformed("frame", &error))
    }
}

/// What a client asks for. (How it is spelled is for the schema; [`Command::parse`] reads it.)
#[derive(Clone, Debug, PartialEq, Eq, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum Command {
    /// First frame, or renewal of an expiring token.
    Authenticate(Authenticate),
    /// As `POST /v1/chats`.
    CreateChat(CreateChat),
    /// Become a participant, where the chat allows it, and get its newest messages.
    JoinChat(JoinChat),
    /// Stop being a participant.
    LeaveChat(ChatTarget),
    /// Send a message.
    SendMessage(SendMessage),
    /// Read a page of messages.
    History(History),
    /// The user types; ends by itself 5 s after the last one. `typing_ping` is the same.
    TypingStart(ChatTarget),
    /// The user has stopped.
    TypingStop(ChatTarget),
    /// Hear of the presence of these users.
    PresenceSubscribe(PresenceSubscribe),
    /// Replay everything missed since a cursor.
    Resume(Resume),
    /// Give a message of one's own another content.
    EditMessage(EditMessage),
    /// Take a message back.
    DeleteMessage(MessageTarget),
    /// React to a message, or take that back.
    React(React),
    /// The chat is read up to this place of its feed. It only goes up.
    Read(Mark),
    /// This device has got the chat up to this place of its feed. It only goes up.
    Delivered(Mark),
    /// No notifications of the chat, for the user alone.
    MuteChat(MuteChat),
    /// The opposite.
    UnmuteChat(ChatTarget),
    /// A one-to-one is not listed until its next message, for the user alone.
    HideChat(ChatTarget),
    /// Add users to a group, all or none: its owners and admins.
    AddParticipants(AddParticipants),
    /// End somebody's participation in a group: owners, and admins for members.
    RemoveParticipant(RemoveParticipant),
    /// Change a role: owners, and anybody who steps down.
    SetRole(SetRole),
    /// Rename, describe, open or close a group: owners, and admins all but the last two.
    UpdateChat(UpdateChat),
    /// Delete a group: its owners.
    DeleteChat(ChatTarget),
    /// Become a participant by an invite's code, and get the newest messages.
    JoinByInvite(JoinByInvite),
    /// As `GET /v1/search/messages`.
    SearchMessages(SearchMessages),
}

/// `{chatId, messageId, content, mentions?}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EditMessage {
    /// The chat.
    pub chat_id: ChatId,
    /// The message.
    pub message_id: MessageId,
    /// What it says from now on.
    #[serde(flatten)]
    pub edit: Edit,
}

/// What a message says from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Edit {
    /// The text, bounded as when it is sent.
    pub content: String,
    /// Participants that it names besides those in the text; at most [`crate::limits::MENTIONS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

/// `{chatId, messageId}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageTarget {
    /// The chat.
    pub chat_id: ChatId,
    /// The message.
    pub message_id: MessageId,
}

/// `{chatId, messageId, emoji, on?}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct React {
    /// The chat.
    pub chat_id: ChatId,
    /// The message.
    pub message_id: MessageId,
    /// One emoji.
    pub emoji: String,
    /// `false` takes it back.
    #[serde(default = "yes")]
    pub on: bool,
}

fn yes() -> bool {
    true
}

/// `{chatId, userIds}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddParticipants {
    /// The chat.
    pub chat_id: ChatId,
    /// Whom; at most [`crate::limits::ADDED`]. Those who take part already stay so.
    pub user_ids: Vec<UserId>,
}

/// `{chatId, participantId, ban?}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RemoveParticipant {
    /// The chat.
    pub chat_id: ChatId,
    /// Whom. (Not `userId`, which names the sender.)
    pub participant_id: UserId,
    /// They may not come back.
    #[serde(default)]
    pub ban: bool,
}

/// `{chatId, participantId, role, transfer?}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetRole {
    /// The chat.
    pub chat_id: ChatId,
    /// Whose. (Not `userId`, which names the sender.)
    pub participant_id: UserId,
    /// From now on.
    pub role: Role,
    /// With `owner`: the caller becomes an admin in the same change.
    #[serde(default)]
    pub transfer: bool,
}

/// `{chatId, title?, description?, open?}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateChat {
    /// The chat.
    pub chat_id: ChatId,
    /// What is to change.
    #[serde(flatten)]
    pub change: ChangeChat,
}

/// `{code, history?: {limit}}`
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct JoinByInvite {
    /// As it was shared.
    pub code: String,
    /// How much of the chat's history to answer with.
    #[serde(default)]
    pub history: Option<JoinHistory>,
}

/// Without the code, which lets in whoever knows it.
impl std::fmt::Debug for JoinByInvite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinByInvite { .. }")
    }
}

/// `{cursor}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Resume {
    /// The last one received.
    pub cursor: String,
}

/// `{token, cursor?}`
#[derive(Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Authenticate {
    /// A JWT.
    pub token: String,
    /// In a first frame: resume from here.
    #[serde(default)]
    pub cursor: Option<String>,
}

impl std::fmt::Debug for Authenticate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authenticate { .. }")
    }
}

/// `{chatId}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatTarget {
    /// The chat.
    pub chat_id: ChatId,
}

/// `{chatId, seq}`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mark {
    /// The chat.
    pub chat_id: ChatId,
    /// A place of its feed: everything up to there. At most the feed's last entry.
    pub seq: Seq,
}

/// `{chatId, until? | forever}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MuteChat {
    /// The chat.
    pub chat_id: ChatId,
    /// For how long.
    #[serde(flatten)]
    pub mute: Mute,
}

/// `{chatId, history?: {limit}}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinChat {
    /// The chat.
    pub chat_id: ChatId,
    /// How much of its history to answer with.
    #[serde(default)]
    pub history: Option<JoinHistory>,
}

/// `{limit}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct JoinHistory {
    /// Messages, at most [`crate::limits::PAGE`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// `{chatId, content?, mediaId?, replyTo?, clientMsgId?, mentions?}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SendMessage {
    /// The chat.
    pub chat_id: ChatId,
    /// What to send.
    #[serde(flatten)]
    pub draft: Draft,
}

/// What of a message its sender decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Draft {
    /// The text: 1 byte to [`crate::limits::CONTENT_BYTES`]; beside media it may be missing.
    #[serde(default)]
    pub content: String,
    /// A file that the sender has uploaded to the chat, and has not sent yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_id: Option<MediaId>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// At most 64 characters, best a UUIDv7; the server makes one when it is missing, and then
    /// a retry is another message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_msg_id: Option<String>,
    /// Participants that it names besides those in the text (`@` and a user's id): at most
    /// [`crate::limits::MENTIONS`]. Whoever does not take part is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

/// `{chatId, before?, after?, around?, limit}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// The chat.
    pub chat_id: ChatId,
    /// Messages before this `seq`, the newest of them.
    #[serde(default)]
    pub before: Option<Seq>,
    /// Messages after this `seq`, the oldest of them; not together with `before`.
    #[serde(default)]
    pub after: Option<Seq>,
    /// The message with this `seq`, and as many before it as after; alone.
    #[serde(default)]
    pub around: Option<Seq>,
    /// At most [`crate::limits::PAGE`].
    #[serde(default)]
    pub limit: Option<u32>,
}

/// What messages are found by: `q`, or at least one of `senderId`, `hasMedia`, `mediaType` and
/// `mentionsMe`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct SearchMessages {
    /// Words that a message has, all of them: at most 16, of at most 256 characters. Case and
    /// accents do not count, nothing is an operator, an emoji is a word. A message is found by the
    /// beginning of a word of 4 characters and more, of the last word by 2.
    #[serde(default)]
    pub q: Option<String>,
    /// In this chat only.
    #[serde(default)]
    pub chat_id: Option<ChatId>,
    /// From this sender only.
    #[serde(default)]
    pub sender_id: Option<UserId>,
    /// Sent after this time.
    #[serde(default, with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub after: Option<OffsetDateTime>,
    /// Sent before this time.
    #[serde(default, with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[param(value_type = Option<String>, format = DateTime)]
    pub before: Option<OffsetDateTime>,
    /// With a file, or without one.
    #[serde(default)]
    pub has_media: Option<bool>,
    /// With a file of this kind.
    #[serde(default)]
    pub media_type: Option<MediaKind>,
    /// Only what mentions the caller.
    #[serde(default)]
    pub mentions_me: Option<bool>,
    /// Words of 4 letters and more may be mistyped.
    #[serde(default)]
    pub fuzzy: Option<bool>,
    /// `newest` by default.
    #[serde(default)]
    pub sort: Option<SearchSort>,
    /// 1 to 100; 20 by default.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100)]
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<u32>,
    /// `nextCursor` of the page before, with all else as it was.
    #[serde(default)]
    pub cursor: Option<String>,
}

words! {
    /// In which order messages are found.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum SearchSort {
        /// The newest first.
        Newest,
        /// Of the newest 500, those first in which the words stand most often, for their length.
        Rank,
    }
}

/// `{userIds}`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresenceSubscribe {
    /// Replaces the connection's earlier list; at most [`crate::limits::PRESENCE_USERS`].
    pub user_ids: Vec<UserId>,
}

impl Command {
    /// Reads the payload of `event`, on behalf of `caller` once that is known.
    ///
    /// # Errors
    /// `bad_request` for an unknown event or a payload of another form, `forbidden` for a payload
    /// that names a user other than `caller`.
    pub fn parse(
        event: &str,
        data: Option<&RawValue>,
        caller: Option<UserId>,
    ) -> Result<Self, WireError> {
        let text = data.map_or("{}", RawValue::get);
        // A search names whose messages are looked for.
        if let Some(caller) = caller
            && event != "search_messages"
        {
            refuse_impersonation(text, caller)?;
        }
        Ok(match event {
            "send_message" => Self::SendMessage(payload(event, text)?),
            "typing_start" | "typing_ping" => Self::TypingStart(payload(event, text)?),
            "typing_stop" => Self::TypingStop(payload(event, text)?),
            "history" => Self::History(payload(event, text)?),
            "join_chat" => Self::JoinChat(payload(event, text)?),
            "leave_chat" => Self::LeaveChat(payload(event, text)?),
            "create_chat" => Self::CreateChat(payload(event, text)?),
            "presence_subscribe" => Self::PresenceSubscribe(payload(event, text)?),
            "resume" => Self::Resume(payload(event, text)?),
            "read" => Self::Read(payload(event, text)?),
            "delivered" => Self::Delivered(payload(event, text)?),
            "mute_chat" => Self::MuteChat(payload(event, text)?),
            "unmute_chat" => Self::UnmuteChat(payload(event, text)?),
            "hide_chat" => Self::HideChat(payload(event, text)?),
            "authenticate" => Self::Authenticate(payload(event, text)?),
            "edit_message" => Self::EditMessage(payload(event, text)?),
            "delete_message" => Self::DeleteMessage(payload(event, text)?),
            "react" => Self::React(payload(event, text)?),
            "add_participants" => Self::AddParticipants(payload(event, text)?),
            "remove_participant" => Self::RemoveParticipant(payload(event, text)?),
            "set_role" => Self::SetRole(payload(event, text)?),
            "update_chat" => Self::UpdateChat(payload(event, text)?),
            "delete_chat" => Self::DeleteChat(payload(event, text)?),
            "join_by_invite" => Self::JoinByInvite(payload(event, text)?),
            "search_messages" => Self::SearchMessages(payload(event, text)?),
            _ => return Err(WireError::new(ErrorCode::BadRequest, "unknown event")),
        })
    }
}

fn payload<T: DeserializeOwned>(event: &str, text: &str) -> Result<T, WireError> {
    serde_json::from_str(text).map_err(|error| malformed(event, &error))
}

/// Says where reading stopped, not what stood there: a payload may hold a message or a token.
fn malformed(what: &str, error: &serde_json::Error) -> WireError {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "has a missing field or one of the wrong type",
        _ => "is not JSON",
    };
    WireError::new(
        ErrorCode::BadRequest,
        format!("{what}: {kind} (line {}, column {})", error.line(), error.column()),
    )
}

/// Old clients name themselves in `user`, `userId` or `senderId`. The token decides who they are;
/// a payload that names somebody else is refused rather than silently corrected.
///
/// # Errors
/// `forbidden` when one of them names another user than `caller`; `bad_request` when one cannot be
/// read.
pub fn refuse_impersonation(text: &str, caller: UserId) -> Result<(), WireError> {
    // Most payloads name nobody, and a second parse would cost as much as the first. A key may be
    // spelled with escapes, though.
    if !text.contains("\"user") && !text.contains("\"senderId") && !text.contains("\\u") {
        return Ok(());
    }
    // Not an object: the command's own parser says so.
    let Ok(Hints(hints)) = serde_json::from_str(text) else { return Ok(()) };
    for hint in hints {
        // It is JSON, but may be nested too deeply to be read.
        let hint = serde_json::from_str(hint.get()).map_err(|error| malformed("user", &error))?;
        if !is_or_lacks(&hint, caller) {
            return Err(WireError::new(ErrorCode::Forbidden, "the payload names another user"));
        }
    }
    Ok(())
}

/// Under which keys.
const HINTS: [&str; 3] = ["user", "userId", "senderId"];

/// What an object has under these keys: all of it, since JSON allows a key twice, and a parser that
/// refuses that would leave the payload to one that does not.
struct Hints<'a>(Vec<&'a RawValue>);

impl<'de> Deserialize<'de> for Hints<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Hints<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut hints = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    if HINTS.contains(&key.as_str()) {
                        hints.push(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Hints(hints))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Whether a hint names the caller or nobody.
fn is_or_lacks(hint: &Value, caller: UserId) -> bool {
    match hint {
        Value::Null => true,
        Value::Object(user) => {
            let ids = ["id", "userId", "sub"].iter().filter_map(|key| user.get(*key));
            ids.into_iter().all(|id| names(id, caller))
        }
        other => names(other, caller),
    }
}

fn names(value: &Value, caller: UserId) -> bool {
    value.as_str().and_then(|text| Uuid::try_parse(text).ok()) == Some(caller.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str, caller: UserId) -> Result<Command, WireError> {
        let frame = ClientFrame::parse(text)?;
        Command::parse(&frame.event, frame.data, Some(caller))
    }

    #[test]
    fn a_payload_may_name_the_caller_and_nobody_else() {
        let (me, other, chat) = (UserId::generate(), UserId::generate(), ChatId::generate());
        for hint in [
            format!(r#""user":"{me}""#),
            format!(r#""user":{{"id":"{me}","name":"Ana"}}"#),
            format!(r#""senderId":"{me}","userId":null"#),
        ] {
            let frame = format!(r#"{{"event":"typing_ping","data":{{"chatId":"{chat}",{hint}}}}}"#);
            assert_eq!(parse(&frame, me), Ok(Command::TypingStart(ChatTarget { chat_id: chat })));
            let frame = frame.replace(&me.to_string(), &other.to_string());
            assert_eq!(parse(&frame, me).map_err(|e| e.code), Err(ErrorCode::Forbidden));
        }
    }

    #[test]
    fn an_error_never_repeats_what_it_read() {
        let me = UserId::generate();
        let error = parse(r#"{"event":"authenticate","data":{"token":["top-secret"]}}"#, me);
        assert!(!format!("{error:?}").contains("top-secret"));
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let me = UserId::generate();
        let deep = format!(
            r#"{{"event":"typing_stop","data":{}{}}}"#,
            "[".repeat(30_000),
            "]".repeat(30_000)
        );
        assert_eq!(parse(&deep, me).map_err(|e| e.code), Err(ErrorCode::BadRequest));
        let hidden = format!(
            r#"{{"event":"typing_stop","data":{{"user":{}{}}}}}"#,
            "[".repeat(30_000),
            "]".repeat(30_000)
        );
        assert_eq!(parse(&hidden, me).map_err(|e| e.code), Err(ErrorCode::BadRequest));
    }

    #[test]
    fn a_hint_cannot_be_hidden() {
        let (me, other, chat) = (UserId::generate(), UserId::generate(), ChatId::generate());
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for hint in [
            format!(r#""\u0075serId":"{other}""#),
            format!(r#""userId":"{me}","userId":"{other}""#),
            format!(r#""userId":"{other}","userId":"{me}""#),
            format!(r#""user":{{"id":"{me}","userId":"{other}"}}"#),
            format!(r#""other":{deep},"senderId":"{other}""#),
        ] {
            let data = format!(r#"{{"chatId":"{chat}",{hint}}}"#);
            let refused = parse(&format!(r#"{{"event":"typing_stop","data":{data}}}"#), me);
            assert_eq!(refused.map_err(|e| e.code), Err(ErrorCode::Forbidden), "{data}");
        }
    }

    /// A key as JSON may spell it: each letter as it is, or escaped.
    fn spelled() -> impl Strategy<Value = (&'static str, String)> {
        let keys = ["user", "userId", "senderId", "chatId", "users", "content"];
        (proptest::sample::select(keys.to_vec()), any::<[bool; 8]>()).prop_map(|(key, escaped)| {
            let letters = key.chars().zip(escaped);
            let spelled = letters.map(|(letter, escaped)| {
                if escaped { format!("\\u{:04x}", u32::from(letter)) } else { letter.to_string() }
            });
            (key, spelled.collect())
        })
    }

    proptest! {
        #[test]
        fn every_key_that_a_parser_sees_is_seen(
            pairs in proptest::collection::vec((spelled(), any::<bool>()), 0..6),
        ) {
            let (me, other) = (UserId::generate(), UserId::generate());
            let fields = pairs.iter().map(|((_, spelled), mine)| {
                format!(r#""{spelled}":"{}""#, if *mine { me } else { other })
            });
            let text = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
            let names_other = pairs.iter().any(|((key, _), mine)| HINTS.contains(key) && !mine);
            prop_assert_eq!(refuse_impersonation(&text, me).is_err(), names_other, "{}", text);
        }

        #[test]
        fn anything_is_read_or_refused(text in ".*", event in "[a-z_]*", data in ".*") {
            let me = UserId::generate();
            let _ = parse(&text, me);
            let _ = parse(&format!(r#"{{"event":"{event}","data":{data}}}"#), me);
        }
    }
}
