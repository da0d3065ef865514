//! What a storm of clients that come back does: `cargo bench --bench storm`.
//!
//! `CONNECTIONS` (10,000) devices are connected to one gateway, each of another user, who follows
//! `CHATS_PER_USER` (5) chats with 10 participants. It is killed, a thousand messages are sent, and
//! all of them come to the other gateway at once, each with its cursor; who is turned away tries
//! again, as clients do. Meanwhile two who were on that gateway all along go on talking.
//!
//! Printed is how long it took until all had everything, how often they had to try, how long a
//! message of the two took, and what the gateway used. It fails when one of them does not get
//! back, when the two wait too long for each other, or when a server has fallen over.

use std::{
    collections::HashMap,
    env,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use natter_cluster::{Cluster, progress::Progress};
use natter_e2e::{
    Api,
    api::client,
    crowd::{AT_ONCE, Guest, introduce, invite, setting},
    person::Person,
    socket::{Presenting, open, request},
    tokens,
    usage::cpu,
};
use rand::RngExt;
use serde_json::Value;
use tokio::time::{sleep, timeout};

/// Connections from one source address: it has 28,000 ports, and others want some.
const PER_ADDRESS: usize = 1_000;
const MISSED: usize = 1_000;
const PARTICIPANTS: usize = 10;
/// A message of the neighbours may take so long in a storm.
const NEIGHBOURS: Duration = Duration::from_secs(2);
/// A client gives a connection up that is not ready by then.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(());
    }
    let connections = setting("CONNECTIONS", 10_000)?;
    let cluster = tokens::trusted(Cluster::builder().gateways(2))
        .progress(Progress::detect())
        .gateway_env("NATTER_CALLS_PER_SECOND", "0")
        .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
        .start()
        .await?;
    let [first, second] =
        [cluster.gateway(0), cluster.gateway(1)].map(natter_cluster::Node::address);
    let apis = [Api::new(client()?, first), Api::new(client()?, second)];
    let guests = invite(&apis, connections).await?;
    let chats = introduce(&apis, &guests, setting("CHATS_PER_USER", 5)?, PARTICIPANTS).await?;
    eprintln!("{connections} users in {} chats", chats.len());
    let cursors: Vec<String> = stream::iter(guests.iter().enumerate())
        .map(async |(n, guest)| {
            let came = come(first, guest, n, None).await;
            came.with_context(|| format!("guest {n} was turned away"))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let (ana, ben) =
        (Person::register(&cluster, "Ana").await?, Person::register(&cluster, "Ben").await?);
    let direct = ana.api(1).direct(&ben).await?.id;
    let (anas, bens) = (ana.connect(1).await?, ben.connect(1).await?);

    let servers: HashMap<&str, Option<u32>> =
        cluster.nodes().map(|node| (node.name(), node.pid())).collect();
    cluster.gateway(0).kill().await?;
    for n in 0..MISSED {
        let (chat, sender) = chats[n * 7919 % chats.len()];
        apis[1].with_token(&guests[sender].token).say(chat, "missed").await?;
    }
    let over = Arc::new(AtomicBool::new(false));
    let talk = async {
        let mut slowest = Duration::ZERO;
        let mut said = 0;
        while !over.load(Ordering::Relaxed) {
            let (asked, text) = (Instant::now(), format!("{said}"));
            anas.say(direct, &text).await?;
            bens.hears(direct, &text).await?;
            slowest = slowest.max(asked.elapsed());
            said += 1;
            sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok((said, slowest))
    };
    let (began, before) = (Instant::now(), cpu(cluster.gateway(1))?);
    let tries = AtomicUsize::new(0);
    let storm = async {
        let all = guests.iter().zip(&cursors).enumerate().map(async |(n, (guest, cursor))| {
            loop {
                tries.fetch_add(1, Ordering::Relaxed);
                if come(second, guest, n, Some(cursor)).await.is_some() {
                    return anyhow::Ok(began.elapsed());
                }
                ensure!(began.elapsed() < Duration::from_mins(5), "guest {n} cannot come back");
                let pause = rand::rng().random_range(100..2_000);
                sleep(Duration::from_millis(pause)).await;
            }
        });
        let done = try_join_all(all).await;
        over.store(true, Ordering::Relaxed);
        done
    };
    let (mut took, (said, slowest)) = tokio::try_join!(storm, talk)?;
    let used = cpu(cluster.gateway(1))? - before;
    took.sort();
    println!("{connections} came back with {} tries", tries.load(Ordering::Relaxed));
    for (part, name) in [(50, "half"), (99, "99 %"), (100, "all")] {
        let at = (took.len() * part / 100).clamp(1, took.len()) - 1;
        println!("{name:6} had everything after {:>8.2?}", took[at]);
    }
    println!("{said} messages of the neighbours, the slowest in {slowest:.0?}");
    println!("{:.0} a CPU-second of the gateway", connections as f64 / used);
    ensure!(took.len() == connections, "{} of {connections} came back", took.len());
    ensure!(slowest < NEIGHBOURS, "the neighbours' slowest message took {slowest:?}");
    for server in [cluster.postgres(), cluster.nats(), cluster.redis()] {
        ensure!(server.pid() == servers[server.name()], "{} has fallen over", server.name());
    }
    // And they work: Postgres takes a chat, NATS a message.
    let after = ana.api(1).group("After the storm", &[&ben]).await?.id;
    ana.api(1).say(after, "all is well").await?;
    cluster.stop().await
}

/// Connects, resumes if there is a cursor, and stays; none when it was turned away.
async fn come(
    gateway: SocketAddr,
    guest: &Guest,
    n: usize,
    cursor: Option<&str>,
) -> Option<String> {
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + n / PER_ADDRESS % 250).ok()?);
    let query = cursor.map(|cursor| format!("?cursor={cursor}")).unwrap_or_default();
    let url = format!("ws://{gateway}/v1/ws{query}");
    let request = request(&url, Presenting::Header(&guest.token)).ok()?;
    let coming = async {
        let (mut stream, _) = open(from, gateway, request).await.ok()?;
        loop {
            let frame = stream.next().await?.ok()?;
            let frame: Value = serde_json::from_str(frame.to_text().ok()?).ok()?;
            let event = frame["event"].as_str().unwrap_or_default();
            let here = match (event, cursor.is_some()) {
                ("ready", true) if frame["data"]["resumed"] != true => return None,
                ("ready", false) | ("resume_done", _) => true,
                _ => false,
            };
            if here {
                let cursor = frame["data"]["cursor"].as_str()?.to_owned();
                tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
                return Some(cursor);
            }
        }
    };
    timeout(PATIENCE, coming).await.ok()?
}
