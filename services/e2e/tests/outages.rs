//! Coming back while Postgres is away: by what was kept of the device, and by the log.

use anyhow::{Result, ensure};
use natter_e2e::{Device, Person, Socket, Stage, soon};
use serde_json::json;

static STAGE: Stage = Stage::new();

/// Comes back with a cursor, as often as it takes.
async fn insist(device: &Device, gateway: usize, cursor: &str) -> Result<Socket> {
    let socket =
        soon("the device is let in", async || Ok(device.resume(gateway, cursor).await.ok()))
            .await?;
    ensure!(socket.ready()?.resumed, socket.failure("it was not resumed"));
    Ok(socket)
}

#[tokio::test]
async fn devices_come_back_and_resume_while_postgres_is_away() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?;
    let tablets = tablet.connect(1).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    // What is kept of a device is renewed as it connects, not as the chats change: what changed
    // since is on the feed.
    let added = ben.api(1).group("Added", &[&ana]).await?.id;
    phone.expect("chat_added", |data| data["id"] == json!(added)).await?;
    let cursor = phone.cursor()?;

    ana.api(0).delete(&format!("/devices/{}", tablet.id)).await?.expect(204)?;
    tablets.expect_close(4403).await?;
    cluster.postgres().kill().await?;
    drop(phone);
    bens.say(chat, "while she was away").await?;
    bens.say(added, "there too").await?;
    let back = insist(&ana.first, 0, &cursor).await?;
    back.hears(chat, "while she was away").await?;
    back.hears(added, "there too").await?;
    back.expect("resume_done", |_| true).await?;
    bens.say(chat, "live").await?;
    back.hears(chat, "live").await?;
    back.say(added, "and back").await?;
    bens.hears(added, "and back").await?;
    back.check_feeds()?;
    // A new device is not known, and a revoked one stays out.
    let refused = tablet.connect(0).await;
    ensure!(refused.is_err(), "a revoked device was let in");

    cluster.postgres().start().await?;
    soon("all of it is in the history", async || {
        let page = ben.api(0).get(&format!("/chats/{added}/messages")).await;
        let Ok(page) = page.and_then(|answer| answer.read::<serde_json::Value>(200)) else {
            return Ok(None);
        };
        let whole = page["partial"] != true && page.to_string().contains("and back");
        Ok(whole.then_some(()))
    })
    .await
}

#[tokio::test]
async fn postgres_hangs_and_a_device_comes_back_all_the_same() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let cursor = phone.cursor()?;
    cluster.postgres().pause()?;
    drop(phone);
    bens.say(chat, "meanwhile").await?;
    // On the node that knew her, and on the other.
    for gateway in [0, 1] {
        let back = insist(&ana.first, gateway, &cursor).await?;
        back.hears(chat, "meanwhile").await?;
    }
    cluster.postgres().resume()?;
    Ok(())
}
