//! What other people's servers are to be told of: entries of a shard's log, kept in a stream of their own
//! for as long as an endpoint may be away. The log itself is cut as soon as Postgres has it.
//!
//! Whoever fills the stream publishes in the log's order and names the place that it expects: of two that
//! fill it at once one is refused, so it holds each entry once, in order, and without a hole but at its
//! beginning. Each event names its place in the log. That is given once, its place here perhaps not: a stream
//! that has lost its end is filled again from there.

mod filling;

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy, Info, StorageType},
};
use bytes::Bytes;
pub use filling::{Filled, HookError};
use natter_protocol::{
    feed::Feed,
    ids::{Seq, Shard},
};
use time::OffsetDateTime;

use crate::{
    client::{Bus, insist},
    error::BusError,
    log_reader::LogReader,
    publish::{PublishError, Publishing},
    read::found,
    stored::Raw,
    subjects::{self, EXPECTED_LAST, MSG_ID, TRACEPARENT},
};

/// Within it the broker knows an entry that it has had.
const WINDOW: Duration = Duration::from_mins(2);

/// How a shard's stream of events is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HooksConfig {
    /// Servers that hold it, 1 to 5.
    pub replicas: usize,
    /// Bytes beyond which the oldest events go.
    pub max_bytes: u64,
    /// Age beyond which they do.
    pub max_age: Duration,
}

/// As the settings' defaults say, held by one server.
impl Default for HooksConfig {
    fn default() -> Self {
        Self { replicas: 1, max_bytes: 512 * 1024 * 1024, max_age: Duration::from_hours(72) }
    }
}

/// How it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HooksState {
    /// Place of its first event; one beyond `last` when it is empty.
    pub first: Seq,
    /// The last place given.
    pub last: Seq,
    /// Bytes that it holds.
    pub bytes: u64,
    /// Bytes that it may hold.
    pub max_bytes: u64,
}

/// An event: an entry of a log, at its place among the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooked {
    /// Its place among the events.
    pub seq: Seq,
    /// Its feed.
    pub feed: Feed,
    /// Its place in the log.
    pub log_seq: Seq,
    /// When the log stored it.
    pub at: OffsetDateTime,
    /// The publisher's id of it: the same for ever, also where the log has it twice.
    pub name: String,
    /// As the log has it.
    pub body: Bytes,
    /// The trace that it belongs to, when that is sampled.
    pub traceparent: Option<String>,
}

impl Hooked {
    /// None for what nobody of us has put there.
    fn of(raw: Raw) -> Option<Self> {
        let feed = subjects::parse_hook(&raw.subject)?;
        let id = raw.msg_id?;
        let (log_seq, rest) = id.split_once('.')?;
        let (nanos, name) = rest.split_once('.')?;
        Some(Self {
            seq: raw.seq,
            feed,
            log_seq: log_seq.parse().ok()?,
            at: OffsetDateTime::from_unix_timestamp_nanos(nanos.parse().ok()?).ok()?,
            name: name.to_owned(),
            body: raw.body,
            traceparent: raw.traceparent,
        })
    }
}

impl Bus {
    /// Makes sure that a shard has a stream of events, kept as `config` says. A new one begins at `first`.
    ///
    /// # Errors
    /// When the server does not answer or refuses, e.g. more replicas than it has servers.
    pub async fn ensure_hooks(
        &self,
        shard: Shard,
        config: &HooksConfig,
        first: Seq,
    ) -> Result<HooksState, BusError> {
        let name = subjects::hook_stream(shard);
        let Some(info) = self.stream_info(&name).await? else {
            let made = Config { first_sequence: Some(first), ..stream_config(shard, config) };
            return Ok(state(&self.create_stream(&made).await?));
        };
        let wanted = Config {
            num_replicas: config.replicas,
            max_bytes: i64::try_from(config.max_bytes).unwrap_or(i64::MAX),
            max_age: config.max_age,
            duplicate_window: WINDOW.min(config.max_age),
            ..info.config.clone()
        };
        if wanted != info.config {
            let _: Info = self.api(format!("STREAM.UPDATE.{name}"), &wanted).await?;
        }
        Ok(state(&info))
    }

    /// How a shard's stream of events stands; none where there is none.
    ///
    /// # Errors
    /// When its leader does not answer.
    pub async fn hooks_state(&self, shard: Shard) -> Result<Option<HooksState>, BusError> {
        let info = self.stream_info(&subjects::hook_stream(shard)).await?;
        Ok(info.as_ref().map(state))
    }

    /// Adds an entry of a log behind the event at `after`, which must be the last one.
    ///
    /// # Errors
    /// [`PublishError::NotSent`]; for an entry of no feed too.
    pub(crate) fn hook(&self, raw: &Raw, after: Seq) -> Result<Publishing, PublishError> {
        let feed = raw.feed.ok_or_else(|| PublishError::NotSent("of no feed".to_owned()))?;
        let Raw { seq, at, msg_id, .. } = raw;
        let (nanos, name) = (at.unix_timestamp_nanos(), msg_id.as_deref().unwrap_or_default());
        let mut headers = HeaderMap::new();
        headers.insert(MSG_ID, format!("{seq}.{nanos}.{name}"));
        headers.insert(EXPECTED_LAST, after.to_string());
        if let Some(traceparent) = &raw.traceparent {
            headers.insert(TRACEPARENT, traceparent.as_str());
        }
        self.publish_raw(subjects::hook(feed), headers, raw.body.clone())
    }

