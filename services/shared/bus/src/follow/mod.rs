//! A gateway's receive path: the feeds that it follows, each in order, without a hole, once.
//!
//! What comes live (`out.…`) is at-most-once. Four things start a repair, which reads the log:
//! an entry that does not continue its feed's chain, the gateway's own acknowledged publish
//! beyond the chain ([`Follower::expect`]), the digest of the shard's owner naming a head beyond
//! the chain, and, after a reconnect or where digests are missing, a check of all followed heads.
//!
//! The race that matters: an entry may be published while a feed is being subscribed. So the
//! subscription is confirmed first (PING, PONG on the same connection), the log's end is looked up
//! after, and what came in between is held by the chain.
//!
//! What the log has cut off cannot be repaired from it: then [`FollowEvent::Lost`] is told, and
//! those who follow the feed have to begin anew, from a cursor, with what Postgres has.
//!
//! - `link`: the connection to the broker
//! - `chain`: one feed's order, pure
//! - `repair`: holes read from the log
//! - `check`: the heads of all followed feeds looked at
//! - `recents`: heads that cost no read of the log
//! - `ledger`: up to where nothing is missing, pure

mod chain;
mod check;
mod ledger;
mod link;
mod recents;
mod repair;

pub(crate) use link::why_not;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use natter_protocol::{
    feed::{Digest, Feed},
    ids::{EPOCH_GAP, Seq, Shard},
};
use tokio::{
    task::JoinSet,
    time::{Instant, Interval, MissedTickBehavior},
};
use tracing::{debug, warn};

pub use self::{chain::Arrival, link::Backlog};
use self::{
    chain::{Chain, Need},
    check::Check,
    ledger::Ledger,
    link::{Incoming, Link, Message},
    recents::Recents,
    repair::{Reading, Repairs},
};
use crate::{Bus, BusConfig, BusError, LogState, Stored, measures, subjects};

/// How long a live entry may take to arrive after its ack or digest before the log is read.
const GRACE: Duration = Duration::from_millis(150);
/// Without a digest for this long, heads are checked instead. Empty ones come twice a second.
const DIGEST_SILENCE: Duration = Duration::from_millis(1_500);
/// How long entries of unknown predecessor are not trusted once the live mirror is made anew: the
/// first one of each feed comes without, and digests must have told of what went by meanwhile.
const DISTRUST: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(50);
/// Expected entries remembered until their grace is over; for those dropped heads are checked.
const SUSPECTS_MAX: usize = 100_000;
const RETRY: Duration = Duration::from_millis(200);

/// Where to start delivering a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this entry: all that the log holds beyond it is read.
    After(Seq),
    /// With what the log stores from now on.
    Now,
}

/// What following feeds yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FollowEvent {
    /// The feed is followed, and all of it up to this entry has been delivered or is not wanted.
    Following(Feed, Seq),
    /// The feed's next entry.
    Entry(Feed, Arrival),
    /// A signal of a feed that is followed or watched.
    Signal(Feed, Bytes),
    /// Everything up to here, on all feeds of the shard that are followed, has been delivered.
    Verified(Shard, Seq),
    /// The log has cut off entries of the feed that may not have been delivered. What is told of
    /// it from here on has a hole before it.
    Lost(Feed),
    /// The receiving connection came (true) or went (false).
    Connected(bool),
    /// Everything that the shard's feeds told while the connection was away has been asked for,
    /// and is delivered as it is read.
    InTouch(Shard),
}

impl FollowEvent {
    fn is_of(&self, feed: Feed) -> bool {
        match self {
            Self::Following(other, _) | Self::Entry(other, _) | Self::Lost(other) => *other == feed,
            Self::Signal(..) | Self::Verified(..) | Self::Connected(_) | Self::InTouch(_) => false,
        }
    }
}

struct Followed {
    chain: Chain,
    subscription: u64,
    /// Until [`FollowEvent::Following`] is told. Boxed, since most feeds have been followed for long.
    starting: Option<Box<Start>>,
}

