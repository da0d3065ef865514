//! A deployment's own check of messages, on loopback: it answers about a text what a story has told it to,
//! and lets everything else through. It verifies who asks.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use natter_cluster::Builder;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::{net::TcpListener, time::sleep};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Clocks may differ by this many seconds.
const TOLERANCE: i64 = 300;

/// What it does about a text.
#[derive(Clone, Debug)]
pub enum Does {
    /// Answers this.
    Answers(Value),
    /// Answers something else than that.
    Says(u16, &'static str),
    /// Thinks for so long, and lets it through.
    Thinks(Duration),
}

/// A question that it was asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// `webhook-id`.
    pub id: String,
    /// `message.sending` or `message.editing`.
    pub kind: String,
    /// About the message.
    pub data: Value,
}

/// The check.
#[derive(Default)]
pub struct Censor {
    address: OnceLock<SocketAddr>,
    orders: Mutex<Vec<(String, Does)>>,
    asked: Mutex<Vec<Question>>,
    /// What was wrong with questions.
    violations: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The check of this process. It outlives each story's runtime.
pub fn censor() -> &'static Arc<Censor> {
    static CENSOR: OnceLock<Arc<Censor>> = OnceLock::new();
    CENSOR.get_or_init(|| {
        let censor = Arc::<Censor>::default();
        let (told, started) = mpsc::channel();
        let serving = censor.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                told.send(listener.local_addr().expect("an address")).expect("somebody waits");
                let router = Router::new().route("/check", post(check)).with_state(serving);
                axum::serve(listener, router).await.expect("it serves for ever");
            });
        });
        censor.address.set(started.recv().expect("it has started")).expect("set once");
        censor
    })
}

/// Gateways that ask it, with this time limit, and what they do when it fails.
pub fn checked(builder: Builder, milliseconds: u32, on_failure: &str) -> Builder {
    let address = censor().address.get().expect("it has started");
    builder
        .gateway_env("NATTER_HOOK_URL", format!("http://{address}/check"))
        .gateway_env("NATTER_HOOK_SECRET", SECRET)
        .gateway_env("NATTER_HOOK_MILLISECONDS", milliseconds.to_string())
        .gateway_env("NATTER_HOOK_FAILURE", on_failure)
}

impl Censor {
    /// From here on it does this about texts with this in them.
    pub fn about(&self, text: &str, does: Does) {
        let mut orders = lock(&self.orders);
        orders.retain(|(known, _)| known != text);
        orders.push((text.to_owned(), does));
    }

    /// From here on it lets them through again.
    pub fn forget(&self, text: &str) {
        lock(&self.orders).retain(|(known, _)| known != text);
    }

    /// What it was asked about texts with this in them.
    pub fn asked(&self, text: &str) -> Vec<Question> {
        let about = |question: &&Question| {
            question.data["content"].as_str().is_some_and(|content| content.contains(text))
        };
        lock(&self.asked).iter().filter(about).cloned().collect()
    }

    /// That all who have asked were the gateways, and said what they should.
    ///
    /// # Errors
    /// When one was not, or said something else.
    pub fn nothing_wrong(&self) -> Result<()> {
        let violations = lock(&self.violations);
        ensure!(violations.is_empty(), "{violations:?}");
        Ok(())
    }

    fn take(&self, headers: &HeaderMap, body: &[u8]) -> Result<Does> {
        let header = |name: &str| -> Result<&str> {
            Ok(headers.get(name).with_context(|| format!("no {name}"))?.to_str()?)
        };
        let (id, timestamp) = (header("webhook-id")?, header("webhook-timestamp")?);
        let age = OffsetDateTime::now_utc().unix_timestamp() - timestamp.parse::<i64>()?;
        ensure!(age.abs() < TOLERANCE, "it is {age} s old");
        let key = STANDARD.decode(SECRET.trim_start_matches("whsec_"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let signature = header("webhook-signature")?.strip_prefix("v1,").context("no v1")?;
        let signature = STANDARD.decode(signature)?;
        ensure!(hmac::verify(&key, &signed, &signature).is_ok(), "the signature is wrong");
        ensure!(header("content-type")? == "application/json", "no JSON");

        let mut said: Value = serde_json::from_slice(body)?;
        let kind = said["type"].as_str().context("no type")?.to_owned();
        ensure!(matches!(&*kind, "message.sending" | "message.editing"), "of type {kind}");
        ensure!(said["timestamp"].is_string(), "no timestamp");
        let data = said["data"].take();
        let content = data["content"].as_str().context("no content")?.to_owned();
        ensure!(data["sender"]["name"].is_string() && data["chatId"].is_string(), "{data}");
        lock(&self.asked).push(Question { id: id.to_owned(), kind, data });
        let orders = lock(&self.orders);
        let order = orders.iter().find(|(text, _)| content.contains(text));
        let does = order.map(|(_, does)| does.clone());
        Ok(does.unwrap_or_else(|| Does::Answers(json!({"action": "allow"}))))
    }
}

async fn check(State(censor): State<Arc<Censor>>, headers: HeaderMap, body: Bytes) -> Response {
    match censor.take(&headers, &body) {
        Ok(Does::Answers(answer)) => axum::Json(answer).into_response(),
        Ok(Does::Says(status, body)) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::IM_A_TEAPOT);
            (status, body).into_response()
        }
        Ok(Does::Thinks(time)) => {
            sleep(time).await;
            axum::Json(json!({"action": "allow"})).into_response()
        }
        Err(violation) => {
            lock(&censor.violations).push(format!("{violation:#}"));
            StatusCode::UNAUTHORIZED.into_response()
        }
    }
}
