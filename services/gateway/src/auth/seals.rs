//! The seals of cursors: from the secret that signs tokens, so that every gateway has the same.

use std::sync::Arc;

use natter_protocol::cursor::Seal;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::config::AuthArgs;

/// What the secret is used for here, so that nothing else made of it is the same.
const PURPOSE: &[u8] = b"natter cursor seal 1\0";

/// The seal that new cursors get, and the one before the secret's last rotation, whose cursors
/// still count. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Seals(Arc<[Seal]>);

impl Seals {
    /// Of the configured secrets.
    #[must_use]
    pub fn new(config: &AuthArgs) -> Self {
        let secrets = std::iter::once(&config.jwt_secret).chain(&config.jwt_secret_previous);
        Self(secrets.map(seal).collect())
    }

    /// For new cursors.
    #[must_use]
    pub fn current(&self) -> Seal {
        self.0[0]
    }

    /// All that count.
    #[must_use]
    pub fn all(&self) -> &[Seal] {
        &self.0
    }
}

fn seal(secret: &SecretString) -> Seal {
    let mut hash = Sha256::new();
    hash.update(PURPOSE);
    hash.update(secret.expose_secret());
    let mut key = [0; 16];
    key.copy_from_slice(&hash.finalize()[..16]);
    Seal::new(key)
}
