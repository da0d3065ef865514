//! Users: registration, credentials, profile, search, and the users of an outside issuer.

use std::{collections::HashMap, fmt};

use natter_protocol::{
    feed::{ProfileChanged, UserChange},
    ids::{DeviceId, Shard, UserId},
    rest::{Device, User},
    server::UserCard,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Conflict, NewDevice, NewRefresh, Result, Store, StoreError,
    devices::{self, Which},
    outbox,
    rows::{UserRow, fold, shard, sql_shard},
    sessions, webhooks,
};

/// Names looked up by one call.
const NAMES: usize = 10_000;

#[derive(sqlx::FromRow)]
struct CredentialsRow {
    #[sqlx(flatten)]
    user: UserRow,
    password_hash: String,
    disabled: bool,
}

impl From<CredentialsRow> for Credentials {
    fn from(row: CredentialsRow) -> Self {
        let CredentialsRow { user, password_hash, disabled } = row;
        Self { user: user.into(), password_hash, disabled }
    }
}

/// Somebody who registers, on a device that is logged in at once.
pub struct NewUser {
    /// The user's id.
    pub id: UserId,
    /// Shown to others.
    pub name: String,
    /// As given; at least one of phone and e-mail.
    pub phone: Option<String>,
    /// As given; upper and lower case are the same when compared.
    pub email: Option<String>,
    /// A PHC string.
    pub password_hash: String,
    /// Where the user's feed lives, for ever.
    pub shard: Shard,
    /// The device.
    pub device: NewDevice,
    /// Its first refresh token.
    pub refresh: NewRefresh,
}

/// What a user logs in with.
#[derive(Clone, Copy)]
pub enum Login<'a> {
    /// A whole phone number.
    Phone(&'a str),
    /// A whole e-mail address, in any case.
    Email(&'a str),
}

/// What a password is checked against.
pub struct Credentials {
    /// Whose they are.
    pub user: User,
    /// A PHC string, or a bcrypt hash of an imported user who has not logged in here yet.
    pub password_hash: String,
    /// Nobody is let in as the user, whatever the password.
    pub disabled: bool,
}

/// Without the hash.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user.id).finish_non_exhaustive()
    }
}

