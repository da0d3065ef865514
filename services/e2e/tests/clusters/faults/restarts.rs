//! Each process in turn goes and comes back: nothing that was acked is lost, nothing comes
//! twice, and what does not need the one that is away goes on.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natter_cluster::{Cluster, Node};
use natter_e2e::{
    Api, Person, Socket, Stage,
    person::{anonymous, fresh_phone},
    soon,
};
use natter_protocol::{
    error::{ErrorCode, Outcome},
    ids::{ChatId, Seq},
    server::{Chat, ContentType, PresenceList, Sent},
};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

static STAGE: Stage = Stage::with(|builder| builder.gateway_env("NATTER_DRAIN_SECONDS", "2"));

/// Ana on gateway 0, Ben on gateway 1, and what they have said to each other.
struct Story {
    ana: Person,
    ben: Person,
    chat: ChatId,
    anas: Socket,
    bens: Socket,
    said: Vec<String>,
}

impl Story {
    async fn begin(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
        let mut story = Self { ana, ben, chat, anas, bens, said: Vec::new() };
        story.goes_on("at first").await?;
        Ok(story)
    }

    /// Both say something, and hear each other.
    async fn goes_on(&mut self, when: &str) -> Result<()> {
        for (speaker, listener, who) in
            [(&self.anas, &self.bens, "Ana"), (&self.bens, &self.anas, "Ben")]
        {
            let content = format!("{who} {when}");
            insist(speaker, self.chat, &content).await?;
            listener.hears(self.chat, &content).await?;
            self.said.push(content);
        }
        Ok(())
    }

    /// Both gateways tell the whole story, in order; so does Postgres, in time.
    async fn is_complete(&self) -> Result<()> {
        let mut newest = 0;
        for (gateway, person) in [(0, &self.ben), (1, &self.ana)] {
            let page = person.api(gateway).history(self.chat, "limit=200").await?;
            ensure!(!page.partial, "partial, with everything running");
            let told = page.messages.iter().filter(|m| m.content_type == ContentType::Text);
            let told: Vec<_> = told.map(|message| message.content.as_str()).collect();
            assert_eq!(told, self.said);
            newest = page.to_seq;
        }
        self.is_persisted(newest).await?;
        self.anas.check_feeds()?;
        self.bens.check_feeds()
    }

    async fn is_persisted(&self, seq: Seq) -> Result<()> {
        soon("the worker has written it", async || {
            Ok((self.ana.api(1).chat(self.chat).await?.last_seq >= seq).then_some(()))
        })
        .await
    }
}

/// Sends one message, again and again with the same client id, while that is the advice.
async fn insist(socket: &Socket, chat: ChatId, content: &str) -> Result<Sent> {
    let id = Uuid::now_v7().to_string();
    soon("the message is taken", async || once(socket, chat, content, &id).await).await
}

async fn once(socket: &Socket, chat: ChatId, content: &str, id: &str) -> Result<Option<Sent>> {
    let data = json!({"chatId": chat, "content": content, "clientMsgId": id});
    match socket.ask("send_message", data).await? {
        Ok(sent) => Ok(Some(serde_json::from_value(sent)?)),
        Err(error) if error.code == ErrorCode::Unavailable => Ok(None),
        Err(error) => bail!("{error:?} is no reason to try again"),
    }
}

/// Once a gateway knows that the broker is away, it says at once that nothing was sent.
async fn refused_at_once(socket: &Socket, chat: ChatId) -> Result<()> {
    let data = json!({"chatId": chat, "content": "not now"});
    soon("its gateway knows", async || {
        let error = socket.refused("send_message", data.clone()).await?;
        Ok((error.outcome == Some(Outcome::NotSent)).then_some(()))
    })
    .await?;
    for _ in 0..3 {
        let asked = Instant::now();
        let error = socket.refused("send_message", data.clone()).await?;
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        assert_eq!((error.code, error.outcome), (ErrorCode::Unavailable, Some(Outcome::NotSent)));
    }
    Ok(())
}

