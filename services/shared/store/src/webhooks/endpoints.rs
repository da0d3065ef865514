use std::fmt;

use natter_protocol::{
    ids::{ChatId, EndpointId, Seq, Shard},
    webhook::{HookFilter, HookKind},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError,
    rows::{self, seq, sql_seq, sql_shard},
};

/// An endpoint that is to be made.
pub struct NewEndpoint {
    /// What operators call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// `whsec_…`
    pub secret: String,
    /// What it is told of.
    pub filter: HookFilter,
}

/// An endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookEndpoint {
    /// Which.
    pub id: EndpointId,
    /// What operators call it.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// `whsec_…`
    pub secret: String,
    /// What it is told of.
    pub filter: HookFilter,
    /// Whether it is told anything.
    pub enabled: bool,
    /// Why not, where it was not said by hand.
    pub disabled_reason: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// A test that is asked for and has not been answered.
    pub test: Option<Uuid>,
}

/// Without the secret, and without the URL, which may hold one.
impl fmt::Debug for WebhookEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookEndpoint")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is changed of an endpoint; none leaves it as it is.
#[derive(Default)]
pub struct EndpointChange {
    /// Where it is.
    pub url: Option<String>,
    /// What signs from now on.
    pub secret: Option<String>,
    /// These kinds; none of them for all.
    pub kinds: Option<Option<Vec<HookKind>>>,
    /// Of these chats; none of them for all.
    pub chats: Option<Option<Vec<ChatId>>>,
    /// Whether it is told anything.
    pub enabled: Option<bool>,
}

/// How an endpoint stands with a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneReport {
    /// Which shard.
    pub shard: Shard,
    /// All up to here is told, is waited with, or was given up; none before the first look.
    pub seq: Option<Seq>,
    /// Events beyond it, as of the owner's last look.
    pub lag: u64,
    /// When the oldest event was stored that it has yet to be told of.
    pub oldest_at: Option<OffsetDateTime>,
    /// It is left alone for now, since it has failed too often.
    pub resting: bool,
    /// Feeds that wait by themselves, since an event of theirs has failed.
    pub behind: u64,
    /// Events that were given up.
    pub letters: u64,
    /// Events that were dropped before it could be told.
    pub lost: u64,
    /// What it said last.
    pub last_answer: Option<String>,
    /// When.
    pub last_at: Option<OffsetDateTime>,
    /// Who tells it.
    pub owner: Option<String>,
}

#[derive(sqlx::FromRow)]
pub(super) struct EndpointRow {
    id: Uuid,
    name: String,
    url: String,
    secret: String,
    kinds: Option<Vec<String>>,
    chats: Option<Vec<Uuid>>,
    enabled: bool,
    disabled_reason: Option<String>,
    created_at: OffsetDateTime,
    test: Option<Uuid>,
}

impl From<EndpointRow> for WebhookEndpoint {
    fn from(row: EndpointRow) -> Self {
        // One that a newer version knows is none of ours to tell.
        let kinds = |kinds: Vec<String>| kinds.iter().filter_map(|k| HookKind::parse(k)).collect();
        let chats = |chats: Vec<Uuid>| chats.into_iter().map(Into::into).collect();
        Self {
            id: row.id.into(),
            name: row.name,
            url: row.url,
            secret: row.secret,
            filter: HookFilter { kinds: row.kinds.map(kinds), chats: row.chats.map(chats) },
            enabled: row.enabled,
            disabled_reason: row.disabled_reason,
            created_at: row.created_at,
            test: row.test,
        }
    }
}

/// The columns of an [`EndpointRow`].
pub(super) const ENDPOINTS: &str =
    "SELECT id, name, url, secret, kinds, chats, enabled, disabled_reason, created_at,
            CASE WHEN test_asked IS DISTINCT FROM test_answered THEN test_asked END AS test
     FROM webhook_endpoints ORDER BY created_at, id";

fn sql_kinds(kinds: Option<&Vec<HookKind>>) -> Option<Vec<&'static str>> {
    Some(kinds?.iter().map(|kind| kind.as_str()).collect())
}

fn sql_chats(chats: Option<&Vec<ChatId>>) -> Option<Vec<Uuid>> {
    Some(chats?.iter().map(|chat| chat.0).collect())
}

