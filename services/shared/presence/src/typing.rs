use std::{sync::LazyLock, time::Duration};

use natter_protocol::ids::{ChatId, DeviceId, UserId};
use redis::Script;

use crate::{
    PresenceClient, PresenceError,
    node::millis,
    online::{parsed, script},
};

/// Most users that [`PresenceClient::typing_in`] tells.
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

    /// The users who type in a chat now, each once, most recent first; at most 100.
    pub async fn typing_in(&self, chat: ChatId) -> Result<Vec<UserId>, PresenceError> {
        let mut call = IN.key(typing(chat));
        let users: Vec<String> = self.script("typing_in", call.arg(TOLD)).await?;
        Ok(parsed(&users))
    }
}

fn typing(chat: ChatId) -> String {
    format!("typing:{chat}")
}

fn entry(user: UserId, device: DeviceId) -> String {
    format!("{user}|{device}")
}
