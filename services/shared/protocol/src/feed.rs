//! What feeds and signals carry between nodes.
//!
//! A [`Feed`] is one ordered, durable log of [`Entry`]s: of a chat, or of a user. Its entries
//! are JSON, small, and read by nodes of the version before: variants and fields are only ever
//! added, and a reader that does not know a variant passes it over.
//! A [`Signal`] is what may be lost: typing and presence.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    client::Mark,
    ids::{ChatId, ConnectionId, DeviceId, MessageId, Seq, Shard, UserId},
    media::Media,
    server::{Chat, Me, Quote, Role, UserCard},
    timestamp,
    words::words,
};

/// Whose log a feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeedKind {
    /// A chat's: messages, what becomes of them, membership.
    Chat,
    /// A user's: chats added and removed, devices revoked, the profile.
    User,
}

/// One feed: its shard never changes, since it is stamped in the row of the chat or user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Feed {
    /// The stream that holds it.
    pub shard: Shard,
    /// Whose it is.
    pub kind: FeedKind,
    /// The chat's or user's id.
    pub id: Uuid,
}

impl Feed {
    /// The feed of a chat.
    #[must_use]
    pub fn chat(shard: Shard, chat: ChatId) -> Self {
        Self { shard, kind: FeedKind::Chat, id: chat.0 }
    }

    /// The feed of a user.
    #[must_use]
    pub fn user(shard: Shard, user: UserId) -> Self {
        Self { shard, kind: FeedKind::User, id: user.0 }
    }

    /// The chat, when it is a chat's.
    #[must_use]
    pub fn chat_id(&self) -> Option<ChatId> {
        (self.kind == FeedKind::Chat).then_some(ChatId(self.id))
    }

    /// The user, when it is a user's.
    #[must_use]
    pub fn user_id(&self) -> Option<UserId> {
        (self.kind == FeedKind::User).then_some(UserId(self.id))
    }
}

/// What is stored on a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The request that it answers, so that the reply can stand at its place in the feed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// What happened.
    pub event: Event,
}

/// The request of a live connection that made an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The connection, which is not sent its own message.
    pub connection: ConnectionId,
    /// The client's own number for the request; none when it wants no reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
}

/// What happened on a feed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// On a chat's feed: a message.
    Message(MessageSent),
    /// On a chat's feed: something about the chat itself.
    System(SystemEvent),
    /// On a user's feed: the user is a participant of a chat, from a place in its feed.
    ChatAdded(Box<ChatAdded>),
    /// On a user's feed: the user is no longer a participant.
    ChatRemoved(ChatRemoved),
    /// On a user's feed: a device was revoked or signed out; its connections close.
    DeviceRevoked(DeviceRevoked),
    /// On a user's feed: a device has come, where somebody's server wants to be told.
    DeviceAdded(DeviceAdded),
    /// On a user's feed: the name has changed.
    ProfileChanged(ProfileChanged),
    /// On a chat's feed: a message has another content.
    Edited(Edited),
    /// On a chat's feed: a message is taken back.
    Deleted(Deleted),
    /// On a chat's feed: somebody reacts to a message, or does not any more.
    Reacted(Reacted),
    /// On a user's feed: a chat is read up to a place, on one of the user's devices.
    Read(Mark),
    /// On a user's feed: one of the user's devices has got a chat up to a place.
    Delivered(Mark),
    /// On a user's feed: what the user wants of a chat has changed; the chat as the user sees it.
    ChatUpdated(Box<Chat>),
    /// On the feeds of both: one has blocked the other, or does so no more.
    Blocking(Blocking),
    /// On a chat's feed: what lies at or below a place is not there any more.
    Expired(Expired),
    /// On a user's feed: the account is disabled; all its connections close.
    Disabled,
}

impl Event {
    /// Whether it ends, on a chat's feed, this user's part in the chat.
    #[must_use]
    pub fn ends_part_of(&self, user: UserId) -> bool {
        matches!(self, Self::System(SystemEvent { kind, user_id, .. })
            if kind.ends_part_of(user, *user_id))
    }
}

/// A message, as its sender's gateway published it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageSent {
    /// Derived from chat, sender and `client_msg_id`.
    pub id: MessageId,
    /// Who sent it, with the name at that time.
    pub sender: UserCard,
    /// From which device; none when a server did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// The text.
    pub content: String,
    /// The text is not what the sender wrote: the deployment's own check has replaced it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replaced: bool,
    /// The file that comes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Box<Media>>,
    /// The sender's own id for it.
    pub client_msg_id: String,
    /// The message that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Some of that message, as it was when this one was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Box<Quote>>,
    /// The participants that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

