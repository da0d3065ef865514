//! What an operator runs to notify devices by other ways, with webhooks as standardwebhooks.com says.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use aws_lc_rs::hmac;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::HeaderMap,
    response::Response,
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use natter_protocol::push::{Registration, Target};
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Server,
    desk::{Desk, Pushed, Refusal, Step, header, respond},
};

/// Seconds by which clocks may differ.
const LATE: i64 = 300;

/// The service, until dropped.
pub struct Webhook {
    /// What it answers, and what came.
    pub desk: Desk,
    secret: String,
    server: Server,
    inner: Arc<Inner>,
}

struct Inner {
    desk: Desk,
    key: hmac::Key,
    devices: Mutex<HashSet<String>>,
}

impl Webhook {
    pub(super) async fn start() -> Result<Self> {
        let bytes = [*Uuid::new_v4().as_bytes(), *Uuid::new_v4().as_bytes()].concat();
        let secret = format!("whsec_{}", STANDARD.encode(&bytes));
        let (listener, address) = Server::bind().await?;
        let inner = Arc::new(Inner {
            desk: Desk::default(),
            key: hmac::Key::new(hmac::HMAC_SHA256, &bytes),
            devices: Mutex::default(),
        });
        let router = Router::new().route("/hook", post(hook)).with_state(inner.clone());
        let server = Server::run(listener, address, router);
        Ok(Self { desk: inner.desk.clone(), secret, server, inner })
    }

    pub(super) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("NATTER_PUSH_WEBHOOK_URL", format!("{}/hook", self.server.url())),
            ("NATTER_PUSH_WEBHOOK_SECRET", self.secret.clone()),
        ]
    }

    /// A device that it knows.
    #[must_use]
    pub fn register(&self) -> Target {
        let token = Uuid::new_v4().to_string();
        self.inner.devices.lock().unwrap_or_else(PoisonError::into_inner).insert(token.clone());
        Target::Webhook(Registration { token })
    }

    /// It does not know it any more.
    pub fn unregister(&self, target: &Target) {
        if let Target::Webhook(device) = target {
            let mut devices = self.inner.devices.lock().unwrap_or_else(PoisonError::into_inner);
            devices.remove(&device.token);
        }
    }
}

impl Inner {
    fn verify(&self, headers: HeaderMap, body: &[u8]) -> Result<Pushed, Refusal> {
        let id = signed(&self.key, &headers, body).map_err(|why| refusal(401, why))?;
        let mut said: Value =
            serde_json::from_slice(body).map_err(|error| refusal(400, error.to_string()))?;
        let Some(token) = said["token"].as_str().map(str::to_owned) else {
            return Err(refusal(400, "no token"));
        };
        let notice = said["notice"].take();
        if said["type"] != "notice" || !notice.is_object() {
            return Err(refusal(400, "no notice"));
        }
        let known = self.devices.lock().unwrap_or_else(PoisonError::into_inner).contains(&token);
        if !known {
            return Err(Refusal::gone(Step::status(410)));
        }
        let about = notice["chatId"].as_str().map(str::to_owned);
        Ok(Pushed { target: token, about, id: Some(id), notice, headers, lost: false })
    }
}

/// Whether a request is signed, and its id.
pub(super) fn signed(key: &hmac::Key, headers: &HeaderMap, body: &[u8]) -> Result<String, String> {
    let id = header(headers, "webhook-id")?;
    let timestamp = header(headers, "webhook-timestamp")?;
    let at: i64 = timestamp.parse().map_err(|_| "no timestamp")?;
    if (OffsetDateTime::now_utc().unix_timestamp() - at).abs() > LATE {
        return Err("too old".to_owned());
    }
    let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
    let signatures = header(headers, "webhook-signature")?;
    let good = signatures.split(' ').filter_map(|one| one.strip_prefix("v1,")).any(|one| {
        let one = STANDARD.decode(one);
        one.is_ok_and(|one| hmac::verify(key, &signed, &one).is_ok())
    });
    if good { Ok(id.to_owned()) } else { Err("the signature is none".to_owned()) }
}

async fn hook(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let _arrival = inner.desk.arrive();
    let verified = inner.verify(headers, &body);
    inner.desk.deal(verified, respond(204, Body::empty())).await
}

fn refusal(status: u16, why: impl Into<String>) -> Refusal {
    Refusal::of(Step::status(status), why)
}
