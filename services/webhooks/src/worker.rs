//! The worker: takes its share of endpoints and shards, and fills the streams that nobody else fills.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use natter_bus::{Bus, BusError};
use natter_outbound::{breaker::Circuits, exchange};
use natter_protocol::ids::EndpointId;
use natter_runtime::{causes, shutdown};
use natter_store::{LaneKey, LanePlace, Store, StoreError, WebhookEndpoint, WebhookShare};
use reqwest::Client;
use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::WebhooksConfig,
    filling::Filler,
    lane::{Lane, LaneError, Orders, Parts},
    measures,
    target::{Shared, Target},
};

/// What a worker does not renew for so long is another's.
pub(crate) const LEASE: Duration = Duration::from_secs(10);
/// Between two looks at what there is to do: so long a change of an endpoint takes at most.
const LOOK: Duration = Duration::from_secs(1);
/// How long lanes, and then those who fill streams, may take once the worker is told to stop.
const DRAIN: Duration = Duration::from_secs(12);

/// Tells endpoints until `stop`: then finishes what is with them, and gives back what it owns.
///
/// # Errors
/// When no HTTP client can be made.
pub async fn run(
    config: WebhooksConfig,
    bus: Bus,
    store: Store,
    node: &str,
    stop: CancellationToken,
) -> Result<(), reqwest::Error> {
    measures::register(config.shards);
    let client = exchange::client(&config.bounds).build()?;
    let incarnation = Uuid::new_v4().simple().to_string();
    // A process that was killed and started again is another worker.
    let worker: Arc<str> = format!("{node}.{}", &incarnation[..8]).into();
    let config = Arc::new(config);
    let mut fillers = JoinSet::new();
    for shard in 0..config.shards {
        let (worker, bus, store) = (worker.clone(), bus.clone(), store.clone());
        let filler = Filler::new(shard, worker, config.clone(), bus, store);
        fillers.spawn(filler.run(stop.clone()));
    }
    let bounds = &config.bounds;
    let circuits = Circuits::new(bounds.failures, bounds.pause, measures::circuits_open());
    let parts = Parts { worker, config: config.clone(), bus, store };
    let mut roster =
        Roster { parts, client, circuits, targets: HashMap::new(), lanes: HashMap::new() };
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = tick.tick() => roster.look().await,
        }
    }
    roster.end().await;
    shutdown::join_within(&mut fillers, DRAIN).await;
    Ok(())
}

/// What a worker owns.
struct Roster {
    parts: Parts,
    client: Client,
    circuits: Circuits,
    targets: HashMap<EndpointId, watch::Sender<Arc<Target>>>,
    lanes: HashMap<LaneKey, Running>,
}

struct Running {
    generation: i64,
    letters: Arc<Notify>,
    finish: CancellationToken,
    task: JoinHandle<()>,
}

impl Roster {
    async fn look(&mut self) {
        let (worker, shards) = (&self.parts.worker, self.parts.config.shards);
        match self.parts.store.share_webhooks(worker, shards, LEASE).await {
            Ok(share) => self.take(share),
            // What it owns goes on: whoever has it by then, nothing is written by two.
            Err(error) => {
                measures::failures().increment(1);
                tracing::warn!(error = %causes(&error), "it cannot be asked what webhooks there are");
            }
        }
        measures::lanes().set(self.lanes.len() as f64);
    }

    fn take(&mut self, share: WebhookShare) {
        let WebhookShare { endpoints, lanes, share } = share;
        let there: HashSet<EndpointId> = endpoints.iter().map(|one| one.id).collect();
        let off: HashSet<EndpointId> =
            endpoints.iter().filter(|one| !one.enabled).map(|one| one.id).collect();
        self.targets.retain(|id, _| there.contains(id));
        let circuits: HashSet<String> =
            endpoints.iter().filter(|one| one.enabled).map(circuit_of).collect();
        self.circuits.retain(|circuit| circuits.contains(circuit));
        for endpoint in endpoints {
            self.know(endpoint);
        }
        let wanted: HashMap<LaneKey, LanePlace> =
            lanes.into_iter().map(|lane| (lane.key, lane)).collect();
        self.lanes.retain(|key, running| {
            let same = wanted.get(key).is_some_and(|lane| lane.generation == running.generation);
            let off = off.contains(&key.endpoint);
            if off {
                // So that it is known to the event what it was told.
                running.finish.cancel();
            } else if !same {
                // Removed, another's, or to begin anew elsewhere: all at once.
                running.task.abort();
            }
            (same || off) && !running.task.is_finished()
        });
        // What is beyond its share is for others, once it is finished.
        let beyond = self.lanes.len().saturating_sub(share);
        for running in self.lanes.values().take(beyond) {
            running.finish.cancel();
        }
        for place in wanted.into_values() {
            match self.lanes.get(&place.key) {
                Some(running) if place.replay => running.letters.notify_one(),
                Some(_) => {}
                None if self.lanes.len() < share => self.begin(place),
                None => self.release(place.key),
            }
        }
    }

