//! History: complete at any time, whether the worker has been there yet or not.

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Api, Person, soon};
use natter_protocol::{
    ids::{ChatId, Seq},
    server::{ContentType, HistoryPage, Message},
};
use serde_json::json;

use crate::stories::{APART, STAGE};

/// Everything there is, read from the newest backwards in pages of `limit`.
async fn backwards(api: &Api, chat: ChatId, limit: usize) -> Result<Vec<Message>> {
    let mut messages = Vec::new();
    let mut query = format!("limit={limit}");
    loop {
        let page = api.history(chat, &query).await?;
        check(&page, limit)?;
        if let Some(newer) = messages.first().map(|newer: &Message| newer.seq) {
            ensure!(page.to_seq < newer, "a page up to {} before {newer}", page.to_seq);
        }
        messages.splice(0..0, page.messages);
        if !page.has_more {
            return Ok(messages);
        }
        let oldest = messages.first().context("more, but nothing")?.seq;
        query = format!("limit={limit}&before={oldest}");
    }
}

/// The same, from the oldest forwards.
async fn forwards(api: &Api, chat: ChatId, limit: usize) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> = Vec::new();
    let mut after = 0;
    loop {
        let page = api.history(chat, &format!("limit={limit}&after={after}")).await?;
        check(&page, limit)?;
        ensure!(page.from_seq >= after, "{} when asked for {after}", page.from_seq);
        messages.extend(page.messages);
        if !page.has_more {
            return Ok(messages);
        }
        after = messages.last().context("more, but nothing")?.seq;
    }
}

fn check(page: &HistoryPage, limit: usize) -> Result<()> {
    let seqs: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
    ensure!(seqs.len() <= limit, "{} for a limit of {limit}", seqs.len());
    ensure!(seqs.is_sorted_by(|a, b| a < b), "oldest first: {seqs:?}");
    ensure!(!page.partial, "partial, with everything running");
    let inside = |seq: &Seq| page.from_seq < *seq && *seq <= page.to_seq;
    ensure!(seqs.iter().all(inside), "{seqs:?} in {} to {}", page.from_seq, page.to_seq);
    Ok(())
}

fn contents(messages: &[Message]) -> Vec<&str> {
    let said = messages.iter().filter(|message| message.content_type == ContentType::Text);
    said.map(|message| message.content.as_str()).collect()
}

async fn until_persisted(api: &Api, chat: ChatId, seq: Seq) -> Result<()> {
    soon("the worker has written it", async || {
        Ok((api.chat(chat).await?.last_seq >= seq).then_some(()))
    })
    .await
}

/// The same answers from both gateways, in all sizes of pages, both ways.
async fn all_agree(cluster: &Cluster, who: &Person, chat: ChatId) -> Result<Vec<Message>> {
    let whole = who.api(0).history(chat, "limit=200").await?;
    check(&whole, 200)?;
    assert!(!whole.has_more);
    for gateway in 0..cluster.gateways().len() {
        let api = who.api(gateway);
        for limit in [1, 7, 50] {
            assert_eq!(backwards(&api, chat, limit).await?, whole.messages);
            assert_eq!(forwards(&api, chat, limit).await?, whole.messages);
        }
        let socket = who.connect(gateway).await?;
        let data = json!({"chatId": chat, "limit": 200});
        let page: HistoryPage = serde_json::from_value(socket.request("history", data).await?)?;
        assert_eq!(page, whole);
    }
    Ok(whole.messages)
}

#[tokio::test]
async fn it_is_complete_while_the_worker_is_stopped() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).open_group("Written and not", &[&ben]).await?.id;
    let other = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;

    let mut expected = Vec::new();
    let mut last = 0;
    for n in 0..10 {
        last = anas.say(chat, &format!("written {n}")).await?.seq;
        expected.push(format!("written {n}"));
        bens.say(other, "elsewhere").await?;
    }
    until_persisted(&ana.api(0), chat, last).await?;
    let written = all_agree(&cluster, &ben, chat).await?;
    assert_eq!(contents(&written), expected);
    let made = written.first().context("nothing")?;
    assert_eq!(made.content_type, ContentType::System, "the chat's creation is part of it");

    cluster.worker(0).terminate().await?;
    for n in 0..10 {
        let content = format!("not written {n}");
        let sent = if n % 2 == 0 {
            anas.say(chat, &content).await?
        } else {
            bens.say(chat, &content).await?
        };
        // Strictly: the very next answer, from the other gateway, has it.
        let page = ana.api(n % 2).history(chat, "limit=1").await?;
        assert_eq!((page.messages[0].seq, page.to_seq), (sent.seq, sent.seq));
        expected.push(content);
        bens.say(other, "elsewhere").await?;
    }
    let unwritten = all_agree(&cluster, &ben, chat).await?;
    assert_eq!(contents(&unwritten), expected);
    assert_eq!(unwritten[..written.len()], written);
    // The page over the border, in both directions.
    let border = written.last().context("nothing")?.seq;
    let page = ana.api(1).history(chat, &format!("limit=6&before={}", border + 4)).await?;
    assert!(page.messages.iter().any(|message| message.seq <= border));
    assert!(page.messages.iter().any(|message| message.seq > border));

    // Who joins now sees all of it too, and a retry is still one.
    let cleos = cleo.connect(1).await?;
    let joined =
        cleos.request("join_chat", json!({"chatId": chat, "history": {"limit": 50}})).await?;
    let seen: Vec<Message> = serde_json::from_value(joined["messages"].clone())?;
    assert_eq!(contents(&seen), expected);
    cleos.expect("system", |data| data["kind"] == "joined").await?;
    let with_cleo = all_agree(&cluster, &ben, chat).await?;

    cluster.worker(0).start().await?;
    let newest = with_cleo.last().context("nothing")?.seq;
    until_persisted(&ana.api(0), chat, newest).await?;
    assert_eq!(all_agree(&cluster, &ben, chat).await?, with_cleo);
    anas.check_feeds()?;
    bens.check_feeds()
}

#[tokio::test]
async fn a_page_joins_what_comes_live_without_a_gap() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    for n in 0..3 {
        anas.say(chat, &format!("before {n}")).await?;
    }
    let bens = ben.connect(1).await?;
    let page = ben.api(1).history(chat, "limit=2").await?;
    assert_eq!(contents(&page.messages), ["before 1", "before 2"]);
    assert!(page.has_more);
    anas.say(chat, "live").await?;
    assert_eq!(bens.hears(chat, "live").await?.prev_seq, page.to_seq);
    // And the page's own chain, beyond its start, has no gap either.
    let mut last = page.from_seq;
    for message in &page.messages {
        assert_eq!(message.prev_seq, last);
        last = message.seq;
    }
    assert_eq!(last, page.to_seq);
    Ok(())
}

#[tokio::test]
async fn the_ends_of_a_feed_are_empty_pages() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let sent = ana.api(0).say(chat, "the only one").await?;
    let page = ben.api(1).history(chat, &format!("after={}", sent.seq)).await?;
    assert_eq!((page.messages, page.has_more), (vec![], false));
    let all = ben.api(1).history(chat, "limit=200").await?;
    let first = all.messages.first().context("nothing")?.seq;
    let page = ben.api(1).history(chat, &format!("before={first}")).await?;
    assert_eq!((page.messages, page.has_more), (vec![], false));
    let api = ben.api(0);
    for bad in ["limit=0", "limit=-1", "limit=x", "before=x", "before=9&after=1"] {
        let path = format!("/chats/{chat}/messages?{bad}");
        api.get(&path).await?.refused(400, "bad_request").with_context(|| bad.to_owned())?;
    }
    Ok(())
}
