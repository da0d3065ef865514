//! What is to be shown on a device.

use aws_lc_rs::digest::{SHA256, digest};
use natter_protocol::ids::{ChatId, DeviceId, MessageId, UserId};
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A message.
    Message,
    /// Nothing: somebody asked whether notices arrive.
    Test,
}

/// What is to be shown on a device. `Debug` shows nothing that was said.
#[derive(Clone)]
pub struct Notice {
    /// The message; one made up for a test. With the device it names what is sent, so that it is shown
    /// once, however often it is sent.
    pub message_id: MessageId,
    /// Its chat: of one chat only the newest notice is shown. None for a test.
    pub chat_id: Option<ChatId>,
    /// The device.
    pub device_id: DeviceId,
    /// What it is about.
    pub kind: Kind,
    /// The first line.
    pub title: String,
    /// What was said, as far as the user wants it shown.
    pub body: Option<String>,
    /// Who said it, as far as the user wants it shown.
    pub sender: Option<UserId>,
    /// Unread messages of the chat.
    pub unread: u64,
    /// When the message was sent.
    pub sent_at: OffsetDateTime,
    /// From then on it is not shown any more.
    pub expires_at: OffsetDateTime,
}

impl Notice {
    /// Names what is sent: the same for the same message and device.
    #[must_use]
    pub fn id(&self) -> Uuid {
        let both = [*self.message_id.0.as_bytes(), *self.device_id.0.as_bytes()].concat();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest(&SHA256, &both).as_ref()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// What it is about, of which only the newest is shown: the chat.
    #[must_use]
    pub fn about(&self) -> Uuid {
        self.chat_id.map_or(self.message_id.0, |chat| chat.0)
    }
}

impl std::fmt::Debug for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Notice")
            .field("message_id", &self.message_id)
            .field("chat_id", &self.chat_id)
            .field("device_id", &self.device_id)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}
