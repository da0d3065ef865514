//! Refresh tokens: random, good for one use, stored as their SHA-256.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_store::NewRefresh;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

/// Bytes of randomness in one.
const BYTES: usize = 32;

/// A new one, before it goes to the client.
pub struct RefreshToken {
    /// What the client keeps.
    pub text: String,
    /// What the store keeps.
    pub stored: NewRefresh,
}

impl RefreshToken {
    /// A random one, good for `ttl` from now.
    pub fn generate(ttl: Duration) -> Self {
        let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; BYTES]>());
        let stored = NewRefresh { hash: hash(&text), expires_at: OffsetDateTime::now_utc() + ttl };
        Self { text, stored }
    }
}

/// As the store keeps it. The token is random and long, so no slow hash is needed.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let [one, two] = [(), ()].map(|()| RefreshToken::generate(Duration::from_mins(1)));
        assert_ne!(one.text, two.text);
        assert_eq!(one.text.len(), 43);
        assert_eq!(hash(&one.text), one.stored.hash);
    }
}
