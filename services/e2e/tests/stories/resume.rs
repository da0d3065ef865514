//! Coming back with a cursor: everything missed, each feed in order, nothing twice, on any node.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use natter_e2e::{Device, Person, Socket, record::Got};
use natter_protocol::ids::{ChatId, Seq};
use serde_json::json;

use crate::stories::STAGE;

/// The entries of each chat, in the order in which they came.
fn by_chat(entries: &[Got]) -> HashMap<ChatId, Vec<Seq>> {
    let mut chats: HashMap<ChatId, Vec<Seq>> = HashMap::new();
    for got in entries {
        chats.entry(got.chat).or_default().push(got.seq);
    }
    chats
}

/// A connection that resumed, once everything missed has come.
async fn resumed(device: &Device, gateway: usize, cursor: &str) -> Result<Socket> {
    let socket = device.resume(gateway, cursor).await?;
    ensure!(socket.ready()?.resumed, socket.failure("it was not resumed"));
    socket.expect("resume_done", |_| true).await?;
    Ok(socket)
}

#[tokio::test]
async fn what_was_missed_comes_once_and_in_order_on_another_node() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let left = ana.api(0).open_group("Left meanwhile", &[&ben]).await?.id;
    let groups =
        [ana.api(0).group("One", &[&ben]).await?.id, ana.api(0).group("Two", &[&ben]).await?.id];
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let before = bens.say(direct, "before").await?;
    phone.hears(direct, "before").await?;
    bens.say(left, "before").await?;
    phone.hears(left, "before").await?;
    let cursor = phone.cursor()?;
    drop(phone);

    // While she is away: messages, a chat added, one left, a message of her own by REST.
    let mut missed: HashMap<ChatId, Vec<Seq>> = HashMap::new();
    for round in 0..20 {
        for chat in [direct, groups[0], left] {
            let sent = bens.say(chat, &format!("missed {round}")).await?;
            missed.entry(chat).or_default().push(sent.seq);
        }
    }
    let own = ana.api(1).say(direct, "my own").await?;
    missed.entry(direct).or_default().push(own.seq);
    ana.api(1).post(&format!("/chats/{left}/leave"), json!({})).await?.expect(200)?;
    bens.expect("system", |data| data["chatId"] == json!(left) && data["kind"] == "left").await?;
    bens.say(left, "not for her").await?;
    let added = ben.api(1).group("Added", &[&ana]).await?.id;
    let sent = bens.say(added, "welcome").await?;

    for (turn, gateway) in [1, 0, 1].into_iter().enumerate() {
        let back = resumed(&ana.first, gateway, &cursor).await?;
        // Each turn replays what was live in those before.
        let content = format!("live in turn {turn}");
        let live = bens.say(groups[1], &content).await?;
        back.hears(groups[1], &content).await?;
        // The worker may have told of the chat only now, if the node that made it was too busy.
        back.hears(added, "welcome").await?;
        let told = by_chat(&back.entries()?);
        assert_eq!(told[&direct], missed[&direct], "{before:?}");
        assert_eq!(told[&groups[0]], missed[&groups[0]]);
        assert_eq!(told[&left][..20], missed[&left]);
        assert_eq!(told[&left].len(), 21, "her leaving is the last that she sees of it");
        assert_eq!(told[&added].last(), Some(&sent.seq));
        assert_eq!(told[&groups[1]].last(), Some(&live.seq));
        assert_eq!(back.events("chat_added").len(), 1);
        assert_eq!(back.events("chat_removed"), [json!({"id": left})]);
        assert!(back.events("message").iter().all(|data| data["content"] != "not for her"));
        back.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_cursor_taken_in_the_middle_resumes_exactly() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let mut chats = vec![ana.api(0).direct(&ben).await?.id];
    for title in ["a", "b", "c"] {
        chats.push(ana.api(0).group(title, &[&ben]).await?.id);
    }
    let phone = ana.connect(0).await?;
    let bens = [ben.connect(0).await?, ben.connect(1).await?];
    for round in 0..40 {
        // Both nodes at once, and her own in between.
        let chat = |n: usize| chats[(round + n) % chats.len()];
        let own = format!("own {round}");
        tokio::try_join!(
            bens[0].say(chat(0), "one"),
            bens[1].say(chat(1), "two"),
            phone.say(chat(2), &own),
        )?;
        if round == 20 {
            chats.push(ben.api(1).group("d", &[&ana]).await?.id);
        }
    }
    for chat in &chats {
        bens[1].say(*chat, "the end").await?;
        phone.hears(*chat, "the end").await?;
    }
    let all = phone.entries()?;
    for (place, got) in all.iter().enumerate() {
        let back = resumed(&ana.first, place % 2, &got.cursor).await?;
        let rest = by_chat(&all[place + 1..]);
        let told = by_chat(&back.entries()?);
        ensure!(told == rest, "after {place} of {}: {told:?}, not {rest:?}", all.len());
        back.check_feeds()?;
    }
    // From the very beginning, and from the end.
    let ready = phone.ready()?.cursor.clone();
    let back = resumed(&ana.first, 1, &ready).await?;
    assert_eq!(by_chat(&back.entries()?), by_chat(&all));
    let back = resumed(&ana.first, 1, &phone.cursor()?).await?;
    assert_eq!(back.entries()?, []);
    Ok(())
}

