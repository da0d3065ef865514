//! The gateway's own access tokens: HS256, by the secret that all gateways share.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use natter_protocol::{
    error::WireError,
    ids::{DeviceId, UserId},
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{AuthConfigError, LEEWAY_SECONDS, Refusal, refused};
use crate::{config::AuthArgs, fault};

/// What an own token says, verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnToken {
    /// The user.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The device's login that it was made for.
    pub session: Uuid,
    /// When it expires.
    pub expires_at: OffsetDateTime,
}

#[derive(Deserialize, Serialize)]
struct Claims {
    sub: UserId,
    #[serde(rename = "deviceId")]
    device_id: DeviceId,
    sid: Uuid,
    iss: String,
    aud: String,
    iat: i64,
    nbf: i64,
    exp: i64,
}

/// Signs and verifies them.
pub struct Signer {
    key: EncodingKey,
    /// The current secret's first, then the one before the last rotation.
    accepted: Vec<DecodingKey>,
    validation: Validation,
    issuer: String,
    audience: String,
    ttl: Duration,
}

impl Signer {
    /// As a gateway is configured.
    ///
    /// # Errors
    /// [`AuthConfigError::ShortSecret`].
    pub fn from_config(config: &AuthArgs) -> Result<Self, AuthConfigError> {
        Self::new(
            &config.jwt_secret,
            config.jwt_secret_previous.as_ref(),
            (&config.jwt_issuer, &config.jwt_audience),
            Duration::from_secs(config.access_token_seconds),
        )
    }

    /// Signs by `secret`, for `ttl`; accepts what the one before has signed too. The names are those
    /// of issuer and audience.
    ///
    /// # Errors
    /// [`AuthConfigError::ShortSecret`].
    pub fn new(
        secret: &SecretString,
        previous: Option<&SecretString>,
        (issuer, audience): (&str, &str),
        ttl: Duration,
    ) -> Result<Self, AuthConfigError> {
        let secret = long_enough("NATTER_JWT_SECRET", secret)?;
        let previous =
            previous.map(|secret| long_enough("NATTER_JWT_SECRET_PREVIOUS", secret)).transpose()?;
        let accepted = std::iter::once(secret).chain(previous);
        Ok(Self {
            key: EncodingKey::from_secret(secret),
            accepted: accepted.map(DecodingKey::from_secret).collect(),
            validation: strict(&[Algorithm::HS256], issuer, audience),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
            ttl,
        })
    }

    /// `iss` of these tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for a device's login, and when it expires.
    ///
    /// # Errors
    /// `internal`.
    pub fn sign(
        &self,
        user: UserId,
        device: DeviceId,
        session: Uuid,
    ) -> Result<(String, OffsetDateTime), WireError> {
        let now = OffsetDateTime::now_utc();
        let expires_at = (now + self.ttl).replace_nanosecond(0).unwrap_or(now);
        let claims = Claims {
            sub: user,
            device_id: device,
            sid: session,
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            nbf: now.unix_timestamp(),
            exp: expires_at.unix_timestamp(),
        };
        let token = encode(&Header::new(Algorithm::HS256), &claims, &self.key)
            .map_err(|error| fault::internal("a token could not be signed", &error))?;
        Ok((token, expires_at))
    }

    /// Checks all of a token but its device.
    ///
    /// # Errors
    /// `unauthenticated`.
    pub fn verify(&self, token: &str) -> Result<OwnToken, WireError> {
        let mut failure = None;
        for key in &self.accepted {
            match decode::<Claims>(token, key, &self.validation) {
                Ok(data) => return own(&data.claims),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.map_or_else(|| refused(Refusal::Signature, "no key"), |error| reason(&error)))
    }
}

fn own(claims: &Claims) -> Result<OwnToken, WireError> {
    Ok(OwnToken {
        user_id: claims.sub,
        device_id: claims.device_id,
        session: claims.sid,
        expires_at: expiry(claims.exp)?,
    })
}

/// `exp` as a time.
pub(super) fn expiry(seconds: i64) -> Result<OffsetDateTime, WireError> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| refused(Refusal::Claims, "the token's expiry is no time"))
}

