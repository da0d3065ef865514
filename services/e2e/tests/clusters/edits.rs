//! What becomes of messages: edited, deleted, reacted to and answered on one gateway, seen on the
//! other, live and later, written or not.

use std::fs;

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::Cluster;
use natter_e2e::{
    Api, Balancer, Mode, Peers, Person, Socket, Stage,
    peers::{Dial, Language},
    soon,
};
use natter_protocol::{
    ids::{ChatId, MessageId, Seq, UserId},
    media::Uploaded,
    server::{Message, ReactionCount, Sent},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

/// Feeds are spread over several logs.
static STAGE: Stage = Stage::with(|builder| builder.shards(3));

/// The same for stories that stop something of it, or cut the log.
static APART: Stage = Stage::new();

/// Where editing is over soon.
static BRIEF: Stage = Stage::with(|builder| builder.gateway_env("NATTER_EDIT_SECONDS", "1"));

/// Ana, who owns a group; Ben and Cleo, who are in it.
struct Group {
    ana: Person,
    ben: Person,
    cleo: Person,
    chat: ChatId,
}

impl Group {
    async fn of(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let cleo = Person::register(cluster, "Cleo").await?;
        let chat = ana.api(0).group("Group", &[&ben, &cleo]).await?.id;
        Ok(Self { ana, ben, cleo, chat })
    }

    fn path(&self, message: MessageId) -> String {
        format!("/chats/{}/messages/{message}", self.chat)
    }

    fn of_message(&self, message: MessageId) -> Value {
        json!({"chatId": self.chat, "messageId": message})
    }
}

/// An emoji as a path has it.
fn spelled(emoji: &str) -> String {
    utf8_percent_encode(emoji, NON_ALPHANUMERIC).to_string()
}

async fn react(api: &Api, chat: ChatId, message: MessageId, emoji: &str, on: bool) -> Result<Seq> {
    let path = format!("/chats/{chat}/messages/{message}/reactions/{}", spelled(emoji));
    let method = if on { Method::PUT } else { Method::DELETE };
    let answer = api.request(method, &path).send().await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let changed: Value = serde_json::from_slice(&answer.bytes().await?)?;
    changed["seq"].as_u64().context("no seq")
}

async fn seq_of(socket: &Socket, event: &str, data: Value) -> Result<Seq> {
    socket.request(event, data).await?["seq"].as_u64().context("no seq")
}

/// The data that came with an entry of the feed.
async fn hears(socket: &Socket, event: &str, seq: Seq) -> Result<Value> {
    socket.expect(event, |data| data["seq"] == seq).await
}

/// All events of this name, but for what came before each: a replay need not know.
fn told(socket: &Socket, event: &str) -> Vec<Value> {
    let mut events = socket.events(event);
    for data in &mut events {
        data["prevSeq"].take();
    }
    events
}

/// The message, as history shows it.
async fn shown(api: &Api, chat: ChatId, message: MessageId) -> Result<Message> {
    let page = api.history(chat, "limit=200").await?;
    let found = page.messages.into_iter().find(|shown| shown.id == message);
    found.with_context(|| format!("{message} is not shown"))
}

async fn until_written(api: &Api, chat: ChatId, seq: Seq) -> Result<()> {
    soon("the worker has written it", async || {
        Ok((api.chat(chat).await?.last_seq >= seq).then_some(()))
    })
    .await
}

fn count(emoji: &str, count: u64, mine: bool) -> ReactionCount {
    ReactionCount { emoji: emoji.to_owned(), count, mine }
}

#[tokio::test]
async fn everybody_hears_of_it_on_either_gateway_and_whoever_comes_back_too() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, cleo, chat } = &group;
    let balancer = Balancer::before(&cluster).await?;
    let peers = Peers::start(Language::JavaScript).await?;
    let dial = Dial::new(&balancer.url(), &cleo.first.access_token, Mode::WebSocket);
    let cleos = peers.connect("Cleo", &dial).await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let anas_phone = ana.device("phone").await?.connect(1).await?;
    let sent = anas.say(*chat, "helo").await?;
    let first = bens.hears(*chat, "helo").await?;
    assert_eq!((first.edited_at, first.deleted), (None, false));
    let away = ben.connect(0).await?;
    let cursor = away.ready()?.cursor.clone();
    drop(away);

    let edit = json!({"chatId": chat, "messageId": sent.id, "content": "hello"});
    let edited = seq_of(&anas, "edit_message", edit).await?;
    for socket in [&anas, &bens, &anas_phone] {
        let told = hears(socket, "message_edited", edited).await?;
        assert_eq!((&told["messageId"], &told["messageSeq"]), (&json!(sent.id), &json!(sent.seq)));
        assert_eq!((&told["content"], &told["actorId"]), (&json!("hello"), &json!(ana.id)));
        assert_eq!(told["prevSeq"], sent.seq);
    }
    cleos.expect("message_edited", |data| data["seq"] == edited).await?;

    // A client of Socket.IO reacts, another by REST.
    let data = json!({"chatId": chat, "messageId": sent.id, "emoji": "🎉"});
    cleos.emit("react", data).await?;
    let party = bens.expect("reaction", |data| data["emoji"] == "🎉").await?;
    assert_eq!((&party["userId"], &party["on"]), (&json!(cleo.id), &json!(true)));
    assert_eq!(party["prevSeq"], edited);
    cleos.expect("reaction", |data| data["seq"] == party["seq"]).await?;
    let liked = react(&ben.api(0), *chat, sent.id, "👍", true).await?;
    let taken_back = react(&ben.api(1), *chat, sent.id, "👍", false).await?;
    assert_eq!(hears(&anas, "reaction", liked).await?["on"], true);
    assert_eq!(hears(&anas, "reaction", taken_back).await?["on"], false);

    let deleted = seq_of(&anas_phone, "delete_message", group.of_message(sent.id)).await?;
    for socket in [&anas, &bens, &anas_phone] {
        let told = hears(socket, "message_deleted", deleted).await?;
        assert_eq!((&told["messageId"], &told["actorId"]), (&json!(sent.id), &json!(ana.id)));
    }
    cleos.expect("message_deleted", |data| data["seq"] == deleted).await?;
    bens.say(*chat, "the end").await?;
    anas.hears(*chat, "the end").await?;
    let live = anas.entries()?;

    // What was missed comes in order, on the other node too.
    for gateway in [1, 0] {
        let back = ben.first.resume(gateway, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("not resumed"));
        back.expect("resume_done", |_| true).await?;
        let missed: Vec<Seq> = back.entries()?.iter().map(|got| got.seq).collect();
        let all: Vec<Seq> = live.iter().map(|got| got.seq).filter(|seq| *seq > sent.seq).collect();
        assert_eq!(missed, all);
        for event in ["message_edited", "reaction", "message_deleted"] {
            assert_eq!(told(&back, event), told(&bens, event));
        }
        back.check_feeds()?;
    }
    for socket in [&anas, &bens, &anas_phone] {
        socket.check_feeds()?;
    }
    Ok(())
}

