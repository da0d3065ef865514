//! A lane: one endpoint told of one shard's events, by the worker that owns it.
//!
//! Events are read in the stream's order into a [`Book`], and told with a few at a time. What came of it is
//! written several times a second: the place up to which all is dealt with, the feeds that are behind, the
//! dead letters, in one transaction that fails for an owner who is none any more. Whoever dies leaves what
//! was told since to be told again.

mod attempt;
mod place;

use std::{future::pending, sync::Arc, time::Duration};

use attempt::{Attempted, Tried, attempt, next_try};
use natter_bus::{Bus, BusError, HookReader, Hooked};
use natter_outbound::{Outcome, backoff::pause};
use natter_protocol::ids::Seq;
use natter_runtime::causes;
use natter_store::{LanePlace, NewHookLetter, Store, StoreError};
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    book::{Book, Next},
    config::WebhooksConfig,
    letters,
    measures::{self, LaneMeasures, Lost},
    target::{Target, event_id},
};

/// Events that are read and not told, at most, and about how many bytes of them.
const IN_HAND: usize = 256;
const IN_HAND_BYTES: usize = 1024 * 1024;
/// Events read at once.
const BATCH: usize = 64;
/// Feeds that may be behind: with more, nothing new is read.
const BEHIND: usize = 1_000;
/// How long there is nothing to do but to wait for the next.
const WAIT: Duration = Duration::from_secs(5);
/// Between two saves.
const SAVE: Duration = Duration::from_millis(500);
/// Between two looks at how far the stream goes.
const LOOK: Duration = Duration::from_secs(1);
/// Dead letters that wait to be written: with more, nothing is told.
const LETTERS: usize = 100;
/// Who is to end waits for so long for what is with the endpoint.
const FINISH: Duration = Duration::from_secs(8);
/// After a failure of ours.
const AGAIN: Duration = Duration::from_secs(1);

/// What a lane works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) worker: Arc<str>,
    pub(crate) config: Arc<WebhooksConfig>,
    pub(crate) bus: Bus,
    pub(crate) store: Store,
}

/// How a lane is told what to do.
pub(crate) struct Orders {
    /// The endpoint, whenever it has changed.
    pub(crate) target: watch::Receiver<Arc<Target>>,
    /// There are dead letters to be told of after all.
    pub(crate) letters: Arc<Notify>,
    /// Finish what is with the endpoint, and end.
    pub(crate) finish: CancellationToken,
}

/// Why a lane has ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneError {
    /// It is another's by now, or begins anew elsewhere, or is gone, or Postgres was put back from a backup.
    #[error("the lane is another's")]
    Fenced,
    /// The stream ends before what was read of it.
    #[error("the stream of events has lost its end")]
    Cut,
    #[error("Postgres")]
    Store(#[source] StoreError),
    #[error("the stream of events")]
    Bus(#[from] BusError),
}

impl From<StoreError> for LaneError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Fenced => Self::Fenced,
            other => Self::Store(other),
        }
    }
}

/// A lane that is open.
pub(crate) struct Lane {
    parts: Parts,
    place: LanePlace,
    orders: Orders,
    target: Arc<Target>,
    book: Book,
    reader: HookReader,
    under_way: JoinSet<Attempted>,
    /// A place that was waited for.
    spare: Option<OwnedSemaphorePermit>,
    /// All places are taken by other lanes of the endpoint.
    crowded: bool,
    /// The circuit, or the endpoint itself, wants nothing until then.
    resting: Option<Instant>,
    dead_letters: Vec<NewHookLetter>,
    lost: u64,
    /// The stream's last event, as of the last look.
    last: Seq,
    /// When the first event was stored that is not read, as of the last look.
    unread_at: Option<OffsetDateTime>,
    /// Whether it rested at the last look.
    resting_said: bool,
    looks: u32,
    said: Option<(String, OffsetDateTime)>,
    /// Something was told since the last save, or failed.
    dirty: bool,
    /// The place has moved, or what is shown of it.
    moved: bool,
    saved: Instant,
    replaying: bool,
    tested: Option<Uuid>,
    measures: LaneMeasures,
}

