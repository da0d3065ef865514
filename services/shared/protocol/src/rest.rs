//! Bodies of REST requests and answers that the wire names. Views shared with events are in
//! [`crate::server`].

use garde::Validate;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    ids::{ChatId, DeviceId, InviteId, Seq, UserId},
    limits,
    server::{Chat, Message, Participant, Role, UserCard},
    timestamp,
};

/// `POST /v1/chats` and `create_chat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct CreateChat {
    /// A group, or a one-to-one with the one participant named.
    #[garde(skip)]
    pub is_group: bool,
    /// A group's title: 1 to [`crate::limits::NAME_CHARS`] characters.
    #[serde(default)]
    #[garde(inner(length(chars, min = 1, max = limits::NAME_CHARS)))]
    pub title: Option<String>,
    /// Who takes part besides the caller; at most [`crate::limits::PARTICIPANTS`].
    #[serde(default)]
    #[garde(length(max = limits::PARTICIPANTS))]
    pub participant_ids: Vec<UserId>,
    /// Whether anybody may join; groups only.
    #[serde(default)]
    #[garde(skip)]
    pub open: bool,
}

/// The device that logs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct DeviceSpec {
    /// Given by a device that has logged in before; made otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub id: Option<DeviceId>,
    /// Shown in the list of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(chars, min = 1, max = limits::NAME_CHARS)))]
    pub name: Option<String>,
    /// `web`, `ios`, `android`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(chars, min = 1, max = 32)))]
    pub platform: Option<String>,
}

/// `POST /v1/auth/register`. At least one of `phone` and `email`.
#[derive(Clone, Deserialize, ToSchema, Validate)]
pub struct Register {
    /// Shown to others: 1 to [`crate::limits::NAME_CHARS`] characters.
    #[garde(length(chars, min = 1, max = limits::NAME_CHARS))]
    pub name: String,
    /// E.164: `+` and 6 to 15 digits.
    #[serde(default)]
    #[garde(inner(custom(phone_number)))]
    pub phone: Option<String>,
    /// An e-mail address.
    #[serde(default)]
    #[garde(inner(custom(email_address)))]
    pub email: Option<String>,
    /// 8 to 256 bytes.
    #[garde(length(bytes, min = 8, max = 256))]
    pub password: String,
    /// The device that registers; it is logged in at once.
    #[serde(default)]
    #[garde(dive)]
    pub device: Option<DeviceSpec>,
}

/// `POST /v1/auth/login`, with `phone` or `email`.
#[derive(Clone, Deserialize, ToSchema, Validate)]
pub struct Login {
    /// As registered.
    #[serde(default)]
    #[garde(inner(length(max = 32)))]
    pub phone: Option<String>,
    /// As registered.
    #[serde(default)]
    #[garde(inner(length(max = 254)))]
    pub email: Option<String>,
    /// The password.
    #[garde(length(bytes, max = 256))]
    pub password: String,
    /// The device that logs in.
    #[serde(default)]
    #[garde(dive)]
    pub device: Option<DeviceSpec>,
}

/// `POST /v1/auth/refresh`.
#[derive(Clone, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// The newest one; it is good for one use.
    #[garde(length(max = 256))]
    pub refresh_token: String,
}

/// `POST /v1/auth/password`.
#[derive(Clone, Deserialize, ToSchema, Validate)]
pub struct ChangePassword {
    /// The password until now.
    #[garde(length(bytes, max = 256))]
    pub current: String,
    /// 8 to 256 bytes.
    #[garde(length(bytes, min = 8, max = 256))]
    pub new: String,
}

/// `DELETE /v1/users/me`.
#[derive(Clone, Default, Deserialize, ToSchema, Validate)]
pub struct DeleteAccount {
    /// The password; none for an account of an outside issuer.
    #[serde(default)]
    #[garde(inner(length(bytes, max = 256)))]
    pub password: Option<String>,
}

/// `PATCH /v1/users/me`: what is missing stays; `null` takes phone or e-mail away.
#[derive(Clone, Debug, Deserialize, ToSchema, Validate)]
pub struct UpdateUser {
    /// Shown to others: 1 to [`crate::limits::NAME_CHARS`] characters.
    #[serde(default)]
    #[garde(inner(length(chars, min = 1, max = limits::NAME_CHARS)))]
    pub name: Option<String>,
    /// E.164: `+` and 6 to 15 digits.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(inner(custom(phone_number))))]
    #[schema(value_type = Option<String>)]
    pub phone: Option<Option<String>>,
    /// An e-mail address.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(inner(custom(email_address))))]
    #[schema(value_type = Option<String>)]
    pub email: Option<Option<String>>,
}

