//! What is known of a file, and which message has it.

use std::fmt::Write;

use natter_protocol::{
    ids::{ChatId, MessageId, UserId},
    media::{Media, MediaKind},
};
use uuid::Uuid;

use crate::{Result, Store};

/// A file of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFile {
    /// What it is.
    pub media: Media,
    /// Its thumbnail has been made.
    pub thumbnail: bool,
}

#[derive(sqlx::FromRow)]
pub(super) struct MediaRow {
    id: Uuid,
    name: String,
    media_type: String,
    pub(super) size: Option<i64>,
    sha256: Option<Vec<u8>>,
    width: Option<i32>,
    height: Option<i32>,
    thumbnail: Option<String>,
}

/// What is read of a file.
macro_rules! columns {
    () => {
        "id, name, media_type, size, sha256, width, height, thumbnail"
    };
}
pub(super) use columns;

/// Whether the message `$1` of the chat `$2` has expired.
macro_rules! expired {
    () => {
        "EXISTS (
             SELECT FROM messages e JOIN chats c ON c.id = e.chat_id
             WHERE e.chat_id = $2 AND e.id = $1 AND e.seq <= c.expired_seq
         )"
    };
}

/// What a type is, roughly.
fn kind(media_type: &str) -> MediaKind {
    match media_type.split_once('/') {
        // It may carry script, and is not shown.
        Some(("image", "svg+xml")) => MediaKind::Document,
        Some(("image", _)) => MediaKind::Image,
        Some(("video", _)) => MediaKind::Video,
        Some(("audio", _)) => MediaKind::Audio,
        _ => MediaKind::Document,
    }
}

impl From<MediaRow> for MediaFile {
    fn from(row: MediaRow) -> Self {
        let pixels = |number: Option<i32>| number.and_then(|number| u32::try_from(number).ok());
        let hash = row.sha256.map(hexadecimal);
        let media = Media {
            id: row.id.into(),
            kind: kind(&row.media_type),
            name: row.name,
            media_type: row.media_type,
            size: row.size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
            sha256: hash,
            width: pixels(row.width),
            height: pixels(row.height),
            thumbnail: row.thumbnail.is_some(),
        };
        Self { media, thumbnail: row.thumbnail.as_deref() == Some("made") }
    }
}

fn hexadecimal(bytes: Vec<u8>) -> String {
    bytes.into_iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(super) fn sql_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// The file of a message.
impl Store {
    /// The file of a message, unless it is gone.
    pub async fn media_of(&self, chat: ChatId, message: MessageId) -> Result<Option<MediaFile>> {
        let row: Option<MediaRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT ",
                    columns!(),
                    " FROM media WHERE message_id = $1 AND chat_id = $2 AND state = 'ready' AND NOT ",
                    expired!()
                ))
                .bind(message.0)
                .bind(chat.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// Who sent the file of a message, also when it is gone, but not when the message has expired.
    pub async fn media_sender(&self, chat: ChatId, message: MessageId) -> Result<Option<UserId>> {
        // The message is looked for along its chat, which is long only where its file is gone.
        let sender: Option<Option<Uuid>> = self
            .call(async |db| {
                sqlx::query_scalar(concat!(
                    "SELECT COALESCE(
                         (SELECT f.uploader_id FROM media f
                          WHERE f.message_id = $1 AND f.chat_id = $2 AND (
                              f.state <> 'gone' OR EXISTS (
                                  SELECT FROM messages WHERE chat_id = $2 AND id = $1))),
                         (SELECT m.sender_id FROM messages m
                          WHERE m.chat_id = $2 AND m.id = $1 AND EXISTS (
                              SELECT FROM media_downloads WHERE message_id = $1) LIMIT 1))
                     WHERE NOT ",
                    expired!()
                ))
                .bind(message.0)
                .bind(chat.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(sender.flatten().map(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_may_carry_script_is_a_document() {
        assert_eq!(kind("image/png"), MediaKind::Image);
        assert_eq!(kind("image/svg+xml"), MediaKind::Document);
        assert_eq!(kind("video/mp4"), MediaKind::Video);
        assert_eq!(kind("audio/ogg"), MediaKind::Audio);
        assert_eq!(kind("application/pdf"), MediaKind::Document);
        assert_eq!(kind("nonsense"), MediaKind::Document);
    }
}
