//! Files, who has fetched them, and files that are copied.

use natter_protocol::{
    ids::{ChatId, MediaId, MessageId, UserId},
    media::Media,
};
use serde_json::json;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Brought, Import, Trouble, bounded, still_at_it};
use crate::{Measures, Result, Store, StoreError, media::kept_as_sent};

/// A file of a message.
#[derive(Clone, Debug)]
pub struct ImportedFile {
    /// The file's id here.
    pub id: Uuid,
    /// Its message, if the file says so; else a message has named the file.
    pub message: Option<Uuid>,
    /// Where it is: a URL or a path.
    pub url: Option<String>,
    /// As it was called.
    pub name: Option<String>,
    /// What it was said to be.
    pub media_type: Option<String>,
    /// Bytes, as it was said.
    pub size: Option<i64>,
    /// When it was uploaded.
    pub created_at: Option<OffsetDateTime>,
}

/// Somebody has fetched a file.
#[derive(Clone, Debug)]
pub struct ImportedDownload {
    /// A UUIDv7 of when that was.
    pub id: Uuid,
    /// Which, or
    pub file: Option<Uuid>,
    /// that of which message.
    pub message: Option<Uuid>,
    /// Who.
    pub user: Uuid,
    /// On which device; zeros when that is not known.
    pub device: Uuid,
    /// When.
    pub at: OffsetDateTime,
}

/// A file that is still where the other system had it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct LeftFile {
    /// Its id here.
    pub id: Uuid,
    /// The chat of its message.
    pub chat_id: Uuid,
    /// Its message.
    pub message_id: Uuid,
    /// Who sent it.
    pub uploader_id: Uuid,
    /// Where it is.
    pub url: String,
    /// As it was called.
    pub name: Option<String>,
}

#[derive(sqlx::FromRow)]
struct Found {
    n: i64,
    is_new: bool,
    message_id: Option<Uuid>,
}

pub(super) async fn files(
    tx: &mut PgConnection,
    import: &Import,
    files: &[ImportedFile],
) -> Result<Brought> {
    let found: Vec<Found> = sqlx::query_as(
        "WITH e AS (
             SELECT e.n, e.id, e.url, e.name, e.media_type, e.size, e.created_at,
                    COALESCE(f.message_id, m.id) AS message_id,
                    COALESCE(f.chat_id, m.chat_id) AS chat_id,
                    COALESCE(f.uploader_id, m.sender_id) AS uploader_id,
                    f.id IS NULL OR f.url IS NULL AND e.url IS NOT NULL AS is_new
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                         $7::timestamptz[])
                  WITH ORDINALITY AS e (id, message_id, url, name, media_type, size, created_at, n)
             LEFT JOIN imported_files f ON f.id = e.id
             LEFT JOIN messages m ON f.id IS NULL AND m.id = e.message_id AND m.deleted_at IS NULL
         ), kept AS (
             INSERT INTO imported_files AS f (id, import, message_id, chat_id, uploader_id, url, name,
                                              media_type, size, created_at)
             SELECT id, $8, message_id, chat_id, uploader_id, url, name, media_type, size, created_at
             FROM e WHERE message_id IS NOT NULL
             ON CONFLICT (id) DO UPDATE SET
                 url = COALESCE(EXCLUDED.url, f.url), name = COALESCE(EXCLUDED.name, f.name),
                 media_type = COALESCE(EXCLUDED.media_type, f.media_type),
                 size = COALESCE(EXCLUDED.size, f.size)
         )
         SELECT n, is_new, message_id FROM e",
    )
    .bind(files.iter().map(|file| file.id).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.message).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.url.clone()).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.name.clone()).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.media_type.clone()).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.size).collect::<Vec<_>>())
    .bind(files.iter().map(|file| file.created_at.map(bounded)).collect::<Vec<_>>())
    .bind(&import.name)
    .fetch_all(&mut *tx)
    .await?;
    let mut brought = Brought::default();
    for file in &found {
        let nth = usize::try_from(file.n - 1).unwrap_or_default();
        match (file.message_id, file.is_new) {
            (None, _) => brought.troubles.push((nth, Trouble::NoMessage)),
            (Some(_), true) => brought.written += 1,
            (Some(_), false) => brought.there += 1,
        }
    }
    brought.troubles.sort_unstable();
    let ids: Vec<Uuid> = files.iter().map(|file| file.id).collect();
    // What other messages have of it is told by now as well.
    sqlx::query(
        "UPDATE imported_files own SET url = f.url, name = COALESCE(own.name, f.name),
             media_type = COALESCE(own.media_type, f.media_type), size = COALESCE(own.size, f.size)
         FROM imported_files f
         WHERE f.id = ANY($1) AND f.url IS NOT NULL AND own.same_as = f.id AND own.url IS NULL",
    )
    .bind(&ids)
    .execute(&mut *tx)
    .await?;
    // Whoever sees a message that says nothing sees at least where its file is.
    sqlx::query(
        "UPDATE messages m SET content = f.url FROM imported_files f
         WHERE (f.id = ANY($1) OR f.same_as = ANY($1)) AND f.url IS NOT NULL AND f.state <> 'copied'
           AND m.chat_id = f.chat_id AND m.id = f.message_id
           AND m.content = '' AND m.media IS NULL AND m.deleted_at IS NULL AND m.edited_at IS NULL",
    )
    .bind(&ids)
    .execute(tx)
    .await?;
    Ok(brought)
}

