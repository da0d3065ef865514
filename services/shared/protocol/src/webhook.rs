//! What other people's servers are told of feeds: which entries, and how these are written.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use time::OffsetDateTime;

use crate::{
    feed::{Entry, Event, Feed},
    ids::{ChatId, DeviceId, Seq, Shard, UserId},
    place::Place,
    timestamp,
    words::words,
};

words! {
    /// A kind of events, as endpoints choose among them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum HookKind {
        /// A message was sent: `message`.
        Message,
        /// A message has another content: `message_edited`.
        Edit,
        /// A message was taken back: `message_deleted`.
        Delete,
        /// Somebody reacts to a message, or does not any more: `reaction`.
        Reaction,
        /// Something about a chat itself, most of it who takes part: `system`.
        Membership,
        /// Messages of a chat are not kept any longer: `messages_expired`.
        Expiry,
        /// A device was added or revoked: `device_added`, `device_revoked`.
        Device,
        /// A message with a file was sent: `message`.
        Media,
    }
}

impl HookKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Reaction => "reaction",
            Self::Membership => "membership",
            Self::Expiry => "expiry",
            Self::Device => "device",
            Self::Media => "media",
        }
    }

    /// The kind that `text` names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::MEANINGS.iter().map(|(kind, _)| *kind).find(|kind| kind.as_str() == text)
    }
}

/// The kinds that an entry is of; none for one that endpoints are not told of.
#[must_use]
pub fn kinds(event: &Event) -> Option<(HookKind, Option<HookKind>)> {
    Some(match event {
        Event::Message(sent) => {
            (HookKind::Message, sent.media.is_some().then_some(HookKind::Media))
        }
        Event::Edited(_) => (HookKind::Edit, None),
        Event::Deleted(_) => (HookKind::Delete, None),
        Event::Reacted(_) => (HookKind::Reaction, None),
        Event::System(_) => (HookKind::Membership, None),
        Event::Expired(_) => (HookKind::Expiry, None),
        Event::DeviceAdded(_) | Event::DeviceRevoked(_) => (HookKind::Device, None),
        // One user's own view of things.
        Event::ChatAdded(_)
        | Event::ChatRemoved(_)
        | Event::ProfileChanged(_)
        | Event::Read(_)
        | Event::Delivered(_)
        | Event::ChatUpdated(_)
        | Event::Blocking(_)
        | Event::Disabled => return None,
    })
}

/// What an endpoint wants to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookFilter {
    /// These kinds; none for all.
    pub kinds: Option<Vec<HookKind>>,
    /// Of these chats; none for all, and for what is of no chat.
    pub chats: Option<Vec<ChatId>>,
}

impl HookFilter {
    /// Whether an entry of a feed is among it.
    #[must_use]
    pub fn wants(&self, feed: Feed, event: &Event) -> bool {
        let Some((kind, also)) = kinds(event) else { return false };
        let chosen = |kind: HookKind| self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind));
        let here = match (&self.chats, feed.chat_id()) {
            (None, _) => true,
            (Some(chats), Some(chat)) => chats.contains(&chat),
            (Some(_), None) => false,
        };
        here && (chosen(kind) || also.is_some_and(chosen))
    }
}

/// The body of a request to an endpoint.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The event, as clients call it.
    pub r#type: String,
    /// When it happened.
    #[serde(with = "timestamp")]
    pub timestamp: OffsetDateTime,
    /// Its place among all events, as `natter webhook replay` takes it.
    pub cursor: HookCursor,
    /// What clients get as `data`.
    pub data: Box<RawValue>,
}

/// A place in a shard's stream of events, written `<shard>-<place>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HookCursor {
    /// Whose stream.
    pub shard: Shard,
    /// There.
    pub seq: Seq,
}

impl std::fmt::Display for HookCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.shard, self.seq)
    }
}

/// Text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `<shard>-<place>`, as events have it in `cursor`")]
pub struct NoHookCursor;

impl std::str::FromStr for HookCursor {
    type Err = NoHookCursor;

    fn from_str(text: &str) -> Result<Self, NoHookCursor> {
        let (shard, seq) = text.split_once('-').ok_or(NoHookCursor)?;
        let shard = shard.parse().map_err(|_| NoHookCursor)?;
        Ok(Self { shard, seq: seq.parse().map_err(|_| NoHookCursor)? })
    }
}

