//! One notice to one device, by whoever carries it there.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | what the operator says of each |
//! | [`notice`] | what is to be shown |
//! | [`outcome`] | what became of it |

pub mod config;
pub mod notice;
pub mod outcome;

use std::time::Duration;

pub use config::{ProvidersArgs, ProvidersConfig};
use natter_protocol::push::{Provider, Target};
pub use notice::{Kind, Notice};
pub use outcome::{Answer, Outcome};

/// The providers that are configured. Cloning is not needed: it is shared by reference.
#[derive(Debug)]
pub struct Providers {
    configured: Vec<Provider>,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct ConfigError {
    /// The setting's variable.
    pub setting: &'static str,
    /// What is wrong with it, without its value.
    pub reason: String,
}

impl Providers {
    /// Those that `config` has.
    ///
    /// # Errors
    /// A key that cannot be read, or a client that cannot be made.
    pub fn new(config: ProvidersConfig) -> Result<Self, ConfigError> {
        Ok(Self { configured: config.providers() })
    }

    /// Which are configured.
    #[must_use]
    pub fn configured(&self) -> &[Provider] {
        &self.configured
    }

    /// Whether a provider takes anything now, or for how long it is to be left alone: it has failed
    /// again and again, or said so itself.
    ///
    /// # Errors
    /// How long.
    pub fn ready(&self, _provider: Provider) -> Result<(), Duration> {
        Ok(())
    }

    /// Notices that a provider takes at the same time; further ones wait.
    #[must_use]
    pub fn concurrency(&self, _provider: Provider) -> usize {
        1
    }

    /// Sends `notice` to `target` and tells what the provider made of it. It may be sent again, to the
    /// same effect. Ends by the deadline, and does not panic, whatever the provider answers.
    pub async fn send(&self, target: &Target, _notice: &Notice) -> Outcome {
        let provider = target.provider();
        Outcome::Refused { answer: Answer::new(format_args!("{provider} is not configured")) }
    }
}
