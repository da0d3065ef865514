//! What messages are found by follows what is written: a task beside a shard's owner.
//!
//! The owner hands over which places it has written, and never waits: an index of words costs
//! several times what a row does. What is not taken in time is forgotten, and caught up with from
//! Postgres, as is what was written while nobody followed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::Gauge;
use natter_protocol::ids::{ChatId, Seq, Shard};
use natter_runtime::causes;
use natter_store::{CaughtUp, EntryPlace, Indexer, Row, RowKind, Store, StoreError};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::measures::ShardGauges;

/// Batches that wait; of 5,000 entries each at most.
const WAITING: usize = 64;
/// Places looked up at once.
const AT_ONCE: usize = 1_000;
/// With so many entries unwritten, writing them is what Postgres is for …
const BACKLOG: u64 = 5_000;
/// … and the index gets a turn this often only.
const TURN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often it is looked whether something has been missed, while nothing comes.
const QUIET: Duration = Duration::from_secs(5);
/// The same while there is always something.
const BUSY: Duration = Duration::from_secs(30);

/// A batch that is written.
#[derive(Debug)]
pub struct Handed {
    /// It begins after this place,
    from: Seq,
    /// ends with this one,
    to: Seq,
    /// and has these of chats' feeds.
    places: Vec<EntryPlace>,
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Handover {
    batches: mpsc::Sender<Handed>,
    /// Entries that are not written yet.
    unwritten: Arc<AtomicU64>,
}

/// What follows the owner.
#[derive(Debug)]
pub struct Follower {
    batches: mpsc::Receiver<Handed>,
    /// Taken already.
    held: Option<Handed>,
    unwritten: Arc<AtomicU64>,
}

/// Both ends.
pub(crate) fn handover() -> (Handover, Follower) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let unwritten = Arc::<AtomicU64>::default();
    let follower = Follower { batches: receiver, held: None, unwritten: Arc::clone(&unwritten) };
    (Handover { batches: sender, unwritten }, follower)
}

impl Handover {
    /// Hands a batch over that was written just now, if there is room.
    pub(crate) fn written(&self, from: Seq, to: Seq, rows: &[Row]) {
        let places = rows.iter().filter(|row| may_be_found(&row.kind));
        let places = places.map(|row| (ChatId(row.feed.id), row.seq)).collect();
        // What finds no room is caught up with.
        let _ = self.batches.try_send(Handed { from, to, places });
    }

    /// How much is not written yet.
    pub(crate) fn tell_unwritten(&self, entries: u64) {
        self.unwritten.store(entries, Ordering::Relaxed);
    }
}

/// Whether an entry is a message, or may change one.
fn may_be_found(kind: &RowKind) -> bool {
    !matches!(
        kind,
        RowKind::System(_) | RowKind::UserEvent | RowKind::Void { .. } | RowKind::Expired(_)
    )
}

/// Keeps the index of a shard up to date, until it is dropped or nobody hands over any more.
pub async fn follow(store: Store, shard: Shard, mut follower: Follower) {
    let mut indexer = Indexer::new(&store, shard);
    let lag = ShardGauges::of(shard).search_lag;
    let mut pause = PAUSE.0;
    loop {
        match follower.step(&mut indexer, &lag).await {
            Ok(true) => pause = PAUSE.0,
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(shard, error = %causes(&error), "messages cannot be indexed");
                sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

impl Follower {
    /// Catches up, and follows until something is missing. False when nobody hands over any more.
    async fn step(&mut self, indexer: &mut Indexer, lag: &Gauge) -> Result<bool, StoreError> {
        let mut indexed = self.catch_up(indexer, lag).await?;
        let caught_up = Instant::now();
        while caught_up.elapsed() < BUSY {
            let Ok(batch) = timeout(QUIET, self.next()).await else { return Ok(true) };
            let Some(batch) = batch else { return Ok(false) };
            if batch.to <= indexed {
                continue;
            }
            self.make_way().await;
            if !indexer.follow(batch.from, batch.to, &batch.places).await? {
                return Ok(true);
            }
            indexed = batch.to;
            lag.set(self.batches.len() as f64 * AT_ONCE as f64);
        }
        Ok(true)
    }

    /// Up to where nothing is missing.
    async fn catch_up(&mut self, indexer: &mut Indexer, lag: &Gauge) -> Result<Seq, StoreError> {
        loop {
            match indexer.catch_up().await? {
                CaughtUp::Until(indexed) => {
                    lag.set(0.0);
                    return Ok(indexed);
                }
                CaughtUp::NotYet { left } => lag.set(left as f64),
            }
            // What is said meanwhile is found all the same; what a backlog brings is caught up with.
            while !self.backlog()
                && let Some(batch) = self.at_hand()
            {
                indexer.follow(batch.from, batch.to, &batch.places).await?;
            }
            self.make_way().await;
        }
    }

    async fn next(&mut self) -> Option<Handed> {
        let first = match self.held.take() {
            Some(first) => first,
            None => self.batches.recv().await?,
        };
        Some(self.with_more(first))
    }

    fn at_hand(&mut self) -> Option<Handed> {
        let first = self.held.take().or_else(|| self.batches.try_recv().ok())?;
        Some(self.with_more(first))
    }

    /// Small batches that follow each other are one.
    fn with_more(&mut self, mut batch: Handed) -> Handed {
        while batch.places.len() < AT_ONCE
            && let Ok(next) = self.batches.try_recv()
        {
            if next.from != batch.to || batch.places.len() + next.places.len() > AT_ONCE {
                self.held = Some(next);
                break;
            }
            batch.to = next.to;
            batch.places.extend(next.places);
        }
        batch
    }

    /// Lets a backlog be written first, for a while.
    async fn make_way(&self) {
        let began = Instant::now();
        while self.backlog() && began.elapsed() < TURN {
            sleep(LOOK).await;
        }
    }

    fn backlog(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > BACKLOG
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::feed::Feed;
    use time::OffsetDateTime;

    use super::*;

    fn rows(seqs: std::ops::Range<Seq>) -> Vec<Row> {
        let feed = Feed::chat(0, ChatId::generate());
        let entry = |seq| {
            let kind = RowKind::Void { reason: String::new() };
            Row { feed, seq, at: OffsetDateTime::UNIX_EPOCH, kind }
        };
        seqs.map(entry).collect()
    }

    #[tokio::test]
    async fn batches_that_follow_each_other_are_taken_together() {
        let (handover, mut follower) = handover();
        for (from, to) in [(0, 5), (5, 9), (12, 20), (20, 21)] {
            handover.written(from, to, &rows(from + 1..to + 1));
        }
        let first = follower.next().await.expect("one");
        assert_eq!((first.from, first.to), (0, 9));
        assert!(first.places.is_empty(), "nothing of them can be found");
        let second = follower.at_hand().expect("another");
        assert_eq!((second.from, second.to), (12, 21));
        assert!(follower.at_hand().is_none());
        drop(handover);
        assert!(follower.next().await.is_none());
    }

    #[tokio::test]
    async fn an_owner_never_waits_for_whoever_follows() {
        let (handover, mut follower) = handover();
        for seq in 0..WAITING as Seq + 10 {
            handover.written(seq, seq + 1, &[]);
        }
        assert_eq!(follower.next().await.map(|batch| batch.to), Some(WAITING as Seq));
    }
}