impl Store {
    /// Makes an endpoint, which is told of what happens from now on. At most `most` may be.
    ///
    /// # Errors
    /// `Conflict(Endpoint)` when another has the name; `Forbidden` when there are so many already.
    pub async fn add_endpoint(&self, new: &NewEndpoint, most: u32) -> Result<WebhookEndpoint> {
        let id = EndpointId::generate();
        self.transaction(async |tx| {
            // Two that are made at once are counted one after the other.
            sqlx::query("LOCK TABLE webhook_endpoints IN SHARE ROW EXCLUSIVE MODE")
                .execute(&mut *tx)
                .await?;
            let there: i64 = sqlx::query_scalar("SELECT count(*) FROM webhook_endpoints")
                .fetch_one(&mut *tx)
                .await?;
            if there >= i64::from(most) {
                return Err(StoreError::Forbidden);
            }
            sqlx::query(
                "INSERT INTO webhook_endpoints (id, name, url, secret, kinds, chats)
                 VALUES ($1, $2, $3, $4, $5, $6)",
            )
            .bind(id.0)
            .bind(&new.name)
            .bind(&new.url)
            .bind(&new.secret)
            .bind(sql_kinds(new.filter.kinds.as_ref()))
            .bind(sql_chats(new.filter.chats.as_ref()))
            .execute(tx)
            .await?;
            Ok(())
        })
        .await?;
        self.endpoint(&id.to_string()).await
    }

    /// All endpoints, the oldest first.
    pub async fn endpoints(&self) -> Result<Vec<WebhookEndpoint>> {
        let rows: Vec<EndpointRow> =
            self.call(async |db| sqlx::query_as(ENDPOINTS).fetch_all(db).await).await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// When the first of the endpoints that there are was made; none where there is none.
    pub async fn first_endpoint_at(&self) -> Result<Option<OffsetDateTime>> {
        self.call(async |db| {
            sqlx::query_scalar("SELECT min(created_at) FROM webhook_endpoints").fetch_one(db).await
        })
        .await
    }

    /// The endpoint of this id or name.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn endpoint(&self, named: &str) -> Result<WebhookEndpoint> {
        let mut all = self.endpoints().await?.into_iter();
        let found = all.find(|one| one.name == named || one.id.to_string() == named);
        found.ok_or(StoreError::NotFound)
    }

