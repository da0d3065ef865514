//! A gateway's life: connect, serve, drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use natter_bus::{Bus, BusError, follow::Follower};
use natter_media::{Files, FilesError};
use natter_presence::{PresenceClient, PresenceError};
use natter_runtime::{Health, causes};
use natter_store::{Store, StoreConfig, StoreError};
use secrecy::ExposeSecret;
use tokio::{
    net::TcpListener,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    admission::{self, Keeping},
    app::{App, SettingsError},
    config::{Config, MessageArgs},
    hub::{Command, Hub, HubSettings},
    media::{Library, Records, write_all},
    online::{self, Online},
    operator, page, queues, rest,
    serve::{Limits, serve},
    socket, socketio,
};

/// How often to look whether something has come about that nobody tells.
const LOOK: Duration = Duration::from_millis(50);

/// How often it is looked at what the node rests on.
const WATCH: Duration = Duration::from_secs(1);

/// How often it is looked how much waits, as a multiple of that.
const QUEUES: u32 = 5;

/// Why a gateway could not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Postgres' settings.
    #[error("NATTER_DATABASE_URL (--database-url): {0}")]
    Store(StoreError),
    /// NATS' settings.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Redis' settings.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// The settings of the store of files.
    #[error("NATTER_MEDIA_STORE (--media-store): {}", causes(.0))]
    Files(FilesError),
    /// No retention lies between the two.
    #[error(
        "NATTER_RETENTION_LEAST_SECONDS (--retention-least-seconds): {least} is more than \
         NATTER_RETENTION_MOST_SECONDS, {most}"
    )]
    Retention {
        /// What it must at least be, …
        least: u32,
        /// … and may be at most.
        most: u32,
    },
    /// Secrets, keys, and the check of messages.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The public port.
    #[error("the public port")]
    Listener(#[from] std::io::Error),
}

/// Runs a gateway on `listener` until `stop`, then drains it. Servers that are away at the start
/// are waited for: the gateway is ready once it has reached the broker.
///
/// # Errors
/// See [`RunError`]: settings that cannot work, or a listener that fails.
pub async fn run(
    config: Config,
    node: &str,
    listener: TcpListener,
    health: Health,
    stop: CancellationToken,
) -> Result<(), RunError> {
    let MessageArgs { retention_least_seconds: least, retention_most_seconds: most, .. } =
        config.messages;
    if least > most {
        return Err(RunError::Retention { least, most });
    }
    let (records, noted) = Records::new();
    let (app, keeping, changes) = connect(config, node, records).await?;
    let recorded = CancellationToken::new();
    let recording = tokio::spawn(write_all(app.store.clone(), noted, recorded.clone()));
    let keeping = tokio::spawn(admission::keep_all(app.clone(), keeping));
    let online = tokio::spawn(online::run(app.clone(), changes));
    let room = tokio::spawn(app.room.clone().watch(app.bus.clone()));
    let gathering = tokio::spawn(app.reads.clone().gather());
    let asked = tokio::spawn(app.sessions.clone().answer_all());
    let operator =
        tokio::spawn(operator::answer_all(app.bus.clone(), app.hub.clone(), node.to_owned()));
    let watching = tokio::spawn(watch(app.clone(), health.clone()));
    let address = listener.local_addr()?;
    let closing = stop.child_token();
    let limits = Limits {
        connections: app.config.socket.connections_max as usize,
        head: app.config.socket.handshake(),
        drain: app.config.drain(),
    };
    let served = serve(listener, router(app.clone()), limits, closing);
    let life = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = ready(&app, &health, address) => stop.cancelled().await,
        }
        health.draining();
        drain(&app).await;
    };
    // `serve` ends by itself: it bounds the calls that are in flight when the port closes.
    tokio::join!(served, life);
    online.abort();
    keeping.abort();
    room.abort();
    gathering.abort();
    asked.abort();
    operator.abort();
    watching.abort();
    app.reads.publish_gathered().await;
    online::leave(&app).await;
    // Nobody fetches anything any more: what is noted is written.
    recorded.cancel();
    let _ = recording.await;
    tracing::info!("drained");
    Ok(())
}

async fn connect(
    config: Config,
    node: &str,
    records: Records,
) -> Result<(App, Keeping, online::Changes), RunError> {
    let backends = &config.backends;
    let store = Store::connect(&StoreConfig {
        max_connections: backends.database_connections,
        ..StoreConfig::new(backends.database_url.expose_secret())
    })
    .map_err(RunError::Store)?;
    let bus_config = backends.nats.config(node);
    let bus = Bus::connect(&bus_config).await?;
    let presence = PresenceClient::new(backends.redis.config(node))?;
    let settings = HubSettings {
        own_devices_get_messages: config.socket.own_devices_get_messages,
        own_devices_see_typing: config.socket.own_devices_see_typing,
        connections_per_device: config.socket.connections_per_device as usize,
    };
    let follower = Follower::new(bus_config, bus.clone(), config.shards);
    let (online, changes) = Online::new();
    let hub = Hub::start(follower, config.shards, online, store.clone(), settings);
    let files = Files::open(&config.media.media_store, environment()).map_err(RunError::Files)?;
    let library = Library::new(files, store.clone(), records, config.media.clone());
    let (app, keeping) = App::new(Arc::new(config), store, bus, presence, hub, library)?;
    Ok((app, keeping, changes))
}

/// What the environment says in Unicode: nothing else is about a store of files.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

fn router(app: App) -> Router {
    rest::router(app.clone())
        .merge(socket::router::<App>().with_state(app.clone()))
        .merge(socketio::router(app))
        .merge(page::router())
}

/// Ready means that a message can get through; Postgres and Redis come and go without that.
async fn ready(app: &App, health: &Health, address: SocketAddr) {
    while !app.bus.connected() || !app.hub.connected() {
        sleep(LOOK).await;
    }
    health.started();
    tracing::info!(%address, "ready");
}

/// Looks at what the node rests on, for whoever operates it: see [`Health`].
async fn watch(app: App, health: Health) {
    let mut tick = interval(WATCH);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    for look in (0..QUEUES).cycle() {
        tick.tick().await;
        let (postgres, redis) = tokio::join!(app.store.ping(), app.presence.ping());
        // Told once: what needs it fails each in its own way.
        match &postgres {
            Err(error) if !away => {
                tracing::warn!(error = %causes(error), "Postgres cannot be reached");
            }
            Ok(()) if away => tracing::info!("Postgres is back"),
            _ => {}
        }
        away = postgres.is_err();
        health.set("nats", app.bus.connected() && app.hub.connected());
        health.set("postgres", postgres.is_ok());
        health.set("redis", redis.is_ok());
        let (open, idle) = app.store.connections();
        metrics::gauge!("natter_database_connections", "state" => "open").set(f64::from(open));
        metrics::gauge!("natter_database_connections", "state" => "idle").set(f64::from(idle));
        if look == 0 {
            queues::measure(&app).await;
        }
    }
}

/// Sends connections elsewhere and waits for what is in flight, as long as the settings allow.
async fn drain(app: &App) {
    let limit = app.config.drain();
    let until = Instant::now() + limit;
    tracing::info!(connections = app.hub.registry().connections(), "draining");
    app.sessions.drain();
    app.hub.tell(Command::Drain(limit)).await;
    while app.hub.registry().connections() > 0 && Instant::now() < until {
        sleep(LOOK).await;
    }
    app.sessions.ended().await;
}
