//! Logging in, and refresh tokens that rotate.
//!
//! A refresh token is good for one use. A used one stays, marked, so that a second use is seen:
//! then either the client or a thief holds a copy, nobody can tell which, and the whole family
//! (all tokens since that login) is void and the device signed out. So **a client refreshes
//! single-flight**: of two uses at the same time one wins, the other is a replay.

use natter_protocol::{
    ids::{DeviceId, Shard, UserId},
    rest::{Device, User},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Conflict, Result, Store, StoreError,
    devices::{self, Which},
    rows::{DeviceRow, UserRow, fold, shard, sql_shard},
    webhooks,
};

/// A device that logs in.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Given by a device that has logged in before; made otherwise.
    pub id: DeviceId,
    /// As it calls itself.
    pub name: Option<String>,
    /// As it calls itself.
    pub platform: Option<String>,
    /// The login: tokens carry it as `sid`, and count only while it is the device's.
    pub session: Uuid,
}

/// A refresh token, stored hashed.
#[derive(Clone, Debug)]
pub struct NewRefresh {
    /// SHA-256 of the token, which is random and long, so no slow hash is needed.
    pub hash: [u8; 32],
    /// When it can no longer be used.
    pub expires_at: OffsetDateTime,
}

/// What became of a refresh token that was shown.
#[derive(Clone, Debug)]
pub enum Rotation {
    /// It was good; the new one takes its place.
    Rotated {
        /// Whose it is.
        user: User,
        /// On which device.
        device: Device,
        /// The device's session, unchanged.
        session: Uuid,
    },
    /// It was used before: its family is void and its device signed out.
    Replayed {
        /// Whose it was.
        user: UserId,
        /// Which device was signed out.
        device: DeviceId,
        /// To relay; none when there was nothing left to sign out.
        lane: Option<Uuid>,
    },
    /// There is no such token, or it has expired, or its login is over.
    Unknown,
    /// The account is disabled; the token is as good afterwards as before.
    Disabled,
}

impl Store {
    /// Logs a user in on a device, if the password still is the one that was checked: none when it
    /// has been changed since, or there is no such user. A device id of this user's is used again
    /// (also a revoked one: whoever knows the password may): it gets the new session, and tokens of
    /// the one before are void.
    ///
    /// # Errors
    /// `Conflict(Device)` when the device is another user's.
    pub async fn log_in(
        &self,
        user: UserId,
        password_hash: &str,
        device: &NewDevice,
        refresh: &NewRefresh,
    ) -> Result<Option<Device>> {
        self.transaction(async |tx| {
            // A change of the password waits for this, and then signs this login out; or this
            // waits for it, and then finds another hash. Both lock the user first, then devices.
            let unchanged: Option<i32> = sqlx::query_scalar(
                "SELECT 1 FROM users WHERE id = $1 AND password_hash = $2 FOR SHARE",
            )
            .bind(user.0)
            .bind(password_hash)
            .fetch_optional(&mut *tx)
            .await?;
            if unchanged.is_none() {
                return Ok(None);
            }
            start(tx, user, device, refresh).await.map(Some)
        })
        .await
    }

