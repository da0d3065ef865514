//! Publishing entries: pipelined, in order, each with its own answer.
//!
//! Acks come back on one subscription, whose reply subjects end in a number; the number finds
//! who waits. So a publish costs a map entry, and everybody is told at once when the connection
//! goes.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_nats::{
    Client, HeaderMap, Message, StatusCode, Subscriber,
    jetstream::{ErrorCode, publish::PublishAck, response::Response},
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use natter_protocol::{
    feed::{Entry, Feed},
    ids::Seq,
};
use opentelemetry::trace::TraceContextExt;
use tokio::{
    sync::{Notify, futures::Notified, oneshot},
    time::{Instant, interval},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::{
    client::Bus,
    subjects::{self, MSG_ID, TRACEPARENT},
};

/// How long an ack may take.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often overdue acks are given up.
const SWEEP: Duration = Duration::from_millis(250);
/// Publishes that may wait for their acks at once; beyond it they are refused.
const PENDING: usize = 64 * 1024;

/// An entry that the log has stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in the shard's log.
    pub seq: Seq,
    /// The log had it already, at `seq`: the same message id was published within its window.
    pub duplicate: bool,
}

/// Why an entry was not stored, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// It is not in the log and will not be.
    #[error("not sent: {0}")]
    NotSent(String),
    /// It may be in the log, or may still come to be: publish again with the same message id.
    #[error("it is unknown whether it was stored: {0}")]
    Unknown(String),
    /// The log is at its limit of bytes; it is not stored.
    #[error("the log is full")]
    Full,
}

/// A publish on its way: await it for its outcome, within [`ACK_TIMEOUT`].
/// Dropping it does not take the publish back.
#[derive(Debug)]
#[must_use = "only the outcome tells whether the entry was stored"]
pub struct Publishing(oneshot::Receiver<Result<Published, PublishError>>);

impl Future for Publishing {
    type Output = Result<Published, PublishError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = ready!(self.0.poll_unpin(cx));
        Poll::Ready(outcome.unwrap_or_else(|_| Err(lost("the connection was closed"))))
    }
}

fn lost(why: &str) -> PublishError {
    PublishError::Unknown(why.to_owned())
}

fn refused(why: impl Into<String>) -> PublishError {
    PublishError::NotSent(why.into())
}

impl Bus {
    /// Hands an entry to the connection, after everything handed to it before: one caller's
    /// publishes keep their order. Nothing waits here: while disconnected, or when too much is
    /// on its way, it is refused at once.
    ///
    /// `msg_id` makes a repetition within the log's window (5 min) harmless. The entry carries
    /// the current span's trace context when that is sampled.
    ///
    /// # Errors
    /// [`PublishError::NotSent`].
    pub fn publish(
        &self,
        feed: Feed,
        msg_id: &str,
        entry: &Entry,
    ) -> Result<Publishing, PublishError> {
        let body = serde_json::to_vec(entry).map_err(|error| refused(error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(MSG_ID, msg_id);
        if let Some(context) = current_traceparent() {
            headers.insert(TRACEPARENT, context);
        }
        self.publish_raw(subjects::stored(feed), headers, body.into())
    }

    pub(crate) fn publish_raw(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Publishing, PublishError> {
        if !self.connected() {
            return Err(refused("not connected to NATS"));
        }
        let (token, reply, receiver) =
            self.inner.acks.expect().ok_or_else(|| refused("too many acks are outstanding"))?;
        // Polled once: the future is ready unless the queue to the socket is full. Without the
        // task's budget, which would make it look full at times.
        let sending =
            self.inner.client.publish_with_reply_and_headers(subject, reply, headers, body);
        let refusal = match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => return Ok(Publishing(receiver)),
            Some(Err(error)) => error.to_string(),
            None => "the connection to NATS is congested".to_owned(),
        };
        self.inner.acks.forget(token);
        Err(refused(refusal))
    }
}

/// The current span as a `traceparent`, when it is sampled.
fn current_traceparent() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    (span.is_valid() && span.is_sampled())
        .then(|| format!("00-{}-{}-01", span.trace_id(), span.span_id()))
}

/// The prefix of this connection's reply subjects, dot included.
pub(crate) fn ack_inbox(client: &Client) -> String {
    format!("{}.", client.new_inbox())
}

/// Who waits for which ack.
#[derive(Default)]
pub(crate) struct Acks {
    inbox: OnceLock<String>,
    waiting: Mutex<Waiting>,
    losses: AtomicU64,
    lost: Notify,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    // Numbers grow, so the first ones are the oldest.
    by_token: BTreeMap<u64, (Instant, Answer)>,
}

type Answer = oneshot::Sender<Result<Published, PublishError>>;
type Expected = (u64, String, oneshot::Receiver<Result<Published, PublishError>>);

impl Acks {
    pub(crate) fn set_inbox(&self, inbox: String) {
        let _ = self.inbox.set(inbox);
    }

