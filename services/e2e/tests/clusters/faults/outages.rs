//! Coming back while Postgres is away: by what was kept of the device, and by the log.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::Cluster;
use natter_e2e::{
    Device, Person, Presenting, Socket, Stage,
    socket::Dialled,
    soon,
    soon::{SOON, within},
};
use natter_protocol::{
    feed::{Entry, Event, Feed, SystemEvent, SystemKind},
    ids::ChatId,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, sleep},
};

static STAGE: Stage = Stage::new();

/// What lets a device in is kept for 2 s, and renewed more often than that while it is connected.
static BRIEF: Stage = Stage::with(|builder| {
    builder
        .gateway_env("NATTER_ADMISSION_KEPT_SECONDS", "2")
        .gateway_env("NATTER_HEARTBEAT_SECONDS", "1")
});

/// Nothing is kept.
static NOTHING: Stage =
    Stage::with(|builder| builder.gateway_env("NATTER_ADMISSION_KEPT_SECONDS", "0"));

/// The variable that makes Postgres stay away for longer, in seconds: see `deploy/durability.md`.
const OUTAGE: &str = "NATTER_TEST_OUTAGE_SECONDS";

/// How often somebody comes back to what nothing more is told of.
const ROUNDS: usize = 6;

/// Comes back with a cursor, as often as it takes.
async fn insist(device: &Device, gateway: usize, cursor: &str) -> Result<Socket> {
    let socket =
        soon("the device is let in", async || Ok(device.resume(gateway, cursor).await.ok()))
            .await?;
    ensure!(socket.ready()?.resumed, socket.failure("it was not resumed"));
    Ok(socket)
}

/// The close code with which a device is not let in.
async fn turned_away(cluster: &Cluster, device: &Device, gateway: usize) -> Result<Option<u16>> {
    let address = cluster.gateway(gateway).address();
    match Socket::dial(address, Presenting::Header(&device.access_token)).await? {
        Dialled::Refused(status) => bail!("refused with {status} before it was a socket"),
        Dialled::Open(socket) => {
            let closed = socket.closed(2 * SOON).await?;
            ensure!(socket.events("ready").is_empty(), socket.failure("it was let in first"));
            Ok(closed.code)
        }
    }
}

/// Of how many devices Redis keeps what lets them in.
async fn kept(cluster: &Cluster) -> Result<usize> {
    let mut redis = BufReader::new(TcpStream::connect(cluster.redis().address()).await?);
    redis.write_all(b"KEYS admission:*\r\n").await?;
    let mut answer = String::new();
    redis.read_line(&mut answer).await?;
    let count = answer.trim_end().strip_prefix('*').with_context(|| answer.clone())?;
    Ok(count.parse()?)
}

