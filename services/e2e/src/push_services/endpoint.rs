//! Somebody's server that is told of events: it verifies what it is told, and answers by a rule.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
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
use natter_protocol::ids::ChatId;
use serde_json::Value;

use super::{
    Server,
    desk::{Step, answer, respond},
    webhook::signed,
};
use crate::soon::within;

/// An event comes by then: a worker that is killed is taken over from within ten seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// The server, until dropped.
pub struct Endpoint {
    server: Server,
    inner: Arc<Inner>,
}

/// What it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it came.
    pub at: Instant,
    /// `webhook-id`.
    pub id: String,
    /// The body.
    pub body: Value,
    /// Whether it was taken.
    pub taken: bool,
}

type Rule = Arc<dyn Fn(&Told) -> Option<Step> + Send + Sync>;

#[derive(Default)]
struct Inner {
    state: Mutex<Listening>,
}

#[derive(Default)]
struct Listening {
    key: Option<hmac::Key>,
    rule: Option<Rule>,
    told: Vec<Told>,
    violations: Vec<String>,
    /// Of each chat, requests that are there.
    at_once: HashMap<String, usize>,
    most_at_once: usize,
}

impl Endpoint {
    /// Starts it; what signs it is to be told.
    ///
    /// # Errors
    /// When a port cannot be had.
    pub async fn start() -> Result<Self> {
        let (listener, address) = Server::bind().await?;
        let inner = Arc::new(Inner::default());
        let router = Router::new().route("/hook", post(hook)).with_state(inner.clone());
        Ok(Self { server: Server::run(listener, address, router), inner })
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}/hook", self.server.url())
    }

    /// What is told is signed by this: `whsec_…`.
    ///
    /// # Errors
    /// When it is no secret.
    pub fn trust(&self, secret: &str) -> Result<()> {
        let bytes = secret.strip_prefix("whsec_").context("no secret")?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(bytes)?);
        self.state().key = Some(key);
        Ok(())
    }

    /// From now on it does so with what this gives a step for, and takes all else.
    pub fn rule(&self, rule: impl Fn(&Told) -> Option<Step> + Send + Sync + 'static) {
        self.state().rule = Some(Arc::new(rule));
    }

    /// From now on it takes all.
    pub fn take_all(&self) {
        self.state().rule = None;
    }

    /// All that it was told, also what it did not take.
    #[must_use]
    pub fn told(&self) -> Vec<Told> {
        self.state().told.clone()
    }

    /// What it took.
    #[must_use]
    pub fn taken(&self) -> Vec<Told> {
        self.told().into_iter().filter(|told| told.taken).collect()
    }

    /// The contents of the messages that it took of a chat, in that order, a repetition aside.
    #[must_use]
    pub fn said_in(&self, chat: ChatId) -> Vec<String> {
        let chat = chat.to_string();
        let mut ids = Vec::new();
        let mut said = Vec::new();
        for told in self.taken() {
            let data = &told.body["data"];
            if told.body["type"] == "message"
                && data["chatId"] == chat.as_str()
                && !ids.contains(&told.id)
            {
                ids.push(told.id.clone());
                said.push(data["content"].as_str().unwrap_or_default().to_owned());
            }
        }
        said
    }

    /// Waits for what is looked for among all that it was told.
    ///
    /// # Errors
    /// When it does not come, or something came that should not have.
    pub async fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&[Told]) -> Option<T>,
    ) -> Result<T> {
        let found = within(PATIENCE, what, async || Ok(look(&self.told()))).await;
        ensure!(self.violations().is_empty(), "{:?}", self.violations());
        found
    }

    /// Waits until it has taken these messages of a chat, in this order.
    ///
    /// # Errors
    /// When it has not.
    pub async fn hears(&self, chat: ChatId, said: &[String]) -> Result<()> {
        let enough = within(PATIENCE, "all messages", async || {
            Ok((self.said_in(chat).len() >= said.len()).then_some(()))
        });
        enough.await.with_context(|| format!("{:?}", self.said_in(chat)))?;
        ensure!(self.said_in(chat) == said, "{:?}", self.said_in(chat));
        ensure!(self.violations().is_empty(), "{:?}", self.violations());
        Ok(())
    }

    /// What came that nobody should have sent.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    /// The most requests of one chat that were there at the same time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    fn state(&self) -> MutexGuard<'_, Listening> {
        self.inner.state()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, Listening> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Told, String> {
        let key = self.state().key.clone().ok_or("nobody should know of this")?;
        let id = signed(&key, headers, body)?;
        let body: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        for field in ["type", "timestamp"] {
            body[field].as_str().ok_or_else(|| format!("no {field}"))?;
        }
        if !body["data"].is_object() {
            return Err("no data".to_owned());
        }
        Ok(Told { at: Instant::now(), id, body, taken: false })
    }
}

/// A request of a chat that is there.
struct There(Arc<Inner>, String);

impl There {
    fn new(inner: &Arc<Inner>, chat: String) -> Self {
        let mut state = inner.state();
        let count = state.at_once.entry(chat.clone()).or_default();
        *count += 1;
        let count = *count;
        // What is of no chat has no order.
        if !chat.is_empty() {
            state.most_at_once = state.most_at_once.max(count);
        }
        Self(inner.clone(), chat)
    }
}

impl Drop for There {
    fn drop(&mut self) {
        if let Some(count) = self.0.state().at_once.get_mut(&self.1) {
            *count -= 1;
        }
    }
}

async fn hook(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let told = match inner.verify(&headers, &body) {
        Ok(told) => told,
        Err(why) => {
            inner.state().violations.push(why);
            return respond(401, Body::empty());
        }
    };
    let chat = told.body["data"]["chatId"].as_str().unwrap_or_default().to_owned();
    let _there = There::new(&inner, chat);
    let rule = inner.state().rule.clone();
    let step = rule.and_then(|rule| rule(&told));
    let place = {
        let mut state = inner.state();
        state.told.push(told);
        state.told.len() - 1
    };
    let response = match step {
        None => None,
        Some(Step::Late(delay)) => {
            tokio::time::sleep(delay).await;
            None
        }
        Some(step) => answer(step).await,
    };
    response.unwrap_or_else(|| {
        inner.state().told[place].taken = true;
        respond(204, Body::empty())
    })
}
