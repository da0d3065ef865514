//! What is read and delivered, and how many are unread: the same on every device and gateway.

use anyhow::{Context, Result, ensure};
use natter_e2e::{Api, Person, Socket, soon};
use natter_protocol::{
    ids::{ChatId, Seq, UserId},
    rest::UnreadTotal,
    server::{Chat, Me},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stories::{APART, PARTICIPANTS, STAGE};

fn up_to(chat: ChatId, seq: Seq) -> Value {
    json!({"chatId": chat, "seq": seq})
}

/// Another's reading, or one's own on another device.
async fn sees(socket: &Socket, event: &str, chat: ChatId, user: UserId, seq: Seq) -> Result<()> {
    let told = json!({"chatId": chat, "userId": user, "seq": seq});
    socket.expect(event, |data| *data == told).await.map(drop)
}

async fn me(api: &Api, chat: ChatId) -> Result<Me> {
    api.chat(chat).await?.me.context("a viewer")
}

/// Until both gateways say so, of the chat alone and in the list.
async fn until_unread(who: &Person, chat: ChatId, read_seq: Seq, unread: u64) -> Result<()> {
    for gateway in [0, 1] {
        let api = who.api(gateway);
        soon(&format!("{unread} unread after {read_seq}"), async || {
            let own = me(&api, chat).await?;
            let listed = api.chats("limit=200").await?.items;
            let listed = listed.into_iter().find(|other| other.id == chat);
            let listed = listed.context("listed")?.me.context("a viewer")?;
            let there = |me: &Me| (me.read_seq, me.unread_count) == (read_seq, unread);
            Ok((there(&own) && there(&listed)).then_some(()))
        })
        .await?;
    }
    Ok(())
}

async fn total(api: &Api) -> Result<UnreadTotal> {
    api.get("/chats/unread").await?.read(200)
}

async fn receipt(api: &Api, chat: ChatId, user: UserId) -> Result<(Seq, Seq)> {
    let list = api.get(&format!("/chats/{chat}/receipts")).await?.expect(200)?;
    let items = list["items"].as_array().context("no items")?;
    let of_user = items.iter().find(|item| item["userId"] == json!(user)).context("takes part")?;
    let place = |field: &str| of_user[field].as_u64().context("no place");
    Ok((place("readSeq")?, place("deliveredSeq")?))
}

#[tokio::test]
async fn reading_shows_everywhere_and_only_goes_forward() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Three", &[&ben, &cleo]).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let others = [ben.connect(1).await?, cleo.connect(0).await?];
    let mut sent = Vec::new();
    for n in 0..5 {
        sent.push(others[0].say(chat, &format!("message {n}")).await?.seq);
    }
    phone.hears(chat, "message 4").await?;
    until_unread(&ben, chat, sent[4], 0).await?;

    assert_eq!(phone.request("read", up_to(chat, sent[1])).await?, json!({}));
    for socket in [&tablet, &others[0], &others[1]] {
        sees(socket, "read", chat, ana.id, sent[1]).await?;
    }
    until_unread(&ana, chat, sent[1], 3).await?;
    // Further on the tablet; then the phone, which is behind, says what it has. By REST it is no
    // connection that has said so.
    tablet.request("read", up_to(chat, sent[3])).await?;
    for socket in [&phone, &others[0], &others[1]] {
        sees(socket, "read", chat, ana.id, sent[3]).await?;
    }
    phone.request("read", up_to(chat, sent[2])).await?;
    phone.request("read", up_to(chat, sent[3])).await?;
    until_unread(&ana, chat, sent[3], 1).await?;
    let by_rest = json!({"seq": sent[4]});
    ana.api(1).post(&format!("/chats/{chat}/read"), by_rest).await?.expect(200)?;
    for socket in [&phone, &tablet, &others[0], &others[1]] {
        sees(socket, "read", chat, ana.id, sent[4]).await?;
    }
    until_unread(&ana, chat, sent[4], 0).await?;
    assert_eq!(receipt(&ben.api(0), chat, ana.id).await?, (sent[4], sent[4]));

    // Who said so was answered, and was not told; and nobody was told of what is no news.
    others[0].say(chat, "the end").await?;
    for (socket, times) in [(&phone, 2), (&tablet, 2), (&others[1], 3)] {
        socket.hears(chat, "the end").await?;
        assert_eq!(socket.events("read").len(), times, "{}", socket.failure("times"));
    }
    Ok(())
}

