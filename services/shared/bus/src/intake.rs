//! What workers share among themselves: a durable consumer hands each message to one of them, and again
//! to another when that one does not say within a time that it is done.
//!
//! Two requests and no more: all that is there now, or the next one when there is nothing. So nothing is
//! on its way to somebody who has stopped asking.

use std::{fmt, time::Duration};

use async_nats::{
    Message, Subscriber,
    jetstream::{
        self, ErrorCode,
        consumer::{AckPolicy, Config, DeliverPolicy, Info},
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};

use crate::{client::Bus, error::BusError, stored::Raw};

/// An answer to a request that has run out comes this much later at most.
const GRACE: Duration = Duration::from_secs(2);
/// How long the server collects what is there.
const COLLECTED: Duration = Duration::from_secs(1);

/// How a durable consumer hands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeConfig {
    /// The stream.
    pub stream: String,
    /// Its name there.
    pub name: String,
    /// What of the stream it hands out.
    pub subject: String,
    /// When it is made: messages from then on; none for all.
    pub from: Option<OffsetDateTime>,
    /// Who does not say within this time that a message is done, or still in hand, has lost it.
    pub patience: Duration,
    /// Messages in hand at most, of all workers together.
    pub in_hand: u32,
}

/// One worker's end of a durable consumer; see [`Bus::intake`].
pub struct Intake {
    bus: Bus,
    stream: String,
    name: String,
    /// Prefix of the requests' reply subjects, dot included.
    inbox: String,
    messages: Subscriber,
    /// The connection's losses when it was made: one more, and answers may be missing.
    losses: u64,
    requests: u64,
    /// Handed out and not returned yet: kept here so that a caller may stop waiting. What would be
    /// dropped with it would be handed out again only after a long time.
    taken: Vec<Handed>,
}

/// A message in hand.
pub struct Handed {
    /// The message; its `seq` is its place in its stream.
    pub raw: Raw,
    /// How often it was handed out, this time included.
    pub times: u64,
    token: Token,
}

/// What says of a message what became of it.
#[derive(Clone)]
pub struct Token {
    bus: Bus,
    reply: String,
}

/// How a consumer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Messages that nobody has got yet.
    pub waiting: u64,
    /// Messages in hand, those that wait to be handed out again among them.
    pub in_hand: u64,
}

#[derive(Serialize)]
struct Request {
    batch: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    no_wait: bool,
    expires: u64,
}

enum Answer {
    Handed(Box<Handed>),
    Ended,
    Nothing,
}

impl Bus {
    /// Makes sure of a durable consumer and gives an end of it. One that exists keeps its place.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when there is no such stream; when the server does not answer or refuses.
    pub async fn intake(&self, config: &IntakeConfig) -> Result<Intake, BusError> {
        let IntakeConfig { stream, name, .. } = config;
        match self.consumer(stream, name).await? {
            None => self.put_consumer(stream, name, wanted(config)).await?,
            Some(info) => {
                let found = info.config;
                let same = found.ack_wait == config.patience
                    && found.max_ack_pending == i64::from(config.in_hand);
                if !same {
                    let changed = Config {
                        ack_wait: config.patience,
                        max_ack_pending: i64::from(config.in_hand),
                        ..found
                    };
                    self.put_consumer(stream, name, changed).await?;
                }
            }
        }
        // Counted first: a loss after it is seen.
        let losses = self.inner.acks.losses();
        let inbox = format!("{}.", self.inner.client.new_inbox());
        let messages = self.subscribe(format!("{inbox}*")).await?;
        let (stream, name) = (stream.clone(), name.clone());
        let (bus, taken) = (self.clone(), Vec::new());
        Ok(Intake { bus, stream, name, inbox, messages, losses, requests: 0, taken })
    }

    /// How much a durable consumer has before it; none when there is no such consumer.
    ///
    /// # Errors
    /// When its leader does not answer.
    pub async fn backlog(&self, stream: &str, name: &str) -> Result<Option<Backlog>, BusError> {
        let info = self.consumer(stream, name).await?;
        Ok(info.map(|info| Backlog {
            waiting: info.num_pending,
            in_hand: u64::try_from(info.num_ack_pending).unwrap_or(0),
        }))
    }