/// Tells a field that is `null` from one that is missing.
#[expect(clippy::option_option, reason = "missing, null and a value are three cases")]
pub(crate) fn present<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Whether it is a phone number as people log in with: `+` and 6 to 15 digits.
#[must_use]
pub fn is_phone_number(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or_default();
    (6..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
pub(crate) fn phone_number(number: &str, _: &()) -> garde::Result {
    if is_phone_number(number) {
        Ok(())
    } else {
        Err(garde::Error::new("is not + and 6 to 15 digits"))
    }
}

/// Whether it may be an e-mail address of at most 254 bytes. Whether mail can reach it only mail can
/// tell; this keeps out what is plainly something else.
#[must_use]
pub fn is_email_address(address: &str) -> bool {
    let plain = address.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let parts = address.split_once('@');
    plain
        && address.len() <= 254
        && parts.is_some_and(|(local, host)| {
            !local.is_empty() && !host.is_empty() && !host.contains('@')
        })
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
pub(crate) fn email_address(address: &str, _: &()) -> garde::Result {
    if is_email_address(address) {
        Ok(())
    } else {
        Err(garde::Error::new("is not an e-mail address of at most 254 bytes"))
    }
}

/// Oneself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// Shown to others.
    pub name: String,
    /// Seen by oneself only.
    #[schema(required = true)]
    pub phone: Option<String>,
    /// Seen by oneself only.
    #[schema(required = true)]
    pub email: Option<String>,
    /// A program, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bot: bool,
}

/// One of the caller's devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The device.
    pub id: DeviceId,
    /// As it called itself.
    #[schema(required = true)]
    pub name: Option<String>,
    /// As it called itself.
    #[schema(required = true)]
    pub platform: Option<String>,
    /// When it first logged in.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it was last connected or logged in.
    #[serde(default, with = "timestamp::option")]
    #[schema(value_type = Option<String>, format = DateTime, required = true)]
    pub last_seen_at: Option<OffsetDateTime>,
    /// Whether it is connected now.
    pub online: bool,
    /// Whether it is the caller's own.
    pub current: bool,
}

/// The answer to register, login and refresh.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Who is logged in.
    pub user: User,
    /// On which device.
    pub device: Device,
    /// A JWT.
    pub access_token: String,
    /// For one use, at `/auth/refresh`.
    pub refresh_token: String,
    /// When the access token expires.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// A list without pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// The caller's devices, those not revoked.
    pub items: Vec<Device>,
}

/// The answer to `GET /v1/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserList {
    /// Those found.
    pub items: Vec<UserCard>,
}

/// A page of chats, newest activity first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatPage {
    /// Newest activity first.
    pub items: Vec<Chat>,
    /// Ask for the next page with it; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A page of participants, by the time they joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantPage {
    /// Oldest first.
    pub items: Vec<Participant>,
    /// Ask for the next page with it; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// `PUT /v1/chats/{id}/mute` and `mute_chat`: either a time, or for ever.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate,
)]
pub struct Mute {
    /// Until when; in the future.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[garde(skip)]
    pub until: Option<OffsetDateTime>,
    /// For ever.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[garde(skip)]
    pub forever: bool,
}

/// `POST /v1/chats/{id}/read` and `POST /v1/chats/{id}/delivered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct UpTo {
    /// A place of the chat's feed: everything up to there. At most the feed's last entry.
    #[garde(skip)]
    pub seq: Seq,
}

/// How far one participant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParticipantReceipt {
    /// Who.
    pub user_id: UserId,
    /// They have read everything up to this place of the chat's feed.
    pub read_seq: Seq,
    /// A device of theirs has got everything up to here.
    pub delivered_seq: Seq,
}

/// How far the participants of a chat are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReceiptList {
    /// By the time they joined.
    pub items: Vec<ParticipantReceipt>,
}

/// What is unread in all chats of a user that are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadTotal {
    /// Messages.
    pub total: u64,
    /// Chats that have any.
    pub chats: u64,
}