/// The message that an entry changes, which its id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Its id.
    pub message_id: MessageId,
    /// Its place in the same feed, when the entry was published: for clients. What a new epoch has
    /// salvaged of the old one's log stands elsewhere since.
    pub message_seq: Seq,
}

/// A message has another content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Edited {
    /// Which message.
    #[serde(flatten)]
    pub target: Target,
    /// Its sender.
    pub actor_id: UserId,
    /// The text from here on.
    pub content: String,
    /// The participants that it names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<UserId>,
}

/// A message is taken back, by its sender or somebody who manages the chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deleted {
    /// Which message.
    #[serde(flatten)]
    pub target: Target,
    /// Who did it.
    pub actor_id: UserId,
}

/// Somebody reacts to a message, or does not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reacted {
    /// To which message.
    #[serde(flatten)]
    pub target: Target,
    /// Who.
    pub user_id: UserId,
    /// How: one emoji.
    pub emoji: String,
    /// Whether it is so from here on.
    pub on: bool,
}

/// A chat's feed begins anew behind a place: messages up to there are older than they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    /// The last place that is not shown any more.
    pub up_to: Seq,
}

impl Expired {
    /// The same, as it stands in the entry at `seq`: nothing expires before it was sent.
    #[must_use]
    pub fn at(self, seq: Seq) -> Seq {
        self.up_to.min(seq.saturating_sub(1))
    }
}

words! {
    /// What kind of thing happened to a chat.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum SystemKind {
        /// The chat was made.
        Created,
        /// A user joined.
        Joined,
        /// A user left.
        Left,
        /// A user was added by another.
        Added,
        /// A user was removed by another.
        Removed,
        /// The title changed.
        Renamed,
        /// A role changed.
        Role,
        /// The description changed, or was taken away.
        Described,
        /// Anybody may join from here on.
        Opened,
        /// Nobody may join by themselves any more.
        Closed,
        /// The group was deleted: nobody takes part in it any more.
        Deleted,
        /// Messages are kept for another time from here on.
        Retention,
    }
}

impl SystemKind {
    /// Whether the user named is no participant any more after it.
    #[must_use]
    pub fn ends_membership(self) -> bool {
        matches!(self, Self::Left | Self::Removed)
    }

    /// Whether this user is no participant any more after it, which names `named`.
    #[must_use]
    pub fn ends_part_of(self, user: UserId, named: Option<UserId>) -> bool {
        self == Self::Deleted || (self.ends_membership() && named == Some(user))
    }

    /// As it is written on the wire and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Renamed => "renamed",
            Self::Role => "role",
            Self::Described => "described",
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Deleted => "deleted",
            Self::Retention => "retention",
        }
    }
}

/// Something about the chat itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemEvent {
    /// What kind.
    pub kind: SystemKind,
    /// Who did it.
    pub actor_id: UserId,
    /// Whom it happened to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The chat's membership version after it; orders what one chat's outbox relays.
    pub version: i64,
    /// In English, for clients that do not know `kind`.
    pub msg: String,
    /// For `renamed`: the title from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// For `described`: the description from now on; none when it was taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// For `role`: the role from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// For `removed`: who was removed may not come back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub banned: bool,
    /// For `retention`: seconds after which messages are removed; none when the chat has no time of
    /// its own any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_secs: Option<u32>,
}

impl SystemEvent {
    /// Of this kind, with nothing that only some kinds have.
    #[must_use]
    pub fn new(kind: SystemKind, actor_id: UserId, version: i64, msg: String) -> Self {
        Self {
            kind,
            actor_id,
            user_id: None,
            version,
            msg,
            title: None,
            description: None,
            role: None,
            banned: false,
            retention_secs: None,
        }
    }

    /// The same about this user.
    #[must_use]
    pub fn about(self, user: UserId) -> Self {
        Self { user_id: Some(user), ..self }
    }
}

/// A user has become a participant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatAdded {
    /// The chat as all see it.
    pub chat: Chat,
    /// The shard of the chat's feed.
    pub shard: Shard,
    /// Gateways follow the chat's feed from this entry on, this one included.
    pub from_seq: Seq,
}

/// A user is no longer a participant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChatRemoved {
    /// Of which chat.
    pub chat_id: ChatId,
    /// The last entry of the chat's feed that the user saw.
    pub until_seq: Seq,
    /// The shard of the chat's feed; not in entries of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
}