#[tokio::test]
async fn delivered_shows_to_the_others_alone() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let bens = ben.connect(1).await?;
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(bens.say(chat, &format!("message {n}")).await?.seq);
    }
    phone.hears(chat, "message 9").await?;
    for seq in &sent {
        assert_eq!(phone.request("delivered", up_to(chat, *seq)).await?, json!({}));
    }
    sees(&bens, "delivered", chat, ana.id, sent[0]).await?;
    sees(&bens, "delivered", chat, ana.id, sent[9]).await?;
    soon("it is kept", async || {
        let (_, delivered) = receipt(&ben.api(0), chat, ana.id).await?;
        Ok((delivered == sent[9]).then_some(()))
    })
    .await?;
    let (read, _) = receipt(&ben.api(1), chat, ana.id).await?;
    ensure!(read < sent[0], "delivered is not read");
    until_unread(&ana, chat, read, 10).await?;
    ensure!(bens.events("delivered").len() < 10, "they are gathered");
    bens.say(chat, "the end").await?;
    for own in [&phone, &tablet] {
        own.hears(chat, "the end").await?;
        assert_eq!(own.events("delivered"), [Value::Null; 0]);
    }
    Ok(())
}

#[tokio::test]
async fn in_large_chats_only_the_own_devices_hear_of_it() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let mut crowd = Vec::new();
    for n in 0..PARTICIPANTS {
        crowd.push(Person::register(&cluster, &format!("Ben {n}")).await?);
    }
    let others: Vec<&Person> = crowd.iter().collect();
    let chat = ana.api(0).group("Crowd", &others).await?.id;
    let bens = crowd[0].connect(0).await?;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let sent = bens.say(chat, "hello").await?.seq;
    phone.request("delivered", up_to(chat, sent)).await?;
    phone.request("read", up_to(chat, sent)).await?;
    sees(&tablet, "read", chat, ana.id, sent).await?;
    until_unread(&ana, chat, sent, 0).await?;
    let path = format!("/chats/{chat}/receipts");
    ana.api(0).get(&path).await?.refused(403, "forbidden")?;
    phone.say(chat, "I have read it").await?;
    bens.hears(chat, "I have read it").await?;
    assert_eq!(bens.events("read").len() + bens.events("delivered").len(), 0);
    Ok(())
}

#[tokio::test]
async fn coming_back_one_hears_what_one_has_read_elsewhere() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chats = [ana.api(0).direct(&ben).await?.id, ana.api(0).group("T", &[&ben]).await?.id];
    let bens = ben.connect(1).await?;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    bens.say(chats[1], "before").await?;
    phone.hears(chats[1], "before").await?;
    let cursor = phone.cursor()?;
    drop(phone);

    let mut last = Vec::new();
    for chat in chats {
        let mut seq = 0;
        for n in 0..5 {
            seq = bens.say(chat, &format!("missed {n}")).await?.seq;
            tablet.request("delivered", up_to(chat, seq)).await?;
            tablet.request("read", up_to(chat, seq)).await?;
        }
        last.push(seq);
    }
    for gateway in [1, 0] {
        let back = ana.first.resume(gateway, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
        back.expect("resume_done", |_| true).await?;
        let told = back.events("read");
        let expected: Vec<Value> = chats
            .iter()
            .zip(&last)
            .map(|(chat, seq)| json!({"chatId": chat, "userId": ana.id, "seq": seq}))
            .collect();
        assert_eq!(told, expected, "the furthest of each chat, once");
        back.check_feeds()?;
        // The cursor covers it.
        let again = ana.first.resume(1 - gateway, &back.cursor()?).await?;
        again.expect("resume_done", |_| true).await?;
        assert_eq!(again.events("read"), [Value::Null; 0]);
    }
    Ok(())
}