pub(super) async fn downloads(
    tx: &mut PgConnection,
    downloads: &[ImportedDownload],
) -> Result<Brought> {
    let found: Vec<(i64, bool, bool, bool)> = sqlx::query_as(
        "WITH e AS (
             SELECT e.n, e.id, f.id AS media_id, f.message_id, u.id AS user_id, e.device_id, e.at
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[],
                         $6::timestamptz[])
                  WITH ORDINALITY AS e (id, file_id, message_id, user_id, device_id, at, n)
             LEFT JOIN LATERAL (
                 SELECT id, message_id FROM imported_files f
                 WHERE f.id = e.file_id OR e.file_id IS NULL AND f.message_id = e.message_id
                 LIMIT 1
             ) f ON true
             LEFT JOIN users u ON u.id = e.user_id
         ), kept AS (
             INSERT INTO media_downloads (id, media_id, message_id, user_id, device_id, at)
             SELECT id, media_id, message_id, user_id, device_id, at FROM e
             WHERE media_id IS NOT NULL AND message_id IS NOT NULL AND user_id IS NOT NULL
             ON CONFLICT DO NOTHING RETURNING id
         )
         SELECT e.n, e.message_id IS NOT NULL, e.user_id IS NOT NULL,
                EXISTS (SELECT FROM kept k WHERE k.id = e.id)
         FROM e",
    )
    .bind(downloads.iter().map(|download| download.id).collect::<Vec<_>>())
    .bind(downloads.iter().map(|download| download.file).collect::<Vec<_>>())
    .bind(downloads.iter().map(|download| download.message).collect::<Vec<_>>())
    .bind(downloads.iter().map(|download| download.user).collect::<Vec<_>>())
    .bind(downloads.iter().map(|download| download.device).collect::<Vec<_>>())
    .bind(downloads.iter().map(|download| bounded(download.at)).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    let mut brought = Brought::default();
    for (n, file, user, new) in found {
        let nth = usize::try_from(n - 1).unwrap_or_default();
        match (file, user, new) {
            (false, ..) => brought.troubles.push((nth, Trouble::NoFile)),
            (_, false, _) => brought.troubles.push((nth, Trouble::NoUser)),
            (_, _, true) => brought.written += 1,
            (_, _, false) => brought.there += 1,
        }
    }
    brought.troubles.sort_unstable();
    Ok(brought)
}

