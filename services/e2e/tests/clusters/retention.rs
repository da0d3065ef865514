//! Messages that are removed after a time, and groups that were deleted: told live and to whoever
//! comes back, gone on both gateways, written or not.

use std::fs;

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::Cluster;
use natter_e2e::{Api, Person, Socket, Stage, soon};
use natter_protocol::{
    feed::{Entry, Event, Expired, Feed},
    ids::{ChatId, Seq},
    media::Uploaded,
    server::{HistoryPage, Message, Sent},
};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

/// Where messages may be kept for a second, and it is looked every second what is older. Nothing stays
/// of groups that are deleted.
static BRIEF: Stage = Stage::with(|builder| {
    builder
        .gateway_env("NATTER_RETENTION_LEAST_SECONDS", "1")
        .worker_env("NATTER_RETENTION_SWEEP_SECONDS", "1")
        .worker_env("NATTER_DELETED_GROUPS_KEPT_SECONDS", "0")
});

/// Where all chats keep messages for two seconds, and none may do so for longer than three.
static EVERYWHERE: Stage = Stage::with(|builder| {
    builder
        .gateway_env("NATTER_RETENTION_LEAST_SECONDS", "1")
        .gateway_env("NATTER_RETENTION_MOST_SECONDS", "3")
        .worker_env("NATTER_RETENTION_SECONDS", "2")
        .worker_env("NATTER_RETENTION_SWEEP_SECONDS", "1")
});

/// As they are by default, for stories that stop something, or cut the log.
static APART: Stage = Stage::new();

/// Ana, who owns a group, and Ben, who is in it.
async fn group(cluster: &Cluster) -> Result<(Person, Person, ChatId)> {
    let ana = Person::register(cluster, "Ana").await?;
    let ben = Person::register(cluster, "Ben").await?;
    let chat = ana.api(0).group("Group", &[&ben]).await?.id;
    Ok((ana, ben, chat))
}

async fn keep_for(api: &Api, chat: ChatId, secs: Value) -> Result<()> {
    let answer = api.patch(&format!("/chats/{chat}"), json!({"retentionSecs": secs})).await?;
    assert_eq!(answer.expect(200)?.get("retentionSecs").cloned().unwrap_or_default(), secs);
    Ok(())
}

/// Hears that everything up to a place is gone.
async fn hears_expiry(socket: &Socket, chat: ChatId, at_least: Seq) -> Result<Value> {
    let reaches = |data: &Value| data["upTo"].as_u64().is_some_and(|up_to| up_to >= at_least);
    let is_it = |data: &Value| data["chatId"] == json!(chat) && reaches(data);
    socket.expect("messages_expired", is_it).await
}

fn seqs(page: &HistoryPage) -> Vec<Seq> {
    page.messages.iter().map(|message| message.seq).collect()
}

fn texts(messages: &[Message]) -> Vec<&str> {
    let said = messages.iter().filter(|message| message.system.is_none());
    said.map(|message| message.content.as_str()).collect()
}

async fn until_written(api: &Api, chat: ChatId, seq: Seq) -> Result<()> {
    soon("the worker has written it", async || {
        Ok((api.chat(chat).await?.last_seq >= seq).then_some(()))
    })
    .await
}

