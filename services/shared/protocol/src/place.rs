//! Entries of a chat's feed as those see them who are told of them: clients live, other people's servers.

use time::OffsetDateTime;

use crate::{
    feed::{Deleted, Edited, Expired, MessageSent, Reacted, SystemEvent},
    ids::{ChatId, Seq},
    server::{
        ContentType, Message, MessageDeleted, MessageEdited, MessagesExpired, Reaction, System,
    },
    timestamp,
};

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// On the feed of this chat.
    pub chat: ChatId,
    /// There.
    pub seq: Seq,
    /// The entry before it on the feed; 0 when it is not known.
    pub prev: Seq,
    /// When the broker stored it.
    pub at: OffsetDateTime,
}

impl Place {
    /// A message.
    #[must_use]
    pub fn message(self, sent: &MessageSent) -> Message {
        Message {
            id: sent.id,
            chat_id: self.chat,
            seq: self.seq,
            prev_seq: self.prev,
            sender_id: sent.sender.id,
            sender: sent.sender.clone(),
            device_id: sent.device_id,
            content_type: ContentType::Text,
            content: sent.content.clone(),
            media: None,
            media_url: None,
            media_type: None,
            reply_to: sent.reply_to,
            client_msg_id: sent.client_msg_id.clone(),
            created_at: timestamp::truncate(self.at),
            system: None,
            quote: sent.quote.clone(),
            mentions: sent.mentions.clone(),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        }
        .with_media(sent.media.clone())
    }

    /// A message has another content.
    #[must_use]
    pub fn edited(self, edited: &Edited) -> MessageEdited {
        MessageEdited {
            chat_id: self.chat,
            seq: self.seq,
            prev_seq: self.prev,
            message_id: edited.target.message_id,
            message_seq: edited.target.message_seq,
            actor_id: edited.actor_id,
            content: edited.content.clone(),
            mentions: edited.mentions.clone(),
            edited_at: timestamp::truncate(self.at),
        }
    }

    /// A message is taken back.
    #[must_use]
    pub fn deleted(self, deleted: &Deleted) -> MessageDeleted {
        MessageDeleted {
            chat_id: self.chat,
            seq: self.seq,
            prev_seq: self.prev,
            message_id: deleted.target.message_id,
            message_seq: deleted.target.message_seq,
            actor_id: deleted.actor_id,
            deleted_at: timestamp::truncate(self.at),
        }
    }

    /// Somebody reacts to a message, or does not any more.
    #[must_use]
    pub fn reaction(self, reacted: &Reacted) -> Reaction {
        Reaction {
            chat_id: self.chat,
            seq: self.seq,
            prev_seq: self.prev,
            message_id: reacted.target.message_id,
            message_seq: reacted.target.message_seq,
            user_id: reacted.user_id,
            emoji: reacted.emoji.clone(),
            on: reacted.on,
            created_at: timestamp::truncate(self.at),
        }
    }

    /// What lies at or below a place is not there any more.
    #[must_use]
    pub fn expired(self, expired: Expired) -> MessagesExpired {
        MessagesExpired {
            chat_id: self.chat,
            seq: self.seq,
            prev_seq: self.prev,
            up_to: expired.at(self.seq),
            created_at: timestamp::truncate(self.at),
        }
    }

    /// Something about the chat itself.
    #[must_use]
    pub fn system(self, event: &SystemEvent) -> System {
        let place = (self.chat, self.seq, self.prev);
        System::at(place, timestamp::truncate(self.at), event.msg.clone(), event.into())
    }
}
