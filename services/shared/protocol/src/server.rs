//! What clients receive: events, and the views that REST answers with as well.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    error::WireError,
    feed::{SystemEvent, SystemKind},
    ids::{ChatId, ConnectionId, DeviceId, MessageId, Seq, UserId},
    limits,
    media::{self, Media, MediaKind},
    timestamp,
    words::words,
};

/// An event of the wire, written as `{"event":"…","data":{…}}` on the WebSocket transport.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "event", content = "data", rename_all = "snake_case")]
pub enum ServerEvent<'a> {
    /// The handshake is done.
    Ready(&'a Ready),
    /// A message.
    Message(&'a Message),
    /// Something about a chat.
    System(&'a System),
    /// For the one who joined, oldest first.
    ChatHistory(&'a [Message]),
    /// Somebody types, or has stopped.
    UserTyping(UserTyping),
    /// The user is a participant of another chat.
    ChatAdded(&'a Chat),
    /// The user is no participant any more.
    ChatRemoved(ChatRef),
    /// A subscribed user's presence.
    Presence(&'a Presence),
    /// This device was revoked; the connection closes.
    #[serde(rename_all = "camelCase")]
    DeviceRevoked {
        /// The device.
        device_id: DeviceId,
    },
    /// The node drains: come back elsewhere after this time.
    #[serde(rename_all = "camelCase")]
    Reconnect {
        /// Milliseconds to wait.
        after_ms: u64,
    },
    /// Everything missed has been replayed.
    ResumeDone {
        /// Where the connection stands now.
        cursor: String,
    },
    /// An event without an id has failed, or a frame could not be read.
    Exception(&'a WireError),
    /// A message has another content.
    MessageEdited(&'a MessageEdited),
    /// A message was taken back.
    MessageDeleted(&'a MessageDeleted),
    /// Somebody reacts to a message, or does not any more.
    Reaction(&'a Reaction),
    /// A participant has read a chat up to a place.
    Read(Receipt),
    /// A participant's device has got a chat up to a place.
    Delivered(Receipt),
    /// What the user wants of a chat has changed.
    ChatUpdated(&'a Chat),
    /// The user has blocked somebody, or does so no more.
    Blocking(BlockChange),
    /// Messages of a chat are not kept any longer: all up to a place.
    MessagesExpired(&'a MessagesExpired),
}

/// The reply to a request, written as `{"reply":7,"data":{…}}`.
#[derive(Clone, Debug, Serialize)]
pub struct Reply<'a, T> {
    /// The request's `id`.
    pub reply: u64,
    /// What it answers.
    pub data: &'a T,
}

/// The reply to a request that failed, written as `{"reply":7,"error":{…}}`.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorReply<'a> {
    /// The request's `id`.
    pub reply: u64,
    /// What went wrong.
    pub error: &'a WireError,
}

/// The first event of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// Whose connection it is.
    pub user_id: UserId,
    /// Which device's.
    pub device_id: DeviceId,
    /// The connection's own id.
    pub connection_id: ConnectionId,
    /// The server pings this often; silence for twice as long means that it is gone.
    pub heartbeat_ms: u64,
    /// Where the connection begins, or resumes from; opaque.
    pub cursor: String,
    /// Everything missed follows, up to `resume_done`.
    pub resumed: bool,
    /// Why not, when it was asked for: fetch afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub resume_reason: Option<ResumeRefusal>,
    /// What a client may send.
    pub limits: Limits,
}

words! {
    /// Why a cursor cannot be resumed from: what was missed has to be fetched afresh.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum ResumeRefusal {
        /// It is no cursor.
        Malformed,
        /// It is another user's.
        Foreign,
        /// More was missed than is replayed.
        TooMuch,
        /// What was missed is no longer kept as it happened.
        TooOld,
        /// It lies beyond what the log holds: the log has lost its end since.
        Ahead,
    }
}

/// The reply to `resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resumed {
    /// Everything missed follows, up to `resume_done`.
    pub resumed: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<ResumeRefusal>,
}

/// What a client may send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of a frame.
    pub frame_bytes: usize,
    /// Bytes of a message's content.
    pub content_bytes: usize,
    /// Messages in a page of history.
    pub page: u32,
    /// Sustained events a second; more is answered by `rate_limited`.
    pub events_per_second: u32,
}

/// What others see of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserCard {
    /// The user.
    pub id: UserId,
    /// The name shown.
    pub name: String,
    /// A program, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bot: bool,
}

impl UserCard {
    /// Whom messages are of that the deployment itself sends.
    #[must_use]
    pub fn system() -> Self {
        Self { id: UserId::SYSTEM, name: SYSTEM_NAME.to_owned(), bot: true }
    }
}

/// What [`UserId::SYSTEM`] is called.
pub const SYSTEM_NAME: &str = "System";

words! {
    /// What a message carries.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum ContentType {
        /// Text.
        Text,
        /// A media file.
        Media,
        /// No message: a `system` entry, as history shows it.
        System,
    }
}

/// A message, live or in history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// The same for ever.
    pub id: MessageId,
    /// In which chat.
    pub chat_id: ChatId,
    /// Its place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed, as this server saw it; 0 when it is not known.
    pub prev_seq: Seq,
    /// Who sent it.
    pub sender_id: UserId,
    /// Who sent it, with the name.
    pub sender: UserCard,
    /// From which device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_id: Option<DeviceId>,
    /// What it carries.
    pub content_type: ContentType,
    /// The text; may be empty beside media.
    pub content: String,
    /// For `contentType: "media"`: the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub media: Option<Box<Media>>,
    /// Where the file is fetched: a path of REST.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub media_url: Option<String>,
    /// As `media.kind`, for clients of the old backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub media_type: Option<MediaKind>,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reply_to: Option<MessageId>,
    /// The sender's own id for it; empty for a system entry.
    pub client_msg_id: String,
    /// When the broker stored it.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// In history, for `contentType: "system"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub system: Option<SystemDetail>,
    /// Of the message that it answers: in history as that is now, live as it was then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub quote: Option<Box<Quote>>,
    /// The participants that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// When it was last edited.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    pub edited_at: Option<OffsetDateTime>,
    /// It was taken back: content and media are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// In history: how people have reacted, what most have chosen first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<ReactionCount>,
}

/// Of a message that is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quote {
    /// Its id.
    pub id: MessageId,
    /// Who sent it.
    pub sender_id: UserId,
    /// The sender's name.
    pub sender_name: String,
    /// The first 100 characters.
    pub content: String,
    /// What it carries.
    pub content_type: ContentType,
    /// It was taken back, and nothing of it is shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
}

impl Quote {
    /// Of this message.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        Self {
            id: message.id,
            sender_id: message.sender_id,
            sender_name: message.sender.name.clone(),
            content: message.content.chars().take(limits::QUOTE_CHARS).collect(),
            content_type: message.content_type,
            deleted: message.deleted,
        }
    }
}

