//! Logs that are made anew while webhooks have not come to their end.

use anyhow::{Context, Result, ensure};
use natter_bus::{Hooked, HooksConfig, subjects};
use natter_protocol::{
    feed::{Entry, Event},
    ids::{Seq, Shard},
    webhook::HookFilter,
};
use natter_store::{FillRow, NewEndpoint};

use crate::support::{PATIENCE, World, step_to};

const SHARD: Shard = 0;
const WORKER: &str = "push";
const GAP: Seq = 1_000_000_000;

/// A world with an endpoint.
async fn world() -> Result<World> {
    let world = World::new().await?;
    let new = NewEndpoint {
        name: "shop".to_owned(),
        url: "http://127.0.0.1:9/".to_owned(),
        secret: "whsec_x".to_owned(),
        filter: HookFilter::default(),
    };
    world.store.add_endpoint(&new, 1).await?;
    Ok(world)
}

/// All of the log is written, and its owner makes it anew.
async fn made_anew(world: &World, last: Seq) -> Result<()> {
    step_to(&mut world.owner().await?, last).await?;
    let log = world.bus.log_state(SHARD).await?.context("a log")?;
    world.bus.seal_log(SHARD, log.made_at).await?;
    drop(world.owner().await?);
    ensure!(world.row().await?.epoch == 2);
    Ok(())
}

/// A push worker has come so far in the log, and is away.
async fn looked(world: &World, log_seq: Seq) -> Result<()> {
    world.bus.ensure_hooks(SHARD, &HooksConfig::default(), 1).await?;
    let (mut last, mut reader) = (0, world.bus.log_reader(SHARD, 1));
    while reader.next_seq() <= log_seq {
        let batch = reader.next_batch(1, PATIENCE).await?;
        last = world.bus.add_hooks(&batch, last).await?;
    }
    world.store.claim_fill(SHARD, WORKER, PATIENCE, log_seq).await?.context("free")?;
    let row = FillRow { log_seq, stream_seq: last };
    Ok(world.store.save_fill(SHARD, WORKER, row, 0).await?)
}

/// The messages among the events that are kept.
async fn kept(world: &World) -> Result<Vec<String>> {
    let Some(state) = world.bus.hooks_state(SHARD).await? else { return Ok(Vec::new()) };
    let mut events: Vec<Hooked> = Vec::new();
    for seq in state.first..=state.last {
        events.extend(world.bus.hooked(SHARD, seq).await?);
    }
    ensure!(events.is_sorted_by(|a, b| a.log_seq < b.log_seq), "not in the log's order");
    let text = |event: &Hooked| match serde_json::from_slice::<Entry>(&event.body).ok()?.event {
        Event::Message(sent) => Some(sent.content),
        _ => None,
    };
    Ok(events.iter().filter_map(text).collect())
}

async fn lost(world: &World) -> Result<u64> {
    let id = world.store.endpoint("shop").await?.id;
    let lanes = world.store.endpoint_lanes(id).await?;
    Ok(lanes.iter().map(|lane| lane.lost).sum())
}

#[tokio::test]
async fn what_webhooks_have_not_come_to_goes_over_when_a_log_is_made_anew() -> Result<()> {
    for looked_at in [None, Some("a"), Some("b"), Some("c")] {
        let world = world().await?;
        let mut last = 0;
        for text in ["a", "b", "c"] {
            last = world.send(text).await?;
            if looked_at == Some(text) {
                looked(&world, last).await?;
            }
        }
        made_anew(&world, last).await?;
        assert_eq!(kept(&world).await?, ["a", "b", "c"], "{looked_at:?}");
        // Whoever fills the stream goes on behind it.
        let after = world.send("after").await?;
        assert!(after > last + GAP / 2);
        let state = world.bus.hooks_state(SHARD).await?.context("a stream")?;
        let newest = world.bus.hooked(SHARD, state.last).await?.context("an event")?;
        assert_eq!(newest.log_seq, last);
    }
    Ok(())
}

#[tokio::test]
async fn what_is_carried_over_is_not_handed_over_too() -> Result<()> {
    let world = world().await?;
    looked(&world, 0).await?;
    let written = world.send("written").await?;
    step_to(&mut world.owner().await?, written).await?;
    world.send("not written").await?;
    let log = world.bus.log_state(SHARD).await?.context("a log")?;
    world.bus.seal_log(SHARD, log.made_at).await?;
    let mut owner = world.owner().await?;
    assert_eq!(kept(&world).await?, ["written"]);
    let head = world.bus.log_state(SHARD).await?.context("a log")?.last_seq;
    step_to(&mut owner, head).await?;
    assert_eq!(world.texts().await?, ["written", "not written"]);
    Ok(())
}

#[tokio::test]
async fn nothing_is_kept_for_nobody() -> Result<()> {
    let world = World::new().await?;
    let last = world.send("a").await?;
    made_anew(&world, last).await?;
    assert_eq!(world.bus.hooks_state(SHARD).await?, None);
    Ok(())
}

#[tokio::test]
async fn what_goes_with_a_log_is_counted_for_each_endpoint() -> Result<()> {
    let world = world().await?;
    let store = &world.store;
    // Whoever tells endpoints has looked.
    store.share_webhooks(WORKER, 1, PATIENCE).await?;
    let first = world.send("a").await?;
    looked(&world, first).await?;
    world.send("b").await?;
    let cut = world.send("c").await?;
    let last = world.send("d").await?;
    step_to(&mut world.owner().await?, last).await?;
    world.bus.purge(SHARD, cut).await?;
    made_anew(&world, last).await?;
    assert_eq!((kept(&world).await?, lost(&world).await?), (vec!["a".into(), "d".into()], 2));

    // A log that is gone takes all with it that is not handed over.
    let mut owner = world.owner().await?;
    let end = world.send("e").await?;
    step_to(&mut owner, end).await?;
    drop(owner);
    world.delete_stream(&subjects::log_stream(SHARD)).await?;
    drop(world.owner().await?);
    assert_eq!(lost(&world).await?, 3);
    Ok(())
}
