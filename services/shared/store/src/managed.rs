//! Users as the servers of an embedding product manage them: made without a password, changed, disabled
//! and enabled, their devices logged in.

use natter_protocol::{
    feed::{ProfileChanged, UserChange},
    ids::{ChatId, Shard, UserId},
    rest::{Device, User},
    server::{Chat, UserCard},
    service::ServerUser,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Conflict, NewDevice, NewRefresh, Result, Store, StoreError, outbox,
    rows::{self, fold, sql_shard},
    sessions, views,
};

/// What an embedding product calls a user, or what Natter does.
#[derive(Clone, Copy, Debug)]
pub enum Called<'a> {
    /// By the product.
    ExternalId(&'a str),
    /// By Natter.
    Id(UserId),
}

/// A user who is made without a password.
#[derive(Clone, Copy, Debug)]
pub struct NewManagedUser<'a> {
    /// The user's id.
    pub id: UserId,
    /// What the embedding product calls the user.
    pub external_id: Option<&'a str>,
    /// Shown to others.
    pub name: &'a str,
    /// As given.
    pub phone: Option<&'a str>,
    /// As given; upper and lower case are the same when compared.
    pub email: Option<&'a str>,
    /// A program, and no person.
    pub bot: bool,
    /// Where the user's feed lives, for ever.
    pub shard: Shard,
}

/// What is to change about a user; what is `None` stays, `Some(None)` is taken away.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserEdit<'a> {
    /// Shown to others.
    pub name: Option<&'a str>,
    /// A phone number.
    pub phone: Option<Option<&'a str>>,
    /// An e-mail address.
    pub email: Option<Option<&'a str>>,
    /// What the embedding product calls the user.
    pub external_id: Option<Option<&'a str>>,
}

/// Somebody in whose name a server sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Who.
    pub card: UserCard,
    /// Nobody is let in as the user.
    pub disabled: bool,
}

#[derive(sqlx::FromRow)]
struct ManagedRow {
    id: Uuid,
    external_id: Option<String>,
    name: String,
    phone: Option<String>,
    email: Option<String>,
    bot: bool,
    disabled: bool,
}

impl From<ManagedRow> for ServerUser {
    fn from(row: ManagedRow) -> Self {
        let ManagedRow { id, external_id, name, phone, email, bot, disabled } = row;
        Self { id: id.into(), external_id, name, phone, email, bot, disabled }
    }
}

/// What a [`ManagedRow`] has.
macro_rules! managed {
    () => {
        "id, external_id, name, phone, email, bot, disabled_at IS NOT NULL AS disabled"
    };
}

