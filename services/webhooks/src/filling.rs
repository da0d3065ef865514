//! A shard's stream of events, filled from its log by one worker at a time.
//!
//! The position is the last event itself, which names its entry: Postgres keeps it as well, for the
//! entries that nobody is told of. Whoever fills names the place that it expects to be the last, so one that
//! stood still for too long, or whose request was lost, adds nothing, and looks again.

use std::{sync::Arc, time::Duration};

use natter_bus::{Bus, BusError, HooksState, LogReader, PublishError, Raw};
use natter_protocol::{
    feed::Entry,
    ids::{EPOCH_GAP, Seq, Shard},
    webhook,
};
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
    #[error("the stream")]
    Publish(#[from] PublishError),
    /// The stream has it already: another has filled it.
    #[error("another fills the stream")]
    Overtaken,
}

/// Where a filler stands.
struct Position {
    /// All up to here of the log is looked at.
    log: Seq,
    /// The last event.
    stream: Seq,
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
                    if filled && matches!(error, FillError::Bus(_) | FillError::Publish(_)) {
                        pause = SETTLED;
                    }
                    let quiet = matches!(
                        error,
                        FillError::Overtaken
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
        let mut reader = self.bus.log_reader(self.shard, position.log + 1);
        let ended = self.follow(&mut reader, &mut position).await;
        reader.close().await;
        ended
    }

    /// Makes sure of the stream, and finds out up to where it is filled.
    async fn open(&self, row: FillRow) -> Result<Position, FillError> {
        let shard = self.shard;
        let first = if row.stream_seq == 0 { 1 } else { row.stream_seq + EPOCH_GAP };
        let HooksState { first, last, .. } =
            self.bus.ensure_hooks(shard, &self.config.stream, first).await?;
        // As far back as the log goes: lanes know by it what they have told.
        let all = async || {
            let log = self.bus.log_state(shard).await?.ok_or(BusError::NoStream)?;
            Ok::<_, FillError>(log.first_seq - 1)
        };
        let newest = if last < first { None } else { self.bus.hooked(shard, last).await? };
        let log = match newest {
            None if is_another(row.stream_seq, last) => {
                tracing::error!(
                    shard,
                    "the stream of events is gone, and filled from the log again"
                );
                all().await?
            }
            None => row.log_seq,
            // It has lost its end: the same entries come to the same places.
            Some(newest) if last < row.stream_seq => newest.log_seq,
            Some(newest) => newest.log_seq.max(row.log_seq),
        };
        Ok(Position { log, stream: last })
    }

    async fn follow(
        &self,
        reader: &mut LogReader,
        position: &mut Position,
    ) -> Result<(), FillError> {
        let mut saved = Instant::now();
        let mut lost = 0;
        loop {
            let batch = reader.next_batch(BATCH, WAIT).await?;
            if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
                lost += self.gap(position.log, first.seq).await?;
                let last = last.seq;
                self.add(&batch, position).await?;
                position.log = last;
            }
            if saved.elapsed() < SAVE {
                continue;
            }
            saved = Instant::now();
            let row = FillRow { log_seq: position.log, stream_seq: position.stream };
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

    /// How many entries the log has dropped between two places. It has no holes, but where a new epoch
    /// begins, and all that was in the one before comes again.
    async fn gap(&self, after: Seq, next: Seq) -> Result<u64, FillError> {
        if next == after + 1 {
            return Ok(0);
        }
        let epoch = self.store.shards().await?;
        if epoch.iter().any(|row| row.shard == self.shard && row.first_seq == next) {
            return Ok(0);
        }
        let lost = next - after - 1;
        tracing::error!(
            shard = self.shard,
            after,
            next,
            "the log was cut before webhooks had read it"
        );
        measures::lost(Lost::Log).increment(lost);
        Ok(lost)
    }

    /// Adds what endpoints are told of, whoever wants to be: so the same entry always has the same place.
    async fn add(&self, batch: &[Raw], position: &mut Position) -> Result<(), FillError> {
        let mut adding = Vec::with_capacity(batch.len());
        for raw in batch.iter().filter(|raw| is_told(raw)) {
            adding.push(self.bus.hook(raw, position.stream + adding.len() as Seq)?);
        }
        for added in adding {
            let added = added.await?;
            if added.duplicate || added.seq != position.stream + 1 {
                return Err(FillError::Overtaken);
            }
            position.stream = added.seq;
            measures::stored().increment(1);
        }
        Ok(())
    }
}

/// Whether an empty stream whose last place this is has never held what was in it when it was saved; or
/// else all of that has become too old.
fn is_another(saved: Seq, last: Seq) -> bool {
    saved != 0 && (last < saved || last >= saved + EPOCH_GAP - 1)
}

fn is_told(raw: &Raw) -> bool {
    let entry = || serde_json::from_slice::<Entry>(&raw.body).ok();
    raw.feed.is_some() && entry().is_some_and(|entry| webhook::kinds(&entry.event).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_stream_is_another_where_its_places_do_not_go_on() {
        assert!(!is_another(0, 0), "there was none");
        assert!(!is_another(7, 7) && !is_another(7, 9), "it has become empty");
        assert!(is_another(7, 3) && is_another(7, 7 + EPOCH_GAP - 1));
    }
}