/// `PATCH /v1/chats/{id}`: what is missing stays; `null` takes the description away, or the chat's own
/// time after which messages are removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct ChangeChat {
    /// 1 to [`crate::limits::NAME_CHARS`] characters.
    #[serde(default)]
    #[garde(inner(length(chars, min = 1, max = limits::NAME_CHARS)))]
    pub title: Option<String>,
    /// 1 to [`crate::limits::DESCRIPTION_CHARS`] characters.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(inner(length(chars, min = 1, max = limits::DESCRIPTION_CHARS))))]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Whether anybody may join.
    #[serde(default)]
    #[garde(skip)]
    pub open: Option<bool>,
    /// Seconds after which messages are removed, for everybody: an hour to ten years, unless the
    /// deployment says otherwise. Also of one-to-ones.
    #[serde(default, deserialize_with = "present")]
    #[garde(skip)]
    #[schema(value_type = Option<u32>)]
    pub retention_secs: Option<Option<u32>>,
}

/// `POST /v1/chats/{id}/participants`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct AddUsers {
    /// Whom; at most [`crate::limits::ADDED`]. Those who take part already stay so.
    #[garde(length(min = 1, max = limits::ADDED))]
    pub user_ids: Vec<UserId>,
}

/// `PATCH /v1/chats/{id}/participants/{userId}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct ChangeRole {
    /// From now on.
    #[garde(skip)]
    pub role: Role,
    /// With `owner`: the caller becomes an admin in the same change.
    #[serde(default)]
    #[garde(skip)]
    pub transfer: bool,
}

/// Somebody who may not come back to a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ban {
    /// Who.
    pub user: UserCard,
    /// Who said so.
    pub banned_by: UserId,
    /// When.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub banned_at: OffsetDateTime,
}

/// A page of those who may not come back, in the order in which they were banned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BanPage {
    /// Oldest first.
    pub items: Vec<Ban>,
    /// Ask for the next page with it; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// `POST /v1/chats/{id}/invites`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate,
)]
#[serde(rename_all = "camelCase")]
pub struct CreateInvite {
    /// Seconds for which it is good: up to a year; a week by default.
    #[serde(default)]
    #[garde(inner(range(min = 1, max = 31_536_000)))]
    pub expires_in: Option<u32>,
    /// How many people may come by it; any number by default.
    #[serde(default)]
    #[garde(inner(range(min = 1, max = 1_000_000)))]
    pub max_uses: Option<u32>,
}

/// A link into a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invite {
    /// To revoke it by.
    pub id: InviteId,
    /// Who made it.
    pub created_by: UserId,
    /// When.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// Until when it is good.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
    /// How many people may come by it; missing for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_uses: Option<u32>,
    /// How many have.
    pub uses: u32,
}

/// A link that was just made: the only time that its code is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeInvite {
    /// To revoke it by.
    pub id: InviteId,
    /// What is shared: whoever knows it may join.
    pub code: String,
    /// Where the gateway tells what it leads to.
    pub path: String,
    /// Until when it is good.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
    /// How many people may come by it; missing for any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub max_uses: Option<u32>,
}

/// A list without pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InviteList {
    /// Those that are good, oldest first.
    pub items: Vec<Invite>,
}

/// What an invite leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Invitation {
    /// The group.
    pub chat_id: ChatId,
    /// Its title.
    #[schema(required = true)]
    pub title: Option<String>,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub description: Option<String>,
    /// How many take part.
    pub participant_count: i64,
    /// Until when the invite is good.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: OffsetDateTime,
}

/// Somebody whom the caller has blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Block {
    /// Who.
    pub user: UserCard,
    /// Since when.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub blocked_at: OffsetDateTime,
}

/// A page of those whom the caller has blocked, in the order in which they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockPage {
    /// Oldest first.
    pub items: Vec<Block>,
    /// Ask for the next page with it; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// The answer to `GET /v1/search/messages` and `search_messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SearchPage {
    /// The newest first, or the best.
    pub items: Vec<FoundMessage>,
    /// Ask for the next page with it; null at the end.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// A message that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FoundMessage {
    /// As it is now.
    pub message: Message,
    /// Where its `content` has the words that were searched for, in order.
    pub highlights: Vec<Highlight>,
    /// In which chat.
    pub chat: ChatName,
}

/// A part of a text, in UTF-16 code units: as JavaScript, Java and Swift's `NSString` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Highlight {
    /// Its first.
    pub start: u32,
    /// The one after its last.
    pub end: u32,
}

/// A chat, with what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChatName {
    /// The chat.
    pub id: ChatId,
    /// As in its `me.name`.
    pub name: String,
}