#[tokio::test]
async fn what_was_read_while_the_worker_was_stopped_counts() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).open_group("Group", &[&ben]).await?.id;
    let anas = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    let written = bens.say(direct, "written").await?.seq;
    let mut last = 0;
    for n in 0..3 {
        last = bens.say(group, &format!("written {n}")).await?.seq;
    }
    until_unread(&ben, group, last, 0).await?;
    soon("all is written", async || {
        Ok((total(&ana.api(1)).await? == UnreadTotal { total: 4, chats: 2 }).then_some(()))
    })
    .await?;

    cluster.worker(0).terminate().await?;
    // What is not written yet can be read already.
    let unwritten = bens.say(group, "not written").await?.seq;
    anas.hears(group, "not written").await?;
    anas.request("read", up_to(group, unwritten)).await?;
    sees(&bens, "read", group, ana.id, unwritten).await?;
    anas.request("read", up_to(direct, written)).await?;
    bens.say(direct, "unread").await?;
    anas.refused("read", up_to(group, unwritten + 1_000_000)).await?;
    cluster.worker(0).start().await?;

    until_unread(&ana, group, unwritten, 0).await?;
    until_unread(&ana, direct, written, 1).await?;
    for gateway in [0, 1] {
        assert_eq!(total(&ana.api(gateway)).await?, UnreadTotal { total: 1, chats: 1 });
    }
    // Who leaves has nothing unread there, and who joins again has read what came before.
    bens.say(group, "one more").await?;
    anas.hears(group, "one more").await?;
    ana.api(0).post(&format!("/chats/{group}/leave"), json!({})).await?.expect(200)?;
    assert_eq!(total(&ana.api(1)).await?, UnreadTotal { total: 1, chats: 1 });
    bens.say(group, "not for her").await?;
    let joined = ana.api(1).post(&format!("/chats/{group}/join"), json!({})).await?.expect(200)?;
    let joined: Chat = serde_json::from_value(joined["chat"].clone())?;
    assert_eq!(joined.me.context("a viewer")?.unread_count, 0);
    assert_eq!(total(&ana.api(1)).await?, UnreadTotal { total: 1, chats: 1 });
    Ok(())
}

