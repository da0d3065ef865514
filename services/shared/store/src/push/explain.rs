use std::str::FromStr;

use natter_protocol::{
    ids::{ChatId, MessageId, UserId},
    notify::{Delivery, DeliveryPage, PushReason, PushState},
    server::UserCard,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{provider, reason};
use crate::{Result, Store};

/// Where a page ended: a recipient, and one of their devices (zeros for none).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCursor {
    /// The recipient.
    pub user: Uuid,
    /// The device.
    pub device: Uuid,
}

impl FromStr for DeliveryCursor {
    type Err = uuid::Error;
    fn from_str(text: &str) -> std::result::Result<Self, uuid::Error> {
        let (user, device) = text.split_once('.').unwrap_or((text, ""));
        Ok(Self { user: user.parse()?, device: device.parse()? })
    }
}

impl std::fmt::Display for DeliveryCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.user, self.device)
    }
}

#[derive(sqlx::FromRow)]
struct DeliveryRow {
    user_id: Uuid,
    name: Option<String>,
    bot: Option<bool>,
    device_id: Uuid,
    provider: Option<String>,
    letter: Option<i8>,
    state: Option<String>,
    reason: Option<String>,
    decided_at: OffsetDateTime,
    attempts: i16,
    attempted_at: Option<OffsetDateTime>,
    due_at: Option<OffsetDateTime>,
    ended_at: Option<OffsetDateTime>,
    answer: Option<String>,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        let state = row.state.as_deref().and_then(PushState::parse).unwrap_or(PushState::Skipped);
        let why = row.letter.and_then(reason);
        let (name, bot) = (row.name.unwrap_or_default(), row.bot.unwrap_or_default());
        Self {
            user: UserCard { id: row.user_id.into(), name, bot },
            device_id: (!row.device_id.is_nil()).then(|| row.device_id.into()),
            provider: row.provider.as_deref().and_then(provider),
            state,
            reason: why.or_else(|| row.reason.as_deref().and_then(PushReason::parse)),
            decided_at: row.decided_at,
            attempts: u32::from(row.attempts.unsigned_abs()),
            attempted_at: row.attempted_at,
            next_at: row.due_at.filter(|_| state == PushState::Retrying),
            ended_at: row.ended_at,
            answer: row.answer,
        }
    }
}

/// What became of a message, explained.
impl Store {
    /// The chat of a message that this user has sent, or that is in a chat that they manage.
    pub async fn explainable(&self, user: UserId, message: MessageId) -> Result<Option<ChatId>> {
        let found: Option<Uuid> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT m.chat_id FROM messages m
                     JOIN chat_members p ON p.chat_id = m.chat_id AND p.user_id = $1
                     WHERE m.id = $2 AND p.left_at IS NULL
                       AND (m.sender_id = $1 OR p.role IN ('owner', 'admin')) LIMIT 1",
                )
                .bind(user.0)
                .bind(message.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(found.map(Into::into))
    }

    /// A page of what became of a message, by recipient and device.
    pub async fn deliveries(
        &self,
        message: MessageId,
        after: DeliveryCursor,
        limit: u32,
    ) -> Result<DeliveryPage> {
        let limit = limit.clamp(1, 200) as usize;
        let (heads, mut rows) = self
            .call(async |db| {
                let heads: Vec<(Option<Uuid>, Option<i8>)> = sqlx::query_as(
                    "SELECT upto_user, whole FROM push_decisions
                     WHERE message_id = $1 ORDER BY after_user DESC LIMIT 1",
                )
                .bind(message.0)
                .fetch_all(&mut *db)
                .await?;
                let rows: Vec<DeliveryRow> = sqlx::query_as(
                    "SELECT d.*, u.name, u.bot FROM (
                         SELECT s.user_id, '00000000-0000-0000-0000-000000000000'::uuid AS device_id,
                                NULL::text AS provider, s.letter, NULL::text AS state,
                                NULL::text AS reason, p.decided_at, 0::smallint AS attempts,
                                NULL::timestamptz AS attempted_at, NULL::timestamptz AS due_at,
                                NULL::timestamptz AS ended_at, NULL::text AS answer
                         FROM push_decisions p
                         CROSS JOIN LATERAL unnest(p.users, p.reasons) AS s (user_id, letter)
                         WHERE p.message_id = $1 AND (p.upto_user IS NULL OR p.upto_user >= $2)
                         UNION ALL
                         SELECT user_id, device_id, provider, NULL, state, reason, queued_at,
                                attempts, attempted_at, due_at, ended_at, answer
                         FROM pushes WHERE message_id = $1 AND chat_id IS NOT NULL
                     ) d LEFT JOIN users u ON u.id = d.user_id
                     WHERE (d.user_id, d.device_id) > ($2, $3)
                     ORDER BY d.user_id, d.device_id LIMIT $4",
                )
                .bind(message.0)
                .bind(after.user)
                .bind(after.device)
                .bind(limit as i64 + 1)
                .fetch_all(db)
                .await?;
                Ok::<_, sqlx::Error>((heads, rows))
            })
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more);
        let next = next.map(|row| DeliveryCursor { user: row.user_id, device: row.device_id });
        Ok(DeliveryPage {
            message_id: message,
            decided: heads.first().is_some_and(|(upto, _)| upto.is_none()),
            reason: heads.first().and_then(|(_, whole)| reason((*whole)?)),
            items: rows.into_iter().map(Into::into).collect(),
            next_cursor: next.map(|next| next.to_string()),
        })
    }
}