#[tokio::test]
async fn devices_come_back_and_resume_while_postgres_is_away() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let tablet = ana.device("tablet").await?;
    let tablets = tablet.connect(1).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    // What is kept of a device is renewed as it connects, not as the chats change: what changed
    // since is on the feed.
    let added = ben.api(1).group("Added", &[&ana]).await?.id;
    phone.expect("chat_added", |data| data["id"] == json!(added)).await?;
    let cursor = phone.cursor()?;

    ana.api(0).delete(&format!("/devices/{}", tablet.id)).await?.expect(204)?;
    tablets.expect_close(4403).await?;
    cluster.postgres().kill().await?;
    drop(phone);
    bens.say(chat, "while she was away").await?;
    bens.say(added, "there too").await?;
    let back = insist(&ana.first, 0, &cursor).await?;
    back.hears(chat, "while she was away").await?;
    back.hears(added, "there too").await?;
    back.expect("resume_done", |_| true).await?;
    bens.say(chat, "live").await?;
    back.hears(chat, "live").await?;
    back.say(added, "and back").await?;
    bens.hears(added, "and back").await?;
    back.check_feeds()?;
    // A revoked device stays out, though what was kept of it would let it in.
    let code = turned_away(&cluster, &tablet, 0).await?;
    ensure!(matches!(code, Some(4401 | 4403)), "closed with {code:?}");

    let backlog = talk_on(&ana, back, &bens, chat).await?;
    cluster.postgres().start().await?;
    soon("all of it is in the history", async || {
        let page = ben.api(0).get(&format!("/chats/{added}/messages")).await;
        let Ok(page) = page.and_then(|answer| answer.read::<serde_json::Value>(200)) else {
            return Ok(None);
        };
        let whole = page["partial"] != true && page.to_string().contains("and back");
        Ok(whole.then_some(()))
    })
    .await?;
    let mut told = Vec::new();
    soon("the backlog is written", async || {
        let after = told.last().map_or(0, |(seq, _)| *seq);
        let page = ben.api(0).history(chat, &format!("after={after}&limit=200")).await?;
        told.extend(page.messages.into_iter().map(|message| (message.seq, message.content)));
        Ok(told.iter().any(|(_, content)| Some(content) == backlog.last()).then_some(()))
    })
    .await?;
    let told: Vec<String> = told.into_iter().map(|(_, content)| content).collect();
    ensure!(told.ends_with(&backlog), "{} of {} in order", told.len(), backlog.len());
    Ok(())
}

/// Two talk while Postgres is away, and one of them drops out and comes back again and again: for
/// a moment, or for so many seconds as the environment says. Tells all that was said.
async fn talk_on(
    ana: &Person,
    mut back: Socket,
    bens: &Socket,
    chat: ChatId,
) -> Result<Vec<String>> {
    let seconds = env::var(OUTAGE).ok().map_or(Ok(0), |text| text.parse())?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut said = Vec::new();
    loop {
        for _ in 0..10 {
            let text = format!("without Postgres {}", said.len());
            bens.say(chat, &text).await?;
            back.hears(chat, &text).await?;
            said.push(text);
        }
        let cursor = back.cursor()?;
        drop(back);
        bens.say(chat, &format!("without Postgres {}", said.len())).await?;
        back = insist(&ana.first, said.len() % 2, &cursor).await?;
        back.hears(chat, &format!("without Postgres {}", said.len())).await?;
        said.push(format!("without Postgres {}", said.len()));
        back.check_feeds()?;
        if Instant::now() >= until {
            println!("{} messages and {} resumes in {seconds} s", said.len(), said.len() / 11);
            return Ok(said);
        }
        sleep(Duration::from_millis(500)).await;
    }
}

#[tokio::test]
async fn of_a_chat_that_was_left_since_nothing_more_is_told() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    // What is kept is from here: joining and leaving are both read from her feed, once more.
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let left = ben.api(1).group("Left", &[&ana]).await?.id;
    phone.expect("chat_added", |data| data["id"] == json!(left)).await?;
    phone.request("leave_chat", json!({"chatId": left})).await?;
    phone.expect("chat_removed", |data| data["id"] == json!(left)).await?;
    let cursor = phone.cursor()?;
    cluster.postgres().kill().await?;
    drop(phone);
    // What was said just now is what no digest has covered yet.
    for round in 0..ROUNDS {
        bens.say(left, "not for her").await?;
        bens.say(chat, &format!("for her {round}")).await?;
        bens.say(left, "nor is this").await?;
        let back = insist(&ana.first, round % 2, &cursor).await?;
        back.hears(chat, &format!("for her {round}")).await?;
        bens.say(left, "and not this").await?;
        bens.say(chat, &format!("marker {round}")).await?;
        back.hears(chat, &format!("marker {round}")).await?;
        let got = back.entries()?;
        ensure!(got.iter().all(|got| got.chat == chat), back.failure("it got what was said after"));
    }
    cluster.postgres().start().await?;
    Ok(())
}