    /// One event of a shard; none where the stream does not hold it.
    ///
    /// # Errors
    /// When the stream's leader does not answer.
    pub async fn hooked(&self, shard: Shard, seq: Seq) -> Result<Option<Hooked>, BusError> {
        let stream = self.stream(&subjects::hook_stream(shard)).await?;
        let raw = insist(async || found(stream.get_raw_message(seq).await)).await?;
        Ok(raw.and_then(Hooked::of))
    }

    /// The first event of a feed at or after a place.
    ///
    /// # Errors
    /// When the stream's leader does not answer.
    pub async fn next_hooked(&self, feed: Feed, from: Seq) -> Result<Option<Hooked>, BusError> {
        let stream = subjects::hook_stream(feed.shard);
        Ok(self.next_in(&stream, &subjects::hook(feed), from).await?.and_then(Hooked::of))
    }

    /// The place of a shard's first event that was stored at this time or later; one beyond the last where
    /// there is none.
    ///
    /// # Errors
    /// [`BusError::NoStream`]; when its leader does not answer.
    pub async fn hooked_since(&self, shard: Shard, at: OffsetDateTime) -> Result<Seq, BusError> {
        self.first_hooked(shard, |event| event.at >= at).await
    }

    /// The place of a shard's first event that stands beyond a place of the log; one beyond the last where
    /// there is none.
    ///
    /// # Errors
    /// [`BusError::NoStream`]; when its leader does not answer.
    pub async fn hooked_beyond(&self, shard: Shard, log_seq: Seq) -> Result<Seq, BusError> {
        self.first_hooked(shard, |event| event.log_seq > log_seq).await
    }

    /// The first event that is one of those wanted, which are the last ones.
    async fn first_hooked(
        &self,
        shard: Shard,
        wanted: impl Fn(&Hooked) -> bool,
    ) -> Result<Seq, BusError> {
        let HooksState { first, last, .. } =
            self.hooks_state(shard).await?.ok_or(BusError::NoStream)?;
        let (mut low, mut high) = (first, last + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            // What has gone since is older than what is there.
            if self.hooked(shard, middle).await?.is_some_and(|event| wanted(&event)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// Drops a shard's events, if it has any: nobody is to be told of them. Its places go on.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn empty_hooks(&self, shard: Shard) -> Result<(), BusError> {
        let Some(HooksState { first, last, .. }) = self.hooks_state(shard).await? else {
            return Ok(());
        };
        if first <= last {
            self.purge_stream(&subjects::hook_stream(shard), last).await?;
        }
        Ok(())
    }

    /// Throws a shard's stream of events away. Who fills it makes another.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn forget_hooks(&self, shard: Shard) -> Result<(), BusError> {
        self.delete_stream(&subjects::hook_stream(shard)).await
    }

    /// Reads a shard's events in order, from a place on.
    #[must_use]
    pub fn hook_reader(&self, shard: Shard, from: Seq) -> HookReader {
        HookReader(self.reader(subjects::hook_stream(shard), subjects::hooks_all(shard), from))
    }
}

/// Reads events in order; see [`Bus::hook_reader`].
#[derive(Debug)]
pub struct HookReader(LogReader);

impl HookReader {
    /// As [`LogReader::next_batch`]. May be dropped before it is done: nothing read is lost.
    ///
    /// # Errors
    /// When they cannot be read just now.
    pub async fn next_batch(
        &mut self,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<Hooked>, BusError> {
        let batch = self.0.next_batch(max, wait).await?;
        Ok(batch.into_iter().filter_map(Hooked::of).collect())
    }

    /// Takes the consumer away from the server, which would otherwise keep it for a while.
    pub async fn close(self) {
        self.0.close().await;
    }
}

fn state(info: &Info) -> HooksState {
    HooksState {
        first: info.state.first_sequence.max(1),
        last: info.state.last_sequence,
        bytes: info.state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
    }
}

fn stream_config(shard: Shard, config: &HooksConfig) -> Config {
    Config {
        name: subjects::hook_stream(shard),
        subjects: vec![subjects::hooks_all(shard)],
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_bytes: i64::try_from(config.max_bytes).unwrap_or(i64::MAX),
        max_age: config.max_age,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        // An endpoint that stays away for longer misses what is too old, and is told so.
        discard: DiscardPolicy::Old,
        duplicate_window: WINDOW.min(config.max_age),
        // A hole would look like a lost event.
        deny_delete: true,
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::ChatId;

    use super::*;

    #[test]
    fn an_event_remembers_the_entry_that_it_was() {
        let feed = Feed::chat(2, ChatId::generate());
        let raw = |msg_id: &str| Raw {
            subject: subjects::hook(feed),
            feed: None,
            seq: 5,
            at: OffsetDateTime::UNIX_EPOCH,
            body: Bytes::new(),
            traceparent: None,
            msg_id: Some(msg_id.to_owned()),
        };
        let event = Hooked::of(raw("77.1000000000.ob.1.2.c")).expect("an event");
        assert_eq!((event.seq, event.log_seq, event.feed), (5, 77, feed));
        assert_eq!((event.at.unix_timestamp(), event.name.as_str()), (1, "ob.1.2.c"));
        assert!(Hooked::of(raw("77")).is_none() && Hooked::of(raw("a.b.c")).is_none());
    }
}
