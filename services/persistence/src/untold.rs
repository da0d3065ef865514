//! What endpoints of webhooks are yet to be told of a log that is made anew.
//!
//! The log that takes its place holds only what was not written. What is written, and was not looked at by the
//! workers that keep events for endpoints, since they were behind or away, would go with the old log: its owner
//! adds that to the stream of events in their stead. They find it there, and go on behind it.

use natter_bus::{Bus, BusError, Filled, HookError, HooksConfig, LogState};
use natter_protocol::ids::{EPOCH_GAP, Seq, Shard};
use natter_runtime::causes;
use natter_store::{ShardRow, Store, StoreError};
use tokio::time::{Duration, Instant, sleep, timeout_at};

use crate::measures;

/// Entries that are looked at together.
const BATCH: usize = 500;
const WAIT: Duration = Duration::from_secs(2);
/// How long the owner tries: nobody can send meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// After a failure: another adds at the same moment, say.
const AGAIN: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
enum HandError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the log, or the stream of events")]
    Bus(#[from] BusError),
    #[error(transparent)]
    Hook(#[from] HookError),
}

/// Adds to the shard's stream of events what a sealed log holds before `end`, and nobody has looked at. Returns
/// how many entries are lost to endpoints: what the log had dropped before, and, where the stream takes nothing
/// for too long, the rest.
pub(crate) async fn hand_over(
    store: &Store,
    bus: &Bus,
    replicas: usize,
    (shard, log, end): (Shard, &LogState, Seq),
) -> u64 {
    let until = Instant::now() + PATIENCE;
    let before = log.first_seq - 1;
    let (mut looked, mut lost) = (before, 0);
    loop {
        let turn = async {
            let Some(at) = filled(store, bus, shard, replicas).await? else { return Ok(()) };
            lost = lost.max(missing(at.known, log.first_seq));
            // A stream that is gone is filled again from all that there is: lanes know what they have told.
            let log_seq = if at.anew { before } else { at.known.max(before) };
            add(bus, shard, Filled { log_seq, stream_seq: at.stream_seq }, end, &mut looked).await
        };
        match timeout_at(until, turn).await.unwrap_or(Err(BusError::Timeout.into())) {
            Ok(()) => return lost,
            Err(error) if Instant::now() < until => {
                tracing::debug!(shard, error = %causes(&error), "not yet; trying again");
                sleep(AGAIN).await;
            }
            Err(error) => {
                tracing::error!(shard, error = %causes(&error), "events cannot be handed over to webhooks");
                return lost + missing(looked, end);
            }
        }
    }
}

/// How many entries that are written a log has taken with it that is gone.
pub(crate) async fn gone(store: &Store, bus: &Bus, replicas: usize, row: &ShardRow) -> u64 {
    match filled(store, bus, row.shard, replicas).await {
        Ok(Some(at)) => missing(at.known.max(row.first_seq - 1), row.persisted_seq + 1),
        Ok(None) => 0,
        Err(error) => {
            let error = causes(&error);
            tracing::warn!(shard = row.shard, %error, "it is not known what is lost to webhooks");
            0
        }
    }
}

/// Says so, if it is anything.
pub(crate) async fn count(store: &Store, shard: Shard, lost: u64) {
    if lost == 0 {
        return;
    }
    tracing::error!(shard, lost, "the log is gone before webhooks had read it");
    measures::lost_to_webhooks().increment(lost);
    if let Err(error) = store.lose_hooks(shard, lost).await {
        tracing::warn!(shard, error = %causes(&error), "what is lost to webhooks cannot be written");
    }
}

/// Up to where a shard's stream is filled.
struct At {
    /// All up to here of the log was looked at.
    known: Seq,
    /// The stream's last event.
    stream_seq: Seq,
    /// What was in the stream is gone.
    anew: bool,
}

/// None where there is no endpoint.
async fn filled(
    store: &Store,
    bus: &Bus,
    shard: Shard,
    replicas: usize,
) -> Result<Option<At>, HandError> {
    let Some(since) = store.first_endpoint_at().await? else { return Ok(None) };
    let saved = if let Some(row) = store.fill(shard).await? {
        Filled { log_seq: row.log_seq, stream_seq: row.stream_seq }
    } else {
        // No worker has looked yet: an endpoint is told of what was stored since it was made.
        let from = match bus.stored_since(shard, since).await {
            Err(BusError::NoStream) => return Ok(None),
            from => from?,
        };
        Filled { log_seq: from.saturating_sub(1), stream_seq: 0 }
    };
    let state = if let Some(state) = bus.hooks_state(shard).await? {
        state
    } else {
        // Whoever fills it next keeps it as its settings say.
        let config = HooksConfig { replicas, ..HooksConfig::default() };
        bus.ensure_hooks(shard, &config, saved.next_stream()).await?
    };
    let filled = bus.filled(shard, &state, saved).await?;
    let known = filled.map_or(saved.log_seq, |filled| filled.log_seq);
    Ok(Some(At { known, stream_seq: state.last, anew: filled.is_none() }))
}

/// Adds what lies between where `from` is and `end`, exclusive. `looked` is how far that came.
async fn add(
    bus: &Bus,
    shard: Shard,
    from: Filled,
    end: Seq,
    looked: &mut Seq,
) -> Result<(), HandError> {
    *looked = from.log_seq;
    if *looked + 1 >= end {
        return Ok(());
    }
    let mut last = from.stream_seq;
    let mut reader = bus.log_reader(shard, *looked + 1);
    while *looked + 1 < end {
        let mut batch = reader.next_batch(BATCH, WAIT).await?;
        batch.retain(|raw| raw.seq < end);
        let Some(upto) = batch.last().map(|raw| raw.seq) else {
            return Err(BusError::Timeout.into());
        };
        last = bus.add_hooks(&batch, last).await?;
        *looked = upto;
    }
    reader.close().await;
    let (after, events) = (from.log_seq, last - from.stream_seq);
    tracing::warn!(shard, after, end, events, "handed over to webhooks what the log before had");
    Ok(())
}

/// How many entries lie between two places of a log. Where an epoch lies between them too, nobody knows.
fn missing(after: Seq, next: Seq) -> u64 {
    let missing = next.saturating_sub(after + 1);
    if missing < EPOCH_GAP / 2 { missing } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_places_is_missing() {
        assert_eq!((missing(7, 8), missing(7, 11), missing(9, 4)), (0, 3, 0));
        assert_eq!(missing(7, EPOCH_GAP + 8), 0);
    }
}
