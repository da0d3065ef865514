//! How many notices a second one worker sends by Web Push to a service on the same machine, which
//! verifies and decrypts each, and what memory that takes:
//! `cargo bench -p natter-push --bench send [-- SECONDS]`.
//!
//! The service is a process of its own (this one again, with `serve`), so that memory is the sender's.

use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use natter_e2e::PushServices;
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, UserId},
    push::{Provider, Target},
};
use natter_push::providers::{Kind, Notice, Outcome, Providers, ProvidersArgs, ProvidersConfig};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, stdin},
    process::Command,
};

/// Devices that are notified, again and again.
const DEVICES: usize = 10_000;
const SECONDS: u64 = 10;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    providers: ProvidersArgs,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.next().as_deref() {
        Some("serve") => serve().await,
        Some(seconds) => send(Duration::from_secs(seconds.parse()?)).await,
        None => send(Duration::from_secs(SECONDS)).await,
    }
}

/// Prints settings and targets as lines of JSON, and serves until its input ends.
async fn serve() -> Result<()> {
    let services = PushServices::start().await?;
    services.web_push.desk.forget();
    println!("{}", serde_json::to_string(&services.env())?);
    let targets: Vec<Target> = (0..DEVICES).map(|_| services.subscribe()).collect::<Result<_>>()?;
    println!("{}", serde_json::to_string(&targets)?);
    stdin().read_to_end(&mut Vec::new()).await?;
    ensure!(services.web_push.desk.violations().is_empty());
    Ok(())
}

async fn send(time: Duration) -> Result<()> {
    let mut service = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(service.stdout.take().context("no output")?).lines();
    let settings = lines.next_line().await?.context("no settings")?;
    let settings: Vec<(String, String)> = serde_json::from_str(&settings)?;
    let targets = lines.next_line().await?.context("no targets")?;
    let targets: Arc<Vec<Target>> = Arc::new(serde_json::from_str(&targets)?);
    let flags = settings.iter().map(|(name, value)| {
        let name = name.trim_start_matches("NATTER_").to_lowercase().replace('_', "-");
        format!("--{name}={value}")
    });
    let cli = Cli::try_parse_from(["send".to_owned()].into_iter().chain(flags))?;
    let providers = Arc::new(Providers::new(&ProvidersConfig::try_from(&cli.providers)?)?);

    let sent = Arc::new(AtomicU64::new(0));
    let (before, busy_before) = (rss()?, busy()?);
    let began = Instant::now();
    let tasks = providers.concurrency(Provider::WebPush);
    let sending: Vec<_> = (0..tasks)
        .map(|task| {
            let (providers, targets, sent) = (providers.clone(), targets.clone(), sent.clone());
            tokio::spawn(async move {
                let mut next = task;
                while began.elapsed() < time {
                    let outcome = providers.send(&targets[next % DEVICES], &notice()).await;
                    ensure!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
                    sent.fetch_add(1, Ordering::Relaxed);
                    next += tasks;
                }
                Ok(())
            })
        })
        .collect();
    let mut most = before;
    let halfway = tokio::spawn(async move {
        tokio::time::sleep(time / 2).await;
        rss()
    });
    for task in sending {
        task.await??;
        most = most.max(rss()?);
    }
    let (count, took) = (sent.load(Ordering::Relaxed), began.elapsed());
    let each = busy()?.saturating_sub(busy_before).as_micros() / u128::from(count.max(1));
    let rate = count as f64 / took.as_secs_f64();
    let halfway = halfway.await??;
    println!(
        "{count} notices in {:.1} s, {rate:.0} a second, {tasks} at the same time; {each} µs of a core for each, beside the service's",
        took.as_secs_f64()
    );
    println!("memory {before} MiB before, {halfway} MiB halfway, {most} MiB at the end");
    drop(service.stdin.take());
    ensure!(service.wait().await?.success(), "the service refused something");
    Ok(())
}

fn notice() -> Notice {
    let now = OffsetDateTime::now_utc();
    Notice {
        message_id: MessageId::generate(),
        chat_id: Some(ChatId::generate()),
        device_id: DeviceId::generate(),
        kind: Kind::Message,
        title: "Ada in Lovelace's friends".to_owned(),
        body: Some("Shall we meet at the analytical engine at five?".to_owned()),
        sender: Some(UserId::generate()),
        unread: 3,
        sent_at: now,
        expires_at: now + time::Duration::DAY,
    }
}

/// Memory of this process, in MiB.
fn rss() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? / 1024)
}

/// What this process has had of cores.
fn busy() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // What comes after the name, which may have spaces; user and system time in hundredths of a second.
    let (_, rest) = stat.rsplit_once(')').context("no stat")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
}
