//! A shard's log, whole or one feed of it, in order, from any place on; or what is kept of one.
//!
//! It is a pull consumer that nobody acks and that dies with its reader: the reader's position
//! lives elsewhere. The server counts what it delivers; a hole in the count, a lost connection
//! or an answer that does not come starts a new consumer at the next sequence. The consumer's
//! leader is asked, never a replica that lags.

use std::time::Duration;

use async_nats::{Message, Subscriber, jetstream};
use futures::StreamExt;
use natter_protocol::{
    feed::Feed,
    ids::{Seq, Shard},
};
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{client::Bus, error::BusError, stored::Raw, subjects};

/// A batch is returned this long after its first entry came, full or not.
pub const LINGER: Duration = Duration::from_millis(5);
/// Bytes of a batch, about; a batch has at least one entry.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How long the server keeps a pull that nothing answers.
const PULL_EXPIRES: Duration = Duration::from_secs(5);
/// After this beyond the expiry a pull that was not answered counts as lost.
const PULL_GRACE: Duration = Duration::from_secs(1);
/// The server forgets a consumer that nobody pulls from for so long.
const INACTIVE: Duration = Duration::from_secs(30);

/// Reads a shard's log in order; see [`Bus::log_reader`].
pub struct LogReader {
    bus: Bus,
    stream: String,
    /// What is read of it.
    subject: String,
    /// Sequence of the next entry wanted.
    next: Seq,
    consumer: Option<Consumer>,
    /// Read and not yet returned: kept here so that a caller may stop waiting.
    batch: Vec<Raw>,
    bytes: usize,
    first_at: Option<Instant>,
    behind: u64,
    /// See [`LogReader::paced`].
    pace: Option<Duration>,
    /// When all there was had come last.
    caught_up: Option<Instant>,
}

struct Consumer {
    name: String,
    /// Prefix of the pulls' reply subjects, dot included.
    inbox: String,
    messages: Subscriber,
    /// The connection's losses when it was made: one more, and deliveries may be missing.
    losses: u64,
    /// Entries delivered so far, as the server counts.
    delivered: u64,
    pull: Option<Pull>,
    pulls: u64,
}

/// The request that the server is filling.
struct Pull {
    reply: String,
    entries: usize,
    entries_left: usize,
    lost_at: Instant,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    max_bytes: usize,
    expires: u128,
    /// Ended as soon as there is nothing more, instead of entry by entry as they are stored; but kept
    /// for the first one where there is none.
    no_wait: bool,
}

enum Step {
    Entry(Box<Raw>, u64),
    Nothing,
    PullEnded(PullEnd),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PullEnd {
    /// It brought nothing.
    Idle,
    /// There is no more, or nothing more came in time.
    Drained,
    /// It is full.
    Full,
}

impl Bus {
    /// Reads a shard's log from `from` on. Nothing is asked of the server before the first
    /// [`LogReader::next_batch`].
    #[must_use]
    pub fn log_reader(&self, shard: Shard, from: Seq) -> LogReader {
        self.reader(subjects::log_stream(shard), subjects::stored_all(shard), from)
    }

    /// The same for one feed.
    pub(crate) fn feed_reader(&self, feed: Feed, from: Seq) -> LogReader {
        self.reader(subjects::log_stream(feed.shard), subjects::stored(feed), from)
    }

    pub(crate) fn reader(&self, stream: String, subject: String, from: Seq) -> LogReader {
        LogReader {
            bus: self.clone(),
            stream,
            subject,
            next: from.max(1),
            consumer: None,
            batch: Vec::new(),
            bytes: 0,
            first_at: None,
            behind: 0,
            pace: None,
            caught_up: None,
        }
    }
}

impl LogReader {
    /// Reads in gulps: having read all there is, it asks again only so long after (less than 30 s),
    /// for all that is stored by then. What comes after a pause still comes at once. Else the server
    /// sends each entry when it is stored, and wakes the reader for it.
    #[must_use]
    pub fn paced(mut self, pace: Duration) -> Self {
        self.pace = Some(pace);
        self
    }

    /// The next time it asks at once, whatever its pace.
    pub fn hurry(&mut self) {
        self.caught_up = None;
    }