/// Both gateways, in all sizes of pages, say the same.
async fn all_agree(group: &Group, who: &Person) -> Result<Vec<Message>> {
    let whole = who.api(0).history(group.chat, "limit=200").await?;
    ensure!(!whole.partial && !whole.has_more);
    for gateway in [0, 1] {
        for limit in [1, 3] {
            let (mut pages, mut query) = (Vec::new(), format!("limit={limit}"));
            loop {
                let page = who.api(gateway).history(group.chat, &query).await?;
                ensure!(!page.partial, "partial");
                pages.splice(0..0, page.messages);
                if !page.has_more {
                    break;
                }
                query = format!("limit={limit}&before={}", pages[0].seq);
            }
            assert_eq!(pages, whole.messages);
        }
    }
    Ok(whole.messages)
}

#[tokio::test]
async fn history_shows_it_before_and_after_it_is_written() -> Result<()> {
    let cluster = APART.alone().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, chat, .. } = &group;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let mut sent = Vec::new();
    for n in 0..6 {
        sent.push(anas.say(*chat, &format!("written {n}")).await?);
    }
    react(&ben.api(1), *chat, sent[3].id, "👍", true).await?;
    let last = react(&ana.api(0), *chat, sent[3].id, "👍", true).await?;
    until_written(&ana.api(0), *chat, last).await?;
    cluster.worker(0).terminate().await?;

    // Of what is written, and of what is not: the very next answer of the other gateway has it.
    for n in 6..10 {
        sent.push(anas.say(*chat, &format!("not written {n}")).await?);
    }
    let mut last = 0;
    for n in [0, 3, 6] {
        let edit = json!({"content": format!("edited {n}")});
        ana.api(0).patch(&group.path(sent[n].id), edit).await?.expect(200)?;
        let now = shown(&ben.api(1), *chat, sent[n].id).await?;
        assert_eq!(now.content, format!("edited {n}"));
        assert!(now.edited_at.is_some_and(|at| at >= now.created_at), "{now:?}");
    }
    for n in [1, 7] {
        react(&ben.api(0), *chat, sent[n].id, "🎉", true).await?;
        ana.api(1).delete(&group.path(sent[n].id)).await?.expect(200)?;
        let gone = shown(&ben.api(0), *chat, sent[n].id).await?;
        assert!(gone.deleted && gone.content.is_empty() && gone.reactions.is_empty(), "{gone:?}");
    }
    for n in [3, 8] {
        react(&ben.api(0), *chat, sent[n].id, "🎉", true).await?;
        react(&ana.api(0), *chat, sent[n].id, "🎉", true).await?;
        last = react(&ana.api(1), *chat, sent[n].id, "👍", false).await?;
    }
    let answer = json!({"content": "an answer", "replyTo": sent[6].id});
    let answer: Sent =
        ben.api(1).post(&format!("/chats/{chat}/messages"), answer).await?.read(201)?;
    let quote = shown(&ana.api(0), *chat, answer.id).await?.quote.context("no quote")?;
    assert_eq!((quote.id, quote.content.as_str()), (sent[6].id, "edited 6"));
    last = last.max(answer.seq);

    let counts = |who: bool| vec![count("🎉", 2, true), count("👍", 1, !who)];
    assert_eq!(shown(&ana.api(1), *chat, sent[3].id).await?.reactions, counts(true));
    assert_eq!(shown(&ben.api(1), *chat, sent[3].id).await?.reactions, counts(false));
    let unwritten = [all_agree(&group, ana).await?, all_agree(&group, ben).await?];
    cluster.worker(0).start().await?;
    until_written(&ana.api(0), *chat, last).await?;
    assert_eq!([all_agree(&group, ana).await?, all_agree(&group, ben).await?], unwritten);

    // The list shows the newest message as it is now.
    let edit = json!({"chatId": chat, "messageId": answer.id, "content": "the answer"});
    let edited = seq_of(&bens, "edit_message", edit).await?;
    until_written(&ana.api(0), *chat, edited).await?;
    let newest = ana.api(1).chat(*chat).await?.last_message.context("none")?;
    assert_eq!((newest.id, newest.content.as_str()), (answer.id, "the answer"));
    let deleted = seq_of(&bens, "delete_message", group.of_message(answer.id)).await?;
    until_written(&ana.api(0), *chat, deleted).await?;
    let newest = ana.api(1).chat(*chat).await?.last_message.context("none")?;
    assert!(newest.deleted && newest.content.is_empty(), "{newest:?}");
    anas.check_feeds()?;
    bens.check_feeds()
}

