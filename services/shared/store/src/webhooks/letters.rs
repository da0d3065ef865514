use natter_protocol::{
    feed::Feed,
    ids::{EndpointId, Seq, Shard},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{LaneKey, feed, kind};
use crate::{
    Result, Store,
    rows::{self, seq, sql_seq, sql_shard},
};

/// An event that is given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewHookLetter {
    /// Its place in the shard's stream of events.
    pub seq: Seq,
    /// Its feed.
    pub feed: Feed,
    /// `webhook-id`.
    pub event_id: String,
    /// What the endpoint would have been told, as clients call it.
    pub r#type: String,
    /// When it was stored.
    pub at: OffsetDateTime,
    /// How often it was tried.
    pub attempts: u16,
    /// What the endpoint said last.
    pub answer: String,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookLetter {
    /// Names it.
    pub id: i64,
    /// Who was not told.
    pub endpoint: EndpointId,
    /// Whose stream has it.
    pub shard: Shard,
    /// When it was given up.
    pub died_at: OffsetDateTime,
    /// An operator wants it told after all, and that has not been tried yet.
    pub replaying: bool,
    /// What it is about.
    pub of: NewHookLetter,
}

#[derive(sqlx::FromRow)]
struct LetterRow {
    id: i64,
    endpoint_id: Uuid,
    shard: i16,
    seq: i64,
    kind: String,
    feed_id: Uuid,
    event_id: String,
    r#type: String,
    at: OffsetDateTime,
    died_at: OffsetDateTime,
    attempts: i16,
    answer: String,
    replaying: bool,
}

impl From<LetterRow> for WebhookLetter {
    fn from(row: LetterRow) -> Self {
        let shard = rows::shard(row.shard);
        Self {
            id: row.id,
            endpoint: row.endpoint_id.into(),
            shard,
            died_at: row.died_at,
            replaying: row.replaying,
            of: NewHookLetter {
                seq: seq(row.seq),
                feed: feed(shard, &row.kind, row.feed_id),
                event_id: row.event_id,
                r#type: row.r#type,
                at: row.at,
                attempts: u16::try_from(row.attempts).unwrap_or(0),
                answer: row.answer,
            },
        }
    }
}

/// Keeps letters of a lane, whose row the caller holds, and drops the oldest of the endpoint's beyond
/// `most`, and those of other events at the same places, which a stream that has lost its end does not have
/// there any more. How many were dropped.
pub(super) async fn keep(
    tx: &mut PgConnection,
    lane: LaneKey,
    letters: &[NewHookLetter],
    most: u32,
) -> Result<u64> {
    let mut dropped = 0;
    for letter in letters {
        let other = sqlx::query(
            "DELETE FROM webhook_dead_letters
             WHERE endpoint_id = $1 AND shard = $2 AND seq = $3 AND event_id <> $4",
        )
        .bind(lane.endpoint.0)
        .bind(sql_shard(lane.shard))
        .bind(sql_seq(letter.seq))
        .bind(&letter.event_id)
        .execute(&mut *tx)
        .await?;
        dropped += other.rows_affected();
        sqlx::query(
            "INSERT INTO webhook_dead_letters
                 (endpoint_id, shard, seq, kind, feed_id, event_id, type, at, attempts, answer)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT ON CONSTRAINT webhook_dead_letters_once DO NOTHING",
        )
        .bind(lane.endpoint.0)
        .bind(sql_shard(lane.shard))
        .bind(sql_seq(letter.seq))
        .bind(kind(letter.feed))
        .bind(letter.feed.id)
        .bind(&letter.event_id)
        .bind(&letter.r#type)
        .bind(letter.at)
        .bind(i16::try_from(letter.attempts).unwrap_or(i16::MAX))
        .bind(&letter.answer)
        .execute(&mut *tx)
        .await?;
    }
    if letters.is_empty() {
        return Ok(0);
    }
    let oldest = sqlx::query(
        "DELETE FROM webhook_dead_letters WHERE endpoint_id = $1 AND id <= (
             SELECT id FROM webhook_dead_letters WHERE endpoint_id = $1
             ORDER BY id DESC OFFSET $2 LIMIT 1
         )",
    )
    .bind(lane.endpoint.0)
    .bind(i64::from(most))
    .execute(tx)
    .await?;
    Ok(dropped + oldest.rows_affected())
}

impl Store {
    /// An endpoint's dead letters, oldest first: those after `after`, at most `limit`.
    pub async fn webhook_letters(
        &self,
        endpoint: EndpointId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<WebhookLetter>> {
        let rows: Vec<LetterRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT *, replay_at IS NOT NULL AS replaying FROM webhook_dead_letters
                     WHERE endpoint_id = $1 AND id > $2 ORDER BY id LIMIT $3",
                )
                .bind(endpoint.0)
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Asks the workers to tell of dead letters after all: of these, or of all that there are. How many.
    pub async fn replay_letters(&self, endpoint: EndpointId, ids: Option<&[i64]>) -> Result<u64> {
        let asked = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE webhook_dead_letters SET replay_at = now()
                     WHERE endpoint_id = $1 AND ($2::bigint[] IS NULL OR id = ANY($2))",
                )
                .bind(endpoint.0)
                .bind(ids)
                .execute(db)
                .await
            })
            .await?;
        Ok(asked.rows_affected())
    }

    /// A lane's letters that are to be told of after all, oldest first.
    pub async fn letters_to_replay(&self, lane: LaneKey, limit: u32) -> Result<Vec<WebhookLetter>> {
        let rows: Vec<LetterRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT *, true AS replaying FROM webhook_dead_letters
                     WHERE endpoint_id = $1 AND shard = $2 AND replay_at IS NOT NULL
                     ORDER BY id LIMIT $3",
                )
                .bind(lane.endpoint.0)
                .bind(sql_shard(lane.shard))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// A letter's event is told: the letter goes.
    pub async fn letter_told(&self, id: i64) -> Result<()> {
        self.call(async |db| {
            sqlx::query("DELETE FROM webhook_dead_letters WHERE id = $1").bind(id).execute(db).await
        })
        .await?;
        Ok(())
    }

    /// It is not: the letter stays, with what the endpoint said this time.
    pub async fn letter_refused(&self, id: i64, answer: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE webhook_dead_letters
                 SET replay_at = NULL, answer = $2, attempts = LEAST(attempts, 30000) + 1 WHERE id = $1",
            )
            .bind(id)
            .bind(answer)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// Removes a lane's letters whose events the stream has dropped: those before `first`. How many.
    pub async fn forget_letters(&self, lane: LaneKey, first: Seq) -> Result<u64> {
        let gone = self
            .call(async |db| {
                sqlx::query(
                    "DELETE FROM webhook_dead_letters
                     WHERE endpoint_id = $1 AND shard = $2 AND seq < $3",
                )
                .bind(lane.endpoint.0)
                .bind(sql_shard(lane.shard))
                .bind(sql_seq(first))
                .execute(db)
                .await
            })
            .await?;
        Ok(gone.rows_affected())
    }
}
