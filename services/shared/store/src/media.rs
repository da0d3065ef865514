//! What is known of media files: their upload, the message that each goes with, who has fetched
//! them, and which are to be removed.
//!
//! A file is removed in three steps, so that nothing of it stays and nobody is promised what goes:
//! its row is marked `gone` (and can be sent no more), the file is removed, the row is deleted. A
//! process that dies in between leaves a row that says what there is to do.

use std::{fmt::Write, time::Duration};

use natter_protocol::{
    ids::{ChatId, DeviceId, MediaId, MessageId, UserId},
    media::{Download, Media, MediaKind},
    server::UserCard,
    timestamp,
};
use time::OffsetDateTime;
use uuid::Uuid;

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

/// A file of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFile {
    /// What it is.
    pub media: Media,
    /// Its thumbnail has been made.
    pub thumbnail: bool,
}

/// An answer that sent a file, or a part of it.
#[derive(Clone, Debug)]
pub struct DownloadRecord {
    /// A UUIDv7 of when it began.
    pub id: Uuid,
    /// The file.
    pub media: MediaId,
    /// Of which message.
    pub message: MessageId,
    /// Who fetched it.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// When it began.
    pub at: OffsetDateTime,
    /// Where in the file.
    pub first_byte: u64,
    /// How many bytes were written, and whether the whole file was; none when the client was sent
    /// to the store.
    pub written: Option<(u64, bool)>,
}

/// Where a page of downloads ended: the record's id.
pub type DownloadCursor = Uuid;

/// A file to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The file.
    pub id: MediaId,
    /// What the store calls an upload in parts that may not be finished.
    pub unfinished: Option<String>,
}

/// An image without a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmadeThumbnail {
    /// The file.
    pub id: MediaId,
    /// Its bytes.
    pub size: u64,
}

#[derive(sqlx::FromRow)]
struct MediaRow {
    id: Uuid,
    name: String,
    media_type: String,
    size: Option<i64>,
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

fn sql_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
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

/// The file of a message.
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

    /// The file of a message, unless it is gone.
    pub async fn media_of(&self, chat: ChatId, message: MessageId) -> Result<Option<MediaFile>> {
        let row: Option<MediaRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT ",
                    columns!(),
                    " FROM media WHERE message_id = $1 AND chat_id = $2 AND state = 'ready'"
                ))
                .bind(message.0)
                .bind(chat.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// Who sent the file of a message, also when it is gone.
    pub async fn media_sender(&self, chat: ChatId, message: MessageId) -> Result<Option<UserId>> {
        // The message is looked for along its chat, which is long only where its file is gone.
        let sender: Option<Uuid> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT COALESCE(
                         (SELECT uploader_id FROM media WHERE message_id = $1 AND chat_id = $2),
                         (SELECT m.sender_id FROM messages m
                          WHERE m.chat_id = $2 AND m.id = $1 AND EXISTS (
                              SELECT FROM media_downloads WHERE message_id = $1) LIMIT 1))",
                )
                .bind(message.0)
                .bind(chat.0)
                .fetch_one(db)
                .await
            })
            .await?;
        Ok(sender.map(Into::into))
    }
}

