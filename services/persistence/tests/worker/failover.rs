//! Several workers, and servers that go away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_bus::subjects;
use natter_cluster::testing;
use natter_persistence::worker;
use natter_runtime::Health;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::support::{World, config, eventually};

struct Worker {
    task: JoinHandle<()>,
    stop: CancellationToken,
    health: Health,
}

fn start(world: &World, name: &str) -> Worker {
    let (stop, health) = (CancellationToken::new(), Health::new());
    let (store, bus) = (world.store.clone(), world.bus.clone());
    let work = worker::run(config(name), store, bus, health.clone(), stop.clone());
    Worker { task: tokio::spawn(work), stop, health }
}

async fn owned_by(world: &World, name: &str) -> Result<()> {
    eventually(async || {
        let owner = world.row().await?.owner;
        ensure!(owner.as_deref() == Some(name), "{owner:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_shard_has_one_owner_and_another_when_that_one_goes() -> Result<()> {
    let world = World::new().await?;
    let first = start(&world, "first");
    owned_by(&world, "first").await?;
    let second = start(&world, "second");
    world.written_to(world.send("one").await?).await?;
    eventually(async || {
        ensure!(second.health.is_ready());
        Ok(())
    })
    .await?;
    assert_eq!(world.row().await?.owner.as_deref(), Some("first"), "the second stands by");

    // In good order: no lease has to run out.
    let started = Instant::now();
    first.stop.cancel();
    first.task.await?;
    assert_ne!(world.row().await?.owner.as_deref(), Some("first"));
    owned_by(&world, "second").await?;
    world.written_to(world.send("two").await?).await?;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    // Killed: its lease runs out.
    let third = start(&world, "third");
    second.task.abort();
    let last = world.send("three").await?;
    owned_by(&world, "third").await?;
    world.written_to(last).await?;
    assert_eq!(world.texts().await?, ["one", "two", "three"]);
    third.stop.cancel();
    third.task.await?;
    Ok(())
}

#[tokio::test]
async fn the_worker_goes_on_when_its_servers_come_back() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let world = World::on(postgres.url()).await?;
    let worker = start(&world, "worker");
    world.written_to(world.send("one").await?).await?;

    postgres.kill().await?;
    // Live traffic does not need it.
    let two = world.send("two").await?;
    eventually(async || {
        ensure!(worker.health.reasons() == ["postgres"]);
        Ok(())
    })
    .await?;
    postgres.start().await?;
    world.written_to(two).await?;

    // Frozen: no connection breaks, and nobody answers.
    postgres.pause()?;
    let frozen = world.send("frozen").await?;
    eventually(async || {
        ensure!(worker.health.reasons() == ["postgres"]);
        Ok(())
    })
    .await?;
    postgres.resume()?;
    world.written_to(frozen).await?;

    world.nats.kill().await?;
    eventually(async || {
        ensure!(worker.health.reasons() == ["nats"]);
        Ok(())
    })
    .await?;
    world.nats.start().await?;
    let three = eventually(async || world.send("three").await).await?;
    world.written_to(three).await?;
    assert_eq!(world.texts().await?, ["one", "two", "frozen", "three"]);
    eventually(async || {
        ensure!(worker.health.is_ready());
        Ok(())
    })
    .await?;

    // Memory goes with its server; the owner has made the mirror anew.
    let jetstream = async_nats::jetstream::new(world.raw_nats.clone());
    for _ in 0..2 {
        eventually(async || {
            jetstream.get_stream(subjects::live_stream(0)).await.context("no mirror")?;
            Ok(())
        })
        .await?;
        world.delete_stream(&subjects::live_stream(0)).await?;
    }
    eventually(async || {
        jetstream.get_stream(subjects::live_stream(0)).await.context("no mirror")?;
        Ok(())
    })
    .await?;

    // The outbox that nobody relayed is swept by now, or soon.
    eventually(async || {
        let followed = world.store.followed(world.grace.id).await?;
        ensure!(followed.chats[0].from_seq.is_some());
        Ok(())
    })
    .await?;
    worker.stop.cancel();
    worker.task.await?;
    Ok(())
}
