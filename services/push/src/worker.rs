//! The worker: for every shard a task that decides, and one for each push service that sends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use natter_bus::Bus;
use natter_presence::PresenceClient;
use natter_protocol::notify::PushKey;
use natter_runtime::{Health, causes, shutdown};
use natter_store::Store;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::PushConfig, deciding::Decider, keeping, measures, providers::Providers,
    sending::Sender, upkeep,
};

/// How often the servers' health is looked at.
const HEALTH: Duration = Duration::from_secs(1);
/// Beyond the time that a push service may take: how long what is in hand may take once the worker is
/// told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Outcomes that wait to be written.
const OUTCOMES: usize = 1024;
/// Between two tries to say what is set up.
const AGAIN: Duration = Duration::from_secs(1);

/// What a worker works with.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Postgres.
    pub store: Store,
    /// NATS.
    pub bus: Bus,
    /// Redis.
    pub presence: PresenceClient,
    /// The push services.
    pub providers: Arc<Providers>,
}

/// Works until `stop`: then finishes what is with push services, and hands back all else. `told` is what
/// gateways tell devices of.
pub async fn run(
    config: PushConfig,
    parts: Parts,
    told: PushKey,
    health: Health,
    stop: CancellationToken,
) {
    let configured = parts.providers.configured().to_vec();
    measures::register(config.shards, &configured);
    let config = Arc::new(config);
    let (outcomes, kept) = mpsc::channel(OUTCOMES);
    let mut tasks = JoinSet::new();
    // Ends when all who send have.
    tasks.spawn(keeping::keep(parts.store.clone(), config.clone(), kept));
    let places: HashMap<_, _> = configured
        .iter()
        .map(|provider| {
            (*provider, Arc::new(Semaphore::new(parts.providers.concurrency(*provider))))
        })
        .collect();
    for shard in 0..config.shards {
        let decider = Decider::new(shard, config.clone(), parts.clone());
        tasks.spawn(decider.run(stop.clone()));
        for (provider, places) in &places {
            let sender = Sender::new(
                shard,
                *provider,
                config.clone(),
                parts.clone(),
                places.clone(),
                outcomes.clone(),
            );
            tasks.spawn(sender.run(stop.clone()));
        }
    }
    drop(outcomes);
    tasks.spawn(tell(parts.store.clone(), told, stop.clone()));
    tasks.spawn(upkeep::keep_up(config.clone(), parts.clone(), stop.clone()));
    tasks.spawn(watch_health(parts, health.clone(), stop.clone()));
    stop.cancelled().await;
    health.draining();
    shutdown::join_within(&mut tasks, config.lease + DRAIN).await;
}

/// Says which push services are set up, once Postgres is there to hear it.
async fn tell(store: Store, told: PushKey, stop: CancellationToken) {
    while let Err(error) = store.set_push_providers(&told).await {
        tracing::warn!(error = %causes(&error), "cannot say which push services are set up");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(AGAIN) => {}
        }
    }
}

async fn watch_health(parts: Parts, health: Health, stop: CancellationToken) {
    let Parts { store, bus, presence, .. } = parts;
    let mut tick = interval(HEALTH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        health.set("nats", bus.connected());
        health.set("postgres", store.ping().await.is_ok());
        health.set("redis", presence.ping().await.is_ok());
        let (open, idle) = store.connections();
        metrics::gauge!("natter_database_connections", "state" => "open").set(f64::from(open));
        metrics::gauge!("natter_database_connections", "state" => "idle").set(f64::from(idle));
        health.started();
    }
}
