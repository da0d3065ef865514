//! A log that is full refuses what users send, keeps what it has, and leaves room for the rest.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_e2e::{Person, Stage, soon, soon::within};
use serde_json::{Value, json};

/// Two hundred messages one after the other take some seconds, and more beside other stories.
const FILLED: Duration = Duration::from_mins(1);

/// Room for about two hundred of the longest messages.
static STAGE: Stage = Stage::with(|builder| builder.env("NATTER_LOG_MAX_BYTES", "3000000"));

#[tokio::test]
async fn sends_are_refused_clearly_and_nothing_unwritten_is_dropped() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).open_group("Full", &[]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    cluster.worker(0).terminate().await?;
    let filling = "x".repeat(15_000);
    let path = format!("/chats/{chat}/messages");
    let mut acked = 0;
    // Gateways look once a second how full it is: stop between 90 % and the brim.
    let refused: Value = within(FILLED, "it is too full", async || {
        let body = json!({"content": format!("{acked} {filling}")});
        let answer = ana.api(0).post(&path, body).await?;
        if answer.status() != 201 {
            return Ok(Some(answer.read(503)?));
        }
        acked += 1;
        if acked > 180 {
            soon("the gateways have seen it", async || {
                let small = json!({"chatId": chat, "content": "small"});
                Ok(anas.ask("send_message", small).await?.err())
            })
            .await?;
        }
        Ok(None)
    })
    .await?;
    ensure!(acked > 100, "{acked}");
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&json!("unavailable"), &json!("not_sent"))
    );
    let refused = serde_json::to_value(
        anas.refused("send_message", json!({"chatId": chat, "content": "small"})).await?,
    )?;
    assert_eq!(
        (&refused["code"], &refused["outcome"]),
        (&json!("unavailable"), &json!("not_sent"))
    );
    // A new chat writes to the feeds of all it has: one user could fill with it what is kept for
    // others' revocations. One that is there is found.
    let crowd = json!({"isGroup": true, "title": "Crowd", "participantIds": [ben.id]});
    let refused: Value = ana.api(0).post("/chats", crowd.clone()).await?.read(503)?;
    assert_eq!(refused["outcome"], "not_sent");
    anas.refused("create_chat", crowd).await?;
    let pair = json!({"isGroup": false, "participantIds": [ben.id]});
    let there: Value = ana.api(0).post("/chats", pair).await?.read(200)?;
    assert_eq!(there["id"], json!(direct));
    // Membership, and what ends a device's right to be here, still get through.
    ben.api(1).post(&format!("/chats/{chat}/join"), json!({})).await?.expect(200)?;
    anas.expect("system", |data| data["kind"] == "joined").await?;
    let tablet = ana.device("tablet").await?;
    let tablets = tablet.connect(1).await?;
    ana.api(0).delete(&format!("/devices/{}", tablet.id)).await?.expect(204)?;
    tablets.expect_close(4403).await?;
    // All of it is there, and once it is written there is room again.
    cluster.worker(0).start().await?;
    soon("there is room again", async || Ok(ana.api(0).say(chat, "room").await.ok())).await?;
    let mut told = 0;
    let mut after = 0;
    loop {
        let page = ben.api(1).history(chat, &format!("after={after}&limit=200")).await?;
        let long = page.messages.iter().filter(|message| message.content.len() > 15_000);
        told += long.count();
        after = page.to_seq;
        if !page.has_more {
            break;
        }
    }
    assert_eq!(told, acked);
    Ok(())
}
