//! Following feeds against a real server: in order, without a hole, once, whatever gets lost on
//! the live path.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result, bail};
use natter_bus::{
    Bus, BusConfig, LiveWatch, LogConfig,
    follow::{FollowEvent, Follower, Start},
};
use natter_cluster::testing::{self, Fresh};
use natter_protocol::{
    feed::{Digest, Entry, Event, Feed, MessageSent, Signal},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    server::UserCard,
};
use tokio::time::{Instant, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    server: Fresh,
    bus: Bus,
    follower: Follower,
}

impl World {
    /// A log, and the live mirror if wanted.
    async fn new(live: bool) -> Result<Self> {
        let server = testing::nats_fresh().await?;
        let config = BusConfig::new(server.url(), "test");
        let bus = Bus::connect(&config).await?;
        eventually(async || Ok(bus.ping().await?)).await?;
        let log = LogConfig { max_bytes: 64 * 1024 * 1024, ..LogConfig::default() };
        bus.ensure_log(0, &log, None).await?;
        if live {
            bus.ensure_live(0, &mut LiveWatch::default()).await?;
        }
        let follower = Follower::new(config, bus.clone(), 1);
        Ok(Self { server, bus, follower })
    }

    async fn follow(&mut self, feed: Feed, start: Start) -> Result<Seq> {
        self.follower.follow(feed, start);
        self.wait(|event| match event {
            FollowEvent::Following(followed, at) if followed == feed => Some(at),
            _ => None,
        })
        .await
    }

