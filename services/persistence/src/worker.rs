//! The worker: a task for every shard that owns it or stands by for it.

use std::time::{Duration, Instant};

use natter_bus::Bus;
use natter_protocol::ids::Shard;
use natter_runtime::causes;
use natter_runtime::{Health, shutdown};
use natter_store::Store;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, interval_at, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ahead::Horizon,
    config::WorkerConfig,
    measures::{self, ShardGauges},
    outbox,
    owner::{Owner, StepError},
    search, upkeep,
};

/// How often one that stands by tries to take the shard.
const STAND_BY: Duration = Duration::from_secs(1);
/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How often the servers' health is looked at.
const HEALTH: Duration = Duration::from_secs(1);
/// How long a batch in hand may take once the worker is told to stop.
const DRAIN: Duration = Duration::from_secs(15);
/// How long giving a shard back may take; its lease runs out otherwise.
const RELEASE: Duration = Duration::from_secs(2);

/// Works until `stop`: then finishes the batches in hand and gives the shards back.
pub async fn run(
    config: WorkerConfig,
    store: Store,
    bus: Bus,
    health: Health,
    stop: CancellationToken,
) {
    measures::register(config.shards);
    let mut tasks = JoinSet::new();
    for shard in 0..config.shards {
        let post = Post {
            shard,
            config: config.clone(),
            store: store.clone(),
            bus: bus.clone(),
            horizon: Horizon::default(),
        };
        tasks.spawn(post.serve(stop.clone()));
    }
    tasks.spawn(outbox::sweep_until(store.clone(), bus.clone(), stop.clone()));
    tasks.spawn(watch_health(store, bus, health.clone(), stop.clone()));
    stop.cancelled().await;
    health.draining();
    shutdown::join_within(&mut tasks, DRAIN).await;
}

async fn watch_health(store: Store, bus: Bus, health: Health, stop: CancellationToken) {
    let mut tick = interval(HEALTH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        health.set("nats", bus.connected());
        health.set("postgres", store.ping().await.is_ok());
        let (open, idle) = store.connections();
        metrics::gauge!("natter_database_connections", "state" => "open").set(f64::from(open));
        metrics::gauge!("natter_database_connections", "state" => "idle").set(f64::from(idle));
        health.started();
    }
}

/// One shard, owned or waited for.
struct Post {
    shard: Shard,
    config: WorkerConfig,
    store: Store,
    bus: Bus,
    /// Outlives each owner: it tells the next one where the log must at least end.
    horizon: Horizon,
}

/// Why an owner's time ended.
enum Ended {
    /// The worker stops.
    Stopped,
    /// The shard is another's, or may be.
    Lost,
    /// The log could not be read.
    LogTrouble,
}

impl Post {
    async fn serve(self, stop: CancellationToken) {
        let mut pause = PAUSE.0;
        while !stop.is_cancelled() {
            // Whoever cannot reach the log must not keep the shard from one that can.
            let (started, connected) = (Instant::now(), self.bus.connected());
            let held = if connected { self.hold(&stop).await } else { None };
            let wait = match held {
                Some(Ended::Stopped) => break,
                Some(Ended::LogTrouble) => {
                    // What went well for a while has failed for another reason than the last.
                    pause = if started.elapsed() > STAND_BY { PAUSE.0 } else { pause * 2 };
                    pause.min(PAUSE.1)
                }
                None if connected => STAND_BY,
                // At once: when the log comes back its live mirror may be gone, and nobody hears
                // anything until its owner has made another.
                Some(Ended::Lost) | None => PAUSE.0,
            };
            pause = pause.min(PAUSE.1);
            tokio::select! {
                () = sleep(wait) => {}
                () = stop.cancelled() => {}
            }
        }
        self.release().await;
    }