impl Lane {
    /// Opens a lane where its owner before has left it.
    pub(crate) async fn open(
        parts: Parts,
        place: LanePlace,
        mut orders: Orders,
    ) -> Result<Self, LaneError> {
        let shard = place.key.shard;
        let target = orders.target.borrow_and_update().clone();
        let state = parts.bus.hooks_state(shard).await?.ok_or(BusError::NoStream)?;
        let (seq, whole) = match place.seq {
            Some(_) => place::told_up_to(&parts.bus, &place, &state).await?,
            None => (parts.bus.hooked_since(shard, place.from_at).await?.saturating_sub(1), true),
        };
        let mut behind = parts.store.behind(place.key).await?;
        // What the stream has lost stands elsewhere by now, beyond what it has kept.
        for behind in &mut behind {
            behind.seq = behind.seq.min(seq + 1);
        }
        let book = Book::new(seq, place.log_seq, behind, whole);
        let reader = parts.bus.hook_reader(shard, book.read() + 1);
        let measures = LaneMeasures::of(&target.endpoint.name, shard);
        Ok(Self {
            parts,
            place,
            orders,
            target,
            book,
            reader,
            under_way: JoinSet::new(),
            spare: None,
            crowded: false,
            resting: None,
            dead_letters: Vec::new(),
            lost: 0,
            last: state.last,
            unread_at: None,
            resting_said: false,
            looks: 0,
            said: None,
            dirty: false,
            moved: true,
            saved: Instant::now(),
            replaying: false,
            tested: None,
            measures,
        })
    }

    /// Tells the endpoint until it is to finish.
    ///
    /// # Errors
    /// Why it cannot go on. What was told since the last save is told again.
    pub(crate) async fn run(mut self) -> Result<(), LaneError> {
        let ended = self.work().await;
        let finished = match ended {
            Ok(()) => self.finish().await,
            Err(error) => Err(error),
        };
        self.reader.close().await;
        finished
    }

    async fn work(&mut self) -> Result<(), LaneError> {
        let finish = self.orders.finish.clone();
        let mut save = interval(SAVE);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.test();
        loop {
            self.begin();
            let room = self.room();
            let due = self.due();
            let places = self.target.shared.places.clone();
            let letters = self.orders.letters.clone();
            tokio::select! {
                () = finish.cancelled() => return Ok(()),
                Some(ended) = self.under_way.join_next(), if !self.under_way.is_empty() => {
                    // One that panicked has said nothing of its event: another owner tells it.
                    let Ok(attempted) = ended else { return Err(LaneError::Fenced) };
                    self.on_attempted(attempted).await?;
                }
                read = self.reader.next_batch(room.min(BATCH), WAIT), if room > 0 => self.on_read(read).await?,
                place = places.acquire_owned(), if self.crowded => {
                    self.spare = place.ok();
                    self.crowded = false;
                }
                () = due => self.resting = None,
                () = letters.notified(), if !self.replaying => self.replay(),
                _ = save.tick() => self.save().await?,
                _ = look.tick() => self.look().await?,
                changed = self.orders.target.changed() => {
                    changed.map_err(|_| LaneError::Fenced)?;
                    self.target = self.orders.target.borrow_and_update().clone();
                    self.resting = None;
                    self.test();
                }
            }
        }
    }

    /// Waits for what is with the endpoint, and writes what came of it.
    async fn finish(&mut self) -> Result<(), LaneError> {
        let until = Instant::now() + FINISH;
        // What takes longer is told again by whoever owns the lane next.
        while let Ok(Some(ended)) = timeout_at(until, self.under_way.join_next()).await {
            let Ok(attempted) = ended else { break };
            self.on_attempted(attempted).await?;
        }
        self.dirty = true;
        self.save().await
    }

    /// How many more events may be read.
    fn room(&self) -> usize {
        let full = self.book.bytes() >= IN_HAND_BYTES || self.book.behind() >= BEHIND;
        // What is read while nothing may be told would only lie here.
        if full || self.resting.is_some() { 0 } else { IN_HAND.saturating_sub(self.book.open()) }
    }