impl Followed {
    fn announced(&self) -> bool {
        self.starting.is_none()
    }
}

#[derive(Default)]
struct ShardView {
    recents: Recents,
    ledger: Ledger,
    heard: Option<Instant>,
    /// Everything on the followed feeds up to the last digest has been accounted for.
    dense: bool,
    /// The live mirror is being made anew: until then nothing is dense.
    distrust: Option<Instant>,
    /// The connection was away, and what went by has not been asked for yet.
    out_of_touch: bool,
    repairs: Repairs,
    check: Check,
}

impl ShardView {
    /// Whether digests come.
    fn fresh(&self) -> bool {
        self.heard.is_some_and(|heard| heard.elapsed() < DIGEST_SILENCE)
    }
}

/// A feed and its subscription, which tells following it from following it again later.
type Life = (Feed, u64);

enum Done {
    End(Shard, Vec<Life>, Result<Seq, BusError>),
    CheckFrom(Shard, Result<Seq, BusError>),
    Checked(Shard, Result<Vec<(Feed, Seq)>, BusError>),
    CheckEnd(Shard, Result<Seq, BusError>),
    Read(Reading, Result<Vec<Stored>, BusError>),
    Proof(Shard, Result<Seq, BusError>),
}

/// See the module. Owned by one task, which calls [`Follower::next`] in a loop.
pub struct Follower {
    bus: Bus,
    link: Link,
    connected: bool,
    /// The ping that confirms what was followed when the connection came up.
    up: u64,
    next_id: u64,
    feeds: HashMap<Feed, Followed>,
    watched: HashMap<Feed, u64>,
    shards: HashMap<Shard, ShardView>,
    /// Subscribed, not yet confirmed by a PONG.
    fresh: Vec<Life>,
    confirming: VecDeque<(u64, Vec<Life>)>,
    suspects: VecDeque<(Instant, Feed, Seq)>,
    tasks: JoinSet<Done>,
    ready: VecDeque<FollowEvent>,
    tick: Interval,
}

