//! What is left to do for accounts that were deleted: their part in each chat ends, and where it is
//! asked for, their messages and reactions are taken back, by entries of the chats' feeds like anybody
//! else's. So devices, searches and files follow, and nothing else has to know.
//!
//! Postgres says what there is to do and how far it is; one worker has it in hand at a time. One that
//! dies leaves it to another, which may publish a few entries again: they change nothing.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use natter_bus::{Bus, BusError, PublishError};
use natter_protocol::{
    feed::{Deleted, Entry, Event, Feed, Reacted, Target},
    ids::{Seq, Shard},
};
use natter_runtime::causes;
use natter_store::{Erasure, OwnMessage, OwnReaction, Step, Store, StoreError};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{measures, outbox};

/// How often it is looked for something to do.
const LOOK: Duration = Duration::from_secs(1);
/// For so long nobody else goes on with what one has in hand.
const LEASE: Duration = Duration::from_secs(30);
/// How long it is worked on before another has its turn.
const TURN: Duration = Duration::from_secs(10);
/// Entries published in one go, and on their way at once.
const BATCH: u32 = 100;
const AT_ONCE: usize = 32;
/// A batch takes so long at least: 500 entries a second, of the thousands that a log takes.
const PACE: Duration = Duration::from_millis(200);
/// With so much of a log unwritten, or so much of its room taken, others come first. More than what comes
/// between two batches of a worker that keeps up.
const UNWRITTEN: u64 = 10_000;
const FULL: f64 = 0.75;
/// How long to wait then, or after a failure.
const PAUSE: Duration = Duration::from_secs(2);
/// How often it is looked whether what was sent before is written.
const WRITTEN: Duration = Duration::from_millis(100);

/// Why a turn was not finished.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the log")]
    Bus(#[from] BusError),
    #[error("the log takes nothing")]
    Publish(#[from] PublishError),
}

/// Goes on with erasures until `stop`.
pub async fn go_on_until(store: Store, bus: Bus, shards: Shard, stop: CancellationToken) {
    let worker = Worker { store, bus, shards };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        worker.measure().await;
        while !stop.is_cancelled() && worker.bus.connected() {
            match worker.turn(&stop).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "an account is not erased now");
                    break;
                }
            }
        }
    }
}

struct Worker {
    store: Store,
    bus: Bus,
    shards: Shard,
}

impl Worker {
    async fn measure(&self) {
        match self.store.erasures_waiting().await {
            Ok((count, age)) => {
                measures::erasures().set(count as f64);
                measures::erasures_age_seconds().set(age.as_secs_f64());
            }
            Err(error) => {
                tracing::debug!(error = %causes(&error), "erasures cannot be counted");
            }
        }
    }

    /// Works on one that is due, for a while. False when there is none.
    async fn turn(&self, stop: &CancellationToken) -> Result<bool, TurnError> {
        let Some(erasure) = self.store.take_erasure(LEASE).await? else { return Ok(false) };
        let pause = match self.work(&erasure, stop).await {
            Ok(pause) => pause,
            Err(error) => {
                self.store.put_off(&erasure, PAUSE).await?;
                return Err(error);
            }
        };
        if let Some(pause) = pause {
            self.store.put_off(&erasure, pause).await?;
        }
        Ok(true)
    }

    /// Gives when to go on; none when the row says so itself.
    async fn work(
        &self,
        erasure: &Erasure,
        stop: &CancellationToken,
    ) -> Result<Option<Duration>, TurnError> {
        let until = Instant::now() + TURN;
        match erasure.step {
            Step::Devices | Step::Chats => {
                while Instant::now() < until && !stop.is_cancelled() {
                    let lanes = self.store.part(erasure.user, erasure.round).await?;
                    let Some(lanes) = lanes else { return Ok(None) };
                    for lane in lanes {
                        outbox::relay(&self.store, &self.bus, lane).await;
                    }
                }
                Ok(Some(Duration::ZERO))
            }
            Step::Messages | Step::Reactions => self.take_back(erasure, until, stop).await,
            Step::Done => Ok(None),
        }
    }