    /// The login of a user's device, made without a password, for tests of a deployment: whatever is
    /// missing of user, device and login is made, with `name` for both and without a refresh token.
    /// A login that there is stays.
    ///
    /// # Errors
    /// `Conflict(Device)` when the device is another user's; `Forbidden` when it is revoked, an
    /// outside issuer's, or of a user who is deleted.
    pub async fn ensure_login(
        &self,
        user: UserId,
        device: DeviceId,
        name: &str,
        user_shard: Shard,
    ) -> Result<Uuid> {
        self.transaction(async |tx| {
            sqlx::query(
                "INSERT INTO users (id, name, name_lower, shard) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(user.0)
            .bind(name)
            .bind(fold(name))
            .bind(sql_shard(user_shard))
            .execute(&mut *tx)
            .await?;
            sqlx::query(
                "INSERT INTO devices (id, user_id, name) VALUES ($1, $2, $3)
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(name)
            .execute(&mut *tx)
            .await?;
            let new = Uuid::new_v4();
            let login: Option<Uuid> = sqlx::query_scalar(
                "UPDATE devices SET session = coalesce(session, $3)
                 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL AND external_id IS NULL
                   AND EXISTS (SELECT FROM users WHERE id = $2 AND deleted_at IS NULL)
                 RETURNING session",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(new)
            .fetch_optional(&mut *tx)
            .await?;
            if let Some(login) = login {
                if login == new {
                    webhooks::device_added(tx, user, device).await?;
                }
                return Ok(login);
            }
            let owner: Uuid = sqlx::query_scalar("SELECT user_id FROM devices WHERE id = $1")
                .bind(device.0)
                .fetch_one(tx)
                .await?;
            let another = StoreError::Conflict(Conflict::Device);
            Err(if owner == user.0 { StoreError::Forbidden } else { another })
        })
        .await
    }

    /// Takes a refresh token and puts a new one of the same family in its place.
    pub async fn rotate_refresh(&self, old_hash: &[u8; 32], new: &NewRefresh) -> Result<Rotation> {
        self.transaction(async |tx| {
            let Some(device_id) = device_of(tx, old_hash).await? else {
                return Ok(Rotation::Unknown);
            };
            // The device is the lock of its login: of two rotations of one token, and of a rotation
            // and a sign-out, the second waits here and then sees what the first has done.
            let login: Option<LoginRow> = sqlx::query_as(
            "SELECT d.user_id, d.session, d.revoked_at IS NOT NULL AS revoked, u.shard AS user_shard,
                    u.disabled_at IS NOT NULL AS disabled
             FROM devices d JOIN users u ON u.id = d.user_id
             WHERE d.id = $1 FOR NO KEY UPDATE OF d",
        )
        .bind(device_id)
        .fetch_optional(&mut *tx)
        .await?;
            // A statement of its own: the one above may have waited, and its snapshot is older.
            let token: Option<TokenRow> = sqlx::query_as(
                "SELECT family, used_at IS NOT NULL AS used, expires_at <= now() AS expired
             FROM refresh_tokens WHERE hash = $1",
            )
            .bind(old_hash.as_slice())
            .fetch_optional(&mut *tx)
            .await?;
            let (Some(login), Some(token)) = (login, token) else {
                return Ok(Rotation::Unknown);
            };
            if token.used {
                let rotation = replayed(tx, &login, device_id, token.family).await?;
                return Ok(rotation);
            }
            if token.expired || login.revoked || login.session != Some(token.family) {
                return Ok(Rotation::Unknown);
            }
            if login.disabled {
                return Ok(Rotation::Disabled);
            }
            let rotation = rotated(tx, &login, device_id, token.family, old_hash, new).await?;
            Ok(rotation)
        })
        .await
    }
}

#[derive(sqlx::FromRow)]
struct LoginRow {
    user_id: Uuid,
    session: Option<Uuid>,
    revoked: bool,
    user_shard: i16,
    disabled: bool,
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    family: Uuid,
    used: bool,
    expired: bool,
}

/// Puts a session on a device, which is made or used again, with the session's first token.
pub(crate) async fn start(
    tx: &mut PgConnection,
    user: UserId,
    device: &NewDevice,
    refresh: &NewRefresh,
) -> Result<Device> {
    // Two first log-ins of one device: the second waits here for the first, does nothing, and
    // finds below what the first has made.
    let made: Option<DeviceRow> = sqlx::query_as(
        "INSERT INTO devices (id, user_id, name, platform, session, last_seen_at)
         VALUES ($1, $2, $3, $4, $5, date_trunc('milliseconds', now()))
         ON CONFLICT (id) DO NOTHING
         RETURNING id, name, platform, created_at, last_seen_at",
    )
    .bind(device.id.0)
    .bind(user.0)
    .bind(&device.name)
    .bind(&device.platform)
    .bind(device.session)
    .fetch_optional(&mut *tx)
    .await?;
    let row = match made {
        Some(row) => row,
        None => take_over(tx, user, device).await?,
    };
    // Behind the end of the login before, if it is told of that.
    webhooks::device_added(tx, user, device.id).await?;
    sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1")
        .bind(device.id.0)
        .execute(&mut *tx)
        .await?;
    add_token(tx, user.0, device.id.0, device.session, refresh).await?;
    Ok(row.into())
}

/// Puts the session on a device that is there. The login before ends, its connections too: whoever
/// revokes the device later means what is there by then.
async fn take_over(tx: &mut PgConnection, user: UserId, device: &NewDevice) -> Result<DeviceRow> {
    let before: Option<(Option<Uuid>, i16)> = sqlx::query_as(
        "SELECT d.session, u.shard FROM devices d JOIN users u ON u.id = d.user_id
         WHERE d.id = $1 AND d.user_id = $2 FOR NO KEY UPDATE OF d",
    )
    .bind(device.id.0)
    .bind(user.0)
    .fetch_optional(&mut *tx)
    .await?;
    let (ended, user_shard) = before.ok_or(StoreError::Conflict(Conflict::Device))?;
    if ended.is_some() {
        devices::signed_out(tx, user, shard(user_shard), &[(device.id.0, ended)]).await?;
    }
    let row = sqlx::query_as(
        "UPDATE devices SET
             name = COALESCE($2, name),
             platform = COALESCE($3, platform),
             session = $4,
             last_seen_at = date_trunc('milliseconds', now()),
             revoked_at = NULL
         WHERE id = $1
         RETURNING id, name, platform, created_at, last_seen_at",
    )
    .bind(device.id.0)
    .bind(&device.name)
    .bind(&device.platform)
    .bind(device.session)
    .fetch_one(tx)
    .await?;
    Ok(row)
}

async fn add_token(
    tx: &mut PgConnection,
    user: Uuid,
    device: Uuid,
    family: Uuid,
    token: &NewRefresh,
) -> Result<()> {
    sqlx::query(
        "INSERT INTO refresh_tokens (hash, family, user_id, device_id, expires_at)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(token.hash.as_slice())
    .bind(family)
    .bind(user)
    .bind(device)
    .bind(token.expires_at)
    .execute(tx)
    .await?;
    Ok(())
}

async fn device_of(tx: &mut PgConnection, hash: &[u8; 32]) -> Result<Option<Uuid>> {
    let device = sqlx::query_scalar("SELECT device_id FROM refresh_tokens WHERE hash = $1")
        .bind(hash.as_slice())
        .fetch_optional(tx)
        .await?;
    Ok(device)
}

async fn rotated(
    tx: &mut PgConnection,
    login: &LoginRow,
    device: Uuid,
    family: Uuid,
    old_hash: &[u8; 32],
    new: &NewRefresh,
) -> Result<Rotation> {
    sqlx::query("UPDATE refresh_tokens SET used_at = now() WHERE hash = $1")
        .bind(old_hash.as_slice())
        .execute(&mut *tx)
        .await?;
    // Used tokens are kept to tell a replay; an expired one is refused anyway.
    sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1 AND expires_at <= now()")
        .bind(device)
        .execute(&mut *tx)
        .await?;
    add_token(tx, login.user_id, device, family, new).await?;
    let device: DeviceRow = sqlx::query_as(
        "UPDATE devices SET last_seen_at = GREATEST(last_seen_at, date_trunc('milliseconds', now()))
         WHERE id = $1 RETURNING id, name, platform, created_at, last_seen_at",
    )
    .bind(device)
    .fetch_one(&mut *tx)
    .await?;
    let user: UserRow =
        sqlx::query_as("SELECT id, name, phone, email, bot FROM users WHERE id = $1")
            .bind(login.user_id)
            .fetch_one(tx)
            .await?;
    Ok(Rotation::Rotated { user: user.into(), device: device.into(), session: family })
}

/// Voids the family of a token that was used twice. The device is signed out only if the family
/// is its login: it may have logged in anew since.
async fn replayed(
    tx: &mut PgConnection,
    login: &LoginRow,
    device: Uuid,
    family: Uuid,
) -> Result<Rotation> {
    let (user, device) = (UserId(login.user_id), DeviceId(device));
    // By the device, which the index knows.
    sqlx::query("DELETE FROM refresh_tokens WHERE device_id = $1 AND family = $2")
        .bind(device.0)
        .bind(family)
        .execute(&mut *tx)
        .await?;
    let ended = login.session == Some(family)
        && devices::end_logins(tx, user, shard(login.user_shard), Which::One(device)).await?;
    Ok(Rotation::Replayed { user, device, lane: ended.then_some(user.0) })
}
