//! What is to be notified of: all chats' entries of a log, handed to one push worker each, and the
//! queue of notifications, by push service.

use std::time::Duration;

use async_nats::{
    HeaderMap,
    jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType},
};
use natter_protocol::{
    ids::{DeviceId, MessageId, Shard},
    push::Provider,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{
    client::Bus,
    error::BusError,
    intake::IntakeConfig,
    publish::{PublishError, Publishing},
    subjects::{self, MSG_ID, TRACEPARENT},
};

/// The consumer of logs.
const DECIDING: &str = "push";
/// Entries of a log in hand, of all workers together: those of a few seconds, even where much is said.
const DECIDING_IN_HAND: u32 = 50_000;
/// Notifications in hand, of all workers together; those that wait for their next try among them, since
/// the server counts these too.
const SENDING_IN_HAND: u32 = 100_000;
/// Within it a notification is queued once.
const WINDOW: Duration = Duration::from_mins(2);

/// How a shard's queue of notifications is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Servers that hold it, 1 to 5.
    pub replicas: usize,
    /// Bytes at which it takes no more.
    pub max_bytes: u64,
    /// A notification that is older is given up.
    pub max_age: Duration,
}

/// A notification in the queue: what it says is made when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Queued {
    /// The message.
    pub message_id: MessageId,
    /// For which device.
    pub device_id: DeviceId,
}

impl Bus {
    /// Makes sure that a shard has a queue of notifications, kept as `config` says. Whether there was
    /// none: then what had been queued before is not in it.
    ///
    /// # Errors
    /// When the server does not answer or refuses, e.g. more replicas than it has servers.
    pub async fn ensure_push_queue(
        &self,
        shard: Shard,
        config: &QueueConfig,
    ) -> Result<bool, BusError> {
        let name = subjects::push_stream(shard);
        let Some(info) = self.stream_info(&name).await? else {
            self.create_stream(&queue_config(shard, config)).await?;
            return Ok(true);
        };
        let max_bytes = i64::try_from(config.max_bytes).unwrap_or(i64::MAX);
        let wanted = Config {
            num_replicas: config.replicas,
            max_bytes,
            max_age: config.max_age,
            duplicate_window: WINDOW.min(config.max_age),
            ..info.config.clone()
        };
        if wanted != info.config {
            let _: Info = self.api(format!("STREAM.UPDATE.{name}"), &wanted).await?;
        }
        Ok(false)
    }

    /// Queues a notification; again within two minutes is once, unless `again` names the try.
    ///
    /// # Errors
    /// [`PublishError::NotSent`].
    pub fn queue_push(
        &self,
        shard: Shard,
        provider: Provider,
        queued: Queued,
        again: Option<&str>,
        traceparent: Option<&str>,
    ) -> Result<Publishing, PublishError> {
        let not_sent = |error: serde_json::Error| PublishError::NotSent(error.to_string());
        let body = serde_json::to_vec(&queued).map_err(not_sent)?;
        let Queued { message_id, device_id } = queued;
        let mut headers = HeaderMap::new();
        let id = format!("{message_id}.{device_id}.{}", again.unwrap_or_default());
        headers.insert(MSG_ID, id);
        if let Some(traceparent) = traceparent {
            headers.insert(TRACEPARENT, traceparent);
        }
        self.publish_raw(subjects::push(shard, provider), headers, body.into())
    }

    /// When the oldest notification was queued that a push service has yet to get from a shard.
    ///
    /// # Errors
    /// When the queue's leader does not answer.
    pub async fn oldest_push(
        &self,
        shard: Shard,
        provider: Provider,
    ) -> Result<Option<OffsetDateTime>, BusError> {
        let subject = subjects::push(shard, provider);
        let oldest = self.next_in(&subjects::push_stream(shard), &subject, 1).await?;
        Ok(oldest.map(|raw| raw.at))
    }

    /// Bytes in a shard's queue, and at most.
    ///
    /// # Errors
    /// When its leader does not answer.
    pub async fn push_queue_bytes(&self, shard: Shard) -> Result<Option<(u64, u64)>, BusError> {
        let info = self.stream_info(&subjects::push_stream(shard)).await?;
        Ok(info.map(|info| {
            (info.state.bytes, u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX))
        }))
    }
}

/// What hands out the entries of all chats of a shard, from those on that were stored at `from`.
#[must_use]
pub fn deciding(shard: Shard, from: OffsetDateTime, patience: Duration) -> IntakeConfig {
    IntakeConfig {
        stream: subjects::log_stream(shard),
        name: DECIDING.to_owned(),
        subject: subjects::stored_chats(shard),
        from: Some(from),
        patience,
        in_hand: DECIDING_IN_HAND,
    }
}

/// What hands out a shard's notifications by one push service.
#[must_use]
pub fn sending(shard: Shard, provider: Provider, patience: Duration) -> IntakeConfig {
    IntakeConfig {
        stream: subjects::push_stream(shard),
        name: provider.as_str().to_owned(),
        subject: subjects::push(shard, provider),
        from: None,
        patience,
        in_hand: SENDING_IN_HAND,
    }
}

fn queue_config(shard: Shard, config: &QueueConfig) -> Config {
    Config {
        name: subjects::push_stream(shard),
        subjects: vec![subjects::push_all(shard)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_bytes: i64::try_from(config.max_bytes).unwrap_or(i64::MAX),
        max_age: config.max_age,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        // Whoever decides waits until there is room: what is queued is not dropped for what is new.
        discard: DiscardPolicy::New,
        duplicate_window: WINDOW.min(config.max_age),
        ..Config::default()
    }
}