#[tokio::test]
async fn who_may_not_is_refused() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, cleo, chat } = &group;
    let stranger = Person::register(&cluster, "Dora").await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let direct = ana.api(0).direct(ben).await?.id;
    let hers = anas.say(*chat, "hers").await?;
    let his = bens.say(*chat, "his").await?;
    let elsewhere = anas.say(direct, "elsewhere").await?;
    let edit = json!({"content": "taken over"});
    let path = group.path(hers.id);

    let api = ben.api(0);
    api.patch(&path, edit.clone()).await?.refused(403, "forbidden")?;
    api.delete(&path).await?.refused(403, "forbidden")?;
    let data = json!({"chatId": chat, "messageId": hers.id, "content": "taken over"});
    assert_eq!(bens.refused("edit_message", data).await?.code.as_str(), "forbidden");
    let refused = bens.refused("delete_message", group.of_message(hers.id)).await?;
    assert_eq!(refused.code.as_str(), "forbidden");
    // Not even the owner puts words into somebody's mouth.
    ana.api(0).patch(&group.path(his.id), edit.clone()).await?.refused(403, "forbidden")?;
    // Nobody manages a one-to-one.
    let in_direct = format!("/chats/{direct}/messages/{}", elsewhere.id);
    api.delete(&in_direct).await?.refused(403, "forbidden")?;

    let api = stranger.api(1);
    api.patch(&path, edit.clone()).await?.refused(403, "not_member")?;
    api.delete(&path).await?.refused(403, "not_member")?;
    let reaction = |message: MessageId, emoji: &str| {
        format!("/chats/{chat}/messages/{message}/reactions/{}", spelled(emoji))
    };
    let put = async |api: &Api, path: &str| -> Result<(u16, Value)> {
        let answer = api.request(Method::PUT, path).send().await?;
        let status = answer.status().as_u16();
        Ok((status, serde_json::from_slice::<Value>(&answer.bytes().await?)?["code"].clone()))
    };
    assert_eq!(put(&api, &reaction(hers.id, "👍")).await?, (403, json!("not_member")));

    // What is not there, or is another chat's.
    let api = ana.api(1);
    for unknown in [MessageId::generate(), elsewhere.id] {
        api.patch(&group.path(unknown), edit.clone()).await?.refused(404, "not_found")?;
        api.delete(&group.path(unknown)).await?.refused(404, "not_found")?;
        assert_eq!(put(&api, &reaction(unknown, "👍")).await?, (404, json!("not_found")));
        let reply = json!({"content": "re", "replyTo": unknown});
        let messages = format!("/chats/{chat}/messages");
        api.post(&messages, reply).await?.refused(404, "not_found")?;
    }
    for no in ["x", "👍👍", ":)", "🇦", "1"] {
        assert_eq!(put(&api, &reaction(hers.id, no)).await?, (400, json!("bad_request")), "{no}");
    }
    let many: Vec<UserId> = (0..51).map(|_| UserId::generate()).collect();
    for (edit, status, code) in [
        (json!({"content": ""}), 400, "bad_request"),
        (json!({}), 400, "bad_request"),
        (json!({"content": "a\u{0}b"}), 400, "bad_request"),
        (json!({"content": "x".repeat(16_385)}), 413, "too_large"),
        (json!({"content": "x", "mentions": many}), 400, "bad_request"),
        (json!({"content": "x", "senderId": ben.id}), 403, "forbidden"),
    ] {
        api.patch(&path, edit).await?.refused(status, code)?;
    }
    assert_eq!(shown(&api, *chat, hers.id).await?.content, "hers");

    // The owner deletes anybody's; then it is gone for good, and doing it again is no error.
    let deleted = seq_of(&anas, "delete_message", group.of_message(his.id)).await?;
    hears(&bens, "message_deleted", deleted).await?;
    ana.api(1).delete(&group.path(his.id)).await?.expect(200)?;
    ben.api(1).delete(&group.path(his.id)).await?.expect(200)?;
    cleo.api(1).delete(&group.path(his.id)).await?.refused(403, "forbidden")?;
    ben.api(0).patch(&group.path(his.id), edit).await?.refused(409, "conflict")?;
    assert_eq!(put(&ben.api(0), &reaction(his.id, "👍")).await?, (409, json!("conflict")));
    Ok(())
}