/// Files that are copied.
impl Store {
    /// Files that are still elsewhere, behind this one, in the order of their ids; one of each message.
    pub async fn left_files(&self, import: &str, after: Uuid, limit: u32) -> Result<Vec<LeftFile>> {
        self.call(async |db| {
            sqlx::query_as(
                "SELECT f.id, f.chat_id, f.message_id, f.uploader_id, f.url, f.name
                 FROM imported_files f
                 WHERE f.import = $1 AND f.state <> 'copied' AND f.id > $2 AND f.url IS NOT NULL
                   AND f.message_id IS NOT NULL AND f.chat_id IS NOT NULL
                   AND f.uploader_id IS NOT NULL
                 ORDER BY f.id LIMIT $3",
            )
            .bind(import)
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(db)
            .await
        })
        .await
    }

    /// A file could not be copied: it was not found, or else was refused.
    ///
    /// # Errors
    /// `Fenced` when another run has begun.
    pub async fn file_stays(&self, import: &Import, id: Uuid, found: bool) -> Result<()> {
        self.transaction(async |tx| {
            still_at_it(tx, import).await?;
            sqlx::query("UPDATE imported_files SET state = $2 WHERE id = $1 AND state <> 'copied'")
                .bind(id)
                .bind(if found { "refused" } else { "missing" })
                .execute(tx)
                .await?;
            Ok(())
        })
        .await
    }

    /// A file has been copied: its message has it from now on, or had it already. False when the message
    /// is gone, or has another one; then the copy is nobody's. Again after an answer that was lost, it
    /// changes nothing.
    ///
    /// # Errors
    /// `Fenced` when another run has begun: what becomes of the copy is its affair.
    pub async fn file_copied(
        &self,
        import: &Import,
        left: &LeftFile,
        name: &str,
        media_type: &str,
        measures: &Measures,
    ) -> Result<bool> {
        self.transaction(async |tx| {
            still_at_it(tx, import).await?;
            let copied: Option<bool> = sqlx::query_scalar(
                "SELECT state = 'copied' FROM imported_files WHERE id = $1 FOR NO KEY UPDATE",
            )
            .bind(left.id)
            .fetch_optional(&mut *tx)
            .await?;
            if copied == Some(true) {
                return Ok(true);
            }
            let there: Option<i64> = sqlx::query_scalar(
                "SELECT m.seq FROM messages m
                 WHERE m.chat_id = $1 AND m.id = $2 AND m.deleted_at IS NULL AND m.media IS NULL
                   AND NOT EXISTS (SELECT FROM media WHERE message_id = $2) FOR UPDATE OF m",
            )
            .bind(left.chat_id)
            .bind(left.message_id)
            .fetch_optional(&mut *tx)
            .await?;
            let Some(seq) = there else { return Ok(false) };
            let media: Media = kept_as_sent(
                tx,
                MediaId(left.id),
                (ChatId(left.chat_id), MessageId(left.message_id), UserId(left.uploader_id)),
                (name, media_type),
                measures,
            )
            .await?;
            sqlx::query(
                "UPDATE messages SET media = $3,
                     content = CASE WHEN content = $4 THEN '' ELSE content END
                 WHERE chat_id = $1 AND seq = $2",
            )
            .bind(left.chat_id)
            .bind(seq)
            .bind(json!(media))
            .bind(&left.url)
            .execute(&mut *tx)
            .await?;
            sqlx::query("UPDATE imported_files SET state = 'copied' WHERE id = $1")
                .bind(left.id)
                .execute(&mut *tx)
                .await?;
            // It is found by its file from now on, and not by where that was.
            sqlx::query(
                "UPDATE imported_chats SET indexed_seq = LEAST(indexed_seq, $2 - 1)
                 WHERE chat_id = $1",
            )
            .bind(left.chat_id)
            .bind(seq)
            .execute(tx)
            .await?;
            Ok::<_, StoreError>(true)
        })
        .await
    }
}
