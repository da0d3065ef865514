//! Which of this node's devices are online, told to Redis, to those who watch, and (when last
//! seen) to Postgres. All of it may be lost, so nothing waits for it: the hub queues what
//! happened, one task tells it.

use std::{collections::HashMap, time::Duration};

use natter_presence::REFRESH_EVERY;
use natter_protocol::{
    feed::{Feed, Signal},
    ids::{DeviceId, Shard, UserId},
};
use natter_runtime::causes;
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot};

use crate::{app::App, hub::Command, measures};

/// Changes waiting; more are dropped, and the next refresh puts Redis right.
const QUEUE: usize = 16 * 1024;
/// How often watched users are looked up: a node that was killed tells nobody.
const LOOK_EVERY: Duration = Duration::from_secs(4);
/// How often "last seen" is written to Postgres.
const SEEN_EVERY: Duration = Duration::from_secs(2);
/// Devices whose "last seen" waits to be written.
const SEEN_MAX: usize = 10_000;

enum Change {
    Device(DeviceChange),
    /// The user has left a chat, and may share none any more with those who watch them or whom
    /// they watch.
    Parted(UserId),
}

struct DeviceChange {
    user: UserId,
    device: DeviceId,
    shard: Shard,
    online: bool,
}

/// The way to the task.
#[derive(Clone)]
pub struct Online(mpsc::Sender<Change>);

/// What the task takes its work from.
pub struct Changes(mpsc::Receiver<Change>);

impl Online {
    /// The two ends of the queue.
    #[must_use]
    pub fn new() -> (Self, Changes) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), Changes(receiver))
    }

    /// The device's first connection here has come. `shard` is that of its user's feed.
    pub fn connected(&self, user: UserId, device: DeviceId, shard: Shard) {
        self.tell(Change::Device(DeviceChange { user, device, shard, online: true }));
    }

    /// The device's last connection here has gone.
    pub fn disconnected(&self, user: UserId, device: DeviceId, shard: Shard) {
        self.tell(Change::Device(DeviceChange { user, device, shard, online: false }));
    }

    /// The user has left a chat.
    pub fn parted(&self, user: UserId) {
        self.tell(Change::Parted(user));
    }

    fn tell(&self, change: Change) {
        if self.0.try_send(change).is_err() {
            measures::presence_dropped().increment(1);
        }
    }
}

/// Tells changes as they come, refreshes what is online, looks after those who are watched. Runs
/// until dropped; after that, [`leave`].
pub async fn run(app: App, mut changes: Changes) {
    let (begun, mut began) = mpsc::channel::<()>(1);
    let beat = app.presence.keep_alive(move || {
        // One that waits already says the same.
        let _ = begun.try_send(());
    });
    tokio::pin!(beat);
    let mut refresh = tokio::time::interval(REFRESH_EVERY);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let mut write = tokio::time::interval(SEEN_EVERY);
    let mut seen: HashMap<DeviceId, OffsetDateTime> = HashMap::new();
    loop {
        tokio::select! {
            () = &mut beat => return,
            Some(()) = began.recv() => refresh_all(&app).await,
            _ = refresh.tick() => refresh_all(&app).await,
            _ = look.tick() => look_after(&app).await,
            _ = write.tick() => write_seen(&app, &mut seen).await,
            change = changes.0.recv() => match change {
                Some(Change::Parted(user)) => part(&app, user).await,
                Some(Change::Device(change)) => {
                    if seen.len() < SEEN_MAX {
                        seen.insert(change.device, OffsetDateTime::now_utc());
                    }
                    tell(&app, &change).await;
                }
                None => return,
            }
        }
    }
}

/// This node's devices are offline at once, rather than when its heartbeat has run out.
pub async fn leave(app: &App) {
    let _ = app.presence.leave().await;
}

/// Those around the user who share no chat with each other any more hear no more of each other.
/// When nobody can tell, they do not either: it may be asked for again.
async fn part(app: &App, user: UserId) {
    let (answer, around) = oneshot::channel();
    app.hub.tell(Command::WatchedAround(user, answer)).await;
    for (watcher, mut watched) in around.await.unwrap_or_default() {
        let shared = app.store.shares_chat(watcher, &watched).await.unwrap_or_else(|error| {
            tracing::debug!(error = %causes(&error), "who shares a chat");
            Vec::new()
        });
        watched.retain(|user| !shared.iter().any(|(other, _)| other == user));
        if !watched.is_empty() {
            app.hub.tell(Command::Unwatch(watcher, watched)).await;
        }
    }
}

async fn tell(app: &App, change: &DeviceChange) {
    let &DeviceChange { user, device, shard, online } = change;
    let changed = if online {
        app.presence.connected(user, device).await
    } else {
        app.presence.disconnected(user, device).await
    };
    match changed {
        Ok(true) => {
            let last_seen_at = Some(OffsetDateTime::now_utc());
            let signal = Signal::Presence { online, last_seen_at };
            let _ = app.bus.signal(Feed::user(shard, user), &signal);
        }
        Ok(false) => {}
        Err(error) => tracing::debug!(error = %causes(&error), "presence was not told"),
    }
}

async fn refresh_all(app: &App) {
    let entries: Vec<(UserId, DeviceId)> = {
        let registry = app.hub.registry();
        let devices = |user: &crate::registry::User| {
            let id = user.id;
            user.connections.iter().map(move |c| (id, c.device)).collect::<Vec<_>>()
        };
        registry.users().flat_map(devices).collect()
    };
    if let Err(error) = app.presence.refresh(&entries).await {
        tracing::debug!(error = %causes(&error), "presence was not refreshed");
    }
}

async fn look_after(app: &App) {
    let (answer, watched) = oneshot::channel();
    app.hub.tell(Command::Watched(answer)).await;
    let Ok(users) = watched.await else { return };
    for batch in users.chunks(natter_protocol::limits::PRESENCE_USERS) {
        match app.presence.presence(batch).await {
            Ok(found) => app.hub.tell(Command::Found(found)).await,
            Err(error) => {
                return tracing::debug!(error = %causes(&error), "presence was not looked up");
            }
        }
    }
}

async fn write_seen(app: &App, seen: &mut HashMap<DeviceId, OffsetDateTime>) {
    let devices: Vec<_> = seen.drain().collect();
    if devices.is_empty() {
        return;
    }
    if let Err(error) = app.store.touch_devices(&devices).await {
        tracing::debug!(error = %causes(&error), "last seen was not written");
    }
}
