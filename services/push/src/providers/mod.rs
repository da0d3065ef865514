//! One notice to one device, by whoever carries it there.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | what the operator says of each |
//! | [`notice`] | what is to be shown |
//! | [`payload`] | the notice as JSON, within a bound |
//! | [`web_push`], [`encryption`] | browsers |
//! | [`fcm`] | Firebase Cloud Messaging |
//! | [`apns`] | Apple |
//! | [`webhook`] | everything else |
//! | `lane` | what each has for itself: places, deadline, circuits |
//! | `keys` | private keys that sign |
//! | `measures` | what is counted and timed |
//!
//! The requests themselves, circuits and what became of one are [`natter_outbound`]'s.
//!
//! A notice may be sent again after its answer was lost: the same message to the same device has the same
//! name with every provider (the topic of Web Push, FCM's and Apple's collapse ids, Apple's `apns-id`,
//! `webhook-id`), and devices tell by `messageId` what they have shown.
//!
//! What says something about the target is [`Outcome::Gone`] or [`Outcome::Refused`]. What is wrong with
//! the deployment (FCM's account, Apple's key) is [`Outcome::Retry`] and said loudly in the log: nothing
//! is lost if it is put right in time. An answer that a circuit counts as a failure is any `Retry`.

pub mod apns;
pub mod config;
pub mod encryption;
pub mod fcm;
mod keys;
mod lane;
mod measures;
pub mod notice;
pub mod payload;
pub mod web_push;
pub mod webhook;

use std::{fmt::Display, time::Duration};

use apns::Apns;
pub use config::{ProvidersArgs, ProvidersConfig};
use fcm::Fcm;
use lane::Lane;
pub use natter_outbound::{Answer, Outcome};
use natter_protocol::push::{Provider, Target};
pub use notice::{Kind, Notice};
use time::OffsetDateTime;
use web_push::WebPush;
use webhook::Webhook;

/// The providers that are configured.
#[derive(Debug)]
pub struct Providers {
    configured: Vec<Provider>,
    web_push: Option<(Lane, WebPush)>,
    fcm: Option<(Lane, Fcm)>,
    apns: Option<(Lane, Apns)>,
    webhook: Option<(Lane, Webhook)>,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[error("{setting}{}: {reason}", flag(setting))]
pub struct ConfigError {
    /// The setting's variable.
    pub setting: &'static str,
    /// What is wrong with it, without its value.
    pub reason: String,
}

/// The same setting on the command line, in brackets.
fn flag(setting: &str) -> String {
    let name = setting.strip_prefix("NATTER_").map(|name| name.replace('_', "-").to_lowercase());
    name.map(|name| format!(" (--{name})")).unwrap_or_default()
}

impl ConfigError {
    fn client(error: impl Display) -> Self {
        Self { setting: "the HTTP client", reason: error.to_string() }
    }
}

impl Providers {
    /// Those that `config` has.
    ///
    /// # Errors
    /// A key that cannot be used, or a client that cannot be made.
    pub fn new(config: &ProvidersConfig) -> Result<Self, ConfigError> {
        let bounds = &config.bounds;
        let lane = |provider| Lane::new(provider, bounds);
        let web_push = config.web_push.as_ref().map(|config| WebPush::new(config, bounds));
        let fcm = config.fcm.as_ref().map(|config| Fcm::new(config, bounds));
        let apns = config.apns.as_ref().map(|config| Apns::new(config, bounds));
        let webhook = config.webhook.as_ref().map(|config| Webhook::new(config, bounds));
        Ok(Self {
            configured: config.providers(),
            web_push: web_push.transpose()?.map(|client| (lane(Provider::WebPush), client)),
            fcm: fcm.transpose()?.map(|client| (lane(Provider::Fcm), client)),
            apns: apns.transpose()?.map(|client| (lane(Provider::Apns), client)),
            webhook: webhook.transpose()?.map(|client| (lane(Provider::Webhook), client)),
        })
    }

    /// Which are configured.
    #[must_use]
    pub fn configured(&self) -> &[Provider] {
        &self.configured
    }

    /// Whether a provider takes anything now, or for how long it is to be left alone: it has failed
    /// again and again. One that is not configured takes everything, and refuses it.
    ///
    /// # Errors
    /// How long.
    pub fn ready(&self, provider: Provider) -> Result<(), Duration> {
        self.lane(provider).map_or(Ok(()), Lane::ready)
    }

    /// How many notices may be with a provider now: all its places, none while it is to be left alone, and
    /// one when it is to be tried whether it is well again. What is sent beyond that comes back as
    /// [`Outcome::Retry`] that was not `sent`.
    #[must_use]
    pub fn room(&self, provider: Provider) -> usize {
        self.lane(provider).map_or(0, Lane::room)
    }

    /// Notices that a provider takes at the same time; further ones wait. 0 for one that is not
    /// configured.
    #[must_use]
    pub fn concurrency(&self, provider: Provider) -> usize {
        self.lane(provider).map_or(0, Lane::concurrency)
    }

    /// Sends `notice` to `target` and tells what the provider made of it. It may be sent again, to the
    /// same effect. It ends by the deadline, the wait for a place aside, and may be dropped before.
    pub async fn send(&self, target: &Target, notice: &Notice) -> Outcome {
        let outcome = match target {
            Target::WebPush(subscription) => {
                let Some((lane, client)) = &self.web_push else { return unconfigured(target) };
                match client.prepare(subscription, notice) {
                    Ok((origin, push)) => lane.carry(&origin, client.deliver(push)).await,
                    Err(outcome) => outcome,
                }
            }
            Target::Fcm(device) => {
                let Some((lane, client)) = &self.fcm else { return unconfigured(target) };
                match client.prepare(device, notice) {
                    Ok(push) => lane.carry(&client.origin(), client.deliver(push)).await,
                    Err(outcome) => outcome,
                }
            }
            Target::Apns(device) => {
                let Some((lane, client)) = &self.apns else { return unconfigured(target) };
                match client.prepare(device, notice) {
                    Ok((origin, push)) => lane.carry(&origin, client.deliver(push)).await,
                    Err(outcome) => outcome,
                }
            }
            Target::Webhook(device) => {
                let Some((lane, client)) = &self.webhook else { return unconfigured(target) };
                match client.prepare(device, notice) {
                    Ok(push) => lane.carry(&client.origin(), client.deliver(push)).await,
                    Err(outcome) => outcome,
                }
            }
        };
        if let Some(lane) = self.lane(target.provider()) {
            lane.count(&outcome);
        }
        outcome
    }

    fn lane(&self, provider: Provider) -> Option<&Lane> {
        match provider {
            Provider::WebPush => self.web_push.as_ref().map(|(lane, _)| lane),
            Provider::Fcm => self.fcm.as_ref().map(|(lane, _)| lane),
            Provider::Apns => self.apns.as_ref().map(|(lane, _)| lane),
            Provider::Webhook => self.webhook.as_ref().map(|(lane, _)| lane),
        }
    }
}

fn unconfigured(target: &Target) -> Outcome {
    refused(format_args!("{} is not configured", target.provider()))
}

fn refused(why: impl Display) -> Outcome {
    Outcome::Refused { answer: Answer::new(why) }
}

/// For how long a notice is still to be shown.
///
/// # Errors
/// When it is not any more.
fn time_left(notice: &Notice, now: OffsetDateTime) -> Result<Duration, Outcome> {
    let left = Duration::try_from(notice.expires_at - now).unwrap_or_default();
    if left.is_zero() { Err(refused("not sent: it has expired")) } else { Ok(left) }
}