/// In pages of any size and direction, the feed begins after `begin`, with what is left.
async fn begins(api: &Api, chat: ChatId, begin: Seq, left: &[&str]) -> Result<()> {
    let whole = api.history(chat, "limit=200").await?;
    ensure!(!whole.has_more && !whole.partial, "{whole:?}");
    assert_eq!(texts(&whole.messages), left);
    ensure!(whole.from_seq >= begin && seqs(&whole).iter().all(|seq| *seq > begin), "{whole:?}");
    for limit in [1, 2] {
        let (mut back, mut query) = (Vec::new(), format!("limit={limit}"));
        loop {
            let page = api.history(chat, &query).await?;
            ensure!(page.has_more || page.from_seq >= begin, "{page:?}");
            back.splice(0..0, page.messages);
            if !page.has_more {
                break;
            }
            query = format!("limit={limit}&before={}", back[0].seq);
        }
        assert_eq!(back, whole.messages);
        // Forward each page goes on where the one before ended: what has expired is no gap.
        let (mut on, mut after) = (Vec::new(), 0);
        loop {
            let page = api.history(chat, &format!("limit={limit}&after={after}")).await?;
            ensure!(page.from_seq >= begin && page.to_seq >= page.from_seq, "{page:?}");
            ensure!(page.from_seq == after || after < begin, "{page:?}");
            ensure!(page.messages.iter().all(|message| message.prev_seq >= page.from_seq));
            after = page.to_seq;
            on.extend(page.messages);
            if !page.has_more {
                break;
            }
        }
        assert_eq!(on, whole.messages);
    }
    Ok(())
}

