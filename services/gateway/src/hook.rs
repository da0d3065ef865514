//! The deployment's own check of messages: asked before one is published, and before one's text is
//! changed. It lets them through, refuses them, or gives them another text.
//!
//! Signed as standardwebhooks.com says; `webhook-id` names the message, so that a retry is the same
//! question. It has little time, few are asked at once, and one that fails again and again is left alone
//! for a while: then what is configured for a check that fails decides at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use natter_outbound::{
    Alarm, Bounds,
    breaker::{Circuit, Circuits},
    exchange::{client, exchange},
    signing::Signer,
};
use natter_protocol::{
    error::{ErrorCode, Outcome, WireError},
    ids::{ChatId, DeviceId, MediaId, MessageId, UserId},
    server::UserCard,
    timestamp,
};
use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::timeout};
use url::Url;

use crate::{
    config::{HookArgs, OnFailure},
    measures::{self, Checked},
    send,
};

/// Failures in a row after which the check is left alone.
const FAILURES: u32 = 5;
/// For how long, at first; it gets longer up to ten times that.
const PAUSE: Duration = Duration::from_secs(1);
/// Characters of the reason and of the message that a refusal may give.
const REASON_CHARS: usize = 64;
const MESSAGE_CHARS: usize = 500;
const URL: &str = "NATTER_HOOK_URL (--hook-url)";
const SECRET: &str = "NATTER_HOOK_SECRET (--hook-secret)";

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct HookConfigError {
    setting: &'static str,
    reason: String,
}

/// What it is about to say.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new message.
    #[serde(rename = "message.sending")]
    Sending,
    /// Another text of one.
    #[serde(rename = "message.editing")]
    Editing,
}

/// A message that is to be checked.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Question<'a> {
    /// In which chat.
    pub chat_id: ChatId,
    /// Its id, the same for each retry.
    pub message_id: MessageId,
    /// Who says it.
    pub sender: &'a UserCard,
    /// On which device; none when a server does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// The text.
    pub content: &'a str,
    /// The file that comes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_id: Option<MediaId>,
    /// The message that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<MessageId>,
    /// Whom it names besides those in the text.
    #[serde(skip_serializing_if = "<[UserId]>::is_empty")]
    pub mentions: &'a [UserId],
}

/// As it is asked.
#[derive(Serialize)]
struct Asked<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(with = "timestamp")]
    timestamp: OffsetDateTime,
    data: &'a Question<'a>,
}

/// What it answers.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(tag = "action", rename_all = "snake_case")]
enum Verdict {
    Allow,
    Refuse {
        #[serde(default)]
        code: Option<String>,
        #[serde(default)]
        message: Option<String>,
    },
    Replace {
        content: String,
    },
}

/// The check. Cloning shares its places and its circuit.
#[derive(Clone)]
pub struct Hook {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    url: Url,
    signer: Signer,
    limit: Duration,
    places: Semaphore,
    circuit: Arc<Circuit>,
    on_failure: OnFailure,
    alarm: Alarm,
}

/// Why there is no verdict.
struct Failed {
    /// For the log.
    why: String,
    /// Not before this it is any use to ask again.
    wait: Duration,
}