/// Downloads.
impl Store {
    /// Keeps a batch of them; those that are kept already change nothing.
    pub async fn record_downloads(&self, records: &[DownloadRecord]) -> Result<()> {
        let uuids = |of: fn(&DownloadRecord) -> Uuid| records.iter().map(of).collect::<Vec<_>>();
        let times: Vec<_> = records.iter().map(|record| timestamp::truncate(record.at)).collect();
        let firsts: Vec<_> = records.iter().map(|record| sql_size(record.first_byte)).collect();
        let bytes: Vec<_> =
            records.iter().map(|record| record.written.map(|(bytes, _)| sql_size(bytes))).collect();
        let complete: Vec<_> =
            records.iter().map(|record| record.written.map(|(_, complete)| complete)).collect();
        self.call(async |db| {
            sqlx::query(
                "INSERT INTO media_downloads
                     (id, media_id, message_id, user_id, device_id, at, first_byte, bytes, complete)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[],
                                      $6::timestamptz[], $7::bigint[], $8::bigint[], $9::boolean[])
                 ON CONFLICT DO NOTHING",
            )
            .bind(uuids(|record| record.id))
            .bind(uuids(|record| record.media.0))
            .bind(uuids(|record| record.message.0))
            .bind(uuids(|record| record.user.0))
            .bind(uuids(|record| record.device.0))
            .bind(&times)
            .bind(&firsts)
            .bind(&bytes)
            .bind(&complete)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// A page of a message's downloads, the newest first, and where the next begins.
    pub async fn downloads(
        &self,
        message: MessageId,
        cursor: Option<DownloadCursor>,
        limit: u32,
    ) -> Result<(Vec<Download>, Option<DownloadCursor>)> {
        #[derive(sqlx::FromRow)]
        struct Row {
            id: Uuid,
            user_id: Uuid,
            name: Option<String>,
            device_id: Uuid,
            at: OffsetDateTime,
            first_byte: i64,
            bytes: Option<i64>,
            complete: Option<bool>,
        }
        let limit = limit.clamp(1, 200) as usize;
        let mut rows: Vec<Row> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT d.id, d.user_id, u.name, d.device_id, d.at, d.first_byte, d.bytes,
                            d.complete
                     FROM media_downloads d LEFT JOIN users u ON u.id = d.user_id
                     WHERE d.message_id = $1 AND ($2::uuid IS NULL OR d.id < $2)
                     ORDER BY d.id DESC LIMIT $3",
                )
                .bind(message.0)
                .bind(cursor)
                .bind(limit as i64 + 1)
                .fetch_all(db)
                .await
            })
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
        let items = rows.into_iter().map(|row| Download {
            user: UserCard { id: row.user_id.into(), name: row.name.unwrap_or_default() },
            device_id: row.device_id.into(),
            at: row.at,
            first_byte: bytes(row.first_byte),
            bytes: row.bytes.map(bytes),
            complete: row.complete,
        });
        Ok((items.collect(), next))
    }
}

/// What is left to do for files.
impl Store {
    /// Marks some files that nobody is going to send: uploads that have not gone on for `stalled`,
    /// files that were not sent for `unsent` (or not put there, past the gateways, for so long), those promised to a message that was never written,
    /// and those whose chat is gone. Answers how many.
    pub async fn mark_orphans(
        &self,
        stalled: Duration,
        unsent: Duration,
        limit: u32,
    ) -> Result<u64> {
        // What is promised to a message may be in the log and not be written yet: only once all that
        // was stored until long after the promise is written, and the message is not among it, was
        // it never published. Rows that somebody is about, who would move their time, are passed
        // over; and locked, they are what they were found to be. A retry with another copy of the
        // file is not to clash with what is gone.
        const UNSENT: &str =
            "UPDATE media SET state = 'gone', tries = 0, touched_at = now(), message_id = NULL
             WHERE id IN (
                 SELECT m.id FROM media m
                 LEFT JOIN chats c ON c.id = m.chat_id
                 LEFT JOIN shards s ON s.shard = c.shard
                 WHERE NOT m.sent AND m.state <> 'gone' AND (
                     m.state = 'uploading' AND m.touched_at < now()
                        - CASE WHEN m.open_until IS NULL THEN $1 ELSE $2 END
                     OR m.state = 'ready' AND m.touched_at < now() - $2
                        AND (m.message_id IS NULL
                             OR s.persisted_at > m.touched_at + interval '10 minutes'))
                 LIMIT $3 FOR UPDATE OF m SKIP LOCKED
             )";
        const OF_NO_CHAT: &str = "UPDATE media SET state = 'gone', tries = 0, touched_at = now()
             WHERE id IN (
                 SELECT id FROM media WHERE chat_id IS NULL AND state <> 'gone'
                 LIMIT $1 FOR UPDATE SKIP LOCKED
             )";
        let limit = i64::from(limit);
        let marked = self
            .call(async |db| {
                let unsent = sqlx::query(UNSENT).bind(stalled).bind(unsent).bind(limit);
                let unsent = unsent.execute(&mut *db).await?.rows_affected();
                let of_no_chat = sqlx::query(OF_NO_CHAT).bind(limit).execute(&mut *db).await?;
                Ok::<_, StoreError>(unsent + of_no_chat.rows_affected())
            })
            .await?;
        Ok(marked)
    }

