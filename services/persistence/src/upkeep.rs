//! What an owner does for its shard besides writing it: the live mirror, the log's tail, and what
//! is left of a log before.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use natter_bus::{Bus, BusError, Live, LiveWatch, LogState};
use natter_protocol::ids::{Seq, Shard};
use natter_runtime::causes;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    measures::{self, ShardGauges},
    salvage::carry_over,
};

/// How often the mirror is looked at: for so long nothing is sent on live when it is gone.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether the log is to be cut: for so long a log that was full refuses
/// messages although all of it is written.
const PURGE: Duration = Duration::from_secs(3);
/// Less than this share of the log's limit is not worth a cut.
const WORTH: u64 = 64;

/// Looks after a shard until it is dropped.
pub(crate) async fn keep_up(bus: &Bus, shard: Shard, persisted: &AtomicU64, retain_bytes: u64) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut watch, mut purged) = (LiveWatch::default(), None::<Instant>);
    loop {
        tick.tick().await;
        if let Err(error) = look(bus, shard, &mut watch).await {
            tracing::warn!(shard, error = %causes(&error), "the live mirror cannot be looked after");
        }
        if purged.is_none_or(|last| last.elapsed() >= PURGE) {
            purged = Some(Instant::now());
            let persisted = persisted.load(Ordering::Acquire);
            if let Err(error) = purge(bus, shard, persisted, retain_bytes).await {
                tracing::warn!(shard, error = %causes(&error), "the log cannot be cut");
            }
            // Nearly always there is nothing: only a log that was full when it was made anew
            // leaves something for later.
            if let Err(error) = carry_over(bus, shard).await {
                let error = causes(&error);
                tracing::warn!(shard, %error, "what the log before had taken cannot be carried over");
            }
        }
    }
}

async fn look(bus: &Bus, shard: Shard, watch: &mut LiveWatch) -> Result<(), BusError> {
    match bus.ensure_live(shard, watch).await? {
        Live::Following { lag } => {
            ShardGauges::of(shard).live_lag.set(lag as f64);
        }
        Live::MadeAnew { after } => {
            tracing::warn!(shard, after, "the live mirror was made anew");
            measures::mirrors_made_anew().increment(1);
        }
    }
    Ok(())
}

/// Cuts the log down to about `retain_bytes`, but never beyond what is written. Returns how many
/// entries went.
///
/// # Errors
/// When the log cannot be looked at or cut.
pub async fn purge(
    bus: &Bus,
    shard: Shard,
    persisted: Seq,
    retain_bytes: u64,
) -> Result<u64, BusError> {
    let Some(log) = bus.log_state(shard).await? else { return Ok(0) };
    let gauges = ShardGauges::of(shard);
    gauges.log_bytes.set(log.bytes as f64);
    gauges.log_fullness.set(log.fullness());
    let Some(up_to) = cut(&log, persisted, retain_bytes) else { return Ok(0) };
    let purged = bus.purge(shard, up_to).await?;
    tracing::info!(shard, up_to, purged, "the log is cut");
    Ok(purged)
}

/// Up to which sequence to cut. The log does not tell where its bytes are, so this goes by the
/// average entry; the next cut corrects what it missed.
fn cut(log: &LogState, persisted: Seq, retain_bytes: u64) -> Option<Seq> {
    let excess = log.bytes.checked_sub(retain_bytes)?;
    if excess < log.max_bytes / WORTH || log.entries == 0 {
        return None;
    }
    let share = u128::from(log.entries) * u128::from(excess) / u128::from(log.bytes);
    let up_to = (log.first_seq - 1 + share as u64).min(persisted).min(log.last_seq);
    (up_to >= log.first_seq).then_some(up_to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: u64, bytes: u64) -> LogState {
        LogState {
            first_seq: 1_001,
            last_seq: 1_000 + entries,
            made_at: time::OffsetDateTime::UNIX_EPOCH,
            entries,
            bytes,
            max_bytes: 64_000,
            sealed: false,
            closed: false,
        }
    }

    #[test]
    fn a_cut_leaves_what_is_to_stay_and_what_is_not_written() {
        assert_eq!(cut(&log(600, 60_000), 5_000, 30_000), Some(1_300));
        assert_eq!(cut(&log(600, 60_000), 1_200, 30_000), Some(1_200), "not written yet");
        assert_eq!(cut(&log(600, 60_000), 900, 30_000), None);
        assert_eq!(cut(&log(600, 30_000), 5_000, 30_000), None);
        assert_eq!(cut(&log(600, 30_500), 5_000, 30_000), None, "not worth it");
        assert_eq!(cut(&log(0, 0), 5_000, 0), None);
        assert_eq!(cut(&log(600, 60_000), 5_000, 0), Some(1_600), "all of it");
    }
}