    /// Tells the lanes of an endpoint how it is now.
    fn know(&mut self, endpoint: WebhookEndpoint) {
        let known = self.targets.get(&endpoint.id);
        if known.is_some_and(|target| target.borrow().endpoint == endpoint) {
            return;
        }
        // Where it has moved nobody has failed yet, and one that is told nothing does not fail.
        let same = known.map(|target| target.borrow().clone());
        let same = same.filter(|target| {
            target.endpoint.url == endpoint.url && (endpoint.enabled || !target.endpoint.enabled)
        });
        let shared = same.map_or_else(
            || {
                let circuit = self.circuits.of(&circuit_of(&endpoint));
                Arc::new(Shared::new(self.parts.config.bounds.concurrency, circuit))
            },
            |target| target.shared.clone(),
        );
        let (id, name) = (endpoint.id, endpoint.name.clone());
        match Target::new(endpoint, shared, self.client.clone()) {
            Ok(target) => {
                let target = Arc::new(target);
                match self.targets.get(&id) {
                    Some(sender) => drop(sender.send_replace(target)),
                    None => drop(self.targets.insert(id, watch::channel(target).0)),
                }
            }
            Err(error) => tracing::error!(endpoint = %name, %error, "an endpoint's secret"),
        }
    }

    fn begin(&mut self, place: LanePlace) {
        let Some(target) = self.targets.get(&place.key.endpoint) else { return };
        let (letters, finish) = (Arc::new(Notify::new()), CancellationToken::new());
        if place.replay {
            letters.notify_one();
        }
        let orders =
            Orders { target: target.subscribe(), letters: letters.clone(), finish: finish.clone() };
        let (key, generation) = (place.key, place.generation);
        let task = tokio::spawn(tell(self.parts.clone(), place, orders));
        self.lanes.insert(key, Running { generation, letters, finish, task });
    }

    fn release(&self, lane: LaneKey) {
        let parts = self.parts.clone();
        tokio::spawn(async move { release(&parts, lane).await });
    }

    /// Finishes all lanes, and is no worker any more.
    async fn end(self) {
        let mut tasks = JoinSet::new();
        for running in self.lanes.into_values() {
            running.finish.cancel();
            tasks.spawn(running.task);
        }
        shutdown::join_within(&mut tasks, DRAIN).await;
        let Parts { store, worker, .. } = &self.parts;
        if let Err(error) = store.forget_webhook_worker(worker).await {
            tracing::debug!(error = %causes(&error), "others take over when the lease has run out");
        }
    }
}

/// What an endpoint's circuit is called: it is another where the endpoint moves.
fn circuit_of(endpoint: &WebhookEndpoint) -> String {
    format!("{} {}", endpoint.id, endpoint.url)
}

/// A lane's life.
async fn tell(parts: Parts, place: LanePlace, orders: Orders) {
    let key = place.key;
    let ended = match Lane::open(parts.clone(), place, orders).await {
        Ok(lane) => lane.run().await,
        Err(error) => Err(error),
    };
    match ended {
        Ok(()) => release(&parts, key).await,
        Err(
            LaneError::Fenced
            | LaneError::Cut
            | LaneError::Bus(BusError::NoStream | BusError::Disconnected),
        ) => {}
        Err(error) => {
            measures::failures().increment(1);
            tracing::warn!(endpoint = %key.endpoint, shard = key.shard, error = %causes(&error), "an endpoint cannot be told");
        }
    }
}

async fn release(parts: &Parts, lane: LaneKey) {
    let released: Result<(), StoreError> = parts.store.release_lane(&parts.worker, lane).await;
    if let Err(error) = released {
        tracing::debug!(error = %causes(&error), "a lane is free when its lease has run out");
    }
}
