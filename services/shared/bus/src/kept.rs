//! What goes over from a log into the one that takes its place: kept in a stream of its own, so
//! that it outlives the old log, and whoever owns the shard next can go on where one stopped.
//!
//! An entry is kept as it was, with its message id: so it is kept once, and published once, however
//! often either is repeated within the broker's window.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy, StorageType},
};
use natter_protocol::ids::{Seq, Shard};

use crate::{
    client::Bus,
    error::BusError,
    log_reader::LogReader,
    publish::{PublishError, Publishing},
    stored::Raw,
    subjects::{self, MSG_ID, TRACEPARENT},
};

/// Within it an entry is kept once.
const WINDOW: Duration = Duration::from_mins(5);

/// What is kept for a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Place of the first entry, among those kept.
    pub first: Seq,
    /// Place of the last one.
    pub last: Seq,
    /// Entries.
    pub entries: u64,
}

impl Bus {
    /// Makes sure that there is a stream for what a shard's log leaves, on this many servers.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn ensure_kept(&self, shard: Shard, replicas: usize) -> Result<(), BusError> {
        if self.stream_info(&subjects::kept_stream(shard)).await?.is_none() {
            self.create_stream(&config(shard, replicas)).await?;
        }
        Ok(())
    }

    /// What is kept for a shard; `None` when nothing is.
    ///
    /// # Errors
    /// When the server does not answer, in 5 s.
    pub async fn kept(&self, shard: Shard) -> Result<Option<Kept>, BusError> {
        let info = self.stream_info(&subjects::kept_stream(shard)).await?;
        let state = info.map(|info| info.state).filter(|state| state.messages > 0);
        Ok(state.map(|state| Kept {
            first: state.first_sequence,
            last: state.last_sequence,
            entries: state.messages,
        }))
    }

    /// Keeps an entry of a log.
    ///
    /// # Errors
    /// [`PublishError::NotSent`].
    pub fn keep(&self, raw: &Raw) -> Result<Publishing, PublishError> {
        self.publish_raw(subjects::kept(&raw.subject), headers(raw), raw.body.clone())
    }

    /// Publishes what a log held once more, as it was: same subject, message id and body.
    ///
    /// # Errors
    /// [`PublishError::NotSent`].
    pub fn publish_again(&self, raw: &Raw) -> Result<Publishing, PublishError> {
        self.publish_raw(raw.subject.clone(), headers(raw), raw.body.clone())
    }

    /// The same into a log that is closed: see [`Bus::create_closed_log`].
    ///
    /// # Errors
    /// [`PublishError::NotSent`].
    pub fn carry(&self, raw: &Raw) -> Result<Publishing, PublishError> {
        self.publish_raw(subjects::carried(&raw.subject), headers(raw), raw.body.clone())
    }

    /// Reads what is kept for a shard, from one place on.
    #[must_use]
    pub fn kept_reader(&self, shard: Shard, from: Seq) -> KeptReader {
        KeptReader(self.reader(subjects::kept_stream(shard), subjects::kept_all(shard), from))
    }

    /// Forgets what is kept for a shard up to a place, inclusive.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn forget_kept(&self, shard: Shard, up_to: Seq) -> Result<(), BusError> {
        self.purge_stream(&subjects::kept_stream(shard), up_to).await.map(drop)
    }
}

/// Reads what is kept in order; see [`Bus::kept_reader`].
#[derive(Debug)]
pub struct KeptReader(LogReader);

impl KeptReader {
    /// As [`LogReader::next_batch`]. Subjects are those of the log, sequences the places here.
    ///
    /// # Errors
    /// When it cannot be read just now.
    pub async fn next_batch(&mut self, max: usize, wait: Duration) -> Result<Vec<Raw>, BusError> {
        let mut batch = self.0.next_batch(max, wait).await?;
        for raw in &mut batch {
            raw.subject = subjects::unkept(&raw.subject);
            raw.feed = subjects::parse_stored(&raw.subject);
        }
        Ok(batch)
    }
}

fn headers(raw: &Raw) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(msg_id) = &raw.msg_id {
        headers.insert(MSG_ID, msg_id.as_str());
    }
    if let Some(context) = &raw.traceparent {
        headers.insert(TRACEPARENT, context.as_str());
    }
    headers
}

fn config(shard: Shard, replicas: usize) -> Config {
    Config {
        name: subjects::kept_stream(shard),
        subjects: vec![subjects::kept_all(shard)],
        storage: StorageType::File,
        num_replicas: replicas,
        // As much as a log leaves: what was acked is not dropped for want of room here.
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        discard: DiscardPolicy::New,
        duplicate_window: WINDOW,
        deny_delete: true,
        ..Config::default()
    }
}
