//! A user's devices: their state, revocation, sign-out.

use natter_protocol::{
    feed::{DeviceRevoked, UserChange},
    ids::{DeviceId, Shard, UserId},
    rest::Device,
    timestamp,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Store, outbox,
    rows::{DeviceRow, shard},
};

/// What every REST call and handshake checks. A token counts when the device is not revoked and,
/// for a token made here, when its `sid` is the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceState {
    /// The login; none when signed out, and for an outside issuer's devices.
    pub session: Option<Uuid>,
    /// Revoked for good (until it logs in with the password again), or its user is deleted.
    pub revoked: bool,
    /// The user is disabled: nobody is let in until that is undone.
    pub disabled: bool,
    /// The user is a program.
    pub bot: bool,
    /// The user's name.
    pub user_name: String,
    /// The shard of the user's feed.
    pub user_shard: Shard,
}

impl Store {
    /// The state of a user's device; none when the user has no such device.
    pub async fn device_state(
        &self,
        user: UserId,
        device: DeviceId,
    ) -> Result<Option<DeviceState>> {
        let row: Option<(Option<Uuid>, bool, bool, bool, String, i16)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT d.session, d.revoked_at IS NOT NULL OR u.deleted_at IS NOT NULL,
                    u.disabled_at IS NOT NULL, u.bot, u.name, u.shard
             FROM devices d JOIN users u ON u.id = d.user_id
             WHERE d.id = $1 AND d.user_id = $2",
                )
                .bind(device.0)
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|(session, revoked, disabled, bot, user_name, user_shard)| DeviceState {
            session,
            revoked,
            disabled,
            bot,
            user_name,
            user_shard: shard(user_shard),
        }))
    }

    /// The user's devices that are not revoked, last seen first, at most 500. `online` and
    /// `current` are false: the caller fills them in.
    pub async fn devices(&self, user: UserId) -> Result<Vec<Device>> {
        let rows: Vec<DeviceRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, name, platform, created_at, last_seen_at FROM devices
             WHERE user_id = $1 AND revoked_at IS NULL
             ORDER BY last_seen_at DESC NULLS LAST, id LIMIT 500",
                )
                .bind(user.0)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// Revokes a device and voids its refresh tokens. Returns the user's lane, to relay; none
    /// when the user has no such device or it is revoked already.
    pub async fn revoke_device(&self, user: UserId, device: DeviceId) -> Result<Option<Uuid>> {
        self.transaction(async |tx| {
            let revoked: Option<(i16, Option<Uuid>)> = sqlx::query_as(
                "WITH before AS (
                 SELECT id, session FROM devices
                 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL FOR NO KEY UPDATE
             )
             UPDATE devices d SET session = NULL, revoked_at = now() FROM users u, before
             WHERE d.id = before.id AND u.id = d.user_id
             RETURNING u.shard, before.session",
            )
            .bind(device.0)
            .bind(user.0)
            .fetch_optional(&mut *tx)
            .await?;
            let Some((user_shard, session)) = revoked else {
                return Ok(None);
            };
            signed_out(tx, user, shard(user_shard), &[(device.0, session)]).await?;
            Ok(Some(user.0))
        })
        .await
    }

    /// Ends a device's login (log-out): the device stays in the list. Returns the user's lane, to
    /// relay; none when it was not logged in. Tokens of an outside issuer stay good.
    pub async fn sign_out(&self, user: UserId, device: DeviceId) -> Result<Option<Uuid>> {
        self.end_logins(user, Which::One(device)).await
    }

    /// Moves devices' "last seen" forward.
    pub async fn touch_devices(&self, seen: &[(DeviceId, OffsetDateTime)]) -> Result<()> {
        let (ids, times): (Vec<Uuid>, Vec<OffsetDateTime>) =
            seen.iter().map(|(device, at)| (device.0, timestamp::truncate(*at))).unzip();
        // Locked in one order, so that this never deadlocks with another that locks several.
        self.call(async |db| {
            sqlx::query(
                "WITH seen AS (
                 SELECT id, max(at) AS at FROM unnest($1::uuid[], $2::timestamptz[]) AS s (id, at)
                 GROUP BY id
             ), locked AS MATERIALIZED (
                 SELECT d.id FROM devices d
                 WHERE d.id = ANY($1)
                 ORDER BY d.id FOR NO KEY UPDATE
             )
             UPDATE devices d SET last_seen_at = GREATEST(d.last_seen_at, seen.at)
             FROM locked JOIN seen USING (id) WHERE d.id = locked.id",
            )
            .bind(ids)
            .bind(times)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}

/// Which of a user's devices.
#[derive(Clone, Copy)]
pub(crate) enum Which {
    /// This one.
    One(DeviceId),
    /// All others.
    AllBut(DeviceId),
}

impl Store {
    async fn end_logins(&self, user: UserId, which: Which) -> Result<Option<Uuid>> {
        self.transaction(async |tx| {
            let user_shard: Option<i16> =
                sqlx::query_scalar("SELECT shard FROM users WHERE id = $1")
                    .bind(user.0)
                    .fetch_optional(&mut *tx)
                    .await?;
            let Some(user_shard) = user_shard else {
                return Ok(None);
            };
            let ended = end_logins(tx, user, shard(user_shard), which).await?;
            Ok(ended.then_some(user.0))
        })
        .await
    }
}

/// Ends logins, voids their tokens and tells the user's feed. Whether there was any to end.
pub(crate) async fn end_logins(
    tx: &mut PgConnection,
    user: UserId,
    user_shard: Shard,
    which: Which,
) -> Result<bool> {
    let (one, but) = match which {
        Which::One(device) => (Some(device.0), None),
        Which::AllBut(device) => (None, Some(device.0)),
    };
    // An outside issuer's devices have no session to end: one that logs out is told of, so that
    // its connections close, but its tokens stay good until they expire or it is revoked.
    let logins: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(
        "SELECT id, session FROM devices
         WHERE user_id = $1 AND (session IS NOT NULL OR id = $2 AND external_id IS NOT NULL)
           AND ($2::uuid IS NULL OR id = $2) AND ($3::uuid IS NULL OR id <> $3)
         ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(user.0)
    .bind(one)
    .bind(but)
    .fetch_all(&mut *tx)
    .await?;
    let devices: Vec<Uuid> = logins.iter().map(|(device, _)| *device).collect();
    sqlx::query("UPDATE devices SET session = NULL WHERE id = ANY($1)")
        .bind(devices)
        .execute(&mut *tx)
        .await?;
    signed_out(tx, user, user_shard, &logins).await?;
    Ok(!logins.is_empty())
}

/// What follows for devices whose session, which is told, has just been taken.
pub(crate) async fn signed_out(
    tx: &mut PgConnection,
    user: UserId,
    user_shard: Shard,
    logins: &[(Uuid, Option<Uuid>)],
) -> Result<()> {
    let devices: Vec<Uuid> = logins.iter().map(|(device, _)| *device).collect();
    sqlx::query("DELETE FROM refresh_tokens WHERE device_id = ANY($1)")
        .bind(devices)
        .execute(&mut *tx)
        .await?;
    // A row each: the message id of a relayed entry names the row and the user.
    for &(device, session) in logins {
        let revoked = DeviceRevoked { device_id: DeviceId(device), session };
        let change = UserChange::DeviceRevoked(revoked);
        outbox::add_for_user(tx, user, user_shard, change).await?;
    }
    Ok(())
}