    /// The next entries: up to `max` (at least 1) and about 4 MB, complete within 5 ms of the
    /// first; empty when none comes within `wait`. Sequences grow, and have holes only where the
    /// log has. May be dropped before it is done: nothing read is lost.
    ///
    /// # Errors
    /// When the log cannot be read just now: call again after a pause, it goes on where it was.
    pub async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Vec<Raw>, BusError> {
        let deadline = Instant::now() + wait;
        while self.batch.len() < max.max(1) && self.bytes < BATCH_BYTES {
            match self.advance(max.max(1), deadline).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.consumer = None;
                    // What is there is good; the error will show again if it lasts.
                    if self.batch.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        self.bytes = 0;
        self.first_at = None;
        Ok(std::mem::take(&mut self.batch))
    }

    /// Takes the consumer away from the server, which would otherwise keep it for a while.
    pub async fn close(mut self) {
        if let Some(consumer) = self.consumer.take() {
            let operation = format!("CONSUMER.DELETE.{}.{}", self.stream, consumer.name);
            let _ = self.bus.api::<serde_json::Value>(operation, &json!({})).await;
        }
    }

    /// The sequence of the entry that comes next, at least.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next
    }

    /// Entries in the log beyond the last one read, when it was read.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.behind
    }

    /// Waits for one message; false when it is time to return.
    async fn advance(&mut self, max: usize, deadline: Instant) -> Result<bool, BusError> {
        if self.consumer.is_none() {
            self.consumer =
                Some(Consumer::create(&self.bus, &self.stream, &self.subject, self.next).await?);
        }
        let until = self.first_at.map_or(deadline, |first| first + LINGER);
        let step = match timeout_at(until, self.step(max)).await {
            Ok(step) => step?,
            Err(_) => return self.still_sound().map(|()| false),
        };
        match step {
            Step::Entry(raw, behind) if raw.seq >= self.next => {
                self.next = raw.seq + 1;
                self.behind = behind;
                self.bytes += raw.body.len();
                self.first_at.get_or_insert_with(Instant::now);
                self.batch.push(*raw);
            }
            Step::PullEnded(PullEnd::Drained) if self.pace.is_some() => {
                return Ok(self.batch.is_empty());
            }
            Step::PullEnded(PullEnd::Idle | PullEnd::Drained) if self.batch.is_empty() => {
                self.check_idle().await?;
            }
            Step::Entry(..) | Step::Nothing | Step::PullEnded(_) => {}
        }
        Ok(true)
    }

    async fn step(&mut self, max: usize) -> Result<Step, BusError> {
        let Some(consumer) = &mut self.consumer else { return Err(BusError::Closed) };
        if consumer.pull.is_none() {
            if let (Some(pace), Some(caught_up)) = (self.pace, self.caught_up) {
                sleep_until(caught_up + pace).await;
            }
            consumer.pull(&self.bus, &self.stream, max, self.pace.is_some()).await?;
        }
        let message = consumer.messages.next().await.ok_or(BusError::Closed)?;
        let step = consumer.on_message(&self.bus.inner.jetstream, message)?;
        if consumer.pull.is_none() {
            let all = match &step {
                Step::Entry(_, behind) => *behind == 0,
                Step::PullEnded(end) => *end == PullEnd::Drained,
                Step::Nothing => false,
            };
            self.caught_up = all.then(Instant::now);
        }
        Ok(step)
    }

    /// Nothing came in time: is that because nothing was stored?
    fn still_sound(&self) -> Result<(), BusError> {
        self.bus.require_connection()?;
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let lost_pull = consumer.pull.as_ref().is_some_and(|pull| pull.lost_at < Instant::now());
        if lost_pull || consumer.losses != self.bus.inner.acks.losses() {
            return Err(BusError::Disconnected);
        }
        Ok(())
    }

    /// A pull ran out without an entry: then the log must hold none beyond. Should deliveries
    /// ever be lost at the end of the log, this is what finds it.
    async fn check_idle(&mut self) -> Result<(), BusError> {
        if self.bus.next_in(&self.stream, &self.subject, self.next).await?.is_some() {
            tracing::info!(stream = self.stream, next = self.next, "the log reader starts anew");
            self.consumer = None;
        }
        Ok(())
    }
}

