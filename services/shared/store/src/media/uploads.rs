//! Files on their way into the store.

use std::time::Duration;

use natter_protocol::{
    ids::{ChatId, MediaId, MessageId, UserId},
    media::Media,
};
use sqlx::PgConnection;

use super::files::{MediaFile, MediaRow, columns, sql_size};
use crate::{Result, Store, StoreError};

/// A file that is going to be uploaded.
#[derive(Clone, Debug)]
pub struct NewMedia<'a> {
    /// The file.
    pub id: MediaId,
    /// The chat.
    pub chat: ChatId,
    /// Who uploads it.
    pub uploader: UserId,
    /// What it is called, made safe.
    pub name: &'a str,
    /// The media type, by its content.
    pub media_type: &'a str,
    /// For so long it may be put into the store past the gateways.
    pub open: Option<Duration>,
}

/// What is known of a file once it is whole.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    /// Bytes.
    pub size: u64,
    /// Its hash, unless it went to the store directly.
    pub sha256: Option<[u8; 32]>,
    /// Width and height, in pixels.
    pub seen: Option<(u32, u32)>,
    /// A thumbnail is to be made.
    pub thumbnail: bool,
}

/// What has become of an upload past the gateways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is to be looked at; its name.
    Upload(String),
    /// Somebody else is about it.
    ByAnother,
    /// It has been made a file before.
    Whole(Box<Media>),
    /// There is none of this user's.
    None,
}

/// A file that was put into the store together with its message, which was sent long ago.
pub(crate) async fn kept_as_sent(
    tx: &mut PgConnection,
    id: MediaId,
    (chat, message, sender): (ChatId, MessageId, UserId),
    (name, media_type): (&str, &str),
    measures: &Measures,
) -> Result<Media> {
    let pixels = |number: u32| i32::try_from(number).ok();
    let row: MediaRow = sqlx::query_as(concat!(
        "INSERT INTO media (id, chat_id, uploader_id, name, media_type, size, sha256, width, height,
                            thumbnail, state, message_id, sent)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 'ready', $11, true) RETURNING ",
        columns!()
    ))
    .bind(id.0)
    .bind(chat.0)
    .bind(sender.0)
    .bind(name)
    .bind(media_type)
    .bind(sql_size(measures.size))
    .bind(measures.sha256.map(|hash| hash.to_vec()))
    .bind(measures.seen.and_then(|(width, _)| pixels(width)))
    .bind(measures.seen.and_then(|(_, height)| pixels(height)))
    .bind(measures.thumbnail.then_some("wanted"))
    .bind(message.0)
    .fetch_one(tx)
    .await?;
    Ok(MediaFile::from(row).media)
}

/// Uploads.
impl Store {
    /// Notes a file before its first byte is stored.
    ///
    /// # Errors
    /// `NotFound` when there is no such chat.
    pub async fn begin_media(&self, new: &NewMedia<'_>) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                // It goes on for as long as it may be put there.
                "INSERT INTO media
                     (id, chat_id, uploader_id, name, media_type, open_until, touched_at)
                 VALUES ($1, $2, $3, $4, $5, now() + $6, now() + COALESCE($6, interval '0'))",
            )
            .bind(new.id.0)
            .bind(new.chat.0)
            .bind(new.uploader.0)
            .bind(new.name)
            .bind(new.media_type)
            .bind(new.open)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// Says that an upload goes on, and what the store calls it. Answers whether it may: it was
    /// given up otherwise.
    pub async fn media_goes_on(&self, id: MediaId, unfinished: Option<&str>) -> Result<bool> {
        let moved = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE media SET touched_at = now(), unfinished = COALESCE($2, unfinished)
                     WHERE id = $1 AND state = 'uploading'",
                )
                .bind(id.0)
                .bind(unfinished)
                .execute(db)
                .await
            })
            .await?;
        Ok(moved.rows_affected() == 1)
    }

    /// The type of what went to the store directly is known only once it is there.
    pub async fn media_turned_out(&self, id: MediaId, media_type: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query("UPDATE media SET media_type = $2 WHERE id = $1 AND state = 'uploading'")
                .bind(id.0)
                .bind(media_type)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// Takes what this user has put into the store for this chat past the gateways, for `longest`:
    /// meanwhile nobody else makes a file of it.
    pub async fn take_upload(
        &self,
        id: MediaId,
        chat: ChatId,
        uploader: UserId,
        longest: Duration,
    ) -> Result<Taken> {
        self.call(async |db| {
            let name: Option<String> = sqlx::query_scalar(
                "UPDATE media SET taken_until = now() + $4, touched_at = now()
                 WHERE id = $1 AND chat_id = $2 AND uploader_id = $3 AND state = 'uploading'
                   AND open_until IS NOT NULL
                   AND (taken_until IS NULL OR taken_until < now())
                 RETURNING name",
            )
            .bind(id.0)
            .bind(chat.0)
            .bind(uploader.0)
            .bind(longest)
            .fetch_optional(&mut *db)
            .await?;
            if let Some(name) = name {
                return Ok(Taken::Upload(name));
            }
            let row: Option<MediaRow> = sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM media WHERE id = $1 AND chat_id = $2 AND uploader_id = $3
                   AND open_until IS NOT NULL AND state <> 'gone'"
            ))
            .bind(id.0)
            .bind(chat.0)
            .bind(uploader.0)
            .fetch_optional(&mut *db)
            .await?;
            Ok::<_, StoreError>(match row {
                None => Taken::None,
                // Its size is known once it is whole.
                Some(row) if row.size.is_none() => Taken::ByAnother,
                Some(row) => Taken::Whole(Box::new(MediaFile::from(row).media)),
            })
        })
        .await
    }

    /// It is not taken any more.
    pub async fn leave_upload(&self, id: MediaId) -> Result<()> {
        self.call(async |db| {
            sqlx::query("UPDATE media SET taken_until = NULL WHERE id = $1 AND state = 'uploading'")
                .bind(id.0)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// The file is whole and may be sent; none when its upload was given up.
    pub async fn finish_media(&self, id: MediaId, measures: &Measures) -> Result<Option<Media>> {
        let pixels = |number: u32| i32::try_from(number).ok();
        let row: Option<MediaRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "UPDATE media SET state = 'ready', size = $2, sha256 = $3, width = $4,
                            height = $5, thumbnail = $6, unfinished = NULL, touched_at = now()
                     WHERE id = $1 AND state = 'uploading' RETURNING ",
                    columns!()
                ))
                .bind(id.0)
                .bind(sql_size(measures.size))
                .bind(measures.sha256.map(|hash| hash.to_vec()))
                .bind(measures.seen.and_then(|(width, _)| pixels(width)))
                .bind(measures.seen.and_then(|(_, height)| pixels(height)))
                .bind(measures.thumbnail.then_some("wanted"))
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|row| MediaFile::from(row).media))
    }

    /// The file is not wanted after all, or its upload has broken off: it is to be removed.
    pub async fn give_up_media(&self, id: MediaId) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE media SET state = 'gone', tries = 0, touched_at = now()
                 WHERE id = $1 AND message_id IS NULL",
            )
            .bind(id.0)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}
