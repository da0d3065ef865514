use std::time::Duration;

use natter_protocol::{
    feed::Feed,
    ids::{EndpointId, Seq, Shard},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    endpoints::{ENDPOINTS, EndpointRow, WebhookEndpoint},
    feed, kind,
    letters::{self, NewHookLetter},
};
use crate::{
    Result, Store, StoreError,
    rows::{self, seq, sql_seq, sql_shard},
};

/// A worker that has not been heard of for so many leases is forgotten.
const FORGOTTEN: f64 = 10.0;

/// An endpoint and a shard: what one worker at a time tells, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LaneKey {
    /// Who is told.
    pub endpoint: EndpointId,
    /// Of which shard's events.
    pub shard: Shard,
}

/// A lane that a worker owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LanePlace {
    /// Which.
    pub key: LaneKey,
    /// Counts the times that an operator has moved the place.
    pub generation: i64,
    /// All up to here is dealt with, as it was written last; none before the first look.
    pub seq: Option<Seq>,
    /// The same in the shard's log.
    pub log_seq: Seq,
    /// What was stored before is not for the endpoint.
    pub from_at: OffsetDateTime,
    /// An operator wants dead letters of it to be told after all.
    pub replay: bool,
}

/// What a worker is to do.
#[derive(Clone, Debug, Default)]
pub struct WebhookShare {
    /// All endpoints.
    pub endpoints: Vec<WebhookEndpoint>,
    /// The lanes that are this worker's.
    pub lanes: Vec<LanePlace>,
    /// How many of them are its share: what it has beyond, it is to finish and release.
    pub share: usize,
}

/// A feed whose event has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Which feed.
    pub feed: Feed,
    /// The event that comes next.
    pub seq: Seq,
    /// Its place in the log.
    pub log_seq: Seq,
    /// When it was stored.
    pub at: OffsetDateTime,
    /// How often it was tried.
    pub attempts: u16,
    /// Since when it fails; none for one that has not been tried.
    pub failing_since: Option<OffsetDateTime>,
    /// When it is to be tried.
    pub due_at: OffsetDateTime,
}

/// What a lane's owner writes.
#[derive(Clone, Debug, Default)]
pub struct LaneSave {
    /// All up to here is dealt with.
    pub seq: Seq,
    /// The same in the log.
    pub log_seq: Seq,
    /// Events that were dropped before they could be told, since the last save.
    pub lost: u64,
    /// Events beyond `seq`.
    pub lag: u64,
    /// When the oldest event was stored that is yet to be told.
    pub oldest_at: Option<OffsetDateTime>,
    /// The endpoint is left alone for now.
    pub resting: bool,
    /// What it said last, if it was asked since the last save.
    pub last: Option<(String, OffsetDateTime)>,
    /// Feeds that wait by themselves, or whose turn has moved.
    pub behind: Vec<Behind>,
    /// Feeds that do not any more.
    pub caught_up: Vec<Feed>,
    /// Events that are given up.
    pub letters: Vec<NewHookLetter>,
    /// Letters that are kept of the endpoint.
    pub most_letters: u32,
}

/// How far a shard's stream of events is filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillRow {
    /// All up to here of the log is looked at.
    pub log_seq: Seq,
    /// The last place of the stream when that was saved.
    pub stream_seq: Seq,
}

#[derive(sqlx::FromRow)]
struct LaneRow {
    endpoint_id: Uuid,
    shard: i16,
    generation: i64,
    seq: Option<i64>,
    log_seq: i64,
    from_at: OffsetDateTime,
    replay: bool,
}

impl From<LaneRow> for LanePlace {
    fn from(row: LaneRow) -> Self {
        Self {
            key: LaneKey { endpoint: row.endpoint_id.into(), shard: rows::shard(row.shard) },
            generation: row.generation,
            seq: row.seq.map(seq),
            log_seq: seq(row.log_seq),
            from_at: row.from_at,
            replay: row.replay,
        }
    }
}

