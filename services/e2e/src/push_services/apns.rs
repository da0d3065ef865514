//! Apple's Push Notification service, over HTTP/2 without TLS; its sandbox is below `/sandbox`.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Result;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path as Segment, State},
    http::{HeaderMap, Uri, Version},
    response::Response,
    routing::post,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use natter_protocol::push::{AppleToken, Target};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Server,
    desk::{Desk, Pushed, Refusal, Step, header, respond},
    keys,
};

const KEY: &str = "ABC123DEFG";
const TEAM: &str = "DEF123GHIJ";
const TOPIC: &str = "org.example.natter";
/// Seconds for which a token is taken.
const HOUR: i64 = 3_600;
const PAYLOAD: usize = 4_096;

/// The service, until dropped.
pub struct Apns {
    /// What it answers, and what came.
    pub desk: Desk,
    key_file: PathBuf,
    server: Server,
    inner: Arc<Inner>,
}

struct Inner {
    desk: Desk,
    verifier: DecodingKey,
    state: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// With whether they are there still, by whether they are the sandbox's.
    devices: HashMap<(bool, String), bool>,
    /// Provider tokens that came, and whether they are taken still.
    tokens: HashMap<String, bool>,
}

#[derive(Deserialize)]
struct Claims {
    iat: i64,
}

impl Apns {
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let (pem, public) = keys::es256()?;
        let key_file = keys::write(folder, "apns.p8", &pem)?;
        let (listener, address) = Server::bind().await?;
        let inner = Arc::new(Inner {
            desk: Desk::default(),
            verifier: keys::verifier(&public)?,
            state: Mutex::default(),
        });
        let router = Router::new()
            .route("/3/device/{token}", post(push))
            .route("/sandbox/3/device/{token}", post(push))
            .with_state(inner.clone());
        let server = Server::run(listener, address, router);
        Ok(Self { desk: inner.desk.clone(), key_file, server, inner })
    }

    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("NATTER_PUSH_APNS_KEY_FILE", self.key_file.display().to_string()),
            ("NATTER_PUSH_APNS_KEY_ID", KEY.to_owned()),
            ("NATTER_PUSH_APNS_TEAM_ID", TEAM.to_owned()),
            ("NATTER_PUSH_APNS_TOPIC", TOPIC.to_owned()),
            ("NATTER_PUSH_APNS_URL", self.server.url()),
            ("NATTER_PUSH_APNS_SANDBOX_URL", format!("{}/sandbox", self.server.url())),
        ]
    }

    /// An app's new token, of the sandbox or not.
    #[must_use]
    pub fn register(&self, sandbox: bool) -> Target {
        let token = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        self.inner.state().devices.insert((sandbox, token.clone()), true);
        Target::Apns(AppleToken { token, sandbox })
    }

    /// The app was removed.
    pub fn unregister(&self, target: &Target) {
        if let Target::Apns(AppleToken { token, sandbox }) = target {
            self.inner.state().devices.insert((*sandbox, token.clone()), false);
        }
    }

    /// No provider token that came is taken any more.
    pub fn expire_tokens(&self) {
        self.inner.state().tokens.values_mut().for_each(|taken| *taken = false);
    }

    /// How many provider tokens came.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.inner.state().tokens.len()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorized(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let given = header(headers, "authorization");
        let given = given.map_err(|why| refusal(403, "MissingProviderToken", why))?;
        let Some(token) = given.strip_prefix("bearer ") else {
            return Err(refusal(403, "MissingProviderToken", "not a bearer"));
        };
        let invalid = |why: String| refusal(403, "InvalidProviderToken", why);
        let head =
            jsonwebtoken::decode_header(token).map_err(|error| invalid(error.to_string()))?;
        if head.kid.as_deref() != Some(KEY) {
            return Err(invalid("another key".to_owned()));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_exp = false;
        validation.set_required_spec_claims(&["iss"]);
        validation.set_issuer(&[TEAM]);
        let said = jsonwebtoken::decode::<Claims>(token, &self.verifier, &validation);
        let said = said.map_err(|error| invalid(error.to_string()))?.claims;
        let age = OffsetDateTime::now_utc().unix_timestamp() - said.iat;
        let taken = *self.state().tokens.entry(token.to_owned()).or_insert(true);
        if age > HOUR || !taken {
            return Err(refusal(403, "ExpiredProviderToken", "the token is too old"));
        }
        if age < 0 {
            return Err(invalid("the token is of the future".to_owned()));
        }
        Ok(())
    }

    fn verify(
        &self,
        device: (bool, String),
        headers: HeaderMap,
        body: &[u8],
    ) -> Result<Pushed, Refusal> {
        self.authorized(&headers)?;
        let is = |name: &str, wanted: &str| header(&headers, name).is_ok_and(|is| is == wanted);
        if !is("apns-topic", TOPIC) {
            return Err(refusal(400, "BadTopic", "another topic"));
        }
        if !is("apns-push-type", "alert") {
            return Err(refusal(400, "InvalidPushType", "no alert"));
        }
        if !is("apns-priority", "10") && !is("apns-priority", "5") {
            return Err(refusal(400, "BadPriority", "no priority"));
        }
        let expires = header(&headers, "apns-expiration").map(str::parse::<u64>);
        if !matches!(expires, Ok(Ok(_))) {
            return Err(refusal(400, "BadExpirationDate", "no expiration"));
        }
        let id = header(&headers, "apns-id").ok().filter(|id| Uuid::try_parse(id).is_ok());
        let id = id.ok_or_else(|| refusal(400, "BadMessageId", "no apns-id"))?.to_owned();
        let about = header(&headers, "apns-collapse-id").ok().filter(|about| about.len() <= 64);
        let about =
            about.ok_or_else(|| refusal(400, "BadCollapseId", "no collapse id"))?.to_owned();
        if body.len() > PAYLOAD {
            return Err(refusal(413, "PayloadTooLarge", "more than 4,096 bytes"));
        }
        let notice = read(body).ok_or_else(|| refusal(400, "PayloadEmpty", "no payload"))?;
        match self.state().devices.get(&device) {
            None => return Err(Refusal::gone(Step::apns(400, "BadDeviceToken"))),
            Some(false) => return Err(Refusal::gone(Step::apns(410, "Unregistered"))),
            Some(true) => {}
        }
        let target = device.1;
        Ok(Pushed { target, about: Some(about), id: Some(id), notice, headers, lost: false })
    }
}

/// The notice of a payload, with the lines that are shown.
fn read(body: &[u8]) -> Option<Value> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let alert = &body["aps"]["alert"];
    let mut notice = body["notice"].as_object()?.clone();
    notice.insert("title".to_owned(), alert["title"].as_str()?.into());
    notice.insert("body".to_owned(), alert["body"].as_str()?.into());
    Some(notice.into())
}

async fn push(
    State(inner): State<Arc<Inner>>,
    Segment(token): Segment<String>,
    version: Version,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let _arrival = inner.desk.arrive();
    let mut well = respond(200, Body::empty());
    if let Some(id) = headers.get("apns-id") {
        well.headers_mut().insert("apns-id", id.clone());
    }
    let verified = if version == Version::HTTP_2 {
        inner.verify((uri.path().starts_with("/sandbox/"), token), headers, &body)
    } else {
        Err(refusal(505, "HttpVersion", "not HTTP/2"))
    };
    inner.desk.deal(verified, well).await
}

fn refusal(status: u16, reason: &str, why: impl Into<String>) -> Refusal {
    Refusal::of(Step::apns(status, reason), why)
}
