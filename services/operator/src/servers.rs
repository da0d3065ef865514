//! The way to Postgres, NATS and Redis, by the services' own settings.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use natter_bus::{Bus, BusError, NatsArgs};
use natter_presence::{PresenceClient, PresenceError, RedisArgs};
use natter_store::{Store, StoreConfig};
use secrecy::{ExposeSecret, SecretString};

use crate::outcome::Failure;

/// How long NATS may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections to Postgres; one command needs few.
const CONNECTIONS: u32 = 4;
/// As servers list us.
const NAME: &str = "operator";

/// Where the servers are. A command needs only those that it asks; so these are the arguments of
/// the services, but none is required.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Postgres, as `postgres://user:password@host:port/database`; with
    /// `?sslmode=verify-full&sslrootcert=/file` for TLS.
    #[arg(long, env = DATABASE_URL.0, hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// NATS, as `nats://host:port` or `tls://…`; several, separated by commas. May carry
    /// `user:password@` or `token@`, of which the first counts for all.
    #[arg(long, env = NATS_URL.0, hide_env_values = true)]
    pub nats_url: Option<SecretString>,

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

    /// Redis, as `redis://user:password@host:port/database`; `rediss://…` for TLS.
    #[arg(long, env = REDIS_URL.0, hide_env_values = true)]
    pub redis_url: Option<SecretString>,

    /// A PEM file with the authorities that the certificate of Redis may come from, in place of
    /// the system's; for `rediss://…` only.
    #[arg(long, env = "NATTER_REDIS_CA")]
    pub redis_ca: Option<PathBuf>,
}

/// A variable, and the flag in its place.
pub(crate) type Setting = (&'static str, &'static str);

const DATABASE_URL: Setting = ("NATTER_DATABASE_URL", "--database-url");
const NATS_URL: Setting = ("NATTER_NATS_URL", "--nats-url");
const REDIS_URL: Setting = ("NATTER_REDIS_URL", "--redis-url");

impl Servers {
    /// Postgres, which is reached when it is first asked.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let url = given(self.database_url.as_ref(), DATABASE_URL)?;
        let config = StoreConfig { max_connections: CONNECTIONS, ..StoreConfig::new(url) };
        Store::connect(&config).map_err(|error| Failure::settings(DATABASE_URL.0, error))
    }

    /// NATS, connected.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        let args = NatsArgs {
            nats_url: given(self.nats_url.as_ref(), NATS_URL)?.into(),
            nats_credentials: self.nats_credentials.clone(),
            nats_ca: self.nats_ca.clone(),
            nats_cert: self.nats_cert.clone(),
            nats_key: self.nats_key.clone(),
        };
        let bus = Bus::connect(&args.config(NAME)).await.map_err(|error| match error {
            BusError::Config { .. } => Failure::Wrong(error.into()),
            error => error.into(),
        })?;
        bus.connected_within(CONNECT).await?;
        Ok(bus)
    }

    /// Redis, which is reached when it is first asked.
    pub(crate) fn presence(&self) -> Result<PresenceClient, Failure> {
        let args = RedisArgs {
            redis_url: given(self.redis_url.as_ref(), REDIS_URL)?.into(),
            redis_ca: self.redis_ca.clone(),
        };
        PresenceClient::new(args.config(NAME)).map_err(|error| match error {
            PresenceError::Url | PresenceError::Authorities(_) => Failure::Wrong(error.into()),
            error => error.into(),
        })
    }
}

/// A variable that is set to nothing is not set.
pub(crate) fn given(
    value: Option<&SecretString>,
    (variable, flag): Setting,
) -> Result<&str, Failure> {
    let value = value.map(ExposeSecret::expose_secret).filter(|value| !value.is_empty());
    value.ok_or(Failure::NotSet { variable, flag })
}
