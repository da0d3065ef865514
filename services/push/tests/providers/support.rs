//! Providers as the command line makes them, and notices.

use anyhow::{Result, bail, ensure};
use clap::Parser;
use natter_e2e::PushServices;
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, UserId},
    push::Provider,
};
use natter_push::providers::{Kind, Notice, Outcome, Providers, ProvidersArgs, ProvidersConfig};
use time::{Duration, OffsetDateTime};

/// All of them.
pub const ALL: [Provider; 4] =
    [Provider::WebPush, Provider::Fcm, Provider::Apns, Provider::Webhook];

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    providers: ProvidersArgs,
}

/// Providers with settings, as flags.
pub fn providers(settings: &[(&str, String)]) -> Result<Providers> {
    let flags = settings.iter().map(|(name, value)| {
        let name = name.trim_start_matches("NATTER_").to_lowercase().replace('_', "-");
        format!("--{name}={value}")
    });
    let cli = Cli::try_parse_from(["test".to_owned()].into_iter().chain(flags))?;
    Ok(Providers::new(&ProvidersConfig::try_from(&cli.providers)?)?)
}

/// Services, and providers that use them, with more settings.
pub async fn stage(settings: &[(&'static str, &str)]) -> Result<(PushServices, Providers)> {
    let services = PushServices::start().await?;
    let more = settings.iter().map(|(name, value)| (*name, (*value).to_owned()));
    let all: Vec<_> = services.env().into_iter().chain(more).collect();
    let providers = providers(&all)?;
    Ok((services, providers))
}

/// A message of a new chat, for a new device.
pub fn notice() -> Notice {
    let now = OffsetDateTime::now_utc();
    Notice {
        message_id: MessageId::generate(),
        chat_id: Some(ChatId::generate()),
        device_id: DeviceId::generate(),
        kind: Kind::Message,
        title: "Ada".to_owned(),
        body: Some("Hello Ben".to_owned()),
        sender: Some(UserId::generate()),
        unread: 3,
        sent_at: now,
        expires_at: now + Duration::HOUR,
    }
}

/// It was accepted.
pub fn accepted(outcome: &Outcome) -> Result<()> {
    ensure!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    Ok(())
}

/// It is to be sent again, and when.
pub fn retry(outcome: &Outcome) -> Result<Option<std::time::Duration>> {
    match outcome {
        Outcome::Retry { after, .. } => Ok(*after),
        other => bail!("{other:?}"),
    }
}
