//! Typed identifiers. All are UUIDs; the types keep a chat from being taken for a user.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = Uuid)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new UUIDv7 of this moment.
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A person with an account.
    UserId
);
id!(
    /// One installation of a user's app.
    DeviceId
);
id!(
    /// A conversation.
    ChatId
);
id!(
    /// One message of a chat; derived from its chat, its sender and its `clientMsgId`.
    MessageId
);
id!(
    /// One socket of a device, unique over all nodes.
    ConnectionId
);

id!(
    /// One media file.
    MediaId
);

id!(
    /// One link into a group; not what is shared, which is its code.
    InviteId
);
id!(
    /// Somebody's server that is told of events.
    EndpointId
);

id!(
    /// One token of the server API; not the token itself, which names it.
    ServiceTokenId
);

impl UserId {
    /// Whoever speaks for the deployment itself: sends as `system`, and changes chats through the server
    /// API. Nobody logs in as it, and it takes part in no chat.
    pub const SYSTEM: Self = Self(Uuid::nil());
}

/// The position of an event in its shard's log; it totally orders a feed. Starts at 1.
pub type Seq = u64;

/// A new epoch of a shard's log begins so far above what was given in the one before, so that no
/// sequence is ever given twice: it is more than a shard stores between two looks of the worker,
/// whatever it was that the old log lost. The first epoch begins with 1.
pub const EPOCH_GAP: Seq = 1_000_000_000;

/// One of the streams that feeds are spread over, counted from 0.
pub type Shard = u16;

impl MessageId {
    /// The id of the message that `sender` sent to `chat` as `client_msg_id`: the same
    /// triple gives the same id on every node and for ever, so that a retry needs no look-up
    /// to name the message it repeats. The time in it is that of a UUIDv7 `client_msg_id`;
    /// any other client id tells no time, and the id then carries zero.
    #[must_use]
    pub fn derive(chat: ChatId, sender: UserId, client_msg_id: &str) -> Self {
        let digest = Sha256::new()
            .chain_update(chat.0.as_bytes())
            .chain_update(sender.0.as_bytes())
            .chain_update(client_msg_id.as_bytes())
            .finalize();
        let millis = uuid_v7_millis(client_msg_id).unwrap_or(0);
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }
}

/// Milliseconds since 1970 that a UUIDv7 carries, or `None` when `text` is not one.
#[must_use]
pub fn uuid_v7_millis(text: &str) -> Option<u64> {
    let id = Uuid::try_parse(text).ok()?;
    if id.get_version() != Some(uuid::Version::SortRand) {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(seconds * 1000 + u64::from(nanos) / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_depends_on_each_part_of_its_key_and_keeps_the_clients_time() {
        let (chat, sender) = (ChatId::generate(), UserId::generate());
        let client = Uuid::now_v7().to_string();
        let id = MessageId::derive(chat, sender, &client);
        assert_eq!(id, MessageId::derive(chat, sender, &client));
        assert_ne!(id, MessageId::derive(ChatId::generate(), sender, &client));
        assert_ne!(id, MessageId::derive(chat, UserId::generate(), &client));
        assert_ne!(id, MessageId::derive(chat, sender, "another"));
        assert_eq!(uuid_v7_millis(&id.to_string()), uuid_v7_millis(&client));
        assert_eq!(id.0.get_version(), Some(uuid::Version::SortRand));
    }

    #[test]
    fn only_version_seven_tells_a_time() {
        assert_eq!(uuid_v7_millis("hello"), None);
        assert_eq!(uuid_v7_millis(&Uuid::new_v4().to_string()), None);
        assert!(uuid_v7_millis(&Uuid::now_v7().to_string()).is_some());
    }
}
