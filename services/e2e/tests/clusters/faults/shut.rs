//! A one-to-one in which one has blocked the other stays shut for those who come in while Postgres is
//! away: by what was kept of the device, and by what its user's feed has told since.

use anyhow::{Result, ensure};
use natter_e2e::{Device, Person, Socket, Stage, soon};
use natter_protocol::ids::ChatId;
use reqwest::Method;
use serde_json::json;

static STAGE: Stage = Stage::new();

async fn block(who: &Person, whom: &Person) -> Result<()> {
    let path = format!("/users/{}/block", whom.id);
    who.api(0).request(Method::PUT, &path).send().await?.error_for_status()?;
    Ok(())
}

async fn come_in(device: &Device, gateway: usize) -> Result<Socket> {
    soon("the device is let in", async || Ok(device.connect(gateway).await.ok())).await
}

async fn refused(socket: &Socket, chat: ChatId) -> Result<()> {
    let data = json!({"chatId": chat, "content": "hello"});
    let refused = socket.refused("send_message", data).await?;
    ensure!(refused.code.as_str() == "forbidden", "{refused}");
    Ok(())
}

#[tokio::test]
async fn what_is_shut_stays_shut_without_postgres() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let dora = Person::register(&cluster, "Dora").await?;
    let with_ben = ana.api(0).direct(&ben).await?.id;
    let with_cleo = ana.api(0).direct(&cleo).await?.id;
    let with_dora = ana.api(0).direct(&dora).await?.id;
    // One is shut when the device is first let in, and is kept with it; of the other its user's feed
    // tells after that.
    block(&ben, &ana).await?;
    let phone = ana.connect(0).await?;
    phone.say(with_dora, "here").await?;
    refused(&phone, with_ben).await?;
    block(&ana, &cleo).await?;
    phone.expect("blocking", |data| data["userId"] == json!(cleo.id)).await?;
    let doras = dora.connect(0).await?;
    cluster.postgres().kill().await?;
    drop(phone);
    let back = come_in(&ana.first, 1).await?;
    refused(&back, with_ben).await?;
    refused(&back, with_cleo).await?;
    back.say(with_dora, "still").await?;
    doras.hears(with_dora, "still").await?;
    cluster.postgres().start().await?;
    Ok(())
}
