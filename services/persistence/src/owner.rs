//! One shard, while this worker owns it: from its log into Postgres, batch by batch.
//!
//! The position is `shards.persisted_seq`. It moves in the transaction that writes the rows, by
//! compare-and-set, so nothing is acked to the log, and an owner that lost the shard without
//! noticing cannot write: its position is not there any more.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use natter_bus::{Bus, BusError, PublishError, Raw};
use natter_protocol::ids::{Seq, Shard};
use natter_store::{Row, ShardRow, Store, StoreError};
use time::OffsetDateTime;
use tokio::time::timeout;
use tracing::{Instrument, Span};

use crate::{
    ahead::{Ahead, Horizon},
    batch::Item,
    config::WorkerConfig,
    epoch::{self, EpochError},
    measures::{self, ShardGauges},
    search::{self, Follower, Handover},
    trace,
};

/// With so many at hand nobody waits for more.
const BATCH: usize = 4_000;
/// Entries in one transaction at most. What a backlog brings of one chat moves it, and its senders,
/// once.
const MOST: usize = 5_000;
/// Batches that are not full are written so often at most: a transaction costs Postgres as much as
/// some hundred rows do. Nobody waits for it, since what is read is merged with the log's end. What
/// comes after a pause is written at once.
const PACE: Duration = Duration::from_millis(250);
/// How often the position's time moves while nothing comes.
const QUIET: Duration = Duration::from_secs(5);
/// What the broker's clock may be behind this one's.
const SKEW: Duration = Duration::from_secs(2);

/// Why a step did not come to its end. Nothing is lost: it is done again.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The shard is another's, or its position is not where this owner left it.
    #[error("the shard has moved on without this owner")]
    Fenced,
    /// Postgres does not take the batch just now. Step again: it is kept.
    #[error("the batch cannot be written")]
    Store(#[source] StoreError),
    /// A dead letter cannot be stored just now. Take the shard anew, or step again: the batch is
    /// kept.
    #[error("a dead letter cannot be stored")]
    DeadLetter(#[from] PublishError),
    /// The log cannot be read just now. Take the shard anew: it may have another log.
    #[error("the log cannot be read")]
    Log(#[from] BusError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Fenced,
            other => Self::Store(other),
        }
    }
}

/// Why a shard cannot be taken just now.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The claim cannot be made.
    #[error("the shard cannot be claimed")]
    Store(#[from] StoreError),
    /// Its log is not usable.
    #[error("the shard's log cannot be opened")]
    Log(#[from] EpochError),
}

/// What a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stepped {
    /// Entries written, void ones included.
    pub written: usize,
    /// Of these, dead letters.
    pub poison: usize,
}

/// The owner of a shard.
pub struct Owner {
    ahead: Ahead,
    writer: Writer,
}

/// The half that writes.
struct Writer {
    store: Store,
    bus: Bus,
    shard: Shard,
    name: String,
    /// Taken to be written, and not yet.
    held: Vec<Item>,
    /// All up to here is written.
    position: Arc<AtomicU64>,
    persisted_at: OffsetDateTime,
    /// When a batch was written last.
    committed: Option<Instant>,
    quiet_since: Instant,
    gauges: ShardGauges,
    /// Whom to tell what is written.
    handover: Option<Handover>,
}

impl Owner {
    /// Claims the shard and opens its log; none when another worker has it. `horizon` is this
    /// worker's for the shard, as the owners before have left it.
    ///
    /// # Errors
    /// [`TakeError`]. The claim may then stand; it runs out, or is released.
    pub async fn take(
        store: &Store,
        bus: &Bus,
        config: &WorkerConfig,
        shard: Shard,
        horizon: &Horizon,
    ) -> Result<Option<Self>, TakeError> {
        let Some(row) = store.claim_shard(shard, &config.owner, config.lease).await? else {
            return Ok(None);
        };
        bus.ensure_dead_letters(config.log.replicas).await.map_err(EpochError::from)?;
        let closed_for = config.log_closed_for;
        let row = epoch::open_log(store, bus, &config.log, closed_for, row, horizon.seen()).await?;
        Ok(Some(Self::at(store, bus, config, &row, horizon)))
    }

    /// Goes on from a position, whoever owns the shard: Postgres refuses what is not true.
    #[must_use]
    pub fn at(
        store: &Store,
        bus: &Bus,
        config: &WorkerConfig,
        row: &ShardRow,
        horizon: &Horizon,
    ) -> Self {
        let writer = Writer {
            store: store.clone(),
            bus: bus.clone(),
            shard: row.shard,
            name: config.owner.clone(),
            held: Vec::new(),
            position: Arc::new(AtomicU64::new(row.persisted_seq)),
            persisted_at: row.persisted_at,
            committed: None,
            quiet_since: Instant::now(),
            gauges: ShardGauges::of(row.shard),
            handover: None,
        };
        Self { ahead: Ahead::new(bus, row, horizon.clone()), writer }
    }

