//! From an entry of a feed to the bytes that connections are sent: serialised once, shared by
//! all of them.

use axum::extract::ws::Utf8Bytes;
use natter_bus::follow::Arrival;
use natter_protocol::{
    feed::{Entry, Event, MessageSent, SystemEvent},
    ids::{ChatId, ConnectionId, UserId},
    server::{
        ContentType, Message, Reply, Sent, ServerEvent, System, SystemDetail, UserCard,
        system_entry_id,
    },
    timestamp,
};
use serde::Serialize;

use crate::registry::User;

/// What an entry of a chat's feed becomes for its participants' connections.
#[derive(Debug)]
pub struct Delivery {
    frame: Utf8Bytes,
    /// For a message: who sent it.
    sender: Option<UserId>,
    /// The connection that sent it, which has the reply, at this place, instead of the event.
    origin: Option<(ConnectionId, Option<(u64, Utf8Bytes)>)>,
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
            metrics::counter!("natter_unreadable_entries_total").increment(1);
            // No text of the error: it may quote the entry.
            tracing::warn!(seq = arrival.seq, line = error.line(), "an entry that cannot be read");
            None
        }
    }
}

impl Delivery {
    /// What `entry`, which arrived as `arrival` on the feed of `chat`, becomes; `None` for what
    /// clients do not see.
    #[must_use]
    pub fn new(chat: ChatId, entry: &Entry, arrival: &Arrival) -> Option<Self> {
        match &entry.event {
            Event::Message(sent) => {
                let message = message(chat, sent, arrival);
                let origin = entry.origin.as_ref().map(|origin| {
                    let reply = origin.request.map(|request| {
                        (request, frame(&Reply { reply: request, data: &reply(&message) }))
                    });
                    (origin.connection, reply)
                });
                let frame = frame(&ServerEvent::Message(&message));
                Some(Self { frame, sender: Some(sent.sender.id), origin })
            }
            Event::System(event) => {
                let frame = frame(&ServerEvent::System(&system(chat, event, arrival)));
                Some(Self { frame, sender: None, origin: None })
            }
            Event::ChatAdded(_)
            | Event::ChatRemoved(_)
            | Event::DeviceRevoked(_)
            | Event::ProfileChanged(_) => None,
        }
    }

    /// Queues it for all of the user's connections.
    pub fn send(&self, user: &User, own_devices: bool) {
        let own = self.sender == Some(user.id);
        for connection in &user.connections {
            if connection.outlet.closed() {
                continue;
            }
            if own {
                let origin = self.origin.as_ref().filter(|(id, _)| *id == connection.id);
                if let Some((_, Some((request, reply)))) = origin {
                    connection.outlet.reply(*request, reply.clone());
                }
                if (origin.is_some() || !own_devices) && !connection.echo {
                    continue;
                }
            }
            connection.outlet.send(self.frame.clone());
        }
    }
}

/// A message as clients see it.
#[must_use]
pub fn message(chat: ChatId, sent: &MessageSent, arrival: &Arrival) -> Message {
    Message {
        id: sent.id,
        chat_id: chat,
        seq: arrival.seq,
        prev_seq: arrival.prev,
        sender_id: sent.sender.id,
        sender: sent.sender.clone(),
        device_id: sent.device_id,
        content_type: ContentType::Text,
        content: sent.content.clone(),
        reply_to: sent.reply_to,
        client_msg_id: sent.client_msg_id.clone(),
        created_at: timestamp::truncate(arrival.at),
        system: None,
    }
}

fn system(chat: ChatId, event: &SystemEvent, arrival: &Arrival) -> System {
    System {
        msg: event.msg.clone(),
        chat_id: chat,
        seq: arrival.seq,
        prev_seq: arrival.prev,
        kind: event.kind,
        actor_id: event.actor_id,
        user_id: event.user_id,
        created_at: timestamp::truncate(arrival.at),
    }
}

fn reply(message: &Message) -> Sent {
    Sent {
        id: message.id,
        chat_id: message.chat_id,
        seq: message.seq,
        prev_seq: message.prev_seq,
        created_at: message.created_at,
        client_msg_id: message.client_msg_id.clone(),
        duplicate: false,
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
            sender: UserCard { id: event.actor_id, name: String::new() },
            device_id: None,
            content_type: ContentType::System,
            content: event.msg.clone(),
            reply_to: None,
            client_msg_id: String::new(),
            created_at: timestamp::truncate(arrival.at),
            system: Some(SystemDetail {
                kind: event.kind,
                actor_id: event.actor_id,
                user_id: event.user_id,
            }),
        }),
        Event::ChatAdded(_)
        | Event::ChatRemoved(_)
        | Event::DeviceRevoked(_)
        | Event::ProfileChanged(_) => None,
    }
}
