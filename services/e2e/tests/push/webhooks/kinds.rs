//! Every kind of event, filters, and how endpoints are made and changed.

use anyhow::{Context, Result, ensure};
use natter_e2e::{Person, push_services::endpoint::Told, soon};
use natter_operator::{config::Cli, outcome::Outcome};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::{Hook, STAGE, pair, say};

async fn comes(hook: &Hook, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Told> {
    hook.endpoint.until(what, |told| told.iter().find(|told| is_it(&told.body)).cloned()).await
}

#[tokio::test]
async fn every_kind_of_event_is_told_and_signed_and_looks_as_it_does_to_clients() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let hook = Hook::add(&cluster, "kinds", &[]).await?;
    let (ada, ben, chat) = pair(&cluster).await?;
    let sent = ada.api(0).say(chat, "hello").await?;
    let message = comes(&hook, "a message", |event| event["data"]["id"] == json!(sent.id)).await?;
    let data = &message.body["data"];
    assert_eq!(
        (&data["content"], &data["seq"], &data["chatId"], &data["senderId"]),
        (&json!("hello"), &json!(sent.seq), &json!(chat), &json!(ada.id))
    );
    assert_eq!(message.body["timestamp"], data["createdAt"]);
    ensure!(message.body["cursor"].as_str().is_some_and(|c| c.starts_with("0-")), "{message:?}");

    let path = format!("/chats/{chat}/messages/{}", sent.id);
    ada.api(0).patch(&path, json!({"content": "hello you"})).await?.expect(200)?;
    // Others talk meanwhile.
    let of_it = |what: &'static str| {
        move |event: &Value| event["type"] == what && event["data"]["messageId"] == json!(sent.id)
    };
    let edit = comes(&hook, "an edit", of_it("message_edited")).await?;
    assert_eq!(edit.body["data"]["content"], "hello you");
    let reaction = format!("{path}/reactions/%F0%9F%91%8D");
    ben.api(1).put(&reaction, json!({})).await?.expect(200)?;
    comes(&hook, "a reaction", of_it("reaction")).await?;
    ada.api(1).delete(&path).await?.expect(200)?;
    comes(&hook, "a delete", of_it("message_deleted")).await?;

    let group = ada.api(0).open_group("Sailing", &[]).await?.id;
    ben.api(0).post(&format!("/chats/{group}/join"), json!({})).await?;
    let joined = comes(&hook, "a member", |event| {
        event["data"]["kind"] == "joined" && event["data"]["chatId"] == json!(group)
    });
    assert_eq!(joined.await?.body["data"]["userId"], json!(ben.id));

    let file = Part::bytes(b"for Ben".to_vec()).file_name("note.txt");
    let form = Form::new().part("file", file).text("caption", "see this");
    ada.api(0).upload(chat, form).await?.expect(201)?;
    let media = comes(&hook, "a file", |event| {
        event["data"]["contentType"] == "media" && event["data"]["chatId"] == json!(chat)
    })
    .await?;
    assert_eq!(media.body["data"]["media"]["name"], "note.txt");

    let tablet = ben.device("tablet").await?;
    let of_device = |what: &'static str| {
        move |event: &Value| event["type"] == what && event["data"]["deviceId"] == json!(tablet.id)
    };
    let added = comes(&hook, "a device", of_device("device_added")).await?;
    assert_eq!(added.body["data"]["userId"], json!(ben.id));
    ben.api(0).delete(&format!("/devices/{}", tablet.id)).await?.expect(204)?;
    comes(&hook, "a device gone", of_device("device_revoked")).await?;
    hook.remove().await
}

