//! Who is calling: access tokens verified, their device checked, sessions made.
//!
//! | module | holds |
//! |---|---|
//! | [`token`] | the gateway's own access tokens: signed and verified |
//! | [`outside`] | tokens of an outside issuer: claims, keys chosen |
//! | [`jwks`] | an outside issuer's published keys, cached |
//! | `verified` | outside tokens that were verified already |
//! | [`refresh`] | refresh tokens: random, stored hashed |
//! | [`password`] | argon2, bounded in work |
//! | [`service`] | tokens of the server API |
//! | [`seals`] | what makes cursors this deployment's own |
//! | [`attempts`] | how often one may try a password |
//!
//! A token's `iss` is read before anything is verified, only to choose who verifies it; that
//! verifier then checks all of it, the issuer included, with an algorithm that its key decides.

pub mod attempts;
pub mod jwks;
pub mod outside;
pub mod password;
pub mod refresh;
pub mod seals;
pub mod service;
pub mod token;
mod verified;

#[cfg(test)]
pub(crate) mod testing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{DeviceId, Shard, UserId},
};
use natter_store::{DeviceState, Store, StoreError};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use uuid::Uuid;

use self::{
    attempts::Attempts,
    outside::{Outside, OutsideIdentity},
    password::Passwords,
    token::{OwnToken, Signer},
};
use crate::{chats::shard_of, config::AuthArgs, fault, measures};

/// Clocks of servers differ by this much at most, in seconds.
pub(crate) const LEEWAY_SECONDS: u64 = 5;
/// Bytes of a token that is looked at.
const TOKEN_BYTES: usize = 8 * 1024;
/// Outside identities whose user and device are remembered.
const IDENTITIES: usize = 10_000;

/// Who makes a request, on which device; its token and its device were good a moment ago.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The device as its tokens name it: see [`Verified::device_key`].
    pub key: Uuid,
    /// The user's name.
    pub name: String,
    /// The user is a program.
    pub bot: bool,
    /// The shard of the user's feed.
    pub user_shard: Shard,
    /// The login that the token belongs to; none for an outside issuer's.
    pub session: Option<Uuid>,
    /// When the token expires; a connection does not outlive it.
    pub expires_at: OffsetDateTime,
}

/// A token whose signature and claims are good; its device is not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Made by a gateway.
    Own(OwnToken),
    /// Made by the outside issuer.
    Outside(OutsideIdentity),
}

impl Verified {
    /// The same for all tokens of a user, and practically never for two users.
    #[must_use]
    pub fn user_key(&self) -> Uuid {
        match self {
            Self::Own(token) => token.user_id.0,
            Self::Outside(identity) => digest(&[&identity.subject]),
        }
    }

    /// The same for all tokens of a device, and practically never for two: known without Postgres,
    /// also where the token names user and device as the outside issuer calls them.
    #[must_use]
    pub fn device_key(&self) -> Uuid {
        match self {
            Self::Own(token) => {
                let (user, device) = (token.user_id.to_string(), token.device_id.to_string());
                digest(&["own", &user, &device])
            }
            Self::Outside(identity) => digest(&["outside", &identity.subject, &identity.device]),
        }
    }

    /// Whether this user, device and login may be whom the token names.
    #[must_use]
    pub fn may_be(&self, user: UserId, device: DeviceId, session: Option<Uuid>) -> bool {
        match self {
            Self::Own(token) => {
                (token.user_id, token.device_id, Some(token.session)) == (user, device, session)
            }
            Self::Outside(_) => session.is_none(),
        }
    }

    /// When the token expires.
    #[must_use]
    pub fn expires_at(&self) -> OffsetDateTime {
        match self {
            Self::Own(token) => token.expires_at,
            Self::Outside(identity) => identity.expires_at,
        }
    }
}

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// It could be guessed.
    #[error("{0} has fewer than 32 bytes")]
    ShortSecret(&'static str),
    /// The outside issuer has the name of the gateway's own tokens.
    #[error("NATTER_OIDC_ISSUER (--oidc-issuer): the same as NATTER_JWT_ISSUER, the gateway's own")]
    SameIssuer,
    /// Neither or an unusable key for the outside issuer: the setting, and why.
    #[error("{0}: {1}")]
    Outside(&'static str, String),
}

/// Lets callers in, and makes sessions. Cloning shares it.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    signer: Signer,
    outside: Option<Outside>,
    identities: Mutex<HashMap<Uuid, (UserId, DeviceId)>>,
    passwords: Passwords,
    attempts: Attempts,
    refresh_ttl: Duration,
    shards: Shard,
}