/// Everything that is checked of every token, whoever made it. The algorithms are those of the
/// key, never the token's own wish.
pub(super) fn strict(algorithms: &[Algorithm], issuer: &str, audience: &str) -> Validation {
    let mut validation = Validation { algorithms: algorithms.to_vec(), ..Validation::default() };
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.validate_exp = true;
    validation.validate_nbf = true;
    validation.leeway = LEEWAY_SECONDS;
    validation
}

/// What is wrong with a token, for the client's developer, without a word of the token itself.
pub(super) fn reason(error: &jsonwebtoken::errors::Error) -> WireError {
    use jsonwebtoken::errors::ErrorKind;
    let (refusal, reason) = match error.kind() {
        ErrorKind::ExpiredSignature => (Refusal::Expired, "the token has expired"),
        ErrorKind::ImmatureSignature => (Refusal::Expired, "the token is not valid yet"),
        ErrorKind::InvalidAudience => (Refusal::Claims, "the token is for another audience"),
        ErrorKind::InvalidIssuer => (Refusal::Issuer, "the token's issuer is not known here"),
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::MissingAlgorithm => {
            (Refusal::Signature, "the token's algorithm is not accepted")
        }
        ErrorKind::MissingRequiredClaim(_) => (Refusal::Claims, "the token lacks a claim"),
        ErrorKind::InvalidSignature => (Refusal::Signature, "the token's signature is wrong"),
        _ => (Refusal::Malformed, "the token is malformed or lacks a claim"),
    };
    refused(refusal, reason)
}

