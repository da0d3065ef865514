use std::{str::FromStr, sync::LazyLock, time::Duration};

use natter_protocol::{
    ids::{DeviceId, UserId},
    limits::PRESENCE_USERS,
    server::Presence,
};
use redis::Script;
use time::OffsetDateTime;

use crate::{PresenceClient, PresenceError, node::millis};

/// How often a node should [`refresh`](PresenceClient::refresh) each of its devices: two
/// refreshes may fail before an entry expires.
pub const REFRESH_EVERY: Duration = Duration::from_secs(40);

/// Entries of one script. Redis does nothing else while a script runs: this is about 1 ms.
const BATCH: usize = 250;

const LAST_SEEN_TTL: Duration = Duration::from_hours(30 * 24);

macro_rules! script {
    ($file:literal) => {
        LazyLock::new(|| {
            Script::new(concat!(include_str!("lua/prelude.lua"), "\n", include_str!($file)))
        })
    };
}
pub(crate) use script;

static CONNECTED: LazyLock<Script> = script!("lua/connected.lua");
static DISCONNECTED: LazyLock<Script> = script!("lua/disconnected.lua");
static REFRESH: LazyLock<Script> = script!("lua/refresh.lua");
static PRESENCE: LazyLock<Script> = script!("lua/presence.lua");
static ONLINE_DEVICES: LazyLock<Script> = script!("lua/online_devices.lua");

impl PresenceClient {
    /// A device connected to this node. `true` when its user came online by that: no device of
    /// theirs was live on any node.
    ///
    /// Sockets are not counted here: call it for the device's first on this node.
    pub async fn connected(&self, user: UserId, device: DeviceId) -> Result<bool, PresenceError> {
        let mut call = CONNECTED.prepare_invoke();
        call.key(online(user)).key(last_seen(user));
        call.arg(self.entry(device))
            .arg(millis(self.config().device_ttl))
            .arg(millis(LAST_SEEN_TTL));
        self.script("connected", &call).await
    }

    /// A device's last socket on this node has gone. `true` when its user is offline now: no
    /// device of theirs is live on any node.
    pub async fn disconnected(
        &self,
        user: UserId,
        device: DeviceId,
    ) -> Result<bool, PresenceError> {
        let mut call = DISCONNECTED.prepare_invoke();
        call.key(online(user)).key(last_seen(user));
        call.arg(self.entry(device)).arg(millis(LAST_SEEN_TTL));
        self.script("disconnected", &call).await
    }

    /// Keeps devices of this node online for another `device_ttl`, and brings back those that
    /// Redis has forgotten. Call it every [`REFRESH_EVERY`] and when a
    /// [`Heartbeat::Begun`](crate::Heartbeat::Begun) tells that Redis forgot this node.
    ///
    /// Any number of entries: they go in batches, one after the other, each a call with its own
    /// limit. The first batch that fails ends it.
    pub async fn refresh(&self, entries: &[(UserId, DeviceId)]) -> Result<(), PresenceError> {
        for batch in entries.chunks(BATCH) {
            let mut call = REFRESH.prepare_invoke();
            call.arg(millis(self.config().device_ttl)).arg(millis(LAST_SEEN_TTL));
            for (user, device) in batch {
                call.key(online(*user)).key(last_seen(*user)).arg(self.entry(*device));
            }
            let () = self.script("refresh", &call).await?;
        }
        Ok(())
    }

    /// Whether each of `users` is online and when they were last seen, in their order, from one
    /// round trip.
    ///
    /// # Errors
    /// [`PresenceError::TooMany`] for more than [`PRESENCE_USERS`].
    pub async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, PresenceError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        if users.len() > PRESENCE_USERS {
            return Err(PresenceError::TooMany { limit: PRESENCE_USERS });
        }
        let mut call = PRESENCE.prepare_invoke();
        for user in users {
            call.key(online(*user)).key(last_seen(*user));
        }
        let answer: Vec<i64> = self.script("presence", &call).await?;
        let told = answer.chunks_exact(2).zip(users);
        Ok(told
            .map(|(told, user)| Presence {
                user_id: *user,
                online: told[0] != 0,
                last_seen_at: from_millis(told[1]),
            })
            .collect())
    }

    /// The user's devices that are connected, to any node; at most 1,000.
    pub async fn online_devices(&self, user: UserId) -> Result<Vec<DeviceId>, PresenceError> {
        let call = ONLINE_DEVICES.key(online(user));
        let devices: Vec<String> = self.script("online_devices", &call).await?;
        Ok(parsed(&devices))
    }

    /// This device on this life of this node.
    fn entry(&self, device: DeviceId) -> String {
        format!("{device}|{}", self.life())
    }
}

pub(crate) fn online(user: UserId) -> String {
    format!("online:{user}")
}

fn last_seen(user: UserId) -> String {
    format!("last_seen:{user}")
}

/// The ids among `texts`; only ids were written, so anything else is somebody else's.
pub(crate) fn parsed<T: FromStr>(texts: &[String]) -> Vec<T> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

fn from_millis(millis: i64) -> Option<OffsetDateTime> {
    if millis == 0 {
        return None;
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}
