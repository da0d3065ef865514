//! Changes that Postgres has committed, put on their feeds at once.

use std::time::Duration;

use natter_bus::{Bus, PublishError};
use natter_protocol::{
    feed::{Entry, Feed},
    ids::Seq,
};
use natter_runtime::causes;
use natter_store::Store;
use tokio::time::timeout;
use uuid::Uuid;

/// How long a request waits for its change to be on the feeds. The worker sweeps what is left.
const LIMIT: Duration = Duration::from_secs(2);

/// Relays lanes of the outbox to the bus. Cloning shares both.
#[derive(Clone)]
pub struct Relay {
    store: Store,
    bus: Bus,
}

impl Relay {
    /// From this store to this bus.
    pub fn new(store: Store, bus: Bus) -> Self {
        Self { store, bus }
    }

    /// Relays what waits on a lane, so that it takes effect on live connections before the
    /// request that caused it is answered. Failing is no error of that request: the change is
    /// committed, and the worker relays it within seconds.
    pub async fn lane(&self, lane: Uuid) {
        let publish = async |feed: Feed, id: String, entry: Entry| -> Result<Seq, PublishError> {
            Ok(self.bus.publish(feed, &id, &entry)?.await?.seq)
        };
        match timeout(LIMIT, self.store.relay(lane, publish)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = %causes(&error), %lane, "not relayed, left to the worker");
            }
            Err(_) => tracing::warn!(%lane, "not relayed in time, left to the worker"),
        }
    }

    /// The same for a change that may have left nothing to relay.
    pub async fn lane_if_any(&self, lane: Option<Uuid>) {
        if let Some(lane) = lane {
            self.lane(lane).await;
        }
    }
}