fn long_enough<'a>(
    name: &'static str,
    secret: &'a SecretString,
) -> Result<&'a [u8], AuthConfigError> {
    let bytes = secret.expose_secret().as_bytes();
    if bytes.len() < 32 { Err(AuthConfigError::ShortSecret(name)) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use natter_protocol::error::ErrorCode;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::auth::issuer_of;
    use crate::auth::testing::{SECRET, config, hs256, public_pem};

    fn claims(more: &Value) -> Value {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({
            "sub": Uuid::now_v7(), "deviceId": Uuid::now_v7(), "sid": Uuid::now_v7(),
            "iss": "natter", "aud": "natter", "iat": now, "nbf": now, "exp": now + 60,
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            if value.is_null() {
                claims.as_object_mut().and_then(|claims| claims.remove(name));
            } else {
                claims[name] = value.clone();
            }
        }
        claims
    }

    fn refusal(signer: &Signer, token: &str) -> String {
        match signer.verify(token) {
            Err(error) if error.code == ErrorCode::Unauthenticated => error.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_signed_is_verified() -> anyhow::Result<()> {
        let signer = Signer::from_config(&config())?;
        let (user, device, session) = (UserId::generate(), DeviceId::generate(), Uuid::now_v7());
        let (token, expires_at) = signer.sign(user, device, session)?;
        let expected = OwnToken { user_id: user, device_id: device, session, expires_at };
        assert_eq!(signer.verify(&token)?, expected);
        Ok(())
    }

    #[test]
    fn every_claim_is_checked() -> anyhow::Result<()> {
        let signer = Signer::from_config(&config())?;
        assert!(signer.verify(&hs256(&claims(&json!({})), SECRET)).is_ok());
        let now = OffsetDateTime::now_utc().unix_timestamp();
        for (wrong, expected) in [
            (json!({"exp": now - 10}), "expired"),
            (json!({"exp": null}), "lacks"),
            (json!({"exp": "tomorrow"}), "lacks"),
            (json!({"nbf": now + 60}), "not valid yet"),
            (json!({"aud": "another"}), "audience"),
            (json!({"aud": null}), "lacks"),
            (json!({"iss": "another"}), "issuer"),
            (json!({"iss": null}), "lacks"),
            (json!({"sub": null}), "lacks"),
            (json!({"sub": "ana"}), "malformed"),
            (json!({"deviceId": null}), "lacks"),
            (json!({"sid": null}), "lacks"),
        ] {
            let refusal = refusal(&signer, &hs256(&claims(&wrong), SECRET));
            assert!(refusal.contains(expected), "{wrong}: {refusal}");
        }
        let soon = claims(&json!({"exp": now - 2, "nbf": now + 2}));
        assert!(signer.verify(&hs256(&soon, SECRET)).is_ok(), "within the leeway");
        Ok(())
    }

    #[test]
    fn the_key_decides_the_algorithm() -> anyhow::Result<()> {
        let signer = Signer::from_config(&config())?;
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let good = hs256(&claims(&json!({})), SECRET);
        let signature = good.rsplit('.').next().unwrap_or_default();
        for alg in ["none", "None", "NONE", "", "HS384", "RS256", "ES256"] {
            let header = part(&json!({"alg": alg, "typ": "JWT"}));
            for signature in ["", signature] {
                let token = format!("{header}.{}.{signature}", part(&claims(&json!({}))));
                refusal(&signer, &token);
            }
        }
        let header = Header::new(Algorithm::HS512);
        let stronger =
            encode(&header, &claims(&json!({})), &EncodingKey::from_secret(SECRET.as_bytes()))?;
        assert!(refusal(&signer, &stronger).contains("algorithm"));
        refusal(&signer, &hs256(&claims(&json!({})), &public_pem()?));
        Ok(())
    }

    #[test]
    fn a_token_with_one_letter_changed_is_refused() -> anyhow::Result<()> {
        let signer = Signer::from_config(&config())?;
        let token = hs256(&claims(&json!({})), SECRET);
        let dots: Vec<_> = token.match_indices('.').map(|(at, _)| at).collect();
        // The last letter of a part may carry padding bits only.
        for at in (0..token.len() - 1).filter(|at| !dots.contains(at) && !dots.contains(&(at + 1)))
        {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            refusal(&signer, &String::from_utf8(bytes)?);
        }
        for junk in ["", ".", "..", "...", "a.b", "a.b.c", "ä.ö.ü"] {
            refusal(&signer, junk);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_text_is_a_token(text in "\\PC*", claims in "\\PC{0,40}", signature in "[A-Za-z0-9_-]{0,50}") {
            let signer = Signer::from_config(&config()).expect("a secret");
            prop_assert!(signer.verify(&text).is_err());
            let _ = issuer_of(&text);
            let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
            let token = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(&claims));
            prop_assert!(signer.verify(&token).is_err());
            let _ = issuer_of(&token);
        }

        #[test]
        fn the_issuer_is_read_as_it_was_written(issuer in "\\PC{0,60}") {
            let token = hs256(&claims(&json!({"iss": issuer})), SECRET);
            prop_assert_eq!(issuer_of(&token), Ok(issuer));
        }
    }

    #[test]
    fn a_rotated_secret_still_verifies_and_no_longer_signs() -> anyhow::Result<()> {
        let ids = (UserId::generate(), DeviceId::generate(), Uuid::now_v7());
        let before = Signer::from_config(&config())?;
        let mut rotated = config();
        rotated.jwt_secret_previous = Some(SECRET.into());
        rotated.jwt_secret = "another-secret-of-at-least-32-bytes".into();
        let after = Signer::from_config(&rotated)?;
        let old = before.sign(ids.0, ids.1, ids.2)?.0;
        assert!(after.verify(&old).is_ok());
        refusal(&before, &after.sign(ids.0, ids.1, ids.2)?.0);
        Ok(())
    }

    #[test]
    fn a_short_secret_does_not_start() {
        let mut short = config();
        short.jwt_secret = "0123456789012345678901234567890".into();
        assert!(Signer::from_config(&short).is_err());
        let mut short = config();
        short.jwt_secret_previous = Some("short".into());
        assert!(Signer::from_config(&short).is_err());
    }
}