#[tokio::test]
async fn what_is_asked_again_changes_nothing() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, chat, .. } = &group;
    let anas = ana.connect(0).await?;
    let sent = anas.say(*chat, "hello").await?;
    let head = async || anyhow::Ok(ana.api(0).history(*chat, "limit=1").await?.to_seq);
    let on = |on: bool| json!({"chatId": chat, "messageId": sent.id, "emoji": "❤️", "on": on});
    let edit = |content: &str| json!({"chatId": chat, "messageId": sent.id, "content": content});

    let before = head().await?;
    seq_of(&anas, "react", on(false)).await?;
    seq_of(&anas, "edit_message", edit("hello")).await?;
    assert_eq!(head().await?, before);
    seq_of(&anas, "react", on(true)).await?;
    let after = head().await?;
    seq_of(&anas, "react", on(true)).await?;
    // Spelled in another way it is the same one.
    react(&ana.api(1), *chat, sent.id, "\u{2764}", true).await?;
    assert_eq!(head().await?, after);
    assert_eq!(shown(&ben.api(1), *chat, sent.id).await?.reactions, [count("❤️", 1, false)]);
    seq_of(&anas, "edit_message", edit("hello!")).await?;
    seq_of(&anas, "delete_message", group.of_message(sent.id)).await?;
    let after = head().await?;
    seq_of(&anas, "delete_message", group.of_message(sent.id)).await?;
    assert_eq!(head().await?, after);

    // One user chooses so many, not more.
    let other = anas.say(*chat, "choose").await?;
    let faces: Vec<String> =
        (0x1f600..0x1f615).filter_map(char::from_u32).map(String::from).collect();
    for face in &faces[..20] {
        react(&ben.api(0), *chat, other.id, face, true).await?;
    }
    let path = format!("{}/reactions/{}", group.path(other.id), spelled(&faces[20]));
    let answer = ben.api(0).request(Method::PUT, &path).send().await?;
    assert_eq!(answer.status(), 409);
    react(&ben.api(0), *chat, other.id, &faces[0], false).await?;
    react(&ben.api(0), *chat, other.id, &faces[20], true).await?;
    assert_eq!(shown(&ana.api(0), *chat, other.id).await?.reactions.len(), 20);
    anas.check_feeds()
}

