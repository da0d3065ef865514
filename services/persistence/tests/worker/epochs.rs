//! Logs that are gone, or are not what Postgres knows.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natter_bus::{LogConfig, PublishError, subjects};
use natter_persistence::{
    ahead::Horizon,
    migrate,
    owner::Owner,
    renew::{RenewError, begin_epochs},
    salvage,
};
use natter_protocol::ids::Seq;
use tokio::time::Instant;

use crate::{
    backup::Backup,
    support::{PATIENCE, World, eventually, log_config, step_to},
};

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
        world.bus.open_log(0).await?;
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

#[tokio::test]
async fn a_log_that_starts_after_what_is_written_is_taken_as_it_is() -> Result<()> {
    let world = World::new().await?;
    let a = world.send("a").await?;
    step_to(&mut world.owner().await?, a).await?;
    let b = world.send("b").await?;
    let c = world.send("c").await?;
    world.bus.purge(0, b).await?;
    let mut owner = world.owner().await?;
    let row = world.row().await?;
    assert_eq!((row.epoch, row.first_seq, row.persisted_seq), (2, c, b));
    step_to(&mut owner, c).await?;
    assert_eq!(world.texts().await?, ["a", "c"]);
    Ok(())
}

/// All that is in the log, with its end.
async fn written(world: &World) -> Result<Vec<String>> {
    let mut owner = world.owner().await?;
    let head = world.bus.log_state(0).await?.context("a log")?.last_seq;
    step_to(&mut owner, head).await?;
    world.texts().await
}

#[tokio::test]
async fn an_end_that_was_read_and_not_written_is_missed_too() -> Result<()> {
    let world = World::new().await?;
    let a = world.send("a").await?;
    step_to(&mut world.owner().await?, a).await?;
    let horizon = Horizon::default();
    let mut owner = world.owner_who_saw(&horizon).await?;
    world.send("b").await?;
    let backup = Backup::take(&world.raw_nats).await?;
    let lost = world.send("lost").await?;
    // With Postgres behind: read, told, not written.
    let deadline = Instant::now() + PATIENCE;
    while horizon.seen().is_none_or(|seen| seen.seq < lost) {
        ensure!(Instant::now() < deadline, "not read in time");
        owner.tell_for(Duration::from_millis(10)).await?;
    }
    drop(owner);
    backup.put_back(&world.raw_nats).await?;
    let log = world.bus.log_state(0).await?.context("a log")?;
    assert!(log.last_seq < lost && log.last_seq > a, "{log:?}");

    // Nothing is given a place that was given before, and what is still there is not lost.
    let mut owner = world.owner_who_saw(&horizon).await?;
    let row = world.row().await?;
    assert!(row.epoch == 2 && row.first_seq >= lost + GAP, "{row:?}");
    let more = world.send("more").await?;
    step_to(&mut owner, more).await?;
    assert_eq!(world.texts().await?, ["a", "b", "more"]);
    Ok(())
}

#[tokio::test]
async fn what_is_acked_while_a_log_is_made_anew_is_there_afterwards() -> Result<()> {
    let world = World::new().await?;
    let first = world.send("first").await?;
    let backup = Backup::take(&world.raw_nats).await?;
    let gone = world.send("gone").await?;
    step_to(&mut world.owner().await?, gone).await?;
    backup.put_back(&world.raw_nats).await?;
    assert_eq!(world.bus.log_state(0).await?.context("a log")?.last_seq, first);

    // More than goes over at once, and on and on while it does.
    let mut acked = Vec::new();
    for n in 0..2_500 {
        let (msg_id, entry) = world.message(world.chat, &format!("before {n}"));
        acked.push((format!("before {n}"), world.bus.publish(world.chat, &msg_id, &entry)?));
    }
    let mut texts = vec!["first".to_owned(), "gone".to_owned()];
    for (text, publishing) in acked {
        publishing.await?;
        texts.push(text);
    }
    let taking = world.owner();
    let sending = async {
        let (mut sent, mut unknown, mut refused) = (Vec::new(), Vec::new(), 0);
        for n in 0.. {
            let text = format!("meanwhile {n}");
            match world.send(&text).await {
                Ok(seq) => {
                    sent.push(text);
                    if seq > GAP && sent.len() > 100 {
                        break;
                    }
                }
                Err(error) => match error.downcast::<PublishError>()? {
                    PublishError::NotSent(_) => refused += 1,
                    // It was on its way when the log went: it is there or not.
                    PublishError::Unknown(_) => unknown.push(text),
                    error @ PublishError::Full => bail!(error),
                },
            }
        }
        anyhow::Ok((sent, unknown, refused))
    };
    let (owner, sent) = tokio::join!(taking, sending);
    let (sent, unknown, refused) = sent?;
    assert!(refused + unknown.len() > 0, "the intake was stopped");
    texts.extend(sent);
    drop(owner?);
    // A page is 200 at most: ask for the number, and for each one's place.
    written(&world).await?;
    let mut found: Vec<String> = world.all_texts().await?;
    texts.extend(unknown.into_iter().filter(|text| found.contains(text)));
    found.sort();
    texts.sort();
    assert_eq!(found, texts);
    Ok(())
}

