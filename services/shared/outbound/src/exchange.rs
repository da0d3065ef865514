//! One request and its answer, within bounds.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use natter_runtime::causes;
use reqwest::{
    Client, ClientBuilder, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::outcome::{Answer, Outcome};

/// Bytes of an answer that are read. Nothing that is looked for lies beyond.
const BODY: usize = 16 * 1024;
/// The status is there: so long is waited for what else the answer says.
const BODY_WAIT: Duration = Duration::from_secs(2);
/// A server may ask to wait for so long.
const LONGEST_WAIT: Duration = Duration::from_hours(24);
/// So often a connection shows that it is still one.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Characters of a word of the server's own.
const WORD: usize = 80;
/// Between two lines in the log about the same.
const QUIET: Duration = Duration::from_mins(1);

/// What holds for one server, or one kind of server, by itself.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Requests with it at the same time.
    pub concurrency: usize,
    /// A connection is there by then.
    pub connect: Duration,
    /// Everything is done by then, the wait for a place among those at the same time aside.
    pub deadline: Duration,
    /// Failures in a row that open the circuit.
    pub failures: u32,
    /// For how long, at first.
    pub pause: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            concurrency: 64,
            connect: Duration::from_secs(5),
            deadline: Duration::from_secs(10),
            failures: 20,
            pause: Duration::from_secs(10),
        }
    }
}

/// A client that goes nowhere but where it is sent.
pub fn client(bounds: &Bounds) -> ClientBuilder {
    // The one crypto provider of this process; another caller may have installed it before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder()
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .user_agent(concat!("natter/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(bounds.connect)
        .timeout(bounds.deadline)
        .pool_max_idle_per_host(bounds.concurrency)
        .pool_idle_timeout(Duration::from_mins(1))
        .tcp_keepalive(KEEP_ALIVE)
        // All requests share one connection then, which may be dead without anybody saying so.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .http2_keep_alive_timeout(bounds.deadline)
        .tcp_nodelay(true)
}

/// An answer.
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body's beginning.
    pub body: Vec<u8>,
}

/// Sends a request and reads the answer, of which the status has to come.
///
/// # Errors
/// Why there is none.
pub async fn exchange(request: RequestBuilder) -> Result<Reply, Outcome> {
    match request.send().await {
        Ok(mut response) => {
            let mut body = Vec::new();
            // Whatever becomes of the body, the status holds.
            let _ = timeout(BODY_WAIT, read(&mut response, &mut body)).await;
            let headers = std::mem::take(response.headers_mut());
            Ok(Reply { status: response.status(), headers, body })
        }
        Err(error) => {
            // The URL may be a secret, and says who it was for.
            let error = error.without_url();
            tracing::debug!(error = %causes(&error), "a server cannot be reached");
            let why = if error.is_connect() {
                "no connection"
            } else if error.is_timeout() {
                "no answer in time"
            } else if error.is_builder() {
                "no request could be made"
            } else {
                "the connection broke off"
            };
            Err(Outcome::Retry { after: None, answer: Answer::new(why), sent: true })
        }
    }
}

async fn read(response: &mut Response, body: &mut Vec<u8>) {
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk[..chunk.len().min(BODY - body.len())]);
        if body.len() == BODY {
            return;
        }
    }
}

impl Reply {
    /// The body, if it is JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The status, with what else the server says in a word of its own.
    #[must_use]
    pub fn answer(&self, word: Option<&str>) -> Answer {
        let number = self.status.as_u16();
        match (word.and_then(harmless), self.status.canonical_reason()) {
            (Some(word), _) => Answer::new(format_args!("{number} {word}")),
            (None, Some(reason)) => Answer::new(format_args!("{number} {reason}")),
            (None, None) => Answer::new(number),
        }
    }

    /// The outcome that the status alone tells, where a server has no words of its own. `gone` are
    /// those that say that the target is none.
    #[must_use]
    pub fn outcome(&self, gone: &[StatusCode], word: Option<&str>) -> Outcome {
        let answer = self.answer(word);
        if self.status.is_success() {
            Outcome::Accepted { answer }
        } else if gone.contains(&self.status) {
            Outcome::Gone { answer }
        } else if self.passes() {
            self.retry(answer)
        } else {
            Outcome::Refused { answer }
        }
    }

    /// Later, when the server says.
    #[must_use]
    pub fn retry(&self, answer: Answer) -> Outcome {
        Outcome::Retry { after: self.retry_after(), answer, sent: true }
    }

    /// Whether the same may be answered otherwise later.
    #[must_use]
    pub fn passes(&self) -> bool {
        let later = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
        self.status.is_server_error() || later.contains(&self.status)
    }

    fn retry_after(&self) -> Option<Duration> {
        let said = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        retry_after(said, SystemTime::now())
    }
}

/// `Retry-After`, in seconds or as a date.
fn retry_after(said: &str, now: SystemTime) -> Option<Duration> {
    let said = said.trim();
    let wait = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date that has passed is now.
        Err(_) => httpdate::parse_http_date(said).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(LONGEST_WAIT))
}

/// A server's word, unless it may be anything else, like a token that it repeats.
fn harmless(word: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ' | ',' | ':');
    let short = word.split([' ', ',']).all(|part| part.len() <= 32);
    let fits = !word.is_empty() && word.len() <= WORD;
    (fits && short && word.chars().all(plain)).then_some(word)
}

/// Says loudly what only the operator can put right, but not for every request.
#[derive(Debug, Default)]
pub struct Alarm(Mutex<Option<Instant>>);

impl Alarm {
    /// Whether it is time to say it again.
    #[must_use]
    pub fn rings(&self) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|at| at.elapsed() >= QUIET);
        if due {
            *last = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let seconds = |said| retry_after(said, now).map(|wait| wait.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("0"), Some(0));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:40:37 GMT"), Some(0));
        assert_eq!(seconds("99999999999"), Some(86_400));
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("soon"), None);
    }

    #[test]
    fn words_that_may_be_secrets_are_not_repeated() {
        assert_eq!(harmless("UNREGISTERED"), Some("UNREGISTERED"));
        assert_eq!(harmless("Request did not validate"), Some("Request did not validate"));
        assert_eq!(harmless("https://push.example.org/x"), None);
        assert_eq!(harmless(&"a".repeat(33)), None);
        assert_eq!(harmless(""), None);
        assert_eq!(harmless("<html>"), None);
    }
}
