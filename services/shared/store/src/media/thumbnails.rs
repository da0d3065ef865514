//! Which images are to have a thumbnail.

use std::time::Duration;

use natter_protocol::ids::MediaId;
use uuid::Uuid;

use crate::{Result, Store};

/// An image without a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmadeThumbnail {
    /// The file.
    pub id: MediaId,
    /// Its bytes.
    pub size: u64,
}

/// What is left to do for images.
impl Store {
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
