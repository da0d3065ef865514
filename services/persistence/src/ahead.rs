//! What an owner reads of its log, told to gateways at once and written when Postgres takes it.
//!
//! Reading goes on beside the writing: what gateways check against a digest does not need
//! Postgres. But it is bounded. With so much read and not written that there is no room, nothing
//! more is told, not even that there is nothing new: gateways then look up their feeds' heads
//! themselves, as they do when they hear no digest.

use std::{
    collections::VecDeque,
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use natter_bus::{Bus, BusError, LogReader, Raw};
use natter_protocol::ids::Seq;
use natter_store::ShardRow;
use tokio::time::{timeout, timeout_at};

use crate::{digest::DigestWriter, epoch::Seen};

/// Entries asked for at once.
const READ: usize = 1_000;
/// While there is traffic, the time from one reading to the next: half of a digest's pace.
const PACE: Duration = Duration::from_millis(100);
/// How long the last reading before a batch may take.
const LAST: Duration = Duration::from_millis(10);
/// Entries read and not written, and their bytes, beyond which nothing more is read.
const ENTRIES: usize = 10_000;
const BYTES: usize = 16 * 1024 * 1024;
/// The digests of a new owner begin so many entries before what is written: what the owner
/// before had written and not yet told is at most what it read within one digest's pace.
const TOLD_AGAIN: Seq = 2_000;

/// The last entry that a worker has read of a shard's log, whichever of its owners it was: more
/// than Postgres tells when that is behind. It goes with the process.
#[derive(Clone, Debug, Default)]
pub struct Horizon(Arc<Mutex<Option<Seen>>>);

impl Horizon {
    /// The last entry read.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn move_to(&self, seen: Seen) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
    }
}

/// Reads on, and tells.
pub(crate) struct Ahead {
    bus: Bus,
    epoch: i32,
    reader: LogReader,
    digest: DigestWriter,
    /// What is written up to here was only read to be told again.
    written: Seq,
    /// Read, told, and yet to be written.
    read: VecDeque<Raw>,
    bytes: usize,
    horizon: Horizon,
}

impl Ahead {
    pub(crate) fn new(bus: &Bus, row: &ShardRow, horizon: Horizon) -> Self {
        let told = row.persisted_seq.saturating_sub(TOLD_AGAIN).max(row.first_seq - 1);
        Self {
            bus: bus.clone(),
            epoch: row.epoch,
            reader: bus.log_reader(row.shard, told + 1).paced(PACE),
            digest: DigestWriter::new(row.shard, row.epoch, told),
            written: row.persisted_seq,
            read: VecDeque::new(),
            bytes: 0,
            horizon,
        }
    }

    /// Reads and tells once: waits at most until a digest is due (500 ms) for something to read.
    ///
    /// # Errors
    /// When the log cannot be read, or the digest not sent, just now.
    pub(crate) async fn advance(&mut self) -> Result<(), BusError> {
        let wait = self.digest.due_in(Instant::now());
        // Given up halfway, it has lost nothing; all that follows happens at once.
        let read = self.reader.next_batch(READ, wait).await?;
        self.digest.note(&self.bus, &read, Instant::now())?;
        if let Some(last) = read.last() {
            self.horizon.move_to(Seen { epoch: self.epoch, seq: last.seq, at: last.at });
        }
        let unwritten = read.into_iter().filter(|raw| raw.seq > self.written);
        self.read.extend(unwritten.inspect(|raw| self.bytes += raw.body.len()));
        self.digest.publish_when_due(&self.bus, Instant::now())
    }

    /// Reads on until then, unless `enough` entries wait before.
    ///
    /// # Errors
    /// As [`Ahead::advance`].
    pub(crate) async fn gather(&mut self, until: Instant, enough: usize) -> Result<(), BusError> {
        while self.read.len() < enough && self.bytes < BYTES {
            let Ok(advanced) = timeout_at(until.into(), self.advance()).await else {
                return self.gather_last().await;
            };
            advanced?;
        }
        Ok(())
    }

    /// What has come since the last gulp goes along: with it written there may be a moment with nothing
    /// unwritten, which a new epoch waits for.
    async fn gather_last(&mut self) -> Result<(), BusError> {
        self.reader.hurry();
        timeout(LAST, self.advance()).await.unwrap_or(Ok(()))
    }

    /// The same for as long as it is waited for, and there is room. Returns only when it fails.
    pub(crate) async fn go_on(&mut self) -> BusError {
        while self.read.len() < ENTRIES && self.bytes < BYTES {
            if let Err(error) = self.advance().await {
                return error;
            }
        }
        pending().await
    }

    /// Takes up to `max` entries out, in order.
    pub(crate) fn take(&mut self, max: usize) -> Vec<Raw> {
        let taken: Vec<Raw> = self.read.drain(..max.min(self.read.len())).collect();
        self.bytes -= taken.iter().map(|raw| raw.body.len()).sum::<usize>();
        taken
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// The last place that is read, at least.
    pub(crate) fn last_read(&self) -> Seq {
        self.reader.next_seq().saturating_sub(1)
    }

    /// Entries that are in the log and not yet taken out.
    pub(crate) fn waiting(&self) -> u64 {
        self.reader.behind() + self.read.len() as u64
    }
}
