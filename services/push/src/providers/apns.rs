//! Apple's Push Notification service, by its provider API over HTTP/2 with a token.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use natter_outbound::{
    Alarm, Reply,
    exchange::{client, exchange},
};
use natter_protocol::push::AppleToken;
use reqwest::{Client, StatusCode, header::AUTHORIZATION};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::Instant;
use url::Url;
use uuid::Uuid;

use super::{
    ConfigError, Notice, Outcome,
    config::{ApnsConfig, Bounds},
    keys::Key,
    payload::{self, Shape},
    refused, time_left,
};

/// Bytes of a payload that Apple takes.
const PAYLOAD: usize = 4_096;
/// Apple takes a token for an hour, and wants no new one within 20 minutes.
const LIFE: Duration = Duration::from_mins(40);

/// A client of APNs and of its sandbox.
#[derive(Debug)]
pub struct Apns {
    client: Client,
    url: Url,
    sandbox_url: Url,
    topic: String,
    team: String,
    key: Key,
    token: Mutex<Option<Token>>,
    alarm: Alarm,
}

#[derive(Debug)]
struct Token {
    header: Arc<str>,
    made: Instant,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
}

/// A request that is ready.
pub struct Push {
    url: Url,
    id: Uuid,
    about: Uuid,
    expires: i64,
    body: Bytes,
}

impl Apns {
    /// As `config` says.
    ///
    /// # Errors
    /// A key that is none.
    pub fn new(config: &ApnsConfig, bounds: &Bounds) -> Result<Self, ConfigError> {
        let id = Some(config.key_id.clone());
        let (key, _) = Key::es256(config.key.expose_secret(), id, "NATTER_PUSH_APNS_KEY_FILE")?;
        let header = reqwest::header::HeaderValue::from_str(&config.topic);
        if config.topic.is_empty() || header.is_err() {
            let reason = "is not a bundle id".to_owned();
            return Err(ConfigError { setting: "NATTER_PUSH_APNS_TOPIC", reason });
        }
        let client = client(bounds)
            .http2_prior_knowledge()
            // Apple wants connections kept.
            .http2_keep_alive_while_idle(true)
            .build()
            .map_err(ConfigError::client)?;
        Ok(Self {
            client,
            url: config.url.clone(),
            sandbox_url: config.sandbox_url.clone(),
            topic: config.topic.clone(),
            team: config.team_id.clone(),
            key,
            token: Mutex::default(),
            alarm: Alarm::default(),
        })
    }

    /// The request for `notice`, and the origin that it goes to.
    ///
    /// # Errors
    /// What becomes of it when there can be none.
    pub fn prepare(&self, device: &AppleToken, notice: &Notice) -> Result<(String, Push), Outcome> {
        time_left(notice, OffsetDateTime::now_utc())?;
        let base = if device.sandbox { &self.sandbox_url } else { &self.url };
        let url = format!("{}/3/device/{}", base.as_str().trim_end_matches('/'), device.token);
        let url = Url::parse(&url).map_err(refused)?;
        let about = notice.about();
        let body = payload::fit(notice, PAYLOAD, |lines| {
            serde_json::to_vec(&json!({
                "aps": {
                    "alert": {"title": lines.title, "body": lines.body.unwrap_or_default()},
                    "sound": "default",
                    "thread-id": about,
                    // The app may word it anew.
                    "mutable-content": 1,
                },
                "notice": Shape::without(notice),
            }))
        });
        let body = body.map_err(refused)?.into();
        let expires = notice.expires_at.unix_timestamp();
        Ok((
            url.origin().ascii_serialization(),
            Push { url, id: notice.id(), about, expires, body },
        ))
    }

    /// Sends it.
    pub async fn deliver(&self, push: Push) -> Outcome {
        let mut renewed = false;
        loop {
            let token = match self.token() {
                Ok(token) => token,
                Err(error) => return refused(error),
            };
            let request = self.client.post(push.url.clone()).body(push.body.clone());
            let request = request
                .header(AUTHORIZATION, &*token)
                .header("apns-topic", &self.topic)
                .header("apns-push-type", "alert")
                .header("apns-priority", "10")
                .header("apns-expiration", push.expires)
                .header("apns-collapse-id", push.about.to_string())
                .header("apns-id", push.id.to_string());
            let reply = match exchange(request).await {
                Ok(reply) => reply,
                Err(outcome) => return outcome,
            };
            let json = reply.json();
            let reason = json.get("reason").and_then(|reason| reason.as_str());
            if reason == Some("ExpiredProviderToken") && !renewed {
                renewed = true;
                self.forget(&token);
                continue;
            }
            return self.judge(&reply, reason);
        }
    }

    fn judge(&self, reply: &Reply, reason: Option<&str>) -> Outcome {
        let answer = reply.answer(reason);
        match reason.unwrap_or_default() {
            "BadDeviceToken" | "Unregistered" | "DeviceTokenNotForTopic" | "ExpiredToken" => {
                Outcome::Gone { answer }
            }
            // Nothing is wrong with the device.
            _ if reply.status == StatusCode::FORBIDDEN => {
                if self.alarm.rings() {
                    tracing::error!(%answer, "APNs refuses our token: NATTER_PUSH_APNS_KEY_FILE, _KEY_ID, _TEAM_ID and _TOPIC do not belong together");
                }
                reply.retry(answer)
            }
            _ => reply.outcome(&[StatusCode::GONE], reason),
        }
    }

    /// The token's header.
    fn token(&self) -> Result<Arc<str>, jsonwebtoken::errors::Error> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref()
            && token.made.elapsed() < LIFE
        {
            return Ok(token.header.clone());
        }
        let iat = OffsetDateTime::now_utc().unix_timestamp();
        let signed = self.key.sign(&Claims { iss: &self.team, iat })?;
        let header: Arc<str> = format!("bearer {signed}").into();
        *token = Some(Token { header: header.clone(), made: Instant::now() });
        Ok(header)
    }

    /// One that is not taken any more is not used again.
    fn forget(&self, header: &Arc<str>) {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        token.take_if(|token| Arc::ptr_eq(&token.header, header));
    }
}
