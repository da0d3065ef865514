//! The operator's webhook, for all that has no provider here: signed as standardwebhooks.com says.
//!
//! The body is `{"type": "notice", "token": "…", "notice": {…}}` with the device's token and the shape of
//! [`payload`]. `webhook-id` is the same for the same message and device, however often it is sent.

use bytes::Bytes;
use natter_outbound::{
    Alarm,
    exchange::{client, exchange},
    signing::Signer,
};
use natter_protocol::push::Registration;
use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret;
use serde_json::json;
use time::OffsetDateTime;
use url::Url;

use super::{
    ConfigError, Notice, Outcome,
    config::{Bounds, WebhookConfig},
    payload::{self, Shape},
    refused, time_left,
};

/// Bytes of a body.
const BODY: usize = 16 * 1024;
/// It does not take our signature.
const DENIED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// A client of the webhook.
#[derive(Debug)]
pub struct Webhook {
    client: Client,
    url: Url,
    signer: Signer,
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
        let signer = Signer::new(config.secret.expose_secret()).map_err(|error| ConfigError {
            setting: "NATTER_PUSH_WEBHOOK_SECRET",
            reason: error.to_string(),
        })?;
        let client = client(bounds).build().map_err(ConfigError::client)?;
        Ok(Self { client, url: config.url.clone(), signer, alarm: Alarm::default() })
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
        let request = self.client.post(self.url.clone());
        let request = self.signer.signed(request, &push.id, now, push.body);
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
