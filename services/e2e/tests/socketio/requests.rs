//! Acknowledgements, and what is refused, beside people on the other transport.

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_e2e::{Mode, peers::Language};
use natter_protocol::{
    error::ErrorCode,
    server::{HistoryPage, Sent},
};
use serde_json::{Value, json};

use crate::socketio::{CLIENTS, STAGE, Scenery, heard_from};

async fn acknowledged(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let (chat, foreign) = (scenery.chat, scenery.ben.api(0).group("Ben's own", &[]).await?.id);
    let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
    let bens = [scenery.ben.connect(0).await?, scenery.ben.connect(1).await?];
    ensure!(anas.cursor().is_ok(), anas.failure("no cursor with `ready`"));

    let sent = anas.say(chat, "hello").await?;
    for ben in &bens {
        ensure!(ben.hears(chat, "hello").await?.seq == sent.seq, "another seq");
    }
    let id = uuid::Uuid::now_v7();
    let data = json!({"chatId": chat, "content": "twice", "clientMsgId": id});
    let first: Sent = serde_json::from_value(anas.request("send_message", data.clone()).await?)?;
    let again: Sent = serde_json::from_value(anas.request("send_message", data).await?)?;
    ensure!(!first.duplicate && again.duplicate && again.seq == first.seq, "{first:?} {again:?}");

    // Both ways at once, each connection's in the order in which they were said.
    let words: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let mut posted = Vec::new();
    for word in &words {
        posted.push(anas.post("send_message", json!([{"chatId": chat, "content": word}])).await?);
        bens[0].say(chat, word).await?;
    }
    let mut seqs = Vec::new();
    for answer in try_join_all(posted.into_iter().map(|id| anas.reply(id))).await? {
        seqs.push(answer.map_err(|error| anyhow::anyhow!("{error}"))?["seq"].as_u64());
    }
    ensure!(seqs.is_sorted(), "{seqs:?}");
    scenery.ben.api(1).say(chat, "the end").await?;
    for ben in &bens {
        ben.hears(chat, "the end").await?;
        ben.check_feeds()?;
    }
    anas.hears(chat, "the end").await?;
    anas.check_feeds()?;
    assert_eq!(heard_from(&anas, &scenery.ben)[..20], words);

    let page: HistoryPage =
        serde_json::from_value(anas.request("history", json!({"chatId": chat})).await?)?;
    ensure!(page.messages.last().context("no message")?.content == "the end", "{page:?}");
    let refused = anas.refused("send_message", json!({"chatId": foreign, "content": "?"})).await?;
    assert_eq!(refused.code, ErrorCode::NotMember);
    for (event, data) in [("no_such_event", json!({})), ("send_message", json!({"chatId": 7}))] {
        assert_eq!(anas.refused(event, data).await?.code, ErrorCode::BadRequest);
    }
    let two = anas.post("history", json!([{"chatId": chat}, {"chatId": chat}])).await?;
    let refused = anas.reply(two).await?.err().context("two payloads are one too many")?;
    assert_eq!(refused.code, ErrorCode::BadRequest);
    anas.emit("no_such_event", json!({})).await?;
    anas.expect("exception", |data| data["code"] == "bad_request").await?;
    Ok(())
}

async fn binary(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
    let bens = scenery.ben.connect(1).await?;
    let bytes = || json!([{"$bytes": [0, 30, 255]}, {"$bytes": [1]}]);
    let asked = anas.post("send_message", bytes()).await?;
    let refused = anas.reply(asked).await?.err().context("bytes are no message")?;
    assert_eq!(refused.code, ErrorCode::UnsupportedMedia);
    anas.emit_all("send_message", bytes()).await?;
    anas.expect("exception", |data| data["code"] == "unsupported_media").await?;
    anas.say(scenery.chat, "after the bytes").await?;
    bens.hears(scenery.chat, "after the bytes").await?;
    assert_eq!(anas.events("disconnect"), [Value::Null; 0]);
    Ok(())
}

#[tokio::test]
async fn acknowledgements_say_what_became_of_a_request() -> Result<()> {
    for (language, mode) in CLIENTS {
        acknowledged(language, mode).await?;
    }
    Ok(())
}

