use std::{sync::LazyLock, time::Duration};

use natter_protocol::ids::{ChatId, DeviceId, UserId};
use redis::Script;

use crate::{PresenceClient, PresenceError, node::millis, online::script};

/// Most entries that [`PresenceClient::typing_in`] tells.
const TOLD: usize = 100;
/// Most entries kept for a chat.
const KEPT: usize = 1_000;
/// Longest that an entry lives, whatever its writer asks for.
const LONGEST: Duration = Duration::from_mins(1);

static START: LazyLock<Script> = script!("lua/typing_start.lua");
static IN: LazyLock<Script> = script!("lua/typing_in.lua");

impl PresenceClient {
    /// A user types on a device, or goes on: for `ttl` (1 ms to 60 s) unless stopped before.
    pub async fn typing_start(
        &self,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
        ttl: Duration,
    ) -> Result<(), PresenceError> {
        let mut call = START.key(typing(chat));
        call.arg(entry(user, device)).arg(millis(ttl.min(LONGEST))).arg(KEPT);
        self.script("typing_start", &call).await
    }

    /// A user stopped typing on a device. They may still type on another.
    pub async fn typing_stop(
        &self,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
    ) -> Result<(), PresenceError> {
        let mut stop = redis::cmd("ZREM");
        stop.arg(typing(chat)).arg(entry(user, device));
        self.command("typing_stop", &stop).await
    }

    /// Who types in a chat now, on which devices, most recent first; at most 100.
    pub async fn typing_in(&self, chat: ChatId) -> Result<Vec<Typist>, PresenceError> {
        let mut call = IN.key(typing(chat));
        let entries: Vec<(String, u64)> = self.script("typing_in", call.arg(TOLD)).await?;
        Ok(entries.iter().filter_map(|(entry, left)| Typist::parse(entry, *left)).collect())
    }
}

/// One who types, on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Typist {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// How long it goes on if nothing more is heard.
    pub left: Duration,
}

impl Typist {
    fn parse(entry: &str, left: u64) -> Option<Self> {
        let (user, device) = entry.split_once('|')?;
        let left = Duration::from_millis(left);
        Some(Self { user: user.parse().ok()?, device: device.parse().ok()?, left })
    }
}

fn typing(chat: ChatId) -> String {
    format!("typing:{chat}")
}

fn entry(user: UserId, device: DeviceId) -> String {
    format!("{user}|{device}")
}
