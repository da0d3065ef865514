//! The nemesis: does to a whole cluster what happens in bad nights, one thing or two at a time,
//! while the checker's devices go on; then lets everything heal, and verifies what they got.
//!
//! | module | holds |
//! |---|---|
//! | [`schedule`] | which fault comes when: all of it follows from a seed |
//! | `inject` | doing it |
//! | `slow` | clients that stop reading |
//! | [`report`] | what came of it |
//!
//! Every process is killed, stopped where it stands for up to 9 s, and restarted, alone and in pairs;
//! now and then Postgres is away for more than a minute. What else happens in bad nights the
//! checker's devices do all the time: they send the same message again, also on another node at
//! once, are cut off, and come back elsewhere; a device is revoked in every round.
//!
//! Work goes in rounds, each with users and chats of its own, so that a long run needs no more
//! memory than a short one. A round ends with everything running, everybody having everything,
//! and the verdict.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use futures::future::{join, join_all};
use natter_check::{Plan, Run};
use natter_cluster::{Cluster, progress::Progress};
use tokio::time::{Instant, sleep};

use crate::stage::{nothing_panicked, put_in_order};

mod inject;
pub mod report;
pub mod schedule;
mod slow;

pub use report::Report;
use schedule::{Fault, Schedule, Size, Window};
use slow::Slow;

/// A process's log beyond so many bytes is emptied after a round in which nothing was wrong.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// How long all is well at the beginning of a round.
const WARM: Duration = Duration::from_secs(2);

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// For so long there are faults; starting, healing and verifying come on top.
    pub lasts: Duration,
    /// In the first round there are so many windows of faults at least, however long that takes: a
    /// machine that is slow is not to escape with fewer. 12 have every kind but the long outage.
    pub windows: usize,
    /// A verdict about this often. Below the 15 min that the devices' tokens last.
    pub round: Duration,
    /// What chance follows.
    pub seed: u64,
    /// How many processes.
    pub size: Size,
    /// Shards of the log.
    pub shards: u16,
    /// Messages a second of all devices together, about.
    pub rate: f64,
    /// Where the logs go when something is wrong.
    pub keep: PathBuf,
    /// What is said while the cluster starts.
    pub progress: Progress,
}

/// Starts a cluster, torments it, and tells what came of it. `say` hears every step.
///
/// # Errors
/// When the cluster does not start, or logs cannot be kept. What goes wrong after the start is in
/// the report.
pub async fn run(options: &Options, say: impl Fn(&str)) -> Result<Report> {
    say(&format!("seed {}", options.seed));
    let cluster = start(options).await.context("the cluster does not start")?;
    let mut report = Report::new(options.seed);
    let mut schedule = Schedule::new(options.seed, options.size);
    let began = Instant::now();
    while report.violations.is_empty() && began.elapsed() < options.lasts {
        let lasts = options.round.min(options.lasts.saturating_sub(began.elapsed()));
        if let Err(error) = round(options, &cluster, &mut schedule, lasts, &mut report, &say).await
        {
            report.violated(format!("{error:#}"));
        }
        report.seconds = began.elapsed().as_secs_f64();
        say(&report.so_far());
        shorten_logs(&cluster)?;
    }
    if report.violations.is_empty() {
        cluster.stop().await.unwrap_or_else(|error| report.violated(format!("{error:#}")));
    } else {
        keep_logs(&cluster, options, &mut report)?;
    }
    Ok(report)
}

async fn start(options: &Options) -> Result<Cluster> {
    let Size { gateways, workers, brokers } = options.size;
    // All clients come from one address; some insist, and some send much.
    let unlimited = [
        ("NATTER_ATTEMPTS_PER_ADDRESS", "0"),
        ("NATTER_CALLS_PER_SECOND", "0"),
        ("NATTER_EVENTS_PER_SECOND", "1000"),
        ("NATTER_EVENTS_BURST", "1000"),
        ("NATTER_DRAIN_SECONDS", "2"),
    ];
    let builder = Cluster::builder().gateways(gateways).workers(workers).brokers(brokers);
    let builder = builder.shards(options.shards).progress(options.progress);
    unlimited
        .iter()
        .fold(builder, |builder, (key, value)| builder.gateway_env(*key, *value))
        .start()
        .await
}