#[tokio::test]
async fn binary_events_are_refused_and_the_session_goes_on() -> Result<()> {
    for (language, mode) in CLIENTS {
        binary(language, mode).await?;
    }
    Ok(())
}

#[tokio::test]
async fn own_messages_come_as_events_where_that_is_asked_for() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, Language::JavaScript).await?;
    let dial = scenery.dial(&scenery.ana, Mode::Upgrade).auth("echo", true);
    let anas = scenery.peers.connect("Ana", &dial).await?;
    for word in ["one", "two"] {
        anas.emit("send_message", json!({"chatId": scenery.chat, "content": word})).await?;
        anas.hears(scenery.chat, word).await?;
    }
    anas.check_feeds()
}

#[tokio::test]
async fn a_burst_reaches_clients_that_take_few_packets_at_once() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for (language, mode) in CLIENTS {
        let scenery = Scenery::new(&cluster, language).await?;
        let anas = scenery.peers.connect("Ana", &scenery.dial(&scenery.ana, mode)).await?;
        let bens = scenery.ben.connect(1).await?;
        let words: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        for word in &words {
            bens.post("send_message", json!({"chatId": scenery.chat, "content": word})).await?;
        }
        anas.hears(scenery.chat, "199").await?;
        assert_eq!(heard_from(&anas, &scenery.ben), words, "{language:?}, {mode:?}");
        anas.check_feeds()?;
        // The Python client gives up its session when one answer to a poll has more than 16.
        assert_eq!(anas.events("disconnect"), [Value::Null; 0], "{language:?}, {mode:?}");
    }
    Ok(())
}

async fn managed(language: Language, mode: Mode) -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let scenery = Scenery::new(&cluster, language).await?;
    let Scenery { ana, ben, chat: direct, .. } = &scenery;
    let anas = scenery.peers.connect("Ana", &scenery.dial(ana, mode)).await?;
    let bens = scenery.ben.connect(1).await?;
    let group = ana.api(0).group("Managed", &[]).await?.id;
    anas.expect("chat_added", |data| data["id"] == json!(group)).await?;
    let add = json!({"chatId": group, "userIds": [ben.id]});
    let added = anas.request("add_participants", add).await?;
    assert_eq!(added["participantCount"], 2);
    anas.request("update_chat", json!({"chatId": group, "title": "Renamed"})).await?;
    let over = json!({"chatId": group, "participantId": ben.id, "role": "owner", "transfer": true});
    anas.request("set_role", over).await?;
    anas.expect("system", |data| data["title"] == "Renamed").await?;
    anas.expect("system", |data| data["role"] == "admin").await?;
    let refused = anas.refused("delete_chat", json!({"chatId": group})).await?;
    assert_eq!(refused.code, ErrorCode::Forbidden);

    // Removed by the one who was added, who is on the other transport.
    bens.expect("chat_added", |data| data["id"] == json!(group)).await?;
    let remove = json!({"chatId": group, "participantId": ana.id});
    bens.request("remove_participant", remove).await?;
    anas.expect("system", |data| data["kind"] == "removed").await?;
    anas.expect("chat_removed", |data| data["id"] == json!(group)).await?;
    bens.say(group, "without her").await?;
    bens.say(*direct, "to her").await?;
    anas.hears(*direct, "to her").await?;
    assert_eq!(heard_from(&anas, ben), ["to her"]);
    let refused = anas.refused("history", json!({"chatId": group})).await?;
    assert_eq!(refused.code, ErrorCode::NotMember);

    let path = format!("/users/{}/block", ben.id);
    ana.api(1).request(reqwest::Method::PUT, &path).send().await?.error_for_status()?;
    let told = anas.expect("blocking", |_| true).await?;
    assert_eq!(told, json!({"userId": ben.id, "blocked": true, "chatId": direct}));
    let refused = anas.refused("send_message", json!({"chatId": direct, "content": "?"})).await?;
    assert_eq!(refused.code, ErrorCode::Forbidden);
    anas.check_feeds()
}

#[tokio::test]
async fn groups_are_managed_and_people_are_blocked() -> Result<()> {
    for (language, mode) in CLIENTS {
        managed(language, mode).await?;
    }
    Ok(())
}
