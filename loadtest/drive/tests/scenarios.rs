//! Scenarios as they are, with small crowds: they run, and everything is delivered.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_drive::{
    report,
    results::Sheet,
    scenarios::{ALL, Extent},
};
use tokio::{sync::RwLock, task::LocalSet};

/// Where people listen nothing else is done: it keeps two cores busy, and a driver that comes late is cut off
/// as too slow. What only calls and waits goes on side by side.
static LISTENING: RwLock<()> = RwLock::const_new(());

async fn small(name: &str, smaller: usize) -> Result<Sheet> {
    let _alone = LISTENING.write().await;
    run(name, smaller).await
}

async fn small_beside(name: &str, smaller: usize) -> Result<Sheet> {
    let _others = LISTENING.read().await;
    run(name, smaller).await
}

async fn run(name: &str, smaller: usize) -> Result<Sheet> {
    let scenario = ALL.iter().find(|scenario| scenario.name == name).context("no such scenario")?;
    let extent = Extent { repeat: 1, time: Duration::from_secs(1), smaller };
    let sheet = LocalSet::new().run_until((scenario.run)(extent)).await?;
    ensure!(report::faults(&sheet) == 0.0, "{}", report::table(name, &sheet));
    Ok(sheet)
}

fn median(sheet: &Sheet, name: &str) -> Result<f64> {
    let row = sheet.rows.iter().find(|row| row.name == name);
    Ok(row.with_context(|| format!("no figure {name:?}"))?.median())
}

#[tokio::test]
async fn groups_talk_over_both_transports() -> Result<()> {
    let sheet = small("groups", 20).await?;
    for transport in ["native", "Socket.IO"] {
        // 49 of 50 hear each of 10 messages a second.
        let rate = median(&sheet, &format!("{transport}, 10,000/s: deliveries"))?;
        ensure!(rate > 100.0, "{transport}: {rate} deliveries a second");
    }
    Ok(())
}

#[tokio::test]
async fn a_peer_is_measured_beside() -> Result<()> {
    let sheet = small("latency", 20).await?;
    for name in ["send to deliver, p50", "nats-server's WebSocket: send to deliver, p50"] {
        ensure!(median(&sheet, name)? > 0.0, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_push_worker_adds_is_told() -> Result<()> {
    let sheet = small_beside("push", 20).await?;
    for name in ["without", "with a push worker"] {
        ensure!(median(&sheet, &format!("{name}: per CPU-second of all servers"))? > 0.0, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn whoever_is_cut_off_comes_back_to_everything() -> Result<()> {
    let sheet = small("storms", 50).await?;
    ensure!(median(&sheet, "avalanche: tries")? >= 1.0, "nobody was cut off");
    Ok(())
}

#[tokio::test]
async fn a_backlog_is_written_and_pages_of_it_are_read() -> Result<()> {
    ensure!(median(&small_beside("backlog", 100).await?, "written")? > 0.0);
    ensure!(median(&small_beside("history", 100).await?, "a page, p99")? > 0.0);
    Ok(())
}

#[tokio::test]
async fn what_is_said_is_listed_and_found() -> Result<()> {
    let sheet = small_beside("conversation", 100).await?;
    for name in ["a list of chats, p99", "two words, of 20 chats, p99"] {
        ensure!(median(&sheet, name)? > 0.0, "{name}");
    }
    Ok(())
}
