//! The operator's webhook, for all that has no provider here: signed as standardwebhooks.com says.
//!
//! The body is `{"type": "notice", "token": "…", "notice": {…}}` with the device's token and the shape of
//! [`payload`]. `webhook-id` is the same for the same message and device, however often it is sent;
//! `webhook-signature` is `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use natter_protocol::push::Registration;
use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;
use url::Url;

use super::{
    ConfigError, Notice, Outcome,
    config::{Bounds, WebhookConfig},
    exchange::{Alarm, client, exchange},
    payload::{self, Shape},
    refused, time_left,
};

/// Bytes of a body.
const BODY: usize = 16 * 1024;
/// Bytes of the secret, by the standard.
const SECRET: std::ops::RangeInclusive<usize> = 24..=64;
/// It does not take our signature.
const DENIED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// A client of the webhook.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Url,
    key: hmac::Key,
    alarm: Alarm,
}

/// A request that is ready but for its time.
pub struct Push {
    id: String,
    body: Bytes,
}

impl Webhook {
    /// As `config` says.
    ///
    /// # Errors
    /// A URL or a secret that is none.
    pub fn new(config: &WebhookConfig, bounds: &Bounds) -> Result<Self, ConfigError> {
        if !matches!(config.url.scheme(), "https" | "http") || !config.url.has_host() {
            let reason = "is not an https URL".to_owned();
            return Err(ConfigError { setting: "NATTER_PUSH_WEBHOOK_URL", reason });
        }
        let secret = config.secret.expose_secret();
        let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret));
        let secret = secret.ok().filter(|secret| SECRET.contains(&secret.len()));
        let secret = secret.ok_or_else(|| ConfigError {
            setting: "NATTER_PUSH_WEBHOOK_SECRET",
            reason: "is not `whsec_` and 24 to 64 bytes in base64".to_owned(),
        })?;
        let client = client(bounds).build().map_err(ConfigError::client)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { client, url: config.url.clone(), key, alarm: Alarm::default() })
    }

    /// Where it is.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The request for `notice`.
    ///
    /// # Errors
    /// What becomes of it when there can be none.
    pub fn prepare(&self, device: &Registration, notice: &Notice) -> Result<Push, Outcome> {
        time_left(notice, OffsetDateTime::now_utc())?;
        let body = payload::fit(notice, BODY, |lines| {
            let notice = serde_json::to_value(Shape::with(notice, lines))?;
            serde_json::to_vec(&json!({"type": "notice", "token": device.token, "notice": notice}))
        });
        let body = body.map_err(refused)?.into();
        Ok(Push { id: format!("msg_{}", notice.id().simple()), body })
    }

    /// Sends it.
    pub async fn deliver(&self, push: Push) -> Outcome {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let request = self.client.post(self.url.clone()).body(push.body.clone());
        let request = request
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &push.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", sign(&self.key, &push.id, now, &push.body));
        let reply = match exchange(request).await {
            Ok(reply) => reply,
            Err(outcome) => return outcome,
        };
        if DENIED.contains(&reply.status) && self.alarm.rings() {
            let status = reply.status.as_u16();
            tracing::error!(
                status,
                "the webhook refuses us: NATTER_PUSH_WEBHOOK_SECRET is not what it expects"
            );
        }
        reply.outcome(&[StatusCode::GONE], None)
    }
}

fn sign(key: &hmac::Key, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut signing = hmac::Context::with_key(key);
    signing.update(format!("{id}.{timestamp}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the standard's own text.
    #[test]
    fn the_example_of_the_standard() -> Result<(), base64::DecodeError> {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let body = br#"{"test": 2432232314}"#;
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        Ok(())
    }
}
