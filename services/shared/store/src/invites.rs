//! Links into a group: whoever knows the code of one may join, until it has expired, is used up or
//! was revoked.

use std::time::Duration;

use natter_protocol::{
    ids::{ChatId, InviteId, UserId},
    limits,
    rest::{Invitation, Invite},
    server::Role,
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Conflict, Membership, Result, Store, StoreError,
    members::{self, changed, unchanged},
    roles::Acting,
};

/// An invite about to be made.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// Its id.
    pub id: InviteId,
    /// The SHA-256 of its code.
    pub hash: [u8; 32],
    /// For how long it is good.
    pub good_for: Duration,
    /// How many people may come by it.
    pub max_uses: Option<u32>,
}

/// Whether an invite is good.
macro_rules! good {
    () => {
        "expires_at > now() AND (max_uses IS NULL OR uses < max_uses)"
    };
}

#[derive(sqlx::FromRow)]
struct InviteRow {
    id: Uuid,
    created_by: Uuid,
    created_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    max_uses: Option<i32>,
    uses: i32,
}

impl From<InviteRow> for Invite {
    fn from(row: InviteRow) -> Self {
        Self {
            id: row.id.into(),
            created_by: row.created_by.into(),
            created_at: row.created_at,
            expires_at: row.expires_at,
            max_uses: row.max_uses.and_then(|uses| u32::try_from(uses).ok()),
            uses: u32::try_from(row.uses).unwrap_or(0),
        }
    }
}

impl Store {
    /// Makes an invite; gives until when it is good.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one, or an actor who is no
    /// owner or admin; `Conflict::Invites`.
    pub async fn create_invite(
        &self,
        actor: UserId,
        chat: ChatId,
        invite: &NewInvite,
    ) -> Result<OffsetDateTime> {
        self.transaction(async |tx| {
            Acting::of(tx, actor.into(), chat).await?.needs(Role::Admin)?;
            sqlx::query(concat!(
                "DELETE FROM chat_invites WHERE chat_id = $1 AND NOT (",
                good!(),
                ")"
            ))
            .bind(chat.0)
            .execute(&mut *tx)
            .await?;
            let count: i64 =
                sqlx::query_scalar("SELECT count(*) FROM chat_invites WHERE chat_id = $1")
                    .bind(chat.0)
                    .fetch_one(&mut *tx)
                    .await?;
            if count >= limits::INVITES {
                return Err(StoreError::Conflict(Conflict::Invites));
            }
            let expires_at = sqlx::query_scalar(
                "INSERT INTO chat_invites (id, chat_id, hash, created_by, expires_at, max_uses)
                 VALUES ($1, $2, $3, $4,
                         date_trunc('milliseconds', now() + make_interval(secs => $5)), $6)
                 RETURNING expires_at",
            )
            .bind(invite.id.0)
            .bind(chat.0)
            .bind(&invite.hash[..])
            .bind(actor.0)
            .bind(invite.good_for.as_secs_f64())
            .bind(invite.max_uses.map(|uses| i32::try_from(uses).unwrap_or(i32::MAX)))
            .fetch_one(tx)
            .await?;
            Ok(expires_at)
        })
        .await
    }

    /// The chat's invites that are good, oldest first.
    ///
    /// # Errors
    /// `NotMember` when the caller takes no part, `Forbidden` when the caller is no owner or admin.
    pub async fn invites(&self, caller: UserId, chat: ChatId) -> Result<Vec<Invite>> {
        self.manages(caller, chat).await?;
        let rows: Vec<InviteRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT id, created_by, created_at, expires_at, max_uses, uses
                     FROM chat_invites WHERE chat_id = $1 AND ",
                    good!(),
                    " ORDER BY created_at, id",
                ))
                .bind(chat.0)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Nobody comes by this invite any more.
    ///
    /// # Errors
    /// `NotMember` when the caller takes no part, `Forbidden` when the caller is no owner or admin,
    /// `NotFound` when the chat has no such invite.
    pub async fn revoke_invite(
        &self,
        caller: UserId,
        chat: ChatId,
        invite: InviteId,
    ) -> Result<()> {
        self.manages(caller, chat).await?;
        let gone = self
            .call(async |db| {
                sqlx::query("DELETE FROM chat_invites WHERE chat_id = $1 AND id = $2")
                    .bind(chat.0)
                    .bind(invite.0)
                    .execute(db)
                    .await
            })
            .await?;
        if gone.rows_affected() == 1 { Ok(()) } else { Err(StoreError::NotFound) }
    }

    /// What an invite leads to.
    ///
    /// # Errors
    /// `NotFound` when there is none with this hash that is good.
    pub async fn invitation(&self, hash: &[u8; 32]) -> Result<Invitation> {
        let found: (Uuid, Option<String>, Option<String>, i64, OffsetDateTime) = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT c.id, c.title, c.description, c.members, i.expires_at
                     FROM chat_invites i JOIN chats c ON c.id = i.chat_id
                     WHERE i.hash = $1 AND ",
                    good!(),
                ))
                .bind(&hash[..])
                .fetch_one(db)
                .await
            })
            .await?;
        let (chat_id, title, description, participant_count, expires_at) = found;
        let chat_id = ChatId(chat_id);
        Ok(Invitation { chat_id, title, description, participant_count, expires_at })
    }

    /// Makes the user a participant by an invite; one who is already stays so, and does not use it.
    ///
    /// # Errors
    /// `NotFound` when there is none with this hash that is good; `Conflict::Banned`.
    pub async fn join_by_invite(
        &self,
        user: UserId,
        hash: &[u8; 32],
    ) -> Result<(ChatId, Membership)> {
        self.transaction(async |tx| {
            // Whoever changes who takes part locks the chat first; the invite may have gone by the
            // time that it is.
            let chat: Uuid = sqlx::query_scalar("SELECT chat_id FROM chat_invites WHERE hash = $1")
                .bind(&hash[..])
                .fetch_one(&mut *tx)
                .await?;
            let chat = ChatId(chat);
            let place = members::lock_chat(tx, chat).await?;
            let used: Option<Uuid> = sqlx::query_scalar(concat!(
                "SELECT id FROM chat_invites WHERE hash = $1 AND ",
                good!(),
                " FOR UPDATE",
            ))
            .bind(&hash[..])
            .fetch_optional(&mut *tx)
            .await?;
            let invite = used.ok_or(StoreError::NotFound)?;
            if members::current_role(tx, user, chat).await?.is_some() {
                return Ok((chat, unchanged(place.shard)));
            }
            sqlx::query("UPDATE chat_invites SET uses = uses + 1 WHERE id = $1")
                .bind(invite)
                .execute(&mut *tx)
                .await?;
            members::enter(tx, user, chat, &place).await?;
            Ok((chat, changed(place.shard, chat)))
        })
        .await
    }
}