    /// Changes an endpoint. Workers hear of it within seconds.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn change_endpoint(&self, id: EndpointId, change: &EndpointChange) -> Result<()> {
        let EndpointChange { url, secret, kinds, chats, enabled } = change;
        let changed = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE webhook_endpoints SET
                         url = COALESCE($2, url),
                         secret = COALESCE($3, secret),
                         kinds = CASE WHEN $4 THEN $5 ELSE kinds END,
                         chats = CASE WHEN $6 THEN $7 ELSE chats END,
                         enabled = COALESCE($8, enabled),
                         disabled_reason = CASE WHEN $8 IS NULL THEN disabled_reason END
                     WHERE id = $1",
                )
                .bind(id.0)
                .bind(url)
                .bind(secret)
                .bind(kinds.is_some())
                .bind(sql_kinds(kinds.as_ref().and_then(Option::as_ref)))
                .bind(chats.is_some())
                .bind(sql_chats(chats.as_ref().and_then(Option::as_ref)))
                .bind(enabled)
                .execute(db)
                .await
            })
            .await?;
        if changed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// Tells an endpoint nothing more, for a reason of its own.
    pub async fn disable_endpoint(&self, id: EndpointId, reason: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE webhook_endpoints SET enabled = false, disabled_reason = $2
                 WHERE id = $1 AND enabled",
            )
            .bind(id.0)
            .bind(reason)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// Removes an endpoint, and all that is kept for it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_endpoint(&self, id: EndpointId) -> Result<()> {
        let removed = self
            .call(async |db| {
                sqlx::query("DELETE FROM webhook_endpoints WHERE id = $1")
                    .bind(id.0)
                    .execute(db)
                    .await
            })
            .await?;
        if removed.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(()) }
    }

    /// How an endpoint stands with each shard, as far as a worker has looked.
    pub async fn endpoint_lanes(&self, id: EndpointId) -> Result<Vec<LaneReport>> {
        #[derive(sqlx::FromRow)]
        struct Row {
            shard: i16,
            seq: Option<i64>,
            lag: i64,
            oldest_at: Option<OffsetDateTime>,
            resting: bool,
            behind: i64,
            letters: i64,
            lost: i64,
            last_answer: Option<String>,
            last_at: Option<OffsetDateTime>,
            owner: Option<String>,
        }
        let rows: Vec<Row> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT shard, seq, lag, oldest_at, resting, lost, last_answer, last_at,
                            CASE WHEN owner_until > now() THEN owner END AS owner,
                            (SELECT count(*) FROM webhook_behind b
                             WHERE b.endpoint_id = l.endpoint_id AND b.shard = l.shard) AS behind,
                            (SELECT count(*) FROM webhook_dead_letters d
                             WHERE d.endpoint_id = l.endpoint_id AND d.shard = l.shard) AS letters
                     FROM webhook_lanes l WHERE endpoint_id = $1 ORDER BY shard",
                )
                .bind(id.0)
                .fetch_all(db)
                .await
            })
            .await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        Ok(rows
            .into_iter()
            .map(|row| LaneReport {
                shard: rows::shard(row.shard),
                seq: row.seq.map(seq),
                lag: count(row.lag),
                oldest_at: row.oldest_at,
                resting: row.resting,
                behind: count(row.behind),
                letters: count(row.letters),
                lost: count(row.lost),
                last_answer: row.last_answer,
                last_at: row.last_at,
                owner: row.owner,
            })
            .collect())
    }

    /// Moves the place up to which an endpoint has been told of a shard back to `to`, exclusive: it is told
    /// again of all that lies beyond, also of what was before it was made. Whoever tells it goes on from there.
    /// False where it has not come that far, and then nothing changes.
    pub async fn rewind_lane(&self, id: EndpointId, shard: Shard, to: Seq) -> Result<bool> {
        self.transaction(async |tx| {
            let moved = sqlx::query(
                "UPDATE webhook_lanes SET seq = $3, log_seq = 0, from_at = 'epoch', generation = generation + 1
                 WHERE endpoint_id = $1 AND shard = $2 AND seq > $3",
            )
            .bind(id.0)
            .bind(sql_shard(shard))
            .bind(sql_seq(to))
            .execute(&mut *tx)
            .await?;
            // Its owner goes on, and what waits beyond the place is written nowhere else.
            if moved.rows_affected() == 0 {
                return Ok(false);
            }
            // What has failed beyond the place comes again by itself.
            sqlx::query(
                "DELETE FROM webhook_behind WHERE endpoint_id = $1 AND shard = $2 AND seq > $3",
            )
            .bind(id.0)
            .bind(sql_shard(shard))
            .bind(sql_seq(to))
            .execute(tx)
            .await?;
            Ok(true)
        })
        .await
    }

    /// Asks the workers to send an endpoint a test.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn ask_test(&self, id: EndpointId) -> Result<Uuid> {
        let test = Uuid::now_v7();
        let asked = self
            .call(async |db| {
                sqlx::query("UPDATE webhook_endpoints SET test_asked = $2 WHERE id = $1")
                    .bind(id.0)
                    .bind(test)
                    .execute(db)
                    .await
            })
            .await?;
        if asked.rows_affected() == 0 { Err(StoreError::NotFound) } else { Ok(test) }
    }

    /// What came of a test; none while it has not been sent.
    pub async fn test_answer(&self, id: EndpointId, test: Uuid) -> Result<Option<String>> {
        let answer: Option<Option<String>> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT test_answer FROM webhook_endpoints WHERE id = $1 AND test_answered = $2",
                )
                .bind(id.0)
                .bind(test)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(answer.flatten())
    }

    /// Notes what came of a test.
    pub async fn answer_test(&self, id: EndpointId, test: Uuid, answer: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE webhook_endpoints SET test_answered = $2, test_answer = $3 WHERE id = $1",
            )
            .bind(id.0)
            .bind(test)
            .bind(answer)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}
