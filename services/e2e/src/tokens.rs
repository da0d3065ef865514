//! Tokens that no gateway gave out: those of an outside issuer, and forged ones.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use natter_cluster::Builder;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// Who the outside issuer says that it is.
pub const OUTSIDE_ISSUER: &str = "https://id.example.com/";

/// For whom the outside issuer makes tokens.
pub const OUTSIDE_AUDIENCE: &str = "natter-e2e";

/// The outside issuer's ES256 key; it is published with these tests and good for nothing else.
const OUTSIDE_KEY: &str = include_str!("../keys/outside-issuer.pem");

/// A key that no gateway trusts.
const STRANGERS_KEY: &str = include_str!("../keys/stranger.pem");

/// The public key that gateways are told of, as PEM.
pub const OUTSIDE_PUBLIC_KEY: &str = include_str!("../keys/outside-issuer.pub.pem");

/// Where that stands.
const OUTSIDE_PUBLIC_KEY_FILE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/keys/outside-issuer.pub.pem");

/// A cluster whose gateways accept the outside issuer's tokens.
pub fn trusted(builder: Builder) -> Builder {
    builder
        .gateway_env("NATTER_OIDC_ISSUER", OUTSIDE_ISSUER)
        .gateway_env("NATTER_OIDC_AUDIENCE", OUTSIDE_AUDIENCE)
        .gateway_env("NATTER_OIDC_PUBLIC_KEY", OUTSIDE_PUBLIC_KEY_FILE)
}

/// What the outside issuer says of a user on a device, for an hour.
pub fn outside_claims(subject: &str, device: &str) -> Value {
    let now = OffsetDateTime::now_utc();
    json!({
        "iss": OUTSIDE_ISSUER,
        "aud": OUTSIDE_AUDIENCE,
        "sub": subject,
        "deviceId": device,
        "iat": now.unix_timestamp(),
        "exp": (now + Duration::HOUR).unix_timestamp(),
    })
}

/// Signed by the outside issuer.
pub fn outside(claims: &Value) -> Result<String> {
    signed(OUTSIDE_KEY, claims)
}

/// Signed by somebody whom nobody knows.
pub fn strangers(claims: &Value) -> Result<String> {
    signed(STRANGERS_KEY, claims)
}

fn signed(key: &str, claims: &Value) -> Result<String> {
    let key = EncodingKey::from_rsa_pem(key.as_bytes()).context("the test's own key")?;
    Ok(encode(&Header::new(Algorithm::RS256), claims, &key)?)
}

/// Signed with a shared secret; with a cluster's own one it is as good as a gateway's.
pub fn shared_secret(secret: &[u8], claims: &Value) -> Result<String> {
    let key = EncodingKey::from_secret(secret);
    Ok(encode(&Header::new(Algorithm::HS256), claims, &key)?)
}

/// `alg: none`, with an empty signature.
pub fn unsigned(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(&json!({"alg": "none", "typ": "JWT"})), part(claims))
}

/// What `token` says, true or not.
pub fn claims(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("not a JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// `claims` with `name` set to `value`; without it where that is null.
pub fn altered(claims: &Value, name: &str, value: Value) -> Value {
    let mut altered = claims.clone();
    if let Some(map) = altered.as_object_mut() {
        match value {
            Value::Null => drop(map.remove(name)),
            value => drop(map.insert(name.to_owned(), value)),
        }
    }
    altered
}
