//! What the logs are like, looked at once a second: whether there is room left in them, and whether
//! they remember what they have stored.
//!
//! User sends and new chats stop at 90 %, so that changes of membership and revocations can still be
//! published when the worker has been away for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use natter_bus::{Bus, LogState};
use natter_protocol::ids::{EPOCH_GAP, Shard};
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How full a log may get by user sends, of 1.
const FULL: f64 = 0.9;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two looks whether the broker is reached for the first time.
const CONNECTING: Duration = Duration::from_millis(50);
/// A log that replaces another knows none of its message ids. Those that matter are younger than
/// this: older ones are looked up in Postgres in any case.
const FORGETFUL: Duration = Duration::from_mins(5);

/// What the last looks found. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Room(Arc<[Log]>);

#[derive(Debug, Default)]
struct Log {
    full: AtomicBool,
    /// It may be a log without its memory.
    forgetful: AtomicBool,
}

impl Room {
    /// Room in each of so many logs.
    #[must_use]
    pub fn new(shards: Shard) -> Self {
        Self((0..shards).map(|_| Log::default()).collect())
    }

    /// Whether the log takes no more user sends.
    #[must_use]
    pub fn full(&self, shard: Shard) -> bool {
        self.log(shard).is_some_and(|log| log.full.load(Ordering::Relaxed))
    }

    /// Whether the log stores a message id once within its window: not while it cannot be looked
    /// at, nor for a while after it was made anew, since then it may be another one.
    #[must_use]
    pub fn remembers(&self, shard: Shard) -> bool {
        self.log(shard).is_some_and(|log| !log.forgetful.load(Ordering::Relaxed))
    }

    /// Whether any log takes no more: a new chat writes to the feeds of all its participants, which
    /// live anywhere, and far more than a message does.
    #[must_use]
    pub fn any_full(&self) -> bool {
        self.0.iter().any(|log| log.full.load(Ordering::Relaxed))
    }

    /// Looks about once a second, until dropped.
    pub async fn watch(self, bus: Bus) {
        // Before that there is nothing to see.
        while !bus.connected() {
            sleep(CONNECTING).await;
        }
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            for (shard, log) in (0..).zip(self.0.iter()) {
                let state = bus.log_state(shard).await.ok().flatten();
                // A log that cannot be asked takes no sends either, and says so itself.
                if let Some(state) = &state {
                    log.full.store(state.fullness() >= FULL, Ordering::Relaxed);
                }
                let remembers = state.is_some_and(|log| remembers(&log, OffsetDateTime::now_utc()));
                log.forgetful.store(!remembers, Ordering::Relaxed);
            }
        }
    }

    fn log(&self, shard: Shard) -> Option<&Log> {
        self.0.get(usize::from(shard))
    }
}

/// The first log of a shard replaces nothing.
fn remembers(log: &LogState, now: OffsetDateTime) -> bool {
    log.last_seq < EPOCH_GAP || log.made_at + FORGETFUL < now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_replaces_another_remembers_nothing_for_a_while() {
        let now = OffsetDateTime::now_utc();
        let log = |last_seq, age: Duration| LogState {
            first_seq: 1,
            last_seq,
            entries: 0,
            bytes: 0,
            max_bytes: 1,
            made_at: now - age,
            sealed: false,
        };
        assert!(remembers(&log(10, Duration::ZERO), now));
        assert!(!remembers(&log(EPOCH_GAP, Duration::from_secs(299)), now));
        assert!(remembers(&log(2 * EPOCH_GAP + 7, Duration::from_secs(301)), now));
        assert!(Room::new(1).remembers(0) && !Room::new(1).remembers(1));
    }
}
