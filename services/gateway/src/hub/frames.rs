//! From an entry of a feed to the bytes that connections are sent: serialised once, shared by
//! all of them.

use std::sync::{Arc, OnceLock};

use axum::extract::ws::Utf8Bytes;
use natter_bus::follow::Arrival;
use natter_protocol::{
    cursor::Bases,
    feed::{self, Entry, Event, Feed, MessageSent},
    ids::{ChatId, ConnectionId, Seq, UserId},
    place::Place,
    server::{
        ContentType, Message, Sent, ServerEvent, System, SystemDetail, UserCard, system_entry_id,
    },
    timestamp,
};
use natter_store::FeedEntry;
use serde::Serialize;
use time::OffsetDateTime;

use super::wakes::Wakes;
use crate::{
    codec::{Codec, Spelled},
    measures,
    outlet::Outgoing,
    registry::{Connection, User},
};

/// What an entry of a feed becomes for connections: serialised once, all but the end of its
/// cursor, which is each connection's own.
#[derive(Debug)]
pub struct Delivery {
    /// Its feed.
    pub feed: Feed,
    /// Its place there.
    pub seq: Seq,
    /// What connections that have been sent it have been sent before.
    pub bases: Arc<Bases>,
    /// What the connection must have of a chat's feed besides.
    pub part: Part,
    /// When the broker stored it; none for what is read from Postgres or is the user's own.
    pub at: Option<OffsetDateTime>,
    event: Spelled,
    /// For a message: who sent it.
    sender: Option<UserId>,
    /// The connection that sent it, which has the reply, at this place, instead of the event.
    origin: Option<Box<Origin>>,
}

/// The connection that sent a message.
#[derive(Debug)]
struct Origin {
    connection: ConnectionId,
    /// The number of its request, when it wants a reply.
    request: Option<u64>,
    /// What it is replied.
    data: Box<str>,
}

/// What of a chat's feed comes with an entry of a user's own feed: the two are independent, and
/// this node may have heard of one long before the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nothing.
    None,
    /// The user takes part in the chat from here on: what lies after this entry of its feed has
    /// to be replayed, after the event.
    Begins(Feed, Seq),
    /// The user's part ended with this entry: what is missing up to there has to be replayed,
    /// before the event.
    Ends(Feed, Seq),
}

/// What is on no feed: serialised once, spelled once for each transport, and shared by all whom it
/// goes to.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Spellings>);

#[derive(Debug)]
struct Spellings {
    event: Spelled,
    frame: OnceLock<Utf8Bytes>,
    packet: OnceLock<Utf8Bytes>,
}

impl Shared {
    /// An event.
    #[must_use]
    pub fn new(event: &ServerEvent<'_>) -> Self {
        let packet = match event {
            // To Socket.IO's clients it has another form.
            ServerEvent::Exception(_) => Codec::SocketIo.event(event).into(),
            _ => OnceLock::new(),
        };
        Self(Arc::new(Spellings { event: Spelled::new(event), frame: OnceLock::new(), packet }))
    }

    /// Its length, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.event.bytes()
    }

    /// As the transport spells it.
    #[must_use]
    pub fn spelled(&self, codec: Codec) -> Utf8Bytes {
        let Spellings { event, frame, packet } = &*self.0;
        match codec {
            Codec::Native => frame.get_or_init(|| event.frame(None).into()).clone(),
            Codec::SocketIo => packet.get_or_init(|| event.packet(None).into()).clone(),
        }
    }
}

/// Serialises a frame. The types are ours and their maps have string keys, so it cannot fail;
/// were it to, an empty object is sent rather than the node lost.
#[must_use]
pub fn frame<T: Serialize>(value: &T) -> Utf8Bytes {
    match serde_json::to_string(value) {
        Ok(text) => text.into(),
        Err(error) => {
            tracing::error!(%error, "a frame that cannot be serialised");
            Utf8Bytes::from_static("{}")
        }
    }
}

/// The entry, when it is one that this version knows.
#[must_use]
pub fn parse(arrival: &Arrival) -> Option<Entry> {
    match serde_json::from_slice(&arrival.body) {
        Ok(entry) => Some(entry),
        Err(error) => {
            measures::unreadable_entries().increment(1);
            // No text of the error: it may quote the entry.
            tracing::warn!(seq = arrival.seq, line = error.line(), "an entry that cannot be read");
            None
        }
    }
}

