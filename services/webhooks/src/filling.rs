//! A shard's stream of events, filled from its log by one worker at a time.
//!
//! The position is the last event itself, which names its entry: Postgres keeps it as well, for the
//! entries that nobody is told of. Whoever fills names the place that it expects to be the last, so one that
//! stood still for too long, or whose request was lost, adds nothing, and looks again.

use std::{sync::Arc, time::Duration};

use natter_bus::{Bus, BusError, Filled, HookError, LogReader, Raw};
use natter_protocol::ids::{EPOCH_GAP, Seq, Shard};
use natter_runtime::causes;
use natter_store::{FillRow, Store, StoreError};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    config::WebhooksConfig,
    measures::{self, Lost},
    worker::LEASE,
};

/// Entries that are looked at together.
const BATCH: usize = 500;
/// How long there is nothing to do but to wait for the next.
const WAIT: Duration = Duration::from_secs(1);
/// Between two saves of the position, which renew the lease.
const SAVE: Duration = Duration::from_secs(1);
/// After a failure, and while another worker fills the shard or nobody wants to be told.
const AGAIN: Duration = Duration::from_secs(1);

/// The same where the servers were away: lanes look every second whether the stream has lost its end, before
/// other events stand there.
const SETTLED: Duration = Duration::from_secs(3);

