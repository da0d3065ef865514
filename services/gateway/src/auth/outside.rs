//! Tokens of an outside issuer: whoever has an identity provider uses that.

use std::{fmt::Display, fs};

use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, decode, decode_header};
use natter_protocol::{error::WireError, limits};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{
    AuthConfigError, Refusal,
    jwks::Jwks,
    refused,
    token::{expiry, reason, strict},
    verified::{Shown, VerifiedTokens},
};
use crate::config::OutsideIssuerArgs;

const ISSUER: &str = "NATTER_OIDC_ISSUER (--oidc-issuer)";
const AUDIENCE: &str = "NATTER_OIDC_AUDIENCE (--oidc-audience)";
const PUBLIC_KEY: &str = "NATTER_OIDC_PUBLIC_KEY (--oidc-public-key)";
const JWKS: &str = "NATTER_OIDC_JWKS (--oidc-jwks)";

/// Bytes of a user's or device's name at the issuer.
const ID_BYTES: usize = 255;

/// Whom an outside token names, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideIdentity {
    /// The user, as the issuer calls them.
    pub subject: String,
    /// The device, as the issuer or the app calls it.
    pub device: String,
    /// Shown to others, once the user is made.
    pub name: Option<String>,
    /// When the token expires.
    pub expires_at: OffsetDateTime,
}

/// The issuer.
pub struct Outside {
    issuer: String,
    audience: String,
    keys: Keys,
    user_claim: String,
    device_claim: String,
    name_claim: String,
    verified: VerifiedTokens,
}

enum Keys {
    One(DecodingKey, Algorithm),
    Published(Jwks),
}

impl Outside {
    /// The issuer that is configured, if one is.
    ///
    /// # Errors
    /// [`AuthConfigError::Outside`] for a missing audience or key, or a key that cannot be used.
    pub fn from_config(config: &OutsideIssuerArgs) -> Result<Option<Self>, AuthConfigError> {
        let Some(issuer) = &config.outside_issuer else { return Ok(None) };
        let wrong = |setting, why: &dyn Display| AuthConfigError::Outside(setting, why.to_string());
        let audience =
            config.outside_audience.as_ref().ok_or_else(|| wrong(AUDIENCE, &"missing"))?;
        let keys = match (&config.outside_public_key, &config.outside_jwks) {
            (Some(file), None) => {
                let unusable = |why: &dyn Display| {
                    wrong(PUBLIC_KEY, &format_args!("{}: {why}", file.display()))
                };
                let pem = fs::read(file).map_err(|error| unusable(&error))?;
                let (key, algorithm) = public_key(&pem).ok_or_else(|| {
                    unusable(&"no RSA, P-256, P-384 or Ed25519 public key in PEM")
                })?;
                Keys::One(key, algorithm)
            }
            (None, Some(source)) => {
                Keys::Published(Jwks::new(source).map_err(|why| wrong(JWKS, &why))?)
            }
            _ => return Err(wrong(ISSUER, &"needs NATTER_OIDC_PUBLIC_KEY or NATTER_OIDC_JWKS")),
        };
        Ok(Some(Self {
            issuer: issuer.clone(),
            audience: audience.clone(),
            keys,
            user_claim: config.outside_user_claim.clone(),
            device_claim: config.outside_device_claim.clone(),
            name_claim: config.outside_name_claim.clone(),
            verified: VerifiedTokens::default(),
        }))
    }

    /// `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Checks all of a token.
    ///
    /// # Errors
    /// `unauthenticated`; `unavailable` when the issuer's keys could never be read.
    pub async fn verify(&self, token: &str) -> Result<OutsideIdentity, WireError> {
        let header = decode_header(token).map_err(|error| reason(&error))?;
        let (key, algorithm) = match &self.keys {
            Keys::One(key, algorithm) => (key.clone(), *algorithm),
            Keys::Published(jwks) => {
                let found = jwks.find(header.kid.as_deref()).await?;
                (found.key, found.algorithm)
            }
        };
        let shown = Shown::new(token, &key);
        if let Some(identity) = shown.and_then(|shown| self.verified.get(shown)) {
            return Ok(identity);
        }
        let mut checks = strict(&[algorithm], &self.issuer, &self.audience);
        // Its users may be named by another claim than `sub`.
        checks.set_required_spec_claims(&["exp", "iss", "aud"]);
        let data = decode::<Map<String, Value>>(token, &key, &checks);
        let identity = self.identity(&data.map_err(|error| reason(&error))?.claims)?;
        if let Some(shown) = shown {
            self.verified.insert(shown, identity.clone());
        }
        Ok(identity)
    }

    fn identity(&self, claims: &Map<String, Value>) -> Result<OutsideIdentity, WireError> {
        let id = |claim: &str| {
            let id = claims.get(claim).and_then(Value::as_str);
            id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES && !id.contains('\0'))
                .map(str::to_owned)
        };
        let exp = claims
            .get("exp")
            .and_then(|exp| exp.as_i64().or_else(|| exp.as_f64().map(|seconds| seconds as i64)));
        Ok(OutsideIdentity {
            subject: id(&self.user_claim)
                .ok_or_else(|| refused(Refusal::Claims, "the token names no user"))?,
            device: id(&self.device_claim)
                .ok_or_else(|| refused(Refusal::Claims, "the token names no device"))?,
            name: claims.get(&self.name_claim).and_then(Value::as_str).and_then(shown),
            expires_at: expiry(
                exp.ok_or_else(|| refused(Refusal::Claims, "the token has no expiry"))?,
            )?,
        })
    }
}

