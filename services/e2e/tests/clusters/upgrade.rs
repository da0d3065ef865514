//! An upgrade as it is done everywhere: the migration, then workers, then gateways, one after the
//! other, while people talk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig, Raw, subjects};
use natter_check::{Plan, Run};
use natter_cluster::Node;
use natter_e2e::{Person, Stage, metrics::counter, soon, soon::within, stage::nothing_panicked};
use natter_protocol::{feed::Feed, ids::Seq};
use time::OffsetDateTime;

static STAGE: Stage = Stage::with(|builder| {
    builder
        .workers(2)
        .shards(2)
        .gateway_env("NATTER_DRAIN_SECONDS", "2")
        .gateway_env("NATTER_EVENTS_PER_SECOND", "1000")
        .gateway_env("NATTER_EVENTS_BURST", "1000")
});

/// So many messages more are acked before the next process goes.
const BETWEEN: u64 = 40;

async fn goes_on(run: &Run) -> Result<()> {
    let before = run.counts().sends.ok;
    within(Duration::from_mins(1), "sending goes on", async || {
        Ok((run.counts().sends.ok >= before + BETWEEN).then_some(()))
    })
    .await
}

#[tokio::test]
async fn migration_workers_and_gateways_go_one_by_one_and_nobody_misses_anything() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let gateways =
        cluster.gateways().iter().map(|node| format!("http://{}", node.address())).collect();
    let run = Run::start(Plan { gateways, rate: 100.0, seed: 11, ..Plan::default() }).await?;
    goes_on(&run).await?;
    cluster.migrate().await?;
    goes_on(&run).await?;
    let workers = cluster.workers().iter().chain(cluster.pushers());
    for node in workers.chain(cluster.gateways()) {
        let ended = node.terminate().await?.context("it was away")?;
        ensure!(ended.success(), "{} did not end in good order: {ended}", node.name());
        goes_on(&run).await?;
        node.start().await?;
        goes_on(&run).await?;
    }
    let report = run.finish().await?;
    ensure!(report.verdict.ok, "{}", serde_json::json!(report));
    println!("{}", serde_json::json!(report));
    nothing_panicked(&cluster)
}

/// Puts an entry on a feed as a node of the next version may.
async fn store(bus: &Bus, feed: Feed, body: &'static str) -> Result<Seq> {
    let raw = Raw {
        feed: Some(feed),
        subject: subjects::stored(feed),
        seq: 0,
        at: OffsetDateTime::UNIX_EPOCH,
        body: body.into(),
        traceparent: None,
        msg_id: None,
    };
    Ok(bus.publish_again(&raw)?.await?.seq)
}

async fn sum(nodes: &[Node], metric: &str) -> Result<u64> {
    let mut sum = 0;
    for node in nodes {
        sum += counter(node, metric).await?;
    }
    Ok(sum)
}

#[tokio::test]
async fn entries_of_a_newer_version_are_passed_over_and_hold_nobody_up() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
    anas.say(chat, "before").await?;
    bens.hears(chat, "before").await?;
    let cursor = bens.cursor()?;

    let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "the future")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    // Which of the two shards has it, nobody is told.
    let heads = bus.heads(&[Feed::chat(0, chat), Feed::chat(1, chat)]).await?;
    let (feed, _) = *heads.iter().max_by_key(|(_, seq)| *seq).context("neither shard")?;
    let unknown = store(&bus, feed, r#"{"event":{"of_the_future":{"text":"secret"}}}"#).await?;
    let last = anas.say(chat, "after").await?.seq;
    bens.hears(chat, "after").await?;
    bens.say(chat, "and back").await?;
    anas.hears(chat, "and back").await?;

    soon("a worker is past it", async || {
        Ok((ana.api(1).chat(chat).await?.last_seq > last).then_some(()))
    })
    .await?;
    let dead = sum(cluster.workers(), "natter_dead_letters_total").await?;
    ensure!(dead == 1, "{dead} dead letters");
    ensure!(sum(cluster.gateways(), "natter_unreadable_entries_total").await? >= 2, "not counted");
    let page = ben.api(0).history(chat, "limit=10").await?;
    let told: Vec<_> = page.messages.iter().map(|message| message.content.as_str()).collect();
    ensure!(told.ends_with(&["before", "after", "and back"]), "{told:?}");
    ensure!(page.messages.iter().all(|message| message.seq != unknown), "it is shown");
    let back = ben.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
    back.hears(chat, "after").await?;
    back.expect("resume_done", |_| true).await?;
    nothing_panicked(&cluster)
}
