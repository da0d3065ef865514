//! The file that a message is going to be sent with.

use natter_protocol::{
    ids::{ChatId, MediaId, MessageId, UserId},
    media::Media,
};
use uuid::Uuid;

use super::files::{MediaFile, MediaRow, columns};
use crate::{Result, Store, StoreError};

/// A file that a message may be sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is promised to the message.
    Claimed(Box<Media>),
    /// There is none that this user could send to this chat.
    None,
    /// Another message has it.
    Taken,
}

/// Files promised to messages.
impl Store {
    /// Promises a file to a message that is going to be published, so that no other has it and no
    /// sweep takes it. Again for the same message is the same, whatever file that brings.
    pub async fn claim_media(
        &self,
        media: MediaId,
        chat: ChatId,
        sender: UserId,
        message: MessageId,
    ) -> Result<Claim> {
        // Two retries at once may both find nothing, and one then clashes with the other.
        for _ in 0..2 {
            let claim = self.try_claim(media, chat, sender, message).await?;
            if let Some(claim) = claim {
                return Ok(claim);
            }
        }
        Ok(Claim::Taken)
    }

    async fn try_claim(
        &self,
        media: MediaId,
        chat: ChatId,
        sender: UserId,
        message: MessageId,
    ) -> Result<Option<Claim>> {
        self.call(async |db| {
            // A retry finds what the message has, also when it brings another copy of the file. It
            // is published again, so the promise is of now.
            let first: Option<MediaRow> = sqlx::query_as(concat!(
                "UPDATE media SET touched_at = now()
                 WHERE message_id = $1 AND chat_id = $2 AND uploader_id = $3 AND state = 'ready'
                 RETURNING ",
                columns!()
            ))
            .bind(message.0)
            .bind(chat.0)
            .bind(sender.0)
            .fetch_optional(&mut *db)
            .await?;
            if let Some(first) = first {
                return Ok(Some(Claim::Claimed(Box::new(MediaFile::from(first).media))));
            }
            // The row's lock makes this and a sweep come one after the other.
            let claimed = sqlx::query_as(concat!(
                "UPDATE media SET message_id = $4, touched_at = now()
                 WHERE id = $1 AND chat_id = $2 AND uploader_id = $3 AND state = 'ready'
                   AND message_id IS NULL
                 RETURNING ",
                columns!()
            ))
            .bind(media.0)
            .bind(chat.0)
            .bind(sender.0)
            .bind(message.0)
            .fetch_optional(&mut *db)
            .await;
            let row: Option<MediaRow> = match claimed {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                    return Ok(None);
                }
                claimed => claimed?,
            };
            if let Some(row) = row {
                let media = MediaFile::from(row).media;
                return Ok::<_, StoreError>(Some(Claim::Claimed(Box::new(media))));
            }
            let there: Option<Uuid> = sqlx::query_scalar(
                "SELECT id FROM media
                 WHERE id = $1 AND chat_id = $2 AND uploader_id = $3 AND state = 'ready'",
            )
            .bind(media.0)
            .bind(chat.0)
            .bind(sender.0)
            .fetch_optional(&mut *db)
            .await?;
            Ok(Some(there.map_or(Claim::None, |_| Claim::Taken)))
        })
        .await
    }
}
