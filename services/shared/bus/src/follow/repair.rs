//! Holes filled from the log: reads of one feed each, so many at once in a shard, each shard by
//! itself, so that one whose log is away holds up no other.
//!
//! The log passes over what it has cut off. So where it begins is looked at after each read, for
//! all reads that ended before the look: an entry that was cut off before may have been missed.

use std::collections::{HashSet, VecDeque};

use super::{
    Arrival, BusError, Done, Duration, Feed, FollowEvent, Follower, Life, Need, RETRY, Seq, Shard,
    Stored, debug, log_of, unbroken,
};
use crate::measures;

/// Reads of one shard's log under way at once; more wait.
const REPAIRS: usize = 16;
/// Entries of one feed read at once; the longest of them stay below what one read returns.
const REPAIR_BATCH: usize = 64;

/// One read.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Of which feed.
    pub life: Life,
    /// What lies after this entry.
    after: Seq,
    /// Everything of the feed up to here has been delivered: its last entry may lie before.
    covered: Seq,
}

/// The reads of a shard.
#[derive(Default)]
pub struct Repairs {
    waiting: VecDeque<Feed>,
    /// From being asked for until what was read counts.
    reading: HashSet<Feed>,
    /// Read, but the look at where the log begins is still to come.
    unproven: Vec<(Reading, Vec<Stored>)>,
    /// Those for which it is under way.
    proving: Vec<(Reading, Vec<Stored>)>,
}

impl Follower {
    /// Starts what waits and has room.
    pub(super) fn start_repairs(&mut self) {
        while let Some(feed) = self.next_repair() {
            self.read(feed, Duration::ZERO);
        }
    }

    fn next_repair(&mut self) -> Option<Feed> {
        let mut shards = self.shards.values_mut().map(|view| &mut view.repairs);
        let repairs = shards.find(|r| !r.waiting.is_empty() && r.reading.len() < REPAIRS)?;
        repairs.waiting.pop_front()
    }

    pub(super) fn deliver(&mut self, feed: Feed, out: Vec<Arrival>, need: Need) {
        self.ready.extend(out.into_iter().map(|arrival| FollowEvent::Entry(feed, arrival)));
        if need == Need::Repair {
            measures::repairs().increment(1);
            self.shards.entry(feed.shard).or_default().repairs.waiting.push_back(feed);
        }
    }

    pub(super) fn read(&mut self, feed: Feed, wait: Duration) {
        let view = self.shards.entry(feed.shard).or_default();
        let Some(followed) = self.feeds.get(&feed) else {
            view.repairs.reading.remove(&feed);
            return;
        };
        view.repairs.reading.insert(feed);
        let after = followed.chain.last();
        // What is verified is so for feeds that were followed; this one may just begin.
        let verified = if followed.announced() { view.ledger.verified() } else { 0 };
        let covered = after.max(verified);
        let reading = Reading { life: (feed, followed.subscription), after, covered };
        let bus = self.bus.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::Read(reading, bus.read(feed, after, REPAIR_BATCH).await)
        });
    }

    pub(super) fn on_read(&mut self, reading: Reading, entries: Vec<Stored>) {
        let shard = reading.life.0.shard;
        let view = self.shards.entry(shard).or_default();
        view.repairs.unproven.push((reading, entries));
        if view.repairs.proving.is_empty() {
            self.prove(shard, Duration::ZERO);
        }
    }

    /// Looks where the log begins, for all that has been read by now.
    fn prove(&mut self, shard: Shard, wait: Duration) {
        let repairs = &mut self.shards.entry(shard).or_default().repairs;
        repairs.proving.append(&mut repairs.unproven);
        if repairs.proving.is_empty() {
            return;
        }
        let bus = self.bus.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::Proof(shard, log_of(&bus, shard).await.map(|log| log.first_seq))
        });
    }

    pub(super) fn on_proof(&mut self, shard: Shard, first: Result<Seq, BusError>) {
        match first {
            Ok(first) => {
                let repairs = &mut self.shards.entry(shard).or_default().repairs;
                for (reading, entries) in std::mem::take(&mut repairs.proving) {
                    self.on_proven(reading, entries, first);
                }
                self.prove(shard, Duration::ZERO);
            }
            Err(error) => {
                debug!(%error, shard, "where the log begins");
                self.prove(shard, RETRY);
            }
        }
    }

    /// What was read, from a log that began with `first` or before when it was read.
    fn on_proven(&mut self, reading: Reading, entries: Vec<Stored>, first: Seq) {
        let Reading { life: (feed, subscription), after, covered } = reading;
        self.shards.entry(feed.shard).or_default().repairs.reading.remove(&feed);
        let Some(followed) = self.feeds.get_mut(&feed) else { return };
        if (followed.subscription, followed.chain.last()) != (subscription, after) {
            // Unfollowed and followed again meanwhile: that chain asks for itself.
            return;
        }
        if !unbroken(covered, first) {
            self.lost(feed);
        }
        let Some(followed) = self.feeds.get_mut(&feed) else { return };
        let complete = entries.len() < REPAIR_BATCH;
        let entries = entries.into_iter().map(Arrival::from).collect();
        let mut out = Vec::new();
        let need = followed.chain.repaired(entries, complete, &mut out);
        // Somebody knows of an entry that the log does not have: do not ask in a tight loop.
        let stuck = need == Need::Repair && complete && out.is_empty();
        self.deliver(feed, out, Need::Nothing);
        match need {
            Need::Repair if stuck => self.read(feed, RETRY),
            Need::Repair => {
                self.shards.entry(feed.shard).or_default().repairs.waiting.push_back(feed);
            }
            Need::Nothing => self.announce(feed),
        }
    }

    pub(super) fn lost(&mut self, feed: Feed) {
        measures::lost().increment(1);
        self.ready.push_back(FollowEvent::Lost(feed));
    }
}
