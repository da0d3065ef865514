//! The black-box checker against a cluster: green, and red for each fault of the observer.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_check::{Plan, Run, SeededFault, seeded::spoil, verify};
use natter_e2e::{Stage, soon::within};

static STAGE: Stage = Stage::with(|builder| builder.shards(2));

#[tokio::test]
async fn it_is_green_and_every_seeded_fault_turns_it_red() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let gateways =
        cluster.gateways().iter().map(|node| format!("http://{}", node.address())).collect();
    let run = Run::start(Plan { gateways, rate: 150.0, seed: 7, ..Plan::default() }).await?;
    within(Duration::from_mins(2), "some of everything was done", async || {
        let counts = run.counts();
        let sent = counts.sends.ok > 200 && counts.rest_sends.ok > 2 && counts.duplicates > 5;
        let moved = counts.joins.ok > 0 && counts.leaves.ok > 0 && counts.resumes.ok > 5;
        Ok((sent && moved && counts.typing.ok > 5).then_some(()))
    })
    .await?;
    run.revoke_one().await;
    let (report, seen) = run.observed().await?;
    ensure!(report.verdict.ok, "{}", serde_json::json!(report));
    ensure!(report.verdict.deliveries > 1_000, "{}", serde_json::json!(report));
    let counts = report.counts;
    for outcomes in [counts.sends, counts.rest_sends, counts.typing, counts.resumes] {
        let sum = outcomes.ok + outcomes.failed + outcomes.unknown;
        ensure!(outcomes.invoked == sum, "{outcomes:?}");
    }
    for outcomes in [counts.joins, counts.leaves, counts.revocations] {
        ensure!(outcomes.invoked == outcomes.ok && outcomes.ok > 0, "{outcomes:?}");
    }
    for fault in
        [SeededFault::Drop, SeededFault::Duplicate, SeededFault::Swap, SeededFault::EarlyAck]
    {
        for seed in 0..10 {
            let mut spoiled = seen.clone();
            ensure!(spoil(&mut spoiled, fault, seed), "there was nothing to spoil");
            ensure!(!verify(&spoiled).ok, "{fault:?} was not seen, with seed {seed}");
        }
    }
    println!("{}", serde_json::json!(report));
    Ok(())
}
