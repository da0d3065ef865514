//! What a push service answers when it is told to, and what came.

use std::{
    collections::{HashSet, VecDeque},
    future::pending,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{sync::watch, time::sleep};

use crate::soon::within;

/// A round of decisions and its sends wait their turn, and each other test's too.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many pushes and violations are remembered, the oldest of all.
const REMEMBERED: usize = 100_000;

/// What a service does with a request instead of taking it.
#[derive(Clone, Debug)]
pub enum Step {
    /// Answers so.
    Answer {
        /// The status.
        status: u16,
        /// Headers.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: String,
    },
    /// Says that it takes it, and loses it.
    Lose,
    /// Takes it, but so much later.
    Late(Duration),
    /// Never answers.
    Hang,
    /// Hangs up in the middle of an answer with that status.
    HangUp(u16),
    /// Answers so, with a body of 64 MiB.
    Huge(u16),
}

impl Step {
    /// Answers with a status, and nothing else.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::Answer { status, headers: vec![], body: String::new() }
    }

    /// The same with a header.
    #[must_use]
    pub fn with(status: u16, name: &'static str, value: impl Into<String>) -> Self {
        Self::Answer { status, headers: vec![(name, value.into())], body: String::new() }
    }

    /// As FCM says it.
    #[must_use]
    pub fn fcm(status: u16, code: &str) -> Self {
        let body = json!({"error": {"code": status, "status": code, "message": "as told", "details": [
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code},
        ]}});
        Self::Answer { status, headers: vec![], body: body.to_string() }
    }

    /// As APNs says it.
    #[must_use]
    pub fn apns(status: u16, reason: &str) -> Self {
        Self::Answer { status, headers: vec![], body: json!({"reason": reason}).to_string() }
    }
}

/// What a service took.
#[derive(Clone, Debug)]
pub struct Pushed {
    /// Whom it was for: a subscription's id, a token.
    pub target: String,
    /// What replaces what: the topic, the collapse key. What has none stands alone.
    pub about: Option<String>,
    /// What names it when it is sent again, where the service has something for that.
    pub id: Option<String>,
    /// The notice, with its title and body.
    pub notice: Value,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The service said that it took it, and lost it.
    pub lost: bool,
}

/// What a request is refused with: a real service would.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What it is answered.
    pub(super) step: Step,
    /// What is wrong with it; nothing, where only the target is none any more.
    pub(super) why: Option<String>,
}

impl Refusal {
    /// Of what nobody should have sent.
    pub(super) fn of(step: Step, why: impl Into<String>) -> Self {
        Self { step, why: Some(why.into()) }
    }

    /// Of what is for nobody.
    pub(super) fn gone(step: Step) -> Self {
        Self { step, why: None }
    }
}

/// Cloning shares it.
#[derive(Clone)]
pub struct Desk {
    state: Arc<Mutex<State>>,
    held: Arc<watch::Sender<bool>>,
}

#[derive(Default)]
struct State {
    steps: VecDeque<Step>,
    always: Option<Step>,
    arrived: usize,
    at_once: usize,
    most_at_once: usize,
    taken: usize,
    pushed: VecDeque<Pushed>,
    violations: VecDeque<String>,
    forgetful: bool,
}

impl Default for Desk {
    fn default() -> Self {
        Self { state: Arc::default(), held: Arc::new(watch::Sender::new(false)) }
    }
}

impl Desk {
    /// The next requests that it would take are dealt with so, one each.
    pub fn next(&self, steps: impl IntoIterator<Item = Step>) {
        self.state().steps.extend(steps);
    }

    /// All requests that [`Desk::next`] says nothing of are dealt with so, or taken again.
    pub fn always(&self, step: Option<Step>) {
        self.state().always = step;
    }

    /// Requests wait until [`Desk::release`]; they are counted by [`Desk::arrived`].
    pub fn hold(&self) {
        self.held.send_replace(true);
    }

    /// They go on.
    pub fn release(&self) {
        self.held.send_replace(false);
    }

    /// Requests that came, whatever became of them.
    #[must_use]
    pub fn arrived(&self) -> usize {
        self.state().arrived
    }