/// The worker or a gateway dies, or Postgres goes away, between the two.
#[tokio::test]
async fn who_has_left_as_the_chat_tells_and_the_own_feed_does_not_stays_out() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ben.api(1).group("Left", &[&ana]).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    cluster.postgres().kill().await?;
    // She comes in by what was kept, for it was.
    let back = insist(&ana.first, 1, &phone.cursor()?).await?;
    drop(back);

    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "half")).await?;
    let left = SystemEvent::new(SystemKind::Left, ana.id, 3, "Ana left".to_owned()).about(ana.id);
    let entry = Entry { origin: None, event: Event::System(left) };
    soon("the leaving is on the chat's feed", async || {
        let Ok(published) = bus.publish(Feed::chat(0, chat), "half", &entry) else {
            return Ok(None);
        };
        published.await?;
        Ok(Some(()))
    })
    .await?;
    phone.expect("system", |data| data["kind"] == "left").await?;
    bens.say(chat, "not for her").await?;
    let code = turned_away(&cluster, &ana.first, 0).await?;
    ensure!(code == Some(1013), "closed with {code:?}");
    cluster.postgres().start().await?;
    Ok(())
}

#[tokio::test]
async fn postgres_hangs_and_a_device_comes_back_all_the_same() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let cursor = phone.cursor()?;
    cluster.postgres().pause()?;
    drop(phone);
    bens.say(chat, "meanwhile").await?;
    // On the node that knew her, and on the other.
    for gateway in [0, 1] {
        let back = insist(&ana.first, gateway, &cursor).await?;
        back.hears(chat, "meanwhile").await?;
    }
    cluster.postgres().resume()?;
    Ok(())
}

#[tokio::test]
async fn what_was_kept_for_too_long_lets_nobody_in() -> Result<()> {
    let cluster = BRIEF.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (phone, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    cluster.postgres().kill().await?;
    // Still connected, she could come in once more.
    let other = insist(&ana.first, 1, &phone.cursor()?).await?;
    drop((phone, other));
    // Whoever is let in is kept anew, so nobody tries before what was kept of her is over: then there
    // is only what is kept of Ben, who is connected.
    within(2 * SOON, "what was kept is over", async || {
        Ok((kept(&cluster).await? == 1).then_some(()))
    })
    .await?;
    for gateway in [0, 1] {
        assert_eq!(turned_away(&cluster, &ana.first, gateway).await?, Some(1013));
    }
    // Who was there all the time still is, and so do they come back.
    bens.say(chat, "anybody?").await?;
    insist(&ben.first, 0, &bens.cursor()?).await?;
    Ok(())
}

#[tokio::test]
async fn where_nothing_is_kept_nobody_comes_in_without_postgres() -> Result<()> {
    let cluster = NOTHING.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (phone, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    cluster.postgres().kill().await?;
    for gateway in [0, 1] {
        assert_eq!(turned_away(&cluster, &ana.first, gateway).await?, Some(1013));
    }
    bens.say(chat, "live").await?;
    phone.hears(chat, "live").await?;
    Ok(())
}

#[tokio::test]
async fn without_redis_and_postgres_nobody_new_is_let_in() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let fresh = ana.device("tablet").await?;
    let (phone, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    cluster.postgres().kill().await?;
    // Of a device that has never been connected nothing is kept.
    assert_eq!(turned_away(&cluster, &fresh, 1).await?, Some(1013));
    insist(&ana.first, 1, &phone.cursor()?).await?;
    cluster.redis().kill().await?;
    for device in [&fresh, &ana.first] {
        assert_eq!(turned_away(&cluster, device, 1).await?, Some(1013));
    }
    bens.say(chat, "live").await?;
    phone.hears(chat, "live").await?;
    // They come in as soon as either is back; the fresh one needs Postgres.
    cluster.redis().start().await?;
    cluster.postgres().start().await?;
    soon("it is let in", async || Ok(fresh.connect(1).await.ok())).await?;
    Ok(())
}
