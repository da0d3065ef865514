//! Private keys that sign tokens, as operators have them in files.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use natter_protocol::push::P256DH_BYTES;
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde::Serialize;

use super::ConfigError;

/// A private key and the algorithm that it is for.
pub struct Key {
    key: EncodingKey,
    header: Header,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("algorithm", &self.header.alg).finish_non_exhaustive()
    }
}

impl Key {
    /// A key of P-256 in PEM (PKCS#8, or SEC 1 as `openssl ecparam` writes it), and its public point.
    ///
    /// # Errors
    /// When it is none.
    pub fn es256(
        pem: &str,
        id: Option<String>,
        setting: &'static str,
    ) -> Result<(Self, [u8; P256DH_BYTES]), ConfigError> {
        let wrong = || ConfigError {
            setting,
            reason: "is not a private key of P-256 in PEM (PKCS#8 or SEC 1)".to_owned(),
        };
        let der = private_key(pem).ok_or_else(wrong)?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pair = EcdsaKeyPair::from_private_key_der(algorithm, der.secret_der());
        let pair = pair.map_err(|_| wrong())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| wrong())?;
        // One form, whichever it came in.
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| wrong())?;
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        Ok((Self { key, header: Header { kid: id, ..Header::new(Algorithm::ES256) } }, public))
    }

    /// A key of RSA in PEM.
    ///
    /// # Errors
    /// When it is none.
    pub fn rs256(
        pem: &str,
        id: Option<String>,
        setting: &'static str,
    ) -> Result<Self, ConfigError> {
        let wrong = || ConfigError {
            setting,
            reason: "has a `private_key` that is not one of RSA in PEM".to_owned(),
        };
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).map_err(|_| wrong())?;
        let key = Self { key, header: Header { kid: id, ..Header::new(Algorithm::RS256) } };
        // What cannot sign is found out at the start.
        key.sign(&()).map_err(|_| wrong())?;
        Ok(key)
    }

    /// A token that says `claims`.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&self.header, claims, &self.key)
    }
}

fn private_key(pem: &str) -> Option<PrivateKeyDer<'static>> {
    // `openssl ecparam -genkey` writes the curve's parameters before the key.
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()
}
