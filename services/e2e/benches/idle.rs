//! What an idle connection costs: `cargo bench --bench idle`.
//!
//! Two release gateways hold `CONNECTIONS` (5,000) authenticated connections that say nothing,
//! each of another user, who follows `CHATS_PER_USER` (20) chats with `PARTICIPANTS` (10)
//! participants each. Printed is by how much the gateways' resident memory has grown for each, and
//! whether that is at most `KIB_EACH` (12) KiB; the exit status is 1 when not.
//!
//! The gateways start anew once all is set up, so that nothing left over from that is reused.

use std::{
    env,
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use natter_cluster::{Cluster, progress::Progress};
use natter_e2e::{
    Api,
    api::client,
    crowd::{AT_ONCE, Guest, introduce, invite, setting},
    socket::{Presenting, Unopened, open, request},
    soon::within,
    tokens,
    usage::resident,
};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

/// Connections from one source address: it has 28,000 ports, and others want some.
const PER_ADDRESS: usize = 1_000;

/// How long the gateways are left alone before the last look.
const SETTLED: Duration = Duration::from_secs(10);

/// What all connections have seen together.
#[derive(Default)]
struct Seen {
    messages: AtomicUsize,
    closed: AtomicUsize,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    // `cargo test --all-targets` runs benches as well, without this.
    if !env::args().any(|arg| arg == "--bench") {
        return Ok(ExitCode::SUCCESS);
    }
    let most = setting("KIB_EACH", 12)?;
    let connections = setting("CONNECTIONS", 5_000)?;
    let chats_per_user = setting("CHATS_PER_USER", 20)?;
    let participants = setting("PARTICIPANTS", 10)?.min(connections);

    let cluster = tokens::trusted(Cluster::builder().gateways(2))
        .progress(Progress::detect())
        .gateway_env("NATTER_CALLS_PER_SECOND", "0")
        .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
        .start()
        .await?;
    let began = Instant::now();
    let apis: Vec<Api> = cluster
        .gateways()
        .iter()
        .map(|gateway| Ok(Api::new(client()?, gateway.address())))
        .collect::<Result<_>>()?;
    let guests = invite(&apis, connections).await?;
    eprintln!("{} users after {:.0?}", guests.len(), began.elapsed());
    let chats = introduce(&apis, &guests, chats_per_user, participants).await?;
    eprintln!("{} chats after {:.0?}", chats.len(), began.elapsed());

    for gateway in cluster.gateways() {
        gateway.restart().await?;
    }
    let seen = Arc::new(Seen::default());
    // The first connection brings in what is there only once; it is not counted.
    for (n, guest) in guests.iter().enumerate().take(2) {
        connect(&cluster, guest, n, &seen).await?;
    }
    let empty = memory(&cluster)?;
    let connecting = Instant::now();
    let half = connections / 2;
    let mut looks = vec![("none".to_owned(), 2, empty)];
    for (from, to) in [(2, half.max(2)), (half.max(2), connections)] {
        stream::iter(guests.iter().enumerate().take(to).skip(from))
            .map(|(n, guest)| connect(&cluster, guest, n, &seen))
            .buffer_unordered(AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        looks.push((to.to_string(), to, memory(&cluster)?));
    }
    let took = connecting.elapsed();
    tokio::time::sleep(SETTLED).await;
    looks.push((format!("{connections}, 10 s later"), connections, memory(&cluster)?));

    // They are what they are said to be: a message reaches everybody in its chat.
    ensure!(seen.closed.load(Ordering::Relaxed) == 0, "connections have been closed");
    let (chat, sender) = chats.first().context("no chats")?;
    apis[1].with_token(&guests[*sender].token).say(*chat, "is anybody there?").await?;
    within(Duration::from_secs(10), "everybody hears", async || {
        Ok((seen.messages.load(Ordering::Relaxed) >= participants).then_some(()))
    })
    .await?;

    println!(
        "{connections} connections in {took:.1?}, each in {chats_per_user} chats of {participants}"
    );
    println!("{:20}{:>14}{:>14}{:>16}", "connections", "gateway 1", "gateway 2", "for each");
    let mut settled = 0.0;
    for (name, count, now) in looks {
        let grown = now.iter().sum::<u64>().saturating_sub(empty.iter().sum());
        let each = grown as f64 / count.saturating_sub(2).max(1) as f64;
        println!("{name:20}{:>10} KiB{:>10} KiB{each:>12.2} KiB", now[0], now[1]);
        settled = each;
    }
    cluster.stop().await?;
    let holds = settled <= most as f64;
    println!(
        "{settled:.2} KiB each, of at most {most}: {}",
        if holds { "holds" } else { "too much" }
    );
    Ok(ExitCode::from(u8::from(!holds)))
}

/// Connects the `n`th guest, and listens from then on.
async fn connect(cluster: &Cluster, guest: &Guest, n: usize, seen: &Arc<Seen>) -> Result<()> {
    let gateway = cluster.gateway(n % 2).address();
    let from = Ipv4Addr::new(127, 0, 0, u8::try_from(2 + n / PER_ADDRESS % 250)?);
    let request = request(&format!("ws://{gateway}/v1/ws"), Presenting::Header(&guest.token))?;
    let (mut stream, _) = open(from, gateway, request).await.map_err(|error| match error {
        Unopened::Refused(status) => anyhow::anyhow!("refused with {status}"),
        Unopened::Failed(error) => error,
    })?;
    let first = stream.next().await.context("hung up")??;
    let ready: Value = serde_json::from_str(first.to_text()?).context("the first frame")?;
    ensure!(ready["event"] == "ready", "{ready}");
    let seen = Arc::clone(seen);
    tokio::spawn(async move {
        while let Some(Ok(frame)) = stream.next().await {
            if let Message::Text(text) = &frame
                && text.contains("is anybody there?")
            {
                seen.messages.fetch_add(1, Ordering::Relaxed);
            }
        }
        seen.closed.fetch_add(1, Ordering::Relaxed);
    });
    Ok(())
}

/// Resident memory of both gateways, in KiB.
fn memory(cluster: &Cluster) -> Result<[u64; 2]> {
    Ok([resident(cluster.gateway(0))?, resident(cluster.gateway(1))?])
}