/// A device lost its right to be here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceRevoked {
    /// Which.
    pub device_id: DeviceId,
    /// The login that ended; none for a device of an outside issuer, which has no logins here.
    /// A later login of the same device does not end by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Uuid>,
}

/// A device has come: a login of it began, or it is an outside issuer's and was seen for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceAdded {
    /// Which.
    pub device_id: DeviceId,
}

/// What somebody is called whose account is deleted.
pub const DELETED_USER: &str = "Deleted user";

/// A user's new name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileChanged {
    /// The name from now on.
    pub name: String,
}

/// One user has blocked another, or does so no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Blocking {
    /// Who blocks. Only this one's clients are told.
    pub by: UserId,
    /// Whom.
    pub user_id: UserId,
    /// Whether from now on, or no more.
    pub blocked: bool,
    /// Their one-to-one, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat_id: Option<ChatId>,
    /// Whether either blocks the other now: nobody can write to it then.
    pub shut: bool,
}

/// A change that Postgres has committed and that its feeds must hear of: one row of the outbox.
///
/// The chat's entry is published first; its sequence is then the `from_seq`/`until_seq` of the
/// entries for the users' feeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxItem {
    /// The chat's entry, with its shard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chat: Option<OutboxChat>,
    /// For users' feeds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<OutboxUser>,
}

/// The chat's part of an [`OutboxItem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxChat {
    /// Which chat.
    pub chat_id: ChatId,
    /// The shard of its feed.
    pub shard: Shard,
    /// What its feed gets.
    pub event: SystemEvent,
    /// The chat as all see it, once for all users that are added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<Chat>,
}

/// A user's part of an [`OutboxItem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutboxUser {
    /// Whose feed.
    pub user_id: UserId,
    /// The shard of the user's feed.
    pub shard: Shard,
    /// What it gets.
    pub change: UserChange,
}

/// What a user's feed gets from an [`OutboxItem`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserChange {
    /// The chat of the item was added; `me` is the user's own part of the view.
    Added {
        /// What depends on the viewer.
        me: Me,
    },
    /// The chat of the item was removed.
    Removed,
    /// A device was revoked.
    DeviceRevoked(DeviceRevoked),
    /// A device has come.
    DeviceAdded(DeviceAdded),
    /// The name changed.
    ProfileChanged(ProfileChanged),
    /// What the user wants of a chat has changed; the chat as the user sees it.
    ChatUpdated(Box<Chat>),
    /// One has blocked the other.
    Blocking(Blocking),
    /// The account is disabled.
    Disabled,
}

/// What may be lost: published on `sig.…`, never stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// On a chat's subject: somebody types, or has stopped.
    #[serde(rename_all = "camelCase")]
    Typing {
        /// Who.
        user_id: UserId,
        /// On which device: typing on two devices ends when both have stopped.
        device_id: DeviceId,
        /// Milliseconds until it stops by itself; 0 is the stop.
        ttl_ms: u32,
    },
    /// On a user's subject: the user came online or went offline.
    #[serde(rename_all = "camelCase")]
    Presence {
        /// Whether any device is connected.
        online: bool,
        /// When a device was last seen.
        #[serde(default, with = "timestamp::option")]
        last_seen_at: Option<OffsetDateTime>,
    },
    /// On a chat's subject: a participant has read it up to a place. Of chats of some size only.
    #[serde(rename_all = "camelCase")]
    Read {
        /// Who.
        user_id: UserId,
        /// Up to where.
        seq: Seq,
    },
    /// On a chat's subject: a device of a participant has got it up to a place; likewise.
    #[serde(rename_all = "camelCase")]
    Delivered {
        /// Whose.
        user_id: UserId,
        /// Up to where.
        seq: Seq,
    },
}

/// Where the feeds of a shard stood when its owner had read the log up to `to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Digest {
    /// The stream's life, counted from 1.
    pub epoch: i32,
    /// The range starts after this sequence: the `to` of the digest before.
    pub from: Seq,
    /// The range ends with this sequence.
    pub to: Seq,
    /// The feeds that the range touches, each with its last sequence in it.
    pub heads: Vec<(FeedKind, Uuid, Seq)>,
}

impl Digest {
    /// Not a digest of anything: the live mirror is about to be made anew, and its first entry of
    /// each feed will not name the one before.
    pub const MIRROR_ANEW: Self = Self { epoch: 0, from: 0, to: 0, heads: Vec::new() };
}
