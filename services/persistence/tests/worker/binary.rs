//! The binary as an operator runs it.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use natter_cluster::testing;
use natter_store::{Store, StoreConfig};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};

use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn it_migrates_runs_and_leaves_in_good_order() -> Result<()> {
    let (nats, database) = (testing::nats_fresh().await?, testing::postgres().await?);
    let admin = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string();
    let command = |subcommand| -> Result<Child> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natter-persistence"));
        command
            .arg(subcommand)
            .env("NATTER_DATABASE_URL", &database)
            .env("NATTER_NATS_URL", nats.url())
            .env("NATTER_SHARDS", "2")
            .env("NATTER_LOG_MAX_BYTES", "10000000")
            .env("NATTER_ADMIN_LISTEN", &admin)
            .stderr(Stdio::null())
            .kill_on_drop(true);
        Ok(command.spawn()?)
    };
    for _ in 0..2 {
        ensure!(timeout(PATIENCE, command("migrate")?.wait()).await??.success());
    }
    let mut worker = command("run")?;
    let store = Store::connect(&StoreConfig::new(database.as_str()))?;
    eventually(async || {
        ensure!(get(&admin, "/ready").await?.starts_with("HTTP/1.1 200"));
        let shards = store.shards().await?;
        ensure!(shards.len() == 2 && shards.iter().all(|row| row.owner.is_some()));
        ensure!(get(&admin, "/metrics").await?.contains("natter_persistence_owner"));
        Ok(())
    })
    .await?;

    let pid = i32::try_from(worker.id().context("it has ended")?)?;
    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
    ensure!(timeout(PATIENCE, worker.wait()).await??.success());
    assert!(store.shards().await?.iter().all(|row| row.owner.is_none()), "given back");
    Ok(())
}

async fn get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
