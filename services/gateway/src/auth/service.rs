//! Tokens of the server API: `nst_`, the id of a row in Postgres, `_`, a random secret of which that row
//! keeps the SHA-256.
//!
//! What Postgres says of a token is believed for half a second. So many calls cost few look-ups, and a
//! token that is revoked is refused by every gateway within a second, whatever else they have heard.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::ServiceTokenId,
    service::Scope,
};
use natter_runtime::causes;
use natter_store::{ServiceToken, Store};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Refusal, refused};
use crate::{
    fault,
    measures::Limit,
    rate::{Bucket, Rate},
    rest::CallLimit,
};

/// How long what Postgres has said of a token is believed.
const BELIEVED: Duration = Duration::from_millis(500);
/// Tokens that are remembered; all can be looked up again.
const TOKENS: usize = 1_000;
/// Bytes of randomness in a secret.
const SECRET: usize = 32;
const PREFIX: &str = "nst_";
/// Characters of an id without hyphens.
const ID_CHARS: usize = 32;
/// A token with a rate of its own may save up the calls of so many seconds.
const SAVED_SECONDS: u32 = 5;

/// A new token, before whoever asked for it has seen it.
pub struct NewToken {
    /// Its id.
    pub id: ServiceTokenId,
    /// What is shown, once.
    pub text: String,
    /// What the store keeps.
    pub hash: [u8; 32],
}

impl NewToken {
    /// A random one.
    #[must_use]
    pub fn generate() -> Self {
        let id = ServiceTokenId::generate();
        let secret = URL_SAFE_NO_PAD.encode(rand::random::<[u8; SECRET]>());
        let hash = hash(&secret);
        Self { id, text: format!("{PREFIX}{}_{secret}", id.0.simple()), hash }
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// A token as it was shown.
struct Shown {
    id: ServiceTokenId,
    hash: [u8; 32],
}

impl Shown {
    fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_at_checked(ID_CHARS)?;
        let secret = secret.strip_prefix('_').filter(|secret| secret.len() <= 2 * SECRET)?;
        let id = Uuid::try_parse(id).ok()?;
        Some(Self { id: id.into(), hash: hash(secret) })
    }
}

/// A server that calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its token.
    pub token: ServiceTokenId,
    /// What it may do.
    pub scopes: Vec<Scope>,
}

impl Service {
    /// # Errors
    /// `forbidden` unless the token has one of these.
    pub fn may(&self, any: &[Scope]) -> Result<(), WireError> {
        if any.iter().any(|scope| self.scopes.contains(scope)) {
            return Ok(());
        }
        let names: Vec<&str> = any.iter().map(|scope| scope.as_str()).collect();
        let message = format!("the token lacks the scope {}", names.join(" or "));
        Err(WireError::new(ErrorCode::Forbidden, message))
    }
}

/// Lets servers in. Cloning shares what is remembered.
#[derive(Clone)]
pub struct Services {
    store: Store,
    addresses: CallLimit,
    rate: Rate,
    known: Arc<Mutex<HashMap<ServiceTokenId, Known>>>,
}

struct Known {
    token: ServiceToken,
    asked: Instant,
    bucket: Bucket,
}

impl Services {
    /// With the rate of tokens that have none of their own; `addresses` counts those that are not good.
    #[must_use]
    pub fn new(store: Store, addresses: CallLimit, rate: Rate) -> Self {
        Self { store, addresses, rate, known: Arc::default() }
    }

    /// Who shows this token, from this address.
    ///
    /// # Errors
    /// `unauthenticated`, `rate_limited`, `unavailable`.
    pub async fn admit(&self, text: &str, address: IpAddr) -> Result<Service, WireError> {
        let Some(shown) = Shown::parse(text) else {
            self.addresses.from_address(address)?;
            return Err(refused(Refusal::Malformed, "this is no service token"));
        };
        if let Some(known) = self.known().get_mut(&shown.id)
            && known.asked.elapsed() < BELIEVED
            && known.token.hash == shown.hash
        {
            return self.take(shown.id, known);
        }
        self.look_up(&shown, address).await
    }