    /// Takes the shard, if it is free, and works for as long as it is ours.
    async fn hold(&self, stop: &CancellationToken) -> Option<Ended> {
        // Opening a log that has lost its end takes its time, and the lease has to outlast it.
        let taken = tokio::select! {
            taken = Owner::take(&self.store, &self.bus, &self.config, self.shard, &self.horizon) => taken,
            () = self.until_lease_is_lost() => return None,
        };
        let mut owner = match taken {
            Ok(owner) => owner?,
            Err(error) => {
                warn(self.shard, &error, "the shard cannot be taken");
                self.release().await;
                return Some(Ended::LogTrouble);
            }
        };
        tracing::info!(shard = self.shard, "took the shard");
        let owned = ShardGauges::of(self.shard).own();
        let persisted = owner.position();
        // On its own, since writing must not wait for it; it ends with the owner.
        let mut beside = JoinSet::new();
        beside.spawn(search::follow(self.store.clone(), self.shard, owner.hand_over()));
        let ended = tokio::select! {
            ended = self.work(owner, stop) => ended,
            () = self.until_lease_is_lost() => Ended::Lost,
            () = upkeep::keep_up(&self.bus, self.shard, &persisted, self.config.retain_bytes) => Ended::Lost,
        };
        beside.shutdown().await;
        drop(owned);
        match ended {
            Ended::Stopped => {}
            Ended::Lost => tracing::warn!(shard = self.shard, "lost the shard"),
            Ended::LogTrouble => self.release().await,
        }
        Some(ended)
    }

    async fn work(&self, mut owner: Owner, stop: &CancellationToken) -> Ended {
        let mut pause = PAUSE.0;
        while !stop.is_cancelled() {
            let error = match owner.step().await {
                Ok(_) => {
                    pause = PAUSE.0;
                    continue;
                }
                Err(StepError::Fenced) => return Ended::Lost,
                Err(error) => error,
            };
            warn(self.shard, &error, "a step failed");
            measures::failures().increment(1);
            // Taking the shard anew also makes sure of the dead letters' stream.
            if matches!(error, StepError::Log(_) | StepError::DeadLetter(_)) {
                return Ended::LogTrouble;
            }
            // The batch is kept. What comes after it is read and told for as long as there is room.
            let told = tokio::select! {
                told = owner.tell_for(pause) => told,
                () = stop.cancelled() => Ok(()),
            };
            if let Err(error) = told {
                warn(self.shard, &error, "the log is in trouble");
                return Ended::LogTrouble;
            }
            pause = (pause * 2).min(PAUSE.1);
        }
        Ended::Stopped
    }

    /// Renews the claim in time for two renewals to fail; returns when another has the shard.
    ///
    /// A claim that cannot be renewed is not given up. Nearly always Postgres is away for everybody,
    /// and the log needs somebody who looks after its mirror and tells what it touched. When only
    /// this worker cannot reach it, another takes the shard after the lease, and until this one
    /// hears of it two do the same: a digest is true whoever sends it, a mirror is made anew once
    /// more, and nothing is cut that is not written. Only writing must not be done twice: a write
    /// names the owner and the position, and fails.
    async fn until_lease_is_lost(&self) {
        let period = self.config.lease.mul_f64(0.3);
        let mut tick = interval_at((Instant::now() + period).into(), period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let renewal = self.store.claim_shard(self.shard, &self.config.owner, self.config.lease);
            // One connection that does not answer must not stop those over another.
            match timeout(self.config.lease.mul_f64(0.5), renewal).await {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return,
                Ok(Err(error)) => warn(self.shard, &error, "the lease cannot be renewed"),
                Err(_) => tracing::warn!(shard = self.shard, "no answer to the lease's renewal"),
            }
        }
    }

    /// Gives the shard back, so that another need not wait for the lease to run out.
    async fn release(&self) {
        let started = Instant::now();
        let release = self.store.release_shard(self.shard, &self.config.owner);
        match timeout(RELEASE, release).await {
            Ok(Ok(())) => tracing::info!(shard = self.shard, "gave the shard back"),
            Ok(Err(error)) => warn(self.shard, &error, "the shard cannot be given back"),
            Err(_) => tracing::warn!(
                shard = self.shard,
                elapsed = ?started.elapsed(),
                "giving the shard back takes too long"
            ),
        }
    }
}

fn warn(shard: Shard, error: &(dyn std::error::Error + 'static), what: &str) {
    tracing::warn!(shard, error = %causes(error), "{what}");
}
