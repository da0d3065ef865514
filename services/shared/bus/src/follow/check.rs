//! The check of heads: after the connection was away, and where no digest tells, the last entry of
//! every followed feed of a shard is looked at.

use super::{
    Bus, BusError, Done, Duration, Feed, FollowEvent, Follower, Instant, LogState, Seq, Shard,
    debug, log_of, reached, unbroken,
};

/// Feeds whose heads are asked for at once.
const HEADS_BATCH: usize = 256;
/// Between two checks while no digest comes; longer where a check takes long.
const REST: Duration = Duration::from_secs(1);

/// The check of one shard.
#[derive(Default)]
pub struct Check {
    /// It has to run.
    pub wanted: bool,
    /// Something happened while it ran: it proves nothing, and runs again.
    pub stale: bool,
    running: bool,
    /// Where the log ended before the first head was asked for.
    from: Option<Seq>,
    left: Vec<Feed>,
    /// Feeds found to have entries that are not delivered yet.
    behind: Vec<(Feed, Seq)>,
    /// Feeds of which the log holds nothing.
    empty: Vec<Feed>,
    began: Option<Instant>,
    /// When the next one may begin for want of digests.
    rested: Option<Instant>,
}

impl Check {
    /// Looks again later.
    fn failed(&mut self) {
        self.wanted = true;
        self.running = false;
        self.from = None;
        self.left = Vec::new();
        self.behind = Vec::new();
        self.empty = Vec::new();
    }
}

impl Follower {
    /// One batch at a time, so that it never crowds out the traffic.
    pub(super) fn check_step(&mut self, shard: Shard, now: Instant) {
        let Some(view) = self.shards.get_mut(&shard) else { return };
        let silent = !view.fresh();
        if silent {
            view.dense = false;
        }
        if view.check.running {
            return;
        }
        let bus = self.bus.clone();
        if view.check.from.is_none() {
            let rested = view.check.rested.is_none_or(|rested| rested <= now);
            let over = view.distrust.is_some_and(|until| until <= now);
            if over {
                view.distrust = None;
            }
            if !(view.check.wanted || over || silent && rested) {
                return;
            }
            view.check.wanted = false;
            view.check.stale = false;
            view.check.running = true;
            view.check.began = Some(now);
            self.ask_log(shard, |log| log.last_seq, Done::CheckFrom);
            return;
        }
        view.check.running = true;
        let at = view.check.left.len().saturating_sub(HEADS_BATCH);
        let batch = view.check.left.split_off(at);
        if batch.is_empty() {
            // Looked at last: a cut may come while heads are asked for.
            self.ask_log(shard, |log| log.first_seq, Done::CheckEnd);
        } else {
            self.tasks.spawn(async move { Done::Checked(shard, bus.heads(&batch).await) });
        }
    }

    fn ask_log(
        &mut self,
        shard: Shard,
        place: fn(LogState) -> Seq,
        done: fn(Shard, Result<Seq, BusError>) -> Done,
    ) {
        let bus: Bus = self.bus.clone();
        self.tasks.spawn(async move { done(shard, log_of(&bus, shard).await.map(place)) });
    }

    /// The feeds that are followed now are looked at; those followed later start beyond.
    pub(super) fn on_check_from(&mut self, shard: Shard, from: Result<Seq, BusError>) {
        let Some(view) = self.shards.get_mut(&shard) else { return };
        view.check.running = false;
        match from {
            Ok(from) => {
                let feeds = self.feeds.keys().filter(|feed| feed.shard == shard);
                view.check.left = feeds.copied().collect();
                view.check.behind.clear();
                view.check.empty.clear();
                view.check.from = Some(from);
                self.check_step(shard, Instant::now());
            }
            Err(error) => {
                debug!(%error, shard, "where the log ends");
                view.check.failed();
            }
        }
    }

    pub(super) fn on_checked(&mut self, shard: Shard, heads: Result<Vec<(Feed, Seq)>, BusError>) {
        let Some(view) = self.shards.get_mut(&shard) else { return };
        view.check.running = false;
        let heads = match heads {
            Ok(heads) => heads,
            Err(error) => {
                debug!(%error, shard, "checking heads");
                view.check.failed();
                return;
            }
        };
        let behind = heads.iter().filter(|(feed, seq)| !reached(&self.feeds, *feed, *seq));
        view.check.behind.extend(behind);
        view.check.empty.extend(heads.iter().filter(|(_, head)| *head == 0).map(|(feed, _)| *feed));
        for (feed, head) in heads {
            self.require(feed, head);
        }
        self.check_step(shard, Instant::now());
    }

    /// All heads have been asked for, and then the log began with `first`.
    pub(super) fn on_check_end(&mut self, shard: Shard, first: Result<Seq, BusError>) {
        let Some(view) = self.shards.get_mut(&shard) else { return };
        view.check.running = false;
        let first = match first {
            Ok(first) => first,
            Err(error) => {
                debug!(%error, shard, "where the log begins");
                view.check.failed();
                return;
            }
        };
        let from = view.check.from.take();
        let behind = std::mem::take(&mut view.check.behind);
        let empty = std::mem::take(&mut view.check.empty);
        let verified = view.ledger.verified();
        let took = view.check.began.map_or(Duration::ZERO, |began| began.elapsed());
        view.check.rested = Some(Instant::now() + REST.max(took * 2));
        view.check.wanted |= view.check.stale;
        let stale = view.check.stale;
        // Heads that were found are accounted for by the repairs that they have started.
        let distrusted = view.distrust.is_some_and(|until| Instant::now() < until);
        view.dense = view.fresh() && !stale && !distrusted;
        let back = !stale && std::mem::take(&mut view.out_of_touch);
        if let (Some(from), false) = (from, stale) {
            view.ledger.vouch(from, behind);
        }
        // Nothing of it is in the log: if the log was cut beyond where it stands, nobody can tell
        // whether something was.
        for feed in empty {
            let stands = self.feeds.get(&feed).filter(|followed| followed.announced());
            if stands.is_some_and(|f| !unbroken(f.chain.last().max(verified), first)) {
                self.lost(feed);
            }
        }
        if back {
            self.ready.push_back(FollowEvent::InTouch(shard));
        }
        self.verify(shard);
    }
}