/// How many have chosen an emoji.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReactionCount {
    /// Which.
    pub emoji: String,
    /// How many.
    pub count: u64,
    /// Whether the viewer is among them.
    pub mine: bool,
}

impl ReactionCount {
    /// What most have chosen first; of equals any order that is always the same.
    pub fn sort(counts: &mut [Self]) {
        counts.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.emoji.cmp(&b.emoji)));
    }
}

/// A message has another content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageEdited {
    /// In which chat.
    pub chat_id: ChatId,
    /// This entry's place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed, as this server saw it; 0 when it is not known.
    pub prev_seq: Seq,
    /// The message.
    pub message_id: MessageId,
    /// The message's place.
    pub message_seq: Seq,
    /// Who did it: its sender.
    pub actor_id: UserId,
    /// The text from now on.
    pub content: String,
    /// The participants that it names from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
    /// When the broker stored the change.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub edited_at: OffsetDateTime,
}

/// A message was taken back: its content, its media and its reactions are gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageDeleted {
    /// In which chat.
    pub chat_id: ChatId,
    /// This entry's place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed, as this server saw it; 0 when it is not known.
    pub prev_seq: Seq,
    /// The message.
    pub message_id: MessageId,
    /// The message's place.
    pub message_seq: Seq,
    /// Who did it: its sender, or somebody who manages the chat.
    pub actor_id: UserId,
    /// When the broker stored the change.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub deleted_at: OffsetDateTime,
}

/// Somebody reacts to a message, or does not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reaction {
    /// In which chat.
    pub chat_id: ChatId,
    /// This entry's place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed, as this server saw it; 0 when it is not known.
    pub prev_seq: Seq,
    /// The message.
    pub message_id: MessageId,
    /// The message's place.
    pub message_seq: Seq,
    /// Who.
    pub user_id: UserId,
    /// How.
    pub emoji: String,
    /// Whether it is so from now on.
    pub on: bool,
    /// When the broker stored the change.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// Messages of a chat are not kept any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagesExpired {
    /// In which chat.
    pub chat_id: ChatId,
    /// This entry's place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed, as this server saw it; 0 when it is not known.
    pub prev_seq: Seq,
    /// Everything up to this place, itself included, is gone: messages, quotes of them, what has become
    /// of them.
    pub up_to: Seq,
    /// When the broker stored it.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

