//! Logs: what people write, and what lets them in, is in none of them.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use natter_e2e::{Person, Socket, Stage, person::anonymous, socket::Presenting, tokens};
use serde_json::json;
use uuid::Uuid;

/// The most that anybody would turn on in production.
static STAGE: Stage = Stage::with(|builder| tokens::trusted(builder).env("NATTER_LOG", "debug"));

#[tokio::test]
async fn neither_messages_nor_secrets_are_logged() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let word = || format!("marker{}", Uuid::new_v4().simple());
    let ana = Person::register(&cluster, "Ana").await?;
    let mut ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let mut secrets = vec![("the secret of the tokens", cluster.jwt_secret().to_owned())];
    let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    for device in [&ana.first, &ben.first] {
        secrets.push(("an access token", signature(&device.access_token)));
        secrets.push(("a refresh token", device.refresh_token.clone()));
    }
    let database = cluster.database_url();
    let (_, credentials) = database.split_once("//").context("no URL")?;
    let (credentials, _) = credentials.split_once('@').context("no credentials")?;
    let (_, password) = credentials.split_once(':').context("no password")?;
    secrets.push(("the password of Postgres", password.to_owned()));

    // What works.
    let message = word();
    anas.say(chat, &message).await?;
    bens.hears(chat, &message).await?;
    secrets.push(("a message", message));
    let message = word();
    ben.api(1).say(chat, &message).await?;
    anas.hears(chat, &message).await?;
    secrets.push(("a message over REST", message));
    let password = word();
    let body = json!({"current": ben.password, "new": password});
    ben.api(0).post("/auth/password", body).await?.expect(204)?;
    ben.password = password.clone();
    secrets.push(("a password", password));
    let tablet = ben.device("tablet").await?;
    secrets.push(("an access token", signature(&tablet.access_token)));
    let token = tokens::outside(&tokens::outside_claims("somebody", "phone"))?;
    let other = Socket::present(cluster.gateway(0).address(), Presenting::Subprotocol(&token));
    let other = other.await?;
    other.request("authenticate", json!({"token": token})).await?;
    secrets.push(("an outside token", signature(&token)));

    // What does not: mistakes are logged sooner than anything else.
    let wrong = word();
    let api = anonymous(&cluster, 0)?;
    let body = json!({"phone": ana.phone, "password": wrong});
    api.post("/auth/login", body).await?.expect(401)?;
    api.post("/auth/refresh", json!({"refreshToken": wrong})).await?.expect(401)?;
    api.with_token(&wrong).get("/users/me").await?.expect(401)?;
    api.get(&format!("/users/me?token={wrong}")).await?.expect(401)?;
    let path = format!("/chats/{chat}/messages");
    ana.api(0).post_text(&path, format!(r#"{{"content":"{wrong}"#)).await?.expect(400)?;
    ana.api(0).post(&path, json!({"content": format!("{wrong}\0")})).await?.expect(400)?;
    ana.api(0).post(&path, json!({"content": [wrong]})).await?.expect(400)?;
    bens.refused("send_message", json!({"chatId": chat, "content": {"a": wrong}})).await?;
    bens.refused("send_message", json!({"chatId": Uuid::nil(), "content": wrong})).await?;
    bens.send_text(format!("malformed {wrong}")).await?;
    bens.expect_close(4400).await?;
    secrets.push(("something wrong", wrong));
    let message = word();
    cluster.nats().terminate().await?;
    anas.refused("send_message", json!({"chatId": chat, "content": message})).await?;
    cluster.nats().start().await?;
    cluster.postgres().terminate().await?;
    ana.api(0).post(&path, json!({"content": message, "clientMsgId": "no UUID"})).await?;
    ana.api(0).get(&path).await?;
    cluster.postgres().start().await?;
    secrets.push(("a message in bad times", message));

    // All is written when they have ended.
    for node in cluster.gateways().iter().chain(cluster.pushers()).chain(cluster.workers()) {
        node.terminate().await?;
    }
    let logs = fs::read_dir(cluster.data_dir().join("logs"))?;
    let logs: Vec<PathBuf> = logs.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    let read = |path: &PathBuf| anyhow::Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned());
    for node in cluster.nodes() {
        ensure!(logs.contains(&node.log().to_owned()), "{:?} is not looked at", node.log());
    }
    for gateway in cluster.gateways() {
        ensure!(read(&gateway.log().to_owned())?.contains("DEBUG"), "too little is logged");
    }
    let mut found = Vec::new();
    for path in &logs {
        let text = read(path)?;
        for (what, secret) in &secrets {
            ensure!(secret.len() > 10, "{what} is too short to look for");
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                found.push(format!("{what} in {name}: {line}"));
            }
        }
    }
    ensure!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}
