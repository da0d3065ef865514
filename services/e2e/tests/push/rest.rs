//! Devices register, are tested, and are forgotten.

use anyhow::{Result, ensure};
use natter_e2e::{Person, soon};
use natter_protocol::notify::{PushKey, PushReason, PushState, PushTarget};
use serde_json::json;

use crate::push::support::{Offline, STAGE, pushed, register, services, skips};

#[tokio::test]
async fn a_device_registers_itself_and_shows_no_secrets() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let eve = Person::register(&cluster, "Eve").await?;
    let key: PushKey = ben.person.api(0).get("/push/key").await?.read(200)?;
    assert_eq!(key.public_key.as_deref(), Some(services().web_push.key.as_str()));
    assert_eq!(key.providers.len(), 4);

    let path = format!("/devices/{}/push", ben.person.first.id);
    let shown = ben.person.api(1).get(&path).await?.expect(200)?.to_string();
    let target = json!(ben.target);
    for secret in [&target["endpoint"], &target["keys"]["auth"], &target["keys"]["p256dh"]] {
        ensure!(!shown.contains(secret.as_str().unwrap_or_default()), "{shown}");
    }
    eve.api(0).get(&path).await?.refused(404, "not_found")?;
    eve.api(0).delete(&path).await?.refused(404, "not_found")?;
    eve.api(0).put(&path, target.clone()).await?.refused(403, "forbidden")?;
    eve.api(0).post(&format!("{path}/test"), json!({})).await?.refused(404, "not_found")?;

    let elsewhere = |endpoint: &str| {
        let mut target = target.clone();
        target["endpoint"] = json!(endpoint);
        target
    };
    for endpoint in ["https://169.254.169.254/latest", "https://evil.example.org/", "nonsense"] {
        let answer = ben.person.api(0).put(&path, elsewhere(endpoint)).await?;
        answer.refused(400, "bad_request")?;
    }
    ben.person.api(0).delete(&path).await?.expect(204)?;
    ben.person.api(0).delete(&path).await?.refused(404, "not_found")?;
    Ok(())
}

#[tokio::test]
async fn a_test_reaches_the_device_and_its_outcome_shows() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let path = format!("/devices/{}/push", ben.person.first.id);
    ben.person.api(0).post(&format!("{path}/test"), json!({})).await?.expect(202)?;
    let again = ben.person.api(0).post(&format!("{path}/test"), json!({})).await?;
    again.refused(429, "rate_limited")?;
    soon("the outcome shows", async || {
        let target: PushTarget = ben.person.api(1).get(&path).await?.read(200)?;
        Ok(target.last.filter(|last| last.state == PushState::Delivered))
    })
    .await?;
    let pushed = ben.pushed();
    assert_eq!(pushed.len(), 1);
    assert_eq!(pushed[0].notice["kind"], "test");
    Ok(())
}

#[tokio::test]
async fn whoever_logs_out_or_gives_the_browser_away_hears_nothing_more() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let eve = Person::register(&cluster, "Eve").await?;
    // The same browser, and Ben has not logged out.
    register(&eve.first, &ben.target).await?;
    let sent = ana.api(0).say(chat, "for Ben alone").await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::NoTarget).await?;

    let tablet = ben.person.device("tablet").await?;
    let target = services().subscribe()?;
    register(&tablet, &target).await?;
    tablet.api(0).post("/auth/logout", json!({})).await?.expect(204)?;
    let sent = ana.api(0).say(chat, "still for Ben").await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::NoTarget).await?;
    ensure!(ben.pushed().is_empty() && pushed(&target).is_empty(), "somebody heard");
    Ok(())
}
