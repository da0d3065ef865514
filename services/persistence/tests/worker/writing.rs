//! One owner: what the log holds becomes history, once, and gateways are told.

use std::time::Duration;

use anyhow::Result;
use natter_bus::subjects;
use natter_persistence::{
    ahead::Horizon,
    owner::{Owner, StepError},
    upkeep,
};
use natter_protocol::{
    feed::{Feed, FeedKind},
    ids::ChatId,
};
use tokio::time::Instant;
use uuid::Uuid;

use crate::support::{World, config, digest_of, step_to};

#[tokio::test]
async fn entries_become_history_and_digests_without_a_hole() -> Result<()> {
    let world = World::new().await?;
    let mut digests = world.digests().await?;
    // The chat's creation, and each participant's addition.
    assert!(world.relay_outbox().await >= 1);
    assert_eq!(world.relay_outbox().await, 0);
    for text in ["one", "two", "three"] {
        world.send(text).await?;
    }
    let head = world.send("four").await?;
    let mut owner = world.owner().await?;
    let stepped = step_to(&mut owner, head).await?;
    assert_eq!((stepped.written as u64, stepped.poison), (head, 0));
    assert_eq!(world.texts().await?, ["one", "two", "three", "four"]);
    let chained = world.history().await?;
    assert!(chained.windows(2).all(|pair| pair[1].prev_seq == pair[0].seq));
    let followed = world.store.followed(world.grace.id).await?;
    assert_eq!(followed.chats[0].last_seq, head);
    assert!(followed.chats[0].from_seq.is_some());

    // From nothing on, range after range.
    let first = digest_of(&mut owner, &mut digests).await?;
    assert_eq!((first.epoch, first.from), (1, 0));
    let mut to = first.to;
    let mut heads = first.heads;
    while to < head {
        let digest = digest_of(&mut owner, &mut digests).await?;
        assert_eq!(digest.from, to);
        to = digest.to;
        heads.extend(digest.heads);
    }
    assert!(heads.contains(&(FeedKind::Chat, world.chat.id, head)));
    assert!(heads.iter().any(|(kind, id, _)| *kind == FeedKind::User && *id == world.grace.id.0));

    // A heartbeat.
    let started = Instant::now();
    let digest = digest_of(&mut owner, &mut digests).await?;
    assert_eq!((digest.from, digest.to, digest.heads.len()), (head, head, 0));
    assert!(started.elapsed() < Duration::from_secs(2));

    // Another owner tells again what the one before may not have told.
    let mut digests = world.digests().await?;
    let mut next = world.owner().await?;
    let mut heard = 0;
    while heard < head {
        let digest = digest_of(&mut next, &mut digests).await?;
        // The owner before may have had one on its way.
        if digest.from <= heard {
            heard = digest.to;
        }
        assert_eq!(world.row().await?.persisted_seq, head, "told, not written again");
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_is_written_once_whoever_tries_again() -> Result<()> {
    let world = World::new().await?;
    let worker = config("worker");
    world.owner().await?;
    let before = world.row().await?;
    let head = {
        world.send("one").await?;
        world.send("two").await?
    };
    step_to(&mut Owner::at(&world.store, &world.bus, &worker, &before, &Horizon::default()), head)
        .await?;

    // As if the first had died between its commit and its next read, and this one had looked
    // before: the same position, the same entries.
    let mut late = Owner::at(&world.store, &world.bus, &worker, &before, &Horizon::default());
    let error = step_to(&mut late, head).await.expect_err("the position has moved");
    assert!(matches!(error.downcast_ref(), Some(StepError::Fenced)), "{error:?}");
    assert_eq!(world.texts().await?, ["one", "two"]);

    // Who is not the owner cannot write, from the right position either.
    let now = world.row().await?;
    let three = world.send("three").await?;
    let mut stranger =
        Owner::at(&world.store, &world.bus, &config("stranger"), &now, &Horizon::default());
    let error = step_to(&mut stranger, three).await.expect_err("not the owner");
    assert!(matches!(error.downcast_ref(), Some(StepError::Fenced)), "{error:?}");
    step_to(&mut world.owner().await?, three).await?;
    assert_eq!(world.texts().await?, ["one", "two", "three"]);
    Ok(())
}

#[tokio::test]
async fn poison_keeps_its_place_and_blocks_nobody() -> Result<()> {
    let world = World::new().await?;
    let first = world.send("first").await?;
    let here = subjects::stored(world.chat);
    world.publish_raw(here.clone(), "{ not JSON").await?;
    world.publish_raw(here.clone(), r#"{"event":{"of_the_future":{}}}"#).await?;
    world.publish_raw(here.clone(), r#"{"event":{"profile_changed":{"name":"x"}}}"#).await?;
    world.publish_raw("in.0.room.x".to_owned(), "whatever").await?;
    let nobodys = Feed::user(0, Uuid::now_v7().into());
    world.publish_raw(subjects::stored(nobodys), [0xff, 0x00]).await?;
    for n in 0..40 {
        world.send(&n.to_string()).await?;
    }
    // Valid JSON that Postgres does not take: no NUL in a text.
    let nul = world.send("a\0b").await?;
    let unknown = Feed::chat(0, ChatId::generate());
    let (msg_id, entry) = world.message(unknown, "to nobody");
    world.bus.publish(unknown, &msg_id, &entry)?.await?;
    let last = world.send("last").await?;

    let mut owner = world.owner().await?;
    let stepped = step_to(&mut owner, last).await?;
    assert_eq!(stepped.written as u64, last);
    assert!(stepped.poison >= 6, "{stepped:?}");
    assert_eq!(world.dead_letters().await?, stepped.poison as u64);

    let history = world.history().await?;
    assert_eq!(history.len(), 42);
    assert_eq!(history[1].prev_seq, first + 3, "void rows are links of the chain");
    assert_eq!(history[41].prev_seq, nul);
    assert_eq!((history[0].content.as_str(), history[41].content.as_str()), ("first", "last"));
    Ok(())
}

#[tokio::test]
async fn a_cut_leaves_what_is_not_written() -> Result<()> {
    let world = World::new().await?;
    let text = "x".repeat(10_000);
    for _ in 0..100 {
        world.send(&text).await?;
    }
    let half = world.bus.log_state(0).await?.expect("a log").last_seq;
    let mut owner = world.owner().await?;
    step_to(&mut owner, half).await?;
    for _ in 0..100 {
        world.send(&text).await?;
    }
    // Far above its share, so all may go but what is not written.
    let persisted = world.row().await?.persisted_seq;
    let small = 10_000;
    for _ in 0..3 {
        upkeep::purge(&world.bus, 0, persisted, small).await?;
    }
    let log = world.bus.log_state(0).await?.expect("a log");
    assert!(log.first_seq <= persisted + 1, "{log:?}");
    assert_eq!(log.last_seq, half + 100);
    step_to(&mut owner, half + 100).await?;
    assert_eq!(world.history().await?.len(), 200);

    // A new owner whose log begins within what it would tell again: it cannot tell of what is
    // gone, and says so by a range that does not follow.
    upkeep::purge(&world.bus, 0, half + 100, small).await?;
    let first_seq = world.bus.log_state(0).await?.expect("a log").first_seq;
    assert!(first_seq > half, "{first_seq}");
    let mut digests = world.digests().await?;
    let mut next = world.owner().await?;
    let more = world.send("more").await?;
    step_to(&mut next, more).await?;
    let mut told = digest_of(&mut next, &mut digests).await?;
    while told.heads.is_empty() {
        assert!(told.to < first_seq, "{told:?}");
        told = digest_of(&mut next, &mut digests).await?;
    }
    assert_eq!(told.from, first_seq - 1);
    Ok(())
}
