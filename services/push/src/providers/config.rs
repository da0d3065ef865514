//! What the operator says of each provider.

use std::{path::PathBuf, time::Duration};

use clap::Args;
pub use natter_outbound::Bounds;
use natter_protocol::push::{Hosts, Provider};
use secrecy::SecretString;
use url::Url;

use super::ConfigError;

/// The providers' settings. A provider is configured when its key, account or URL is.
#[derive(Args, Clone, Debug)]
pub struct ProvidersArgs {
    /// Web Push: the application server's private key of P-256, a PEM file (PKCS#8 or SEC 1).
    #[arg(long, env = "NATTER_PUSH_VAPID_KEY_FILE")]
    pub push_vapid_key_file: Option<PathBuf>,

    /// Web Push: whom a push service writes to about this deployment, as `mailto:` or `https:`.
    #[arg(long, env = "NATTER_PUSH_VAPID_SUBJECT")]
    pub push_vapid_subject: Option<String>,

    /// Web Push: hosts that endpoints may be at, with commas between them, each with those below it.
    #[arg(long, env = "NATTER_PUSH_HOSTS", default_value = Hosts::DEFAULT)]
    pub push_hosts: Hosts,

    /// FCM: the service account's key, the JSON file that Google gives out.
    #[arg(long, env = "NATTER_PUSH_FCM_ACCOUNT_FILE")]
    pub push_fcm_account_file: Option<PathBuf>,

    /// FCM: where it is.
    #[arg(long, env = "NATTER_PUSH_FCM_URL", default_value = "https://fcm.googleapis.com")]
    pub push_fcm_url: Url,

    /// APNs: the provider token's private key, the `.p8` file that Apple gives out.
    #[arg(long, env = "NATTER_PUSH_APNS_KEY_FILE")]
    pub push_apns_key_file: Option<PathBuf>,

    /// APNs: that key's id.
    #[arg(long, env = "NATTER_PUSH_APNS_KEY_ID")]
    pub push_apns_key_id: Option<String>,

    /// APNs: the team's id.
    #[arg(long, env = "NATTER_PUSH_APNS_TEAM_ID")]
    pub push_apns_team_id: Option<String>,

    /// APNs: the app's bundle id.
    #[arg(long, env = "NATTER_PUSH_APNS_TOPIC")]
    pub push_apns_topic: Option<String>,

    /// APNs: where it is.
    #[arg(long, env = "NATTER_PUSH_APNS_URL", default_value = "https://api.push.apple.com")]
    pub push_apns_url: Url,

    /// APNs: where its sandbox is.
    #[arg(
        long,
        env = "NATTER_PUSH_APNS_SANDBOX_URL",
        default_value = "https://api.sandbox.push.apple.com"
    )]
    pub push_apns_sandbox_url: Url,

    /// Webhook: the URL that notices are sent to.
    #[arg(long, env = "NATTER_PUSH_WEBHOOK_URL")]
    pub push_webhook_url: Option<Url>,

    /// Webhook: what notices are signed with, `whsec_` and 24 to 64 bytes in base64.
    #[arg(long, env = "NATTER_PUSH_WEBHOOK_SECRET", hide_env_values = true)]
    pub push_webhook_secret: Option<SecretString>,

    /// Notices that are with a provider at the same time: 1 to 10,000.
    #[arg(long, env = "NATTER_PUSH_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub push_concurrency: u16,

    /// Seconds that a provider may take to answer: 1 to 60.
    #[arg(long, env = "NATTER_PUSH_DEADLINE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub push_deadline_seconds: u64,

    /// Failures in a row after which a provider is left alone for a while: 1 to 10,000.
    #[arg(long, env = "NATTER_PUSH_FAILURES", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub push_failures: u32,

    /// Seconds for which it is, at first; twice as long each time, up to ten times: 1 to 3,600.
    #[arg(long, env = "NATTER_PUSH_PAUSE_SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub push_pause_seconds: u64,
}

/// How providers are used.
#[derive(Clone, Debug)]
pub struct ProvidersConfig {
    /// Web Push.
    pub web_push: Option<WebPushConfig>,
    /// Firebase Cloud Messaging.
    pub fcm: Option<FcmConfig>,
    /// Apple's Push Notification service.
    pub apns: Option<ApnsConfig>,
    /// The webhook.
    pub webhook: Option<WebhookConfig>,
    /// What holds for each of them.
    pub bounds: Bounds,
}