impl Hook {
    /// The check that is configured, if one is.
    ///
    /// # Errors
    /// A URL or a secret that is none.
    pub fn from_config(config: &HookArgs) -> Result<Option<Self>, HookConfigError> {
        let wrong = |setting, reason: &str| HookConfigError { setting, reason: reason.to_owned() };
        let Some(url) = config.hook_url.clone() else { return Ok(None) };
        if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
            return Err(wrong(URL, "is no https URL"));
        }
        let secret = config.hook_secret.as_ref().ok_or_else(|| wrong(SECRET, "is missing"))?;
        let signer = Signer::new(secret.expose_secret())
            .map_err(|error| wrong(SECRET, &error.to_string()))?;
        let limit = Duration::from_millis(config.hook_milliseconds);
        let bounds = Bounds {
            concurrency: config.hook_concurrency as usize,
            connect: limit,
            deadline: limit,
            failures: FAILURES,
            pause: PAUSE,
        };
        let client = client(&bounds).build().map_err(|error| wrong(URL, &error.to_string()))?;
        let circuits = Circuits::new(bounds.failures, bounds.pause, measures::hook_open());
        let inner = Inner {
            client,
            signer,
            limit,
            places: Semaphore::new(bounds.concurrency),
            circuit: circuits.of(url.as_str()),
            on_failure: config.hook_failure,
            alarm: Alarm::default(),
            url,
        };
        Ok(Some(Self { inner: Arc::new(inner) }))
    }

    /// Asks about a message: the text that it has instead, if another.
    ///
    /// # Errors
    /// `refused`, with the check's own reason and message; `unavailable` (`not_sent`) when the check
    /// fails and that is to refuse.
    pub async fn check(
        &self,
        kind: Kind,
        question: &Question<'_>,
    ) -> Result<Option<String>, WireError> {
        let began = Instant::now();
        let verdict = self.ask(kind, question).await;
        measures::hook_seconds().record(began.elapsed());
        match verdict {
            Ok(Verdict::Allow) => {
                measures::hook(Checked::Allowed).increment(1);
                Ok(None)
            }
            Ok(Verdict::Replace { content }) => {
                measures::hook(Checked::Replaced).increment(1);
                Ok(Some(content).filter(|content| content != question.content))
            }
            Ok(Verdict::Refuse { code, message }) => {
                measures::hook(Checked::Refused).increment(1);
                Err(refusal(code.as_deref(), message.as_deref()))
            }
            Err(failed) => self.failed(&failed),
        }
    }

    fn failed(&self, failed: &Failed) -> Result<Option<String>, WireError> {
        measures::hook(Checked::Failed).increment(1);
        let allows = self.inner.on_failure == OnFailure::Allow;
        if self.inner.alarm.rings() {
            let why = &failed.why;
            tracing::warn!(why, allows, "messages are not checked: NATTER_HOOK_URL fails");
        }
        if allows {
            return Ok(None);
        }
        let wait = failed.wait.max(PAUSE).as_millis() as u64;
        let error = WireError::new(ErrorCode::Unavailable, "the check of messages does not answer");
        Err(error.retry_after_ms(wait).outcome(Outcome::NotSent))
    }

    async fn ask(&self, kind: Kind, question: &Question<'_>) -> Result<Verdict, Failed> {
        let Inner { limit, places, circuit, .. } = &*self.inner;
        let failed = |why: &str, wait| Failed { why: why.to_owned(), wait };
        // The wait for a place counts: nobody waits for longer than the limit.
        let until = tokio::time::Instant::now() + *limit;
        let place = tokio::time::timeout_at(until, places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(failed("too many are asked at once", PAUSE));
        };
        let pass =
            circuit.admit().map_err(|wait| failed("it has failed too often just now", wait))?;
        let asked = timeout(
            until.saturating_duration_since(tokio::time::Instant::now()),
            self.exchange(kind, question),
        );
        let verdict = asked.await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        match verdict {
            Ok(verdict) => {
                pass.succeeded();
                Ok(verdict)
            }
            Err(why) => {
                pass.failed(None);
                Err(failed(&why, PAUSE))
            }
        }
    }

    /// One request. An error says why there is no verdict, in a line without a word of the message.
    async fn exchange(&self, kind: Kind, question: &Question<'_>) -> Result<Verdict, String> {
        let Inner { client, url, signer, .. } = &*self.inner;
        let timestamp = timestamp::truncate(OffsetDateTime::now_utc());
        let body = serde_json::to_vec(&Asked { kind, timestamp, data: question })
            .map_err(|error| error.to_string())?;
        let id = format!("msg_{}", question.message_id.0.simple());
        let request =
            signer.signed(client.post(url.clone()), &id, timestamp.unix_timestamp(), body);
        let reply = exchange(request).await.map_err(|outcome| outcome.answer().to_string())?;
        let beside_media = question.media_id.is_some();
        read(reply.status, &reply.body, beside_media)
    }
}

/// The verdict in an answer.
fn read(status: StatusCode, body: &[u8], beside_media: bool) -> Result<Verdict, String> {
    if status == StatusCode::NO_CONTENT {
        return Ok(Verdict::Allow);
    }
    if status != StatusCode::OK {
        return Err(format!("it answers {}", status.as_u16()));
    }
    // No text of the error: it may quote the answer, and that the message.
    let verdict: Verdict =
        serde_json::from_slice(body).map_err(|_| "its answer has not the documented form")?;
    if let Verdict::Replace { content } = &verdict
        && send::check_content(content, beside_media).is_err()
    {
        return Err("it gives a text that no message can have".to_owned());
    }
    Ok(verdict)
}