/// Looks again and again whether it still is true, for as long as `node` takes over starting.
async fn start(node: &Node) -> Result<()> {
    node.start().await.with_context(|| format!("starting {}", node.name()))
}

#[tokio::test]
async fn a_gateway_is_terminated_and_its_clients_go_to_the_other() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    let gone = cluster.gateway(0);
    let (ended, told) = tokio::join!(gone.terminate(), async {
        let reconnect = story.anas.expect("reconnect", |_| true).await?;
        story.anas.expect_close(1012).await?;
        anyhow::Ok(reconnect)
    });
    assert!(ended?.context("it was away")?.success(), "in good order");
    assert!(told?["afterMs"].is_u64());
    story.bens.say(story.chat, "while she was away").await?;
    story.said.push("while she was away".to_owned());
    story.anas.check_feeds()?;

    story.anas = story.ana.connect(1).await?;
    story.goes_on("on one gateway").await?;
    start(gone).await?;
    story.anas = story.ana.connect(0).await?;
    story.goes_on("on two gateways again").await?;
    story.is_complete().await
}

#[tokio::test]
async fn a_gateway_is_killed_in_the_middle_of_sending() -> Result<()> {
    const SENDS: usize = 100;
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    let ids: Vec<_> = (0..SENDS).map(|_| Uuid::now_v7().to_string()).collect();
    let mut requests = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let data = json!({"chatId": story.chat, "content": format!("{n}"), "clientMsgId": id});
        requests.push(story.anas.post("send_message", data).await?);
    }
    // As soon as some are acked, and before all are.
    story.anas.reply(requests[SENDS / 10]).await??;
    cluster.gateway(0).kill().await?;
    assert_eq!(story.anas.closed(Duration::from_secs(5)).await?.code, None);
    story.anas.check_feeds()?;

    // She sends everything again whose reply she does not have. Some of it is there already.
    story.anas = story.ana.connect(1).await?;
    for (n, id) in ids.iter().enumerate() {
        let content = format!("{n}");
        let sent = soon("it is taken", async || once(&story.anas, story.chat, &content, id).await);
        sent.await?;
    }
    story.bens.hears(story.chat, &format!("{}", SENDS - 1)).await?;
    story.said.extend((0..SENDS).map(|n| n.to_string()));
    story.goes_on("after the crash").await?;
    let heard = story.bens.events("message");
    let heard: Vec<_> = heard.iter().filter_map(|data| data["content"].as_str()).collect();
    let others: Vec<_> = story.said.iter().filter(|said| !said.starts_with("Ben")).collect();
    assert_eq!(heard, others);
    start(cluster.gateway(0)).await?;
    story.is_complete().await
}

#[tokio::test]
async fn the_worker_is_killed_and_comes_back() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    for n in 0..100 {
        let content = format!("{n}");
        story.anas.say(story.chat, &content).await?;
        story.said.push(content);
        if n == 50 {
            cluster.worker(0).kill().await?;
        }
    }
    story.goes_on("without a worker").await?;
    // Membership does not need it either: who changes it tells the feeds.
    let cleo = Person::register(&cluster, "Cleo").await?;
    let cleos = cleo.connect(0).await?;
    let group = story.ben.api(1).group("Without a worker", &[&cleo]).await?.id;
    cleos.expect_as("chat_added", |added: &Chat| added.id == group).await?;
    story.bens.say(group, "hello Cleo").await?;
    cleos.hears(group, "hello Cleo").await?;

    start(cluster.worker(0)).await?;
    story.goes_on("with a worker again").await?;
    story.is_complete().await?;
    cluster.worker(0).restart().await?;
    story.goes_on("with the next worker").await?;
    story.is_complete().await
}