/// The answer to `edit_message`, `delete_message` and `react`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The entry of the chat's feed that made it so; where nothing had to change, the message's own.
    pub seq: Seq,
}

impl Message {
    /// Takes the content away, and everything that came with it or after it.
    pub fn take_back(&mut self) {
        self.content.clear();
        self.content_type = ContentType::Text;
        self.media = None;
        self.media_url = None;
        self.media_type = None;
        self.quote = None;
        self.mentions.clear();
        self.edited_at = None;
        self.deleted = true;
        self.reactions.clear();
    }

    /// The same, with a file.
    #[must_use]
    pub fn with_media(mut self, media: Option<Box<Media>>) -> Self {
        if let Some(media) = &media {
            self.content_type = ContentType::Media;
            self.media_url = Some(media::url(self.chat_id, self.id));
            self.media_type = Some(media.kind);
        }
        Self { media, ..self }
    }
}

/// What a system entry says, for clients that render it themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemDetail {
    /// What happened.
    pub kind: SystemKind,
    /// Who did it.
    pub actor_id: UserId,
    /// Whom it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user_id: Option<UserId>,
    /// For `renamed`: the title from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub title: Option<String>,
    /// For `described`: the description from then on; missing when it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// For `role`: the role from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub role: Option<Role>,
    /// For `removed`: who was removed may not come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub banned: bool,
    /// For `retention`: seconds after which messages are removed from then on; missing when the chat has
    /// no time of its own any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retention_secs: Option<u32>,
}

impl From<&SystemEvent> for SystemDetail {
    fn from(event: &SystemEvent) -> Self {
        Self {
            kind: event.kind,
            actor_id: event.actor_id,
            user_id: event.user_id,
            title: event.title.clone(),
            description: event.description.clone(),
            role: event.role,
            banned: event.banned,
            retention_secs: event.retention_secs,
        }
    }
}

/// A live system entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct System {
    /// In English, for clients that do not know `kind`.
    pub msg: String,
    /// In which chat.
    pub chat_id: ChatId,
    /// Its place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed.
    pub prev_seq: Seq,
    /// What happened.
    pub kind: SystemKind,
    /// Who did it.
    pub actor_id: UserId,
    /// Whom it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub user_id: Option<UserId>,
    /// For `renamed`: the title from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub title: Option<String>,
    /// For `described`: the description from now on; missing when it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// For `role`: the role from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub role: Option<Role>,
    /// For `removed`: who was removed may not come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub banned: bool,
    /// For `retention`: seconds after which messages are removed from now on; missing when the chat has
    /// no time of its own any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retention_secs: Option<u32>,
    /// When the broker stored it.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
}

impl System {
    /// At this place of a chat's feed.
    #[must_use]
    pub fn at(
        (chat_id, seq, prev_seq): (ChatId, Seq, Seq),
        created_at: OffsetDateTime,
        msg: String,
        detail: SystemDetail,
    ) -> Self {
        let SystemDetail {
            kind,
            actor_id,
            user_id,
            title,
            description,
            role,
            banned,
            retention_secs,
        } = detail;
        Self {
            msg,
            chat_id,
            seq,
            prev_seq,
            kind,
            actor_id,
            user_id,
            title,
            description,
            role,
            banned,
            retention_secs,
            created_at,
        }
    }
}

/// The user has blocked somebody, or does so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockChange {
    /// Whom.
    pub user_id: UserId,
    /// Whether from now on, or no more.
    pub blocked: bool,
    /// Their one-to-one, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub chat_id: Option<ChatId>,
}

/// Somebody types, or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserTyping {
    /// In which chat.
    pub chat_id: ChatId,
    /// Who.
    pub user_id: UserId,
    /// Whether it goes on.
    pub typing: bool,
}

/// A user's presence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Presence {
    /// Whose.
    pub user_id: UserId,
    /// Whether any device is connected.
    pub online: bool,
    /// When a device was last connected; none when it is not known.
    #[serde(default, with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub last_seen_at: Option<OffsetDateTime>,
}

/// How far a participant is in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    /// The chat.
    pub chat_id: ChatId,
    /// The participant.
    pub user_id: UserId,
    /// A place of the chat's feed: everything up to there.
    pub seq: Seq,
}

/// Names a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatRef {
    /// The chat.
    pub id: ChatId,
}

words! {
    /// A participant's role.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Role {
        /// May do everything: who made the group, and whom an owner makes one.
        Owner,
        /// Adds and removes members, renames and describes the group, invites.
        Admin,
        /// Takes part.
        Member,
    }
}