#[tokio::test]
async fn a_chat_is_muted_and_hidden_on_all_of_ones_devices() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).group("Group", &[&ben]).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?.connect(1).await?;
    let bens = ben.connect(1).await?;
    let updated = async |socket: &Socket, own: &dyn Fn(&Me) -> bool| {
        let is_it = |chat: &Chat| chat.me.as_ref().is_some_and(own);
        socket.expect_as("chat_updated", is_it).await
    };

    let answer = phone.request("mute_chat", json!({"chatId": group, "forever": true})).await?;
    assert_eq!(answer["me"]["muted"], true);
    assert_eq!(updated(&tablet, &|me| me.muted).await?.id, group);
    assert_eq!(updated(&phone, &|me| me.muted).await?.id, group);
    let until = json!({"until": "2999-01-02T03:04:05.678Z"});
    let path = format!("/chats/{group}/mute");
    let put = ana.api(0).request(Method::PUT, &path).json(&until).send().await?;
    assert_eq!(put.status(), 200);
    let timed = updated(&tablet, &|me| me.muted_until.is_some()).await?;
    assert_eq!(serde_json::to_value(&timed)?["me"]["mutedUntil"], until["until"]);
    assert!(!me(&ben.api(0), group).await?.muted, "for oneself alone");
    ana.api(1).delete(&path).await?.expect(200)?;
    updated(&phone, &|me| !me.muted).await?;
    assert!(!me(&ana.api(0), group).await?.muted);

    bens.say(direct, "hello").await?;
    phone.hears(direct, "hello").await?;
    let answer = phone.tell("hide_chat", direct).await?;
    assert_eq!(answer["me"]["hidden"], true);
    assert_eq!(updated(&tablet, &|me| me.hidden).await?.id, direct);
    let listed = async |api: &Api| -> Result<Vec<ChatId>> {
        Ok(api.chats("limit=50").await?.items.into_iter().map(|chat| chat.id).collect())
    };
    // The message before was sent already, whether or not it is written.
    soon("it is written", async || {
        Ok(ana.api(0).chat(direct).await?.last_message.is_some().then_some(()))
    })
    .await?;
    assert_eq!(listed(&ana.api(1)).await?, [group]);
    assert_eq!(listed(&ben.api(1)).await?.len(), 2);
    bens.say(direct, "again").await?;
    tablet.hears(direct, "again").await?;
    soon(
        "it is listed",
        async || Ok((listed(&ana.api(1)).await? == [direct, group]).then_some(())),
    )
    .await?;
    assert!(!me(&ana.api(0), direct).await?.hidden);

    // A device that comes back hears of it too.
    let cursor = tablet.cursor()?;
    phone.tell("hide_chat", direct).await?;
    updated(&tablet, &|me| me.hidden).await?;
    drop(tablet);
    let device = ana.device("another").await?;
    let back = device.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
    assert_eq!(updated(&back, &|me| me.hidden).await?.id, direct);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_is_refused() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let stranger = Person::register(&cluster, "Cleo").await?;
    let group = ana.api(0).group("Group", &[&ben]).await?.id;
    let phone = ana.connect(0).await?;
    let strangers = stranger.connect(1).await?;
    let sent = phone.say(group, "hello").await?.seq;
    for event in ["read", "delivered"] {
        let path = format!("/chats/{group}/{event}");
        for seq in [0, sent + 1_000_000_000, u64::MAX] {
            let refused = phone.refused(event, up_to(group, seq)).await?;
            assert_eq!(refused.code.as_str(), "bad_request", "{seq}");
            let body = json!({"seq": seq});
            ana.api(1).post(&path, body).await?.refused(400, "bad_request")?;
        }
        for seq in [json!(-1), json!(1.5), json!("1"), Value::Null] {
            let data = json!({"chatId": group, "seq": seq});
            assert_eq!(phone.refused(event, data).await?.code.as_str(), "bad_request", "{seq}");
        }
        let refused = strangers.refused(event, up_to(group, sent)).await?;
        assert_eq!(refused.code.as_str(), "not_member");
        stranger.api(0).post(&path, json!({"seq": sent})).await?.refused(403, "not_member")?;
        let named = json!({"chatId": group, "seq": sent, "userId": ben.id});
        assert_eq!(phone.refused(event, named).await?.code.as_str(), "forbidden");
    }
    for path in ["receipts", ""] {
        let path = format!("/chats/{group}/{path}");
        let path = path.trim_end_matches('/');
        stranger.api(0).get(path).await?.refused(403, "not_member")?;
    }
    for bad in [
        json!({}),
        json!({"forever": false}),
        json!({"forever": true, "until": "2999-01-01T00:00:00Z"}),
        json!({"until": "2001-01-01T00:00:00Z"}),
        json!({"until": "tomorrow"}),
        json!({"until": "9999-12-31T23:59:59-01:00"}),
    ] {
        let mut data = bad.clone();
        data["chatId"] = json!(group);
        assert_eq!(phone.refused("mute_chat", data).await?.code.as_str(), "bad_request", "{bad}");
        let path = format!("/chats/{group}/mute");
        let put = ana.api(0).request(Method::PUT, &path).json(&bad).send().await?;
        assert_eq!(put.status(), 400, "{bad}");
    }
    let data = json!({"chatId": group, "forever": true});
    assert_eq!(strangers.refused("mute_chat", data).await?.code.as_str(), "not_member");
    let chat = json!({"chatId": group});
    for (socket, code) in [(&phone, "forbidden"), (&strangers, "not_member")] {
        assert_eq!(socket.refused("hide_chat", chat.clone()).await?.code.as_str(), code);
    }
    let hide = format!("/chats/{group}/hide");
    ana.api(0).post(&hide, json!({})).await?.refused(403, "forbidden")?;
    // Nothing of it has left a trace.
    let (read, delivered) = receipt(&ana.api(0), group, ben.id).await?;
    assert!(read < sent && delivered < sent);
    until_unread(&ben, group, read, 1).await
}
