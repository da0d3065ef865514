use std::time::Duration;

use natter_protocol::{
    ids::{DeviceId, MessageId, Shard},
    push::Provider,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::provider;
use crate::{Result, Store, rows};

/// Rows removed, or looked at, at once.
const ROWS: i64 = 2_000;

/// A notification that has not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenPush {
    /// Which message.
    pub message: MessageId,
    /// For which device.
    pub device: DeviceId,
    /// Who carries it.
    pub provider: Provider,
    /// When it was queued.
    pub queued_at: OffsetDateTime,
    /// The shard whose queue has it.
    pub shard: Shard,
}

/// What is too old. Rows are named by where they are: a lock keeps them there.
impl Store {
    /// Gives up notifications that no queue has any more: those that were queued between `from` and
    /// `until` and have not come to their end. How many there were.
    pub async fn give_up_pushes(&self, from: OffsetDateTime, until: OffsetDateTime) -> Result<u64> {
        let done = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE pushes SET state = 'given_up', reason = 'too_old',
                         ended_at = date_trunc('milliseconds', now())
                     WHERE ctid = ANY (ARRAY(
                         SELECT ctid FROM pushes
                         WHERE queued_at >= $1 AND queued_at < $2
                           AND state IN ('queued', 'sending', 'retrying') AND due_at < now()
                         ORDER BY queued_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
                     ))",
                )
                .bind(from)
                .bind(until)
                .bind(ROWS)
                .execute(db)
                .await
            })
            .await?;
        Ok(done.rows_affected())
    }

    /// Forgets what was decided and sent longer ago than `kept`, some of it. How many rows that was.
    pub async fn forget_pushes(&self, kept: Duration) -> Result<u64> {
        let before = kept.as_secs_f64();
        self.call(async |db| {
            let pushes = sqlx::query(
                "DELETE FROM pushes WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM pushes
                     WHERE queued_at < now() - make_interval(secs => $1)
                     ORDER BY queued_at LIMIT $2 FOR UPDATE SKIP LOCKED
                 ))",
            )
            .bind(before)
            .bind(ROWS)
            .execute(&mut *db)
            .await?;
            let decisions = sqlx::query(
                "DELETE FROM push_decisions WHERE ctid = ANY (ARRAY(
                     SELECT ctid FROM push_decisions
                     WHERE decided_at < now() - make_interval(secs => $1)
                     ORDER BY decided_at LIMIT $2 FOR UPDATE SKIP LOCKED
                 ))",
            )
            .bind(before)
            .bind(ROWS)
            .execute(db)
            .await?;
            Ok::<_, sqlx::Error>(pushes.rows_affected() + decisions.rows_affected())
        })
        .await
    }

    /// Notifications of a shard that have not come to their end, behind one of them, from a time on and
    /// before another: for a queue that was lost.
    pub async fn open_pushes(
        &self,
        shard: Shard,
        after: (OffsetDateTime, MessageId, DeviceId),
        until: OffsetDateTime,
    ) -> Result<Vec<OpenPush>> {
        let rows: Vec<(Uuid, Uuid, String, OffsetDateTime)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT p.message_id, p.device_id, p.provider, p.queued_at
                     FROM pushes p
                     LEFT JOIN chats c ON c.id = p.chat_id
                     LEFT JOIN users u ON u.id = p.user_id
                     WHERE p.queued_at >= $2 AND p.queued_at < $5
                       AND (p.queued_at, p.message_id, p.device_id) > ($2, $3, $4)
                       AND p.state IN ('queued', 'sending', 'retrying')
                       AND COALESCE(c.shard, u.shard) = $1
                     ORDER BY p.queued_at, p.message_id, p.device_id LIMIT $6",
                )
                .bind(rows::sql_shard(shard))
                .bind(after.0)
                .bind(after.1.0)
                .bind(after.2.0)
                .bind(until)
                .bind(ROWS)
                .fetch_all(db)
                .await
            })
            .await?;
        let open = |(message, device, word, queued_at): (Uuid, Uuid, String, OffsetDateTime)| {
            Some(OpenPush {
                message: message.into(),
                device: device.into(),
                provider: provider(&word)?,
                queued_at,
                shard,
            })
        };
        Ok(rows.into_iter().filter_map(open).collect())
    }
}
