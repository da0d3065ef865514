//! Examples: values of the wire's own types, so that they are what is sent.

use natter_protocol::{
    error::{ErrorCode, WireError},
    feed::{SystemEvent, SystemKind},
    ids::{ChatId, ConnectionId, DeviceId, MediaId, MessageId, Seq, UserId},
    limits,
    media::{Media, MediaKind},
    rest::{ChatName, FoundMessage, Highlight, SearchPage},
    server::{
        Authenticated, BlockChange, Changed, Chat, ChatRef, ContentType, HistoryPage, Joined,
        Limits, Me, Message, MessageDeleted, MessageEdited, MessagesExpired, Participant, Presence,
        PresenceList, Reaction, ReactionCount, Ready, Receipt, Resumed, Role, Sent, ServerEvent,
        System, SystemDetail, UserCard, UserTyping,
    },
};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

pub const ADA: UserId = UserId(Uuid::from_u128(0x0198_c0de_0001_7a00_8000_0000_0000_00a1));
pub const BEN: UserId = UserId(Uuid::from_u128(0x0198_c0de_0001_7a00_8000_0000_0000_00b2));
pub const CHAT: ChatId = ChatId(Uuid::from_u128(0x0198_c0de_0002_7a00_8000_0000_0000_00c3));
pub const FILE: MediaId = MediaId(Uuid::from_u128(0x0198_c0de_0006_7a00_8000_0000_0000_00f6));
/// Best a UUIDv7.
pub const CLIENT_MSG_ID: &str = "0198c0de-0003-7a00-8000-0000000000d4";
/// An invite's.
pub const CODE: &str = "q2W8…Zg";
pub const CURSOR: &str = "AXk3…Qw";
/// Not one that anybody accepts.
pub const TOKEN: &str = "eyJhbGciOi…";

pub const DEVICE: DeviceId = DeviceId(Uuid::from_u128(0x0198_c0de_0004_7a00_8000_0000_0000_00e5));
const CONNECTION: ConnectionId =
    ConnectionId(Uuid::from_u128(0x0198_c0de_0005_7a00_8000_0000_0000_00f7));
pub const AT: OffsetDateTime = datetime!(2026-01-02 03:04:05.678 UTC);

/// What the examples tell of: Ada writes to Ben.
pub struct Samples {
    pub ready: Ready,
    pub message: Message,
    pub system: System,
    pub chat: Chat,
    pub muted: Chat,
    pub hidden: Chat,
    pub page: HistoryPage,
    pub joined: Joined,
    pub sent: Sent,
    pub found: SearchPage,
    pub authenticated: Authenticated,
    pub presence: PresenceList,
    pub resumed: Resumed,
    pub error: WireError,
    pub changed: Changed,
    edited: MessageEdited,
    deleted: MessageDeleted,
    reaction: Reaction,
    expired: MessagesExpired,
    here: Presence,
    pictured: Vec<Message>,
}

impl Samples {
    pub fn new() -> Self {
        let message = message();
        let chat = chat(&message);
        let pictured = vec![with_picture(), message.clone()];
        Self {
            page: HistoryPage {
                messages: pictured.clone(),
                has_more: true,
                has_more_before: None,
                has_more_after: None,
                from_seq: 3_980,
                to_seq: 4_021,
                partial: false,
            },
            joined: Joined {
                chat: chat.clone(),
                messages: vec![message.clone()],
                has_more: false,
                typing: vec![BEN],
            },
            sent: Sent {
                id: message.id,
                chat_id: CHAT,
                seq: 4_021,
                prev_seq: 4_007,
                created_at: AT,
                client_msg_id: CLIENT_MSG_ID.to_owned(),
                duplicate: false,
                content: None,
            },
            found: SearchPage {
                items: vec![FoundMessage {
                    message: message.clone(),
                    highlights: vec![Highlight { start: 0, end: 5 }],
                    chat: ChatName { id: CHAT, name: "Sailing".to_owned() },
                }],
                next_cursor: None,
            },
            authenticated: Authenticated { expires_at: AT },
            presence: PresenceList { items: vec![here()] },
            resumed: Resumed { resumed: true, reason: None },
            error: WireError::new(ErrorCode::RateLimited, "too many events").retry_after_ms(250),
            changed: Changed { seq: 4_025 },
            edited: edited(&message),
            deleted: deleted(&message),
            reaction: reaction(&message),
            expired: expired(),
            ready: ready(),
            system: joined(),
            here: here(),
            pictured,
            message,
            muted: with_own(&chat, |me| me.muted = true),
            hidden: with_own(&chat, |me| me.hidden = true),
            chat,
        }
    }

    /// An event of each kind.
    pub fn events(&self) -> Vec<ServerEvent<'_>> {
        vec![
            ServerEvent::Ready(&self.ready),
            ServerEvent::Message(&self.message),
            ServerEvent::System(&self.system),
            ServerEvent::ChatHistory(&self.pictured),
            ServerEvent::UserTyping(UserTyping { chat_id: CHAT, user_id: BEN, typing: true }),
            ServerEvent::ChatAdded(&self.chat),
            ServerEvent::ChatRemoved(ChatRef { id: CHAT }),
            ServerEvent::Presence(&self.here),
            ServerEvent::DeviceRevoked { device_id: DEVICE },
            ServerEvent::Reconnect { after_ms: 1_200 },
            ServerEvent::ResumeDone { cursor: CURSOR.to_owned() },
            ServerEvent::Exception(&self.error),
            ServerEvent::MessageEdited(&self.edited),
            ServerEvent::MessageDeleted(&self.deleted),
            ServerEvent::Reaction(&self.reaction),
            ServerEvent::Read(receipt(4_021)),
            ServerEvent::Delivered(receipt(4_021)),
            ServerEvent::ChatUpdated(&self.muted),
            ServerEvent::Blocking(BlockChange { user_id: BEN, blocked: true, chat_id: None }),
            ServerEvent::MessagesExpired(&self.expired),
        ]
    }
}