/// How users are looked up.
#[derive(Clone, Copy)]
pub enum UserSearch<'a> {
    /// By the start of the name, in any case.
    NamePrefix(&'a str),
    /// By a whole phone number.
    Phone(&'a str),
    /// By a whole e-mail address, in any case.
    Email(&'a str),
}

impl Store {
    /// Makes a user with a device that is logged in.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when phone, e-mail, user id or device id is taken.
    pub async fn create_user(&self, new: &NewUser) -> Result<(User, Device)> {
        self.transaction(async |tx| {
        let user: UserRow = sqlx::query_as(
            "INSERT INTO users (id, name, name_lower, phone, email, email_lower, password_hash, shard)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             RETURNING id, name, phone, email, bot",
        )
        .bind(new.id.0)
        .bind(&new.name)
        .bind(fold(&new.name))
        .bind(&new.phone)
        .bind(&new.email)
        .bind(new.email.as_deref().map(fold))
        .bind(&new.password_hash)
        .bind(sql_shard(new.shard))
        .fetch_one(&mut *tx)
        .await?;
        let device = sessions::start(tx, new.id, &new.device, &new.refresh).await?;
        Ok((user.into(), device))
        })
        .await
    }

    /// The user who logs in so, with the password's hash; none when there is no such user or
    /// the user has no password (an outside issuer's).
    pub async fn credentials(&self, login: Login<'_>) -> Result<Option<Credentials>> {
        let (phone, email) = match login {
            Login::Phone(phone) => (Some(phone), None),
            Login::Email(email) => (None, Some(fold(email))),
        };
        // One of the two is null, and equals nothing.
        let row: Option<CredentialsRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, name, phone, email, bot, password_hash,
                            disabled_at IS NOT NULL AS disabled FROM users
             WHERE (phone = $1 OR email_lower = $2) AND password_hash IS NOT NULL",
                )
                .bind(phone)
                .bind(email)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// A user by id, with the password's hash where there is one.
    pub async fn credentials_of(&self, user: UserId) -> Result<Option<Credentials>> {
        let row: Option<CredentialsRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, name, phone, email, bot, password_hash,
                            disabled_at IS NOT NULL AS disabled FROM users
             WHERE id = $1 AND password_hash IS NOT NULL",
                )
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// A user as seen by oneself.
    pub async fn user(&self, user: UserId) -> Result<Option<User>> {
        let row: Option<UserRow> = self
            .call(async |db| {
                sqlx::query_as("SELECT id, name, phone, email, bot FROM users WHERE id = $1")
                    .bind(user.0)
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// Changes what is given: `None` stays, `Some(None)` takes away. Returns the user, and the
    /// lane to relay when the name has changed.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when phone or e-mail is taken, or neither would be left.
    pub async fn update_user(
        &self,
        user: UserId,
        name: Option<&str>,
        phone: Option<Option<&str>>,
        email: Option<Option<&str>>,
    ) -> Result<(User, Option<Uuid>)> {
        self.transaction(async |tx| {
            // The lock gives the user's outbox rows the order of the changes.
            let (old_name, user_shard, can_log_in): (String, i16, bool) = sqlx::query_as(
                "SELECT name, shard, password_hash IS NOT NULL FROM users
             WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
            )
            .bind(user.0)
            .fetch_one(&mut *tx)
            .await?;
            let row: UserRow = sqlx::query_as(
                "UPDATE users SET
                 name = COALESCE($2, name),
                 name_lower = COALESCE($3, name_lower),
                 phone = CASE WHEN $4 THEN $5 ELSE phone END,
                 email = CASE WHEN $6 THEN $7 ELSE email END,
                 email_lower = CASE WHEN $6 THEN $8 ELSE email_lower END
             WHERE id = $1
             RETURNING id, name, phone, email, bot",
            )
            .bind(user.0)
            .bind(name)
            .bind(name.map(fold))
            .bind(phone.is_some())
            .bind(phone.flatten())
            .bind(email.is_some())
            .bind(email.flatten())
            .bind(email.flatten().map(fold))
            .fetch_one(&mut *tx)
            .await?;
            if can_log_in && row.phone.is_none() && row.email.is_none() {
                return Err(StoreError::Conflict(Conflict::LastLogin));
            }
            let lane = if row.name == old_name {
                None
            } else {
                let change = UserChange::ProfileChanged(ProfileChanged { name: row.name.clone() });
                Some(outbox::add_for_user(tx, user, shard(user_shard), change).await?)
            };
            Ok((row.into(), lane))
        })
        .await
    }

    /// Sets the password, if it still is the one that was checked, and signs out every device but
    /// `keep_device`. Returns the user's lane, to relay; none when the password has been changed
    /// since, or there is no such user.
    pub async fn set_password(
        &self,
        user: UserId,
        current_hash: &str,
        new_hash: &str,
        keep_device: DeviceId,
    ) -> Result<Option<Uuid>> {
        self.transaction(async |tx| {
            let user_shard: Option<i16> = sqlx::query_scalar(
                "UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2
                 RETURNING shard",
            )
            .bind(user.0)
            .bind(current_hash)
            .bind(new_hash)
            .fetch_optional(&mut *tx)
            .await?;
            let Some(user_shard) = user_shard else { return Ok(None) };
            devices::end_logins(tx, user, shard(user_shard), Which::AllBut(keep_device)).await?;
            Ok(Some(user.0))
        })
        .await
    }

    /// Puts another hash of the same password in the place of the one that was checked, if that still
    /// is the user's. Logins stay.
    pub async fn hash_anew(&self, user: UserId, current: &str, new: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query("UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
                .bind(user.0)
                .bind(current)
                .bind(new)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// At most `limit` users (100 at most), by name.
    pub async fn search_users(&self, search: UserSearch<'_>, limit: u32) -> Result<Vec<UserCard>> {
        let limit = i64::from(limit.min(100));
        let rows: Vec<(Uuid, String, bool)> = match search {
            // Everything that starts with the prefix lies between it and itself followed by the
            // greatest character: a range of the index, whatever the prefix holds.
            UserSearch::NamePrefix(prefix) => {
                self.call(async |db| {
                    sqlx::query_as(
                        "SELECT id, name, bot FROM users
                     WHERE name_lower >= $1 AND name_lower < $1 || chr(1114111)
                       AND deleted_at IS NULL
                     ORDER BY name_lower, id LIMIT $2",
                    )
                    .bind(fold(prefix))
                    .bind(limit)
                    .fetch_all(db)
                    .await
                })
                .await?
            }
            UserSearch::Phone(phone) => {
                self.call(async |db| {
                    sqlx::query_as("SELECT id, name, bot FROM users WHERE phone = $1 LIMIT $2")
                        .bind(phone)
                        .bind(limit)
                        .fetch_all(db)
                        .await
                })
                .await?
            }
            UserSearch::Email(email) => {
                self.call(async |db| {
                    sqlx::query_as(
                        "SELECT id, name, bot FROM users WHERE email_lower = $1 LIMIT $2",
                    )
                    .bind(fold(email))
                    .bind(limit)
                    .fetch_all(db)
                    .await
                })
                .await?
            }
        };
        let card = |(id, name, bot): (Uuid, String, bool)| UserCard { id: id.into(), name, bot };
        Ok(rows.into_iter().map(card).collect())
    }

    /// The names of those users that exist; at most the first 10,000 asked for.
    pub async fn names(&self, users: &[UserId]) -> Result<HashMap<UserId, String>> {
        let ids: Vec<Uuid> = users.iter().take(NAMES).map(|user| user.0).collect();
        let rows: Vec<(Uuid, String)> = self
            .call(async |db| {
                sqlx::query_as("SELECT id, name FROM users WHERE id = ANY($1)")
                    .bind(ids)
                    .fetch_all(db)
                    .await
            })
            .await?;
        Ok(rows.into_iter().map(|(id, name)| (id.into(), name)).collect())
    }

    /// The user and device behind an outside issuer's token, made when first seen. `user_shard`
    /// is used for a new user only; `name` too, so that a name changed here stays. A device that
    /// was revoked is returned as it is: see [`Store::device_state`].
    ///
    /// # Errors
    /// `Forbidden` for a user whose account is deleted.
    pub async fn ensure_external(
        &self,
        issuer: &str,
        subject: &str,
        device_external_id: &str,
        name: Option<&str>,
        user_shard: Shard,
    ) -> Result<(UserId, DeviceId)> {
        // Nearly always both are there.
        let known: Option<(Uuid, Uuid)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT u.id, d.id FROM users u JOIN devices d ON d.user_id = u.id
             WHERE u.issuer = $1 AND u.external_subject = $2 AND d.external_id = $3",
                )
                .bind(issuer)
                .bind(subject)
                .bind(device_external_id)
                .fetch_optional(db)
                .await
            })
            .await?;
        if let Some((user, device)) = known {
            return Ok((user.into(), device.into()));
        }
        let name = name.unwrap_or("User");
        self.transaction(async |tx| {
            let user = external_user(tx, issuer, subject, name, user_shard).await?;
            let device = external_device(tx, user, device_external_id).await?;
            Ok((user, device))
        })
        .await
    }
}

/// The user of an outside issuer, made if need be. Two connections may see the same user first at once. The
/// insert of the second waits for the first to commit and then does nothing; what is read next, by a
/// statement of its own, is then there for both. So it is with the device.
async fn external_user(
    tx: &mut PgConnection,
    issuer: &str,
    subject: &str,
    name: &str,
    user_shard: Shard,
) -> Result<UserId> {
    sqlx::query(
        "INSERT INTO users (id, name, name_lower, issuer, external_subject, shard)
         SELECT $1, $2, $3, $4, $5, $6
         WHERE NOT EXISTS (
             SELECT FROM users WHERE issuer = $4 AND external_subject =
                 'deleted:' || encode(sha256(convert_to($5, 'UTF8')), 'hex')
         )
         ON CONFLICT ON CONSTRAINT users_external_key DO NOTHING",
    )
    .bind(UserId::generate().0)
    .bind(name)
    .bind(fold(name))
    .bind(issuer)
    .bind(subject)
    .bind(sql_shard(user_shard))
    .execute(&mut *tx)
    .await?;
    let user: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM users
         WHERE issuer = $1 AND external_subject = $2 AND deleted_at IS NULL",
    )
    .bind(issuer)
    .bind(subject)
    .fetch_optional(tx)
    .await?;
    user.map(Into::into).ok_or(StoreError::Forbidden)
}

/// The same for a device of the user's.
async fn external_device(
    tx: &mut PgConnection,
    user: UserId,
    external_id: &str,
) -> Result<DeviceId> {
    let made: Option<Uuid> = sqlx::query_scalar(
        "INSERT INTO devices (id, user_id, external_id, last_seen_at)
         VALUES ($1, $2, $3, date_trunc('milliseconds', now()))
         ON CONFLICT ON CONSTRAINT devices_external_key DO NOTHING
         RETURNING id",
    )
    .bind(DeviceId::generate().0)
    .bind(user.0)
    .bind(external_id)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(device) = made.map(DeviceId) {
        webhooks::device_added(tx, user, device).await?;
        return Ok(device);
    }
    let device: Uuid =
        sqlx::query_scalar("SELECT id FROM devices WHERE user_id = $1 AND external_id = $2")
            .bind(user.0)
            .bind(external_id)
            .fetch_one(tx)
            .await?;
    Ok(device.into())
}
