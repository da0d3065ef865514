//! Exit codes, and what keeps a command from its end.

use std::{error::Error, process::ExitCode};

use natter_bus::BusError;
use natter_presence::PresenceError;
use natter_runtime::telemetry::TelemetryError;
use natter_store::StoreError;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 0: it is done; all is well.
    Well,
    /// 1: something is wrong, or was refused.
    Wrong,
    /// 2: it could not be told: a server did not answer, or the command line makes no sense.
    Unknown,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Well => 0,
            Outcome::Wrong => 1,
            Outcome::Unknown => 2,
        })
    }
}

type Cause = Box<dyn Error + Send + Sync>;

/// What kept a command from its end. Its text names the setting, argument or server.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A setting that this command needs.
    #[error("{variable} is not set (or give {flag})")]
    NotSet {
        /// The environment variable.
        variable: &'static str,
        /// The flag in its place.
        flag: &'static str,
    },
    /// A setting that cannot work.
    #[error("{variable}")]
    Settings {
        /// The environment variable.
        variable: &'static str,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// A setting that cannot work, told with its name.
    #[error("{0}")]
    Wrong(Cause),
    /// A server did not answer as it should.
    #[error("{server}")]
    Server {
        /// Which.
        server: &'static str,
        /// What it said.
        #[source]
        cause: Cause,
    },
    /// The schema or the streams could not be brought up to date.
    #[error("not migrated")]
    Migration(#[source] Cause),
    /// What was asked for is not there, or may not be done.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    pub(crate) fn settings(variable: &'static str, cause: impl Into<Cause>) -> Self {
        Self::Settings { variable, cause: cause.into() }
    }

    pub(crate) fn telemetry(error: TelemetryError) -> Self {
        match error {
            TelemetryError::Filter(error) => Self::settings("NATTER_LOG", error),
            error => Self::settings("OTEL_*", error),
        }
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }

    /// The exit code.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused(_) | Self::Migration(_) => Outcome::Wrong,
            Self::NotSet { .. } | Self::Settings { .. } | Self::Wrong(_) | Self::Server { .. } => {
                Outcome::Unknown
            }
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Server { server: "Postgres (NATTER_DATABASE_URL)", cause: error.into() }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        Self::Server { server: "NATS (NATTER_NATS_URL)", cause: error.into() }
    }
}

impl From<PresenceError> for Failure {
    fn from(error: PresenceError) -> Self {
        Self::Server { server: "Redis (NATTER_REDIS_URL)", cause: error.into() }
    }
}
