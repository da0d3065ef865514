//! The way to Postgres, NATS and Redis, by the services' own settings.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use natter_bus::{Bus, BusConfig, BusError};
use natter_presence::{PresenceClient, PresenceConfig, PresenceError};
use natter_store::{Store, StoreConfig};
use secrecy::{ExposeSecret, SecretString};

use crate::outcome::Failure;

/// How long NATS may take to let us in.
const CONNECT: Duration = Duration::from_secs(5);
/// Connections to Postgres; one command needs few.
const CONNECTIONS: u32 = 4;
/// As servers list us.
const NAME: &str = "operator";

/// Where the servers are. A command needs only those that it asks.
#[derive(Args, Clone, Debug)]
pub struct Servers {
    /// Postgres, as `postgres://user:password@host:port/database`.
    #[arg(long, env = "NATTER_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// NATS, as `nats://host:port` or `tls://…`; several, separated by commas.
    #[arg(long, env = "NATTER_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<SecretString>,

    /// A NATS credentials file.
    #[arg(long, env = "NATTER_NATS_CREDENTIALS")]
    pub nats_credentials: Option<PathBuf>,

    /// A PEM file with further authorities that the NATS server's certificate may come from.
    #[arg(long, env = "NATTER_NATS_CA")]
    pub nats_ca: Option<PathBuf>,

    /// Redis, as `redis://user:password@host:port/database`.
    #[arg(long, env = "NATTER_REDIS_URL", hide_env_values = true)]
    pub redis_url: Option<SecretString>,
}

impl Servers {
    /// Postgres, which is reached when it is first asked.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        let (variable, flag) = ("NATTER_DATABASE_URL", "--database-url");
        let url = given(self.database_url.as_ref(), variable, flag)?;
        let config = StoreConfig { max_connections: CONNECTIONS, ..StoreConfig::new(url) };
        Store::connect(&config).map_err(|error| Failure::settings(variable, error))
    }

    /// NATS, connected.
    pub(crate) async fn bus(&self) -> Result<Bus, Failure> {
        let (variable, flag) = ("NATTER_NATS_URL", "--nats-url");
        let url = given(self.nats_url.as_ref(), variable, flag)?;
        let config = BusConfig {
            credentials: self.nats_credentials.clone(),
            root_certificates: self.nats_ca.clone(),
            ..BusConfig::new(url, NAME)
        };
        let bus = Bus::connect(&config).await.map_err(|error| match error {
            BusError::Config(_) => Failure::settings(variable, error),
            error => error.into(),
        })?;
        bus.connected_within(CONNECT).await?;
        Ok(bus)
    }

    /// Redis, which is reached when it is first asked.
    pub(crate) fn presence(&self) -> Result<PresenceClient, Failure> {
        let (variable, flag) = ("NATTER_REDIS_URL", "--redis-url");
        let url = given(self.redis_url.as_ref(), variable, flag)?;
        PresenceClient::new(PresenceConfig::new(url.into(), NAME)).map_err(|error| match error {
            PresenceError::Url => Failure::settings(variable, error),
            error => error.into(),
        })
    }
}

/// A variable that is set to nothing is not set.
pub(crate) fn given<'a>(
    value: Option<&'a SecretString>,
    variable: &'static str,
    flag: &'static str,
) -> Result<&'a str, Failure> {
    let value = value.map(ExposeSecret::expose_secret).filter(|value| !value.is_empty());
    value.ok_or(Failure::NotSet { variable, flag })
}
