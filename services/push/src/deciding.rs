//! A shard's messages, held until they are due, then decided about: [`round`](crate::round).
//!
//! All workers take from one consumer of the log, each message is one worker's. Several chats are decided
//! about at the same time; of one chat all messages that are due, so that one of them is notified of.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use natter_bus::{BusError, Handed, Intake, intake::Token, push};
use natter_protocol::{
    feed::{Entry, Event},
    ids::{ChatId, MessageId, Seq, Shard, UserId},
};
use natter_runtime::causes;
use time::OffsetDateTime;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::PushConfig,
    judging::Said,
    measures,
    round::{Due, Round},
    worker::Parts,
};

/// Who does not say within this time that a message is still in hand has lost it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is said.
const STILL_HELD: Duration = Duration::from_secs(10);
/// Messages in hand of one worker, of one shard. Each is a few hundred bytes.
const IN_HAND: usize = 10_000;
/// Messages taken at once.
const BATCH: usize = 1_000;
/// Rounds at the same time.
const ROUNDS: usize = 8;
/// Messages that are decided about together, and as many again of the last chat of them: most chats have few
/// participants and one message that is due, and alone it would cost as many calls of Postgres.
const TOGETHER: usize = 64;
/// How long there is nothing to do but to wait for the next message, at least and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// Between two looks whether what is due is written, and until then what is due comes together.
const LOOK: Duration = Duration::from_millis(100);
/// A deployment that begins to notify begins with what was said this long ago.
const NEW: Duration = Duration::from_mins(1);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);

/// A message in hand.
pub(crate) struct Held {
    pub(crate) chat: ChatId,
    pub(crate) id: MessageId,
    pub(crate) seq: Seq,
    pub(crate) at: OffsetDateTime,
    sender: UserId,
    mentions: Vec<UserId>,
    /// The trace that it belongs to, when that is sampled.
    pub(crate) traceparent: Option<String>,
    token: Token,
}

impl Held {
    /// The message of an entry that was handed out; none for any other entry.
    fn of(handed: &Handed) -> Option<Self> {
        let chat = handed.raw.feed?.chat_id()?;
        // Most entries of a busy log are messages, so looking first would be no cheaper.
        let entry: Entry = serde_json::from_slice(&handed.raw.body).ok()?;
        let Event::Message(message) = entry.event else { return None };
        Some(Self {
            chat,
            id: message.id,
            seq: handed.raw.seq,
            at: handed.raw.at,
            sender: message.sender.id,
            mentions: message.mentions,
            traceparent: handed.raw.traceparent.clone(),
            token: handed.token(),
        })
    }

    pub(crate) fn said(&self) -> Said<'_> {
        Said { seq: self.seq, sender: self.sender, mentions: &self.mentions }
    }

    pub(crate) fn sender(&self) -> UserId {
        self.sender
    }

    /// It is decided.
    pub(crate) fn done(&self) {
        self.token.done();
    }

    /// It takes its time.
    pub(crate) fn still_held(&self) {
        self.token.held();
    }

    /// Somebody is to decide about it, after this time.
    pub(crate) fn hand_back(&self, after: Duration) {
        self.token.again(after);
    }
}

/// What a round has come to.
struct Ended {
    /// Of which it was.
    chats: Vec<ChatId>,
    /// Those that are to have one of their own.
    large: Vec<Due>,
}

/// Decides about a shard's messages.
pub struct Decider {
    shard: Shard,
    config: Arc<PushConfig>,
    parts: Parts,
    intake: Option<Intake>,
    held: Vec<Held>,
    /// Up to here the log is in Postgres, as of the last look.
    persisted: Seq,
    /// Chats that are being decided about.
    under_way: HashSet<ChatId>,
    rounds: JoinSet<Ended>,
    /// Chats that are to have a round of their own; they are under way.
    large: VecDeque<Due>,
    said_held: Instant,
    looked: Instant,
    /// More was due then than there was room for.
    more: bool,
}

impl Decider {
    /// For a shard.
    #[must_use]
    pub fn new(shard: Shard, config: Arc<PushConfig>, parts: Parts) -> Self {
        Self {
            shard,
            config,
            parts,
            intake: None,
            held: Vec::new(),
            persisted: 0,
            under_way: HashSet::new(),
            rounds: JoinSet::new(),
            large: VecDeque::new(),
            said_held: Instant::now(),
            looked: Instant::now(),
            more: false,
        }
    }

