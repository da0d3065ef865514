//! Presence and typing told on a real Redis, by two nodes.

use std::{collections::HashSet, time::Duration};

use anyhow::{Result, ensure};
use natter_cluster::testing;
use natter_presence::{Heartbeat, PresenceClient, PresenceConfig, PresenceError};
use natter_protocol::{
    ids::{ChatId, DeviceId, UserId},
    limits::PRESENCE_USERS,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

/// A node that has never beaten.
fn silent(
    url: &str,
    node: &str,
    adjust: impl FnOnce(&mut PresenceConfig),
) -> Result<PresenceClient> {
    let mut config = PresenceConfig::new(url.into(), node);
    adjust(&mut config);
    Ok(PresenceClient::new(config)?)
}

async fn node(url: &str, name: &str) -> Result<PresenceClient> {
    let node = silent(url, name, |_| {})?;
    node.heartbeat().await?;
    Ok(node)
}

async fn online(node: &PresenceClient, user: UserId) -> Result<bool> {
    Ok(node.presence(&[user]).await?[0].online)
}

/// Asks until the answer is yes; errors count as no.
async fn eventually(mut ask: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ask().await.unwrap_or(false) {
        ensure!(Instant::now() < deadline, "did not come true in 20 s");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn person() -> (UserId, DeviceId) {
    (UserId::generate(), DeviceId::generate())
}

/// Each user once.
async fn typists(client: &PresenceClient, chat: ChatId) -> Result<Vec<UserId>> {
    let mut users: Vec<_> = client.typing_in(chat).await?.iter().map(|t| t.user).collect();
    users.sort_unstable();
    users.dedup();
    Ok(users)
}

#[tokio::test]
async fn a_user_is_online_from_the_first_device_to_the_last_over_two_nodes() -> Result<()> {
    let url = testing::redis().await?;
    let (one, two) = (node(&url, "one").await?, node(&url, "two").await?);
    let (user, phone) = person();
    let laptop = DeviceId::generate();
    let before = one.presence(&[user]).await?;
    assert!(!before[0].online && before[0].last_seen_at.is_none());

    assert!(one.connected(user, phone).await?, "came online");
    assert!(!two.connected(user, laptop).await?, "was online already");
    assert!(!two.connected(user, phone).await?, "the phone on another node too");
    let devices: HashSet<_> = one.online_devices(user).await?.into_iter().collect();
    assert_eq!(devices, HashSet::from([phone, laptop]));

    assert!(!one.disconnected(user, phone).await?, "the phone is still on the other node");
    assert_eq!(one.online_devices(user).await?.len(), 2);
    assert!(!two.disconnected(user, phone).await?, "the laptop is still there");
    assert_eq!(one.online_devices(user).await?, [laptop]);
    assert!(two.disconnected(user, laptop).await?, "went offline");

    let after = one.presence(&[user]).await?;
    assert!(!after[0].online);
    assert!(after[0].last_seen_at.is_some());
    assert!(one.online_devices(user).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn of_devices_that_connect_at_once_exactly_one_comes_first_and_one_goes_last() -> Result<()> {
    let url = testing::redis().await?;
    let nodes = [node(&url, "one").await?, node(&url, "two").await?];
    let user = UserId::generate();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..40 {
        let node = nodes[n % 2].clone();
        tasks.spawn(async move {
            let device = DeviceId::generate();
            let first = node.connected(user, device).await?;
            Ok::<_, PresenceError>((node, device, first))
        });
    }
    let connected = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(connected.iter().filter(|(_, _, first)| *first).count(), 1);

    let mut tasks = tokio::task::JoinSet::new();
    for (node, device, _) in connected {
        tasks.spawn(async move { node.disconnected(user, device).await });
    }
    let last = tasks.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(last.iter().filter(|last| **last).count(), 1);
    Ok(())
}

#[tokio::test]
async fn a_dead_node_takes_its_devices_offline() -> Result<()> {
    let url = testing::redis().await?;
    let alive = node(&url, "alive").await?;
    let dying = silent(&url, "dying", |config| config.node_ttl = Duration::from_millis(1_500))?;
    let (user, device) = person();
    let (other, other_device) = person();
    assert_eq!(dying.heartbeat().await?, Heartbeat::Begun);
    dying.connected(user, device).await?;
    dying.connected(other, other_device).await?;
    alive.connected(other, DeviceId::generate()).await?;
    assert!(online(&alive, user).await?);

    // It beats no more.
    eventually(async || Ok(!online(&alive, user).await?)).await?;
    assert!(online(&alive, other).await?, "still on the node that lives");
    assert_eq!(alive.online_devices(other).await?.len(), 1);
    assert!(alive.connected(user, device).await?, "a dead node's entry does not count");

    // The same node started again is another life, without the old one's devices.
    let again = node(&url, "dying").await?;
    assert!(alive.disconnected(user, device).await?);
    assert!(!online(&again, user).await?);

    // One that was only silent for long has its devices back once it beats.
    assert_eq!(dying.heartbeat().await?, Heartbeat::Begun);
    assert!(online(&alive, user).await?);
    assert_eq!(dying.heartbeat().await?, Heartbeat::Renewed);
    dying.leave().await?;
    assert!(!online(&alive, user).await?);
    Ok(())
}

#[tokio::test]
async fn keeping_alive_outlives_the_ttl_and_tells_of_each_beginning() -> Result<()> {
    let url = testing::redis().await?;
    let watcher = node(&url, "watcher").await?;
    let kept = silent(&url, "kept", |config| config.node_ttl = Duration::from_secs(2))?;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let beating = tokio::spawn({
        let kept = kept.clone();
        async move { kept.keep_alive(|| _ = begun.send(())).await }
    });
    begins.recv().await;
    let (user, device) = person();
    kept.connected(user, device).await?;
    let until = Instant::now() + Duration::from_millis(4_500);
    while Instant::now() < until {
        assert!(online(&watcher, user).await?, "online as long as its node beats");
        sleep(Duration::from_millis(20)).await;
    }
    assert!(begins.is_empty());

    // Redis forgets.
    kept.leave().await?;
    timeout(Duration::from_secs(10), begins.recv()).await?;
    beating.abort();
    eventually(async || Ok(!online(&watcher, user).await?)).await
}

#[tokio::test]
async fn an_entry_expires_unless_refreshed_and_refreshing_brings_it_back() -> Result<()> {
    let url = testing::redis().await?;
    let one = silent(&url, "one", |config| config.device_ttl = Duration::from_secs(1))?;
    one.heartbeat().await?;
    let (user, device) = person();
    let (lost, lost_device) = person();
    one.connected(user, device).await?;
    one.connected(lost, lost_device).await?;
    eventually(async || {
        one.refresh(&[(user, device)]).await?;
        let told = one.presence(&[user, lost]).await?;
        assert!(told[0].online, "refreshed");
        Ok(!told[1].online)
    })
    .await?;
    one.refresh(&[(lost, lost_device)]).await?;
    assert!(online(&one, lost).await?);
    Ok(())
}

#[tokio::test]
async fn what_lets_a_device_in_is_kept_for_as_long_as_its_bound_unless_renewed() -> Result<()> {
    const BRIEF: Duration = Duration::from_secs(1);
    let url = testing::redis().await?;
    let (one, two) = (silent(&url, "one", |_| {})?, silent(&url, "two", |_| {})?);
    let (phone, tablet) = (Uuid::now_v7(), Uuid::now_v7());
    assert_eq!(two.kept_admission(phone).await?, None);
    one.keep_admission(phone, b"the phone", BRIEF).await?;
    one.keep_admission(tablet, b"the tablet", BRIEF).await?;
    assert_eq!(two.kept_admission(phone).await?.as_deref(), Some(&b"the phone"[..]));
    // One is renewed until the other is gone.
    eventually(async || {
        one.keep_admission(phone, b"renewed", BRIEF).await?;
        let kept = two.kept_admission(phone).await?;
        assert_eq!(kept.as_deref(), Some(&b"renewed"[..]), "renewed in time");
        Ok(two.kept_admission(tablet).await?.is_none())
    })
    .await?;
    eventually(async || Ok(two.kept_admission(phone).await?.is_none())).await
}

#[tokio::test]
async fn many_are_refreshed_and_told_in_their_order_up_to_the_bound() -> Result<()> {
    let url = testing::redis().await?;
    let one = node(&url, "one").await?;
    let entries: Vec<_> = (0..2_000).map(|_| person()).collect();
    one.refresh(&entries).await?;
    let stranger = UserId::generate();
    let mut asked: Vec<_> = entries[..PRESENCE_USERS - 1].iter().map(|(user, _)| *user).collect();
    asked.insert(7, stranger);
    let told = one.presence(&asked).await?;
    assert_eq!(told.iter().map(|presence| presence.user_id).collect::<Vec<_>>(), asked);
    assert!(told.iter().all(|told| told.online == (told.user_id != stranger)));
    assert!(told.iter().all(|told| told.last_seen_at.is_some() == told.online));

    asked.push(stranger);
    assert!(matches!(one.presence(&asked).await, Err(PresenceError::TooMany { .. })));
    assert!(one.presence(&[]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn typing_counts_users_not_devices_and_ends_by_itself() -> Result<()> {
    const LONG: Duration = Duration::from_secs(30);
    let url = testing::redis().await?;
    let (one, two) = (node(&url, "one").await?, node(&url, "two").await?);
    let chat = ChatId::generate();
    let (ann, phone) = person();
    let laptop = DeviceId::generate();
    let (bob, tablet) = person();
    assert!(typists(&one, chat).await?.is_empty());

    one.typing_start(chat, ann, phone, LONG).await?;
    two.typing_start(chat, ann, laptop, LONG).await?;
    two.typing_start(chat, bob, tablet, Duration::from_secs(1)).await?;
    let typing: HashSet<_> = typists(&one, chat).await?.into_iter().collect();
    assert_eq!(typing, HashSet::from([ann, bob]));
    assert!(typists(&one, ChatId::generate()).await?.is_empty(), "in that chat only");

    eventually(async || Ok(typists(&one, chat).await? == [ann])).await?;
    two.typing_stop(chat, ann, phone).await?;
    assert_eq!(typists(&one, chat).await?, [ann], "still on the laptop");
    one.typing_stop(chat, ann, laptop).await?;
    one.typing_stop(chat, ann, laptop).await?;
    assert!(typists(&one, chat).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_chat_where_everybody_types_tells_a_hundred() -> Result<()> {
    let url = testing::redis().await?;
    let one = node(&url, "one").await?;
    let chat = ChatId::generate();
    for _ in 0..150 {
        let (user, device) = person();
        one.typing_start(chat, user, device, Duration::from_secs(30)).await?;
    }
    let typing: HashSet<_> = typists(&one, chat).await?.into_iter().collect();
    assert_eq!(typing.len(), 100);
    Ok(())
}

#[tokio::test]
async fn redis_killed_costs_callers_little_and_comes_back_blank_to_be_refilled() -> Result<()> {
    let redis = testing::redis_fresh().await?;
    let one = node(redis.url(), "one").await?;
    let (begun, mut begins) = mpsc::unbounded_channel();
    let beating = tokio::spawn({
        let one = one.clone();
        async move { one.keep_alive(|| _ = begun.send(())).await }
    });
    let (user, device) = person();
    one.connected(user, device).await?;

    redis.kill().await?;
    eventually(async || Ok(one.presence(&[user]).await.is_err())).await?;
    let started = Instant::now();
    let mut refused = 0;
    for _ in 0..1_000 {
        let away = one.connected(user, device).await;
        refused += usize::from(matches!(away, Err(PresenceError::Away)));
        ensure!(away.is_err(), "nobody is there");
    }
    assert!(refused > 900, "most calls do not touch the network: {refused}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());

    redis.start().await?;
    timeout(Duration::from_secs(10), begins.recv()).await?;
    eventually(async || Ok(!online(&one, user).await?)).await?;
    one.refresh(&[(user, device)]).await?;
    assert!(online(&one, user).await?);
    beating.abort();
    Ok(())
}

#[tokio::test]
async fn redis_that_hangs_is_bounded_by_the_call_limit() -> Result<()> {
    let redis = testing::redis_fresh().await?;
    let one = silent(redis.url(), "one", |config| {
        config.call_limit = Duration::from_millis(300);
        config.retry_after = Duration::from_secs(2);
    })?;
    one.heartbeat().await?;
    redis.pause()?;
    let started = Instant::now();
    assert!(one.heartbeat().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(matches!(one.heartbeat().await, Err(PresenceError::Away)));
    redis.resume()?;
    eventually(async || Ok(one.heartbeat().await.is_ok())).await
}

#[tokio::test]
async fn a_flush_is_noticed_and_refilled() -> Result<()> {
    let redis = testing::redis_fresh().await?;
    let one = node(redis.url(), "one").await?;
    let (user, device) = person();
    one.connected(user, device).await?;
    let mut operator = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
    redis::cmd("FLUSHALL").exec_async(&mut operator).await?;
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut operator).await?;
    assert_eq!(one.heartbeat().await?, Heartbeat::Begun);
    assert!(!online(&one, user).await?);
    one.refresh(&[(user, device)]).await?;
    assert!(online(&one, user).await?);
    assert!(!one.connected(user, device).await?);
    Ok(())
}

#[tokio::test]
async fn a_node_starts_without_redis_and_no_url_shows_in_errors() -> Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let one = silent(&format!("redis://:hunter2@127.0.0.1:{port}/0"), "one", |_| {})?;
    let error = one.heartbeat().await.expect_err("nobody listens");
    assert!(!format!("{error:?} {error} {one:?}").contains("hunter2"));
    let bad = silent("postgres://:hunter2@127.0.0.1/", "one", |_| {}).expect_err("not Redis");
    assert!(!format!("{bad:?}").contains("hunter2"), "{bad:?}");
    Ok(())
}
