//! FCM: access tokens, and its words.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::future::join_all;
use natter_e2e::{push_services::Step, soon};

use crate::support::{accepted, notice, retry, stage};

#[tokio::test(flavor = "multi_thread")]
async fn many_share_one_access_token() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let providers = Arc::new(providers);
    let sending = (0..40).map(|_| {
        let (target, providers) = (services.fcm.register(), providers.clone());
        tokio::spawn(async move { providers.send(&target, &notice()).await })
    });
    for outcome in join_all(sending).await {
        accepted(&outcome?)?;
    }
    assert_eq!(services.fcm.oauth.arrived(), 1);

    // One that is revoked is exchanged, once for all of them.
    services.fcm.revoke();
    let target = services.fcm.register();
    accepted(&providers.send(&target, &notice()).await)?;
    accepted(&providers.send(&target, &notice()).await)?;
    assert_eq!(services.fcm.oauth.arrived(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_is_exchanged_before_it_expires() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    services.fcm.grant_for(2);
    let target = services.fcm.register();
    soon("another access token", async || {
        accepted(&providers.send(&target, &notice()).await)?;
        Ok((services.fcm.oauth.arrived() > 1).then_some(()))
    })
    .await?;
    assert_eq!(services.fcm.desk.violations(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_access_token_a_notice_waits() -> Result<()> {
    let (services, providers) = stage(&[("NATTER_PUSH_DEADLINE_SECONDS", "1")]).await?;
    let target = services.fcm.register();
    let refused = r#"{"error":"invalid_grant","error_description":"as told"}"#;
    services.fcm.oauth.next([
        Step::with(503, "retry-after", "7"),
        Step::Answer { status: 400, headers: vec![], body: refused.to_owned() },
        Step::Answer { status: 200, headers: vec![], body: "{}".to_owned() },
        Step::HangUp(200),
        Step::Huge(200),
        Step::Hang,
    ]);
    let mut answers = Vec::new();
    for _ in 0..6 {
        let outcome = providers.send(&target, &notice()).await;
        let after = retry(&outcome)?.map_or(0, |after| after.as_secs());
        answers.push((outcome.answer().to_string(), after));
    }
    let expected = [
        ("no access token: 503 Service Unavailable", 7),
        ("no access token: 400 invalid_grant", 0),
        ("no access token: 200 OK", 0),
        ("no access token: 200 OK", 0),
        ("no access token: 200 OK", 0),
        ("no answer in time", 0),
    ];
    assert_eq!(answers, expected.map(|(answer, after)| (answer.to_owned(), after)));
    assert_eq!(services.fcm.desk.arrived(), 0);
    accepted(&providers.send(&target, &notice()).await)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn its_words() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    let target = services.fcm.register();
    for (status, code, expected) in [
        (404, "UNREGISTERED", "gone"),
        (403, "SENDER_ID_MISMATCH", "refused"),
        (400, "INVALID_ARGUMENT", "refused"),
        (429, "QUOTA_EXCEEDED", "retry"),
        (503, "UNAVAILABLE", "retry"),
        (500, "INTERNAL", "retry"),
        (403, "PERMISSION_DENIED", "retry"),
    ] {
        services.fcm.desk.next([Step::fcm(status, code)]);
        let outcome = providers.send(&target, &notice()).await;
        assert_eq!(outcome.as_str(), expected, "{code}");
        assert_eq!(outcome.answer().as_str(), format!("{status} {code}"));
    }
    // Twice, since the first makes it exchange its access token.
    services.fcm.desk.next([Step::fcm(401, "THIRD_PARTY_AUTH_ERROR"), Step::fcm(401, "X")]);
    retry(&providers.send(&target, &notice()).await)?;
    ensure!(services.fcm.oauth.arrived() == 2);
    Ok(())
}