impl Store {
    /// Says that a worker is there, renews what it owns, and gives it what is free, up to its share.
    pub async fn share_webhooks(
        &self,
        worker: &str,
        shards: Shard,
        lease: Duration,
    ) -> Result<WebhookShare> {
        self.transaction(async |tx| {
            let endpoints: Vec<EndpointRow> = sqlx::query_as(ENDPOINTS).fetch_all(&mut *tx).await?;
            let endpoints: Vec<WebhookEndpoint> = endpoints.into_iter().map(Into::into).collect();
            let workers = be_there(tx, worker, lease).await?;
            if endpoints.is_empty() {
                return Ok(WebhookShare::default());
            }
            make_lanes(tx, shards).await?;
            let (share, room) = renew(tx, worker, workers, lease).await?;
            if room > 0 {
                claim(tx, worker, room, lease).await?;
            }
            let lanes: Vec<LaneRow> = sqlx::query_as(
                "SELECT l.endpoint_id, l.shard, l.generation, l.seq, l.log_seq, l.from_at,
                        EXISTS (SELECT FROM webhook_dead_letters d
                                WHERE d.endpoint_id = l.endpoint_id AND d.shard = l.shard
                                  AND d.replay_at IS NOT NULL) AS replay
                 FROM webhook_lanes l JOIN webhook_endpoints e ON e.id = l.endpoint_id
                 WHERE l.owner = $1 AND l.owner_until > now() AND e.enabled
                 ORDER BY l.endpoint_id, l.shard",
            )
            .bind(worker)
            .fetch_all(tx)
            .await?;
            let lanes = lanes.into_iter().map(Into::into).collect();
            Ok(WebhookShare { endpoints, lanes, share })
        })
        .await
    }