#[tokio::test]
async fn who_dies_while_it_makes_a_log_anew_is_followed() -> Result<()> {
    for died_after in ["sealing", "keeping", "starting the epoch", "deleting", "publishing"] {
        let world = World::new().await?;
        let a = world.send("a").await?;
        step_to(&mut world.owner().await?, a).await?;
        world.send("b").await?;
        world.send("c").await?;
        // As far as the one before came.
        let made_at = world.bus.log_state(0).await?.context("a log")?.made_at;
        world.bus.seal_log(0, made_at).await?;
        let row = world.row().await?;
        let steps = ["sealing", "keeping", "starting the epoch", "deleting", "publishing"];
        let came_to = steps.iter().position(|step| *step == died_after).context("a step")?;
        if came_to >= 1 {
            world.bus.ensure_kept(0, 1).await?;
            let mut reader = world.bus.log_reader(0, a + 1);
            for raw in reader.next_batch(10, PATIENCE).await? {
                world.bus.keep(&raw)?.await?;
            }
        }
        if came_to >= 2 {
            let owner = row.owner.as_deref();
            world.store.start_epoch(0, 2, a + GAP, owner).await?;
        }
        if came_to >= 3 {
            world.delete_stream(&subjects::log_stream(0)).await?;
        }
        if came_to >= 4 {
            world.bus.create_closed_log(0, &log_config(), a + GAP).await?;
            // Published, and not yet forgotten.
            let kept = world.bus.kept(0).await?.context("kept")?;
            let raw = world.bus.kept_reader(0, kept.first).next_batch(10, PATIENCE).await?;
            world.bus.carry(&raw[0])?.await?;
        }
        assert_eq!(written(&world).await?, ["a", "b", "c"], "died after {died_after}");
        assert!(world.row().await?.epoch >= 2);
        assert_eq!(world.bus.kept(0).await?, None);
        world.send("and on").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_log_too_full_for_what_was_kept_takes_it_later() -> Result<()> {
    let world = World::new().await?;
    let a = world.send("a").await?;
    world.bus.ensure_kept(0, 1).await?;
    let raw = world.bus.entry(0, a).await?.context("stored")?;
    let kept = natter_bus::Raw { body: vec![b'x'; 900_000].into(), msg_id: None, ..raw };
    world.bus.keep(&kept)?.await?;
    let full = LogConfig { max_bytes: 100_000, ..log_config() };
    world.bus.update_log(0, &full).await?;
    let mut config = crate::support::config("worker");
    config.log = full;
    let horizon = Horizon::default();
    let owner = Owner::take(&world.store, &world.bus, &config, 0, &horizon);
    // It is taken all the same, and what it holds is written.
    step_to(&mut owner.await?.context("free")?, a).await?;
    assert!(world.bus.kept(0).await?.is_some());
    world.bus.update_log(0, &log_config()).await?;
    assert_eq!(salvage::carry_over(&world.bus, 0).await?, 1);
    assert_eq!(world.bus.kept(0).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_new_epoch_that_is_asked_for_begins_once_all_is_written() -> Result<()> {
    let world = World::new().await?;
    let last = world.send("before").await?;
    let begin = async || begin_epochs(&world.store, &world.bus, 1, Duration::ZERO).await;
    // Nobody writes it: the log is left alone.
    let refused = begin().await;
    ensure!(matches!(refused, Err(RenewError::Unwritten(0))), "{refused:?}");
    ensure!(!world.bus.log_state(0).await?.context("a log")?.sealed);
    // It is written, and nobody is there to make another: the next owner does.
    step_to(&mut world.owner().await?, last).await?;
    let refused = begin().await;
    ensure!(matches!(refused, Err(RenewError::NotMadeAnew(0))), "{refused:?}");
    ensure!(world.bus.log_state(0).await?.context("a log")?.sealed);
    let mut owner = world.owner().await?;
    let row = world.row().await?;
    assert_eq!(row.epoch, 2);
    let after = world.send("after").await?;
    ensure!(after >= last + GAP);
    step_to(&mut owner, after).await?;
    assert_eq!(world.texts().await?, ["before", "after"]);
    Ok(())
}
