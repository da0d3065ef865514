//! What the clients of the old backend do, as they do it: nothing but a token is added.

use anyhow::{Result, ensure};
use natter_e2e::{Balancer, Mode, Peers, Person, peers::Dial, peers::Language};
use serde_json::json;

use crate::socketio::{CLIENTS, STAGE, heard_from};

async fn flow(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ben.api(0).open_group("Open", &[]).await?.id;
    ben.api(1).say(chat, "before").await?;
    let balancer = Balancer::before(&cluster).await?;
    let peers = Peers::start(language).await?;
    let dial = |person: &Person| Dial::new(&balancer.url(), &person.first.access_token, mode);
    let (anas, bens) =
        tokio::try_join!(async { peers.connect("Ana", &dial(&ana)).await }, async {
            peers.connect("Ben", &dial(&ben)).await
        },)?;

    anas.emit("join_chat", json!({"chatId": chat, "user": ana.id})).await?;
    let history = anas.expect("chat_history", |_| true).await?;
    let told = history.as_array().into_iter().flatten();
    ensure!(told.filter(|message| message["content"] == "before").count() == 1, "{history}");
    let joined =
        |data: &serde_json::Value| data["kind"] == "joined" && data["chatId"] == json!(chat);
    let system = bens.expect("system", joined).await?;
    ensure!(system["msg"].is_string() && system["userId"] == json!(ana.id), "{system}");

    let user = json!({"id": ana.id, "name": "Ana"});
    let hello = json!({"chatId": chat, "content": "hello", "user": user});
    anas.emit("send_message", hello).await?;
    let message = bens.hears(chat, "hello").await?;
    ensure!(message.sender_id == ana.id && message.sender.name == "Ana", "{message:?}");
    bens.emit("send_message", json!({"chatId": chat, "content": "hello Ana"})).await?;
    anas.hears(chat, "hello Ana").await?;

    let typing = |typing: bool| json!({"chatId": chat, "userId": ana.id, "typing": typing});
    for (event, seen) in [("typing_start", true), ("typing_ping", true), ("typing_stop", false)] {
        anas.emit(event, json!({"chatId": chat, "user": ana.id})).await?;
        if event != "typing_ping" {
            bens.expect("user_typing", |data| *data == typing(seen)).await?;
        }
    }

    let as_ben = json!({"chatId": chat, "content": "I am Ben", "user": ben.id});
    anas.emit("send_message", as_ben).await?;
    let exception = anas.expect("exception", |_| true).await?;
    ensure!(exception["status"] == "error" && exception["code"] == "forbidden", "{exception}");
    ensure!(exception["message"].is_string(), "{exception}");

    anas.emit("leave_chat", json!({"chatId": chat, "userId": ana.id})).await?;
    let left = |data: &serde_json::Value| data["kind"] == "left" && data["userId"] == json!(ana.id);
    bens.expect("system", left).await?;
    anas.expect("chat_removed", |data| data["id"] == json!(chat)).await?;
    anas.emit("send_message", json!({"chatId": chat, "content": "after"})).await?;
    anas.expect("exception", |data| data["code"] == "not_member").await?;

    // Each was told what the other said, once, and nothing of their own.
    assert_eq!(heard_from(&bens, &ana), ["hello"]);
    assert_eq!(heard_from(&anas, &ben), ["hello Ana"]);
    assert_eq!(heard_from(&anas, &ana), [""; 0]);
    anas.disconnect().await?;
    let reason = anas.disconnected().await?;
    ensure!(reason == "io client disconnect" || reason == "client disconnect", "{reason}");
    Ok(())
}

#[tokio::test]
async fn javascript_clients_of_the_old_backend_find_everything_as_it_was() -> Result<()> {
    for (language, mode) in CLIENTS.into_iter().filter(|client| client.0 == Language::JavaScript) {
        flow(language, mode).await?;
    }
    Ok(())
}

#[tokio::test]
async fn python_clients_of_the_old_backend_find_everything_as_it_was() -> Result<()> {
    for (language, mode) in CLIENTS.into_iter().filter(|client| client.0 == Language::Python) {
        flow(language, mode).await?;
    }
    Ok(())
}