/// Whether the folder of files has this one.
fn kept(cluster: &Cluster, id: &str) -> Result<bool> {
    let mut folders = vec![cluster.data_dir().join("media")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.to_string_lossy().contains(id) {
                return Ok(true);
            }
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    Ok(false)
}

async fn upload(api: &Api, chat: ChatId, caption: &str) -> Result<(Uploaded, Sent)> {
    let file = Part::bytes(b"some text".to_vec()).file_name("note.txt");
    let form = Form::new().part("file", file).text("caption", caption.to_owned());
    let uploaded: Uploaded = api.upload(chat, form).await?.read(201)?;
    let sent = uploaded.message.clone().context("not sent")?;
    Ok((uploaded, sent))
}

#[tokio::test]
async fn old_messages_go_everywhere_and_new_ones_stay() -> Result<()> {
    let cluster = BRIEF.among_others().await?;
    let (ana, ben, chat) = group(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let away = ben.connect(0).await?;
    let cursor = away.ready()?.cursor.clone();
    drop(away);
    let first = anas.say(chat, "a secret").await?;
    let (uploaded, with_file) = upload(&ana.api(1), chat, "secret file").await?;
    let file = format!("/chats/{chat}/messages/{}/media", with_file.id);
    let path = format!("/chats/{chat}/messages/{}", first.id);
    soon("it is found", async || {
        Ok((ben.api(0).search("secret", "").await?.items.len() == 2).then_some(()))
    })
    .await?;
    ben.api(0).get(&file).await?.expect(200)?;
    ensure!(kept(&cluster, &uploaded.media.id.to_string())?, "it is looked for in the wrong place");

    keep_for(&ana.api(1), chat, json!(1)).await?;
    let told = bens.expect("system", |data| data["kind"] == "retention").await?;
    assert_eq!((&told["retentionSecs"], &told["actorId"]), (&json!(1), &json!(ana.id)));
    for socket in [&anas, &bens] {
        hears_expiry(socket, chat, with_file.seq).await?;
    }
    // At once, wherever it is asked for.
    let begin = with_file.seq;
    for who in [&ana, &ben] {
        for gateway in [0, 1] {
            let api = who.api(gateway);
            begins(&api, chat, begin, &[]).await?;
            let around = format!("/chats/{chat}/messages?around={}", first.seq);
            api.get(&around).await?.refused(404, "not_found")?;
        }
    }
    let edit = json!({"content": "said anew"});
    ana.api(0).patch(&path, edit).await?.refused(404, "not_found")?;
    ana.api(1).delete(&path).await?.refused(404, "not_found")?;
    let data = json!({"chatId": chat, "messageId": first.id, "emoji": "👍"});
    assert_eq!(bens.refused("react", data).await?.code.as_str(), "not_found");
    let reply = json!({"chatId": chat, "content": "re", "replyTo": first.id});
    assert_eq!(bens.refused("send_message", reply).await?.code.as_str(), "not_found");
    // Once the worker has written it, also in what Postgres tells alone.
    for gateway in [0, 1] {
        let api = ben.api(gateway);
        soon("nothing is left of them", async || {
            let seen = api.chat(chat).await?;
            let unread = seen.me.context("a viewer")?.unread_count;
            let found = api.search("secret", "").await?.items.len();
            let fetched = api.get(&file).await?.status();
            let gone = seen.last_message.is_none() && unread == 0 && found == 0 && fetched == 404;
            Ok(gone.then_some(()))
        })
        .await?;
    }
    soon("the rows are removed", async || {
        let count = format!(
            "SELECT count(*) FROM messages WHERE chat_id = '{chat}' AND content LIKE '%secret%'"
        );
        Ok((cluster.sql(&count)?.trim() == "0").then_some(()))
    })
    .await?;
    soon("the file is removed", async || {
        Ok((!kept(&cluster, &uploaded.media.id.to_string())?).then_some(()))
    })
    .await?;

    // Who was away is told that they are gone, and not what they were.
    for gateway in [1, 0] {
        let back = ben.first.resume(gateway, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("not resumed"));
        back.expect("resume_done", |_| true).await?;
        hears_expiry(&back, chat, begin).await?;
        assert_eq!(back.events("message"), Vec::<Value>::new());
        ensure!(!format!("{:?}", back.failure("")).contains("secret"), "it was told");
        back.check_feeds()?;
    }

    keep_for(&ana.api(0), chat, Value::Null).await?;
    bens.expect("system", |data| data["kind"] == "retention" && data["retentionSecs"].is_null())
        .await?;
    let new = anas.say(chat, "new").await?;
    bens.hears(chat, "new").await?;
    until_written(&ana.api(0), chat, new.seq).await?;
    for gateway in [0, 1] {
        begins(&ben.api(gateway), chat, begin, &["new"]).await?;
        let seen = ben.api(gateway).chat(chat).await?;
        assert_eq!(seen.me.context("a viewer")?.unread_count, 1);
        assert_eq!(seen.last_message.context("none")?.id, new.id);
        assert_eq!(seen.retention_secs, None);
    }
    anas.check_feeds()?;
    bens.check_feeds()
}

/// Ana has had a chat's messages expire up to a place, as the worker does; it is stopped.
async fn expire(cluster: &Cluster, chat: ChatId, up_to: Seq) -> Result<Seq> {
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "retention")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    let entry = Entry { origin: None, event: Event::Expired(Expired { up_to }) };
    let id = format!("{chat}.expired.{up_to}");
    Ok(bus.publish(Feed::chat(0, chat), &id, &entry)?.await?.seq)
}

#[tokio::test]
async fn what_has_expired_is_gone_before_that_is_written_too() -> Result<()> {
    let cluster = APART.alone().await?;
    let (ana, ben, chat) = group(&cluster).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let cursor = bens.ready()?.cursor.clone();
    let mut sent = Vec::new();
    for n in 0..4 {
        sent.push(anas.say(chat, &format!("old {n}")).await?);
    }
    until_written(&ana.api(0), chat, sent[3].seq).await?;
    // The chat as Ben is told of it has its newest message in it.
    let mute = json!({"chatId": chat, "forever": true});
    bens.request("mute_chat", mute).await?;
    bens.expect("chat_updated", |data| data["id"] == json!(chat)).await?;
    // What a user's own feed has told is not kept anywhere else.
    let later = bens.cursor()?;
    let reply = json!({"chatId": chat, "content": "an answer", "replyTo": sent[3].id});
    let reply: Sent = serde_json::from_value(anas.request("send_message", reply).await?)?;
    let edit = json!({"content": "old 3 again"});
    let path = format!("/chats/{chat}/messages/{}", sent[3].id);
    let edited = ana.api(1).patch(&path, edit).await?.expect(200)?;
    let edited = edited["seq"].as_u64().context("no seq")?;
    until_written(&ana.api(0), chat, edited).await?;
    cluster.worker(0).terminate().await?;
    anas.say(chat, "not written").await?;
    let expired = expire(&cluster, chat, sent[3].seq).await?;
    let told = hears_expiry(&bens, chat, sent[3].seq).await?;
    assert_eq!(told["seq"], expired);
    let last = anas.say(chat, "after it").await?;
    let left = ["an answer", "not written", "after it"];
    let react = json!({"chatId": chat, "messageId": sent[3].id, "emoji": "👍"});
    for written in [false, true] {
        for gateway in [0, 1] {
            begins(&ben.api(gateway), chat, sent[3].seq, &left).await?;
            let page = ana.api(gateway).history(chat, "limit=200").await?;
            ensure!(page.messages.iter().all(|message| message.quote.is_none()), "{page:?}");
            let around = format!("/chats/{chat}/messages?around={}", sent[3].seq);
            ana.api(gateway).get(&around).await?.refused(404, "not_found")?;
            let around = ana.api(gateway).history(chat, &format!("around={}", reply.seq)).await?;
            assert_eq!(texts(&around.messages), left);
        }
        assert_eq!(bens.refused("react", react.clone()).await?.code.as_str(), "not_found");
        let back = ben.first.resume(0, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("not resumed"));
        back.expect("resume_done", |_| true).await?;
        assert_eq!(back.events("messages_expired").len(), 1);
        let updated = back.events("chat_updated");
        ensure!(updated.len() == 1 && updated[0]["lastMessage"].is_null(), "{updated:?}");
        let messages = back.events("message");
        let contents: Vec<_> = messages.iter().map(|message| message["content"].clone()).collect();
        assert_eq!(contents, left);
        ensure!(!format!("{:?}", back.failure("")).contains("old "), "it was told");
        back.check_feeds()?;
        if !written {
            cluster.worker(0).start().await?;
            until_written(&ana.api(0), chat, last.seq).await?;
        }
    }
    // What the log has cut off is told from Postgres, which has the same.
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "cut")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    bus.purge(0, last.seq).await?;
    let back = ben.first.resume(1, &later).await?;
    ensure!(back.ready()?.resumed, back.failure("not resumed"));
    back.expect("resume_done", |_| true).await?;
    let entries: Vec<Seq> = back.entries()?.iter().map(|got| got.seq).collect();
    assert_eq!(entries.first(), Some(&reply.seq));
    assert_eq!(back.events("messages_expired")[0]["upTo"], sent[3].seq);
    ensure!(!format!("{:?}", back.failure("")).contains("old "), "it was told");
    back.check_feeds()?;
    assert_eq!(ben.api(0).chat(chat).await?.me.context("a viewer")?.unread_count, 3);
    anas.check_feeds()?;
    bens.check_feeds()
}