    /// Gives a lane back, if it is still the worker's.
    pub async fn release_lane(&self, worker: &str, lane: LaneKey) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE webhook_lanes SET owner = NULL, owner_until = NULL
                 WHERE endpoint_id = $1 AND shard = $2 AND owner = $3",
            )
            .bind(lane.endpoint.0)
            .bind(sql_shard(lane.shard))
            .bind(worker)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// A worker that ends is none any more: its share is the others'.
    pub async fn forget_webhook_worker(&self, worker: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query("DELETE FROM webhook_workers WHERE name = $1")
                .bind(worker)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// The feeds of a lane that wait by themselves.
    pub async fn behind(&self, lane: LaneKey) -> Result<Vec<Behind>> {
        #[derive(sqlx::FromRow)]
        struct Row {
            kind: String,
            feed_id: Uuid,
            seq: i64,
            log_seq: i64,
            at: OffsetDateTime,
            attempts: i16,
            failing_since: Option<OffsetDateTime>,
            due_at: OffsetDateTime,
        }
        let rows: Vec<Row> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT kind, feed_id, seq, log_seq, at, attempts, failing_since, due_at
                     FROM webhook_behind WHERE endpoint_id = $1 AND shard = $2",
                )
                .bind(lane.endpoint.0)
                .bind(sql_shard(lane.shard))
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| Behind {
                feed: feed(lane.shard, &row.kind, row.feed_id),
                seq: seq(row.seq),
                log_seq: seq(row.log_seq),
                at: row.at,
                attempts: u16::try_from(row.attempts).unwrap_or(0),
                failing_since: row.failing_since,
                due_at: row.due_at,
            })
            .collect())
    }

    /// Writes how far a lane is. Returns how many old letters were dropped for new ones.
    ///
    /// # Errors
    /// `Fenced` when the lane is another's by now, an operator has moved its place, it is gone, or its place
    /// is not the one that was written last: Postgres was put back from a backup, and what the owner has
    /// written since of feeds that are behind and of letters is not there.
    pub async fn save_lane(&self, worker: &str, lane: &LanePlace, save: &LaneSave) -> Result<u64> {
        self.transaction(async |tx| {
            let (last, last_at) = save.last.as_ref().map(|(said, at)| (said, at)).unzip();
            // Its row is held from here on: nobody else writes what belongs to it.
            let saved = sqlx::query(
                "UPDATE webhook_lanes SET
                     seq = $5, log_seq = $6, lost = lost + $7, lag = $8, oldest_at = $9,
                     resting = $10, last_answer = COALESCE($11, last_answer),
                     last_at = COALESCE($12, last_at)
                 WHERE endpoint_id = $1 AND shard = $2 AND owner = $3 AND generation = $4
                   AND seq IS NOT DISTINCT FROM $13",
            )
            .bind(lane.key.endpoint.0)
            .bind(sql_shard(lane.key.shard))
            .bind(worker)
            .bind(lane.generation)
            .bind(sql_seq(save.seq))
            .bind(sql_seq(save.log_seq))
            .bind(sql_seq(save.lost))
            .bind(sql_seq(save.lag))
            .bind(save.oldest_at)
            .bind(save.resting)
            .bind(last)
            .bind(last_at)
            .bind(lane.seq.map(sql_seq))
            .execute(&mut *tx)
            .await?;
            if saved.rows_affected() == 0 {
                return Err(StoreError::Fenced);
            }
            save_behind(tx, lane.key, save).await?;
            letters::keep(tx, lane.key, &save.letters, save.most_letters).await
        })
        .await
    }

    /// How far a shard's stream is filled; none where nobody has filled it yet.
    pub async fn fill(&self, shard: Shard) -> Result<Option<FillRow>> {
        let row: Option<(i64, i64)> = self
            .call(async |db| {
                sqlx::query_as("SELECT log_seq, stream_seq FROM webhook_fills WHERE shard = $1")
                    .bind(sql_shard(shard))
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(row.map(|(log, stream)| FillRow { log_seq: seq(log), stream_seq: seq(stream) }))
    }

    /// Takes the filling of a shard's stream when it is free, its lease has run out, or it is the
    /// worker's already (that renews the lease); none when another has it. One that nobody has filled yet
    /// begins behind `from`.
    pub async fn claim_fill(
        &self,
        shard: Shard,
        worker: &str,
        lease: Duration,
        from: Seq,
    ) -> Result<Option<FillRow>> {
        let row: Option<(i64, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "INSERT INTO webhook_fills AS f (shard, owner, owner_until, log_seq)
                     VALUES ($1, $2, now() + make_interval(secs => $3), $4)
                     ON CONFLICT (shard) DO UPDATE
                         SET owner = $2, owner_until = now() + make_interval(secs => $3)
                         WHERE f.owner IS NULL OR f.owner = $2 OR f.owner_until < now()
                     RETURNING log_seq, stream_seq",
                )
                .bind(sql_shard(shard))
                .bind(worker)
                .bind(lease.as_secs_f64())
                .bind(sql_seq(from))
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|(log, stream)| FillRow { log_seq: seq(log), stream_seq: seq(stream) }))
    }

    /// Writes how far a shard's stream is filled, and how many entries the log had dropped before: these are
    /// lost to each endpoint that there is.
    ///
    /// # Errors
    /// `Fenced` when another fills it by now.
    pub async fn save_fill(
        &self,
        shard: Shard,
        worker: &str,
        fill: FillRow,
        lost: u64,
    ) -> Result<()> {
        self.transaction(async |tx| {
            let saved = sqlx::query(
                "UPDATE webhook_fills SET log_seq = $3, stream_seq = $4
                 WHERE shard = $1 AND owner = $2",
            )
            .bind(sql_shard(shard))
            .bind(worker)
            .bind(sql_seq(fill.log_seq))
            .bind(sql_seq(fill.stream_seq))
            .execute(&mut *tx)
            .await?;
            if saved.rows_affected() == 0 {
                return Err(StoreError::Fenced);
            }
            lose(tx, shard, lost).await
        })
        .await
    }

    /// Counts entries of a shard's log that are gone before anybody could keep them for endpoints: for each
    /// endpoint that there is.
    pub async fn lose_hooks(&self, shard: Shard, lost: u64) -> Result<()> {
        self.transaction(async |tx| lose(tx, shard, lost).await).await
    }

    /// Gives the filling of a shard back, if it is still the worker's.
    pub async fn release_fill(&self, shard: Shard, worker: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE webhook_fills SET owner = NULL, owner_until = NULL
                 WHERE shard = $1 AND owner = $2",
            )
            .bind(sql_shard(shard))
            .bind(worker)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}

async fn lose(tx: &mut PgConnection, shard: Shard, lost: u64) -> Result<()> {
    if lost == 0 {
        return Ok(());
    }
    for statement in [
        "UPDATE webhook_fills SET lost = lost + $2 WHERE shard = $1",
        "UPDATE webhook_lanes SET lost = lost + $2 WHERE shard = $1",
    ] {
        sqlx::query(statement).bind(sql_shard(shard)).bind(sql_seq(lost)).execute(&mut *tx).await?;
    }
    Ok(())
}

/// How many workers there are, this one among them.
async fn be_there(tx: &mut PgConnection, worker: &str, lease: Duration) -> Result<i64> {
    sqlx::query(
        "INSERT INTO webhook_workers (name, seen_until) VALUES ($1, now() + make_interval(secs => $2))
         ON CONFLICT (name) DO UPDATE SET seen_until = excluded.seen_until",
    )
    .bind(worker)
    .bind(lease.as_secs_f64())
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM webhook_workers WHERE seen_until < now() - make_interval(secs => $1)")
        .bind(lease.as_secs_f64() * FORGOTTEN)
        .execute(&mut *tx)
        .await?;
    let workers =
        sqlx::query_scalar("SELECT count(*) FROM webhook_workers WHERE seen_until > now()")
            .fetch_one(tx)
            .await?;
    Ok(workers)
}

