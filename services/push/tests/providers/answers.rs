//! What each provider makes of what its service answers.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use natter_e2e::push_services::Step;
use natter_protocol::push::Provider;
use natter_push::providers::{Kind, Notice, Outcome};
use serde_json::json;

use crate::support::{ALL, accepted, notice, retry, stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_arrives_as_it_was_meant() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    assert_eq!(providers.configured(), ALL);
    for provider in ALL {
        let target = services.register(provider)?;
        let sent = notice();
        accepted(&providers.send(&target, &sent).await)?;
        let desk = services.desk(provider);
        let pushed = desk.pushes(1).await?;
        let came = &pushed[0].notice;
        assert_eq!(came["kind"], "message");
        assert_eq!(came["messageId"], sent.message_id.to_string());
        assert_eq!(came["chatId"], json!(sent.chat_id));
        assert_eq!(came["deviceId"], sent.device_id.to_string());
        assert_eq!(came["title"], sent.title);
        assert_eq!(came["body"], "Hello Ben");
        assert_eq!(came["unread"], 3);
        assert_eq!(desk.violations(), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_not_sent_and_a_test_needs_no_chat() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let kind = Kind::Test;
        let test = Notice { kind, chat_id: None, body: None, sender: None, ..notice() };
        accepted(&providers.send(&target, &test).await)?;
        let desk = services.desk(provider);
        let came = desk.pushes(1).await?.remove(0).notice;
        assert_eq!(came["kind"], "test");
        ensure!(came.get("chatId").is_none() && came.get("sender").is_none(), "{came}");
        ensure!(came.get("body").is_none_or(|body| body == ""), "{came}");
        assert_eq!(desk.violations(), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_none_any_more_is_gone() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        services.unregister(&target);
        let outcome = providers.send(&target, &notice()).await;
        ensure!(matches!(outcome, Outcome::Gone { .. }), "{provider}: {outcome:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_says_when_it_takes_more() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        for status in [429, 503] {
            desk.next([
                Step::with(status, "retry-after", "120"),
                Step::with(status, "retry-after", soon.clone()),
                Step::status(status),
            ]);
            let in_seconds = retry(&providers.send(&target, &notice()).await)?;
            assert_eq!(in_seconds, Some(Duration::from_mins(2)), "{provider} {status}");
            let at_a_time = retry(&providers.send(&target, &notice()).await)?.unwrap_or_default();
            ensure!((60..=90).contains(&at_a_time.as_secs()), "{provider}: {at_a_time:?}");
            assert_eq!(retry(&providers.send(&target, &notice()).await)?, None);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_fault_the_same_notice_goes_under_the_same_name() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        let sent = notice();
        desk.next([Step::status(500)]);
        assert_eq!(retry(&providers.send(&target, &sent).await)?, None);
        // Twice, as when the first answer was lost.
        accepted(&providers.send(&target, &sent).await)?;
        accepted(&providers.send(&target, &sent).await)?;
        let pushed = desk.pushes(2).await?;
        ensure!(pushed[0].about.is_some() && pushed[0].about == pushed[1].about, "{provider}");
        assert_eq!(pushed[0].id, pushed[1].id, "{provider}");
        assert_eq!((desk.shown().len(), desk.left().len()), (1, 1), "{provider}");

        // The chat's next one is another, and takes its place.
        let next = Notice { message_id: notice().message_id, ..sent };
        accepted(&providers.send(&target, &next).await)?;
        let pushed = desk.pushes(3).await?;
        assert_eq!(pushed[2].about, pushed[0].about, "{provider}");
        ensure!(pushed[2].id.is_none() || pushed[2].id != pushed[0].id, "{provider}");
        assert_eq!((desk.shown().len(), desk.left().len()), (2, 1), "{provider}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_is_lost_counts_as_accepted() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        desk.next([Step::Lose]);
        accepted(&providers.send(&target, &notice()).await)?;
        assert_eq!((desk.taken(), desk.shown().len()), (1, 0));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn statuses_without_words() -> Result<()> {
    let (services, providers) = stage(&[("NATTER_PUSH_FAILURES", "1000")]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        for status in
            [200_u16, 201, 202, 204, 302, 307, 400, 403, 408, 410, 413, 429, 500, 502, 503]
        {
            desk.next([Step::status(status)]);
            let outcome = providers.send(&target, &notice()).await;
            let expected = match (provider, status) {
                (_, 200..300) => "accepted",
                // Of a page that is not FCM's nothing follows for the target.
                (Provider::Fcm, 410) => "refused",
                (_, 410) => "gone",
                // Something is wrong with our own account or key, and not with the device.
                (Provider::Fcm | Provider::Apns, 403) | (_, 408 | 429 | 500..) => "retry",
                _ => "refused",
            };
            assert_eq!(outcome.as_str(), expected, "{provider} {status}: {outcome:?}");
            let answer = outcome.answer().as_str();
            ensure!(answer.starts_with(&status.to_string()), "{provider} {status}: {answer}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let elsewhere = natter_e2e::PushServices::start().await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let away = elsewhere.env();
        let url = away.iter().find(|(name, _)| *name == "NATTER_PUSH_WEBHOOK_URL");
        let url = url.map(|(_, url)| url.clone()).unwrap_or_default();
        services.desk(provider).next([Step::with(307, "location", url)]);
        let outcome = providers.send(&target, &notice()).await;
        ensure!(matches!(outcome, Outcome::Refused { .. }), "{provider}: {outcome:?}");
    }
    assert_eq!(elsewhere.webhook.desk.arrived(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_expired_is_not_sent() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let old = notice();
        let old = Notice { expires_at: old.sent_at, ..old };
        let outcome = providers.send(&target, &old).await;
        ensure!(matches!(outcome, Outcome::Refused { .. }), "{provider}: {outcome:?}");
        assert_eq!(services.desk(provider).arrived(), 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_not_configured_refuses() -> Result<()> {
    let services = natter_e2e::PushServices::start().await?;
    let providers = crate::support::providers(&[])?;
    assert_eq!(providers.configured(), []);
    for provider in ALL {
        let outcome = providers.send(&services.register(provider)?, &notice()).await;
        ensure!(matches!(outcome, Outcome::Refused { .. }), "{provider}: {outcome:?}");
        assert_eq!(providers.ready(provider), Ok(()));
        assert_eq!(providers.concurrency(provider), 0);
    }
    Ok(())
}
