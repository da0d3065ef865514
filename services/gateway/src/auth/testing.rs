//! Keys, tokens and settings for tests. Keys are made when first asked for.

use std::sync::OnceLock;

use anyhow::Context;
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{AuthArgs, OutsideIssuerArgs};

pub const SECRET: &str = "a secret of 32 bytes, for tests!";

pub fn config() -> AuthArgs {
    AuthArgs {
        jwt_secret: SECRET.into(),
        jwt_secret_previous: None,
        jwt_issuer: "natter".to_owned(),
        jwt_audience: "natter".to_owned(),
        access_token_seconds: 900,
        refresh_token_days: 30,
        attempts_per_address: 0,
        attempts_per_account: 0,
        outside: OutsideIssuerArgs { outside_issuer: None, ..outside_config() },
    }
}

/// Without a key.
pub fn outside_config() -> OutsideIssuerArgs {
    OutsideIssuerArgs {
        outside_issuer: Some("https://id.example".to_owned()),
        outside_audience: Some("chat".to_owned()),
        outside_public_key: None,
        outside_jwks: None,
        outside_user_claim: "sub".to_owned(),
        outside_device_claim: "deviceId".to_owned(),
        outside_name_claim: "name".to_owned(),
    }
}

/// A token signed with a secret.
pub fn hs256(claims: &Value, secret: &str) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes()))
        .unwrap_or_default()
}

/// A pair of keys.
#[derive(Clone)]
pub struct Keys {
    pub algorithm: Algorithm,
    pub private_pem: String,
    pub public_pem: String,
}

impl Keys {
    /// One pair for each algorithm that an outside issuer's PEM may be for.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        static ALL: OnceLock<Vec<Keys>> = OnceLock::new();
        if let Some(made) = ALL.get() {
            return Ok(made.clone());
        }
        let made = vec![
            rsa()?,
            ec(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED_SIGNING)?,
            ec(Algorithm::ES384, &ECDSA_P384_SHA384_FIXED_SIGNING)?,
            ed()?,
        ];
        Ok(ALL.get_or_init(|| made).clone())
    }

    pub fn sign(&self, claims: &impl Serialize) -> anyhow::Result<String> {
        let pem = self.private_pem.as_bytes();
        let key = match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem)?,
            Algorithm::EdDSA => EncodingKey::from_ed_pem(pem)?,
            _ => EncodingKey::from_ec_pem(pem)?,
        };
        Ok(encode(&Header::new(self.algorithm), claims, &key)?)
    }
}

/// Some issuer's public key.
pub fn public_pem() -> anyhow::Result<String> {
    Ok(Keys::all()?.swap_remove(0).public_pem)
}

/// A published P-256 key.
pub fn jwk(id: &str) -> anyhow::Result<Value> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("no key")?;
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|coordinate| URL_SAFE_NO_PAD.encode(coordinate));
    Ok(json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "use": "sig"}))
}

fn rsa() -> anyhow::Result<Keys> {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).context("no RSA key")?;
    let private: Pkcs8V1Der<'_> = pair.as_der().context("no RSA key")?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().context("no RSA key")?;
    Ok(keys(Algorithm::RS256, private.as_ref(), public.as_ref()))
}

fn ec(algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm) -> anyhow::Result<Keys> {
    let private = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).context("no EC key")?;
    let pair = EcdsaKeyPair::from_pkcs8(curve, private.as_ref()).context("no EC key")?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().context("no EC key")?;
    Ok(keys(algorithm, private.as_ref(), public.as_ref()))
}

fn ed() -> anyhow::Result<Keys> {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).context("no Ed key")?;
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).context("no Ed key")?;
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().context("no Ed key")?;
    Ok(keys(Algorithm::EdDSA, private.as_ref(), public.as_ref()))
}

fn keys(algorithm: Algorithm, private: &[u8], public: &[u8]) -> Keys {
    let pem = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<_> =
            text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line)).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    };
    Keys {
        algorithm,
        private_pem: pem("PRIVATE KEY", private),
        public_pem: pem("PUBLIC KEY", public),
    }
}