/// Fills one shard's stream.
pub(crate) struct Filler {
    shard: Shard,
    worker: Arc<str>,
    config: Arc<WebhooksConfig>,
    bus: Bus,
    store: Store,
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the log, or the stream")]
    Bus(#[from] BusError),
    #[error(transparent)]
    Hook(#[from] HookError),
}

impl Filler {
    pub(crate) fn new(
        shard: Shard,
        worker: Arc<str>,
        config: Arc<WebhooksConfig>,
        bus: Bus,
        store: Store,
    ) -> Self {
        Self { shard, worker, config, bus, store }
    }

    /// Fills until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let work = async {
            loop {
                let (mut pause, mut filled) = (AGAIN, false);
                if let Err(error) = self.turn(&mut filled).await {
                    if filled
                        && matches!(
                            error,
                            FillError::Bus(_) | FillError::Hook(HookError::Publish(_))
                        )
                    {
                        pause = SETTLED;
                    }
                    let quiet = matches!(
                        error,
                        FillError::Hook(HookError::Overtaken)
                            | FillError::Store(StoreError::Fenced)
                            | FillError::Bus(BusError::NoStream | BusError::Disconnected)
                    );
                    if !quiet {
                        measures::failures().increment(1);
                        tracing::warn!(shard = self.shard, error = %causes(&error), "events cannot be kept for webhooks");
                    }
                }
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
        if let Err(error) = self.store.release_fill(self.shard, &self.worker).await {
            tracing::debug!(error = %causes(&error), "the filling is released when its lease has run out");
        }
    }

    /// Fills for as long as the shard is this worker's and there is an endpoint. Whether it has begun to is
    /// said before it ends.
    async fn turn(&self, filled: &mut bool) -> Result<(), FillError> {
        // Looked at before it is asked who wants to be told: whoever comes later wants what is later.
        let head = self.bus.log_state(self.shard).await?.ok_or(BusError::NoStream)?.last_seq;
        let since = self.store.first_endpoint_at().await?;
        let from = match since {
            Some(since) if self.store.fill(self.shard).await?.is_none() => {
                self.bus.stored_since(self.shard, since).await?.saturating_sub(1)
            }
            _ => head,
        };
        let claimed = self.store.claim_fill(self.shard, &self.worker, LEASE, from).await?;
        let Some(row) = claimed else { return Ok(()) };
        if since.is_none() {
            if head > row.log_seq {
                let row = FillRow { log_seq: head, ..row };
                self.store.save_fill(self.shard, &self.worker, row, 0).await?;
            }
            if row.stream_seq > 0 {
                self.bus.empty_hooks(self.shard).await?;
            }
            return Ok(());
        }
        let mut position = self.open(row).await?;
        *filled = true;
        let mut reader = self.bus.log_reader(self.shard, position.log_seq + 1);
        let ended = self.follow(&mut reader, &mut position).await;
        reader.close().await;
        ended
    }

    /// Makes sure of the stream, and finds out up to where it is filled.
    async fn open(&self, row: FillRow) -> Result<Filled, FillError> {
        let shard = self.shard;
        let saved = Filled { log_seq: row.log_seq, stream_seq: row.stream_seq };
        let stream = &self.config.stream;
        let state = self.bus.ensure_hooks(shard, stream, saved.next_stream()).await?;
        if let Some(filled) = self.bus.filled(shard, &state, saved).await? {
            return Ok(filled);
        }
        tracing::error!(shard, "the stream of events is gone, and filled from the log again");
        // As far back as the log goes: lanes know by it what they have told.
        let log = self.bus.log_state(shard).await?.ok_or(BusError::NoStream)?;
        Ok(Filled { log_seq: log.first_seq - 1, stream_seq: state.last })
    }

    async fn follow(&self, reader: &mut LogReader, position: &mut Filled) -> Result<(), FillError> {
        let mut saved = Instant::now();
        let mut lost = 0;
        loop {
            let batch = reader.next_batch(BATCH, WAIT).await?;
            if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
                lost += self.gap(position.log_seq, first.seq).await?;
                let last = last.seq;
                self.add(&batch, position).await?;
                position.log_seq = last;
            }
            if saved.elapsed() < SAVE {
                continue;
            }
            saved = Instant::now();
            let row = FillRow { log_seq: position.log_seq, stream_seq: position.stream_seq };
            self.store.save_fill(self.shard, &self.worker, row, lost).await?;
            lost = 0;
            let kept = self.store.claim_fill(self.shard, &self.worker, LEASE, row.log_seq).await?;
            if kept.is_none() || self.store.first_endpoint_at().await?.is_none() {
                return Ok(());
            }
            if let Some(state) = self.bus.hooks_state(self.shard).await? {
                let fullness = state.bytes as f64 / state.max_bytes.max(1) as f64;
                measures::fullness(self.shard).set(fullness);
            }
        }
    }

    /// How many entries the log has dropped between two places.
    async fn gap(&self, after: Seq, next: Seq) -> Result<u64, FillError> {
        if next == after + 1 {
            return Ok(0);
        }
        let shards = self.store.shards().await?;
        let epoch =
            shards.iter().find(|row| row.shard == self.shard).map_or(1, |row| row.first_seq);
        let lost = dropped(after, next, epoch);
        if lost > 0 {
            tracing::error!(
                shard = self.shard,
                after,
                next,
                "the log was cut before webhooks had read it"
            );
            measures::lost(Lost::Log).increment(lost);
        }
        Ok(lost)
    }

    /// Adds what endpoints are told of.
    async fn add(&self, batch: &[Raw], position: &mut Filled) -> Result<(), FillError> {
        let last = self.bus.add_hooks(batch, position.stream_seq).await?;
        measures::stored().increment(last - position.stream_seq);
        position.stream_seq = last;
        Ok(())
    }
}

/// How many entries are missing between two places of a log whose epoch begins at `epoch`. It has no holes, but
/// below an epoch that begins far above the one before: whoever made the log anew has seen to what was left of
/// that.
fn dropped(after: Seq, next: Seq, epoch: Seq) -> u64 {
    let before = epoch.saturating_sub(1);
    let anew = next >= epoch && before.saturating_sub(after) >= EPOCH_GAP / 2;
    next.saturating_sub(if anew { before } else { after } + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_counted_but_for_what_lies_below_an_epoch_that_begins_far_above() {
        assert_eq!((dropped(7, 8, 1), dropped(7, 11, 1)), (0, 3));
        let epoch = 7 + EPOCH_GAP;
        assert_eq!((dropped(7, epoch, epoch), dropped(7, epoch + 2, epoch)), (0, 2));
        // A log that was taken as it is, though it starts after what is written.
        assert_eq!(dropped(7, 11, 11), 3);
    }
}
