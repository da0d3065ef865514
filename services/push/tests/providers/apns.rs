//! APNs: provider tokens, its sandbox, and its words.

use anyhow::Result;
use natter_e2e::push_services::Step;

use crate::support::{accepted, notice, retry, stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_used_until_it_is_too_old() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let target = services.apns.register(false);
    for _ in 0..20 {
        accepted(&providers.send(&target, &notice()).await)?;
    }
    assert_eq!(services.apns.tokens(), 1);
    services.apns.expire_tokens();
    accepted(&providers.send(&target, &notice()).await)?;
    assert_eq!(services.apns.tokens(), 2);

    // Once only: a clock that is wrong is no reason to go on for ever.
    let expired = || Step::apns(403, "ExpiredProviderToken");
    services.apns.desk.next([expired(), expired()]);
    let outcome = providers.send(&target, &notice()).await;
    retry(&outcome)?;
    assert_eq!(outcome.answer().as_str(), "403 ExpiredProviderToken");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_sandbox_goes_there() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    accepted(&providers.send(&services.apns.register(true), &notice()).await)?;
    assert_eq!(services.apns.desk.violations(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_words() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let target = services.apns.register(false);
    for (status, reason, expected) in [
        (400, "BadDeviceToken", "gone"),
        (400, "DeviceTokenNotForTopic", "gone"),
        (410, "Unregistered", "gone"),
        (410, "ExpiredToken", "gone"),
        (400, "BadTopic", "refused"),
        (413, "PayloadTooLarge", "refused"),
        (403, "InvalidProviderToken", "retry"),
        (429, "TooManyRequests", "retry"),
        (429, "TooManyProviderTokenUpdates", "retry"),
        (500, "InternalServerError", "retry"),
        (503, "Shutdown", "retry"),
    ] {
        services.apns.desk.next([Step::apns(status, reason)]);
        let outcome = providers.send(&target, &notice()).await;
        assert_eq!(outcome.as_str(), expected, "{reason}");
        assert_eq!(outcome.answer().as_str(), format!("{status} {reason}"));
    }
    Ok(())
}