#[tokio::test]
async fn an_endpoint_is_told_of_what_it_has_chosen_and_of_nothing_else() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (ada, ben, chat) = pair(&cluster).await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let other = ada.api(0).direct(&cleo).await?.id;
    let of_chat = format!("--chats={chat}");
    let hook = Hook::add(&cluster, "chosen", &["--kinds=edit,media", &of_chat]).await?;
    for chat in [other, chat] {
        let sent = ada.api(0).say(chat, "hello").await?;
        let path = format!("/chats/{chat}/messages/{}", sent.id);
        let edit = json!({"content": format!("in {chat}")});
        ada.api(0).patch(&path, edit).await?.expect(200)?;
    }
    let last = comes(&hook, "an edit", |event| event["type"] == "message_edited").await?;
    assert_eq!(last.body["data"]["content"], format!("in {chat}"));
    assert_eq!(hook.endpoint.told().len(), 1, "{:?}", hook.endpoint.told());

    hook.of_it("change", &["--kinds=message", "--all-chats"]).await?;
    soon("the change is heard of", async || {
        ben.api(0).say(chat, "now").await?;
        Ok((hook.endpoint.told().len() > 1).then_some(()))
    })
    .await?;
    let sent = cleo.api(0).say(other, "elsewhere").await?;
    comes(&hook, "of the other chat", |event| event["data"]["id"] == json!(sent.id)).await?;
    hook.remove().await
}

#[tokio::test]
async fn an_endpoint_is_made_tested_given_another_secret_disabled_and_removed() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let hook = Hook::add(&cluster, "managed", &["--kinds=message"]).await?;
    hook.of_it("test", &[]).await?;
    let told = hook.endpoint.told();
    ensure!(told.iter().any(|told| told.body["type"] == "test"), "{told:?}");
    hook.of_it("list", &[]).await.err().context("list takes no name")?;
    hook.natter(&["list"]).await?;
    hook.of_it("show", &["--json"]).await?;
    // The name is taken; a stranger is none.
    let again = hook.natter(&["add", "managed", "http://127.0.0.1:9/"]).await;
    ensure!(again.is_err(), "two of one name");
    ensure!(hook.natter(&["show", "nobody"]).await.is_err(), "nobody is shown");

    let before = hook.known().await?.secret;
    hook.of_it("change", &["--new-secret"]).await?;
    let after = hook.known().await?.secret;
    ensure!(before != after, "the same secret");
    hook.endpoint.trust(&after)?;
    // Signed by the one before until a worker has looked.
    soon("the new secret signs", async || Ok(hook.of_it("test", &[]).await.is_ok().then_some(())))
        .await?;

    let (ada, _ben, chat) = pair(&cluster).await?;
    hook.of_it("disable", &[]).await?;
    let unheard = say(&ada, chat, "unheard", 3).await?;
    hook.of_it("enable", &[]).await?;
    let heard = say(&ada, chat, "heard", 2).await?;
    // What happened meanwhile was kept, and comes first.
    let told = async || {
        let said = hook.endpoint.said_in(chat);
        Ok((said.len() == 5).then_some(said))
    };
    let said = natter_e2e::soon::within(std::time::Duration::from_secs(40), "all of it", told);
    assert_eq!(said.await?, [unheard, heard].concat());

    let id = hook.known().await?.id;
    let lanes = hook.store().endpoint_lanes(id).await?;
    ensure!(!lanes.is_empty(), "it has lanes");
    let store = hook.store().clone();
    hook.remove().await?;
    ensure!(store.endpoint_lanes(id).await?.is_empty(), "lanes are left");
    for table in ["webhook_lanes", "webhook_behind", "webhook_dead_letters"] {
        let left =
            cluster.sql(&format!("SELECT count(*) FROM {table} WHERE endpoint_id = '{id}'"))?;
        ensure!(left.trim() == "0", "{table}: {left}");
    }
    Ok(())
}

#[tokio::test]
async fn there_are_only_so_many_endpoints() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let hook = Hook::add(&cluster, "first", &[]).await?;
    let (url, database) = (hook.endpoint.url(), cluster.database_url());
    let args = [
        "natter",
        "webhook",
        "add",
        "second",
        &url,
        "--webhook-endpoints=1",
        "--database-url",
        &database,
    ];
    let cli = <Cli as clap::Parser>::try_parse_from(args)?;
    let refused = natter_operator::run(cli).await.err().context("there is one too many")?;
    assert_eq!(refused.outcome(), Outcome::Wrong);
    ensure!(refused.to_string().contains("NATTER_WEBHOOK_ENDPOINTS"), "{refused}");
    hook.remove().await
}