#[tokio::test]
async fn redis_is_killed_and_messages_do_not_notice() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    cluster.redis().kill().await?;
    story.goes_on("without Redis").await?;
    // Not even those who come now do.
    story.bens = story.ben.connect(1).await?;
    story.goes_on("and connected without Redis").await?;
    let answer = story.ana.api(0).get("/chats").await?;
    answer.expect(200)?;

    start(cluster.redis()).await?;
    story.goes_on("with Redis again").await?;
    // What was in it comes back by itself.
    soon("presence is known again", async || {
        let ask = json!({"userIds": [story.ben.id]});
        let answer = story.anas.request("presence_subscribe", ask).await?;
        let items = serde_json::from_value::<PresenceList>(answer)?.items;
        Ok(items.iter().any(|presence| presence.online).then_some(()))
    })
    .await?;
    soon("typing is told again", async || {
        story.bens.tell("typing_start", story.chat).await?;
        let joined = story.anas.tell("join_chat", story.chat).await?;
        Ok((joined["typing"] == json!([story.ben.id])).then_some(()))
    })
    .await?;
    story.anas.expect("user_typing", |data| data["typing"] == true).await?;
    story.is_complete().await
}

/// What needs Postgres says that it is away, and does not take long over it.
async fn needs_postgres(story: &Story, strangers: &Api, open: ChatId) -> Result<()> {
    const LONG: Duration = Duration::from_secs(6);
    let (phone, password) = (&story.ana.phone, &story.ana.password);
    let login = json!({"phone": phone, "password": password});
    let stranger = json!({"name": "Zoe", "phone": fresh_phone(), "password": "a good password"});
    for (path, body) in [("/auth/login", login), ("/auth/register", stranger)] {
        let asked = Instant::now();
        strangers.post(path, body).await?.refused(503, "unavailable")?;
        ensure!(asked.elapsed() < LONG, "{path} took {:?}", asked.elapsed());
    }
    let made = json!({"isGroup": true, "title": "Not now", "participantIds": []});
    for (socket, event, data) in [
        (&story.anas, "create_chat", made),
        (&story.anas, "join_chat", json!({"chatId": open})),
        (&story.bens, "leave_chat", json!({"chatId": open})),
    ] {
        let asked = Instant::now();
        let error = socket.refused(event, data).await?;
        ensure!(error.code == ErrorCode::Unavailable, "{event}: {error:?}");
        ensure!(asked.elapsed() < LONG, "{event} took {:?}", asked.elapsed());
    }
    // By REST nobody can tell whether the device is still what its token says.
    let path = format!("/chats/{}/messages", story.chat);
    story.ana.api(0).get(&path).await?.refused(503, "unavailable")?;
    Ok(())
}

#[tokio::test]
async fn postgres_is_stopped_and_the_conversation_goes_on() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    let strangers = anonymous(&cluster, 0)?;
    let open = story.ben.api(1).open_group("Open", &[]).await?.id;
    story.bens.expect_as("chat_added", |added: &Chat| added.id == open).await?;
    cluster.postgres().terminate().await?;
    for n in 0..5 {
        story.goes_on(&format!("without Postgres {n}")).await?;
    }
    needs_postgres(&story, &strangers, open).await?;
    // The newest of the history is still there.
    let page = story.bens.request("history", json!({"chatId": story.chat, "limit": 2})).await?;
    assert_eq!(page["partial"], true);
    assert_eq!(page["messages"][1]["content"], json!(story.said.last()));

    start(cluster.postgres()).await?;
    story.goes_on("with Postgres again").await?;
    soon("the gateways have noticed", async || {
        let answer = story.ana.api(0).get("/users/me").await?.status;
        let other = story.ana.api(1).get("/users/me").await?.status;
        Ok((answer == 200 && other == 200).then_some(()))
    })
    .await?;
    story.is_complete().await?;

    cluster.postgres().kill().await?;
    story.goes_on("while it crashed").await?;
    start(cluster.postgres()).await?;
    soon("the gateways have noticed", async || {
        let answer = story.ana.api(0).get("/users/me").await?.status;
        let other = story.ana.api(1).get("/users/me").await?.status;
        Ok((answer == 200 && other == 200).then_some(()))
    })
    .await?;
    story.goes_on("after the crash").await?;
    story.is_complete().await
}

