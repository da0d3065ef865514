//! What users want to be notified of, and what became of the notifications of a message.

use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::{
    ids::{DeviceId, MessageId},
    push::Provider,
    server::UserCard,
    timestamp,
    words::words,
};

/// Characters of the name of a time zone.
const ZONE_CHARS: usize = 64;

words! {
    /// How much of a message a notification shows.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Preview {
        /// Who wrote, where, and what.
        Full,
        /// Who wrote, and where.
        Sender,
        /// That there is a message.
        None,
    }
}

impl Preview {
    /// What a word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::MEANINGS.iter().map(|(preview, _)| *preview).find(|preview| preview.as_str() == word)
    }

    /// The word for it, as on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Sender => "sender",
            Self::None => "none",
        }
    }
}

/// When a user does not want to be disturbed, every day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct QuietHours {
    /// `HH:MM` where the user lives.
    #[garde(custom(time_of_day))]
    pub from: String,
    /// `HH:MM`; before `from` it is on the next day. Equal to `from`: never.
    #[garde(custom(time_of_day))]
    pub until: String,
    /// Of the IANA database: `Europe/Berlin`.
    #[garde(length(chars, min = 1, max = ZONE_CHARS))]
    pub time_zone: String,
}

/// What a user wants to be notified of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationSettings {
    /// How much of a message is shown.
    pub preview: Preview,
    /// A message that mentions the user is notified of though its chat is muted.
    pub mentions_through_mute: bool,
    /// When nothing is notified of; `null` for never.
    #[schema(required = true)]
    pub quiet_hours: Option<QuietHours>,
}

impl Default for NotificationSettings {
    fn default() -> Self {
        Self { preview: Preview::Full, mentions_through_mute: true, quiet_hours: None }
    }
}

/// `PATCH /v1/users/me/notifications`: what is missing stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct ChangeNotifications {
    /// How much of a message is shown.
    #[serde(default)]
    #[garde(skip)]
    pub preview: Option<Preview>,
    /// Whether a message that mentions the user is notified of though its chat is muted.
    #[serde(default)]
    #[garde(skip)]
    pub mentions_through_mute: Option<bool>,
    /// When nothing is notified of; `null` for never.
    #[serde(default, deserialize_with = "present")]
    #[garde(dive)]
    #[schema(value_type = Option<QuietHours>)]
    pub quiet_hours: Option<Option<QuietHours>>,
}

#[expect(clippy::option_option, reason = "missing, null and a value are three cases")]
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<QuietHours>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "garde passes its context by reference")]
fn time_of_day(text: &str, _: &()) -> garde::Result {
    let digits = |at: usize| {
        let digits = text.get(at..at + 2)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u8>().ok())?
    };
    let of_day = text.len() == 5 && text.as_bytes()[2] == b':';
    match (of_day, digits(0), digits(3)) {
        (true, Some(0..=23), Some(0..=59)) => Ok(()),
        _ => Err(garde::Error::new("is not a time like 22:30")),
    }
}

/// What devices register with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushKey {
    /// What a browser subscribes with (`applicationServerKey`), in base64url; missing where Web Push is
    /// not set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub public_key: Option<String>,
    /// What is set up.
    pub providers: Vec<Provider>,
}

/// Where a device is notified, without what would let others notify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushTarget {
    /// Who carries notifications there.
    pub provider: Provider,
    /// When the device last said so.
    #[serde(with = "timestamp")]
    pub set_at: OffsetDateTime,
    /// When it expires, as far as the device knows.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub expires_at: Option<OffsetDateTime>,
    /// The push service says that it is no more: the device has to register anew.
    pub gone: bool,
    /// What the last attempt came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub last: Option<LastPush>,
}

/// What the last attempt to notify a device came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastPush {
    /// What became of the notification.
    pub state: PushState,
    /// What the push service said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub answer: Option<String>,
    /// When.
    #[serde(with = "timestamp")]
    pub at: OffsetDateTime,
}

words! {
    /// What became of a message for a recipient, or for one of their devices.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum PushState {
        /// The recipient is not notified: see the reason.
        Skipped,
        /// It waits to be sent.
        Queued,
        /// It is being sent.
        Sending,
        /// It has failed, and is sent again.
        Retrying,
        /// The push service has it. Whether the device has shown it nobody tells.
        Delivered,
        /// The push service does not know the device any more.
        Gone,
        /// The push service does not take it.
        Refused,
        /// It has failed too often, or for too long.
        GivenUp,
        /// It was not wanted any more before it was sent: see the reason.
        Cancelled,
    }
}

