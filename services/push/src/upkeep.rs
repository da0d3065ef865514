//! What is too old, and how much waits: looked at by every worker, harmlessly so.

use std::{collections::HashSet, sync::Arc, time::Duration};

use natter_bus::{Backlog, BusError, Queued, push, subjects};
use natter_protocol::ids::{DeviceId, MessageId, Shard};
use natter_runtime::causes;
use natter_store::StoreError;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{config::PushConfig, measures, worker::Parts};

/// Between two looks at the queues.
const LOOK: Duration = Duration::from_secs(5);
/// The same while a queue cannot be made.
const AGAIN: Duration = Duration::from_millis(200);
/// So many looks are between two at what is too old.
const OLD: u32 = 12;
/// What is given up is looked for among what was queued in such a time before it was too old.
const BACK: Duration = Duration::from_hours(1);
/// Beyond its age: the queue itself has dropped it by then.
const DROPPED: Duration = Duration::from_mins(10);
/// What a lost queue held is looked for in steps of this length.
const STEP: Duration = Duration::from_mins(5);

pub(crate) async fn keep_up(config: Arc<PushConfig>, parts: Parts, stop: CancellationToken) {
    let work = async {
        // At first each may be one that another worker has made, and died.
        let mut doubtful: HashSet<Shard> = (0..config.shards).collect();
        let mut looks = 0;
        loop {
            for shard in 0..config.shards {
                match make_queue(&config, &parts, shard, doubtful.contains(&shard)).await {
                    Ok(()) => drop(doubtful.remove(&shard)),
                    Err(error) => {
                        doubtful.insert(shard);
                        tracing::debug!(shard, error = %causes(&*error), "the queue cannot be made");
                    }
                }
            }
            if let Err(error) = measure(&config, &parts).await {
                tracing::debug!(error = %causes(&error), "the queues cannot be looked at");
            }
            if looks % OLD == 0
                && let Err(error) = end_old(&config, &parts).await
            {
                tracing::warn!(error = %causes(&error), "what is too old cannot be removed");
            }
            looks += 1;
            // Nothing can be queued where a queue is missing.
            sleep(if doubtful.is_empty() { LOOK } else { AGAIN }).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A queue that was not there may have been lost with its servers: what it held is put into it again. So it
/// is with one that is empty, where it is not known who made it.
async fn make_queue(
    config: &PushConfig,
    parts: &Parts,
    shard: Shard,
    doubtful: bool,
) -> Result<(), Failure> {
    let made = parts.bus.ensure_push_queue(shard, &config.queue).await?;
    let empty = async || {
        let state = parts.bus.push_queue_bytes(shard).await?;
        Ok::<_, BusError>(state.is_some_and(|(bytes, _)| bytes == 0))
    };
    let lost = made || doubtful && empty().await?;
    if !lost {
        return Ok(());
    }
    let now = OffsetDateTime::now_utc();
    let mut from = now - config.max_age;
    let again = now.unix_timestamp().to_string();
    while from < now {
        let until = from + STEP;
        let mut after = (from, MessageId(Uuid::nil()), DeviceId(Uuid::nil()));
        loop {
            let open = parts.store.open_pushes(shard, after, until).await?;
            let Some(last) = open.last() else { break };
            after = (last.queued_at, last.message, last.device);
            for open in &open {
                let queued = Queued { message_id: open.message, device_id: open.device };
                parts.bus.queue_push(shard, open.provider, queued, Some(&again), None)?.await?;
                measures::requeued().increment(1);
            }
        }
        from = until;
    }
    Ok(())
}

async fn measure(config: &PushConfig, parts: &Parts) -> Result<(), BusError> {
    for shard in 0..config.shards {
        if let Some((bytes, most)) = parts.bus.push_queue_bytes(shard).await? {
            measures::queue_fullness(shard).set(bytes as f64 / most.max(1) as f64);
        }
    }
    for provider in parts.providers.configured() {
        let (mut waiting, mut oldest) = (0, None::<OffsetDateTime>);
        for shard in 0..config.shards {
            let stream = subjects::push_stream(shard);
            let name = push::sending(shard, *provider, config.lease).name;
            let backlog = parts.bus.backlog(&stream, &name).await?.unwrap_or_default();
            let Backlog { waiting: new, in_hand } = backlog;
            waiting += new + in_hand;
            if new + in_hand > 0 {
                let first = parts.bus.oldest_push(shard, *provider).await?;
                oldest = oldest.into_iter().chain(first).min();
            }
        }
        let age = oldest.map(|at| OffsetDateTime::now_utc() - at);
        let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
        measures::queue_waiting(*provider).set(waiting as f64);
        measures::queue_age_seconds(*provider).set(age.as_secs_f64());
    }
    Ok(())
}

async fn end_old(config: &PushConfig, parts: &Parts) -> Result<(), StoreError> {
    let until = OffsetDateTime::now_utc() - config.max_age - DROPPED;
    while parts.store.give_up_pushes(until - BACK, until).await? > 0 {}
    loop {
        let forgotten = parts.store.forget_pushes(config.kept).await?;
        if forgotten == 0 {
            return Ok(());
        }
        measures::forgotten().increment(forgotten);
    }
}
