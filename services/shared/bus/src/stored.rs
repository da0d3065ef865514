use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use bytes::Bytes;
use natter_protocol::{
    feed::{Entry, Feed},
    ids::Seq,
};
use time::OffsetDateTime;

use crate::{
    error::BusError,
    subjects::{self, MSG_ID, TRACEPARENT},
};

/// An entry of a feed, as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its feed.
    pub feed: Feed,
    /// Its place in the shard's log.
    pub seq: Seq,
    /// When the log stored it, with nanoseconds; clients see it truncated to milliseconds.
    pub at: OffsetDateTime,
    /// JSON of an [`Entry`], unless it is poison.
    pub body: Bytes,
    /// The trace that it belongs to, when that is sampled.
    pub traceparent: Option<String>,
}

impl Stored {
    /// What it says.
    ///
    /// # Errors
    /// When it is no entry, or one that only a newer version knows.
    pub fn entry(&self) -> Result<Entry, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// A message of a shard's log, which anybody may have put there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// As published.
    pub subject: String,
    /// The feed that the subject names, when it names one.
    pub feed: Option<Feed>,
    /// Its place in the shard's log.
    pub seq: Seq,
    /// When the log stored it, with nanoseconds.
    pub at: OffsetDateTime,
    /// Whatever was published.
    pub body: Bytes,
    /// The trace that it belongs to, when that is sampled.
    pub traceparent: Option<String>,
    /// The id that the publisher gave it.
    pub msg_id: Option<String>,
}

impl Raw {
    /// The same as an entry of its feed; `None` when its subject names none.
    #[must_use]
    pub fn into_stored(self) -> Option<Stored> {
        let Self { feed, seq, at, body, traceparent, .. } = self;
        Some(Stored { feed: feed?, seq, at, body, traceparent })
    }

    pub(crate) fn new(
        subject: String,
        seq: Seq,
        at: OffsetDateTime,
        headers: Option<&HeaderMap>,
        body: Bytes,
    ) -> Self {
        let text = |name| Some(headers?.get(name)?.as_str().to_owned());
        let (traceparent, msg_id) = (text(TRACEPARENT), text(MSG_ID));
        let feed = subjects::parse_stored(&subject);
        Self { subject, feed, seq, at, body, traceparent, msg_id }
    }

    /// From the answer of the log's leader.
    pub(crate) fn from_leader(message: StreamMessage) -> Result<Self, BusError> {
        let StreamMessage { subject, sequence, headers, payload, time } = message;
        let nanos = time.unix_timestamp_nanos();
        let at = OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .map_err(|_| BusError::Unreadable("the time of a stored message".to_owned()))?;
        Ok(Self::new(subject.to_string(), sequence, at, Some(&headers), payload))
    }
}
