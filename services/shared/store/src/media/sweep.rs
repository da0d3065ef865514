//! Which files are to be removed.
//!
//! A file is removed in three steps, so that nothing of it stays and nobody is promised what goes:
//! its row is marked `gone` (and can be sent no more), the file is removed, the row is deleted. A
//! process that dies in between leaves a row that says what there is to do.

use std::time::Duration;

use natter_protocol::ids::MediaId;
use uuid::Uuid;

use crate::{Result, Store, StoreError};

/// A file to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The file.
    pub id: MediaId,
    /// What the store calls an upload in parts that may not be finished.
    pub unfinished: Option<String>,
}

/// What is left to remove.
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
}