#[tokio::test]
async fn a_deleted_message_takes_its_file_along() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, chat, .. } = &group;
    let part = Part::bytes(b"the plan".to_vec()).file_name("plan.txt").mime_str("text/plain")?;
    let form = Form::new().part("file", part).text("caption", "look");
    let uploaded: Uploaded = ana.api(0).upload(*chat, form).await?.read(201)?;
    let sent = uploaded.message.context("not sent")?;
    let file = format!("{}/media", group.path(sent.id));
    ben.api(1).get(&file).await?.expect(200)?;
    let kept = || -> Result<bool> {
        let (mut folders, name) = (vec![cluster.data_dir().join("media")], uploaded.media.id);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.to_string_lossy().contains(&name.to_string()) {
                    return Ok(true);
                }
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(false)
    };
    ensure!(kept()?, "it is looked for in the wrong place");

    // A caption may go by itself.
    ana.api(0).patch(&group.path(sent.id), json!({"content": ""})).await?.expect(200)?;
    let now = shown(&ben.api(1), *chat, sent.id).await?;
    assert!(now.content.is_empty() && now.media.is_some(), "{now:?}");
    ana.api(1).delete(&group.path(sent.id)).await?.expect(200)?;
    let gone = shown(&ben.api(0), *chat, sent.id).await?;
    assert!(gone.deleted && gone.media.is_none() && gone.media_url.is_none(), "{gone:?}");
    soon("nobody fetches it", async || {
        Ok((ben.api(1).get(&file).await?.status() == 404).then_some(()))
    })
    .await?;
    soon("it is removed", async || Ok((!kept()?).then_some(()))).await?;
    Ok(())
}

#[tokio::test]
async fn a_reply_quotes_what_it_answers() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, chat, .. } = &group;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let long = format!("{}…", "é".repeat(120));
    let question = anas.say(*chat, &long).await?;
    let data = json!({"chatId": chat, "content": "yes", "replyTo": question.id});
    let answer: Sent = serde_json::from_value(bens.request("send_message", data).await?)?;
    let live = anas.hears(*chat, "yes").await?;
    let quote = live.quote.clone().context("no quote")?;
    assert_eq!((quote.id, quote.sender_id), (question.id, ana.id));
    assert_eq!((quote.sender_name.as_str(), quote.content), ("Ana", "é".repeat(100)));
    assert_eq!(shown(&ana.api(1), *chat, answer.id).await?.quote, live.quote);

    let edit = json!({"content": "short"});
    ana.api(1).patch(&group.path(question.id), edit).await?.expect(200)?;
    let quote = shown(&ben.api(0), *chat, answer.id).await?.quote.context("no quote")?;
    assert_eq!(quote.content, "short");
    ana.api(0).delete(&group.path(question.id)).await?.expect(200)?;
    let quote = shown(&ben.api(1), *chat, answer.id).await?.quote.context("no quote")?;
    assert!(quote.deleted && quote.content.is_empty(), "{quote:?}");
    let late = json!({"chatId": chat, "content": "too late", "replyTo": question.id});
    bens.request("send_message", late).await?;
    let quote = anas.hears(*chat, "too late").await?.quote.context("no quote")?;
    assert!(quote.deleted && quote.content.is_empty(), "{quote:?}");
    Ok(())
}

