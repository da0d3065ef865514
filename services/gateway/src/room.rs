//! What the logs are like, looked at once a second: whether there is room left in them, and whether
//! they remember what they have stored.
//!
//! User sends stop at 90 %, so that membership changes and revocations can still be published when
//! the worker has been away for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use natter_bus::{Bus, LogState};
use natter_protocol::ids::{EPOCH_GAP, Shard};
use time::OffsetDateTime;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How full a log may get by user sends, of 1.
const FULL: f64 = 0.9;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What was seen longer ago than this says nothing any more.
const SEEN: Duration = Duration::from_secs(3);
/// A log that replaces another knows none of its message ids. Those that matter are younger than
/// this: older ones are looked up in Postgres in any case.
const FORGETFUL: Duration = Duration::from_mins(5);

/// What the last looks found. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Room {
    since: Instant,
    logs: Arc<[Log]>,
}

#[derive(Debug, Default)]
struct Log {
    full: AtomicBool,
    /// Milliseconds from the start to the last look that found a log with its memory; 0 for never.
    sound: AtomicU64,
}

impl Room {
    /// Room in each of so many logs.
    #[must_use]
    pub fn new(shards: Shard) -> Self {
        Self { since: Instant::now(), logs: (0..shards).map(|_| Log::default()).collect() }
    }

    /// Whether the log takes no more user sends.
    #[must_use]
    pub fn full(&self, shard: Shard) -> bool {
        self.log(shard).is_some_and(|log| log.full.load(Ordering::Relaxed))
    }

    /// Whether the log surely stores a message id once within its window: not while it cannot be
    /// looked at, nor for a while after it was made anew, since then it may be another one.
    #[must_use]
    pub fn remembers(&self, shard: Shard) -> bool {
        let seen = self.log(shard).map_or(0, |log| log.sound.load(Ordering::Relaxed));
        seen > 0 && self.now() < seen + SEEN.as_millis() as u64
    }

    /// Looks about once a second, until dropped.
    pub async fn watch(self, bus: Bus) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            for (shard, log) in (0..).zip(self.logs.iter()) {
                // A log that cannot be asked takes no sends either, and says so itself.
                let asked = self.now();
                let Ok(Some(state)) = bus.log_state(shard).await else {
                    log.sound.store(0, Ordering::Relaxed);
                    continue;
                };
                log.full.store(state.fullness() >= FULL, Ordering::Relaxed);
                let sound = remembers(&state, OffsetDateTime::now_utc());
                log.sound.store(if sound { asked.max(1) } else { 0 }, Ordering::Relaxed);
            }
        }
    }

    fn log(&self, shard: Shard) -> Option<&Log> {
        self.logs.get(usize::from(shard))
    }

    fn now(&self) -> u64 {
        self.since.elapsed().as_millis() as u64
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
            last_at: None,
            entries: 0,
            bytes: 0,
            max_bytes: 1,
            made_at: now - age,
            created: false,
        };
        assert!(remembers(&log(10, Duration::ZERO), now));
        assert!(!remembers(&log(EPOCH_GAP, Duration::from_secs(299)), now));
        assert!(remembers(&log(2 * EPOCH_GAP + 7, Duration::from_secs(301)), now));
        assert!(!Room::new(1).remembers(0), "not looked at yet");
    }
}
