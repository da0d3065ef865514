//! Who owns a shard, and up to where its log is written here.

use std::time::Duration;

use natter_protocol::ids::{Seq, Shard};
use time::OffsetDateTime;

use crate::{
    Result, Store, StoreError,
    rows::{self, seq, sql_seq, sql_shard},
};

/// A shard's position, fence and owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardRow {
    /// The shard.
    pub shard: Shard,
    /// The stream's life, counted from 1; 0 before the first stream is made.
    pub epoch: i32,
    /// The first sequence of this epoch.
    pub first_seq: Seq,
    /// All up to here is written. Starts at `first_seq - 1`.
    pub persisted_seq: Seq,
    /// The broker's time of that entry, or later when nothing has come since; 1970 at first.
    pub persisted_at: OffsetDateTime,
    /// Who owns it, or owned it last.
    pub owner: Option<String>,
    /// Until when, by the database's clock.
    pub owner_until: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct SqlRow {
    shard: i16,
    epoch: i32,
    first_seq: i64,
    persisted_seq: i64,
    persisted_at: OffsetDateTime,
    owner: Option<String>,
    owner_until: Option<OffsetDateTime>,
}

impl From<SqlRow> for ShardRow {
    fn from(row: SqlRow) -> Self {
        Self {
            shard: rows::shard(row.shard),
            epoch: row.epoch,
            first_seq: seq(row.first_seq),
            persisted_seq: seq(row.persisted_seq),
            persisted_at: row.persisted_at,
            owner: row.owner,
            owner_until: row.owner_until,
        }
    }
}

impl Store {
    /// Makes rows for the shards 0 to `count - 1` where there are none.
    pub async fn ensure_shards(&self, count: Shard) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "INSERT INTO shards (shard) SELECT generate_series(0, $1::int - 1)::smallint
             ON CONFLICT DO NOTHING",
            )
            .bind(i32::from(count))
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// All shards, by number.
    pub async fn shards(&self) -> Result<Vec<ShardRow>> {
        let rows: Vec<SqlRow> = self
            .call(async |db| {
                sqlx::query_as(
            "SELECT shard, epoch, first_seq, persisted_seq, persisted_at, owner, owner_until
             FROM shards ORDER BY shard",
        )
        .fetch_all(db).await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Records that the shard's stream is made anew and starts with `first_seq`; by its owner, if
    /// one is named, and only while its lease lasts.
    ///
    /// # Errors
    /// `Fenced` unless `epoch` is the next one, `first_seq` lies above all that is written, and
    /// the shard is the owner's; also for saying the same again.
    pub async fn start_epoch(
        &self,
        shard: Shard,
        epoch: i32,
        first_seq: Seq,
        owner: Option<&str>,
    ) -> Result<ShardRow> {
        // Only one of two that start the same epoch finds the one before. An owner that still
        // writes the old epoch is fenced: its position is not there any more.
        let started: Option<SqlRow> = self
            .call(async |db| {
                // What an old log has taken may come into the new one with times of now, some of
                // it long before the rest: files that are promised to messages in it are to wait.
                sqlx::query(
                    "UPDATE media m SET touched_at = now() FROM chats c
                     WHERE c.id = m.chat_id AND c.shard = $1 AND NOT m.sent
                       AND m.message_id IS NOT NULL AND m.state = 'ready'",
                )
                .bind(sql_shard(shard))
                .execute(&mut *db)
                .await?;
                sqlx::query_as(
                    "UPDATE shards SET epoch = $2, first_seq = $3, persisted_seq = $3 - 1
             WHERE shard = $1 AND epoch = $2 - 1 AND persisted_seq < $3
               AND ($4::text IS NULL OR owner = $4 AND owner_until > now())
             RETURNING shard, epoch, first_seq, persisted_seq, persisted_at, owner, owner_until",
                )
                .bind(sql_shard(shard))
                .bind(epoch)
                .bind(sql_seq(first_seq))
                .bind(owner)
                .fetch_optional(db)
                .await
            })
            .await?;
        started.map(Into::into).ok_or(StoreError::Fenced)
    }

    /// Takes the shard when it is free, its lease has run out, or it is the owner's already (that
    /// renews the lease); none when another has it, or it is unknown.
    pub async fn claim_shard(
        &self,
        shard: Shard,
        owner: &str,
        lease: Duration,
    ) -> Result<Option<ShardRow>> {
        // Two workers that claim at once: the second waits for the row and then finds the first
        // as its owner. now() is the time before that wait, so a lease is never thought to have
        // run out too early, and one given after a wait is the shorter for it.
        let row: Option<SqlRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "UPDATE shards SET owner = $2, owner_until = now() + make_interval(secs => $3)
             WHERE shard = $1 AND (owner IS NULL OR owner = $2 OR owner_until < now())
             RETURNING shard, epoch, first_seq, persisted_seq, persisted_at, owner, owner_until",
                )
                .bind(sql_shard(shard))
                .bind(owner)
                .bind(lease.as_secs_f64())
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// Gives the shard back, if it is still the owner's.
    pub async fn release_shard(&self, shard: Shard, owner: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
            "UPDATE shards SET owner = NULL, owner_until = NULL WHERE shard = $1 AND owner = $2",
        )
        .bind(sql_shard(shard))
        .bind(owner)
        .execute(db).await
        })
        .await?;
        Ok(())
    }

    /// Up to where the shard is written, and the broker's time of that.
    ///
    /// # Errors
    /// `NotFound` for an unknown shard.
    pub async fn persisted_until(&self, shard: Shard) -> Result<(Seq, OffsetDateTime)> {
        let (until, at): (i64, OffsetDateTime) = self
            .call(async |db| {
                sqlx::query_as("SELECT persisted_seq, persisted_at FROM shards WHERE shard = $1")
                    .bind(sql_shard(shard))
                    .fetch_one(db)
                    .await
            })
            .await?;
        Ok((seq(until), at))
    }
}