impl Store {
    /// Makes a user without a password, or finds the one that the product calls so, who stays as they
    /// are; tells whether the user is new.
    ///
    /// # Errors
    /// `Conflict` when phone or e-mail is somebody else's.
    pub async fn ensure_managed(&self, new: &NewManagedUser<'_>) -> Result<(ServerUser, bool)> {
        if let Some(id) = new.external_id
            && let Some(there) = self.managed(Called::ExternalId(id)).await?
        {
            return Ok((there, false));
        }
        // Two who make the same user at once: the second waits here for the first to commit, does
        // nothing, and finds it below.
        let made: Option<ManagedRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "INSERT INTO users (id, external_id, name, name_lower, phone, email,
                                        email_lower, bot, shard)
                     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
                     ON CONFLICT ON CONSTRAINT users_external_id_key DO NOTHING RETURNING ",
                    managed!()
                ))
                .bind(new.id.0)
                .bind(new.external_id)
                .bind(new.name)
                .bind(fold(new.name))
                .bind(new.phone)
                .bind(new.email)
                .bind(new.email.map(fold))
                .bind(new.bot)
                .bind(sql_shard(new.shard))
                .fetch_optional(db)
                .await
            })
            .await?;
        if let Some(made) = made {
            return Ok((made.into(), true));
        }
        let there = match new.external_id {
            Some(id) => self.managed(Called::ExternalId(id)).await?,
            None => None,
        };
        there.map(|there| (there, false)).ok_or(StoreError::NotFound)
    }

    /// A user, as the embedding product sees them; none of a deleted account.
    pub async fn managed(&self, called: Called<'_>) -> Result<Option<ServerUser>> {
        let row: Option<ManagedRow> = self
            .call(async |db| match called {
                Called::ExternalId(id) => {
                    sqlx::query_as(concat!(
                        "SELECT ",
                        managed!(),
                        " FROM users WHERE external_id = $1"
                    ))
                    .bind(id)
                    .fetch_optional(db)
                    .await
                }
                Called::Id(user) => {
                    sqlx::query_as(concat!(
                        "SELECT ",
                        managed!(),
                        " FROM users WHERE id = $1 AND deleted_at IS NULL"
                    ))
                    .bind(user.0)
                    .fetch_optional(db)
                    .await
                }
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// Changes a user. Returns them, and the lane to relay when the name has changed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when phone, e-mail or external id is another's, or a user with a password
    /// would have nothing to log in with.
    pub async fn change_managed(
        &self,
        user: UserId,
        edit: &UserEdit<'_>,
    ) -> Result<(ServerUser, Option<Uuid>)> {
        self.transaction(async |tx| {
            // The lock gives the user's outbox rows the order of the changes.
            let before: (String, i16, bool) = lock(tx, user).await?;
            let (old_name, user_shard, can_log_in) = before;
            let row: ManagedRow = sqlx::query_as(concat!(
                "UPDATE users SET
                     name = COALESCE($2, name),
                     name_lower = COALESCE($3, name_lower),
                     phone = CASE WHEN $4 THEN $5 ELSE phone END,
                     email = CASE WHEN $6 THEN $7 ELSE email END,
                     email_lower = CASE WHEN $6 THEN $8 ELSE email_lower END,
                     external_id = CASE WHEN $9 THEN $10 ELSE external_id END
                 WHERE id = $1 RETURNING ",
                managed!()
            ))
            .bind(user.0)
            .bind(edit.name)
            .bind(edit.name.map(fold))
            .bind(edit.phone.is_some())
            .bind(edit.phone.flatten())
            .bind(edit.email.is_some())
            .bind(edit.email.flatten())
            .bind(edit.email.flatten().map(fold))
            .bind(edit.external_id.is_some())
            .bind(edit.external_id.flatten())
            .fetch_one(&mut *tx)
            .await?;
            if can_log_in && row.phone.is_none() && row.email.is_none() {
                return Err(StoreError::Conflict(Conflict::LastLogin));
            }
            let lane = if row.name == old_name {
                None
            } else {
                let change = UserChange::ProfileChanged(ProfileChanged { name: row.name.clone() });
                Some(outbox::add_for_user(tx, user, rows::shard(user_shard), change).await?)
            };
            Ok((row.into(), lane))
        })
        .await
    }

    /// Lets nobody in as the user from here on, or does again. What the user's devices have stays as it
    /// is. Returns the user, and the lane to relay when connections are to close.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn set_disabled(
        &self,
        user: UserId,
        disabled: bool,
    ) -> Result<(ServerUser, Option<Uuid>)> {
        self.transaction(async |tx| {
            let (_, user_shard, _) = lock(tx, user).await?;
            let row: ManagedRow = sqlx::query_as(concat!(
                "UPDATE users SET disabled_at =
                     CASE WHEN $2 THEN COALESCE(disabled_at, date_trunc('milliseconds', now())) END
                 WHERE id = $1 RETURNING ",
                managed!()
            ))
            .bind(user.0)
            .bind(disabled)
            .fetch_one(&mut *tx)
            .await?;
            // Also of one who was disabled before: then it closes what a fault may have left open.
            let lane = if disabled {
                let change = UserChange::Disabled;
                Some(outbox::add_for_user(tx, user, rows::shard(user_shard), change).await?)
            } else {
                None
            };
            Ok((row.into(), lane))
        })
        .await
    }

    /// Whether nobody is let in as the user: disabled, deleted, or none that there is.
    pub async fn is_shut_out(&self, user: UserId) -> Result<bool> {
        self.call(async |db| {
            sqlx::query_scalar(
                "SELECT NOT EXISTS (
                     SELECT FROM users
                     WHERE id = $1 AND disabled_at IS NULL AND deleted_at IS NULL
                 )",
            )
            .bind(user.0)
            .fetch_one(db)
            .await
        })
        .await
    }

    /// Logs a device of a user in, without a password. A device id of this user's is used again, as
    /// with [`Store::log_in`].
    ///
    /// # Errors
    /// `NotFound`; `Forbidden` for one who is disabled; `Conflict(Device)` when the device is another
    /// user's.
    pub async fn log_device_in(
        &self,
        user: UserId,
        device: &NewDevice,
        refresh: &NewRefresh,
    ) -> Result<(User, Device)> {
        self.transaction(async |tx| {
            // Whoever deletes or disables the user waits for this, and then ends this login too.
            let row: (String, Option<String>, Option<String>, bool, bool) = sqlx::query_as(
                "SELECT name, phone, email, bot, disabled_at IS NOT NULL FROM users
                 WHERE id = $1 AND deleted_at IS NULL FOR SHARE",
            )
            .bind(user.0)
            .fetch_one(&mut *tx)
            .await?;
            let (name, phone, email, bot, disabled) = row;
            if disabled {
                return Err(StoreError::Forbidden);
            }
            let device = sessions::start(tx, user, device, refresh).await?;
            Ok((User { id: user, name, phone, email, bot }, device))
        })
        .await
    }

    /// Somebody in whose name a server sends; none of a deleted account.
    pub async fn speaker(&self, user: UserId) -> Result<Option<Speaker>> {
        let row: Option<(String, bool, bool)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT name, bot, disabled_at IS NOT NULL FROM users
                     WHERE id = $1 AND deleted_at IS NULL",
                )
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|(name, bot, disabled)| Speaker {
            card: UserCard { id: user, name, bot },
            disabled,
        }))
    }

    /// The shard of a chat's feed; none when there is no such chat, or not any more.
    pub async fn chat_shard(&self, chat: ChatId) -> Result<Option<Shard>> {
        let shard: Option<i16> = self
            .call(async |db| {
                sqlx::query_scalar("SELECT shard FROM chats WHERE id = $1 AND deleted_at IS NULL")
                    .bind(chat.0)
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(shard.map(rows::shard))
    }

    /// A chat as all see it, without anybody's own part; none when there is no such chat, or not any
    /// more.
    pub async fn chat_for_all(&self, chat: ChatId) -> Result<Option<Chat>> {
        if self.chat_shard(chat).await?.is_none() {
            return Ok(None);
        }
        self.call(async |db| views::shared(db, chat.0).await).await.map(Some)
    }
}

/// Locks a user whose account is not deleted: the name, the feed's shard, whether there is a password.
async fn lock(tx: &mut PgConnection, user: UserId) -> Result<(String, i16, bool)> {
    let found = sqlx::query_as(
        "SELECT name, shard, password_hash IS NOT NULL FROM users
         WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
    )
    .bind(user.0)
    .fetch_one(tx)
    .await?;
    Ok(found)
}
