use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use natter_protocol::{
    feed::{Entry, Feed},
    ids::Seq,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::BusError,
    subjects::{self, MSG_ID, SEQUENCE, SUBJECT, TIME_STAMP, TRACEPARENT},
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

    /// From the answer to a direct get.
    pub(crate) fn from_direct(message: Message) -> Result<Self, BusError> {
        let unreadable = |what: &str| BusError::Unreadable(format!("{what} of a stored message"));
        let headers = message.headers.as_ref().ok_or_else(|| unreadable("headers"))?;
        let header = |name: &'static str| {
            headers
                .get_last(name)
                .map(async_nats::HeaderValue::as_str)
                .ok_or_else(|| unreadable(name))
        };
        let seq = header(SEQUENCE)?.parse().map_err(|_| unreadable(SEQUENCE))?;
        let at = OffsetDateTime::parse(header(TIME_STAMP)?, &Rfc3339)
            .map_err(|_| unreadable(TIME_STAMP))?;
        let subject = header(SUBJECT)?.to_owned();
        Ok(Self::new(subject, seq, at, Some(headers), message.payload))
    }
}