    async fn consumer(&self, stream: &str, name: &str) -> Result<Option<Info>, BusError> {
        match self.api(format!("CONSUMER.INFO.{stream}.{name}"), &json!({})).await {
            Ok(info) => Ok(Some(info)),
            Err(BusError::Refused(error))
                if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND =>
            {
                Ok(None)
            }
            Err(BusError::Refused(error)) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(BusError::NoStream)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_consumer(&self, stream: &str, name: &str, config: Config) -> Result<(), BusError> {
        let request = json!({ "stream_name": stream, "config": config });
        self.api(format!("CONSUMER.DURABLE.CREATE.{stream}.{name}"), &request)
            .await
            .map(|_: serde_json::Value| ())
    }
}

fn wanted(config: &IntakeConfig) -> Config {
    Config {
        durable_name: Some(config.name.clone()),
        deliver_policy: match config.from {
            Some(start_time) => DeliverPolicy::ByStartTime { start_time },
            None => DeliverPolicy::All,
        },
        ack_policy: AckPolicy::Explicit,
        ack_wait: config.patience,
        // What cannot be done is for whoever takes it to say.
        max_deliver: -1,
        filter_subject: config.subject.clone(),
        max_ack_pending: i64::from(config.in_hand),
        ..Config::default()
    }
}

impl Intake {
    /// Up to `most` messages: those that are there, or the next one when there is none, or nothing when
    /// none comes within `wait`. May be dropped before it is done: nothing is lost.
    ///
    /// # Errors
    /// When the consumer cannot be asked just now, or is gone: begin anew with [`Bus::intake`].
    pub async fn take(&mut self, most: usize, wait: Duration) -> Result<Vec<Handed>, BusError> {
        let taken = self.there(most).await?;
        if taken.is_empty() { self.next(wait).await } else { Ok(taken) }
    }

    /// The next message, or nothing when none comes within `wait`.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub async fn next(&mut self, wait: Duration) -> Result<Vec<Handed>, BusError> {
        self.ask(1, false, wait, Instant::now() + wait + GRACE).await
    }

    /// Up to `most` messages of those that are there.
    ///
    /// # Errors
    /// As [`Intake::take`].
    pub async fn there(&mut self, most: usize) -> Result<Vec<Handed>, BusError> {
        self.ask(most.max(1), true, COLLECTED, Instant::now() + COLLECTED + GRACE).await
    }

    /// Hands back at once what was handed out and not returned.
    pub fn end(mut self) {
        for handed in self.taken.drain(..) {
            handed.token.again(Duration::ZERO);
        }
        while let Some(Some(message)) = self.messages.next().now_or_never() {
            if let Ok(Answer::Handed(handed)) = self.on_message(message, "") {
                handed.token.again(Duration::ZERO);
            }
        }
    }

    async fn ask(
        &mut self,
        batch: usize,
        no_wait: bool,
        expires: Duration,
        until: Instant,
    ) -> Result<Vec<Handed>, BusError> {
        self.still_sound()?;
        if !self.taken.is_empty() {
            return Ok(std::mem::take(&mut self.taken));
        }
        self.requests += 1;
        let reply = format!("{}{}", self.inbox, self.requests);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.name);
        let expires = u64::try_from(expires.as_nanos()).unwrap_or(u64::MAX);
        let body = serde_json::to_vec(&Request { batch, no_wait, expires })?.into();
        let sending = self.bus.inner.client.publish_with_reply(subject, reply.clone(), body);
        sending.await.map_err(|_| BusError::Closed)?;
        while self.taken.len() < batch {
            let answer = match timeout_at(until, self.messages.next()).await {
                Ok(Some(message)) => self.on_message(message, &reply),
                Ok(None) => Err(BusError::Closed),
                Err(_) => Err(BusError::Timeout),
            };
            match answer {
                Ok(Answer::Handed(handed)) => self.taken.push(*handed),
                Ok(Answer::Ended) => break,
                Ok(Answer::Nothing) => {}
                // What is there is good; the error will show again if it lasts.
                Err(_) if !self.taken.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut self.taken))
    }

    fn still_sound(&self) -> Result<(), BusError> {
        self.bus.require_connection()?;
        if self.losses == self.bus.inner.acks.losses() {
            Ok(())
        } else {
            Err(BusError::Disconnected)
        }
    }

    fn on_message(&self, message: Message, asked: &str) -> Result<Answer, BusError> {
        if let Some(status) = message.status {
            let current = *message.subject == *asked;
            let text = message.description.as_deref().unwrap_or_default();
            return match status.as_u16() {
                404 | 408 if current => Ok(Answer::Ended),
                409 if text.contains("Batch Completed") && current => Ok(Answer::Ended),
                // Too much is in hand already.
                409 if text.contains("MaxAckPending") => Ok(Answer::Ended),
                100 | 404 | 408 => Ok(Answer::Nothing),
                503 => Err(BusError::NoStream),
                status => Err(BusError::Unreadable(format!("status {status} {text}"))),
            };
        }
        let message = jetstream::Message { message, context: self.bus.inner.jetstream.clone() };
        let info = message.info().map_err(|error| BusError::Unreadable(error.to_string()))?;
        let (seq, at) = (info.stream_sequence, info.published);
        let times = u64::try_from(info.delivered).unwrap_or(1);
        let Message { subject, headers, payload, reply, .. } = message.message;
        let reply = reply.map(|reply| reply.to_string()).unwrap_or_default();
        let raw = Raw::new(subject.to_string(), seq, at, headers.as_ref(), payload);
        let token = Token { bus: self.bus.clone(), reply };
        Ok(Answer::Handed(Box::new(Handed { raw, times, token })))
    }
}

impl Handed {
    /// What says later what became of it.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token.clone()
    }
}

/// What is said here may be lost, and the message is then handed out again.
impl Token {
    /// It is done.
    pub fn done(&self) {
        self.say(Bytes::from_static(b"+ACK"));
    }

    /// It is still in hand.
    pub fn held(&self) {
        self.say(Bytes::from_static(b"+WPI"));
    }

    /// Somebody is to have it again, after this time.
    pub fn again(&self, after: Duration) {
        self.say(format!("-NAK {{\"delay\":{}}}", after.as_nanos()).into());
    }

    fn say(&self, what: Bytes) {
        if let Err(error) = self.bus.hand_over(self.reply.clone(), what) {
            tracing::debug!(%error, "a message will be handed out again");
        }
    }
}

impl fmt::Debug for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intake")
            .field("stream", &self.stream)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Handed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handed")
            .field("raw", &self.raw)
            .field("times", &self.times)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("reply", &self.reply).finish_non_exhaustive()
    }
}
