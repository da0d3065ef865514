//! An owner whose Postgres is away.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt;
use natter_bus::subjects;
use natter_cluster::testing;
use natter_persistence::owner::{Owner, StepError};
use natter_protocol::feed::{Digest, FeedKind};
use tokio::time::Instant;

use crate::support::{PATIENCE, World, eventually, step_to};

/// A step that Postgres refuses; others may come before.
async fn until_refused(owner: &mut Owner) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        ensure!(Instant::now() < deadline, "Postgres takes it");
        match owner.step().await {
            Ok(_) => {}
            Err(StepError::Store(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

#[tokio::test]
async fn gateways_are_told_while_postgres_is_away_and_nothing_is_written_twice() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let world = World::on(postgres.url()).await?;
    let mut owner = world.owner().await?;
    let one = world.send("one").await?;
    step_to(&mut owner, one).await?;
    let mut digests = world.digests().await?;
    postgres.kill().await?;
    world.send("two").await?;
    until_refused(&mut owner).await?;

    // A batch is held, and more comes: it is told like any other.
    let three = world.send("three").await?;
    let mut heads = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !heads.contains(&(FeedKind::Chat, world.chat.id, three)) {
        ensure!(Instant::now() < deadline, "not told: {heads:?}");
        tokio::select! {
            told = owner.tell_for(PATIENCE) => told?,
            Some(message) = digests.next() => {
                heads = serde_json::from_slice::<Digest>(&message.payload)?.heads;
            }
        }
    }
    // It dies with what it holds; the next one writes it, once.
    drop(owner);
    postgres.start().await?;
    let mut next = eventually(async || world.owner().await).await?;
    step_to(&mut next, three).await?;
    assert_eq!(world.texts().await?, ["one", "two", "three"]);
    Ok(())
}

#[tokio::test]
async fn who_can_read_no_further_says_nothing() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let world = World::on(postgres.url()).await?;
    let mut owner = world.owner().await?;
    let one = world.send("one").await?;
    step_to(&mut owner, one).await?;
    postgres.kill().await?;
    // More than it holds: a batch that cannot be written, and what is read beside it, each up to 20 MB.
    let text = "x".repeat(900_000);
    let mut head = 0;
    for _ in 0..60 {
        head = world.publish_raw(subjects::stored(world.chat), text.as_str()).await?;
    }
    until_refused(&mut owner).await?;
    // All that is told by then has been told when nothing more comes for a few heartbeats: gateways
    // wait for 2 s before they look themselves.
    let mut digests = world.digests().await?;
    let mut told_to = 0;
    loop {
        tokio::select! {
            told = owner.tell_for(Duration::from_secs(2)) => {
                told?;
                break;
            }
            Some(message) = digests.next() => {
                told_to = serde_json::from_slice::<Digest>(&message.payload)?.to;
                ensure!(told_to < head, "more than it can hold");
            }
        }
    }
    assert!(told_to < head, "{told_to} of {head}");

    postgres.start().await?;
    eventually(async || Ok(world.store.ping().await?)).await?;
    step_to(&mut owner, head).await?;
    assert_eq!(world.row().await?.persisted_seq, head);
    Ok(())
}
