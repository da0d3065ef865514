//! Logs that are gone, or are not what Postgres knows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_bus::subjects;
use natter_persistence::migrate;
use natter_protocol::ids::Seq;

use crate::support::{PATIENCE, World, eventually, log_config, step_to};

const GAP: Seq = 1_000_000_000;

#[tokio::test]
async fn a_log_that_is_gone_is_made_anew_far_above() -> Result<()> {
    let world = World::new().await?;
    let before = world.send("before").await?;
    step_to(&mut world.owner().await?, before).await?;
    world.delete_stream(&subjects::log_stream(0)).await?;
    // The migration leaves it to the owner.
    migrate::migrate(&world.store, &world.bus, 1, &log_config(), Duration::ZERO).await?;
    assert_eq!(world.bus.log_state(0).await?, None);

    let mut owner = world.owner().await?;
    let row = world.row().await?;
    assert_eq!((row.epoch, row.first_seq), (2, before + GAP));
    let after = world.send("after").await?;
    assert_eq!(after, before + GAP);
    step_to(&mut owner, after).await?;
    assert_eq!(world.texts().await?, ["before", "after"]);
    Ok(())
}

#[tokio::test]
async fn a_log_that_lost_its_end_gives_over_what_it_took_since() -> Result<()> {
    for grown in [1, 6] {
        let world = World::new().await?;
        let texts = ["a", "b", "c", "d"];
        let mut written = 0;
        for text in texts {
            written = world.send(text).await?;
        }
        step_to(&mut world.owner().await?, written).await?;

        // As a server that comes back with less than it had acked, and goes on: shorter than
        // what is written, or already longer again.
        let old = world.bus.entry(0, 1).await?.context("stored")?;
        let made_at = world.bus.log_state(0).await?.context("a log")?.made_at;
        world.bus.replace_log(0, &log_config(), 1, made_at).await?;
        world.publish_raw(old.subject, old.body).await?;
        for n in 0..grown {
            world.send(&format!("since {n}")).await?;
        }
        let mut owner = world.owner().await?;
        let row = world.row().await?;
        assert_eq!(row.epoch, 2, "{row:?}");
        assert!(row.first_seq >= written + GAP);
        let log = world.bus.log_state(0).await?.context("a log")?;
        step_to(&mut owner, log.last_seq).await?;
        let mut expected: Vec<String> = texts.map(String::from).to_vec();
        expected.extend((0..grown).map(|n| format!("since {n}")));
        assert_eq!(world.texts().await?, expected);
    }
    Ok(())
}

#[tokio::test]
async fn a_new_database_takes_the_log_that_is_there() -> Result<()> {
    let world = World::new().await?;
    let one = world.send("one").await?;
    world.bus.purge(0, one).await?;
    let two = world.send("two").await?;
    let other = natter_store::Store::connect(&natter_store::StoreConfig::new(
        natter_cluster::testing::postgres().await?,
    ))?;
    migrate::migrate(&other, &world.bus, 1, &log_config(), PATIENCE).await?;
    let row = other.shards().await?.pop().context("a shard")?;
    assert_eq!((row.epoch, row.first_seq, row.persisted_seq), (1, two, one));
    eventually(async || {
        ensure!(world.bus.log_state(0).await?.context("a log")?.last_seq == two);
        Ok(())
    })
    .await
}
