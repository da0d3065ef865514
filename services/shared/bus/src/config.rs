//! Where NATS is, and who connects.

use std::{error::Error, fmt, path::PathBuf};

use async_nats::ServerAddr;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::BusError;

/// NATS, as every program that uses it is told of it.
#[derive(Args, Clone, Debug)]
pub struct NatsArgs {
    /// NATS, as `nats://host:port` or `tls://…`; several, separated by commas. May carry
    /// `user:password@` or `token@`, of which the first counts for all.
    #[arg(long, env = "NATTER_NATS_URL", hide_env_values = true, value_parser = parse_url)]
    pub nats_url: SecretString,

    /// A NATS credentials file (`.creds`), in place of a login in the URL.
    #[arg(long, env = "NATTER_NATS_CREDENTIALS")]
    pub nats_credentials: Option<PathBuf>,

    /// A PEM file with the authorities that NATS's certificate may come from, in place of the
    /// system's. With it no connection goes without TLS, whatever the URL says.
    #[arg(long, env = "NATTER_NATS_CA")]
    pub nats_ca: Option<PathBuf>,

    /// A PEM file with the certificate to show NATS, and those between it and its authority.
    #[arg(long, env = "NATTER_NATS_CERT", requires = "nats_key")]
    pub nats_cert: Option<PathBuf>,

    /// A PEM file with the private key of that certificate.
    #[arg(long, env = "NATTER_NATS_KEY", requires = "nats_cert")]
    pub nats_key: Option<PathBuf>,
}

impl NatsArgs {
    /// How to connect, as `name`.
    #[must_use]
    pub fn config(&self, name: impl Into<String>) -> BusConfig {
        BusConfig {
            credentials: self.nats_credentials.clone(),
            root_certificates: self.nats_ca.clone(),
            client_certificate: self.nats_cert.clone(),
            client_key: self.nats_key.clone(),
            ..BusConfig::new(self.nats_url.expose_secret(), name)
        }
    }
}

/// Says nothing of the text, which may hold a password.
fn parse_url(text: &str) -> Result<SecretString, BusError> {
    BusConfig::new(text, "").servers()?;
    Ok(text.into())
}

/// Which setting a [`BusError::Config`] is about, shown as an operator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `NATTER_NATS_URL`.
    Url,
    /// `NATTER_NATS_CREDENTIALS`.
    Credentials,
    /// `NATTER_NATS_CA`.
    Authorities,
    /// `NATTER_NATS_CERT`.
    Certificate,
    /// `NATTER_NATS_KEY`.
    Key,
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "NATTER_NATS_URL (--nats-url)",
            Self::Credentials => "NATTER_NATS_CREDENTIALS (--nats-credentials)",
            Self::Authorities => "NATTER_NATS_CA (--nats-ca)",
            Self::Certificate => "NATTER_NATS_CERT (--nats-cert)",
            Self::Key => "NATTER_NATS_KEY (--nats-key)",
        })
    }
}

pub(crate) fn wrong(setting: Setting, reason: &dyn fmt::Display) -> BusError {
    BusError::Config { setting, reason: reason.to_string() }
}

/// Where NATS is, and who connects.
#[derive(Clone)]
pub struct BusConfig {
    /// `nats://host:port` or `tls://…`, several separated by commas. May carry
    /// `user:password@` or `token@`; the first one that does counts for all.
    pub url: String,
    /// Shown in the server's list of connections, e.g. `gateway gw1`.
    pub name: String,
    /// A credentials file (`.creds`: JWT and nkey seed).
    pub credentials: Option<PathBuf>,
    /// PEM file with the authorities that the server's certificate is checked against, in place
    /// of the system's.
    pub root_certificates: Option<PathBuf>,
    /// PEM file with a certificate to show the server, and its key's.
    pub client_certificate: Option<PathBuf>,
    /// PEM file with the key of `client_certificate`.
    pub client_key: Option<PathBuf>,
}

impl BusConfig {
    /// A connection by URL alone.
    #[must_use]
    pub fn new(url: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            name: name.into(),
            credentials: None,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
        }
    }

    /// The servers, with what authenticates.
    ///
    /// # Errors
    /// [`BusError::Config`] when one does not parse.
    pub fn servers(&self) -> Result<Vec<ServerAddr>, BusError> {
        let server = |url: &str| {
            // Not shown: it may hold a password.
            let refused = |_| wrong(Setting::Url, &"not nats://host:port or tls://host:port");
            let server: ServerAddr = url.trim().parse().map_err(refused)?;
            if server.host().is_empty() || server.is_websocket() {
                return Err(wrong(Setting::Url, &"not nats://host:port or tls://host:port"));
            }
            Ok(server)
        };
        self.url.split(',').map(server).collect()
    }

    /// Whether a connection must have TLS, whatever the server says.
    pub(crate) fn wants_tls(&self, servers: &[ServerAddr]) -> bool {
        self.root_certificates.is_some()
            || self.client_certificate.is_some()
            || servers.iter().any(ServerAddr::tls_required)
    }
}

/// Without the URL, which may hold a password.
impl fmt::Debug for BusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A reason with what led to it.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_is_none_is_refused_without_being_shown() {
        for bad in ["", "http://a:hunter2@b", "nats://", "nats://a:hunter2@h:port", "nats://a,"] {
            let error = parse_url(bad).expect_err(bad).to_string();
            assert!(error.contains("NATTER_NATS_URL") && !error.contains("hunter2"), "{error}");
        }
        assert!(parse_url("nats://token@a:4222, tls://user:p%40ss@b").is_ok());
    }
}