#[tokio::test]
async fn a_deployment_keeps_messages_for_no_longer_than_it_says() -> Result<()> {
    let cluster = EVERYWHERE.among_others().await?;
    let (ana, ben, chat) = group(&cluster).await?;
    let bens = ben.connect(1).await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let refused = ana.api(0).patch(&format!("/chats/{chat}"), json!({"retentionSecs": 4})).await?;
    refused.refused(400, "bad_request")?;
    for chat in [chat, direct] {
        let sent = ana.api(1).say(chat, "soon gone").await?;
        bens.hears(chat, "soon gone").await?;
        hears_expiry(&bens, chat, sent.seq).await?;
        begins(&ben.api(0), chat, sent.seq, &[]).await?;
    }
    bens.check_feeds()
}

#[tokio::test]
async fn who_may_not_say_for_how_long_messages_are_kept_is_refused() -> Result<()> {
    let cluster = APART.among_others().await?;
    let (ana, ben, chat) = group(&cluster).await?;
    let stranger = Person::register(&cluster, "Dora").await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let path = format!("/chats/{chat}");
    let day = json!({"retentionSecs": 86_400});
    ben.api(0).patch(&path, day.clone()).await?.refused(403, "forbidden")?;
    stranger.api(1).patch(&path, day.clone()).await?.refused(403, "not_member")?;
    for wrong in [
        json!(0),
        json!(-1),
        json!(3_599),
        json!(315_360_001),
        json!(5_000_000_000_u64),
        json!(3_600.5),
        json!("86400"),
        json!(true),
        json!([86_400]),
    ] {
        let answer = ana.api(1).patch(&path, json!({"retentionSecs": wrong})).await?;
        answer.refused(400, "bad_request")?;
        let data = json!({"chatId": chat, "retentionSecs": wrong});
        assert_eq!(anas.refused("update_chat", data).await?.code.as_str(), "bad_request");
    }
    // A client that knows nothing of it changes nothing of it.
    keep_for(&ana.api(0), chat, json!(86_400)).await?;
    let titled = ana.api(1).patch(&path, json!({"title": "Renamed"})).await?.expect(200)?;
    assert_eq!(titled["retentionSecs"], 86_400);
    let off = json!({"chatId": chat, "retentionSecs": null});
    assert_eq!(anas.request("update_chat", off).await?.get("retentionSecs"), None);
    // An admin may; and both of a one-to-one, which has nothing else that could be changed.
    let admin = json!({"chatId": chat, "participantId": ben.id, "role": "admin"});
    anas.request("set_role", admin).await?;
    keep_for(&ben.api(0), chat, json!(7_200)).await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    keep_for(&ben.api(1), direct, json!(3_600)).await?;
    anas.expect("system", |data| data["chatId"] == json!(direct) && data["kind"] == "retention")
        .await?;
    let both = json!({"retentionSecs": 7_200, "title": "X"});
    ben.api(0).patch(&format!("/chats/{direct}"), both).await?.refused(403, "forbidden")?;
    assert_eq!(ana.api(0).chat(direct).await?.retention_secs, Some(3_600));
    let page = ana.api(1).history(direct, "limit=10").await?;
    let told = page.messages.last().and_then(|last| last.system.as_ref()).context("not told")?;
    assert_eq!(told.retention_secs, Some(3_600));
    bens.check_feeds()
}

