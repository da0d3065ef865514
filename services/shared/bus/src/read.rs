//! Reading the log: a feed's entries from a place on, one entry, the heads of feeds.
//!
//! All of it from the log's leader. Direct gets, which any replica answers, are not allowed on the
//! log: the server makes every mirror of a stream that allows them answer for it as well, whatever
//! the mirror's own configuration says, and the live mirror holds only the log's end. A hole that
//! is filled from there stays a hole.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    message::StreamMessage,
    stream::{LastRawMessageErrorKind, Stream},
};
use futures::{StreamExt, TryStreamExt, stream};
use natter_protocol::{
    feed::Feed,
    ids::{Seq, Shard},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    client::{Bus, insist},
    error::BusError,
    stored::{Raw, Stored},
    subjects,
};

/// Entries that are asked for one by one, before a consumer is worth its set-up.
const SINGLES: usize = 8;
/// Bytes that one [`Bus::read`] returns, about.
const READ_BYTES: usize = 8 * 1024 * 1024;
/// Look-ups of heads under way at once.
const HEADS: usize = 32;
/// Bounds a read as a whole.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

impl Bus {
    /// Entries of a feed after `after`, oldest first: at most `limit`, and about 8 MB. Fewer than
    /// `limit` with less than 8 MB means that there were no more. What the log has purged is
    /// passed over.
    ///
    /// # Errors
    /// When the log's leader does not answer, in 5 s.
    pub async fn read(
        &self,
        feed: Feed,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Stored>, BusError> {
        timeout(READ_TIMEOUT, self.read_unbounded(feed, after, limit))
            .await
            .map_err(|_| BusError::Timeout)?
    }

    async fn read_unbounded(
        &self,
        feed: Feed,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<Stored>, BusError> {
        let subject = subjects::stored(feed);
        let (mut entries, mut next) = (Vec::new(), after.saturating_add(1));
        while entries.len() < limit.min(SINGLES) {
            let Some(raw) = self.next_of(feed.shard, &subject, next).await? else {
                return Ok(entries);
            };
            next = raw.seq + 1;
            entries.extend(raw.into_stored());
        }
        // There may be many more, or none: a consumer that finds none would only wait.
        if entries.len() < limit
            && let Some(raw) = self.next_of(feed.shard, &subject, next).await?
        {
            self.read_on(feed, raw.seq, limit, &mut entries).await?;
        }
        Ok(entries)
    }

    /// The rest by a consumer of this feed alone, from `from`, where an entry is.
    async fn read_on(
        &self,
        feed: Feed,
        from: Seq,
        limit: usize,
        entries: &mut Vec<Stored>,
    ) -> Result<(), BusError> {
        let mut reader = self.feed_reader(feed, from);
        let mut bytes = 0;
        while entries.len() < limit && bytes < READ_BYTES {
            let batch = reader.next_batch(limit - entries.len(), READ_TIMEOUT).await?;
            for raw in batch {
                bytes += raw.body.len();
                entries.extend(raw.into_stored());
            }
            if reader.behind() == 0 {
                break;
            }
        }
        reader.close().await;
        Ok(())
    }

    /// Whether the log holds nothing of a feed after `after`.
    ///
    /// # Errors
    /// When the log's leader does not answer, in 5 s.
    pub async fn nothing_after(&self, feed: Feed, after: Seq) -> Result<bool, BusError> {
        let subject = subjects::stored(feed);
        let next = self.next_of(feed.shard, &subject, after.saturating_add(1)).await?;
        Ok(next.is_none())
    }

    /// One message of a shard's log; `None` when the log does not hold it.
    ///
    /// # Errors
    /// When the log's leader does not answer, in 5 s.
    pub async fn entry(&self, shard: Shard, seq: Seq) -> Result<Option<Raw>, BusError> {
        let log = self.log(shard).await?;
        insist(async || found(log.get_raw_message(seq).await)).await
    }

    /// When a shard's log stored what it holds at `seq`; `None` when it holds nothing there. Never
    /// the answer of a log that has just been replaced.
    ///
    /// # Errors
    /// When the leader does not answer, in 5 s.
    pub async fn stored_at(
        &self,
        shard: Shard,
        seq: Seq,
    ) -> Result<Option<OffsetDateTime>, BusError> {
        Ok(self.entry(shard, seq).await?.map(|raw| raw.at))
    }

    /// The place of a log's first entry that was stored at this time or later; one beyond the last where
    /// there is none.
    ///
    /// # Errors
    /// [`BusError::NoStream`]; when the leader does not answer, in 5 s a look-up.
    pub async fn stored_since(&self, shard: Shard, at: OffsetDateTime) -> Result<Seq, BusError> {
        let log = self.log_state(shard).await?.ok_or(BusError::NoStream)?;
        let (mut low, mut high) = (log.first_seq, log.last_seq + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            // What has been cut since is older than what is there.
            if self.stored_at(shard, middle).await?.is_some_and(|stored| stored >= at) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low)
    }

    /// The first message at or after `seq` whose subject matches.
    pub(crate) async fn next_of(
        &self,
        shard: Shard,
        subject: &str,
        seq: Seq,
    ) -> Result<Option<Raw>, BusError> {
        self.next_in(&subjects::log_stream(shard), subject, seq).await
    }

    /// The same in any stream.
    pub(crate) async fn next_in(
        &self,
        stream: &str,
        subject: &str,
        seq: Seq,
    ) -> Result<Option<Raw>, BusError> {
        let stream = self.stream(stream).await?;
        insist(async || found(stream.get_first_raw_message_by_subject(subject, seq).await)).await
    }

    /// The last sequence of each feed that the log still holds; 0 for a feed without entries
    /// there. Reading a quiet feed's last entry loads a block of the log from disk: this is for
    /// repair, not for every handshake.
    ///
    /// # Errors
    /// When a log's leader does not answer, in 5 s a look-up.
    pub async fn heads(&self, feeds: &[Feed]) -> Result<Vec<(Feed, Seq)>, BusError> {
        let look_ups: Vec<_> = feeds.iter().map(|feed| self.head(*feed)).collect();
        stream::iter(look_ups).buffered(HEADS).try_collect().await
    }

    async fn head(&self, feed: Feed) -> Result<(Feed, Seq), BusError> {
        let log = self.log(feed.shard).await?;
        let subject = subjects::stored(feed);
        let last = insist(async || found(log.get_last_raw_message_by_subject(&subject).await));
        Ok((feed, last.await?.map_or(0, |raw| raw.seq)))
    }

    async fn log(&self, shard: Shard) -> Result<Stream<()>, BusError> {
        self.stream(&subjects::log_stream(shard)).await
    }

    pub(crate) async fn stream(&self, name: &str) -> Result<Stream<()>, BusError> {
        self.require_connection()?;
        let stream = self.inner.jetstream.get_stream_no_info(name).await;
        stream.map_err(|error| BusError::Unreadable(error.to_string()))
    }
}

type RawMessageError = async_nats::error::Error<LastRawMessageErrorKind>;

pub(crate) fn found(
    message: Result<StreamMessage, RawMessageError>,
) -> Result<Option<Raw>, BusError> {
    found_message(message)?.map(Raw::from_leader).transpose()
}

/// What was asked for, with all of its headers.
pub(crate) fn found_message(
    message: Result<StreamMessage, RawMessageError>,
) -> Result<Option<StreamMessage>, BusError> {
    let error = match message {
        Ok(message) => return Ok(Some(message)),
        Err(error) => error,
    };
    match error.kind() {
        LastRawMessageErrorKind::NoMessageFound => Ok(None),
        LastRawMessageErrorKind::JetStream(refused) => match refused.error_code() {
            ErrorCode::NO_MESSAGE_FOUND => Ok(None),
            ErrorCode::STREAM_NOT_FOUND => Err(BusError::NoStream),
            _ => Err(BusError::Refused(refused)),
        },
        LastRawMessageErrorKind::InvalidSubject | LastRawMessageErrorKind::Other => {
            Err(BusError::Unreadable(error.to_string()))
        }
    }
}