    /// When something may be begun that may not yet.
    fn due(&self) -> impl Future<Output = ()> + use<> {
        let now = OffsetDateTime::now_utc();
        let rested = self.resting;
        let behind = self
            .book
            .next_due()
            .map(|at| Instant::now() + Duration::try_from(at - now).unwrap_or_default());
        let until = rested.or(behind.filter(|_| !self.crowded && !self.stuffed()));
        async move {
            match until {
                Some(until) => sleep_until(until).await,
                None => pending().await,
            }
        }
    }

    /// Whether as many dead letters wait to be written as may.
    fn stuffed(&self) -> bool {
        self.dead_letters.len() >= LETTERS
    }

    /// Begins to tell whatever may be told.
    fn begin(&mut self) {
        self.begin_all();
        // One that was waited for and is of no use is for other lanes.
        self.spare = None;
    }

    fn begin_all(&mut self) {
        let shared = self.target.shared.clone();
        while self.resting.is_none() && !self.crowded && !self.stuffed() {
            if let Some(hold) = shared.held() {
                self.resting = Some(Instant::now() + hold);
                return;
            }
            let Some(next) = self.book.next(OffsetDateTime::now_utc()) else { return };
            let feed = match &next {
                Next::Tell(event) => event.feed,
                Next::LookUp(behind, _) => behind.feed,
            };
            let place =
                self.spare.take().or_else(|| shared.places.clone().try_acquire_owned().ok());
            let Some(place) = place else {
                self.crowded = true;
                self.book.put_back(feed);
                return;
            };
            match shared.circuit.admit() {
                Ok(pass) => {
                    let (target, bus) = (self.target.clone(), self.parts.bus.clone());
                    self.under_way.spawn(async move {
                        let attempted = attempt(&target, &bus, next).await;
                        match &attempted.result {
                            Tried::Told(_, Outcome::Retry { after, .. }) => {
                                if let Some(after) = after {
                                    target.shared.hold(*after);
                                }
                                pass.failed(*after);
                            }
                            Tried::Told(..) => pass.succeeded(),
                            // Nothing was asked of the endpoint.
                            _ => drop(pass),
                        }
                        drop(place);
                        attempted
                    });
                }
                Err(wait) => {
                    self.book.put_back(feed);
                    self.resting = Some(Instant::now() + wait);
                    return;
                }
            }
        }
    }

    async fn on_read(&mut self, read: Result<Vec<Hooked>, BusError>) -> Result<(), LaneError> {
        match read {
            Ok(batch) => {
                if let Some(first) = batch.first() {
                    self.note_gap(first);
                }
                for event in batch {
                    let wanted =
                        event.at >= self.place.from_at && self.target.wanted(&event).is_some();
                    self.book.take(event, wanted);
                    self.moved = true;
                }
            }
            // It is made by whoever fills it, and may be on its way.
            Err(BusError::NoStream | BusError::Disconnected | BusError::Timeout) => {
                sleep(AGAIN).await;
            }
            Err(error) => {
                measures::failures().increment(1);
                tracing::warn!(endpoint = %self.target.endpoint.name, error = %causes(&error), "events cannot be read");
                sleep(AGAIN).await;
            }
        }
        Ok(())
    }

    /// The stream has dropped events while they were waited with.
    fn note_gap(&mut self, first: &Hooked) {
        let gap = first.seq.saturating_sub(self.book.read() + 1);
        if gap == 0 || gap >= natter_protocol::ids::EPOCH_GAP / 2 {
            return;
        }
        tracing::error!(endpoint = %self.target.endpoint.name, events = gap, "events were dropped before an endpoint was told of them");
        measures::lost(Lost::Stream).increment(gap);
        self.lost += gap;
    }

    async fn on_attempted(&mut self, attempted: Attempted) -> Result<(), LaneError> {
        self.dirty = true;
        let now = OffsetDateTime::now_utc();
        if attempted.lost {
            self.lose_one();
        }
        match attempted.result {
            Tried::Told(event, outcome) => {
                self.said = Some((outcome.answer().as_str().to_owned(), now));
                self.on_told(&event, outcome, attempted.before, now).await?;
            }
            Tried::Unwanted(event) => self.book.done(&event, now),
            // More of it may have been read, and passed over, since it was looked up.
            Tried::Nothing(behind, upto) if self.book.passed_since(behind.feed, upto) => {
                self.book.again_at(behind.feed, now);
            }
            // It was there, and will be again.
            Tried::Nothing(behind, _) if !self.book.whole() => {
                self.book.again_at(behind.feed, now + AGAIN);
            }
            Tried::Nothing(behind, _) => {
                if behind.attempts > 0 {
                    self.lose_one();
                }
                self.book.caught_up(behind.feed);
            }
            Tried::Unknown(behind) => self.book.again_at(behind.feed, now + AGAIN),
            Tried::Letters => self.replaying = false,
            Tried::Test(test, outcome) => {
                let answer = outcome.answer().as_str();
                self.parts.store.answer_test(self.place.key.endpoint, test, answer).await?;
            }
        }
        Ok(())
    }

