//! An upgrade as it is done everywhere: the migration, then workers, then gateways, one after the
//! other, while people talk.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_check::{Plan, Run};
use natter_e2e::{Stage, soon::within, stage::nothing_panicked};

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
    for node in cluster.workers().iter().chain(cluster.gateways()) {
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