    /// Some files that are to be removed, and that nobody else has been removing for a while. Those
    /// that may be put into the store past the gateways, only `late` after the last began to be.
    pub async fn take_gone(
        &self,
        limit: u32,
        again: Duration,
        late: Duration,
    ) -> Result<Vec<Sweep>> {
        let rows: Vec<(Uuid, Option<String>)> = self
            .call(async |db| {
                sqlx::query_as(
                    "UPDATE media SET touched_at = now(), tries = LEAST(tries + 1, 100)
                     WHERE id IN (
                         SELECT id FROM media
                         WHERE state = 'gone' AND (tries = 0 OR touched_at < now() - $2)
                           AND (open_until IS NULL OR open_until < now() - $3)
                         ORDER BY touched_at LIMIT $1 FOR UPDATE SKIP LOCKED
                     )
                     RETURNING id, unfinished",
                )
                .bind(i64::from(limit))
                .bind(again)
                .bind(late)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(|(id, unfinished)| Sweep { id: id.into(), unfinished }).collect())
    }

    /// Some files that could be put into the store past the gateways, and have not been for `late`:
    /// whatever has come after they were whole is to be removed.
    pub async fn take_closed(&self, limit: u32, late: Duration) -> Result<Vec<MediaId>> {
        let ids: Vec<Uuid> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT id FROM media
                     WHERE open_until < now() - $2 AND state = 'ready'
                     ORDER BY random() LIMIT $1",
                )
                .bind(i64::from(limit))
                .bind(late)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(ids.into_iter().map(Into::into).collect())
    }

    /// Nothing is left of what came too late.
    pub async fn media_closed(&self, ids: &[MediaId]) -> Result<()> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        self.call(async |db| {
            sqlx::query("UPDATE media SET open_until = NULL WHERE id = ANY($1) AND state = 'ready'")
                .bind(&ids)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// Nothing is left of these files.
    pub async fn forget_media(&self, removed: &[MediaId]) -> Result<()> {
        let ids: Vec<Uuid> = removed.iter().map(|id| id.0).collect();
        self.call(async |db| {
            sqlx::query("DELETE FROM media WHERE id = ANY($1) AND state = 'gone'")
                .bind(&ids)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// An image whose thumbnail is to be made, and nobody else has been making for a while. One that
    /// was tried `tries` times gets none: it ends whoever tries.
    pub async fn take_thumbnail(
        &self,
        tries: u16,
        again: Duration,
    ) -> Result<Option<UnmadeThumbnail>> {
        let tries = i16::try_from(tries).unwrap_or(i16::MAX);
        let row: Option<(Uuid, Option<i64>)> = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE media SET thumbnail = NULL
                     WHERE thumbnail = 'wanted' AND tries >= $1 AND touched_at < now() - $2",
                )
                .bind(tries)
                .bind(again)
                .execute(&mut *db)
                .await?;
                sqlx::query_as(
                    "UPDATE media SET touched_at = now(), tries = tries + 1
                     WHERE id = (
                         SELECT id FROM media
                         WHERE thumbnail = 'wanted' AND state = 'ready' AND tries < $1
                           AND (tries = 0 OR touched_at < now() - $2)
                         ORDER BY touched_at LIMIT 1 FOR UPDATE SKIP LOCKED
                     )
                     RETURNING id, size",
                )
                .bind(tries)
                .bind(again)
                .fetch_optional(&mut *db)
                .await
            })
            .await?;
        Ok(row.map(|(id, size)| UnmadeThumbnail {
            id: id.into(),
            size: size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
        }))
    }

    /// The thumbnail has been made, or cannot be. Answers whether its image is still there.
    pub async fn thumbnail_made(&self, id: MediaId, made: bool) -> Result<bool> {
        let done = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE media SET thumbnail = $2, tries = 0
                     WHERE id = $1 AND state = 'ready' AND thumbnail = 'wanted'",
                )
                .bind(id.0)
                .bind(made.then_some("made"))
                .execute(db)
                .await
            })
            .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The thumbnail could not be tried: the image was out of reach.
    pub async fn thumbnail_not_tried(&self, id: MediaId) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE media SET tries = GREATEST(tries - 1, 0)
                 WHERE id = $1 AND thumbnail = 'wanted'",
            )
            .bind(id.0)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
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