#[tokio::test]
async fn a_message_names_those_who_take_part() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, cleo, chat } = &group;
    let stranger = Person::register(&cluster, "Dora").await?;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    // Cleo is not connected; Dora is not in the chat.
    let content = format!("@{} and @{}: look, @{}", ben.id, stranger.id, ben.id);
    let data = json!({"chatId": chat, "content": content, "mentions": [cleo.id, stranger.id]});
    let sent: Sent = serde_json::from_value(anas.request("send_message", data).await?)?;
    let live = bens.hears(*chat, &content).await?;
    assert_eq!(live.mentions, [ben.id, cleo.id]);
    assert_eq!(shown(&ben.api(0), *chat, sent.id).await?.mentions, live.mentions);
    let edit = json!({"content": "nobody", "mentions": [ana.id]});
    ana.api(1).patch(&group.path(sent.id), edit).await?.expect(200)?;
    let told = bens.expect("message_edited", |data| data["messageId"] == json!(sent.id)).await?;
    assert_eq!(told["mentions"], json!([ana.id]));
    let last = told["seq"].as_u64().context("no seq")?;
    assert_eq!(shown(&ben.api(0), *chat, sent.id).await?.mentions, [ana.id]);
    until_written(&ana.api(0), *chat, last).await?;
    assert_eq!(shown(&ben.api(0), *chat, sent.id).await?.mentions, [ana.id]);
    Ok(())
}

#[tokio::test]
async fn the_time_for_editing_ends() -> Result<()> {
    let cluster = BRIEF.among_others().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, chat, .. } = &group;
    let sent = ana.api(0).say(*chat, "for good").await?;
    let refused = soon("it is too late", async || {
        let edit = json!({"content": uuid::Uuid::new_v4()});
        let answer = ana.api(1).patch(&group.path(sent.id), edit).await?;
        Ok((answer.status() != 200).then_some(answer))
    })
    .await?;
    refused.refused(403, "forbidden")?;
    ana.api(0).delete(&group.path(sent.id)).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn what_the_log_has_cut_off_is_told_as_it_is_now() -> Result<()> {
    let cluster = APART.alone().await?;
    let group = Group::of(&cluster).await?;
    let Group { ana, ben, chat, .. } = &group;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    let before = anas.say(*chat, "before").await?;
    bens.hears(*chat, "before").await?;
    let cursor = bens.cursor()?;
    drop(bens);
    let secret = anas.say(*chat, "a secret").await?;
    let kept = anas.say(*chat, "kept").await?;
    let edit = |message: MessageId, content: &str| json!({"chatId": chat, "messageId": message, "content": content});
    let mut seqs = vec![secret.seq, kept.seq];
    seqs.push(seq_of(&anas, "edit_message", edit(secret.id, "another secret")).await?);
    seqs.push(seq_of(&anas, "edit_message", edit(kept.id, "first")).await?);
    seqs.push(seq_of(&anas, "edit_message", edit(kept.id, "second")).await?);
    seqs.push(react(&ana.api(0), *chat, kept.id, "👍", true).await?);
    seqs.push(seq_of(&anas, "delete_message", group.of_message(secret.id)).await?);
    let reply = json!({"chatId": chat, "content": "re", "replyTo": kept.id});
    let reply: Sent = serde_json::from_value(anas.request("send_message", reply).await?)?;
    seqs.push(reply.seq);
    until_written(&ana.api(0), *chat, reply.seq).await?;
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "cut")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    bus.purge(0, reply.seq).await?;

    let back = ben.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("not resumed"));
    back.expect("resume_done", |_| true).await?;
    let told: Vec<Seq> = back.entries()?.iter().map(|got| got.seq).collect();
    assert_eq!(told, seqs, "after {before:?}");
    let messages = back.events("message");
    assert_eq!((&messages[0]["deleted"], &messages[0]["content"]), (&json!(true), &json!("")));
    assert_eq!(messages[1]["content"], "second");
    assert_eq!(messages[2]["quote"]["content"], "second");
    let edited = back.events("message_edited");
    assert!(edited.len() == 2 && edited.iter().all(|edited| edited["content"] == "second"));
    // The edit of what is deleted now is told as the deletion.
    assert_eq!(back.events("message_deleted").len(), 2);
    assert_eq!(back.events("reaction").len(), 1);
    ensure!(!format!("{:?}", back.failure("")).contains("secret"), "it was told");
    back.check_feeds()
}
