//! Bodies signed as standardwebhooks.com says: `webhook-signature` is `v1,` and the base64 of HMAC-SHA256
//! over `id.timestamp.body`.

use std::fmt;

use aws_lc_rs::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{RequestBuilder, header::CONTENT_TYPE};

/// What a secret begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the standard.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Bytes of one that is made here.
const MADE: usize = 32;

/// Text that is no secret: `whsec_` and 24 to 64 bytes in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `whsec_` and 24 to 64 bytes in base64")]
pub struct NoSecret;

/// What signs.
pub struct Signer(hmac::Key);

/// Without the key.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// By a secret, whose prefix may be missing.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(secret: &str) -> Result<Self, NoSecret> {
        let secret = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap_or(secret));
        let secret = secret.ok().filter(|secret| BYTES.contains(&secret.len())).ok_or(NoSecret)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }

    /// `webhook-signature` of a body that is sent under this id, at this time in seconds.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        signing.update(format!("{id}.{timestamp}.").as_bytes());
        signing.update(body);
        format!("v1,{}", STANDARD.encode(signing.sign()))
    }

    /// A request with a JSON body and the standard's headers.
    pub fn signed(
        &self,
        request: RequestBuilder,
        id: &str,
        timestamp: i64,
        body: impl AsRef<[u8]> + Into<reqwest::Body>,
    ) -> RequestBuilder {
        let signature = self.sign(id, timestamp, body.as_ref());
        request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(body)
    }
}

/// A new secret; none when the system gives no randomness.
#[must_use]
pub fn new_secret() -> Option<String> {
    let mut bytes = [0; MADE];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the standard's own text.
    #[test]
    fn the_example_of_the_standard() -> Result<(), NoSecret> {
        let signer = Signer::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
        let body = br#"{"test": 2432232314}"#;
        let signature = signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        Ok(())
    }

    #[test]
    fn what_is_made_is_taken_and_what_is_none_is_not() {
        let (one, other) = (new_secret().expect("randomness"), new_secret().expect("randomness"));
        assert!(Signer::new(&one).is_ok() && one != other);
        for bad in ["", "whsec_", "whsec_c2hvcnQ=", "not base64 at all, whatever it may look like"]
        {
            assert_eq!(Signer::new(bad).err(), Some(NoSecret), "{bad}");
        }
    }
}