/// Web Push.
#[derive(Clone, Debug)]
pub struct WebPushConfig {
    /// The private key, PEM.
    pub key: SecretString,
    /// `mailto:` or `https:`.
    pub subject: String,
    /// Where endpoints may be.
    pub hosts: Hosts,
}

/// Firebase Cloud Messaging.
#[derive(Clone, Debug)]
pub struct FcmConfig {
    /// The service account, JSON.
    pub account: SecretString,
    /// Where it is.
    pub url: Url,
}

/// Apple's Push Notification service.
#[derive(Clone, Debug)]
pub struct ApnsConfig {
    /// The private key, PEM.
    pub key: SecretString,
    /// Its id.
    pub key_id: String,
    /// The team's id.
    pub team_id: String,
    /// The app's bundle id.
    pub topic: String,
    /// Where it is.
    pub url: Url,
    /// Where its sandbox is.
    pub sandbox_url: Url,
}

/// The webhook.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Where notices go.
    pub url: Url,
    /// `whsec_…`.
    pub secret: SecretString,
}

impl ProvidersConfig {
    /// Which there are.
    #[must_use]
    pub fn providers(&self) -> Vec<Provider> {
        let all = [
            (Provider::WebPush, self.web_push.is_some()),
            (Provider::Fcm, self.fcm.is_some()),
            (Provider::Apns, self.apns.is_some()),
            (Provider::Webhook, self.webhook.is_some()),
        ];
        all.into_iter().filter_map(|(provider, there)| there.then_some(provider)).collect()
    }
}

impl TryFrom<&ProvidersArgs> for ProvidersConfig {
    type Error = ConfigError;

    fn try_from(args: &ProvidersArgs) -> Result<Self, ConfigError> {
        let web_push = match &args.push_vapid_key_file {
            None => None,
            Some(file) => Some(WebPushConfig {
                key: read("NATTER_PUSH_VAPID_KEY_FILE", file)?,
                subject: needed("NATTER_PUSH_VAPID_SUBJECT", args.push_vapid_subject.as_ref())?,
                hosts: args.push_hosts.clone(),
            }),
        };
        let fcm = match &args.push_fcm_account_file {
            None => None,
            Some(file) => Some(FcmConfig {
                account: read("NATTER_PUSH_FCM_ACCOUNT_FILE", file)?,
                url: args.push_fcm_url.clone(),
            }),
        };
        let apns = match &args.push_apns_key_file {
            None => None,
            Some(file) => Some(ApnsConfig {
                key: read("NATTER_PUSH_APNS_KEY_FILE", file)?,
                key_id: needed("NATTER_PUSH_APNS_KEY_ID", args.push_apns_key_id.as_ref())?,
                team_id: needed("NATTER_PUSH_APNS_TEAM_ID", args.push_apns_team_id.as_ref())?,
                topic: needed("NATTER_PUSH_APNS_TOPIC", args.push_apns_topic.as_ref())?,
                url: args.push_apns_url.clone(),
                sandbox_url: args.push_apns_sandbox_url.clone(),
            }),
        };
        let webhook = match &args.push_webhook_url {
            None => None,
            Some(url) => Some(WebhookConfig {
                url: url.clone(),
                secret: needed("NATTER_PUSH_WEBHOOK_SECRET", args.push_webhook_secret.as_ref())?,
            }),
        };
        let deadline = Duration::from_secs(args.push_deadline_seconds);
        let bounds = Bounds {
            concurrency: usize::from(args.push_concurrency),
            connect: Bounds::default().connect.min(deadline),
            deadline,
            failures: args.push_failures,
            pause: Duration::from_secs(args.push_pause_seconds),
        };
        Ok(Self { web_push, fcm, apns, webhook, bounds })
    }
}

/// A setting that goes with another.
fn needed<T: Clone>(setting: &'static str, value: Option<&T>) -> Result<T, ConfigError> {
    value.cloned().ok_or_else(|| ConfigError { setting, reason: "is missing".to_owned() })
}

fn read(setting: &'static str, file: &PathBuf) -> Result<SecretString, ConfigError> {
    let wrong = |reason| ConfigError { setting, reason };
    let text = std::fs::read_to_string(file);
    text.map(SecretString::from).map_err(|error| wrong(format!("cannot be read: {error}")))
}
