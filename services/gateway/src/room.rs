//! Whether there is room left in the logs: user sends stop at 90 %, so that membership changes and
//! revocations can still be published when the worker has been away for long.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use natter_bus::Bus;
use natter_protocol::ids::Shard;
use tokio::time::{MissedTickBehavior, interval};

/// How full a log may get by user sends, of 1.
const FULL: f64 = 0.9;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the last look found. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Room(Arc<[AtomicBool]>);

impl Room {
    /// Room in each of so many logs.
    #[must_use]
    pub fn new(shards: Shard) -> Self {
        Self((0..shards).map(|_| AtomicBool::new(false)).collect())
    }

    /// Whether the log takes no more user sends.
    #[must_use]
    pub fn full(&self, shard: Shard) -> bool {
        self.0.get(usize::from(shard)).is_some_and(|full| full.load(Ordering::Relaxed))
    }

    /// Looks about once a second, until dropped.
    pub async fn watch(self, bus: Bus) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            for (shard, full) in (0..).zip(self.0.iter()) {
                // A log that cannot be asked takes no sends either, and says so itself.
                if let Ok(Some(log)) = bus.log_state(shard).await {
                    full.store(log.fullness() >= FULL, Ordering::Relaxed);
                }
            }
        }
    }
}
