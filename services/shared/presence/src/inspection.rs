//! What an operator looks up.

use std::{collections::BTreeSet, sync::LazyLock};

use natter_protocol::ids::{DeviceId, UserId};
use redis::Script;

use crate::{
    PresenceClient, PresenceError,
    online::{online, script},
};

static DEVICE_NODES: LazyLock<Script> = script!("lua/device_nodes.lua");

/// Keys that one step of a search looks at, about.
const STEP: usize = 2_000;
/// Steps of a search: some ten million keys.
const STEPS: usize = 5_000;

impl PresenceClient {
    /// The nodes that live, by name, in order. Looks at every key of the database, some at a time.
    ///
    /// # Errors
    /// [`PresenceError::TooMany`] when there are more keys than it looks at.
    pub async fn nodes(&self) -> Result<BTreeSet<String>, PresenceError> {
        let (mut nodes, mut cursor) = (BTreeSet::new(), 0);
        for _ in 0..STEPS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg("node:*").arg("COUNT").arg(STEP);
            let (next, keys): (u64, Vec<String>) = self.command("nodes", &scan).await?;
            nodes.extend(keys.iter().filter_map(|key| name(key.strip_prefix("node:")?)));
            if next == 0 {
                return Ok(nodes);
            }
            cursor = next;
        }
        Err(PresenceError::TooMany { limit: STEP * STEPS })
    }

    /// The user's devices that are connected, each with the name of a node that it is connected to;
    /// at most 1,000.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn device_nodes(
        &self,
        user: UserId,
    ) -> Result<Vec<(DeviceId, String)>, PresenceError> {
        let call = DEVICE_NODES.key(online(user));
        let entries: Vec<String> = self.script("device_nodes", &call).await?;
        let parse = |entry: &String| {
            let (device, life) = entry.split_once('|')?;
            Some((device.parse().ok()?, name(life)?))
        };
        Ok(entries.iter().filter_map(parse).collect())
    }

    /// The version of Redis.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn version(&self) -> Result<Option<String>, PresenceError> {
        let info: String = self.command("version", redis::cmd("INFO").arg("server")).await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.map(|version| version.trim().to_owned()))
    }
}

/// The node's name without its life.
fn name(life: &str) -> Option<String> {
    life.rsplit_once('.').map(|(name, _)| name.to_owned())
}