impl Consumer {
    async fn create(bus: &Bus, stream: &str, subject: &str, from: Seq) -> Result<Self, BusError> {
        // Counted first: a loss after it is seen.
        let losses = bus.inner.acks.losses();
        let name = format!("reader_{}", uuid::Uuid::new_v4().simple());
        let inbox = format!("{}.", bus.inner.client.new_inbox());
        let messages = bus.subscribe(format!("{inbox}*")).await?;
        let request = json!({
            "stream_name": stream,
            "action": "create",
            "config": {
                "name": name,
                "filter_subject": subject,
                "deliver_policy": "by_start_sequence",
                "opt_start_seq": from,
                "ack_policy": "none",
                "replay_policy": "instant",
                "inactive_threshold": INACTIVE.as_nanos() as u64,
                "num_replicas": 1,
                "mem_storage": true,
            },
        });
        let operation = format!("CONSUMER.CREATE.{stream}.{name}");
        bus.api::<serde_json::Value>(operation, &request).await?;
        Ok(Self { name, inbox, messages, losses, delivered: 0, pull: None, pulls: 0 })
    }

    async fn pull(
        &mut self,
        bus: &Bus,
        stream: &str,
        entries: usize,
        no_wait: bool,
    ) -> Result<(), BusError> {
        bus.require_connection()?;
        self.pulls += 1;
        let reply = format!("{}{}", self.inbox, self.pulls);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", self.name);
        let expires = PULL_EXPIRES.as_nanos();
        let body = PullRequest { batch: entries, max_bytes: BATCH_BYTES, expires, no_wait };
        let body = serde_json::to_vec(&body)?.into();
        let sending = bus.inner.client.publish_with_reply(subject, reply.clone(), body);
        sending.await.map_err(|_| BusError::Closed)?;
        let lost_at = Instant::now() + PULL_EXPIRES + PULL_GRACE;
        self.pull = Some(Pull { reply, entries, entries_left: entries, lost_at });
        Ok(())
    }

    fn on_message(
        &mut self,
        jetstream: &jetstream::Context,
        message: Message,
    ) -> Result<Step, BusError> {
        if message.status.is_some() {
            return self.on_status(&message);
        }
        let message = jetstream::Message { message, context: jetstream.clone() };
        let info = message.info().map_err(|error| BusError::Unreadable(error.to_string()))?;
        if info.consumer_sequence != self.delivered + 1 {
            return Err(BusError::Unreadable("a delivery was lost".to_owned()));
        }
        let (seq, at, behind) = (info.stream_sequence, info.published, info.pending);
        self.delivered += 1;
        if let Some(pull) = &mut self.pull {
            pull.entries_left = pull.entries_left.saturating_sub(1);
            if pull.entries_left == 0 {
                self.pull = None;
            }
        }
        let Message { subject, headers, payload, .. } = message.message;
        let raw = Raw::new(subject.to_string(), seq, at, headers.as_ref(), payload);
        Ok(Step::Entry(Box::new(raw), behind))
    }

    fn on_status(&mut self, message: &Message) -> Result<Step, BusError> {
        let current = self.pull.as_ref().is_some_and(|pull| *pull.reply == *message.subject);
        let text = message.description.as_deref().unwrap_or_default();
        match message.status.map(|status| status.as_u16()) {
            // Of a pull that is over already.
            Some(404 | 408) if !current => Ok(Step::Nothing),
            Some(404 | 408) => {
                let ended = self.pull.take();
                let some = ended.is_some_and(|pull| pull.entries_left < pull.entries);
                Ok(Step::PullEnded(if some { PullEnd::Drained } else { PullEnd::Idle }))
            }
            Some(409) if text.contains("MaxBytes") || text.contains("Batch Completed") => {
                if current {
                    self.pull = None;
                }
                Ok(Step::PullEnded(PullEnd::Full))
            }
            Some(100) => Ok(Step::Nothing),
            Some(503) => Err(BusError::NoStream),
            status => Err(BusError::Unreadable(format!("status {status:?} {text}"))),
        }
    }
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader")
            .field("stream", &self.stream)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