impl Follower {
    /// Connects in the background, to the same servers as `bus`, which reads what is missing.
    /// Listens to the digests of the first `shards` shards.
    #[must_use]
    pub fn new(config: BusConfig, bus: Bus, shards: Shard) -> Self {
        measures::register_following();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            bus,
            link: Link::open(config),
            connected: false,
            up: 0,
            next_id: 1,
            feeds: HashMap::new(),
            watched: HashMap::new(),
            shards: (0..shards).map(|shard| (shard, ShardView::default())).collect(),
            fresh: Vec::new(),
            confirming: VecDeque::new(),
            suspects: VecDeque::new(),
            tasks: JoinSet::new(),
            ready: VecDeque::new(),
            tick,
        }
    }

    /// Tells how much has come and waits.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        self.link.backlog()
    }

    /// Follows a feed; [`FollowEvent::Following`] tells when it has begun. A chat's signals come
    /// as well. Nothing happens when it is followed already.
    pub fn follow(&mut self, feed: Feed, start: Start) {
        if self.feeds.contains_key(&feed) {
            return;
        }
        let subscription = self.new_id();
        self.subscribe_feed(feed, subscription);
        self.feeds.insert(
            feed,
            Followed { chain: Chain::starting(), subscription, starting: Some(Box::new(start)) },
        );
        // While the connection is away nothing is asked of it; it begins with all of them.
        if self.connected {
            self.fresh.push((feed, subscription));
        }
        self.shards.entry(feed.shard).or_default();
    }

    /// The opposite: nothing more is told of the feed.
    pub fn unfollow(&mut self, feed: Feed) {
        if let Some(followed) = self.feeds.remove(&feed) {
            // What waits would be taken for news by whoever follows it again.
            self.ready.retain(|event| !event.is_of(feed));
            self.link.unsubscribe(followed.subscription);
            if feed.chat_id().is_some() {
                self.link.unsubscribe(followed.subscription + 1);
            }
        }
    }

    /// Listens to a feed's signals only.
    pub fn watch(&mut self, feed: Feed) {
        if !self.watched.contains_key(&feed) {
            let id = self.new_id();
            self.link.subscribe(id, subjects::signal(feed));
            self.watched.insert(feed, id);
        }
    }

    /// The opposite.
    pub fn unwatch(&mut self, feed: Feed) {
        if let Some(id) = self.watched.remove(&feed) {
            self.link.unsubscribe(id);
        }
    }

    /// Whether [`FollowEvent::Following`] was told of the feed.
    #[must_use]
    pub fn following(&self, feed: Feed) -> bool {
        self.feeds.get(&feed).is_some_and(Followed::announced)
    }

    /// Whether the log has nothing on the feed in (`since`, `until`], as far as digests have told;
    /// false when they cannot tell, `None` when the next one may. `known` is the feed's last
    /// entry, and up to where in the log, by another source.
    #[must_use]
    pub fn quiet(
        &self,
        feed: Feed,
        since: Seq,
        until: Seq,
        known: Option<(Seq, Seq)>,
    ) -> Option<bool> {
        let Some(view) = self.shards.get(&feed.shard) else { return Some(false) };
        let mut sources = known.into_iter().chain([(since, since)]);
        let head =
            sources.find_map(|(seq, covered)| view.recents.head(feed.kind, feed.id, seq, covered));
        match head {
            Some(head) if head <= since && view.recents.reaches(until) => Some(true),
            Some(head) if head <= since && view.fresh() => None,
            Some(_) | None => Some(false),
        }
    }

    /// The feed has an entry at `seq`, as an ack told: when it does not arrive, read it.
    pub fn expect(&mut self, feed: Feed, seq: Seq) {
        if self.feeds.get(&feed).is_some_and(|followed| followed.chain.last() < seq) {
            self.suspect(feed, seq, Instant::now() + GRACE);
        }
    }

    fn suspect(&mut self, feed: Feed, seq: Seq, due: Instant) {
        if self.suspects.len() < SUSPECTS_MAX {
            self.suspects.push_back((due, feed, seq));
        } else if let Some(view) = self.shards.get_mut(&feed.shard) {
            view.check.wanted = true;
        }
    }

    /// What comes next. Cancel-safe: nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> FollowEvent {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            self.launch();
            tokio::select! {
                incoming = self.link.next() => self.on_incoming(incoming),
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(done) => self.on_done(done),
                    Err(error) => warn!(%error, "a read of the log ended without an answer"),
                },
                _ = self.tick.tick() => self.on_tick(),
            }
        }
    }

    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        // Two: a chat's entries and its signals.
        self.next_id += 2;
        id
    }

    fn subscribe_feed(&self, feed: Feed, id: u64) {
        self.link.subscribe(id, subjects::live(feed));
        if feed.chat_id().is_some() {
            self.link.subscribe(id + 1, subjects::signal(feed));
        }
    }

    /// Starts what waits: confirmations, repairs.
    fn launch(&mut self) {
        if self.connected && !self.fresh.is_empty() {
            let number = self.new_id();
            self.link.ping(number);
            self.confirming.push_back((number, std::mem::take(&mut self.fresh)));
        }
        self.start_repairs();
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        match incoming {
            Incoming::Up(_) => self.on_up(),
            Incoming::Down => {
                self.connected = false;
                self.confirming.clear();
                self.fresh.clear();
                for view in self.shards.values_mut() {
                    view.dense = false;
                    view.ledger.shut();
                    view.out_of_touch = true;
                }
                self.ready.push_back(FollowEvent::Connected(false));
            }
            Incoming::Pong(number) => {
                while self.confirming.front().is_some_and(|(waiting, _)| *waiting <= number) {
                    if let Some((_, feeds)) = self.confirming.pop_front() {
                        self.on_confirmed(&feeds);
                    }
                }
            }
            Incoming::Batch(messages) => {
                for message in messages {
                    self.on_message(message);
                }
            }
        }
    }

    fn on_up(&mut self) {
        self.connected = true;
        for (shard, view) in &mut self.shards {
            self.link.subscribe(self.next_id, subjects::digest(*shard));
            self.next_id += 2;
            view.dense = false;
            view.ledger.shut();
            view.out_of_touch = true;
            // What was published while the connection was away is missing.
            view.check.wanted = true;
            view.check.stale = true;
        }
        for (feed, followed) in &self.feeds {
            self.subscribe_feed(*feed, followed.subscription);
            if !followed.chain.started() {
                self.fresh.push((*feed, followed.subscription));
            }
        }
        for (feed, id) in &self.watched {
            self.link.subscribe(*id, subjects::signal(*feed));
        }
        let number = self.new_id();
        self.up = number;
        self.link.ping(number);
        self.confirming.push_back((number, std::mem::take(&mut self.fresh)));
        self.ready.push_back(FollowEvent::Connected(true));
    }

    /// Whether it is followed by this subscription still.
    fn lives(&self, (feed, subscription): Life) -> bool {
        self.feeds.get(&feed).is_some_and(|followed| followed.subscription == subscription)
    }

    fn on_confirmed(&mut self, lives: &[Life]) {
        let mut now: HashMap<Shard, Vec<Life>> = HashMap::new();
        for life in lives.iter().copied().filter(|life| self.lives(*life)).collect::<Vec<_>>() {
            let (feed, _) = life;
            match self.feeds.get(&feed).and_then(|followed| followed.starting.as_deref().copied()) {
                Some(Start::After(seq)) => self.start(feed, seq, false),
                Some(Start::Now) => now.entry(feed.shard).or_default().push(life),
                None => {}
            }
        }
        for (shard, feeds) in now {
            self.ask_end(shard, feeds, Duration::ZERO);
        }
    }

    /// Asks where the shard's log ends. What lies beyond is delivered, on all of these feeds: one
    /// question for many, and no read of any feed.
    fn ask_end(&mut self, shard: Shard, feeds: Vec<Life>, wait: Duration) {
        let bus = self.bus.clone();
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            Done::End(shard, feeds, log_of(&bus, shard).await.map(|log| log.last_seq))
        });
    }

    fn start(&mut self, feed: Feed, last: Seq, complete: bool) {
        let Some(followed) = self.feeds.get_mut(&feed) else { return };
        if followed.chain.started() {
            return;
        }
        let mut out = Vec::new();
        let need = followed.chain.start(last, complete, &mut out);
        self.deliver(feed, out, need);
        self.announce(feed);
    }

    /// Tells that the feed is followed, once nothing of its past is missing.
    fn announce(&mut self, feed: Feed) {
        if let Some(followed) = self.feeds.get_mut(&feed)
            && !followed.announced()
            && followed.chain.live()
        {
            followed.starting = None;
            self.ready.push_back(FollowEvent::Following(feed, followed.chain.last()));
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Entry(feed, arrival) => {
                let dense = self.shards.get(&feed.shard).is_some_and(|view| view.dense);
                let Some(followed) = self.feeds.get_mut(&feed) else { return };
                let mut out = Vec::new();
                let need = followed.chain.offer(arrival, dense, &mut out);
                self.deliver(feed, out, need);
            }
            Message::Signal(feed, body) => {
                self.ready.push_back(FollowEvent::Signal(feed, body));
            }
            Message::Digest(shard, body) => match serde_json::from_slice(&body) {
                Ok(digest) => self.on_digest(shard, &digest),
                Err(error) => warn!(%error, shard, "a digest that cannot be read"),
            },
        }
    }

    fn on_digest(&mut self, shard: Shard, digest: &Digest) {
        let due = Instant::now() + GRACE;
        let heads = digest.heads.iter().map(|&(kind, id, seq)| (Feed { shard, kind, id }, seq));
        let behind: Vec<_> =
            heads.filter(|(feed, seq)| !reached(&self.feeds, *feed, *seq)).collect();
        for &(feed, seq) in &behind {
            self.suspect(feed, seq, due);
        }
        let view = self.shards.entry(shard).or_default();
        if *digest == Digest::MIRROR_ANEW {
            view.dense = false;
            view.distrust = Some(Instant::now() + DISTRUST);
            return;
        }
        // After a silence nobody has vouched for what went by, however well the ranges fit.
        let resumed = !view.fresh();
        view.heard = Some(Instant::now());
        if !view.recents.extend(digest) || resumed {
            view.dense = false;
            view.ledger.shut();
            view.check.wanted = true;
            view.check.stale = true;
        }
        if !view.ledger.claim(digest.to, behind) {
            view.check.wanted = true;
            view.check.stale = true;
        }
        self.verify(shard);
    }

    /// Tells when the verified position has moved. What it covers is ready before it.
    fn verify(&mut self, shard: Shard) {
        let Some(view) = self.shards.get_mut(&shard) else { return };
        if let Some(to) = view.ledger.advance(|feed, seq| reached(&self.feeds, feed, seq)) {
            self.ready.push_back(FollowEvent::Verified(shard, to));
        }
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::End(_, feeds, Ok(end)) => {
                for life in feeds {
                    if self.lives(life) {
                        self.start(life.0, end, true);
                    }
                }
            }
            Done::End(shard, mut feeds, Err(error)) => {
                debug!(%error, shard, "where newly followed feeds start");
                feeds.retain(|life| self.lives(*life));
                if !feeds.is_empty() {
                    self.ask_end(shard, feeds, RETRY);
                }
            }
            Done::Read(reading, Ok(entries)) => self.on_read(reading, entries),
            Done::Read(reading, Err(error)) => {
                debug!(%error, "reading a feed's log");
                self.read(reading.life.0, RETRY);
            }
            Done::Proof(shard, first) => self.on_proof(shard, first),
            Done::CheckFrom(shard, from) => self.on_check_from(shard, from),
            Done::Checked(shard, heads) => self.on_checked(shard, heads),
            Done::CheckEnd(shard, first) => self.on_check_end(shard, first),
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        while self.suspects.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, feed, seq)) = self.suspects.pop_front() else { break };
            self.require(feed, seq);
        }
        // The check must not look before all subscriptions of this connection are in force.
        let resubscribing = self.confirming.front().is_some_and(|(number, _)| *number <= self.up);
        if !self.connected || resubscribing {
            return;
        }
        for shard in self.shards.keys().copied().collect::<Vec<_>>() {
            self.verify(shard);
            self.check_step(shard, now);
        }
    }

    /// The feed has reached `seq`, beyond any doubt and delay.
    fn require(&mut self, feed: Feed, seq: Seq) {
        if let Some(followed) = self.feeds.get_mut(&feed) {
            let need = followed.chain.expect(seq);
            self.deliver(feed, Vec::new(), need);
        }
    }
}

async fn log_of(bus: &Bus, shard: Shard) -> Result<LogState, BusError> {
    bus.log_state(shard).await?.ok_or(BusError::NoStream)
}

/// Whether a log that begins with `first` has all that lies beyond `covered`. A log that was made
/// anew begins so far above the end of the one before, up to which all was written: whoever has had
/// that has missed nothing of it.
fn unbroken(covered: Seq, first: Seq) -> bool {
    covered.saturating_add(1) >= first || first > EPOCH_GAP && covered >= first - EPOCH_GAP
}

/// Whether a feed, if it is followed, has come so far.
fn reached(feeds: &HashMap<Feed, Followed>, feed: Feed, seq: Seq) -> bool {
    feeds.get(&feed).is_none_or(|followed| followed.chain.last() >= seq)
}

impl From<Stored> for Arrival {
    fn from(stored: Stored) -> Self {
        Self {
            seq: stored.seq,
            prev: 0,
            at: stored.at,
            body: stored.body,
            traceparent: stored.traceparent.map(Into::into),
        }
    }
}