    fn expect(&self) -> Option<Expected> {
        let inbox = self.inbox.get()?;
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.by_token.len() >= PENDING {
            return None;
        }
        waiting.next += 1;
        let token = waiting.next;
        waiting.by_token.insert(token, (Instant::now() + ACK_TIMEOUT, sender));
        Some((token, format!("{inbox}{token}"), receiver))
    }

    fn forget(&self, token: u64) {
        self.lock().by_token.remove(&token);
    }

    /// The connection is gone: no ack of what was sent over it will come.
    pub(crate) fn lose_all(&self) {
        self.losses.fetch_add(1, Ordering::Relaxed);
        self.lost.notify_waiters();
        let all = std::mem::take(&mut self.lock().by_token);
        for (_, answer) in all.into_values() {
            let _ = answer.send(Err(lost("the connection was lost")));
        }
    }

    /// How many are waited for.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().by_token.len()
    }

    /// The next time that the connection is lost, from this call on.
    pub(crate) fn lost(&self) -> Notified<'_> {
        self.lost.notified()
    }

    /// How often the connection was lost.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Relaxed)
    }

    /// Gives acks to who waits for them, and gives up what is overdue.
    pub(crate) async fn read(self: Arc<Self>, mut subscriber: Subscriber) {
        let mut sweep = interval(SWEEP);
        loop {
            tokio::select! {
                message = subscriber.next() => match message {
                    Some(message) => self.on_ack(&message),
                    None => return self.lose_all(),
                },
                _ = sweep.tick() => self.expire(Instant::now()),
            }
        }
    }

    fn on_ack(&self, message: &Message) {
        let Some((_, token)) = message.subject.rsplit_once('.') else { return };
        let Ok(token) = token.parse::<u64>() else { return };
        let waiter = self.lock().by_token.remove(&token);
        // None: given up, and told so.
        if let Some((_, answer)) = waiter {
            let _ = answer.send(outcome(message));
        }
    }

    fn expire(&self, now: Instant) {
        loop {
            let mut waiting = self.lock();
            let Some(first) = waiting.by_token.first_entry() else { return };
            if first.get().0 > now {
                return;
            }
            let (_, answer) = first.remove();
            drop(waiting);
            let _ = answer.send(Err(lost("no ack in time")));
        }
    }

    // Every write leaves the map whole, so a poisoned lock is as good as any other.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn outcome(message: &Message) -> Result<Published, PublishError> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Err(refused("the log has no leader, or does not exist"));
    }
    match serde_json::from_slice(&message.payload) {
        Ok(Response::Ok(PublishAck { sequence, duplicate, .. })) => {
            Ok(Published { seq: sequence, duplicate })
        }
        Ok(Response::Err { error }) => Err(classify(&error)),
        Err(_) => Err(lost("the ack is unreadable")),
    }
}

fn classify(error: &async_nats::jetstream::Error) -> PublishError {
    match error.error_code() {
        ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum") => {
            PublishError::Full
        }
        ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => PublishError::Full,
        // The first of the two may yet fail.
        ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT => lost("the same message is being stored"),
        _ => refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_is_bounded_and_ends_with_the_connection() {
        let acks = Acks::default();
        acks.set_inbox("_INBOX.a.".to_owned());
        let Some((token, reply, receiver)) = acks.expect() else { panic!("refused") };
        assert_eq!(reply, format!("_INBOX.a.{token}"));
        acks.lose_all();
        assert!(matches!(Publishing(receiver).await, Err(PublishError::Unknown(_))));

        let waiting: Vec<_> = (0..PENDING).map_while(|_| acks.expect()).collect();
        assert_eq!(waiting.len(), PENDING);
        assert!(acks.expect().is_none());
        acks.expire(Instant::now() + ACK_TIMEOUT);
        assert!(acks.expect().is_some());
    }
}