/// What the sender is told.
fn refusal(code: Option<&str>, message: Option<&str>) -> WireError {
    let shown = |text: &str, most| -> String {
        text.chars().filter(|c| !c.is_control()).take(most).collect()
    };
    let message = message.map(|message| shown(message, MESSAGE_CHARS));
    let message = message.filter(|message| !message.is_empty());
    let message = message.unwrap_or_else(|| "the message is not let through".to_owned());
    let reason = code.map(|code| shown(code, REASON_CHARS)).filter(|code| !code.is_empty());
    WireError { reason, ..WireError::new(ErrorCode::Refused, message) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(body: &str) -> Result<Verdict, String> {
        read(StatusCode::OK, body.as_bytes(), false)
    }

    #[test]
    fn an_answer_is_one_of_three_or_none() {
        assert_eq!(answer(r#"{"action":"allow"}"#), Ok(Verdict::Allow));
        assert_eq!(answer(r#"{"action":"allow","more":"to come"}"#), Ok(Verdict::Allow));
        assert_eq!(read(StatusCode::NO_CONTENT, b"", false), Ok(Verdict::Allow));
        let (code, message) = (Some("spam".to_owned()), Some("No advertising.".to_owned()));
        let refused = answer(r#"{"action":"refuse","code":"spam","message":"No advertising."}"#);
        assert_eq!(refused, Ok(Verdict::Refuse { code, message }));
        let refused = answer(r#"{"action":"refuse"}"#);
        assert_eq!(refused, Ok(Verdict::Refuse { code: None, message: None }));
        let replaced = answer(r#"{"action":"replace","content":"***"}"#);
        assert_eq!(replaced, Ok(Verdict::Replace { content: "***".to_owned() }));
        for wrong in [
            "",
            "{}",
            "[]",
            "allow",
            r#"{"action":"perhaps"}"#,
            r#"{"action":"replace"}"#,
            r#"{"action":"replace","content":""}"#,
            r#"{"action":"replace","content":"\u0000"}"#,
            r#"{"action":"refuse","code":7}"#,
        ] {
            assert!(answer(wrong).is_err(), "{wrong}");
        }
        for status in [201, 202, 301, 400, 401, 429, 500, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert!(read(status, br#"{"action":"allow"}"#, false).is_err(), "{status}");
        }
        let nothing = br#"{"action":"replace","content":""}"#;
        assert!(read(StatusCode::OK, nothing, true).is_ok(), "beside a file");
    }

    #[test]
    fn a_question_is_spelled_as_it_is_documented() {
        let (chat_id, message_id) = (ChatId::generate(), MessageId::generate());
        let sender = UserCard { id: UserId::generate(), name: "Ana".to_owned(), bot: true };
        let question = Question {
            chat_id,
            message_id,
            sender: &sender,
            device_id: None,
            content: "Hello",
            media_id: None,
            reply_to: None,
            mentions: &[],
        };
        let timestamp = time::macros::datetime!(2030-01-01 00:00 UTC);
        let asked = Asked { kind: Kind::Editing, timestamp, data: &question };
        let expected = serde_json::json!({
            "type": "message.editing",
            "timestamp": "2030-01-01T00:00:00.000Z",
            "data": {
                "chatId": chat_id, "messageId": message_id, "content": "Hello",
                "sender": {"id": sender.id, "name": "Ana", "bot": true},
            },
        });
        assert_eq!(serde_json::json!(asked), expected);
        assert_eq!(serde_json::json!(Kind::Sending), "message.sending");
    }

    proptest! {
        #[test]
        fn what_a_refusal_says_is_bounded_and_can_be_shown(code in "\\PC*|.{0,90}", message: String) {
            let error = refusal(Some(&code), Some(&message));
            let reason = error.reason.unwrap_or_default();
            prop_assert!(reason.chars().count() <= REASON_CHARS);
            prop_assert!(!error.message.is_empty());
            prop_assert!(error.message.chars().count() <= MESSAGE_CHARS);
            prop_assert!(!reason.chars().chain(error.message.chars()).any(char::is_control));
        }

        #[test]
        fn whatever_comes_is_a_verdict_or_none(body: Vec<u8>) {
            let _ = read(StatusCode::OK, &body, false);
        }
    }
}
