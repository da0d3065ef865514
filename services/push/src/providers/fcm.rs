//! Firebase Cloud Messaging, by its HTTP v1 API: the service account's assertion (RFC 7523) is exchanged
//! for an access token, which goes with each message.
//!
//! For a device that is away it keeps the newest notice of four chats at most, whichever: an app that has
//! been away asks for what is unread anyhow.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use natter_outbound::{
    Alarm, Reply,
    exchange::{client, exchange},
};
use natter_protocol::push::Registration;
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{sync::Mutex, time::Instant};
use url::{Url, form_urlencoded};

use super::{
    Answer, ConfigError, Notice, Outcome,
    config::{Bounds, FcmConfig},
    keys::Key,
    payload::{self, Shape},
    refused, time_left,
};

/// Bytes of a message; FCM takes 4,096 of what is in it.
const MESSAGE: usize = 4_000;
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// An assertion is good for so long.
const ASSERTION: Duration = Duration::from_hours(1);
/// An access token is exchanged so long before it expires, or at half its life.
const MARGIN: Duration = Duration::from_mins(5);
/// FCM keeps nothing for longer.
const LONGEST: Duration = Duration::from_hours(28 * 24);
const ACCOUNT: &str = "NATTER_PUSH_FCM_ACCOUNT_FILE";

/// A client of FCM.
#[derive(Debug)]
pub struct Fcm {
    client: Client,
    url: Url,
    token_url: Url,
    account: Account,
    key: Key,
    /// Held while it is exchanged, so that one asks and the others wait for it.
    token: Mutex<Option<Token>>,
    alarm: Alarm,
}

/// What of a service account's file is of use here.
#[derive(Debug, Deserialize)]
struct Account {
    project_id: String,
    client_email: String,
    token_uri: String,
}

#[derive(Deserialize)]
struct Secrets {
    private_key_id: Option<String>,
    private_key: String,
}

struct Token {
    header: Arc<str>,
    renew: Instant,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: u64,
}