    /// All up to here is written; moves as it is.
    #[must_use]
    pub fn position(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.writer.position)
    }

    /// What is written from now on, for whoever keeps up what messages are found by.
    pub fn hand_over(&mut self) -> Follower {
        let (handover, follower) = search::handover();
        self.writer.handover = Some(handover);
        follower
    }

    /// Writes one batch: the one held from a step that failed, or what is read until 250 ms after
    /// the batch before; else reads, and waits at most until a digest is due (500 ms) for
    /// something. Meanwhile it reads on and tells gateways.
    ///
    /// # Errors
    /// [`StepError`] says what to do.
    pub async fn step(&mut self) -> Result<Stepped, StepError> {
        let Self { ahead, writer } = self;
        if writer.held.is_empty() {
            if ahead.is_empty() {
                ahead.advance().await?;
            }
            if let Some(committed) = writer.committed {
                ahead.gather(committed + PACE, BATCH).await?;
            }
            writer.held = ahead.take(MOST).into_iter().map(Item::new).collect();
        }
        if writer.held.is_empty() {
            writer.note_quiet(ahead.last_read()).await?;
            return Ok(Stepped::default());
        }
        let spans = trace::batch_spans(writer.shard, writer.held.iter().map(|item| &item.raw));
        let done = {
            let span = spans.first().cloned().unwrap_or_else(Span::none);
            let mut writing = pin!(writer.write_held().instrument(span));
            tokio::select! {
                done = &mut writing => done,
                trouble = ahead.go_on() => match writing.await {
                    Err(StepError::Fenced) => Err(StepError::Fenced),
                    // Also when the batch is not written: another owner reads it again, and looks
                    // at the log before.
                    _ => Err(trouble.into()),
                },
            }
        };
        // They end together.
        drop(spans);
        writer.measure(ahead.waiting());
        done
    }

    /// Reads on and tells gateways for so long, after a step that failed.
    ///
    /// # Errors
    /// [`StepError::Log`].
    pub async fn tell_for(&mut self, pause: Duration) -> Result<(), StepError> {
        match timeout(pause, self.ahead.go_on()).await {
            Ok(trouble) => Err(trouble.into()),
            Err(_) => Ok(()),
        }
    }
}

impl Writer {
    /// Writes the batch, in one transaction if Postgres takes every row. When it refuses a row's
    /// data, halves find that row; it becomes a void one.
    async fn write_held(&mut self) -> Result<Stepped, StepError> {
        let mut done = Stepped::default();
        let mut size = self.held.len();
        while !self.held.is_empty() {
            let count = size.min(self.held.len());
            done.poison += self.bury(count).await?;
            match self.persist(count).await {
                Ok(()) => {
                    done.written += count;
                    size = size.saturating_mul(2);
                }
                Err(error) if error.is_data_error() && count > 1 => size = count / 2,
                Err(error) if error.is_data_error() => self.condemn_first(&error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(done)
    }

    async fn persist(&mut self, count: usize) -> Result<(), StoreError> {
        let Some(last) = self.held.get(count - 1) else { return Ok(()) };
        let (to, at) = (last.raw.seq, last.raw.at);
        let rows: Vec<Row> =
            self.held[..count].iter().filter_map(|item| item.row.clone()).collect();
        let (started, from) = (Instant::now(), self.at_seq());
        self.store.persist(self.shard, &self.name, from, to, at, &rows).await?;
        if let Some(handover) = &self.handover {
            handover.written(from, to, &rows);
        }
        self.committed = Some(Instant::now());
        measures::commit_seconds().record(started.elapsed());
        measures::batch_entries().record(count as f64);
        measures::entries().increment(count as u64);
        self.position.store(to, Ordering::Release);
        self.persisted_at = at;
        self.quiet_since = Instant::now();
        self.held.drain(..count);
        Ok(())
    }

    /// Stores the dead letters of the next `count` entries, before their rows are written: once
    /// the position has moved, nobody would look at them again.
    async fn bury(&mut self, count: usize) -> Result<usize, StepError> {
        let mut buried = 0;
        for item in self.held.iter_mut().take(count) {
            let Some(reason) = &item.poison else { continue };
            let Raw { seq, subject, .. } = &item.raw;
            self.bus.dead_letter(self.shard, &item.raw, reason).await?;
            tracing::error!(shard = self.shard, seq, %subject, reason, "an entry is poison");
            measures::dead_letters().increment(1);
            item.poison = None;
            buried += 1;
        }
        Ok(buried)
    }

    fn condemn_first(&mut self, error: &StoreError) {
        let Some(item) = self.held.first_mut() else { return };
        let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        if item.is_void() {
            // Not even a void row: the feed itself is unknown, say.
            tracing::error!(
                shard = self.shard,
                seq = item.raw.seq,
                cause,
                "no row for a void entry"
            );
            item.drop_row();
        } else {
            item.condemn(format!("Postgres refuses it: {cause}"));
        }
    }

    /// Nothing to read: then all that was stored until shortly before now is written, and who
    /// asks how far Postgres is shall know.
    async fn note_quiet(&mut self, last_read: Seq) -> Result<(), StepError> {
        if self.quiet_since.elapsed() < QUIET {
            return Ok(());
        }
        let until = OffsetDateTime::now_utc() - SKEW;
        let position = self.at_seq();
        // The leader's word, asked after the time was taken: what is stored later is later.
        let log = self.bus.log_state(self.shard).await?.ok_or(BusError::NoStream)?;
        // One that has lost its end, or was sealed, is to be made anew.
        if log.last_seq < position.max(last_read) || log.sealed {
            return Err(BusError::NoStream.into());
        }
        self.quiet_since = Instant::now();
        if log.last_seq == position && until > self.persisted_at {
            self.store.persist(self.shard, &self.name, position, position, until, &[]).await?;
            self.persisted_at = until;
        }
        Ok(())
    }

    fn measure(&self, waiting: u64) {
        let behind = waiting + self.held.len() as u64;
        self.gauges.lag_entries.set(behind as f64);
        if let Some(handover) = &self.handover {
            handover.tell_unwritten(behind);
        }
        let age = OffsetDateTime::now_utc() - self.persisted_at;
        let age = if behind == 0 { 0.0 } else { age.as_seconds_f64().max(0.0) };
        self.gauges.lag_seconds.set(age);
    }

    fn at_seq(&self) -> Seq {
        self.position.load(Ordering::Acquire)
    }
}
