//! The webhook: what it is signed with.

use anyhow::{Result, ensure};
use natter_push::providers::Outcome;

use crate::support::{notice, providers, stage};

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_is_refused() -> Result<()> {
    let (services, _) = stage(&[]).await?;
    let mut env = services.env();
    env.retain(|(name, _)| *name != "NATTER_PUSH_WEBHOOK_SECRET");
    env.push(("NATTER_PUSH_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()));
    let outcome = providers(&env)?.send(&services.webhook.register(), &notice()).await;
    ensure!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    assert_eq!(outcome.answer().as_str(), "401 Unauthorized");
    assert_eq!(services.webhook.desk.violations(), ["the signature is none"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_work_are_told_without_their_values() -> Result<()> {
    let (services, _) = stage(&[]).await?;
    for (setting, value) in [
        ("NATTER_PUSH_WEBHOOK_SECRET", "whsec_c2hvcnQ="),
        ("NATTER_PUSH_WEBHOOK_SECRET", "whsec_%%%"),
        ("NATTER_PUSH_WEBHOOK_URL", "ftp://secret.example.org/"),
        ("NATTER_PUSH_VAPID_SUBJECT", "somebody"),
        ("NATTER_PUSH_VAPID_KEY_FILE", "/nowhere/at/all"),
        ("NATTER_PUSH_FCM_ACCOUNT_FILE", "/nowhere/at/all"),
        ("NATTER_PUSH_APNS_KEY_FILE", "/nowhere/at/all"),
        ("NATTER_PUSH_APNS_TOPIC", ""),
    ] {
        let mut env = services.env();
        env.retain(|(name, _)| *name != setting);
        env.push((setting, value.to_owned()));
        let error = providers(&env).err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(error.starts_with(setting), "{setting}={value}: {error}");
        ensure!(value.is_empty() || !error.contains(value), "{error}");
    }
    for missing in
        ["NATTER_PUSH_WEBHOOK_SECRET", "NATTER_PUSH_VAPID_SUBJECT", "NATTER_PUSH_APNS_TEAM_ID"]
    {
        let mut env = services.env();
        env.retain(|(name, _)| *name != missing);
        let error = providers(&env).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(missing) && error.ends_with("): is missing"), "{error}");
    }
    Ok(())
}