impl Delivery {
    /// Its length as an event, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.event.bytes()
    }

    /// What `entry`, which arrived as `arrival` on the feed of `chat`, becomes; `None` for what
    /// clients do not see.
    #[must_use]
    pub fn new(feed: Feed, entry: &Entry, arrival: &Arrival, bases: &Arc<Bases>) -> Option<Self> {
        let chat = feed.chat_id()?;
        let (seq, bases) = (arrival.seq, Arc::clone(bases));
        let (event, sender, origin) = match &entry.event {
            Event::Message(sent) => {
                let message = message(chat, sent, arrival);
                let origin = entry.origin.as_ref().map(|origin| {
                    let data = frame(&reply(&message, sent.replaced)).as_str().into();
                    let feed::Origin { connection, request } = *origin;
                    Box::new(Origin { connection, request, data })
                });
                (Spelled::new(&ServerEvent::Message(&message)), Some(sent.sender.id), origin)
            }
            Event::System(event) => {
                let event = place(chat, arrival).system(event);
                (Spelled::new(&ServerEvent::System(&event)), None, None)
            }
            // To everybody, those who asked included: their reply does not stand at this place.
            Event::Edited(edited) => {
                let event = place(chat, arrival).edited(edited);
                (Spelled::new(&ServerEvent::MessageEdited(&event)), None, None)
            }
            Event::Deleted(deleted) => {
                let event = place(chat, arrival).deleted(deleted);
                (Spelled::new(&ServerEvent::MessageDeleted(&event)), None, None)
            }
            Event::Reacted(reacted) => {
                let event = place(chat, arrival).reaction(reacted);
                (Spelled::new(&ServerEvent::Reaction(&event)), None, None)
            }
            Event::Expired(expired) => {
                let event = place(chat, arrival).expired(*expired);
                (Spelled::new(&ServerEvent::MessagesExpired(&event)), None, None)
            }
            Event::ChatAdded(_)
            | Event::ChatRemoved(_)
            | Event::DeviceRevoked(_)
            | Event::DeviceAdded(_)
            | Event::ProfileChanged(_)
            | Event::Read(_)
            | Event::Delivered(_)
            | Event::ChatUpdated(_)
            | Event::Blocking(_)
            | Event::Disabled => return None,
        };
        let at = Some(arrival.at);
        Some(Self { feed, seq, bases, part: Part::None, at, event, sender, origin })
    }

    /// Of a message as history shows it.
    #[must_use]
    pub fn of_message(feed: Feed, message: &Message, bases: &Arc<Bases>) -> Self {
        let (event, sender) = match &message.system {
            None => (Spelled::new(&ServerEvent::Message(message)), Some(message.sender_id)),
            Some(detail) => {
                let place = (message.chat_id, message.seq, message.prev_seq);
                let msg = message.content.clone();
                let event = System::at(place, message.created_at, msg, detail.clone());
                (Spelled::new(&ServerEvent::System(&event)), None)
            }
        };
        let bases = Arc::clone(bases);
        Self {
            feed,
            seq: message.seq,
            bases,
            part: Part::None,
            at: None,
            event,
            sender,
            origin: None,
        }
    }

    /// Of an entry of a chat's feed as Postgres holds it.
    #[must_use]
    pub fn of_entry(feed: Feed, entry: &FeedEntry, bases: &Arc<Bases>) -> Self {
        let (seq, event) = match entry {
            FeedEntry::Message(message) => return Self::of_message(feed, message, bases),
            FeedEntry::Edited(event) => (event.seq, ServerEvent::MessageEdited(event)),
            FeedEntry::Deleted(event) => (event.seq, ServerEvent::MessageDeleted(event)),
            FeedEntry::Reaction(event) => (event.seq, ServerEvent::Reaction(event)),
            FeedEntry::Expired(event) => (event.seq, ServerEvent::MessagesExpired(event)),
        };
        Self::own(feed, seq, &event, bases)
    }

    /// Of an entry of a user's own feed, as `event` tells it.
    #[must_use]
    pub fn own(feed: Feed, seq: Seq, event: &ServerEvent<'_>, bases: &Arc<Bases>) -> Self {
        let (event, bases) = (Spelled::new(event), Arc::clone(bases));
        Self { feed, seq, bases, part: Part::None, at: None, event, sender: None, origin: None }
    }

    /// The same for an entry that a request of one of the user's connections made: that one has its
    /// reply, and gets the event only if it asked for its own.
    #[must_use]
    pub fn asked_by(self, user: UserId, origin: Option<&feed::Origin>) -> Self {
        let origin = origin.map(|origin| {
            Box::new(Origin { connection: origin.connection, request: None, data: Box::default() })
        });
        Self { sender: Some(user), origin, ..self }
    }

    /// The same, with a part of a chat's feed.
    #[must_use]
    pub fn with(self, part: Part) -> Self {
        Self { part, ..self }
    }

    /// What it is for a connection of `user`: the event, the reply, or nothing.
    #[must_use]
    pub fn outgoing(
        self: &Arc<Self>,
        user: UserId,
        connection: ConnectionId,
        echo: bool,
        own_devices: bool,
    ) -> Option<Outgoing> {
        if self.sender != Some(user) {
            return Some(Outgoing::Event(Arc::clone(self)));
        }
        if let Some(origin) = self.origin.as_ref().filter(|own| own.connection == connection) {
            return Some(Outgoing::Own(origin.request, Arc::clone(self), echo));
        }
        (echo || own_devices).then(|| Outgoing::Event(Arc::clone(self)))
    }

    /// Queues it for all of the user's connections; answers how many.
    pub fn send(self: &Arc<Self>, user: &User, own_devices: bool, wakes: &mut Wakes) -> u64 {
        let mut queued = 0;
        for connection in &user.connections {
            if !connection.outlet.closed() {
                let Connection { id, echo, outlet, .. } = connection;
                if let Some(outgoing) = self.outgoing(user.id, *id, *echo, own_devices) {
                    if outlet.queue_quietly(outgoing) {
                        wakes.add(outlet);
                    }
                    queued += 1;
                }
            }
        }
        queued
    }

    /// The whole event, for a connection whose cursor ends so.
    #[must_use]
    pub fn event(&self, codec: Codec, suffix: &str) -> Utf8Bytes {
        let cursor = [self.bases.text(), ".", suffix];
        match codec {
            Codec::Native => self.event.frame(Some(&cursor)).into(),
            Codec::SocketIo => self.event.packet(Some(&cursor)).into(),
        }
    }

    /// The whole reply, likewise.
    #[must_use]
    pub fn reply(&self, codec: Codec, suffix: &str) -> Option<Utf8Bytes> {
        let origin = self.origin.as_ref()?;
        Some(codec.reply_at(origin.request?, &origin.data, &[self.bases.text(), ".", suffix]))
    }

    /// What moves on the place from which the client would resume, where no event does.
    #[must_use]
    pub fn place(&self, codec: Codec, suffix: &str) -> Option<Utf8Bytes> {
        codec.place(&[self.bases.text(), ".", suffix])
    }
}

