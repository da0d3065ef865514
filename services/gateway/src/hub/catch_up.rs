//! Those who join a chat that this node follows already: the chat's chain may be past the entry
//! that made them participants, because the user's feed and the chat's are independent.
//!
//! What they missed is read from the log; what arrives meanwhile is held back for them, and then
//! delivered after it. Others are not delayed.

use std::{collections::HashMap, sync::Arc, time::Duration};

use natter_bus::{Bus, follow::Arrival};
use natter_protocol::{
    feed::Feed,
    ids::{ChatId, Seq, UserId},
};
use tokio::task::JoinSet;

use super::frames::{self, Delivery};

/// Entries read, or held back, for one user in one chat. Beyond it the user's connections are
/// closed with a resumable code.
const ENTRIES_MAX: usize = 2_000;
const READ_BATCH: usize = 256;
const TRIES: u32 = 50;
const RETRY: Duration = Duration::from_millis(100);

enum State {
    /// The chat's chain has not started here.
    Starting,
    /// The log is being read.
    Reading,
    /// The chain has not come to where the user joined.
    Waiting,
}

struct CatchUp {
    user: UserId,
    from: Seq,
    state: State,
    held: Vec<Arc<Delivery>>,
}

/// What a user missed, then what was held back; none when it was too much, or unreadable.
pub struct Found {
    /// Who.
    pub user: UserId,
    /// In which chat.
    pub chat: ChatId,
    /// In order.
    pub deliveries: Option<Vec<Arc<Delivery>>>,
}

type Read = (UserId, ChatId, Seq, Option<Vec<Arc<Delivery>>>);

/// See the module.
pub struct CatchUps {
    bus: Bus,
    chats: HashMap<ChatId, Vec<CatchUp>>,
    reads: JoinSet<Read>,
}

impl CatchUps {
    /// Reads from `bus`.
    pub fn new(bus: Bus) -> Self {
        Self { bus, chats: HashMap::new(), reads: JoinSet::new() }
    }

    /// The user takes part in the chat from its entry `from` on.
    pub fn begin(&mut self, user: UserId, chat: ChatId, from: Seq) {
        let catch_up = CatchUp { user, from, state: State::Starting, held: Vec::new() };
        self.chats.entry(chat).or_default().push(catch_up);
    }

    /// The chat's chain stands at `at`, and continues from there.
    pub fn followed(&mut self, chat: ChatId, feed: Feed, at: Seq) {
        for catch_up in self.chats.get_mut(&chat).into_iter().flatten() {
            if !matches!(catch_up.state, State::Starting) {
                continue;
            }
            if at < catch_up.from {
                catch_up.state = State::Waiting;
                continue;
            }
            catch_up.state = State::Reading;
            let (bus, user, from) = (self.bus.clone(), catch_up.user, catch_up.from);
            self.reads.spawn(async move {
                (user, chat, from, read(&bus, feed, chat, from - 1, at).await)
            });
        }
    }

    /// The chat's next entry. Answers the users who have come to the place where they joined, and
    /// are to be delivered to from this entry on.
    pub fn entry(&mut self, chat: ChatId, seq: Seq, delivery: &Arc<Delivery>) -> Vec<UserId> {
        let Some(catch_ups) = self.chats.get_mut(&chat) else { return Vec::new() };
        let mut arrived = Vec::new();
        catch_ups.retain_mut(|catch_up| match catch_up.state {
            State::Waiting if seq >= catch_up.from => {
                arrived.push(catch_up.user);
                false
            }
            State::Reading => {
                // One more than may be delivered tells that it was too much.
                if catch_up.held.len() <= ENTRIES_MAX {
                    catch_up.held.push(Arc::clone(delivery));
                }
                true
            }
            State::Waiting | State::Starting => true,
        });
        if catch_ups.is_empty() {
            self.chats.remove(&chat);
        }
        arrived
    }

    /// The user takes part no more.
    pub fn leave(&mut self, user: UserId, chat: ChatId) {
        if let Some(catch_ups) = self.chats.get_mut(&chat) {
            catch_ups.retain(|catch_up| catch_up.user != user);
            if catch_ups.is_empty() {
                self.chats.remove(&chat);
            }
        }
    }

    /// The user is not connected here any more.
    pub fn forget(&mut self, user: UserId) {
        self.chats.retain(|_, catch_ups| {
            catch_ups.retain(|catch_up| catch_up.user != user);
            !catch_ups.is_empty()
        });
    }

    /// The next one that has been read. Cancel-safe.
    pub async fn next(&mut self) -> Found {
        loop {
            let Some(Ok((user, chat, from, read))) = self.reads.join_next().await else {
                if self.reads.is_empty() {
                    return std::future::pending().await;
                }
                continue;
            };
            let Some(catch_ups) = self.chats.get_mut(&chat) else { continue };
            // It may be gone, or another one after leaving and joining again.
            let Some(place) = catch_ups.iter().position(|c| c.user == user && c.from == from)
            else {
                continue;
            };
            let held = catch_ups.swap_remove(place).held;
            if catch_ups.is_empty() {
                self.chats.remove(&chat);
            }
            let deliveries = read.filter(|read| read.len() + held.len() <= ENTRIES_MAX);
            let deliveries = deliveries.map(|mut read| {
                read.extend(held);
                read
            });
            return Found { user, chat, deliveries };
        }
    }
}

/// The chat's entries after `after` up to `until`.
async fn read(
    bus: &Bus,
    feed: Feed,
    chat: ChatId,
    mut after: Seq,
    until: Seq,
) -> Option<Vec<Arc<Delivery>>> {
    let mut deliveries = Vec::new();
    let mut tries = TRIES;
    let mut prev = 0;
    while after < until && deliveries.len() <= ENTRIES_MAX {
        let entries = match bus.read(feed, after, READ_BATCH).await {
            // The chain has been there, so a replica that does not show it yet lags.
            Ok(entries) if entries.is_empty() => None,
            Ok(entries) => Some(entries),
            Err(error) => {
                tracing::debug!(%error, "reading what a new participant missed");
                None
            }
        };
        let Some(entries) = entries else {
            tries = tries.checked_sub(1)?;
            tokio::time::sleep(RETRY).await;
            continue;
        };
        for stored in entries {
            after = stored.seq;
            if after > until {
                break;
            }
            let arrival = Arrival { prev, ..Arrival::from(stored) };
            prev = after;
            let entry = frames::parse(&arrival);
            let delivery = entry.and_then(|entry| Delivery::new(chat, &entry, &arrival));
            deliveries.extend(delivery.map(Arc::new));
        }
    }
    Some(deliveries)
}