#[tokio::test]
async fn nats_is_killed_and_sends_are_refused_until_it_is_back() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    cluster.nats().kill().await?;
    let mut lost = Vec::new();
    for (socket, who) in [(&story.anas, "Ana"), (&story.bens, "Ben")] {
        let id = Uuid::now_v7().to_string();
        let content = format!("{who} in vain");
        let asked = Instant::now();
        let data = json!({"chatId": story.chat, "content": content, "clientMsgId": id});
        let error = socket.refused("send_message", data).await?;
        // It may have been handed to the broker before its end was known.
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
        assert_eq!(error.code, ErrorCode::Unavailable);
        let outcome = error.outcome.context("whether it may have happened")?;
        lost.push((socket, content, id, outcome));
    }
    for socket in [&story.anas, &story.bens] {
        refused_at_once(socket, story.chat).await?;
    }
    assert!(story.anas.is_open() && story.bens.is_open());
    let body = json!({"content": "by post"});
    let path = format!("/chats/{}/messages", story.chat);
    let problem = story.ana.api(1).post(&path, body).await?.refused(503, "unavailable")?;
    assert!(problem["outcome"].is_string(), "{problem}");
    // What is in Postgres can still be read, marked or not for what may be missing.
    let page = story.ana.api(0).get(&format!("/chats/{}/messages", story.chat)).await?;
    assert!(page.status == 200 || page.status == 503, "{page:?}");

    start(cluster.nats()).await?;
    let mut again = Vec::new();
    for (socket, content, id, outcome) in lost {
        let sent = soon("it is taken", async || once(socket, story.chat, &content, &id).await);
        let sent = sent.await?;
        assert!(!(sent.duplicate && outcome == Outcome::NotSent), "it was sent all the same");
        again.push((sent.seq, content));
    }
    again.sort();
    let words = again.into_iter().map(|(_, content)| content);
    story.said.extend(words);
    story.bens.hears(story.chat, "Ana in vain").await?;
    story.anas.hears(story.chat, "Ben in vain").await?;
    for n in 0..5 {
        story.goes_on(&format!("with NATS again {n}")).await?;
    }
    story.is_complete().await?;
    // New chats take effect on connections that were there before.
    let group = story.ana.api(0).group("Afterwards", &[&story.ben]).await?.id;
    story.bens.expect_as("chat_added", |added: &Chat| added.id == group).await?;
    story.anas.say(group, "here as well").await?;
    story.bens.hears(group, "here as well").await?;
    story.bens.check_feeds()
}

#[tokio::test]
async fn nats_hangs_and_nobody_knows_what_has_become_of_a_message() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    cluster.nats().pause()?;
    let id = Uuid::now_v7().to_string();
    let data = json!({"chatId": story.chat, "content": "who knows", "clientMsgId": id});
    let refused = story.anas.ask("send_message", data).await;
    cluster.nats().resume()?;
    let Err(error) = refused? else { bail!("taken by a broker that hangs") };
    assert_eq!((error.code, error.outcome), (ErrorCode::Unavailable, Some(Outcome::Unknown)));
    soon("it is taken", async || once(&story.anas, story.chat, "who knows", &id).await).await?;
    story.said.push("who knows".to_owned());
    story.bens.hears(story.chat, "who knows").await?;
    story.goes_on("afterwards").await?;
    // It was in the broker's hands all the time; once is enough.
    let knows = |data: &Value| data["content"] == "who knows";
    assert_eq!(story.bens.events("message").iter().filter(|data| knows(data)).count(), 1);
    story.is_complete().await
}
