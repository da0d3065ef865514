//! An endpoint that hangs beside one that is well.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{push_services::Step, soon};
use tokio::time::Instant;

use super::{Hook, impatient, pair, say};
use crate::push::support::{Offline, configured, sociable};

#[tokio::test]
async fn one_that_hangs_slows_neither_the_other_nor_push_nor_what_is_written() -> Result<()> {
    let builder = impatient(configured(sociable(Cluster::builder())))
        // It hangs for as long as the story takes.
        .push_env("NATTER_WEBHOOK_DEADLINE_SECONDS", "60");
    let cluster = builder.start().await?;
    let hangs = Hook::add(&cluster, "hangs", &["--kinds=message"]).await?;
    hangs.endpoint.rule(|_| Some(Step::Hang));
    let well = Hook::add(&cluster, "well", &["--kinds=message"]).await?;
    let (ada, _ben, first) = pair(&cluster).await?;
    let cleo = Offline::register(&cluster, "Cleo").await?;
    // As many chats as it has places, and more. All are there before the first is told of, from when on it
    // hangs for a minute.
    let mut chats = Vec::new();
    for _ in 0..20 {
        chats.push(pair(&cluster).await?);
    }
    let mut all = Vec::new();
    for (n, (who, _, chat)) in chats.iter().enumerate() {
        all.push((*chat, say(who, *chat, &format!("chat {n}"), 1).await?));
    }
    for (chat, said) in &all {
        well.endpoint.hears(*chat, said).await?;
    }
    let all_places = hangs.endpoint.until("it hangs", |told| (told.len() >= 16).then_some(()));
    all_places.await?;
    ensure!(hangs.endpoint.told().len() == 16, "more than it has places for");
    let mut slowest = Duration::ZERO;
    let mut said = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        said.extend(say(&ada, first, &format!("beside {n}"), 1).await?);
        well.endpoint.hears(first, &said).await?;
        slowest = slowest.max(began.elapsed());
    }
    println!("the slowest of 20 events was with the other endpoint after {slowest:?}");
    let chat = ada.api(0).direct(&cleo.person).await?.id;
    let sent = ada.api(0).say(chat, "to Cleo").await?;
    cleo.notified(sent.id).await?;
    soon("it is written", async || {
        let written =
            cluster.sql(&format!("SELECT count(*) FROM messages WHERE id = '{}'", sent.id))?;
        Ok((written.trim() == "1").then_some(()))
    })
    .await?;
    ensure!(hangs.endpoint.taken().is_empty(), "it took something");
    cluster.stop().await
}