    async fn wait<T>(&mut self, mut want: impl FnMut(FollowEvent) -> Option<T>) -> Result<T> {
        let found = async {
            loop {
                if let Some(found) = want(self.follower.next().await) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.context("it did not come")
    }

    /// The next `count` entries of a feed, each with its predecessor.
    async fn entries(&mut self, feed: Feed, count: usize) -> Result<Vec<(Seq, Seq)>> {
        let mut seen = Vec::new();
        while seen.len() < count {
            seen.push(
                self.wait(|event| match event {
                    FollowEvent::Entry(on, arrival) if on == feed => {
                        Some((arrival.seq, arrival.prev))
                    }
                    _ => None,
                })
                .await
                .with_context(|| format!("of {count} came {seen:?}"))?,
            );
        }
        Ok(seen)
    }

    /// The next verified position, and the entries that come before it.
    async fn verified(&mut self) -> Result<(Vec<Seq>, Seq)> {
        let mut entries = Vec::new();
        let verified = self
            .wait(|event| match event {
                FollowEvent::Entry(_, arrival) => {
                    entries.push(arrival.seq);
                    None
                }
                FollowEvent::Verified(_, to) => Some(to),
                _ => None,
            })
            .await?;
        Ok((entries, verified))
    }

    async fn publish(&self, feed: Feed) -> Result<Seq> {
        self.publish_text(feed, "hello").await
    }

    async fn publish_text(&self, feed: Feed, content: &str) -> Result<Seq> {
        let sender = UserCard { id: UserId::generate(), name: "Ada".to_owned(), bot: false };
        let id = MessageId::generate();
        let event = Event::Message(MessageSent {
            id,
            sender,
            device_id: Some(DeviceId::generate()),
            content: content.to_owned(),
            replaced: false,
            media: None,
            client_msg_id: id.to_string(),
            reply_to: None,
            quote: None,
            mentions: Vec::new(),
        });
        let entry = Entry { origin: None, event };
        Ok(self.bus.publish(feed, &id.to_string(), &entry)?.await?.seq)
    }
}

async fn eventually<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn chat() -> Feed {
    Feed::chat(0, ChatId::generate())
}

/// What continues the chain after the entry `from`; 0 where no entry before is known.
fn chained(from: Seq, seqs: &[Seq]) -> Vec<(Seq, Seq)> {
    let prevs = std::iter::once(from).chain(seqs.iter().copied());
    seqs.iter().copied().zip(prevs).collect()
}

#[tokio::test]
async fn live_entries_come_in_order_and_signals_beside_them() -> Result<()> {
    let mut world = World::new(true).await?;
    let (feed, other) = (chat(), chat());
    let first = world.publish(feed).await?;
    assert_eq!(world.follow(feed, Start::Now).await?, first);
    let mut seqs = Vec::new();
    for _ in 0..50 {
        seqs.push(world.publish(feed).await?);
        world.publish(other).await?;
    }
    let mut entries = world.entries(feed, 50).await?;
    // The first one may have been found by the look at the heads, which tells no predecessor.
    if entries[0].1 == 0 {
        entries[0].1 = first;
    }
    assert_eq!(entries, chained(first, &seqs));

    let signal = Signal::Typing {
        user_id: UserId::generate(),
        device_id: DeviceId::generate(),
        ttl_ms: 5_000,
    };
    world.bus.signal(feed, &signal)?;
    let body = world
        .wait(|event| match event {
            FollowEvent::Signal(on, body) if on == feed => Some(body),
            _ => None,
        })
        .await?;
    assert_eq!(serde_json::from_slice::<Signal>(&body)?, signal);

    world.follower.unfollow(feed);
    world.publish(feed).await?;
    // What is followed afterwards is confirmed after it, so it would have come before.
    let mut unwanted = false;
    world.follower.follow(other, Start::Now);
    world
        .wait(|event| match event {
            FollowEvent::Entry(on, _) => {
                unwanted |= on == feed;
                None
            }
            FollowEvent::Following(..) => Some(()),
            _ => None,
        })
        .await?;
    assert!(!unwanted, "a feed that is not followed any more");
    Ok(())
}

#[tokio::test]
async fn what_lies_before_the_subscription_is_read_from_the_log() -> Result<()> {
    let mut world = World::new(true).await?;
    let (feed, other) = (chat(), chat());
    let mut seqs = Vec::new();
    for _ in 0..600 {
        seqs.push(world.publish(feed).await?);
        world.publish(other).await?;
    }
    let after = seqs[9];
    world.follower.follow(feed, Start::After(after));
    let mut seen = Vec::new();
    let at = world
        .wait(|event| match event {
            FollowEvent::Entry(on, arrival) if on == feed => {
                seen.push((arrival.seq, arrival.prev));
                None
            }
            FollowEvent::Following(on, at) if on == feed => Some(at),
            _ => None,
        })
        .await?;
    assert_eq!(at, seqs[599], "it is followed once its past has been told");
    for _ in 0..5 {
        seqs.push(world.publish(feed).await?);
    }
    seen.extend(world.entries(feed, 5).await?);
    assert_eq!(seen, chained(0, &seqs[10..]));
    Ok(())
}

#[tokio::test]
async fn the_verified_position_never_passes_what_is_missing() -> Result<()> {
    // Without a live mirror everything is lost on the live path.
    let mut world = World::new(false).await?;
    let (feed, other) = (chat(), chat());
    let before = world.publish(other).await?;
    world.follow(feed, Start::Now).await?;
    // No digest has come: the check of heads vouches for what the log held.
    let verified = world.verified().await?;
    assert!(verified.0.is_empty() && verified.1 >= before, "{verified:?}");

    let mut seqs = Vec::new();
    for round in 0..5 {
        let from = world.publish(other).await?;
        seqs.push(world.publish(feed).await?);
        let to = world.publish(other).await?;
        let heads = vec![(feed.kind, feed.id, seqs[round]), (other.kind, other.id, to)];
        world.bus.publish_digest(0, &Digest { epoch: 1, from, to, heads })?;
        let mut entries = Vec::new();
        loop {
            let (more, verified) = world.verified().await?;
            entries.extend(more);
            if verified >= to {
                break;
            }
            assert!(verified < seqs[round] || entries == [seqs[round]], "{verified} {entries:?}");
        }
        assert_eq!(entries, [seqs[round]], "told before it counts as told");
    }
    Ok(())
}

#[tokio::test]
async fn an_ack_a_digest_and_a_look_at_the_heads_each_find_a_lost_tail() -> Result<()> {
    // Without a live mirror everything is lost on the live path.
    let mut world = World::new(false).await?;
    let feed = chat();
    world.follow(feed, Start::Now).await?;

    let acked = world.publish(feed).await?;
    world.follower.expect(feed, acked);
    assert_eq!(world.entries(feed, 1).await?, chained(0, &[acked]));

    let told = world.publish(feed).await?;
    let heads = vec![(feed.kind, feed.id, told)];
    world.bus.publish_digest(0, &Digest { epoch: 1, from: acked, to: told, heads })?;
    assert_eq!(world.entries(feed, 1).await?, chained(acked, &[told]));

    // No digest any more.
    let quiet = world.publish(feed).await?;
    assert_eq!(world.entries(feed, 1).await?, chained(told, &[quiet]));
    Ok(())
}

#[tokio::test]
async fn a_mirror_lost_between_two_entries_leaves_no_hole() -> Result<()> {
    let mut world = World::new(true).await?;
    let feed = chat();
    world.follow(feed, Start::Now).await?;
    let mut seqs = vec![world.publish(feed).await?];
    assert_eq!(world.entries(feed, 1).await?, chained(0, &seqs));
    // Memory goes with its server; what is stored before the mirror is made anew never goes live.
    let mut watch = LiveWatch::default();
    world.delete_live().await?;
    seqs.push(world.publish(feed).await?);
    world.bus.ensure_live(0, &mut watch).await?;
    seqs.push(world.publish(feed).await?);
    assert_eq!(world.entries(feed, 2).await?, chained(seqs[0], &seqs[1..]));
    Ok(())
}

#[tokio::test]
async fn a_broker_that_comes_back_is_followed_on() -> Result<()> {
    let mut world = World::new(true).await?;
    let (feed, quiet) = (chat(), chat());
    world.follow(feed, Start::Now).await?;
    world.follow(quiet, Start::Now).await?;
    let first = world.publish(feed).await?;
    assert_eq!(world.entries(feed, 1).await?, chained(0, &[first]));
    world.server.restart().await?;
    world.wait(|event| (event == FollowEvent::Connected(false)).then_some(())).await?;
    eventually(async || Ok(world.bus.ping().await?)).await?;
    // The mirror has gone with the server's memory, so both are found by looking.
    let second = eventually(async || world.publish(feed).await).await?;
    let unheard = eventually(async || world.publish(quiet).await).await?;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(
            world
                .wait(|event| match event {
                    FollowEvent::Entry(on, arrival) => Some((on, arrival.seq, arrival.prev)),
                    _ => None,
                })
                .await?,
        );
    }
    seen.sort_by_key(|(_, seq, _)| *seq);
    if seen != [(feed, second, first), (quiet, unheard, 0)] {
        bail!("{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn both_connections_log_in_with_what_the_url_says() -> Result<()> {
    let server = testing::nats_fresh().await?;
    let conf = server.log().ancestors().nth(2).context("no folder")?.join("nats/nats.conf");
    let open = std::fs::read_to_string(&conf)?;
    for (lock, login) in [
        ("authorization { token: \"a-token\" }", "a-token"),
        ("authorization { user: ada, password: \"a-password\" }", "ada:a-password"),
    ] {
        std::fs::write(&conf, format!("{open}\n{lock}\n"))?;
        server.terminate().await?;
        server.launch().await?;
        let config = BusConfig::new(server.url().replace("://", &format!("://{login}@")), "test");
        let bus = Bus::connect(&config).await?;
        eventually(async || Ok(bus.ping().await?)).await?;
        let mut follower = Follower::new(config, bus, 1);
        let up = async { while follower.next().await != FollowEvent::Connected(true) {} };
        timeout(PATIENCE, up).await.with_context(|| format!("not let in by {lock}"))?;
        let stranger = Bus::connect(&BusConfig::new(server.url(), "test")).await?;
        assert!(stranger.ping().await.is_err());
    }
    Ok(())
}

#[tokio::test]
async fn a_broker_that_finds_us_too_slow_costs_nothing() -> Result<()> {
    // What the kernel holds for one socket is some megabytes.
    const ENTRIES: usize = 1_500;
    let text = "x".repeat(16 * 1024);
    let mut world = World::new(true).await?;
    let conf = world.server.log().ancestors().nth(2).context("no folder")?.join("nats/nats.conf");
    // Much less than the entries take, so whoever does not read is cut off; no less than one message
    // may take.
    let strict = format!("{}\nmax_pending: 2000000\n", std::fs::read_to_string(&conf)?);
    std::fs::write(&conf, strict)?;
    world.server.terminate().await?;
    world.server.launch().await?;
    eventually(async || {
        world.bus.ensure_live(0, &mut LiveWatch::default()).await?;
        Ok(())
    })
    .await?;
    let feed = chat();
    world.follow(feed, Start::Now).await?;

    // Nobody asks for anything meanwhile, so nothing is taken from the connection for long.
    let mut seqs = Vec::new();
    for _ in 0..ENTRIES {
        seqs.push(world.publish_text(feed, &text).await?);
    }
    let slow = std::fs::read_to_string(world.server.log())?;
    assert!(slow.contains("Slow Consumer"), "the broker did not cut anybody off");
    assert_eq!(world.entries(feed, ENTRIES).await?, chained(0, &seqs));
    Ok(())
}

#[tokio::test]
async fn what_the_log_has_cut_off_is_told_as_lost_and_never_passed_over() -> Result<()> {
    // Nothing comes live, and the follower does nothing while it is not asked for anything.
    let mut world = World::new(false).await?;
    let (feed, quiet, other) = (chat(), chat(), chat());
    let told = world.publish(quiet).await?;
    world.follow(feed, Start::Now).await?;
    world.follow(quiet, Start::Now).await?;
    while world.verified().await?.1 < told {}

    let mut seqs = Vec::new();
    for _ in 0..3 {
        seqs.push(world.publish(feed).await?);
    }
    world.bus.purge(0, seqs[1]).await?;
    world.follower.expect(feed, seqs[2]);
    let mut lost = Vec::new();
    let mut note = |event: FollowEvent| match event {
        FollowEvent::Lost(feed) => {
            lost.push(feed);
            None
        }
        FollowEvent::Entry(on, arrival) => Some((on, arrival.seq)),
        _ => None,
    };
    assert_eq!(world.wait(&mut note).await?, (feed, seqs[2]));
    assert!(lost.contains(&feed), "{lost:?}");
    // What nobody can tell of is lost too: all that the quiet one may have had was cut off.
    world
        .wait(|event| (matches!(event, FollowEvent::Lost(lost) if lost == quiet)).then_some(()))
        .await?;

    // What has been verified is not missed when it is cut off.
    let last = world.publish(other).await?;
    while world.verified().await?.1 < last {}
    world.bus.purge(0, last - 1).await?;
    let next = world.publish(feed).await?;
    world.follower.expect(feed, next);
    let mut lost = None;
    world
        .wait(|event| match event {
            FollowEvent::Lost(feed) => {
                lost = Some(feed);
                None
            }
            FollowEvent::Verified(_, to) => (to >= next).then_some(()),
            _ => None,
        })
        .await?;
    assert_eq!(lost, None);
    Ok(())
}

#[tokio::test]
async fn a_shard_without_its_log_holds_up_no_other() -> Result<()> {
    let mut world = World::new(false).await?;
    let config = BusConfig::new(world.server.url(), "test");
    world.follower = Follower::new(config, world.bus.clone(), 2);
    world.wait(|event| (event == FollowEvent::Connected(true)).then_some(())).await?;
    for _ in 0..50 {
        world.follower.follow(Feed::chat(1, ChatId::generate()), Start::After(7));
    }
    let feed = chat();
    let first = world.publish(feed).await?;
    assert_eq!(world.follow(feed, Start::After(0)).await?, first);
    Ok(())
}

#[tokio::test]
async fn a_shard_is_in_touch_again_once_its_heads_have_been_asked_for() -> Result<()> {
    let mut world = World::new(true).await?;
    let feed = chat();
    world.follow(feed, Start::Now).await?;
    world.wait(|event| (event == FollowEvent::InTouch(0)).then_some(())).await?;
    world.server.restart().await?;
    world.wait(|event| (event == FollowEvent::Connected(false)).then_some(())).await?;
    let missed = eventually(async || world.publish(feed).await).await?;
    let mut seen = None;
    world
        .wait(|event| match event {
            FollowEvent::Entry(_, arrival) => {
                seen = Some(arrival.seq);
                None
            }
            FollowEvent::InTouch(0) => Some(()),
            _ => None,
        })
        .await?;
    if seen.is_none() {
        seen = world.entries(feed, 1).await?.first().map(|(seq, _)| *seq);
    }
    assert_eq!(seen, Some(missed));
    Ok(())
}

impl World {
    async fn delete_live(&self) -> Result<()> {
        let client = async_nats::connect(self.server.url()).await?;
        async_nats::jetstream::new(client).delete_stream("LIVE_0").await?;
        Ok(())
    }
}