impl Serialize for HookCursor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HookCursor {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Of `device_added` and `device_revoked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HookDevice {
    /// Whose.
    pub user_id: UserId,
    /// Which.
    pub device_id: DeviceId,
}

/// An entry of a feed at its place in its log, as endpoints are told of it at `cursor`; none for one that
/// they are not told of.
///
/// # Errors
/// When it cannot be written, which no entry is known for.
pub fn envelope(
    feed: Feed,
    (seq, at): (Seq, OffsetDateTime),
    cursor: HookCursor,
    entry: &Entry,
) -> serde_json::Result<Option<Envelope>> {
    let (r#type, data) = match (feed.chat_id(), feed.user_id()) {
        (Some(chat), _) => {
            let place = Place { chat, seq, prev: 0, at };
            match &entry.event {
                Event::Message(sent) => ("message", to_raw_value(&place.message(sent))?),
                Event::Edited(edited) => ("message_edited", to_raw_value(&place.edited(edited))?),
                Event::Deleted(deleted) => {
                    ("message_deleted", to_raw_value(&place.deleted(deleted))?)
                }
                Event::Reacted(reacted) => ("reaction", to_raw_value(&place.reaction(reacted))?),
                Event::System(event) => ("system", to_raw_value(&place.system(event))?),
                Event::Expired(expired) => {
                    ("messages_expired", to_raw_value(&place.expired(*expired))?)
                }
                _ => return Ok(None),
            }
        }
        (None, Some(user_id)) => {
            let (r#type, device_id) = match &entry.event {
                Event::DeviceAdded(added) => ("device_added", added.device_id),
                Event::DeviceRevoked(revoked) => ("device_revoked", revoked.device_id),
                _ => return Ok(None),
            };
            (r#type, to_raw_value(&HookDevice { user_id, device_id })?)
        }
        (None, None) => return Ok(None),
    };
    let (r#type, timestamp) = (r#type.to_owned(), timestamp::truncate(at));
    Ok(Some(Envelope { r#type, timestamp, cursor, data }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{DeviceRevoked, Expired};

    fn revoked() -> Event {
        Event::DeviceRevoked(DeviceRevoked { device_id: DeviceId::generate(), session: None })
    }

    #[test]
    fn filters_by_kind_and_by_chat() {
        let (chat, other) = (ChatId::generate(), ChatId::generate());
        let feed = Feed::chat(0, chat);
        let expired = Event::Expired(Expired { up_to: 1 });
        let filter = |kinds: Option<&[HookKind]>, chats: Option<&[ChatId]>| HookFilter {
            kinds: kinds.map(<[_]>::to_vec),
            chats: chats.map(<[_]>::to_vec),
        };
        assert!(filter(None, None).wants(feed, &expired));
        assert!(filter(Some(&[HookKind::Expiry]), Some(&[other, chat])).wants(feed, &expired));
        assert!(!filter(Some(&[HookKind::Message]), None).wants(feed, &expired));
        assert!(!filter(None, Some(&[other])).wants(feed, &expired));
        let own = Feed::user(0, UserId::generate());
        assert!(filter(None, None).wants(own, &revoked()));
        assert!(!filter(None, Some(&[chat])).wants(own, &revoked()), "it is of no chat");
    }

    #[test]
    fn kinds_and_cursors_survive_being_written() {
        for (kind, _) in HookKind::MEANINGS {
            assert_eq!(HookKind::parse(kind.as_str()), Some(*kind));
        }
        let cursor = HookCursor { shard: 3, seq: 41 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in ["", "3", "3-", "-3-4", "a-b"] {
            assert_eq!(bad.parse::<HookCursor>(), Err(NoHookCursor), "{bad}");
        }
    }

    #[test]
    fn an_event_of_a_user_names_the_user() -> serde_json::Result<()> {
        let user = UserId::generate();
        let cursor = HookCursor { shard: 0, seq: 9 };
        let entry = Entry { origin: None, event: revoked() };
        let at = OffsetDateTime::UNIX_EPOCH;
        let told = envelope(Feed::user(0, user), (7, at), cursor, &entry)?.expect("is told");
        let json = serde_json::to_value(&told)?;
        assert_eq!(json["type"], "device_revoked");
        assert_eq!(json["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(
            (&json["cursor"], &json["data"]["userId"]),
            (&"0-9".into(), &user.to_string().into())
        );
        Ok(())
    }
}