/// As much of a name as can be shown.
fn shown(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    let name: String = name.trim().chars().take(limits::NAME_CHARS).collect();
    let name = name.trim_end();
    (!name.is_empty()).then(|| name.to_owned())
}

/// A public key, and the one algorithm that it is for.
fn public_key(pem: &[u8]) -> Option<(DecodingKey, Algorithm)> {
    // A private key here would be a mistake worth telling.
    if std::str::from_utf8(pem).is_ok_and(|text| text.contains("PRIVATE KEY")) {
        return None;
    }
    // In this order: whatever is PKCS#1 is taken for RSA, without a look at what it is.
    let key = DecodingKey::from_ec_pem(pem)
        .or_else(|_| DecodingKey::from_ed_pem(pem))
        .or_else(|_| DecodingKey::from_rsa_pem(pem))
        .ok()?;
    // An uncompressed point is one byte and two coordinates.
    let algorithm = match (key.family(), key.try_get_as_bytes().ok()?.len()) {
        (AlgorithmFamily::Rsa, _) => Algorithm::RS256,
        (AlgorithmFamily::Ec, 65) => Algorithm::ES256,
        (AlgorithmFamily::Ec, 97) => Algorithm::ES384,
        (AlgorithmFamily::Ed, 32) => Algorithm::EdDSA,
        _ => return None,
    };
    Some((key, algorithm))
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header, encode};
    use natter_protocol::error::ErrorCode;
    use serde_json::json;

    use super::*;
    use crate::auth::testing::{Keys as TestKeys, hs256, outside_config};

    fn claims() -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        json!({
            "iss": "https://id.example", "aud": ["chat", "mail"], "sub": "ana",
            "deviceId": "phone", "name": " Ana\u{7} ", "exp": now + 60,
        })
    }

    fn outside(pem: &str) -> anyhow::Result<Outside> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("key.pem");
        fs::write(&path, pem)?;
        let config = OutsideIssuerArgs { outside_public_key: Some(path), ..outside_config() };
        Outside::from_config(&config)?.ok_or_else(|| anyhow::anyhow!("no issuer"))
    }

    async fn refusal(outside: &Outside, token: &str) -> String {
        match outside.verify(token).await {
            Err(error) if error.code == ErrorCode::Unauthenticated => error.message,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn each_kind_of_key_verifies_its_own_algorithm_and_no_other() -> anyhow::Result<()> {
        let keys = TestKeys::all()?;
        for signs in &keys {
            let token = signs.sign(&claims())?;
            for verifies in &keys {
                let outside = outside(&verifies.public_pem)?;
                if signs.algorithm == verifies.algorithm {
                    let identity = outside.verify(&token).await?;
                    assert_eq!((&*identity.subject, &*identity.device), ("ana", "phone"));
                    assert_eq!(identity.name.as_deref(), Some("Ana"));
                } else {
                    refusal(&outside, &token).await;
                }
            }
        }
        Ok(())
    }

    #[tokio::test]
    async fn the_public_key_is_no_secret() -> anyhow::Result<()> {
        for key in TestKeys::all()? {
            let outside = outside(&key.public_pem)?;
            let DecodingKeyBytes(der) = DecodingKeyBytes::of(&key.public_pem)?;
            for secret in [key.public_pem.as_bytes(), key.public_pem.trim().as_bytes(), &der] {
                let confused =
                    encode(&Header::default(), &claims(), &EncodingKey::from_secret(secret))?;
                assert!(refusal(&outside, &confused).await.contains("algorithm"));
            }
            refusal(&outside, &hs256(&claims(), "some other secret of 32 bytes, say")).await;
        }
        Ok(())
    }

    struct DecodingKeyBytes(Vec<u8>);

    impl DecodingKeyBytes {
        fn of(pem: &str) -> anyhow::Result<Self> {
            let (key, _) = public_key(pem.as_bytes()).ok_or_else(|| anyhow::anyhow!("no key"))?;
            Ok(Self(key.try_get_as_bytes()?.to_vec()))
        }
    }

    #[tokio::test]
    async fn every_claim_is_checked() -> anyhow::Result<()> {
        let keys = TestKeys::all()?;
        let key = &keys[0];
        let outside = outside(&key.public_pem)?;
        let now = OffsetDateTime::now_utc().unix_timestamp();
        for (claim, value, expected) in [
            ("exp", json!(now - 60), "expired"),
            ("exp", json!(null), "lacks"),
            ("exp", json!(1e300), "malformed"),
            ("nbf", json!(now + 60), "not valid yet"),
            ("aud", json!("mail"), "audience"),
            ("aud", json!(null), "lacks"),
            ("iss", json!("natter"), "issuer"),
            ("sub", json!(null), "no user"),
            ("sub", json!(7), "no user"),
            ("sub", json!("a\0b"), "no user"),
            ("sub", json!("x".repeat(256)), "no user"),
            ("deviceId", json!(null), "no device"),
            ("deviceId", json!(""), "no device"),
        ] {
            let mut wrong = claims();
            wrong[claim] = value;
            let refusal = refusal(&outside, &key.sign(&wrong)?).await;
            assert!(refusal.contains(expected) || expected == "malformed", "{claim}: {refusal}");
        }
        Ok(())
    }

    #[test]
    fn an_unusable_configuration_does_not_start() -> anyhow::Result<()> {
        assert!(Outside::from_config(&outside_config()).is_err(), "no key");
        let keys = TestKeys::all()?;
        assert!(outside("not a key").is_err());
        assert!(outside(&keys[0].private_pem).is_err(), "a private key");
        let none = OutsideIssuerArgs { outside_issuer: None, ..outside_config() };
        assert!(Outside::from_config(&none)?.is_none());
        Ok(())
    }
}