fn ready() -> Ready {
    Ready {
        user_id: ADA,
        device_id: DEVICE,
        connection_id: CONNECTION,
        heartbeat_ms: 25_000,
        cursor: CURSOR.to_owned(),
        resumed: false,
        resume_reason: None,
        limits: Limits {
            frame_bytes: limits::FRAME_BYTES,
            content_bytes: limits::CONTENT_BYTES,
            page: limits::PAGE,
            events_per_second: 20,
        },
    }
}

fn message() -> Message {
    Message {
        id: MessageId::derive(CHAT, ADA, CLIENT_MSG_ID),
        chat_id: CHAT,
        seq: 4_021,
        prev_seq: 4_007,
        sender_id: ADA,
        sender: UserCard { id: ADA, name: "Ada".to_owned(), bot: false },
        device_id: Some(DEVICE),
        content_type: ContentType::Text,
        content: "Hello Ben".to_owned(),
        media: None,
        media_url: None,
        media_type: None,
        reply_to: None,
        client_msg_id: CLIENT_MSG_ID.to_owned(),
        created_at: AT,
        system: None,
        quote: None,
        mentions: Vec::new(),
        edited_at: None,
        deleted: false,
        reactions: Vec::new(),
    }
}

fn edited(message: &Message) -> MessageEdited {
    MessageEdited {
        chat_id: CHAT,
        seq: 4_023,
        prev_seq: message.seq,
        message_id: message.id,
        message_seq: message.seq,
        actor_id: ADA,
        content: "Hello, Ben".to_owned(),
        mentions: Vec::new(),
        edited_at: AT,
    }
}

fn reaction(message: &Message) -> Reaction {
    Reaction {
        chat_id: CHAT,
        seq: 4_024,
        prev_seq: 4_023,
        message_id: message.id,
        message_seq: message.seq,
        user_id: BEN,
        emoji: "👍".to_owned(),
        on: true,
        created_at: AT,
    }
}

fn expired() -> MessagesExpired {
    MessagesExpired { chat_id: CHAT, seq: 4_026, prev_seq: 4_025, up_to: 3_980, created_at: AT }
}

fn deleted(message: &Message) -> MessageDeleted {
    MessageDeleted {
        chat_id: CHAT,
        seq: 4_025,
        prev_seq: 4_024,
        message_id: message.id,
        message_seq: message.seq,
        actor_id: ADA,
        deleted_at: AT,
    }
}

fn with_picture() -> Message {
    let client_msg_id = "picture-1".to_owned();
    let id = MessageId::derive(CHAT, ADA, &client_msg_id);
    let earlier = Message { id, seq: 4_007, prev_seq: 3_991, client_msg_id, ..message() };
    let liked = ReactionCount { emoji: "👍".to_owned(), count: 2, mine: true };
    let (content, reactions) = ("The harbour".to_owned(), vec![liked]);
    let earlier = Message { content, reactions, edited_at: Some(AT), ..earlier };
    earlier.with_media(Some(Box::new(picture())))
}

pub fn picture() -> Media {
    Media {
        id: FILE,
        name: "harbour.jpg".to_owned(),
        media_type: "image/jpeg".to_owned(),
        kind: MediaKind::Image,
        size: 184_320,
        sha256: None,
        width: Some(1_600),
        height: Some(1_200),
        thumbnail: true,
    }
}

fn joined() -> System {
    let event = SystemEvent::new(SystemKind::Joined, BEN, 2, "Ben joined".to_owned()).about(BEN);
    System::at((CHAT, 3_991, 3_980), AT, event.msg.clone(), SystemDetail::from(&event))
}

fn chat(newest: &Message) -> Chat {
    let participant =
        |id, name: &str, role| Participant { id, name: name.to_owned(), role, bot: false };
    Chat {
        id: CHAT,
        is_group: true,
        title: Some("Sailing".to_owned()),
        description: Some("Boats, and where to find them".to_owned()),
        open: true,
        created_by: ADA,
        created_at: AT,
        participant_count: 2,
        participants: vec![
            participant(ADA, "Ada", Role::Owner),
            participant(BEN, "Ben", Role::Member),
        ],
        last_message: Some(newest.clone()),
        last_seq: newest.seq,
        retention_secs: Some(2_592_000),
        me: Some(Me { read_seq: newest.seq, ..Me::new("Sailing".to_owned(), Role::Owner) }),
    }
}

fn with_own(chat: &Chat, change: impl Fn(&mut Me)) -> Chat {
    let mut chat = chat.clone();
    chat.me.iter_mut().for_each(change);
    chat
}

fn receipt(seq: Seq) -> Receipt {
    Receipt { chat_id: CHAT, user_id: BEN, seq }
}

fn here() -> Presence {
    Presence { user_id: BEN, online: true, last_seen_at: Some(AT) }
}
