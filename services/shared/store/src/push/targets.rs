use natter_protocol::{
    ids::{DeviceId, MessageId, UserId},
    notify::{LastPush, PushKey, PushState, PushTarget},
    push::{Provider, Target},
};
use sha2::{Digest, Sha256};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::provider;
use crate::{Result, Store, StoreError};

/// Seconds between two tests of a device.
const BETWEEN_TESTS: f64 = 2.0;

/// What came of asking for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushTest {
    /// The device has no target.
    NoTarget,
    /// There was one a moment ago.
    TooSoon,
    /// It waits to be put into the queue.
    Ready {
        /// The notification's own id, in place of a message's.
        id: MessageId,
        /// Who carries it.
        provider: Provider,
    },
}

#[derive(sqlx::FromRow)]
struct TargetRow {
    provider: String,
    set_at: OffsetDateTime,
    expires_at: Option<OffsetDateTime>,
    gone: bool,
    last_state: Option<String>,
    last_answer: Option<String>,
    last_at: Option<OffsetDateTime>,
}

impl TargetRow {
    fn into_target(self) -> Option<PushTarget> {
        let state = self.last_state.as_deref().and_then(PushState::parse);
        let last = state.zip(self.last_at);
        Some(PushTarget {
            provider: provider(&self.provider)?,
            set_at: self.set_at,
            expires_at: self.expires_at,
            gone: self.gone,
            last: last.map(|(state, at)| LastPush { state, answer: self.last_answer, at }),
        })
    }
}

/// What names a target: its address, without what may change beside it.
fn hash(target: &Target) -> [u8; 32] {
    let address = match target {
        Target::WebPush(subscription) => &subscription.endpoint,
        Target::Fcm(registration) | Target::Webhook(registration) => &registration.token,
        Target::Apns(token) => &token.token,
    };
    let digest = Sha256::new().chain_update(target.provider().as_str()).chain_update([0]);
    digest.chain_update(address).finalize().into()
}

/// Where devices are notified.
impl Store {
    /// From now on a user's device, logged in as `session`, is notified at `target`, and no other device
    /// is.
    ///
    /// # Errors
    /// `NotFound` when the login is over, or there is no such device.
    pub async fn set_push_target(
        &self,
        user: UserId,
        device: DeviceId,
        session: Option<Uuid>,
        target: &Target,
        expires_at: Option<OffsetDateTime>,
    ) -> Result<()> {
        let hash = hash(target);
        self.transaction(async |tx| {
            // Whatever ends the login waits for this, or has been before it.
            let there: Option<bool> = sqlx::query_scalar(
                "SELECT true FROM devices
                 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL
                   AND session IS NOT DISTINCT FROM $3
                 FOR NO KEY UPDATE",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(session)
            .fetch_optional(&mut *tx)
            .await?;
            there.ok_or(StoreError::NotFound)?;
            sqlx::query("DELETE FROM push_targets WHERE hash = $1 AND device_id <> $2")
                .bind(hash.as_slice())
                .bind(device.0)
                .execute(&mut *tx)
                .await?;
            // What is queued for the same target still goes there.
            sqlx::query(
                "INSERT INTO push_targets AS t
                     (device_id, user_id, id, provider, target, hash, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7)
                 ON CONFLICT (device_id) DO UPDATE SET
                     user_id = excluded.user_id,
                     id = CASE WHEN t.target = excluded.target THEN t.id ELSE excluded.id END,
                     provider = excluded.provider, target = excluded.target,
                     hash = excluded.hash, set_at = excluded.set_at,
                     expires_at = excluded.expires_at",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(Uuid::new_v4())
            .bind(target.provider().as_str())
            .bind(Json(target))
            .bind(hash.as_slice())
            .bind(expires_at)
            .execute(tx)
            .await?;
            Ok(())
        })
        .await
    }

    /// Where a user's device is notified; none when it is not.
    pub async fn push_target(&self, user: UserId, device: DeviceId) -> Result<Option<PushTarget>> {
        let row: Option<TargetRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT provider, set_at, expires_at, target IS NULL AS gone, last_state,
                            last_answer, last_at
                     FROM push_targets WHERE device_id = $1 AND user_id = $2",
                )
                .bind(device.0)
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.and_then(TargetRow::into_target))
    }

    /// A user's device is notified no more. Whether it was.
    pub async fn drop_push_target(&self, user: UserId, device: DeviceId) -> Result<bool> {
        let done = self
            .call(async |db| {
                sqlx::query("DELETE FROM push_targets WHERE device_id = $1 AND user_id = $2")
                    .bind(device.0)
                    .bind(user.0)
                    .execute(db)
                    .await
            })
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Notes a notification that tells of nothing, for a user's device.
    pub async fn begin_push_test(&self, user: UserId, device: DeviceId) -> Result<PushTest> {
        let id = Uuid::now_v7();
        self.transaction(async |tx| {
            let found: Option<(String, bool)> = sqlx::query_as(
                "UPDATE push_targets t SET tested_at = CASE WHEN b.soon THEN t.tested_at ELSE now() END
                 FROM (
                     SELECT device_id,
                            COALESCE(tested_at > now() - make_interval(secs => $3), false) AS soon
                     FROM push_targets
                     WHERE device_id = $1 AND user_id = $2 AND target IS NOT NULL FOR UPDATE
                 ) b
                 WHERE t.device_id = b.device_id RETURNING t.provider, b.soon",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(BETWEEN_TESTS)
            .fetch_optional(&mut *tx)
            .await?;
            let Some((word, soon)) = found else { return Ok(PushTest::NoTarget) };
            let Some(provider) = provider(&word) else { return Ok(PushTest::NoTarget) };
            if soon {
                return Ok(PushTest::TooSoon);
            }
            sqlx::query(
                "INSERT INTO pushes (message_id, device_id, user_id, provider, target_id)
                 SELECT $3, device_id, user_id, provider, id FROM push_targets
                 WHERE device_id = $1 AND user_id = $2",
            )
            .bind(device.0)
            .bind(user.0)
            .bind(id)
            .execute(tx)
            .await?;
            Ok(PushTest::Ready { id: id.into(), provider })
        })
        .await
    }

    /// Which push services the workers are set up for.
    pub async fn push_providers(&self) -> Result<PushKey> {
        let rows: Vec<(String, Option<String>)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT provider, public_key FROM push_providers WHERE configured
                     ORDER BY provider",
                )
                .fetch_all(db)
                .await
            })
            .await?;
        let public_key = rows.iter().find_map(|(_, key)| key.clone());
        let providers = rows.iter().filter_map(|(word, _)| provider(word)).collect();
        Ok(PushKey { public_key, providers })
    }

    /// Says which push services a worker is set up for.
    pub async fn set_push_providers(&self, key: &PushKey) -> Result<()> {
        let all: Vec<Provider> = Provider::MEANINGS.iter().map(|(provider, _)| *provider).collect();
        let configured: Vec<bool> = all.iter().map(|one| key.providers.contains(one)).collect();
        let keys =
            all.iter().map(|one| key.public_key.as_deref().filter(|_| *one == Provider::WebPush));
        let keys: Vec<Option<&str>> = keys.collect();
        self.call(async |db| {
            sqlx::query(
                "INSERT INTO push_providers AS p (provider, configured, public_key)
                 SELECT * FROM unnest($1::text[], $2::boolean[], $3::text[])
                 ON CONFLICT (provider) DO UPDATE SET
                     configured = excluded.configured, public_key = excluded.public_key,
                     said_at = now()",
            )
            .bind(super::words(&all))
            .bind(&configured)
            .bind(&keys)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}