impl Fcm {
    /// As `config` says.
    ///
    /// # Errors
    /// A service account that is none.
    pub fn new(config: &FcmConfig, bounds: &Bounds) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| ConfigError { setting: ACCOUNT, reason: reason.to_owned() };
        let text = config.account.expose_secret();
        // The parser's errors may show what it read.
        let no_account = |_| wrong("is not the JSON of a service account");
        let account: Account = serde_json::from_str(text).map_err(no_account)?;
        let secrets: Secrets = serde_json::from_str(text).map_err(no_account)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | ':' | '.');
        if account.project_id.is_empty() || !account.project_id.chars().all(plain) {
            return Err(wrong("has a `project_id` that is none"));
        }
        let token_url = Url::parse(&account.token_uri);
        let token_url = token_url.map_err(|_| wrong("has a `token_uri` that is none"))?;
        let key = Key::rs256(&secrets.private_key, secrets.private_key_id, ACCOUNT)?;
        let base = config.url.as_str().trim_end_matches('/');
        let url = format!("{base}/v1/projects/{}/messages:send", account.project_id);
        let url = Url::parse(&url).map_err(|_| wrong("has a `project_id` that is none"))?;
        let client = client(bounds).build().map_err(ConfigError::client)?;
        Ok(Self {
            client,
            url,
            token_url,
            account,
            key,
            token: Mutex::default(),
            alarm: Alarm::default(),
        })
    }

    /// Where it is.
    pub fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The message for `notice`.
    ///
    /// # Errors
    /// What becomes of it when there can be none.
    pub fn prepare(&self, device: &Registration, notice: &Notice) -> Result<Bytes, Outcome> {
        let left = time_left(notice, OffsetDateTime::now_utc())?.min(LONGEST).as_secs();
        let about = notice.about();
        // The token counts for nothing there.
        let bound = MESSAGE + device.token.len();
        let message = payload::fit(notice, bound, |lines| {
            serde_json::to_vec(&json!({"message": {
                "token": device.token,
                "notification": {"title": lines.title, "body": lines.body},
                "data": {"notice": serde_json::to_string(&Shape::with(notice, lines))?},
                "android": {
                    "collapse_key": about,
                    "priority": "HIGH",
                    "ttl": format!("{left}s"),
                    "notification": {"tag": about},
                },
                "apns": {"headers": {
                    "apns-collapse-id": about,
                    "apns-priority": "10",
                    "apns-expiration": notice.expires_at.unix_timestamp().to_string(),
                }},
                "webpush": {
                    "headers": {"TTL": left.to_string(), "Urgency": "high"},
                    "notification": {"tag": about},
                },
            }}))
        });
        message.map(Bytes::from).map_err(refused)
    }

    /// Sends it.
    pub async fn deliver(&self, message: Bytes) -> Outcome {
        let mut renewed = false;
        loop {
            let token = match self.token().await {
                Ok(token) => token,
                Err(outcome) => return outcome,
            };
            let request = self.client.post(self.url.clone()).body(message.clone());
            let request = request
                .header(AUTHORIZATION, &*token)
                .header(CONTENT_TYPE, "application/json; charset=UTF-8");
            let reply = match exchange(request).await {
                Ok(reply) => reply,
                Err(outcome) => return outcome,
            };
            if reply.status == StatusCode::UNAUTHORIZED && !renewed {
                renewed = true;
                self.forget(&token).await;
                continue;
            }
            return self.judge(&reply);
        }
    }

    fn judge(&self, reply: &Reply) -> Outcome {
        if reply.status.is_success() {
            return Outcome::Accepted { answer: reply.answer(None) };
        }
        let json = reply.json();
        let error = &json["error"];
        let mut details = error["details"].as_array().into_iter().flatten();
        let code = details.find_map(|detail| detail["errorCode"].as_str());
        let word = code.or_else(|| error["status"].as_str());
        let answer = reply.answer(word);
        match word.unwrap_or_default() {
            "UNREGISTERED" | "NOT_FOUND" => Outcome::Gone { answer },
            "SENDER_ID_MISMATCH" | "INVALID_ARGUMENT" => Outcome::Refused { answer },
            "QUOTA_EXCEEDED" | "RESOURCE_EXHAUSTED" | "UNAVAILABLE" | "INTERNAL" => {
                reply.retry(answer)
            }
            _ if matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                self.complain(&answer);
                // Nothing is wrong with the device.
                reply.retry(answer)
            }
            _ => reply.outcome(&[], word),
        }
    }

    /// The access token's header.
    async fn token(&self) -> Result<Arc<str>, Outcome> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref()
            && Instant::now() < token.renew
        {
            return Ok(token.header.clone());
        }
        let new = self.grant().await?;
        let header = new.header.clone();
        *token = Some(new);
        Ok(header)
    }

    /// One that is not taken any more is not used again.
    async fn forget(&self, header: &Arc<str>) {
        let mut token = self.token.lock().await;
        token.take_if(|token| Arc::ptr_eq(&token.header, header));
    }

    async fn grant(&self) -> Result<Token, Outcome> {
        let asked = Instant::now();
        let now = OffsetDateTime::now_utc();
        let assertion = self.key.sign(&Assertion {
            iss: &self.account.client_email,
            scope: SCOPE,
            aud: &self.account.token_uri,
            iat: now.unix_timestamp(),
            exp: (now + ASSERTION).unix_timestamp(),
        });
        let assertion = assertion.map_err(refused)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", &assertion)
            .finish();
        let request = self.client.post(self.token_url.clone()).body(form);
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let reply = exchange(request).await?;
        let granted = reply.status.is_success().then(|| serde_json::from_slice(&reply.body).ok());
        let Some(Granted { access_token, expires_in }) = granted.flatten() else {
            let json = reply.json();
            let answer = reply.answer(json.get("error").and_then(Value::as_str));
            let answer = Answer::new(format_args!("no access token: {answer}"));
            if !reply.passes() {
                self.complain(&answer);
            }
            return Err(reply.retry(answer));
        };
        let life = Duration::from_secs(expires_in.min(24 * 3_600));
        let renew = asked + life.saturating_sub(MARGIN).max(life / 2);
        Ok(Token { header: format!("Bearer {access_token}").into(), renew })
    }

    fn complain(&self, answer: &Answer) {
        if self.alarm.rings() {
            tracing::error!(%answer, "FCM refuses the service account of {ACCOUNT}");
        }
    }
}
