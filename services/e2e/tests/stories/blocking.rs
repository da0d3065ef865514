//! Somebody blocks somebody else, while both are connected to both gateways.

use anyhow::{Result, ensure};
use natter_e2e::{Answer, Api, Person, Socket, soon};
use natter_protocol::{ids::UserId, server::PresenceList};
use reqwest::Method;
use serde_json::{Value, json};

use crate::stories::STAGE;

async fn block(api: &Api, user: UserId) -> Result<u16> {
    let answer = api.request(Method::PUT, &format!("/users/{user}/block")).send().await?;
    Ok(answer.status().as_u16())
}

async fn unblock(api: &Api, user: UserId) -> Result<Answer> {
    api.delete(&format!("/users/{user}/block")).await
}

async fn presence(socket: &Socket, user: UserId) -> Result<usize> {
    let answer = socket.request("presence_subscribe", json!({"userIds": [user]})).await?;
    Ok(serde_json::from_value::<PresenceList>(answer)?.items.len())
}

/// Tries until it is as expected: the other gateway may hear of it a moment later.
async fn can_say(socket: &Socket, chat: natter_protocol::ids::ChatId, can: bool) -> Result<()> {
    soon("it is heard of", async || {
        let said = socket.ask("send_message", json!({"chatId": chat, "content": "hello"})).await?;
        if let Err(error) = &said {
            ensure!(error.code.as_str() == "forbidden", "{error}");
            ensure!(error.message == "messages cannot be sent in this chat", "{error}");
        }
        Ok((said.is_ok() == can).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_one_to_one_is_shut_for_both_on_every_device_at_once() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).group("Both", &[&ben]).await?.id;
    let anas = [ana.connect(0).await?, ana.device("tablet").await?.connect(1).await?];
    let bens = [ben.connect(0).await?, ben.device("tablet").await?.connect(1).await?];
    anas[0].say(chat, "before").await?;
    bens[1].hears(chat, "before").await?;
    let cursors = (anas[1].cursor()?, bens[1].cursor()?);

    assert_eq!(block(&ana.api(1), ben.id).await?, 204);
    for socket in anas.iter().chain(&bens) {
        can_say(socket, chat, false).await?;
    }
    for gateway in [0, 1] {
        for person in [&ana, &ben] {
            let path = format!("/chats/{chat}/messages");
            let said = person.api(gateway).post(&path, json!({"content": "by REST"})).await?;
            said.refused(403, "forbidden")?;
        }
    }
    // She is told on all of her devices, he on none.
    for socket in &anas {
        let told = socket.expect("blocking", |_| true).await?;
        assert_eq!(told, json!({"userId": ben.id, "blocked": true, "chatId": chat}));
    }
    // Nothing else changes: the history is there, and the group.
    for (socket, other) in [(&anas[0], &bens[1]), (&bens[1], &anas[0])] {
        ensure!(!socket.request("history", json!({"chatId": chat})).await?["messages"].is_null());
        let sent = socket.say(group, "in the group").await?;
        other.expect("message", |data| data["seq"] == json!(sent.seq)).await?;
    }
    for (person, other) in [(&ana, &ben), (&ben, &ana)] {
        let body = json!({"isGroup": false, "participantIds": [other.id]});
        let there = person.api(0).post("/chats", body).await?.expect(200)?;
        assert_eq!(there["id"], json!(chat), "it is there still");
    }
    // Typing is answered, and not passed on.
    let mark = anas[0].mark();
    bens[0].tell("typing_start", chat).await?;
    bens[0].tell("typing_start", group).await?;
    anas[0].expect("user_typing", |data| data["chatId"] == json!(group)).await?;
    ensure!(anas[0].since(mark, "user_typing").iter().all(|data| data["chatId"] == json!(group)));

    // Those who come now find it so, fresh or resuming, on any node.
    for gateway in [0, 1] {
        for (device, cursor, tells) in
            [(&ana.first, &cursors.0, true), (&ben.first, &cursors.1, false)]
        {
            let fresh = device.connect(gateway).await?;
            can_say(&fresh, chat, false).await?;
            let back = device.resume(gateway, cursor).await?;
            back.expect("resume_done", |_| true).await?;
            can_say(&back, chat, false).await?;
            assert_eq!(
                back.events("blocking").len(),
                usize::from(tells),
                "{}",
                back.failure("told")
            );
        }
    }
    for socket in &bens {
        ensure!(socket.events("blocking").is_empty(), socket.failure("he was told"));
    }

    let blocks = ana.api(0).get("/blocks").await?.expect(200)?;
    assert_eq!(blocks["items"][0]["user"], json!({"id": ben.id, "name": "Ben"}));
    assert_eq!(ben.api(1).get("/blocks").await?.expect(200)?["items"], json!([]));
    // Both block; it opens when neither does.
    assert_eq!(block(&ben.api(0), ana.id).await?, 204);
    unblock(&ana.api(0), ben.id).await?.expect(204)?;
    bens[0].expect("blocking", |data| data["blocked"] == true).await?;
    anas[0].expect("blocking", |data| data["blocked"] == false).await?;
    can_say(&anas[0], chat, false).await?;
    unblock(&ben.api(1), ana.id).await?.expect(204)?;
    for socket in anas.iter().chain(&bens) {
        can_say(socket, chat, true).await?;
        socket.check_feeds()?;
    }
    Ok(())
}

#[tokio::test]
async fn who_is_blocked_opens_no_chat_and_does_not_see_who_is_there() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    ana.api(0).group("All", &[&ben, &cleo]).await?;
    let watchers = [ben.connect(0).await?, ben.device("tablet").await?.connect(1).await?];
    let cleos = cleo.connect(1).await?;
    for socket in watchers.iter().chain([&cleos]) {
        assert_eq!(presence(socket, ana.id).await?, 1);
    }
    let comes = ana.connect(0).await?;
    for socket in watchers.iter().chain([&cleos]) {
        socket.expect("presence", |data| data["online"] == true).await?;
    }
    assert_eq!(block(&ana.api(0), ben.id).await?, 204);
    for (one, other) in [(&ana, &ben), (&ben, &ana)] {
        for gateway in [0, 1] {
            let body = json!({"isGroup": false, "participantIds": [other.id]});
            one.api(gateway).post("/chats", body).await?.refused(403, "forbidden")?;
        }
    }
    // Asked again, she is not there to be seen; she sees him.
    for socket in &watchers {
        assert_eq!(presence(socket, ana.id).await?, 0);
    }
    assert_eq!(presence(&comes, ben.id).await?, 1);
    let told = |socket: &Socket| -> Vec<Value> { socket.events("presence") };
    let before: Vec<usize> = watchers.iter().map(|socket| told(socket).len()).collect();
    comes.close().await?;
    cleos.expect("presence", |data| data["online"] == false).await?;
    // Of Cleo they hear, after that.
    for socket in &watchers {
        assert_eq!(presence(socket, cleo.id).await?, 1);
    }
    cleos.close().await?;
    for (socket, before) in watchers.iter().zip(before) {
        socket.expect("presence", |data| data["userId"] == json!(cleo.id)).await?;
        let hers = told(socket).iter().filter(|data| data["userId"] == json!(ana.id)).count();
        assert_eq!(hers, before, "{}", socket.failure("it heard of her"));
    }
    unblock(&ana.api(1), ben.id).await?.expect(204)?;
    for socket in &watchers {
        assert_eq!(presence(socket, ana.id).await?, 1);
    }
    ana.api(0).direct(&ben).await?;
    Ok(())
}

#[tokio::test]
async fn a_watcher_who_is_blocked_hears_nothing_more_without_asking_again() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    ana.api(0).group("All", &[&ben, &cleo]).await?;
    let (bens, cleos) = (ben.connect(1).await?, cleo.connect(1).await?);
    let both = json!({"userIds": [ana.id, cleo.id]});
    bens.request("presence_subscribe", both).await?;
    assert_eq!(presence(&cleos, ana.id).await?, 1);
    let watching = ana.connect(0).await?;
    bens.expect("presence", |data| data["userId"] == json!(ana.id)).await?;
    cleos.expect("presence", |data| data["userId"] == json!(ana.id)).await?;
    let mark = bens.mark();
    assert_eq!(block(&ana.api(0), ben.id).await?, 204);
    watching.expect("blocking", |_| true).await?;
    // This comes later on his own feed: the block has been heard of on his gateway by then.
    let marker = cleo.api(0).group("Marker", &[&ben]).await?.id;
    bens.expect("chat_added", |data| data["id"] == json!(marker)).await?;
    watching.close().await?;
    cleos.expect("presence", |data| data["online"] == false).await?;
    cleos.close().await?;
    bens.expect("presence", |data| data["userId"] == json!(cleo.id) && data["online"] == false)
        .await?;
    let heard = bens.since(mark, "presence");
    ensure!(
        heard.iter().all(|data| data["userId"] == json!(cleo.id)),
        bens.failure("it heard of one who has blocked")
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_blocked_is_refused() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let api = ana.api(0);
    assert_eq!(block(&api, ana.id).await?, 400);
    assert_eq!(block(&api, UserId::generate()).await?, 404);
    unblock(&api, UserId::generate()).await?.refused(404, "not_found")?;
    unblock(&api, ben.id).await?.expect(204)?;
    for _ in 0..2 {
        assert_eq!(block(&api, ben.id).await?, 204);
    }
    api.get("/blocks?limit=0").await?.refused(400, "bad_request")?;
    api.get("/blocks?cursor=x").await?.refused(400, "bad_request")?;
    api.get("/blocks?limit=1").await?.expect(200)?;
    Ok(())
}