    /// Decides until `stop`: then finishes the chats in hand, and hands back what is held.
    pub async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let stepped = tokio::select! {
                stepped = self.step() => stepped,
                () = stop.cancelled() => break,
            };
            if let Err(error) = stepped {
                self.intake = None;
                if !matches!(error, BusError::NoStream | BusError::Disconnected) {
                    tracing::warn!(shard = self.shard, error = %causes(&error), "the log cannot be followed");
                    measures::failures().increment(1);
                }
                tokio::select! {
                    () = sleep(AGAIN) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
        // What the server would still send to it goes to others.
        self.intake = None;
        if let Some(intake) = self.intake.take() {
            intake.end();
        }
        for held in self.held.drain(..) {
            held.hand_back(Duration::ZERO);
        }
        while let Some(ended) = self.rounds.join_next().await {
            self.ended(ended.ok());
        }
        for due in self.large.drain(..) {
            due.hand_back(Duration::ZERO);
        }
    }

    /// Takes what is there, and begins to decide about what is due. May be dropped.
    async fn step(&mut self) -> Result<(), BusError> {
        while let Some(ended) = self.rounds.try_join_next() {
            self.ended(ended.ok());
        }
        let wait = self.begin_rounds().await;
        self.say_held();
        measures::held(self.shard).set(self.held.len() as f64);
        let room = IN_HAND.saturating_sub(self.held.len()).min(BATCH);
        if room == 0 || self.parts.providers.configured().is_empty() {
            sleep(wait).await;
            return Ok(());
        }
        let intake = match &mut self.intake {
            Some(intake) => intake,
            empty => {
                // Of what was said before anybody was notified nobody wants to hear now.
                let began = self.parts.store.push_began().await.unwrap_or(true);
                let back = if began { self.config.max_age } else { self.config.wait + NEW };
                let from = OffsetDateTime::now_utc() - back;
                let config = push::deciding(self.shard, from, PATIENCE);
                empty.insert(self.parts.bus.intake(&config).await?)
            }
        };
        let taken = tokio::select! {
            taken = intake.take(room, wait) => taken?,
            // A chat is done: its next messages may be due.
            Some(ended) = self.rounds.join_next(), if !self.rounds.is_empty() => {
                self.ended(ended.ok());
                return Ok(());
            }
        };
        for handed in taken {
            match Held::of(&handed) {
                Some(held) => self.held.push(held),
                None => handed.token().done(),
            }
        }
        Ok(())
    }

    /// A round that panicked has not said which chats it was of: all may begin again, and what it had in
    /// hand is handed out again.
    fn ended(&mut self, ended: Option<Ended>) {
        let Some(Ended { chats, large }) = ended else {
            self.under_way.clear();
            self.under_way.extend(self.large.iter().map(|due| due.chat));
            return;
        };
        for chat in chats {
            if large.iter().all(|due| due.chat != chat) {
                self.under_way.remove(&chat);
            }
        }
        self.large.extend(large);
    }

    /// Begins to decide about chats with messages that are due; for how long there is nothing to begin.
    async fn begin_rounds(&mut self) -> Duration {
        // While more is due than there is room for it comes together anyway.
        if !self.more
            && let Some(early) = LOOK.checked_sub(self.looked.elapsed())
        {
            return early;
        }
        self.looked = Instant::now();
        self.more = false;
        let now = OffsetDateTime::now_utc();
        let due = now - self.config.wait;
        let newest_due = self.held.iter().filter(|held| held.at <= due).map(|held| held.seq).max();
        let Some(newest_due) = newest_due else {
            let next = self.held.iter().map(|held| held.at).min();
            let wait = next.map_or(WAIT.1, |at| Duration::try_from(at - due).unwrap_or_default());
            return wait.clamp(WAIT.0, WAIT.1);
        };
        if newest_due > self.persisted {
            match self.parts.store.persisted_until(self.shard).await {
                Ok((persisted, _)) => self.persisted = persisted,
                Err(error) => {
                    tracing::warn!(shard = self.shard, error = %causes(&error), "Postgres cannot be asked");
                    return AGAIN;
                }
            }
        }
        while self.rounds.len() < ROUNDS
            && let Some(large) = self.large.pop_front()
        {
            self.begin_round(vec![large]);
        }
        for round in self.rounds_of(due) {
            self.begin_round(round);
        }
        LOOK
    }

    /// Takes what is due by now and written of those held, for as many rounds as have room.
    fn rounds_of(&mut self, due: OffsetDateTime) -> Vec<Vec<Due>> {
        let room = ROUNDS.saturating_sub(self.rounds.len());
        let mut places: HashMap<ChatId, usize> = HashMap::new();
        let mut chats: Vec<(ChatId, Vec<Held>)> = Vec::new();
        let mut left = Vec::with_capacity(self.held.len());
        for held in self.held.drain(..) {
            let ready = held.at <= due && held.seq <= self.persisted;
            let takes = ready && !self.under_way.contains(&held.chat);
            match places.get(&held.chat) {
                Some(place) if takes && chats[*place].1.len() < TOGETHER => {
                    chats[*place].1.push(held);
                }
                None if takes && chats.len() < room * TOGETHER => {
                    places.insert(held.chat, chats.len());
                    chats.push((held.chat, vec![held]));
                }
                _ => {
                    self.more |= takes;
                    left.push(held);
                }
            }
        }
        let (mut rounds, mut round, mut messages) = (Vec::new(), Vec::new(), 0);
        // Those for which there is no room come first the next time, before what is newer of their chats.
        self.held.clear();
        for (chat, due) in chats {
            if rounds.len() >= room {
                self.more = true;
                self.held.extend(due);
                continue;
            }
            messages += due.len();
            round.push(Due::new(chat, due));
            if messages >= TOGETHER {
                rounds.push(std::mem::take(&mut round));
                messages = 0;
            }
        }
        if !round.is_empty() {
            rounds.push(round);
        }
        self.held.extend(left);
        rounds
    }

    fn begin_round(&mut self, due: Vec<Due>) {
        let chats: Vec<ChatId> = due.iter().map(|due| due.chat).collect();
        self.under_way.extend(&chats);
        let (config, parts) = (self.config.clone(), self.parts.clone());
        let round = Round::new(self.shard, due, config, parts);
        self.rounds.spawn(async move { Ended { chats, large: round.run().await } });
    }

    fn say_held(&mut self) {
        if self.said_held.elapsed() < STILL_HELD {
            return;
        }
        self.said_held = Instant::now();
        self.held.iter().for_each(Held::still_held);
        self.large.iter().for_each(Due::still_held);
    }
}
