//! Where Redis is and how long things live there.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use secrecy::{ExposeSecret, SecretString};

use crate::PresenceError;

/// Redis, as every program that uses it is told of it.
#[derive(Args, Clone, Debug)]
pub struct RedisArgs {
    /// Redis, as `redis://user:password@host:port/database`; `rediss://…` for TLS.
    #[arg(long, env = "NATTER_REDIS_URL", hide_env_values = true, value_parser = parse_url)]
    pub redis_url: SecretString,

    /// A PEM file with the authorities that the certificate of Redis may come from, in place of
    /// the system's; for `rediss://…` only.
    #[arg(long, env = "NATTER_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
}

impl RedisArgs {
    /// The defaults, for `node`.
    pub fn config(&self, node: impl Into<String>) -> PresenceConfig {
        PresenceConfig {
            authorities: self.redis_ca.clone(),
            ..PresenceConfig::new(self.redis_url.clone(), node)
        }
    }
}

/// Says nothing of the text, which may hold a password.
fn parse_url(text: &str) -> Result<SecretString, PresenceError> {
    let url = SecretString::from(text);
    info(&url)?;
    Ok(url)
}

/// What the URL says. One that asks for TLS without checking the server is refused.
pub(crate) fn info(url: &SecretString) -> Result<ConnectionInfo, PresenceError> {
    let info = url.expose_secret().into_connection_info().map_err(|_| PresenceError::Url)?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => Err(PresenceError::Url),
        _ => Ok(info),
    }
}

/// Settings of a [`PresenceClient`](crate::PresenceClient). `Debug` does not show the URL,
/// which may hold a password.
#[derive(Clone, Debug)]
pub struct PresenceConfig {
    /// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS.
    pub url: SecretString,
    /// PEM file with the authorities that the server's certificate is checked against, in place
    /// of the system's; for `rediss://` only.
    pub authorities: Option<PathBuf>,
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
            authorities: None,
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
