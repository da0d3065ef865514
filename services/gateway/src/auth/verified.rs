//! Outside tokens that were verified already: a signature costs a tenth of a millisecond, and a client
//! shows the same token with every call.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jsonwebtoken::DecodingKey;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use super::{LEEWAY_SECONDS, outside::OutsideIdentity};

/// Tokens that are remembered, of some hundred bytes each.
const TOKENS: usize = 10_000;

/// A token and the key that it was verified by: what one key has signed is nothing to another, and a
/// key that is withdrawn is not found any more. No token can be read back from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shown([u8; 32]);

impl Shown {
    /// None where the key does not show its bytes.
    pub(super) fn new(token: &str, key: &DecodingKey) -> Option<Self> {
        let key = key.try_get_as_bytes().ok()?;
        let mut hash = Sha256::new();
        hash.update(key.len().to_le_bytes());
        hash.update(key);
        hash.update(token);
        Some(Self(hash.finalize().into()))
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct VerifiedTokens(Mutex<HashMap<Shown, OutsideIdentity>>);

impl VerifiedTokens {
    /// Whom the token names, until it expires.
    pub(super) fn get(&self, shown: Shown) -> Option<OutsideIdentity> {
        let mut known = self.lock();
        let identity = known.get(&shown)?;
        if identity.expires_at + Duration::from_secs(LEEWAY_SECONDS) > OffsetDateTime::now_utc() {
            return Some(identity.clone());
        }
        known.remove(&shown);
        None
    }

    /// The token names this one.
    pub(super) fn insert(&self, shown: Shown, identity: OutsideIdentity) {
        let mut known = self.lock();
        // All can be verified again, so forgetting them is cheaper than keeping their order.
        if known.len() >= TOKENS {
            known.clear();
        }
        known.insert(shown, identity);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Shown, OutsideIdentity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(expires_at: OffsetDateTime) -> OutsideIdentity {
        let (subject, device) = ("ana".to_owned(), "phone".to_owned());
        OutsideIdentity { subject, device, name: None, expires_at }
    }

    #[test]
    fn a_token_is_known_by_its_key_until_it_expires() -> anyhow::Result<()> {
        let (one, other) = (DecodingKey::from_secret(b"one"), DecodingKey::from_secret(b"other"));
        let known = VerifiedTokens::default();
        let shown = |token, key| Shown::new(token, key).ok_or_else(|| anyhow::anyhow!("no bytes"));
        let now = OffsetDateTime::now_utc();
        let good = identity(now + Duration::from_mins(1));
        known.insert(shown("a", &one)?, good.clone());
        assert_eq!(known.get(shown("a", &one)?), Some(good));
        assert_eq!(known.get(shown("a", &other)?), None);
        assert_eq!(known.get(shown("b", &one)?), None);
        let expired = identity(now - Duration::from_secs(LEEWAY_SECONDS));
        known.insert(shown("a", &one)?, expired);
        assert_eq!(known.get(shown("a", &one)?), None);
        assert_eq!(known.lock().len(), 0);
        Ok(())
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for() -> anyhow::Result<()> {
        let key = DecodingKey::from_secret(b"key");
        let known = VerifiedTokens::default();
        let soon = OffsetDateTime::now_utc() + Duration::from_mins(1);
        for token in 0..=TOKENS {
            let shown = Shown::new(&token.to_string(), &key);
            known.insert(shown.ok_or_else(|| anyhow::anyhow!("no bytes"))?, identity(soon));
        }
        assert_eq!(known.lock().len(), 1);
        Ok(())
    }
}
