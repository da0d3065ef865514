//! Reading the log: a feed's entries from a place on, one entry, the heads of feeds.
//!
//! All by direct gets, which any replica of the log answers, one that lags behind included:
//! whoever knows the sequence that must be there asks again until it is.

use std::{collections::BTreeMap, time::Duration};

use async_nats::{Message, StatusCode, jetstream::ErrorCode};
use futures::StreamExt;
use natter_protocol::{
    feed::Feed,
    ids::{Seq, Shard},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::timeout;

use crate::{
    client::{Bus, REQUEST_TIMEOUT},
    error::BusError,
    stored::{Raw, Stored},
    subjects::{self, NUM_PENDING},
};

/// Entries in one answer.
const BATCH: usize = 500;
/// Bytes that one [`Bus::read`] returns, about.
const READ_BYTES: usize = 8 * 1024 * 1024;
/// Subjects in one look-up of heads.
const HEADS: usize = 256;
/// Bounds a read as a whole.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct GetBatch<'a> {
    batch: usize,
    max_bytes: usize,
    seq: Seq,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
struct GetOne {
    seq: Seq,
}

#[derive(Deserialize)]
struct StoredMessage {
    message: StoredTime,
}

#[derive(Deserialize)]
struct StoredTime {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
}

#[derive(Serialize)]
struct GetNext<'a> {
    seq: Seq,
    next_by_subj: &'a str,
}

#[derive(Serialize)]
struct GetLast<'a> {
    batch: usize,
    multi_last: &'a [String],
}

/// One answer to a batched get.
#[derive(Default)]
struct Page {
    messages: Vec<Message>,
    /// Matching messages that did not fit.
    pending: u64,
}

impl Bus {
    /// Entries of a feed after `after`, oldest first: at most `limit`, and about 8 MB. Fewer than
    /// `limit` does not mean that there are no more: read on from the last one until nothing
    /// comes. What the log has purged is passed over.
    ///
    /// # Errors
    /// When the log does not answer, in 5 s.
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
        let (mut entries, mut bytes, mut next) = (Vec::new(), 0, after.saturating_add(1));
        while entries.len() < limit && bytes < READ_BYTES {
            let request = GetBatch {
                batch: BATCH.min(limit - entries.len()),
                max_bytes: READ_BYTES - bytes,
                seq: next,
                next_by_subj: &subject,
            };
            let page = self.get_batch(feed.shard, &request).await?;
            if page.messages.is_empty() {
                break;
            }
            for message in page.messages {
                let raw = Raw::from_direct(message)?;
                bytes += raw.body.len();
                next = raw.seq + 1;
                entries.extend(raw.into_stored());
            }
            if page.pending == 0 {
                break;
            }
        }
        Ok(entries)
    }

    /// One message of a shard's log; `None` when the log does not hold it.
    ///
    /// # Errors
    /// When the log does not answer, in 5 s.
    pub async fn entry(&self, shard: Shard, seq: Seq) -> Result<Option<Raw>, BusError> {
        self.get_one(shard, &GetOne { seq }).await
    }

    /// When a shard's log stored what it holds at `seq`; `None` when it holds nothing there. The
    /// log's leader says so, and never a replica that lags or a log that has just been replaced.
    ///
    /// # Errors
    /// When the leader does not answer, in 5 s.
    pub async fn stored_at(
        &self,
        shard: Shard,
        seq: Seq,
    ) -> Result<Option<OffsetDateTime>, BusError> {
        let operation = format!("STREAM.MSG.GET.{}", subjects::log_stream(shard));
        match self.api::<StoredMessage>(operation, &GetOne { seq }).await {
            Ok(stored) => Ok(Some(stored.message.time)),
            Err(BusError::Refused(error)) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The first message of a shard's log at or after `seq`.
    pub(crate) async fn next_entry(&self, shard: Shard, seq: Seq) -> Result<Option<Raw>, BusError> {
        let all = subjects::stored_all(shard);
        self.get_one(shard, &GetNext { seq, next_by_subj: &all }).await
    }

    async fn get_one(
        &self,
        shard: Shard,
        request: &impl Serialize,
    ) -> Result<Option<Raw>, BusError> {
        self.require_connection()?;
        let body = serde_json::to_vec(request)?;
        let message = self.inner.client.request(direct_get(shard), body.into()).await?;
        match message.status {
            None => Raw::from_direct(message).map(Some),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(_) => Err(unexpected(&message)),
        }
    }

    /// The last sequence of each feed that the log still holds; 0 for a feed without entries
    /// there. Reading a quiet feed's last entry loads a block of the log from disk: this is for
    /// repair, not for every handshake.
    ///
    /// # Errors
    /// When a log does not answer, in 5 s for every 256 feeds.
    pub async fn heads(&self, feeds: &[Feed]) -> Result<Vec<(Feed, Seq)>, BusError> {
        let mut by_shard: BTreeMap<Shard, Vec<Feed>> = BTreeMap::new();
        for feed in feeds {
            by_shard.entry(feed.shard).or_default().push(*feed);
        }
        let mut heads = std::collections::HashMap::with_capacity(feeds.len());
        for (shard, feeds) in &by_shard {
            for chunk in feeds.chunks(HEADS) {
                let subjects: Vec<_> = chunk.iter().map(|feed| subjects::stored(*feed)).collect();
                let request = GetLast { batch: HEADS, multi_last: &subjects };
                for message in self.get_batch(*shard, &request).await?.messages {
                    let raw = Raw::from_direct(message)?;
                    heads.extend(raw.feed.map(|feed| (feed, raw.seq)));
                }
            }
        }
        Ok(feeds.iter().map(|feed| (*feed, heads.get(feed).copied().unwrap_or(0))).collect())
    }

    /// One batched direct get: messages until the one with status 204.
    async fn get_batch(&self, shard: Shard, request: &impl Serialize) -> Result<Page, BusError> {
        let inbox = self.inner.client.new_inbox();
        let mut answers = self.subscribe(inbox.clone()).await?;
        let body = serde_json::to_vec(request)?;
        self.inner
            .client
            .publish_with_reply(direct_get(shard), inbox, body.into())
            .await
            .map_err(|_| BusError::Closed)?;
        let mut page = Page::default();
        loop {
            let message = timeout(REQUEST_TIMEOUT, answers.next())
                .await
                .map_err(|_| BusError::Timeout)?
                .ok_or(BusError::Closed)?;
            match message.status.map(|status| status.as_u16()) {
                None => page.messages.push(message),
                Some(204) => {
                    page.pending = pending(&message);
                    return Ok(page);
                }
                Some(404) => return Ok(page),
                Some(503) => return Err(BusError::NoStream),
                Some(_) => return Err(unexpected(&message)),
            }
        }
    }
}

fn pending(message: &Message) -> u64 {
    let header = message.headers.as_ref().and_then(|headers| headers.get(NUM_PENDING));
    header.and_then(|value| value.as_str().parse().ok()).unwrap_or(0)
}

fn direct_get(shard: Shard) -> String {
    format!("$JS.API.DIRECT.GET.{}", subjects::log_stream(shard))
}

fn unexpected(message: &Message) -> BusError {
    let status = message.status.map_or(0, |status| status.as_u16());
    BusError::Unreadable(format!(
        "status {status} {}",
        message.description.as_deref().unwrap_or("")
    ))
}
