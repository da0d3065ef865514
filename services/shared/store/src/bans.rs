//! Who may not come back to a group.

use natter_protocol::{
    ids::{ChatId, UserId},
    rest::Ban,
    server::UserCard,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Result, Store};

/// Where a page of bans ended. Times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanCursor {
    /// When the last one was banned.
    pub banned_at: OffsetDateTime,
    /// Who that is.
    pub id: UserId,
}

impl Store {
    /// A page of those who may not come back, and the cursor of the next page. At most 1,000 a page.
    ///
    /// # Errors
    /// `NotMember` when the caller takes no part, `Forbidden` when the caller is no owner or admin.
    pub async fn bans(
        &self,
        caller: UserId,
        chat: ChatId,
        cursor: Option<BanCursor>,
        limit: u32,
    ) -> Result<(Vec<Ban>, Option<BanCursor>)> {
        self.manages(caller, chat).await?;
        let limit = limit.clamp(1, 1_000) as usize;
        let mut found: Vec<(Uuid, String, bool, Uuid, OffsetDateTime)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT b.user_id, u.name, u.bot, b.banned_by, b.banned_at
                     FROM chat_bans b JOIN users u ON u.id = b.user_id
                     WHERE b.chat_id = $1
                       AND ($2::timestamptz IS NULL OR (b.banned_at, b.user_id) > ($2, $3))
                     ORDER BY b.banned_at, b.user_id LIMIT $4",
                )
                .bind(chat.0)
                .bind(cursor.map(|cursor| cursor.banned_at))
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
        let next =
            next.map(|(id, .., banned_at)| BanCursor { banned_at: *banned_at, id: (*id).into() });
        let bans = found.into_iter().map(|(id, name, bot, banned_by, banned_at)| Ban {
            user: UserCard { id: id.into(), name, bot },
            banned_by: banned_by.into(),
            banned_at,
        });
        Ok((bans.collect(), next))
    }

    /// Lets somebody come back who might not. Whoever is not banned stays so.
    ///
    /// # Errors
    /// `NotMember` when the caller takes no part, `Forbidden` when the caller is no owner or admin.
    pub async fn lift_ban(&self, caller: UserId, chat: ChatId, user: UserId) -> Result<()> {
        self.manages(caller, chat).await?;
        self.call(async |db| {
            sqlx::query("DELETE FROM chat_bans WHERE chat_id = $1 AND user_id = $2")
                .bind(chat.0)
                .bind(user.0)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }
}

/// Whether one of these may not come back. Asked under the chat's lock, as bans are made.
pub(crate) async fn any(tx: &mut PgConnection, chat: ChatId, users: &[Uuid]) -> Result<bool> {
    let any = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM chat_bans WHERE chat_id = $1 AND user_id = ANY($2))",
    )
    .bind(chat.0)
    .bind(users)
    .fetch_one(tx)
    .await?;
    Ok(any)
}

/// From here on this user may not come back.
///
/// # Errors
/// `NotFound` when there is no such user.
pub(crate) async fn add(
    tx: &mut PgConnection,
    chat: ChatId,
    user: UserId,
    actor: UserId,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO chat_bans (chat_id, user_id, banned_by) VALUES ($1, $2, $3)
         ON CONFLICT DO NOTHING",
    )
    .bind(chat.0)
    .bind(user.0)
    .bind(actor.0)
    .execute(tx)
    .await?;
    Ok(())
}
