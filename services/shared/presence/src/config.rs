//! Where Redis is and how long things live there.

use std::time::Duration;

use secrecy::SecretString;

/// Settings of a [`PresenceClient`](crate::PresenceClient). `Debug` does not show the URL,
/// which may hold a password.
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
    pub url: SecretString,
    /// Name of this node: 1 to 64 of `A-Z a-z 0-9 _ -`.
    pub node: String,
    /// How long a node lives without a heartbeat (default 10 s): how long the devices of a node
    /// that was killed still look online. Heartbeats come three times as often, and more.
    pub node_ttl: Duration,
    /// How long a device is online without a refresh (default 120 s). It only matters for
    /// entries that a living node has lost track of.
    pub device_ttl: Duration,
    /// Bound on every call, connecting included (default 1 s).
    pub call_limit: Duration,
    /// After a failure calls are refused for so long without touching the network
    /// (default 500 ms).
    pub retry_after: Duration,
}

impl PresenceConfig {
    /// The defaults, for `node` and the Redis at `url`.
    pub fn new(url: SecretString, node: impl Into<String>) -> Self {
        Self {
            url,
            node: node.into(),
            node_ttl: Duration::from_secs(10),
            device_ttl: Duration::from_mins(2),
            call_limit: Duration::from_secs(1),
            retry_after: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_does_not_show() {
        let config = PresenceConfig::new("redis://:hunter2@127.0.0.1/".into(), "gateway-1");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("127.0.0.1"), "{shown}");
    }
}
