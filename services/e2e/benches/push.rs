//! How fast everybody in a large group is notified: `cargo bench --bench push`.
//!
//! `MESSAGES` (5) messages, one after the other, to a group of `PEOPLE` (10,000), all of them offline, by one release worker
//! and a webhook on this machine that verifies each and answers at once. Printed are notifications a second, from the moment that a message
//! is sent until the last has arrived, the worker's memory then, its CPU time for one, and what one takes in
//! Postgres. The webhook is of this process, and shares the machine with everything else.

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use natter_cluster::Cluster;
use natter_e2e::{
    Person, PushServices, crowd::setting, push_services::crowd::take_part, soon::within, usage,
};

/// Everything has arrived by then.
const PATIENCE: Duration = Duration::from_mins(10);

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let (messages, people) = (setting("MESSAGES", 5)?, setting("PEOPLE", 10_000)?);
    let services = PushServices::start().await?;
    let env = services.env().into_iter();
    let cluster = env
        .fold(Cluster::builder(), |builder, (key, value)| builder.env(key, value))
        .push_env("NATTER_PUSH_WAIT", "0")
        .push_env("NATTER_PUSH_CONCURRENCY", "256")
        .start()
        .await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let chat = ana.api(0).group("Everybody", &[]).await?.id;
    take_part(&cluster, &services, chat, people)?;
    services.webhook.desk.forget();
    let worker = cluster.pusher(0);
    let cpu = usage::cpu(worker)?;
    println!("the worker: {} KiB before", usage::resident(worker)?);
    for message in 1..=messages {
        let began = Instant::now();
        ana.api(0).say(chat, "to all of you").await?;
        within(PATIENCE, "all are notified", async || {
            Ok((services.webhook.desk.taken() >= message * people).then_some(()))
        })
        .await?;
        let took = began.elapsed().as_secs_f64();
        let (rate, resident) = (people as f64 / took, usage::resident(worker)?);
        println!("{people} notified in {took:.2} s: {rate:.0} a second; {resident} KiB");
    }
    let sent = (messages * people) as f64;
    let micros = (usage::cpu(worker)? - cpu) * 1_000_000.0 / sent;
    println!("the worker: {micros:.0} µs of CPU each");
    let bytes = cluster.sql("SELECT pg_total_relation_size('pushes')")?;
    let bytes: f64 = bytes.trim().parse().context("no size")?;
    println!("Postgres: {:.0} bytes each, with indexes", bytes / sent);
    cluster.stop().await
}