#[tokio::test]
async fn it_can_be_asked_for_in_the_first_frame_and_later() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let cursor = phone.cursor()?;
    drop(phone);
    let sent = ben.api(1).say(chat, "missed").await?;

    let gateway = cluster.gateway(1).address();
    let dialled = Socket::dial(gateway, natter_e2e::Presenting::Nothing).await?;
    let natter_e2e::socket::Dialled::Open(first) = dialled else {
        anyhow::bail!("it was refused");
    };
    let data = json!({"token": ana.first.access_token, "cursor": cursor});
    first.send_text(json!({"event": "authenticate", "data": data}).to_string()).await?;
    first.expect("ready", |data| data["resumed"] == true).await?;
    first.hears(chat, "missed").await?;
    first.expect("resume_done", |data| data["cursor"].is_string()).await?;

    let later = ana.connect(1).await?;
    assert_eq!(later.request("resume", json!({"cursor": cursor})).await?, json!({"resumed": true}));
    later.expect("resume_done", |_| true).await?;
    assert_eq!(by_chat(&later.entries()?)[&chat], [sent.seq]);
    let again = later.refused("resume", json!({"cursor": cursor})).await?;
    assert_eq!(again.code, natter_protocol::error::ErrorCode::Conflict);
    let next = ben.api(0).say(chat, "live").await?;
    later.hears(chat, "live").await?;
    assert_eq!(by_chat(&later.entries()?)[&chat], [sent.seq, next.seq]);
    Ok(())
}

#[tokio::test]
async fn what_is_no_cursor_is_refused_and_the_connection_goes_on() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let bens = ben.connect(0).await?.cursor()?;
    for (cursor, reason) in [("x", "malformed"), ("AQE.AAAA", "malformed"), (&bens, "foreign")] {
        let socket = ana.first.resume(0, cursor).await?;
        let ready = serde_json::to_value(socket.ready()?)?;
        assert_eq!((&ready["resumed"], &ready["resumeReason"]), (&json!(false), &json!(reason)));
        let text = format!("after {reason}");
        ben.api(1).say(chat, &text).await?;
        socket.hears(chat, &text).await?;

        let later = ana.connect(1).await?;
        let answer = later.request("resume", json!({"cursor": cursor})).await?;
        assert_eq!(answer, json!({"resumed": false, "reason": reason}));
        let refused = later.refused("resume", json!({})).await?;
        assert_eq!(refused.code, natter_protocol::error::ErrorCode::BadRequest);
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_lost_with_the_connection_comes_as_the_message() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let cursor = phone.cursor()?;
    phone.post("send_message", json!({"chatId": chat, "content": "sent"})).await?;
    bens.hears(chat, "sent").await?;
    drop(phone);
    let back = resumed(&ana.first, 1, &cursor).await?;
    back.hears(chat, "sent").await?;
    // One who had the reply has its cursor too, and does not see it again.
    let sent = back.say(chat, "replied").await?;
    let got = back.entries()?.pop().context("the reply")?;
    assert_eq!(got.seq, sent.seq);
    drop(back);
    let back = resumed(&ana.first, 0, &got.cursor).await?;
    assert_eq!(back.entries()?, []);
    Ok(())
}
