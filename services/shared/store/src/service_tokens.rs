//! Tokens of the server API: made and revoked by operators, looked up by gateways.

use natter_protocol::{ids::ServiceTokenId, service::Scope};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{Result, Store};

/// Tokens that are listed at most.
const LISTED: i64 = 1_000;

/// A token that is made.
#[derive(Clone, Debug)]
pub struct NewServiceToken {
    /// Its id, which is part of it.
    pub id: ServiceTokenId,
    /// For operators.
    pub name: String,
    /// SHA-256 of its secret, which is random and long, so no slow hash is needed.
    pub hash: [u8; 32],
    /// What it may do: at least one.
    pub scopes: Vec<Scope>,
    /// Calls a second through one gateway; none for what the deployment says.
    pub calls_per_second: Option<u32>,
}

/// A token that is good, as a gateway checks it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceToken {
    /// SHA-256 of its secret.
    pub hash: Vec<u8>,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Calls a second; none for what the deployment says.
    pub calls_per_second: Option<u32>,
    /// Its last use was not noted within the last minute.
    pub use_unnoted: bool,
}

/// A token, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTokenRecord {
    /// To revoke it by.
    pub id: ServiceTokenId,
    /// As it was called.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Calls a second through one gateway; none for what the deployment says.
    pub calls_per_second: Option<u32>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// To the minute.
    pub last_used_at: Option<OffsetDateTime>,
    /// Since when it is good for nothing.
    pub revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct RecordRow {
    id: Uuid,
    name: String,
    scopes: Vec<String>,
    calls_per_second: Option<i32>,
    created_at: OffsetDateTime,
    last_used_at: Option<OffsetDateTime>,
    revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct TokenRow {
    hash: Vec<u8>,
    scopes: Vec<String>,
    calls_per_second: Option<i32>,
    use_unnoted: bool,
}

/// Those that this version knows.
fn scopes(words: &[String]) -> Vec<Scope> {
    words.iter().filter_map(|word| word.parse().ok()).collect()
}

fn rate(calls: Option<i32>) -> Option<u32> {
    calls.and_then(|calls| u32::try_from(calls).ok())
}

impl Store {
    /// Makes a token.
    pub async fn create_service_token(&self, new: &NewServiceToken) -> Result<()> {
        let scopes: Vec<&str> = new.scopes.iter().map(|scope| scope.as_str()).collect();
        self.call(async |db| {
            sqlx::query(
                "INSERT INTO service_tokens (id, name, hash, scopes, calls_per_second)
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(new.id.0)
            .bind(&new.name)
            .bind(new.hash.as_slice())
            .bind(scopes)
            .bind(new.calls_per_second.map(|calls| i32::try_from(calls).unwrap_or(i32::MAX)))
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// All tokens, those that are good first, the newest first: 1,000 at most.
    pub async fn service_tokens(&self) -> Result<Vec<ServiceTokenRecord>> {
        let rows: Vec<RecordRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, name, scopes, calls_per_second, created_at, last_used_at, revoked_at
                     FROM service_tokens
                     ORDER BY revoked_at IS NOT NULL, created_at DESC, id LIMIT $1",
                )
                .bind(LISTED)
                .fetch_all(db)
                .await
            })
            .await?;
        let record = |row: RecordRow| ServiceTokenRecord {
            id: row.id.into(),
            name: row.name,
            scopes: scopes(&row.scopes),
            calls_per_second: rate(row.calls_per_second),
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
        };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Ends a token, for good. False when there is no such token.
    pub async fn revoke_service_token(&self, token: ServiceTokenId) -> Result<bool> {
        let done = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE service_tokens
                     SET revoked_at = COALESCE(revoked_at, date_trunc('milliseconds', now()))
                     WHERE id = $1",
                )
                .bind(token.0)
                .execute(db)
                .await
            })
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// A token that is good; none when there is no such token, or not any more.
    pub async fn service_token(&self, token: ServiceTokenId) -> Result<Option<ServiceToken>> {
        let row: Option<TokenRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT hash, scopes, calls_per_second,
                            COALESCE(last_used_at < now() - interval '1 minute', true) AS use_unnoted
                     FROM service_tokens WHERE id = $1 AND revoked_at IS NULL",
                )
                .bind(token.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|row| ServiceToken {
            hash: row.hash,
            scopes: scopes(&row.scopes),
            calls_per_second: rate(row.calls_per_second),
            use_unnoted: row.use_unnoted,
        }))
    }

    /// Notes that a token is used now, to the minute.
    pub async fn note_service_token(&self, token: ServiceTokenId) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE service_tokens SET last_used_at = date_trunc('minute', now())
                 WHERE id = $1 AND COALESCE(last_used_at < now() - interval '1 minute', true)",
            )
            .bind(token.0)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }
}
