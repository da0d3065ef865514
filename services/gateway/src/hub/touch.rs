//! Whether this node hears of everything.

use std::sync::{
    PoisonError, RwLock,
    atomic::{AtomicBool, Ordering},
};
use std::time::Duration;

use natter_protocol::ids::Shard;
use tokio::time::Instant;

/// How long a shard's feeds may be out of touch before it counts.
const TOUCH: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug)]
pub struct Touch {
    /// The receiving connection is up.
    up: AtomicBool,
    /// Since when a shard's feeds are out of touch, for those that are.
    lost: RwLock<Box<[Option<Instant>]>>,
}

impl Touch {
    /// Nothing has been heard of yet.
    pub fn new(shards: Shard) -> Self {
        let lost = vec![Some(Instant::now()); usize::from(shards)];
        Self { up: AtomicBool::new(false), lost: RwLock::new(lost.into()) }
    }

    /// The receiving connection came, or went.
    pub fn connected(&self, up: bool) {
        self.up.store(up, Ordering::Release);
        if !up {
            let mut lost = self.lost.write().unwrap_or_else(PoisonError::into_inner);
            for since in lost.iter_mut() {
                since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// All that the shard's feeds told meanwhile has been asked for.
    pub fn back(&self, shard: Shard) {
        let mut lost = self.lost.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = lost.get_mut(usize::from(shard)) {
            *since = None;
        }
    }

    /// Whether the receiving connection is up.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Acquire)
    }

    /// Whether the shard's feeds have been out of touch for more than 2 s.
    pub fn lost(&self, shard: Shard) -> bool {
        let lost = self.lost.read().unwrap_or_else(PoisonError::into_inner);
        let since = lost.get(usize::from(shard)).copied().flatten();
        since.is_some_and(|since| since.elapsed() > TOUCH)
    }
}
