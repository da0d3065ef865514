//! What the servers of an embedding product ask for: bodies and answers of `/v1/server/…`, and what a
//! token for it may do.

use std::{fmt, str::FromStr};

use garde::Validate;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::ToSchema;

use crate::{
    client::Draft,
    ids::UserId,
    limits,
    rest::{DeviceSpec, email_address, phone_number, present},
    server::Role,
    words::words,
};

words! {
    /// What a service token may do.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Scope {
        /// Make, look up, change, disable and enable users.
        Users,
        /// Log devices of users in, and revoke them: whoever may do that can be any of these users.
        Devices,
        /// Make chats, and manage who takes part.
        Chats,
        /// Send as a bot or as `system`.
        Send,
        /// Send as anybody.
        Impersonate,
        /// Read what is said in any chat.
        History,
        /// Delete anybody's messages.
        Moderate,
    }
}

impl Scope {
    /// As it is written on the command line, in the database and in the reference.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Devices => "devices",
            Self::Chats => "chats",
            Self::Send => "send",
            Self::Impersonate => "impersonate",
            Self::History => "history",
            Self::Moderate => "moderate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// No scope is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not one of users, devices, chats, send, impersonate, history, moderate")]
pub struct UnknownScope;

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        let mut all = Self::MEANINGS.iter().map(|(scope, _)| *scope);
        all.find(|scope| scope.as_str() == text).ok_or(UnknownScope)
    }
}

/// `POST /v1/server/users`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct CreateUser {
    /// Shown to others: 1 to [`crate::limits::NAME_CHARS`] characters.
    #[garde(length(chars, min = 1, max = limits::NAME_CHARS))]
    pub name: String,
    /// E.164: `+` and 6 to 15 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(phone_number)))]
    pub phone: Option<String>,
    /// An e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(email_address)))]
    pub email: Option<String>,
    /// What the product calls the user: 1 to 255 bytes, one user's only. Making the user again answers
    /// the one that is there, unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(custom(named_outside)))]
    pub external_id: Option<String>,
    /// A program, and no person.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[garde(skip)]
    pub bot: bool,
}

/// `PATCH /v1/server/users/{id}`: what is missing stays; `null` takes phone, e-mail or external id away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct ChangeUser {
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
    /// What the product calls the user: 1 to 255 bytes.
    #[serde(default, deserialize_with = "present")]
    #[garde(inner(inner(custom(named_outside))))]
    #[schema(value_type = Option<String>)]
    pub external_id: Option<Option<String>>,
}

/// What an external id may be.
///
/// # Errors
/// When it is none.
pub fn named_outside(id: &str, _: &()) -> garde::Result {
    if (1..=limits::EXTERNAL_ID_BYTES).contains(&id.len()) && !id.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(garde::Error::new("is not 1 to 255 bytes without control characters"))
    }
}

/// A user, as the embedding product sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerUser {
    /// The user.
    pub id: UserId,
    /// What the product calls the user.
    #[schema(required = true)]
    pub external_id: Option<String>,
    /// Shown to others.
    pub name: String,
    /// A phone number.
    #[schema(required = true)]
    pub phone: Option<String>,
    /// An e-mail address.
    #[schema(required = true)]
    pub email: Option<String>,
    /// A program, and no person.
    pub bot: bool,
    /// Nobody is let in as this user.
    pub disabled: bool,
}

/// `POST /v1/server/users/{id}/devices`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct LogDeviceIn {
    /// The device. With the id of one that the user has, that is logged in anew, and its tokens from
    /// before are void.
    #[serde(default)]
    #[garde(dive)]
    pub device: Option<DeviceSpec>,
}

/// `POST /v1/server/chats`: a group with its owner, or the one-to-one of the two participants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
#[serde(rename_all = "camelCase")]
pub struct CreateServerChat {
    /// A group, or a one-to-one.
    #[garde(skip)]
    pub is_group: bool,
    /// A group's title: 1 to [`crate::limits::NAME_CHARS`] characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(inner(length(chars, min = 1, max = limits::NAME_CHARS)))]
    pub title: Option<String>,
    /// A group's owner, who needs not be named among the participants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub owner_id: Option<UserId>,
    /// Who takes part; at most [`crate::limits::PARTICIPANTS`]; of a one-to-one exactly two.
    #[serde(default)]
    #[garde(length(max = limits::PARTICIPANTS))]
    pub participant_ids: Vec<UserId>,
    /// Whether anybody may join; groups only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[garde(skip)]
    pub open: bool,
}

/// `PATCH /v1/server/chats/{id}/participants/{userId}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, Validate)]
pub struct ServerRole {
    /// From now on.
    #[garde(skip)]
    pub role: Role,
}

/// `POST /v1/server/chats/{id}/messages`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerDraft {
    /// Who says it: `system`, or the id of a bot or (with the scope `impersonate`) of a person who takes
    /// part in the chat.
    #[schema(value_type = String)]
    pub send_as: SendAs,
    /// What is said.
    #[serde(flatten)]
    pub draft: Draft,
}

/// Who says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendAs {
    /// The deployment itself.
    System,
    /// A bot or a person.
    User(UserId),
}

const SYSTEM: &str = "system";

impl Serialize for SendAs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::System => serializer.serialize_str(SYSTEM),
            Self::User(user) => user.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SendAs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text == SYSTEM {
            return Ok(Self::System);
        }
        text.parse().map(Self::User).map_err(D::Error::custom)
    }
}

/// The answer to `GET /v1/server/users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerUserList {
    /// The one that is called so, if there is one.
    pub items: Vec<ServerUser>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for (scope, _) in Scope::MEANINGS {
            assert_eq!(scope.to_string().parse(), Ok(*scope));
            assert_eq!(json!(scope), scope.as_str());
            assert!(UnknownScope.to_string().contains(scope.as_str()));
        }
        for wrong in ["", "Users", "users ", "all", "*"] {
            assert_eq!(wrong.parse::<Scope>(), Err(UnknownScope), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_is_of_the_system_or_of_a_user() -> Result<(), serde_json::Error> {
        let user = UserId::generate();
        let read = |send_as: &str| -> Result<SendAs, serde_json::Error> {
            let draft: ServerDraft =
                serde_json::from_value(json!({"sendAs": send_as, "content": "Hello"}))?;
            assert_eq!(draft.draft.content, "Hello");
            Ok(draft.send_as)
        };
        assert_eq!(read("system")?, SendAs::System);
        assert_eq!(read(&user.to_string())?, SendAs::User(user));
        for wrong in ["", "System", "me"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(serde_json::from_value::<ServerDraft>(json!({"content": "Hello"})).is_err());
        assert_eq!(json!(SendAs::User(user)), json!(user));
        assert_eq!(json!(SendAs::System), "system");
        Ok(())
    }

    #[test]
    fn external_ids_are_short_and_can_be_seen() {
        let good = ["7", "auth0|5f7c8ec7c33c6c004bbafe82", &"x".repeat(255), "J\u{fc}rgen 1"];
        for id in good {
            assert!(named_outside(id, &()).is_ok(), "{id:?}");
        }
        for id in ["", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(named_outside(id, &()).is_err(), "{id:?}");
        }
    }
}