impl Role {
    /// As it is written on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
        }
    }

    /// The role that `text` names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "owner" => Some(Self::Owner),
            "admin" => Some(Self::Admin),
            "member" => Some(Self::Member),
            _ => None,
        }
    }

    /// Whether it may do all that `other` may.
    #[must_use]
    pub fn at_least(self, other: Self) -> bool {
        let rank = |role| match role {
            Self::Owner => 2,
            Self::Admin => 1,
            Self::Member => 0,
        };
        rank(self) >= rank(other)
    }
}

/// A participant of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Participant {
    /// The user.
    pub id: UserId,
    /// The name shown.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// A program, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bot: bool,
}

/// What of a chat depends on the viewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// A group's title; the other one's name in a one-to-one.
    pub name: String,
    /// The viewer's role.
    pub role: Role,
    /// The viewer has read everything up to this place of the chat's feed, on whichever device.
    #[serde(default)]
    #[schema(required = true)]
    pub read_seq: Seq,
    /// Messages beyond `readSeq` that are not deleted, of those that `lastSeq` covers.
    #[serde(default)]
    #[schema(required = true)]
    pub unread_count: u64,
    /// The viewer wants no notifications of it.
    #[serde(default)]
    #[schema(required = true)]
    pub muted: bool,
    /// Until when, if not for ever.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    pub muted_until: Option<OffsetDateTime>,
    /// It is not listed until its next message.
    #[serde(default)]
    #[schema(required = true)]
    pub hidden: bool,
}

impl Me {
    /// The part of somebody who has just joined.
    #[must_use]
    pub fn new(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            read_seq: 0,
            unread_count: 0,
            muted: false,
            muted_until: None,
            hidden: false,
        }
    }
}

/// A chat as one participant sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// The chat.
    pub id: ChatId,
    /// A group, or a one-to-one.
    pub is_group: bool,
    /// A group's title; none for a one-to-one.
    #[schema(required = true)]
    pub title: Option<String>,
    /// What a group is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// Whether anybody may join.
    pub open: bool,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// How many take part.
    pub participant_count: i64,
    /// The first 50 of them.
    pub participants: Vec<Participant>,
    /// The newest message.
    #[schema(required = true)]
    pub last_message: Option<Message>,
    /// The last entry of its feed that Postgres knows.
    pub last_seq: Seq,
    /// Seconds after which messages are removed, where the chat says so itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retention_secs: Option<u32>,
    /// What depends on the viewer; missing only inside the system, where one view serves many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub me: Option<Me>,
}

/// A page of a chat's history, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryPage {
    /// Oldest first.
    pub messages: Vec<Message>,
    /// Whether there are more in the direction that was asked for; with `around`, in either.
    pub has_more: bool,
    /// With `around`: whether there are older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_more_before: Option<bool>,
    /// With `around`: whether there are newer ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub has_more_after: Option<bool>,
    /// The page holds everything of the feed after this place, up to `toSeq`.
    pub from_seq: Seq,
    /// Where the page ends; see `fromSeq`.
    pub to_seq: Seq,
    /// Not all of it could be reached: only the log's tail, or only what Postgres holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
}

/// The answer to `join_chat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Joined {
    /// The chat.
    pub chat: Chat,
    /// Its newest messages, oldest first.
    pub messages: Vec<Message>,
    /// Whether there are older ones.
    pub has_more: bool,
    /// Who types just now.
    pub typing: Vec<UserId>,
}

/// The answer to `send_message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    /// The message's id.
    pub id: MessageId,
    /// In which chat.
    pub chat_id: ChatId,
    /// Its place in the chat's feed.
    pub seq: Seq,
    /// The entry before it on the feed; 0 when it is not known.
    pub prev_seq: Seq,
    /// When the broker stored it.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// The sender's own id, or the one that the server made.
    pub client_msg_id: String,
    /// The message was there already: this is a retry.
    pub duplicate: bool,
    /// What the message says, where the deployment's own check has replaced what was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub content: Option<String>,
}

/// An answer with nothing to say: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Empty {}

/// The answer to `authenticate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Authenticated {
    /// When the token expires and the connection closes.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// The answer to `presence_subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PresenceList {
    /// Of those asked for, the ones that the caller shares a chat with.
    pub items: Vec<Presence>,
}

/// The id that stands for a system entry: derived from its place, since nobody sent it.
#[must_use]
pub fn system_entry_id(chat: ChatId, seq: Seq) -> MessageId {
    MessageId::derive(chat, UserId(Uuid::nil()), &seq.to_string())
}
