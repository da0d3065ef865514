//! Who wants nothing from whom: a one-to-one in which one has blocked the other is shut for both, and
//! the one who is blocked does not see whether the other is there.

use natter_protocol::{
    feed::{Blocking, OutboxItem, OutboxUser, UserChange},
    ids::{ChatId, Shard, UserId},
    rest::Block,
    server::UserCard,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Result, Store, StoreError, chats::direct_key, outbox, rows};

/// Where a page of blocks ended. Times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockCursor {
    /// When the last one was blocked.
    pub blocked_at: OffsetDateTime,
    /// Who that is.
    pub id: UserId,
}

impl Store {
    /// The user blocks another. Gives the lane to relay, if that is news.
    ///
    /// # Errors
    /// `NotFound` when there is no such user; `Forbidden` for oneself.
    pub async fn block(&self, user: UserId, other: UserId) -> Result<Option<Uuid>> {
        self.set_blocked(user, other, true).await
    }

    /// The user blocks another no more. Gives the lane to relay, if that is news.
    ///
    /// # Errors
    /// `NotFound` when there is no such user; `Forbidden` for oneself.
    pub async fn unblock(&self, user: UserId, other: UserId) -> Result<Option<Uuid>> {
        self.set_blocked(user, other, false).await
    }

    async fn set_blocked(
        &self,
        by: UserId,
        user_id: UserId,
        blocked: bool,
    ) -> Result<Option<Uuid>> {
        if by == user_id {
            return Err(StoreError::Forbidden);
        }
        self.transaction(async |tx| {
            lock_pair(tx, by, user_id).await?;
            let known: Vec<(Uuid, i16)> =
                // One who is deleted is not there to be blocked any more.
                sqlx::query_as(
                    "SELECT id, shard FROM users
                     WHERE id = ANY($1) AND (deleted_at IS NULL OR NOT $2)",
                )
                    .bind([by.0, user_id.0])
                    .bind(blocked)
                    .fetch_all(&mut *tx)
                    .await?;
            if known.len() < 2 {
                return Err(StoreError::NotFound);
            }
            let statement = if blocked {
                "INSERT INTO blocks (user_id, blocked_id) VALUES ($1, $2) ON CONFLICT DO NOTHING"
            } else {
                "DELETE FROM blocks WHERE user_id = $1 AND blocked_id = $2"
            };
            let done = sqlx::query(statement).bind(by.0).bind(user_id.0).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Ok(None);
            }
            let shut = between(tx, by, user_id).await?;
            let chat: Option<Uuid> =
                sqlx::query_scalar("UPDATE chats SET shut = $2 WHERE direct_key = $1 RETURNING id")
                    .bind(direct_key(by, user_id))
                    .bind(shut)
                    .fetch_optional(&mut *tx)
                    .await?;
            let change = Blocking { by, user_id, blocked, chat_id: chat.map(ChatId), shut };
            let users = known.into_iter().map(|(id, shard)| OutboxUser {
                user_id: UserId(id),
                shard: rows::shard(shard),
                change: UserChange::Blocking(change),
            });
            let lane = lane(by, user_id);
            outbox::add(tx, lane, OutboxItem { chat: None, users: users.collect() }).await?;
            Ok(Some(lane))
        })
        .await
    }

    /// A page of those whom the user has blocked, and the cursor of the next page. At most 1,000 a
    /// page.
    pub async fn blocks(
        &self,
        user: UserId,
        cursor: Option<BlockCursor>,
        limit: u32,
    ) -> Result<(Vec<Block>, Option<BlockCursor>)> {
        let limit = limit.clamp(1, 1_000) as usize;
        let mut found: Vec<(Uuid, String, bool, OffsetDateTime)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT b.blocked_id, u.name, u.bot, b.blocked_at
                     FROM blocks b JOIN users u ON u.id = b.blocked_id
                     WHERE b.user_id = $1
                       AND ($2::timestamptz IS NULL OR (b.blocked_at, b.blocked_id) > ($2, $3))
                     ORDER BY b.blocked_at, b.blocked_id LIMIT $4",
                )
                .bind(user.0)
                .bind(cursor.map(|cursor| cursor.blocked_at))
                .bind(cursor.map(|cursor| cursor.id.0))
                // One more tells whether there is a next page.
                .bind(limit as i64 + 1)
                .fetch_all(db)
                .await
            })
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        let next = next
            .map(|(id, .., blocked_at)| BlockCursor { blocked_at: *blocked_at, id: (*id).into() });
        let blocks = found.into_iter().map(|(id, name, bot, blocked_at)| Block {
            user: UserCard { id: id.into(), name, bot },
            blocked_at,
        });
        Ok((blocks.collect(), next))
    }
}

/// Waits for its turn at a pair, until the transaction ends: blocking each other and opening their
/// one-to-one happen one after the other, and what is read afterwards is what the one before has
/// left.
pub(crate) async fn lock_pair(tx: &mut PgConnection, a: UserId, b: UserId) -> Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(direct_key(a, b))
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether either has blocked the other, or is deleted: either way neither can write.
pub(crate) async fn between(tx: &mut PgConnection, a: UserId, b: UserId) -> Result<bool> {
    let any = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM blocks WHERE user_id = $1 AND blocked_id = $2)
             OR EXISTS (SELECT FROM blocks WHERE user_id = $2 AND blocked_id = $1)
             OR EXISTS (SELECT FROM users WHERE id IN ($1, $2) AND deleted_at IS NOT NULL)",
    )
    .bind(a.0)
    .bind(b.0)
    .fetch_one(tx)
    .await?;
    Ok(any)
}

/// Has the feed of one of a pair told. Gives the lane to relay.
pub(crate) async fn tell(
    tx: &mut PgConnection,
    blocking: Blocking,
    user_id: UserId,
    shard: Shard,
) -> Result<Uuid> {
    let lane = lane(blocking.by, blocking.user_id);
    let users = vec![OutboxUser { user_id, shard, change: UserChange::Blocking(blocking) }];
    outbox::add(tx, lane, OutboxItem { chat: None, users }).await?;
    Ok(lane)
}

/// The pair's own: what is told of it is told in order.
fn lane(a: UserId, b: UserId) -> Uuid {
    Uuid::from_u128(a.0.as_u128() ^ b.0.as_u128())
}