    async fn take_back(
        &self,
        erasure: &Erasure,
        until: Instant,
        stop: &CancellationToken,
    ) -> Result<Option<Duration>, TurnError> {
        // Only what is written is found.
        if erasure.begins() && !self.written(until, stop).await? {
            return Ok(Some(PAUSE));
        }
        let mut erasure = erasure.clone();
        while Instant::now() < until && !stop.is_cancelled() {
            let began = Instant::now();
            let (entries, after) = if erasure.step == Step::Messages {
                let bit = self.store.messages_to_erase(&erasure, BATCH).await?;
                let entry = |message: &OwnMessage| deletion(&erasure, message);
                (bit.entries.iter().map(entry).collect::<Vec<_>>(), bit.after)
            } else {
                let bit = self.store.reactions_to_erase(&erasure, BATCH).await?;
                let entry = |reaction: &OwnReaction| withdrawal(&erasure, reaction);
                (bit.entries.iter().map(entry).collect(), bit.after)
            };
            for shard in shards(&entries) {
                if !self.has_room(shard).await? {
                    return Ok(Some(PAUSE));
                }
            }
            let count = entries.len() as u64;
            self.publish(entries).await?;
            self.store.erased(&after, LEASE).await?;
            measures::erased().increment(count);
            if after.step == Step::Done {
                return Ok(None);
            }
            if count > 0 {
                sleep(PACE.saturating_sub(began.elapsed())).await;
            }
            erasure = after;
        }
        Ok(Some(Duration::ZERO))
    }

    /// Whether all that the logs hold at this moment has come to be written.
    async fn written(&self, until: Instant, stop: &CancellationToken) -> Result<bool, TurnError> {
        let mut ends: Vec<(Shard, Seq)> = Vec::new();
        for shard in 0..self.shards {
            if let Some(log) = self.bus.log_state(shard).await? {
                ends.push((shard, log.last_seq));
            }
        }
        for (shard, end) in ends {
            while self.store.persisted_until(shard).await?.0 < end {
                if Instant::now() > until || stop.is_cancelled() {
                    return Ok(false);
                }
                sleep(WRITTEN).await;
            }
        }
        Ok(true)
    }

    /// Whether a log takes more than what people say.
    async fn has_room(&self, shard: Shard) -> Result<bool, TurnError> {
        let Some(log) = self.bus.log_state(shard).await? else { return Ok(false) };
        let (persisted, _) = self.store.persisted_until(shard).await?;
        Ok(log.fullness() < FULL && log.last_seq.saturating_sub(persisted) < UNWRITTEN)
    }

    async fn publish(&self, entries: Vec<(Feed, String, Entry)>) -> Result<(), TurnError> {
        stream::iter(entries)
            .map(async |(feed, id, entry)| self.bus.publish(feed, &id, &entry)?.await.map(drop))
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        Ok(())
    }
}

fn shards(entries: &[(Feed, String, Entry)]) -> Vec<Shard> {
    let mut shards: Vec<Shard> = entries.iter().map(|(feed, ..)| feed.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    shards
}

/// By the id that gateways give a deletion: of two at once there is one.
fn deletion(erasure: &Erasure, message: &OwnMessage) -> (Feed, String, Entry) {
    let target = Target { message_id: message.id, message_seq: message.seq };
    let event = Event::Deleted(Deleted { target, actor_id: erasure.user });
    let feed = Feed::chat(message.shard, message.chat);
    (feed, format!("{}.deleted", message.id), Entry { origin: None, event })
}

fn withdrawal(erasure: &Erasure, reaction: &OwnReaction) -> (Feed, String, Entry) {
    let OwnMessage { chat, shard, id, seq } = reaction.message;
    let event = Event::Reacted(Reacted {
        target: Target { message_id: id, message_seq: seq },
        user_id: erasure.user,
        emoji: reaction.emoji.clone(),
        on: false,
    });
    // The entry that set it tells it apart from all others.
    let id = format!("{id}.{}.withdrawn", reaction.seq);
    (Feed::chat(shard, chat), id, Entry { origin: None, event })
}
