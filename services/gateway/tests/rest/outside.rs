//! Users of an outside issuer.

use std::{io::Write, time::SystemTime};

use anyhow::{Context, Result};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rand::SystemRandom,
    rsa,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, jwk::Jwk};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::Gateway;

struct Issuer {
    pair: EcdsaKeyPair,
    key: EncodingKey,
}

impl Issuer {
    fn new() -> Result<Self> {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let der = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new())?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der.as_ref())?;
        Ok(Self { pair, key: EncodingKey::from_ec_der(der.as_ref()) })
    }

    fn pem(&self) -> Result<NamedTempFile> {
        let der: PublicKeyX509Der<'_> = self.pair.public_key().as_der()?;
        let mut file = NamedTempFile::new()?;
        let text = STANDARD.encode(der.as_ref());
        write!(file, "-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")?;
        Ok(file)
    }

    fn jwks(&self) -> Result<NamedTempFile> {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        let key = json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y});
        let mut file = NamedTempFile::new()?;
        write!(file, "{}", json!({"keys": [key]}))?;
        Ok(file)
    }

    fn token(&self, kid: Option<&str>, change: &Value) -> Result<String> {
        let kid = kid.map(str::to_owned);
        Ok(encode(&Header { kid, ..Header::new(Algorithm::ES256) }, &claims(change)?, &self.key)?)
    }
}

fn claims(change: &Value) -> Result<Value> {
    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
    let mut claims = json!({
        "iss": "https://id.example", "aud": "chat", "uid": "ana", "device": "phone",
        "name": "Ana", "exp": now + 60,
    });
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    Ok(claims)
}

const SETTINGS: [&str; 4] = [
    "--oidc-issuer=https://id.example",
    "--oidc-audience=chat",
    "--oidc-user-claim=uid",
    "--oidc-device-claim=device",
];

#[tokio::test]
async fn users_and_devices_of_an_issuer_are_made_on_first_sight() -> Result<()> {
    let issuer = Issuer::new()?;
    let pem = issuer.pem()?;
    let key = format!("--oidc-public-key={}", pem.path().display());
    let gateway = Gateway::start(&[&SETTINGS[..], &[&key]].concat()).await?;

    let (phone, same) = (issuer.token(None, &json!({}))?, issuer.token(None, &json!({}))?);
    let (first, second) =
        tokio::join!(gateway.get("/users/me", &phone), gateway.get("/users/me", &same));
    let me = first?.expect(200)?;
    assert_eq!(me, second?.expect(200)?, "made once, also by two calls at once");
    assert_eq!(me["name"], "Ana");
    let laptop = issuer.token(None, &json!({"device": "laptop"}))?;
    assert_eq!(gateway.get("/users/me", &laptop).await?.expect(200)?, me);
    let ben = issuer.token(None, &json!({"uid": "ben"}))?;
    assert_ne!(gateway.get("/users/me", &ben).await?.expect(200)?["id"], me["id"]);
    let change = json!({"current": "anything", "new": "something new"});
    gateway.post("/auth/password", &ben, change).await?.refused(403, "forbidden")?;

    let devices = gateway.get("/devices", &phone).await?.expect(200)?;
    let devices = devices["items"].as_array().context("no devices")?;
    assert_eq!(devices.len(), 2);
    let other = devices.iter().find(|device| device["current"] == false);
    let other = other.and_then(|device| device["id"].as_str()).context("no other device")?;
    let path = format!("/devices/{other}");
    gateway.call("DELETE", &path, &phone, Value::Null).await?.expect(204)?;
    gateway.get("/users/me", &laptop).await?.refused(401, "unauthenticated")?;
    gateway.get("/users/me", &phone).await?.expect(200)?;

    for wrong in [
        json!({"aud": "mail"}),
        json!({"iss": "https://other.example"}),
        json!({"iss": "natter"}),
        json!({"exp": 1_000_000_000}),
        json!({"device": null}),
    ] {
        let token = issuer.token(None, &wrong)?;
        gateway.get("/users/me", &token).await?.refused(401, "unauthenticated")?;
    }
    let stranger = Issuer::new()?.token(None, &json!({}))?;
    gateway.get("/users/me", &stranger).await?.refused(401, "unauthenticated")?;
    Ok(())
}

#[tokio::test]
async fn keys_may_be_published() -> Result<()> {
    let issuer = Issuer::new()?;
    let jwks = issuer.jwks()?;
    let keys = format!("--oidc-jwks={}", jwks.path().display());
    let gateway = Gateway::start(&[&SETTINGS[..], &[&keys]].concat()).await?;
    for known in [Some("one"), None] {
        gateway.get("/users/me", &issuer.token(known, &json!({}))?).await?.expect(200)?;
    }
    let unknown = issuer.token(Some("two"), &json!({}))?;
    gateway.get("/users/me", &unknown).await?.refused(401, "unauthenticated")?;
    Ok(())
}

#[tokio::test]
async fn most_publish_rsa_keys() -> Result<()> {
    let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048)?;
    let der: Pkcs8V1Der<'_> = pair.as_der()?;
    let text = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
    let key = EncodingKey::from_rsa_pem(pem.as_bytes())?;
    let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
    public.common.key_id = Some("one".to_owned());
    let mut file = NamedTempFile::new()?;
    write!(file, "{}", json!({"keys": [public]}))?;
    let keys = format!("--oidc-jwks={}", file.path().display());
    let gateway = Gateway::start(&[&SETTINGS[..], &[&keys]].concat()).await?;

    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some("one".to_owned());
    let good = encode(&header, &claims(&json!({}))?, &key)?;
    gateway.get("/users/me", &good).await?.expect(200)?;
    // What everybody knows is no secret, whatever the token says it is signed with.
    let n = serde_json::to_value(&public)?["n"].as_str().context("no modulus")?.to_owned();
    for secret in
        [n.as_bytes(), &URL_SAFE_NO_PAD.decode(&n)?, serde_json::to_vec(&public)?.as_slice()]
    {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some("one".to_owned());
        let forged = encode(&header, &claims(&json!({}))?, &EncodingKey::from_secret(secret))?;
        gateway.get("/users/me", &forged).await?.refused(401, "unauthenticated")?;
    }
    Ok(())
}