impl Auth {
    /// Reads keys and secrets; `shards` is how many new outside users are spread over.
    ///
    /// # Errors
    /// [`AuthConfigError`] for a short secret or an unusable key. A JWKS URL that does not answer
    /// is no error: it is asked again when a token comes.
    pub fn new(store: Store, config: &AuthArgs, shards: Shard) -> Result<Self, AuthConfigError> {
        // One TLS provider in the process. An error means that somebody installed it before.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let outside = Outside::from_config(&config.outside)?;
        if outside.as_ref().is_some_and(|outside| outside.issuer() == config.jwt_issuer) {
            return Err(AuthConfigError::SameIssuer);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                signer: Signer::from_config(config)?,
                outside,
                identities: Mutex::default(),
                passwords: Passwords::new(),
                attempts: Attempts::new(config.attempts_per_address, config.attempts_per_account),
                refresh_ttl: Duration::from_secs(config.refresh_token_days * 24 * 60 * 60),
                shards,
            }),
        })
    }

    /// Who calls with this token: verified, and its device exists and is not revoked.
    ///
    /// # Errors
    /// `unauthenticated` for everything that is wrong with the token or its device;
    /// `unavailable` when Postgres or the outside issuer's keys are.
    pub async fn authenticate(&self, token: &str) -> Result<Caller, WireError> {
        let verified = self.verify(token).await?;
        self.admit(verified).await
    }

    /// The first half of [`Self::authenticate`], without Postgres.
    ///
    /// # Errors
    /// As there.
    pub async fn verify(&self, token: &str) -> Result<Verified, WireError> {
        match issuer_of(token)? {
            issuer if issuer == self.inner.signer.issuer() => {
                self.inner.signer.verify(token).map(Verified::Own)
            }
            issuer => match &self.inner.outside {
                Some(outside) if outside.issuer() == issuer => {
                    outside.verify(token).await.map(Verified::Outside)
                }
                _ => Err(refused(Refusal::Issuer, "the token's issuer is not known here")),
            },
        }
    }

    /// The second half of [`Self::authenticate`]: the device is looked up.
    ///
    /// # Errors
    /// As there.
    pub async fn admit(&self, verified: Verified) -> Result<Caller, WireError> {
        let (key, expires_at) = (verified.device_key(), verified.expires_at());
        let (user_id, device_id, session) = match &verified {
            Verified::Own(token) => (token.user_id, token.device_id, Some(token.session)),
            Verified::Outside(identity) => {
                let (user, device) = self.identify(identity).await?;
                (user, device, None)
            }
        };
        let state = self.inner.store.device_state(user_id, device_id).await;
        let state = state
            .map_err(fault::store)?
            .ok_or_else(|| refused(Refusal::Device, "the device is not known"))?;
        if state.revoked {
            // Whoever the issuer names may be somebody else by the next time.
            if let Verified::Outside(identity) = &verified {
                self.identities().remove(&digest(&[&identity.subject, &identity.device]));
            }
            return Err(refused(Refusal::Device, "the device is revoked"));
        }
        if session.is_some() && session != state.session {
            return Err(refused(Refusal::Device, "the device is signed out"));
        }
        if state.disabled {
            measures::auth_failures(Refusal::Disabled).increment(1);
            return Err(disabled());
        }
        let DeviceState { user_name: name, bot, user_shard, .. } = state;
        Ok(Caller { user_id, device_id, key, name, bot, user_shard, session, expires_at })
    }

    /// The user and device of an outside identity, made on first sight.
    async fn identify(&self, who: &OutsideIdentity) -> Result<(UserId, DeviceId), WireError> {
        let key = digest(&[&who.subject, &who.device]);
        if let Some(known) = self.identities().get(&key) {
            return Ok(*known);
        }
        let Some(outside) = &self.inner.outside else {
            return Err(refused(Refusal::Issuer, "the token's issuer is not known here"));
        };
        let shard = shard_of(digest(&[&who.subject]), self.inner.shards);
        let name = who.name.as_deref();
        let issuer = outside.issuer();
        let ensured =
            self.inner.store.ensure_external(issuer, &who.subject, &who.device, name, shard).await;
        let found = ensured.map_err(|error| match error {
            StoreError::Forbidden => refused(Refusal::Device, "the account is deleted"),
            other => fault::store(other),
        })?;
        let mut identities = self.identities();
        // All can be looked up again, so forgetting them is cheaper than keeping their order.
        if identities.len() >= IDENTITIES {
            identities.clear();
        }
        identities.insert(key, found);
        Ok(found)
    }

    fn identities(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, (UserId, DeviceId)>> {
        self.inner.identities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs an access token and tells when it expires.
    ///
    /// # Errors
    /// `internal` when signing fails.
    pub fn sign(
        &self,
        user: UserId,
        device: DeviceId,
        session: Uuid,
    ) -> Result<(String, OffsetDateTime), WireError> {
        self.inner.signer.sign(user, device, session)
    }

    /// A new refresh token.
    pub fn new_refresh(&self) -> refresh::RefreshToken {
        refresh::RefreshToken::generate(self.inner.refresh_ttl)
    }

    /// Hashes and checks passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.inner.passwords
    }

    /// How often passwords may be tried.
    pub fn attempts(&self) -> &Attempts {
        &self.inner.attempts
    }
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Why somebody is not let in, roughly: for counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Nothing was shown.
    Missing,
    /// What was shown is no token.
    Malformed,
    /// The token is of an issuer that is not known here.
    Issuer,
    /// Neither its signature nor its key is good.
    Signature,
    /// It is over, or not yet good.
    Expired,
    /// It is for another audience, or lacks what it must say.
    Claims,
    /// The device is not known, revoked, or signed out.
    Device,
    /// Name or password is wrong.
    Password,
    /// A refresh token is not known, over, or was used before.
    RefreshToken,
    /// The account is disabled.
    Disabled,
    /// A token of the server API is not known, or was revoked.
    ServiceToken,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Missing,
        Self::Malformed,
        Self::Issuer,
        Self::Signature,
        Self::Expired,
        Self::Claims,
        Self::Device,
        Self::Password,
        Self::RefreshToken,
        Self::Disabled,
        Self::ServiceToken,
    ];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Issuer => "issuer",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Claims => "claims",
            Self::Device => "device",
            Self::Password => "password",
            Self::RefreshToken => "refresh_token",
            Self::Disabled => "disabled",
            Self::ServiceToken => "service_token",
        }
    }
}

/// Somebody who is not let in, with the reason for the client's developer. Counts it.
pub(crate) fn refused(refusal: Refusal, reason: &str) -> WireError {
    measures::auth_failures(refusal).increment(1);
    WireError::new(ErrorCode::Unauthenticated, reason)
}

/// The answer to whoever is disabled, whatever they show.
pub(crate) fn disabled() -> WireError {
    WireError::new(ErrorCode::AccountDisabled, "the account is disabled")
}

/// What the token says of its issuer, unverified.
fn issuer_of(token: &str) -> Result<String, WireError> {
    #[derive(Deserialize)]
    struct Issuer {
        iss: String,
    }
    if token.len() > TOKEN_BYTES {
        return Err(refused(Refusal::Malformed, "the token is too long"));
    }
    jsonwebtoken::dangerous::insecure_decode_claims::<Issuer>(token)
        .map(|claims| claims.iss)
        .map_err(|_| refused(Refusal::Malformed, "the token is not a JWT with an issuer"))
}

/// A key for maps: parts of any length, each delimited by its length.
fn digest(parts: &[&str]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Uuid::from_bytes(bytes)
}
