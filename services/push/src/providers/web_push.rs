//! Web Push: to the push service of the user's browser (RFC 8030), signed for it (RFC 8292) and
//! encrypted past it (RFC 8291).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use natter_outbound::{
    Alarm, Reply,
    exchange::{client, exchange},
};
use natter_protocol::push::{Hosts, P256DH_BYTES, Subscription};
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE},
};
use secrecy::ExposeSecret;
use serde::Serialize;
use time::OffsetDateTime;
use url::Url;

use super::{
    Answer, ConfigError, Notice, Outcome,
    config::{Bounds, WebPushConfig},
    encryption::{self, Receiver},
    keys::Key,
    payload::{self, Shape},
    refused, time_left,
};

/// A token is good for so long; push services take up to a day.
const LIFE: Duration = Duration::from_hours(12);
/// One with less than this left is not used any more.
const MARGIN: Duration = Duration::from_hours(1);
/// Tokens that are kept: origins below an allowed host may be many.
const TOKENS: usize = 1_000;
/// Push services keep nothing for longer.
const LONGEST: Duration = Duration::from_hours(28 * 24);
/// Who asks a service for what it may not, or with a key that it does not know.
const DENIED: [StatusCode; 2] = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];

/// A client of all push services.
#[derive(Debug)]
pub struct WebPush {
    client: Client,
    hosts: Hosts,
    vapid: Vapid,
    alarm: Alarm,
}

/// A request that is ready.
pub struct Push {
    url: Url,
    authorization: Arc<str>,
    topic: String,
    ttl: u64,
    body: Bytes,
}

impl WebPush {
    /// As `config` says.
    ///
    /// # Errors
    /// A key or a subject that is none.
    pub fn new(config: &WebPushConfig, bounds: &Bounds) -> Result<Self, ConfigError> {
        let client = client(bounds).build().map_err(ConfigError::client)?;
        let vapid = Vapid::new(config)?;
        Ok(Self { client, hosts: config.hosts.clone(), vapid, alarm: Alarm::default() })
    }

    /// The request for `notice`, and the origin that it goes to.
    ///
    /// # Errors
    /// What becomes of it when there can be none.
    pub fn prepare(
        &self,
        subscription: &Subscription,
        notice: &Notice,
    ) -> Result<(String, Push), Outcome> {
        let url = self.hosts.allowed(&subscription.endpoint);
        let url = url.ok_or_else(|| refused("the endpoint's host is not allowed"))?;
        let (public, auth) = (subscription.keys.public_key(), subscription.keys.secret());
        let Some((public, auth)) = public.zip(auth) else { return Err(unusable()) };
        let now = OffsetDateTime::now_utc();
        let ttl = time_left(notice, now)?.min(LONGEST);
        let plain = payload::fit(notice, encryption::PLAIN, |lines| {
            serde_json::to_vec(&Shape::with(notice, lines))
        })
        .map_err(refused)?;
        let body =
            encryption::encrypt(&Receiver { public, auth }, &plain).map_err(|_| unusable())?;
        let origin = url.origin().ascii_serialization();
        let authorization = self.vapid.header(&origin, now).map_err(refused)?;
        let push = Push {
            url,
            authorization,
            topic: topic(notice),
            ttl: ttl.as_secs(),
            body: body.into(),
        };
        Ok((origin, push))
    }

    /// Sends it.
    pub async fn deliver(&self, push: Push) -> Outcome {
        let request = self.client.post(push.url.clone()).body(push.body);
        let request = request
            .header(AUTHORIZATION, &*push.authorization)
            .header(CONTENT_ENCODING, "aes128gcm")
            .header(CONTENT_TYPE, "application/octet-stream")
            .header("TTL", push.ttl)
            // What is `normal` waits until a phone that lies still is moved.
            .header("Urgency", "high")
            .header("Topic", push.topic);
        let reply = match exchange(request).await {
            Ok(reply) => reply,
            Err(outcome) => return outcome,
        };
        if DENIED.contains(&reply.status) && self.alarm.rings() {
            tracing::error!(
                host = push.url.host_str(),
                status = reply.status.as_u16(),
                "a push service refuses our key: NATTER_PUSH_VAPID_KEY_FILE is not the one that devices subscribed with, or the clock is wrong"
            );
        }
        judge(&reply)
    }
}

fn judge(reply: &Reply) -> Outcome {
    let json = reply.json();
    // Apple says `reason`, Mozilla `error`.
    let word = ["reason", "error"].iter().find_map(|name| json.get(name)?.as_str());
    reply.outcome(&[StatusCode::NOT_FOUND, StatusCode::GONE], word)
}

/// A subscription that nothing can be encrypted for is none.
fn unusable() -> Outcome {
    Outcome::Gone { answer: Answer::new("the subscription's keys are none") }
}

/// Of what a push service holds for a device, a chat's newest notice replaces the others. The service
/// need not learn which devices share a chat.
fn topic(notice: &Notice) -> String {
    let both = [*notice.about().as_bytes(), *notice.device_id.0.as_bytes()].concat();
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, &both).as_ref()[..16])
}

/// Who asks: tokens for each origin, signed with the application server's key.
#[derive(Debug)]
struct Vapid {
    key: Key,
    public: String,
    subject: String,
    tokens: Mutex<HashMap<String, Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    header: Arc<str>,
    expires: OffsetDateTime,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    sub: &'a str,
}

impl Vapid {
    fn new(config: &WebPushConfig) -> Result<Self, ConfigError> {
        let subject = config.subject.clone();
        let contact = Url::parse(&subject).ok();
        if !contact.is_some_and(|url| matches!(url.scheme(), "mailto" | "https")) {
            let reason = "is not a `mailto:` or `https:` URL".to_owned();
            return Err(ConfigError { setting: "NATTER_PUSH_VAPID_SUBJECT", reason });
        }
        let (key, public) =
            Key::es256(config.key.expose_secret(), None, "NATTER_PUSH_VAPID_KEY_FILE")?;
        let public = URL_SAFE_NO_PAD.encode(public);
        Ok(Self { key, public, subject, tokens: Mutex::default() })
    }

    /// `Authorization` for an origin.
    fn header(
        &self,
        origin: &str,
        now: OffsetDateTime,
    ) -> Result<Arc<str>, jsonwebtoken::errors::Error> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = tokens.get(origin)
            && token.expires - MARGIN > now
        {
            return Ok(token.header.clone());
        }
        let expires = now + LIFE;
        let claims = Claims { aud: origin, exp: expires.unix_timestamp(), sub: &self.subject };
        let token = self.key.sign(&claims)?;
        let header: Arc<str> = format!("vapid t={token}, k={}", self.public).into();
        if tokens.len() >= TOKENS {
            tokens.clear();
        }
        tokens.insert(origin.to_owned(), Token { header: header.clone(), expires });
        Ok(header)
    }
}

/// The public key of the application server's private key in PEM, in base64url: what browsers subscribe
/// with.
///
/// # Errors
/// When it is none of P-256.
pub fn application_server_key(pem: &str) -> Result<String, ConfigError> {
    let (_, public): (_, [u8; P256DH_BYTES]) = Key::es256(pem, None, "NATTER_PUSH_VAPID_KEY_FILE")?;
    Ok(URL_SAFE_NO_PAD.encode(public))
}