    /// The event that was to be tried again is not there any more.
    fn lose_one(&mut self) {
        measures::lost(Lost::Stream).increment(1);
        self.lost += 1;
    }

    async fn on_told(
        &mut self,
        event: &Hooked,
        outcome: Outcome,
        (attempts, failing_since): (u16, Option<OffsetDateTime>),
        now: OffsetDateTime,
    ) -> Result<(), LaneError> {
        let failing_since = failing_since.unwrap_or(now);
        match outcome {
            Outcome::Accepted { .. } => {
                self.measures.accepted.increment(1);
                let took = Duration::try_from(now - event.at).unwrap_or_default();
                measures::latency_seconds().record(took);
                self.book.done(event, now);
                Ok(())
            }
            Outcome::Gone { answer } => {
                self.measures.gone.increment(1);
                let name = &self.target.endpoint.name;
                tracing::warn!(endpoint = %name, %answer, "an endpoint wants to be told nothing more");
                // Should it be enabled again, it goes on with this.
                self.book.failed(event, attempts, failing_since, now);
                self.save().await?;
                let reason = format!("it answered {answer}");
                self.parts.store.disable_endpoint(self.place.key.endpoint, &reason).await?;
                Err(LaneError::Fenced)
            }
            Outcome::Retry { answer, after, .. } => {
                self.on_failed(event, attempts + 1, failing_since, now, after, answer.as_str());
                Ok(())
            }
            Outcome::Refused { answer } => {
                self.on_failed(event, attempts + 1, failing_since, now, None, answer.as_str());
                Ok(())
            }
        }
    }

    /// It is tried again, or given up.
    fn on_failed(
        &mut self,
        event: &Hooked,
        attempts: u16,
        failing_since: OffsetDateTime,
        now: OffsetDateTime,
        after: Option<Duration>,
        answer: &str,
    ) {
        self.measures.retry.increment(1);
        let config = &self.parts.config;
        let wait = pause(config.retry, attempts, rand::random_range(0.0..1.0));
        let wait = wait.max(after.unwrap_or_default());
        if attempts < config.attempts
            && let Some(due_at) = next_try(failing_since, now, wait, config.give_up)
        {
            self.book.failed(event, attempts, failing_since, due_at);
            return;
        }
        let name = &self.target.endpoint.name;
        let seq = event.seq;
        tracing::warn!(endpoint = %name, shard = event.feed.shard, seq, attempts, %answer, "an event is given up");
        self.measures.letters.increment(1);
        self.dead_letters.push(NewHookLetter {
            seq,
            feed: event.feed,
            event_id: event_id(event.feed, &event.name),
            r#type: self.target.kind_of(event),
            at: event.at,
            attempts,
            answer: answer.to_owned(),
        });
        self.book.done(event, now);
    }

    /// Tells of dead letters after all, a few at a time.
    fn replay(&mut self) {
        self.replaying = true;
        let (target, parts, key) = (self.target.clone(), self.parts.clone(), self.place.key);
        self.under_way.spawn(async move {
            letters::replay(&target, &parts, key).await;
            Attempted::of(Tried::Letters)
        });
    }

    /// Sends the test that is asked for, once, by the lane of the first shard.
    fn test(&mut self) {
        let asked = self.target.endpoint.test.filter(|_| self.place.key.shard == 0);
        let Some(test) = asked.filter(|_| asked != self.tested) else { return };
        self.tested = asked;
        let target = self.target.clone();
        self.under_way
            .spawn(async move { Attempted::of(Tried::Test(test, target.test(test).await)) });
    }
}