/// A message as clients see it.
#[must_use]
pub fn message(chat: ChatId, sent: &MessageSent, arrival: &Arrival) -> Message {
    place(chat, arrival).message(sent)
}

fn place(chat: ChatId, arrival: &Arrival) -> Place {
    Place { chat, seq: arrival.seq, prev: arrival.prev, at: arrival.at }
}

fn reply(message: &Message, replaced: bool) -> Sent {
    Sent {
        id: message.id,
        chat_id: message.chat_id,
        seq: message.seq,
        prev_seq: message.prev_seq,
        created_at: message.created_at,
        client_msg_id: message.client_msg_id.clone(),
        duplicate: false,
        content: replaced.then(|| message.content.clone()),
    }
}

/// An entry as history shows it; `None` for what clients do not see.
#[must_use]
pub fn history_message(chat: ChatId, entry: &Entry, arrival: &Arrival) -> Option<Message> {
    match &entry.event {
        Event::Message(sent) => Some(message(chat, sent, arrival)),
        Event::System(event) => Some(Message {
            id: system_entry_id(chat, arrival.seq),
            chat_id: chat,
            seq: arrival.seq,
            prev_seq: arrival.prev,
            sender_id: event.actor_id,
            sender: UserCard { id: event.actor_id, name: String::new(), bot: false },
            device_id: None,
            content_type: ContentType::System,
            content: event.msg.clone(),
            media: None,
            media_url: None,
            media_type: None,
            reply_to: None,
            client_msg_id: String::new(),
            created_at: timestamp::truncate(arrival.at),
            system: Some(SystemDetail::from(event)),
            quote: None,
            mentions: Vec::new(),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        }),
        Event::Edited(_)
        | Event::Deleted(_)
        | Event::Reacted(_)
        | Event::Expired(_)
        | Event::ChatAdded(_)
        | Event::ChatRemoved(_)
        | Event::DeviceRevoked(_)
        | Event::DeviceAdded(_)
        | Event::ProfileChanged(_)
        | Event::Read(_)
        | Event::Delivered(_)
        | Event::ChatUpdated(_)
        | Event::Blocking(_)
        | Event::Disabled => None,
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::error::{ErrorCode, WireError};

    use super::*;

    #[test]
    fn all_receivers_of_one_transport_share_the_same_bytes() {
        let shared = Shared::new(&ServerEvent::Reconnect { after_ms: 7 });
        for codec in [Codec::Native, Codec::SocketIo] {
            let first = shared.spelled(codec);
            let again = shared.clone().spelled(codec);
            assert_eq!(first.as_str().as_ptr(), again.as_str().as_ptr(), "{first}");
        }
    }

    #[test]
    fn an_exception_looks_the_same_however_it_comes() {
        let error = WireError::new(ErrorCode::AccountDisabled, "disabled");
        let event = ServerEvent::Exception(&error);
        for codec in [Codec::Native, Codec::SocketIo] {
            assert_eq!(Shared::new(&event).spelled(codec), codec.event(&event));
        }
    }
}