    /// Waits for so many.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn arrivals(&self, count: usize) -> Result<()> {
        within(PATIENCE, "requests arrive", async || Ok((self.arrived() >= count).then_some(())))
            .await
    }

    /// The most requests that were there at the same time.
    #[must_use]
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// Requests that are there.
    #[must_use]
    pub fn at_once(&self) -> usize {
        self.state().at_once
    }

    /// How many were taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    /// All that was taken.
    #[must_use]
    pub fn pushed(&self) -> Vec<Pushed> {
        self.state().pushed.iter().cloned().collect()
    }

    /// Waits until so many are taken, and returns all.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn pushes(&self, count: usize) -> Result<Vec<Pushed>> {
        within(PATIENCE, "pushes", async || Ok((self.taken() >= count).then_some(()))).await?;
        Ok(self.pushed())
    }

    /// The alerts that people saw: of what was taken and not lost, each message once on a device, as apps
    /// and the page's service worker tell by its id.
    #[must_use]
    pub fn shown(&self) -> Vec<Pushed> {
        let mut seen = HashSet::new();
        let arrived = self.pushed().into_iter().filter(|pushed| !pushed.lost);
        let message = |pushed: &Pushed| pushed.notice["messageId"].to_string();
        arrived.filter(|pushed| seen.insert((pushed.target.clone(), message(pushed)))).collect()
    }

    /// What is left on their screens: of one chat the newest.
    #[must_use]
    pub fn left(&self) -> Vec<Pushed> {
        let mut newest = HashSet::new();
        let mut left = Vec::new();
        for pushed in self.shown().into_iter().rev() {
            let Some(about) = pushed.about.clone() else {
                left.push(pushed);
                continue;
            };
            if newest.insert((pushed.target.clone(), about)) {
                left.push(pushed);
            }
        }
        left.reverse();
        left
    }

    /// What came that a real service would not have taken.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.iter().cloned().collect()
    }

    /// Counts what it takes, and remembers nothing: for benches.
    pub fn forget(&self) {
        let mut state = self.state();
        state.forgetful = true;
        state.pushed.clear();
    }

    /// A request is there, for as long as what this returns.
    pub(super) fn arrive(&self) -> Arrival {
        let mut state = self.state();
        state.arrived += 1;
        state.at_once += 1;
        state.most_at_once = state.most_at_once.max(state.at_once);
        Arrival(self.clone())
    }

    /// Deals with a request that was verified.
    pub(super) async fn deal(&self, verified: Result<Pushed, Refusal>, well: Response) -> Response {
        let mut held = self.held.subscribe();
        // The sender lives as long as the desk.
        let _ = held.wait_for(|held| !held).await;
        let mut pushed = match verified {
            Ok(pushed) => pushed,
            Err(Refusal { step, why }) => {
                if let Some(why) = why {
                    self.note(why);
                }
                return answer(step).await.unwrap_or(well);
            }
        };
        let step = {
            let mut state = self.state();
            state.steps.pop_front().or_else(|| state.always.clone())
        };
        match step {
            Some(Step::Lose) => pushed.lost = true,
            Some(Step::Late(delay)) => sleep(delay).await,
            Some(step) => {
                if let Some(response) = answer(step).await {
                    return response;
                }
            }
            None => {}
        }
        let mut state = self.state();
        state.taken += 1;
        if !state.forgetful {
            remember(&mut state.pushed, pushed);
        }
        well
    }

    /// The next step of something that takes no pushes.
    pub(super) async fn deal_otherwise(&self, well: Response) -> Response {
        let step = self.state().steps.pop_front();
        match step {
            Some(step) => answer(step).await.unwrap_or(well),
            None => well,
        }
    }

    pub(super) fn note(&self, why: String) {
        remember(&mut self.state().violations, why);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is there.
pub(super) struct Arrival(Desk);

impl Drop for Arrival {
    fn drop(&mut self) {
        self.0.state().at_once -= 1;
    }
}

fn remember<T>(all: &mut VecDeque<T>, one: T) {
    if all.len() == REMEMBERED {
        all.pop_front();
    }
    all.push_back(one);
}

/// The answer of a step that has one.
pub(super) async fn answer(step: Step) -> Option<Response> {
    let response = match step {
        Step::Answer { status, headers, body } => {
            let mut response = respond(status, Body::from(body));
            for (name, value) in headers {
                let value = HeaderValue::try_from(value).ok()?;
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
            response
        }
        Step::Lose | Step::Late(_) => return None,
        Step::Hang => pending().await,
        Step::HangUp(status) => {
            let begins = stream::iter([Ok(Bytes::from_static(b"{\"reas"))]);
            let ends = stream::once(async {
                // What waits is written first, over HTTP/2 by another task.
                sleep(Duration::from_millis(50)).await;
                Err(io::Error::other("as told"))
            });
            respond(status, Body::from_stream(begins.chain(ends)))
        }
        Step::Huge(status) => {
            let part = Bytes::from(vec![b'x'; 64 * 1024]);
            let parts = (0..1024).map(move |_| Ok::<_, io::Error>(part.clone()));
            respond(status, Body::from_stream(stream::iter(parts)))
        }
    };
    Some(response)
}

/// A response.
pub(super) fn respond(status: u16, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response
}

/// The text of a header that has to be there.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, String> {
    let value = headers.get(name).ok_or_else(|| format!("{name} is missing"))?;
    value.to_str().map_err(|_| format!("{name} is no text"))
}