#[tokio::test]
async fn nothing_stays_of_a_group_that_was_deleted() -> Result<()> {
    let cluster = BRIEF.among_others().await?;
    let (ana, ben, chat) = group(&cluster).await?;
    let bens = ben.connect(1).await?;
    let cursor = bens.ready()?.cursor.clone();
    ana.api(0).say(chat, "a secret").await?;
    let (uploaded, _) = upload(&ana.api(0), chat, "secret file").await?;
    ben.api(0)
        .post(&format!("/chats/{chat}/messages"), json!({"content": "his"}))
        .await?
        .expect(201)?;
    ensure!(kept(&cluster, &uploaded.media.id.to_string())?, "it is looked for in the wrong place");
    ana.api(1).delete(&format!("/chats/{chat}")).await?.expect(204)?;
    bens.expect("chat_removed", |data| data["id"] == json!(chat)).await?;
    let nothing = |what: &str| -> Result<bool> { Ok(cluster.sql(what)?.trim() == "0") };
    soon("nothing is left", async || {
        let of = |table: &str, and: &str| {
            format!("SELECT count(*) FROM {table} WHERE chat_id = '{chat}' {and}")
        };
        let gone = nothing(&of("messages", "AND kind <> 'void'"))?
            && nothing(&of("message_search", ""))?
            && nothing(&of("chat_members", "AND read_seq > 0"))?
            && nothing(&of("media", ""))?
            && nothing(&format!(
                "SELECT count(*) FROM chats WHERE id = '{chat}' AND title IS NOT NULL"
            ))?
            && !kept(&cluster, &uploaded.media.id.to_string())?;
        Ok(gone.then_some(()))
    })
    .await?;
    ben.api(0).get(&format!("/chats/{chat}/messages")).await?.refused(403, "not_member")?;
    // Who was away hears that it is gone, and not what was said.
    let back = ben.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("not resumed"));
    back.expect("resume_done", |_| true).await?;
    back.expect("chat_removed", |data| data["id"] == json!(chat)).await?;
    ensure!(!format!("{:?}", back.failure("")).contains("secret"), "it was told");
    bens.check_feeds()
}
