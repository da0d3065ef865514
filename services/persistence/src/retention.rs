//! Messages that are older than their chat keeps them, and groups that were deleted.
//!
//! Postgres says which chats have such messages, so that any worker can look. What has expired is told
//! by an entry of the chat's feed, which has its place in the log like everything else; once the shard's
//! owner has written that, nothing up to there is shown any more, and the rows are removed, some at a
//! time. A worker that dies leaves all of it to another.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use natter_bus::{Bus, BusError, PublishError};
use natter_protocol::{
    feed::{Entry, Event, Expired, Feed},
    ids::{ChatId, Seq},
};
use natter_runtime::causes;
use natter_store::{Aging, Purged, Store, StoreError};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::measures;

/// Chats looked at in one go, and at once.
const CHATS: u32 = 200;
const AT_ONCE: usize = 4;
/// How often it is looked for rows that are to be removed.
const LOOK: Duration = Duration::from_secs(1);
/// Rows removed in one transaction, and of one chat before the next has its turn.
const ROWS: u32 = 1_000;
const TURN: usize = 20;

/// How messages and groups are kept.
#[derive(Clone, Copy, Debug)]
pub struct RetentionConfig {
    /// For how long chats keep messages that say nothing themselves; for ever without it.
    pub default: Option<Duration>,
    /// How often it is looked what has expired. A chat is told at most so often.
    pub sweep: Duration,
    /// For how long a group that was deleted is kept.
    pub deleted: Duration,
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the log")]
    Log(#[from] BusError),
    #[error("an entry was not published")]
    Publish(#[from] PublishError),
}

/// Does all of it until `stop`.
pub async fn look_after(store: Store, bus: Bus, config: RetentionConfig, stop: CancellationToken) {
    let expiring = expire_until(store.clone(), bus, config, stop.clone());
    tokio::join!(expiring, purge_until(store, config, stop));
}

/// Tells feeds what has expired, until `stop`.
async fn expire_until(store: Store, bus: Bus, config: RetentionConfig, stop: CancellationToken) {
    let mut tick = interval(config.sweep);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // Without the log nothing can be told, and the chats would count as looked at.
        while bus.connected() && !stop.is_cancelled() {
            match expire_some(&store, &bus, config).await {
                Ok(looked_at) if looked_at >= CHATS as usize => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "it is not looked what has expired");
                    break;
                }
            }
        }
    }
}

/// Looks at some chats; answers at how many.
async fn expire_some(
    store: &Store,
    bus: &Bus,
    config: RetentionConfig,
) -> Result<usize, RoundError> {
    // A little less than the time to the next round, which would miss it otherwise.
    let again = config.sweep.mul_f64(0.9);
    let aging = store.take_aging(config.default, again, CHATS).await?;
    let looked_at = aging.len();
    let mut told = stream::iter(aging)
        .map(async |aging| (aging, expire(store, bus, &aging).await))
        .buffer_unordered(AT_ONCE);
    while let Some((aging, told)) = told.next().await {
        if let Err(error) = told {
            let error = causes(&error);
            tracing::warn!(chat = %aging.chat, %error, "messages that have expired are still shown");
        }
    }
    Ok(looked_at)
}

/// Tells a chat's feed what has expired, if anything has.
async fn expire(store: &Store, bus: &Bus, aging: &Aging) -> Result<(), RoundError> {
    let Some(up_to) = store.find_cut(aging, OffsetDateTime::now_utc()).await? else {
        return Ok(());
    };
    let entry = Entry { origin: None, event: Event::Expired(Expired { up_to }) };
    let feed = Feed::chat(aging.shard, aging.chat);
    bus.publish(feed, &msg_id(aging.chat, up_to), &entry)?.await?;
    measures::expired().increment(1);
    Ok(())
}

/// The same for all who find the same: until the worker has written it, it is found again.
fn msg_id(chat: ChatId, up_to: Seq) -> String {
    format!("{chat}.expired.{up_to}")
}

/// Removes the rows of what has expired, until `stop`.
async fn purge_until(store: Store, config: RetentionConfig, stop: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if let Err(error) = purge_round(&store, config, &stop).await {
            tracing::warn!(error = %causes(&error), "what has expired is not removed");
        }
    }
}

/// Goes through all chats with something to remove, once.
async fn purge_round(
    store: &Store,
    config: RetentionConfig,
    stop: &CancellationToken,
) -> Result<(), RoundError> {
    let emptied = store.empty_deleted(config.deleted, CHATS).await?;
    if emptied > 0 {
        tracing::info!(groups = emptied, "groups that were deleted are removed");
    }
    let mut after = None;
    loop {
        let chats = store.chats_to_purge(after, CHATS).await?;
        let Some(last) = chats.last() else { return Ok(()) };
        after = Some(*last);
        for chat in chats {
            purge(store, chat, stop).await?;
            if stop.is_cancelled() {
                return Ok(());
            }
        }
    }
}

/// Removes rows of a chat, until there are none or it is another's turn. As long as it takes to remove
/// some, nothing is done: others want Postgres too.
async fn purge(store: &Store, chat: ChatId, stop: &CancellationToken) -> Result<(), RoundError> {
    for _ in 0..TURN {
        let began = Instant::now();
        match store.purge(chat, ROWS).await? {
            Purged::Some(rows) => measures::purged_rows().increment(rows),
            Purged::All | Purged::Busy => return Ok(()),
        }
        tokio::select! {
            () = sleep(began.elapsed()) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}
