//! The parts that handlers use, each by its own type: a handler names only those that it needs.

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::extract::FromRef;
use natter_bus::Bus;
use natter_presence::PresenceClient;
use natter_store::Store;

use crate::{
    admission::{Admissions, Keeping},
    auth::{Auth, AuthConfigError, seals::Seals, service::Services},
    chats::Chats,
    config::{Config, RestArgs},
    export::Exports,
    hook::{Hook, HookConfigError},
    hub::Hub,
    measures::Measures,
    media::Library,
    rate::Rate,
    reads::Reads,
    relay::Relay,
    replay::Replays,
    rest::CallLimit,
    room::Room,
    socketio::Sessions,
    written::Written,
};

/// How much longer than until the next ping a poll may wait.
const POLL: Duration = Duration::from_secs(5);

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Of who is let in.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// Of the deployment's own check of messages.
    #[error(transparent)]
    Hook(#[from] HookConfigError),
}

/// All parts. Cloning shares them: every connection has one of these.
#[derive(Clone)]
pub struct App(Arc<Parts>);

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What an [`App`] is of.
pub struct Parts {
    /// Postgres.
    pub store: Store,
    /// NATS.
    pub bus: Bus,
    /// Redis.
    pub presence: PresenceClient,
    /// Who is let in.
    pub auth: Auth,
    /// Committed changes, put on their feeds.
    pub relay: Relay,
    /// What can be done with chats.
    pub chats: Chats,
    /// How far chats are read.
    pub reads: Reads,
    /// The fan-out to this node's connections.
    pub hub: Hub,
    /// Whether the logs take more messages.
    pub room: Room,
    /// Up to where shards are written.
    pub written: Written,
    /// Connections let in.
    pub admissions: Admissions,
    /// What connections have missed, replayed.
    pub replays: Replays,
    /// Sessions over polling, of this node and of others.
    pub sessions: Sessions,
    /// Files.
    pub library: Library,
    /// Exports under way.
    pub exports: Exports,
    /// What makes cursors this deployment's own.
    pub seals: Seals,
    /// The deployment's own check of messages, where there is one.
    pub hook: Option<Hook>,
    /// How often one user may call.
    pub calls: CallLimit,
    /// Which servers are let in.
    pub services: Services,
    /// What is counted and timed.
    pub measures: Arc<Measures>,
    /// The settings.
    pub config: Arc<Config>,
}

/// A handler names the part that it needs by its type alone.
macro_rules! by_type {
    ($($name:ident: $part:ty),* $(,)?) => {
        $(impl FromRef<App> for $part {
            fn from_ref(app: &App) -> Self {
                app.$name.clone()
            }
        })*
    };
}

by_type! {
    store: Store,
    bus: Bus,
    presence: PresenceClient,
    auth: Auth,
    relay: Relay,
    chats: Chats,
    reads: Reads,
    calls: CallLimit,
    services: Services,
    config: Arc<Config>,
}

impl App {
    /// Puts the parts together around connections that exist. The second part is for
    /// [`crate::admission::keep_all`].
    ///
    /// # Errors
    /// [`SettingsError`] for secrets, keys or a URL that cannot be used.
    pub fn new(
        config: Arc<Config>,
        store: Store,
        bus: Bus,
        presence: PresenceClient,
        hub: Hub,
        library: Library,
    ) -> Result<(Self, Keeping), SettingsError> {
        let relay = Relay::new(store.clone(), bus.clone());
        let room = Room::new(config.shards);
        let socket = &config.socket;
        let calls = CallLimit::new(&config.rest);
        let RestArgs { service_calls_per_second, service_calls_burst, .. } = config.rest;
        let service_rate = Rate::per_second(service_calls_per_second, service_calls_burst);
        let (admissions, keeping) =
            Admissions::new(socket.admissions_at_once, socket.admission_kept());
        let parts = Parts {
            auth: Auth::new(store.clone(), &config.auth, config.shards)?,
            chats: Chats::new(store.clone(), relay.clone(), room.clone(), config.shards),
            reads: Reads::new(
                store.clone(),
                bus.clone(),
                hub.clone(),
                relay.clone(),
                room.clone(),
                config.receipts_participants,
            ),
            exports: Exports::new(config.exports),
            seals: Seals::new(&config.auth),
            services: Services::new(store.clone(), calls.clone(), service_rate),
            calls,
            hook: Hook::from_config(&config.hook)?,
            sessions: Sessions::new(bus.clone(), socket.connections_max, socket.heartbeat() + POLL),
            room,
            written: Written::default(),
            admissions,
            measures: Arc::default(),
            replays: Replays::new(config.socket.resume_entries),
            store,
            bus,
            presence,
            hub,
            library,
            relay,
            config,
        };
        Ok((Self(Arc::new(parts)), keeping))
    }
}
