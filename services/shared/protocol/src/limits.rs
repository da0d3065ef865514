//! The bounds on what clients send. `ready.limits` reports those that a client cannot do without, so
//! that it need not know them beforehand.

/// Bytes of one frame or REST body.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Bytes of a message's `content`.
pub const CONTENT_BYTES: usize = 16 * 1024;
/// Characters of a `clientMsgId`.
pub const CLIENT_MSG_ID_CHARS: usize = 64;
/// Messages in one page of history.
pub const PAGE: u32 = 200;
/// Messages in a page when the client does not say.
pub const PAGE_DEFAULT: u32 = 50;
/// Participants named when a chat is created.
pub const PARTICIPANTS: usize = 1_000;
/// Participants listed in a chat; the rest by `GET /chats/{id}/participants`.
pub const PARTICIPANTS_SHOWN: i64 = 50;
/// Users in one `presence_subscribe`, and subscribed by one connection.
pub const PRESENCE_USERS: usize = 500;
/// Characters of a name or title.
pub const NAME_CHARS: usize = 100;
/// Bytes of what an embedding product calls a user.
pub const EXTERNAL_ID_BYTES: usize = 255;
/// Users that one message mentions.
pub const MENTIONS: usize = 50;
/// Characters that a quote shows of the message that is answered.
pub const QUOTE_CHARS: usize = 100;
/// Bytes of an emoji: the longest sequence that Unicode recommends has 35.
pub const EMOJI_BYTES: usize = 40;
/// Different emoji of one user on one message.
pub const REACTIONS_OF_USER: usize = 20;
/// Different emoji on one message.
pub const REACTIONS: usize = 100;
/// Characters of a group's description.
pub const DESCRIPTION_CHARS: usize = 500;
/// Users added to a chat at once.
pub const ADDED: usize = 100;
/// Invites of one chat that are good at the same time.
pub const INVITES: i64 = 100;
/// Characters of what messages are searched for.
pub const SEARCH_CHARS: usize = 256;
/// Words of it; text without spaces counts as one.
pub const SEARCH_WORDS: usize = 16;
/// Messages in one page of what was found.
pub const SEARCH_PAGE: u32 = 100;
/// The same when the client does not say.
pub const SEARCH_PAGE_DEFAULT: u32 = 20;
