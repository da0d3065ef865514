//! The life of a run: start, say so, keep it up, stop.

use std::{
    env,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use clap::Args;
use natter_cluster::{
    Cluster,
    binaries::workspace,
    progress::{Progress, say},
    tools,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{logs, supervise, welcome};

/// Of a shell's convention for a program that was interrupted.
const INTERRUPTED: i32 = 130;

const TIES: [&str; 9] = [
    "NATTER_ADMIN_LISTEN",
    "NATTER_DATABASE_URL",
    "NATTER_JWT_SECRET",
    "NATTER_LISTEN",
    "NATTER_NATS_URL",
    "NATTER_NODE_ID",
    "NATTER_REDIS_URL",
    "NATTER_SHARDS",
    "NATTER_TOKEN",
];

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many gateways to run.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    gateways: u8,
    /// The first gateway's port on 127.0.0.1; the others have the next ones.
    #[arg(long, value_name = "P", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where the data and logs are kept [default: .natter/data in the workspace].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Once ready, print one line of JSON to standard output that names every process.
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(options: Options) -> Result<()> {
    let mut stop = Stop::listen()?;
    let data = options.data.unwrap_or_else(default_data);
    let progress = Progress::detect();
    let builder = Cluster::builder()
        .gateways(options.gateways.into())
        .first_port(options.port)
        .data_dir(&data)
        .env("NATTER_LOG_FORMAT", "text")
        .env("NATTER_DRAIN_SECONDS", "2")
        .progress(progress);
    let starting =
        exported().fold(builder, |builder, (key, value)| builder.env(key, value)).start();
    let cluster = tokio::select! {
        started = starting => started?,
        () = stop.asked() => {
            say("interrupted while starting");
            // What installs or builds is told. Servers that were started see us go, and go too. Not
            // by returning: the thread that waits for all that would be waited for.
            tools::end_all();
            process::exit(INTERRUPTED);
        }
    };
    if options.json {
        println!("{}", welcome::processes(&cluster)?);
    }
    say(&welcome::text(&cluster));

    let logs = logs::follow(&cluster);
    let supervision = supervise::all(&cluster);
    stop.asked().await;
    say("stopping …");
    drop(supervision);
    tokio::select! {
        stopped = cluster.stop() => stopped?,
        () = stop.asked() => {
            say("not waiting any longer");
            process::exit(INTERRUPTED);
        }
    }
    drop(logs);
    say("stopped; `cargo up` goes on with the same data");
    Ok(())
}

/// The nodes' settings that the user has exported, but what ties this cluster together: that
/// would point its nodes at somebody else's servers.
fn exported() -> impl Iterator<Item = (String, String)> {
    // Anything may be exported; what is no Unicode is no setting of ours.
    env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(key, _)| key.starts_with("NATTER_") && !TIES.contains(&key.as_str()))
}

fn default_data() -> PathBuf {
    let base = workspace().or_else(|| env::current_dir().ok());
    let base = base.unwrap_or_else(|| Path::new(".").to_owned());
    base.join(".natter").join("data")
}

/// The ways to be told to stop. Listened to from the beginning, so that none ends us midway.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn asked(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
