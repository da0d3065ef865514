//! Relays what handlers committed and did not get to relay themselves.

use std::time::Duration;

use futures::{StreamExt, stream};
use natter_bus::{Bus, PublishError};
use natter_protocol::{
    feed::{Entry, Feed},
    ids::Seq,
};
use natter_runtime::causes;
use natter_store::{RelayError, Store};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::measures;

/// How often the outbox is looked at, and how long the handler that filled a lane is left to
/// relay it itself.
const SWEEP: Duration = Duration::from_secs(1);
/// Lanes taken in one sweep.
const LANES: u32 = 256;
/// Lanes relayed at once: each holds a connection to Postgres while it waits for the log.
const AT_ONCE: usize = 4;

/// How often it is measured, and how many changes are counted at most.
const MEASURE: Duration = Duration::from_secs(5);
const COUNTED: u32 = 10_000;

/// Sweeps the outbox until `stop`. Every worker does: a lane is relayed by one at a time.
pub async fn sweep_until(store: Store, bus: Bus, stop: CancellationToken) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeper = Sweeper::default();
    let mut measured = None::<Instant>;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        if measured.is_none_or(|last| last.elapsed() >= MEASURE) {
            measured = Some(Instant::now());
            measure(&store).await;
        }
        if bus.connected() {
            sweeper.sweep(&store, &bus, SWEEP, LANES, &stop).await;
        }
    }
}

/// Also while the broker is away: that is when it grows. Every worker shows the same.
async fn measure(store: &Store) {
    match store.outbox_backlog(COUNTED).await {
        Ok(waits) => {
            measures::outbox_changes().set(waits.changes as f64);
            measures::outbox_age_seconds().set(waits.age.as_secs_f64());
        }
        Err(error) => tracing::debug!(error = %causes(&error), "the outbox cannot be measured"),
    }
}

/// Goes through the outbox, some lanes at a time. It passes on from lanes that fail, and comes
/// back to them after all others: else as many as one sweep takes, whose shard has no room or no
/// leader, would keep every other lane waiting.
#[derive(Debug, Default)]
pub struct Sweeper {
    /// The first change of the last lane that was looked at; 0 to begin again.
    after: i64,
}

impl Sweeper {
    /// Relays the next lanes, at most `lanes`, that have waited for longer than `older_than`.
    /// Returns how many changes were relayed.
    pub async fn sweep(
        &mut self,
        store: &Store,
        bus: &Bus,
        older_than: Duration,
        lanes: u32,
        stop: &CancellationToken,
    ) -> usize {
        let waiting = match store.lanes_waiting(older_than, self.after, lanes).await {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::warn!(error = %causes(&error), "the outbox cannot be read");
                return 0;
            }
        };
        // A page that is not full was the last.
        let full = waiting.len() >= lanes as usize;
        self.after = waiting.last().filter(|_| full).map_or(0, |last| last.first);
        stream::iter(waiting)
            .take_while(|_| std::future::ready(!stop.is_cancelled()))
            .map(|waiting| relay(store, bus, waiting.lane))
            .buffer_unordered(AT_ONCE)
            .fold(0, async |sum, relayed| sum + relayed)
            .await
    }
}

/// Relays a lane; what cannot be relayed now is left to the sweep. Returns how many changes were.
pub(crate) async fn relay(store: &Store, bus: &Bus, lane: Uuid) -> usize {
    let publish = async |feed: Feed, msg_id: String, entry: Entry| -> Result<Seq, PublishError> {
        Ok(bus.publish(feed, &msg_id, &entry)?.await?.seq)
    };
    match store.relay(lane, publish).await {
        Ok(relayed) => {
            measures::outbox_relayed().increment(relayed.items as u64);
            relayed.items
        }
        Err(error) => {
            let cause = match &error {
                RelayError::Store(cause) => cause.to_string(),
                RelayError::Publish(cause) => cause.to_string(),
            };
            tracing::warn!(%lane, cause, "a lane of the outbox cannot be relayed now");
            0
        }
    }
}