    async fn look_up(&self, shown: &Shown, address: IpAddr) -> Result<Service, WireError> {
        // One that was good a moment ago is no guess.
        let familiar = self.known().get(&shown.id).is_some_and(|it| it.token.hash == shown.hash);
        if !familiar {
            self.addresses.from_address(address)?;
        }
        // From before the question: the answer is of a later moment.
        let asked = Instant::now();
        let found = self.store.service_token(shown.id).await.map_err(fault::store)?;
        let Some(token) = found.filter(|token| token.hash == shown.hash) else {
            if familiar {
                self.known().remove(&shown.id);
            }
            return Err(refused(Refusal::ServiceToken, "the service token is unknown or revoked"));
        };
        if token.use_unnoted
            && let Err(error) = self.store.note_service_token(shown.id).await
        {
            tracing::debug!(error = %causes(&error), "the use of a service token is not noted");
        }
        let mut all = self.known();
        if all.len() >= TOKENS && !all.contains_key(&shown.id) {
            all.retain(|_, known| known.asked.elapsed() < BELIEVED);
            if all.len() >= TOKENS {
                all.clear();
            }
        }
        let bucket = Bucket::full(self.rate_of(&token), Instant::now());
        let known = all.entry(shown.id).or_insert(Known { token: token.clone(), asked, bucket });
        known.token = token;
        known.asked = known.asked.max(asked);
        self.take(shown.id, known)
    }

    fn take(&self, id: ServiceTokenId, known: &mut Known) -> Result<Service, WireError> {
        let rate = self.rate_of(&known.token);
        known.bucket.take(rate, Instant::now()).map_err(|wait| {
            // Rounded up: who comes exactly then is let in.
            fault::limited(Limit::ServiceCalls, "too many calls", wait.as_millis() as u64 + 1)
        })?;
        Ok(Service { token: id, scopes: known.token.scopes.clone() })
    }

    fn rate_of(&self, token: &ServiceToken) -> Rate {
        token
            .calls_per_second
            .map_or(self.rate, |calls| Rate::per_second(calls, calls.saturating_mul(SAVED_SECONDS)))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ServiceTokenId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_names_its_row_and_its_secret() {
        let [one, two] = [(), ()].map(|()| NewToken::generate());
        assert_ne!(one.text, two.text);
        let shown = Shown::parse(&one.text).map(|shown| (shown.id, shown.hash));
        assert_eq!(shown, Some((one.id, one.hash)));
        assert_eq!(one.text.len(), PREFIX.len() + ID_CHARS + 1 + 43);
        let other = one.text.replacen(PREFIX, "nst-", 1);
        let long = format!("{}{}", one.text, "x".repeat(100));
        for wrong in ["", PREFIX, &one.text[..30], &other, &long, "nst_\u{e4}"] {
            assert!(Shown::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn one_scope_of_several_is_enough_and_another_is_not() {
        let scopes = vec![Scope::Send, Scope::History];
        let service = Service { token: ServiceTokenId::generate(), scopes };
        assert_eq!(service.may(&[Scope::Send]), Ok(()));
        assert_eq!(service.may(&[Scope::Impersonate, Scope::Send]), Ok(()));
        let refused = service.may(&[Scope::Users]).map_err(|error| error.message);
        assert_eq!(refused, Err("the token lacks the scope users".to_owned()));
        assert!(service.may(&[]).is_err());
    }

    proptest! {
        #[test]
        fn no_other_text_is_taken_for_a_token(text in "(nst_)?\\PC{0,90}") {
            let _ = Shown::parse(&text);
        }

        #[test]
        fn another_secret_has_another_hash(at in 0_usize..43, by in 1_u8..26) {
            let token = NewToken::generate();
            let mut text = token.text.into_bytes();
            let at = text.len() - 1 - at;
            text[at] = if text[at] == b'a' + by { b'a' } else { b'a' + by };
            let text = String::from_utf8_lossy(&text).into_owned();
            prop_assert!(Shown::parse(&text).is_some_and(|shown| shown.hash != token.hash));
        }
    }
}
