//! `natter-check` as operators and scripts run it: what it prints, and its exit status.

use std::{
    net::{Ipv4Addr, TcpListener},
    process::Output,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_cluster::Cluster;
use serde_json::Value;
use tokio::process::Command;

async fn check(gateways: &[String], more: &[&str]) -> Result<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter-check"));
    for gateway in gateways {
        command.args(["--gateway", gateway]);
    }
    command.args(["--json", "--users", "4", "--groups", "2", "--seed", "7"]).args(more);
    command.output().await.context("natter-check does not start")
}

fn report(output: &Output) -> Result<Value> {
    let told = String::from_utf8_lossy(&output.stdout);
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{told}{}", String::from_utf8_lossy(&output.stderr)))
}

#[tokio::test]
async fn green_is_0_and_each_seeded_fault_is_1() -> Result<()> {
    let cluster = Cluster::builder()
        .gateways(2)
        .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
        .gateway_env("NATTER_CALLS_PER_SECOND", "0")
        .start()
        .await?;
    let gateways = cluster.gateways().iter().map(|node| format!("http://{}", node.address()));
    let gateways: Vec<String> = gateways.collect();
    let work = ["--seconds", "4", "--rate", "40"];
    let output = check(&gateways, &work).await?;
    let green = report(&output)?;
    ensure!(output.status.code() == Some(0) && green["verdict"]["ok"] == true, "{green}");
    ensure!(green["counts"]["sends"]["ok"].as_u64() > Some(20), "{green}");
    ensure!(green["counts"]["revocations"]["ok"] == 1, "{green}");

    let faults = ["drop", "duplicate", "swap", "early-ack"];
    try_join_all(faults.map(async |fault| {
        let more = [&work[..], &["--seed-fault", fault]].concat();
        let output = check(&gateways, &more).await?;
        let red = report(&output)?;
        ensure!(output.status.code() == Some(1) && red["verdict"]["ok"] == false, "{fault}: {red}");
        ensure!(!red["verdict"]["listed"].as_array().context("none listed")?.is_empty(), "{red}");
        anyhow::Ok(())
    }))
    .await?;
    cluster.stop().await
}

#[tokio::test]
async fn what_cannot_be_found_out_is_2() -> Result<()> {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let began = Instant::now();
    let output = check(&[format!("http://{nobody}")], &[]).await?;
    ensure!(output.status.code() == Some(2) && output.stdout.is_empty(), "{output:?}");
    ensure!(String::from_utf8_lossy(&output.stderr).contains(&nobody.to_string()), "{output:?}");
    ensure!(began.elapsed() < Duration::from_mins(1), "{:?}", began.elapsed());
    let output = check(&["http://127.0.0.1:1".to_owned()], &["--users", "2"]).await?;
    ensure!(output.status.code() == Some(2), "{output:?}");
    Ok(())
}