/// An error is something wrong with the cluster: it does not heal, or does not answer although it
/// has.
async fn round(
    options: &Options,
    cluster: &Cluster,
    schedule: &mut Schedule,
    lasts: Duration,
    report: &mut Report,
    say: &impl Fn(&str),
) -> Result<()> {
    report.rounds += 1;
    let slow = Slow::prepare(cluster).await?;
    let addresses = cluster.gateways().iter().map(natter_cluster::Node::address);
    let plan = Plan {
        gateways: addresses.map(|address| format!("http://{address}")).collect(),
        rate: options.rate,
        seed: options.seed.wrapping_add(report.rounds),
        ..Plan::default()
    };
    let checked = Run::start(plan).await.context("the checker does not start")?;
    let began = Instant::now();
    sleep(WARM).await;
    let mut revoked = false;
    let least = if report.rounds == 1 { options.windows } else { 0 };
    let mut windows = 0;
    while began.elapsed() < lasts || windows < least {
        let Some(window) = schedule.next() else { break };
        windows += 1;
        happen(cluster, &slow, &window, report, began, say).await?;
        if !revoked {
            checked.revoke_one().await;
            revoked = true;
        }
        sleep(window.calm).await;
    }
    say(&at(began, "everything is well; waiting until everybody has everything"));
    let (checked, seen) = checked.observed().await.context("with everything running")?;
    report.take(&checked);
    nothing_panicked(cluster)?;
    if !checked.verdict.ok {
        let file = kept_in(options)?.join("observations.txt");
        fs::write(&file, format!("{seen:#?}")).context("cannot keep what was seen")?;
    }
    Ok(())
}

/// A window, and healing.
async fn happen(
    cluster: &Cluster,
    slow: &Slow,
    window: &Window,
    report: &mut Report,
    began: Instant,
    say: &impl Fn(&str),
) -> Result<()> {
    let names: Vec<_> = window.faults.iter().map(ToString::to_string).collect();
    say(&at(began, &names.join(", and ")));
    for planned in &window.faults {
        report.fault(&planned.fault.kind());
    }
    let inflicted =
        join_all(window.faults.iter().map(|planned| inject::inflict(cluster, *planned)));
    let slows = window.faults.iter().any(|planned| planned.fault == Fault::SlowSockets);
    let slowed = async { if slows { Some(slow.happen(cluster).await) } else { None } };
    let heal = async {
        let inflicted: Result<Vec<()>> = inflicted.await.into_iter().collect();
        inflicted?;
        put_in_order(cluster).await
    };
    let (healed, slowed) = join(heal, slowed).await;
    healed.with_context(|| format!("it does not heal from: {}", names.join(", and ")))?;
    if let Some(slowed) = slowed.transpose().context("slow sockets")? {
        report.slow(slowed);
    }
    Ok(())
}

fn at(began: Instant, what: &str) -> String {
    format!("{:7.1} s  {what}", began.elapsed().as_secs_f32())
}

/// Where this run keeps what it has to show.
fn kept_in(options: &Options) -> Result<PathBuf> {
    let dir = options.keep.join(format!("nemesis-{}-{}", options.seed, std::process::id()));
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn keep_logs(cluster: &Cluster, options: &Options, report: &mut Report) -> Result<()> {
    let dir = kept_in(options)?;
    for entry in fs::read_dir(cluster.data_dir().join("logs"))?.flatten() {
        fs::copy(entry.path(), dir.join(entry.file_name())).context("cannot keep a log")?;
    }
    report.logs = Some(dir.clone());
    fs::write(dir.join("report.json"), serde_json::to_vec_pretty(report)?)?;
    Ok(())
}

fn shorten_logs(cluster: &Cluster) -> Result<()> {
    let long = |log: &Path| fs::metadata(log).is_ok_and(|meta| meta.len() > LOG_BYTES);
    for log in cluster.nodes().map(natter_cluster::Node::log).filter(|log| long(log)) {
        OpenOptions::new().write(true).open(log)?.set_len(0)?;
    }
    Ok(())
}