async fn make_lanes(tx: &mut PgConnection, shards: Shard) -> Result<()> {
    sqlx::query(
        "INSERT INTO webhook_lanes (endpoint_id, shard, from_at)
         SELECT e.id, s::smallint, e.created_at
         FROM webhook_endpoints e, generate_series(0, $1::int - 1) s
         WHERE NOT EXISTS (
             SELECT FROM webhook_lanes l WHERE l.endpoint_id = e.id AND l.shard = s
         )
         ON CONFLICT DO NOTHING",
    )
    .bind(i32::from(shards))
    .execute(tx)
    .await?;
    Ok(())
}

/// Renews what the worker owns: its share, and how much of that it has yet to get.
async fn renew(
    tx: &mut PgConnection,
    worker: &str,
    workers: i64,
    lease: Duration,
) -> Result<(usize, i64)> {
    // One whose lease has run out is claimed anew, if it is still free.
    let own = sqlx::query(
        "UPDATE webhook_lanes l SET owner_until = now() + make_interval(secs => $2)
         WHERE owner = $1 AND owner_until > now()
           AND EXISTS (SELECT FROM webhook_endpoints e WHERE e.id = l.endpoint_id AND e.enabled)",
    )
    .bind(worker)
    .bind(lease.as_secs_f64())
    .execute(&mut *tx)
    .await?
    .rows_affected();
    let all: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM webhook_lanes l JOIN webhook_endpoints e ON e.id = l.endpoint_id
         WHERE e.enabled",
    )
    .fetch_one(tx)
    .await?;
    let share = (all + workers.max(1) - 1) / workers.max(1);
    Ok((usize::try_from(share).unwrap_or(0), share - i64::try_from(own).unwrap_or(0)))
}

async fn claim(tx: &mut PgConnection, worker: &str, room: i64, lease: Duration) -> Result<()> {
    // In any order: two that start together are not to want the same ones.
    sqlx::query(
        "UPDATE webhook_lanes l SET owner = $1, owner_until = now() + make_interval(secs => $3)
         FROM (
             SELECT f.endpoint_id, f.shard FROM webhook_lanes f
             JOIN webhook_endpoints e ON e.id = f.endpoint_id
             WHERE e.enabled AND (f.owner IS NULL OR f.owner_until < now())
             ORDER BY random() LIMIT $2 FOR UPDATE OF f SKIP LOCKED
         ) free WHERE (l.endpoint_id, l.shard) = (free.endpoint_id, free.shard)",
    )
    .bind(worker)
    .bind(room)
    .bind(lease.as_secs_f64())
    .execute(tx)
    .await?;
    Ok(())
}

async fn save_behind(tx: &mut PgConnection, lane: LaneKey, save: &LaneSave) -> Result<()> {
    for feed in &save.caught_up {
        sqlx::query(
            "DELETE FROM webhook_behind
             WHERE endpoint_id = $1 AND shard = $2 AND kind = $3 AND feed_id = $4",
        )
        .bind(lane.endpoint.0)
        .bind(sql_shard(lane.shard))
        .bind(kind(*feed))
        .bind(feed.id)
        .execute(&mut *tx)
        .await?;
    }
    for behind in &save.behind {
        sqlx::query(
            "INSERT INTO webhook_behind
                 (endpoint_id, shard, kind, feed_id, seq, log_seq, at, attempts, failing_since, due_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (endpoint_id, shard, kind, feed_id) DO UPDATE SET
                 seq = excluded.seq, log_seq = excluded.log_seq, at = excluded.at,
                 attempts = excluded.attempts, failing_since = excluded.failing_since,
                 due_at = excluded.due_at",
        )
        .bind(lane.endpoint.0)
        .bind(sql_shard(lane.shard))
        .bind(kind(behind.feed))
        .bind(behind.feed.id)
        .bind(sql_seq(behind.seq))
        .bind(sql_seq(behind.log_seq))
        .bind(behind.at)
        .bind(i16::try_from(behind.attempts).unwrap_or(i16::MAX))
        .bind(behind.failing_since)
        .bind(behind.due_at)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}
