use std::time::Duration;

use uuid::Uuid;

use crate::{PresenceClient, PresenceError, node::millis};

/// Bytes of what is kept for one device.
const BYTES: usize = 1024 * 1024;

impl PresenceClient {
    /// Keeps, for `ttl`, what a node needs to let the device of this key in: opaque here, at most
    /// 1 MiB, or else nothing is kept.
    pub async fn keep_admission(
        &self,
        device: Uuid,
        facts: &[u8],
        ttl: Duration,
    ) -> Result<(), PresenceError> {
        if facts.len() > BYTES {
            return Ok(());
        }
        let mut set = redis::cmd("SET");
        set.arg(admission(device)).arg(facts).arg("PX").arg(millis(ttl));
        self.command("keep_admission", &set).await
    }

    /// What was kept for a device, if it was.
    pub async fn kept_admission(&self, device: Uuid) -> Result<Option<Vec<u8>>, PresenceError> {
        let mut get = redis::cmd("GET");
        get.arg(admission(device));
        self.command("kept_admission", &get).await
    }
}

fn admission(device: Uuid) -> String {
    format!("admission:{device}")
}