impl PushState {
    /// The word for it, as on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Queued => "queued",
            Self::Sending => "sending",
            Self::Retrying => "retrying",
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::GivenUp => "given_up",
            Self::Cancelled => "cancelled",
        }
    }

    /// What a word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::MEANINGS.iter().map(|(state, _)| *state).find(|state| state.as_str() == word)
    }
}

words! {
    /// Why somebody is not notified.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum PushReason {
        /// They sent it.
        Sender,
        /// They were connected, and got it live.
        Online,
        /// They have read it on another device.
        Read,
        /// They want no notifications of the chat, or of its sender.
        Muted,
        /// They have blocked the sender: told to operators alone.
        Blocked,
        /// It came in their quiet hours.
        Quiet,
        /// No device of theirs has registered for it.
        NoTarget,
        /// It was too old by then.
        TooOld,
        /// A newer message of the chat was notified of in its place.
        Collapsed,
        /// The message was taken back.
        Deleted,
        /// They take no part in the chat any more.
        Left,
        /// The device has logged out, or registered anew.
        Unregistered,
        /// The push service has failed too often.
        Attempts,
    }
}

impl PushReason {
    /// The word for it, as on the wire and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Online => "online",
            Self::Read => "read",
            Self::Muted => "muted",
            Self::Blocked => "blocked",
            Self::Quiet => "quiet",
            Self::NoTarget => "no_target",
            Self::TooOld => "too_old",
            Self::Collapsed => "collapsed",
            Self::Deleted => "deleted",
            Self::Left => "left",
            Self::Unregistered => "unregistered",
            Self::Attempts => "attempts",
        }
    }

    /// What a word means.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::MEANINGS.iter().map(|(reason, _)| *reason).find(|reason| reason.as_str() == word)
    }
}

/// What became of a message for a recipient, or for one of their devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The recipient.
    pub user: UserCard,
    /// One of their devices; missing where none was chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub device_id: Option<DeviceId>,
    /// Who carries the notification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub provider: Option<Provider>,
    /// What became of it.
    pub state: PushState,
    /// Why they are not notified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<PushReason>,
    /// When that was decided.
    #[serde(with = "timestamp")]
    pub decided_at: OffsetDateTime,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was last tried.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub attempted_at: Option<OffsetDateTime>,
    /// When it is tried again.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_at: Option<OffsetDateTime>,
    /// When it came to its end.
    #[serde(default, with = "timestamp::option", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub ended_at: Option<OffsetDateTime>,
    /// What the push service said, in a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub answer: Option<String>,
}

/// A page of what became of a message, in the order of the recipients' ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryPage {
    /// The message.
    pub message_id: MessageId,
    /// Whether it has been decided about all recipients. Before that some are missing, or all.
    pub decided: bool,
    /// Nobody was looked at, for this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<PushReason>,
    /// In the order of the recipients' ids, and of their devices'.
    pub items: Vec<Delivery>,
    /// Where the next page begins.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_wire() {
        for (state, _) in PushState::MEANINGS {
            assert_eq!(serde_json::to_value(state).ok(), Some(state.as_str().into()));
            assert_eq!(PushState::parse(state.as_str()), Some(*state));
        }
        for (reason, _) in PushReason::MEANINGS {
            assert_eq!(serde_json::to_value(reason).ok(), Some(reason.as_str().into()));
            assert_eq!(PushReason::parse(reason.as_str()), Some(*reason));
        }
        for (preview, _) in Preview::MEANINGS {
            assert_eq!(serde_json::to_value(preview).ok(), Some(preview.as_str().into()));
        }
    }

    #[test]
    fn quiet_hours_are_times_of_the_day_and_null_is_not_the_same_as_nothing() {
        let change = |text: &str| serde_json::from_str::<ChangeNotifications>(text).ok();
        assert_eq!(change("{}").and_then(|change| change.quiet_hours), None);
        let none = change(r#"{"quietHours":null}"#).and_then(|change| change.quiet_hours);
        assert_eq!(none, Some(None));
        let hours = |from: &str| {
            change(&format!(
                r#"{{"quietHours":{{"from":"{from}","until":"07:00","timeZone":"Europe/Berlin"}}}}"#
            ))
        };
        let valid = |from| hours(from).is_some_and(|change| change.validate().is_ok());
        assert!(valid("22:30") && valid("00:00"));
        for wrong in ["", "24:00", "7:00", "22:60", "22.30", "+1:00", "aa:bb", "é:00", "22:300"] {
            assert!(!valid(wrong), "{wrong}");
        }
    }
}
