//! `cargo run --release -p natter-e2e --bin nemesis -- --minutes 60 --seed 7`: a cluster on this
//! machine, faults by a seed, and the checker's verdict.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::Parser;
use natter_cluster::progress::Progress;
use natter_e2e::nemesis::{self, Options, schedule::Size};

/// Torments a whole Natter on this machine, and verifies that nothing was lost, nothing came twice,
/// and everything in order. Exit status: 0 when so, 1 when not, 2 when it could not be found out.
#[derive(Debug, Parser)]
#[command(name = "nemesis", version)]
struct Cli {
    /// Minutes with faults.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// What chance follows; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// Gateways, at least 2.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=16))]
    gateways: u16,
    /// Persistence workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    workers: u16,
    /// NATS servers; from 3 on, three of them hold each log.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=5))]
    brokers: u16,
    /// Shards of the log.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    shards: u16,
    /// Messages a second of all devices together, about.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// Minutes from one verdict to the next.
    #[arg(long, default_value_t = 4.0)]
    round_minutes: f64,
    /// Where the logs are kept when something is wrong [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One line of JSON on standard output in the end; all else goes to standard error.
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let options = Options {
        lasts: minutes(cli.minutes),
        windows: 0,
        round: minutes(cli.round_minutes.clamp(0.5, 10.0)),
        seed: cli.seed.unwrap_or_else(rand::random),
        size: Size {
            gateways: cli.gateways.into(),
            workers: cli.workers.into(),
            brokers: cli.brokers.into(),
        },
        shards: cli.shards,
        rate: cli.rate,
        keep: cli.keep.unwrap_or_else(env::temp_dir),
        progress: Progress::detect(),
    };
    match nemesis::run(&options, |line| eprintln!("{line}")).await {
        Ok(report) => {
            if cli.json {
                println!("{}", serde_json::json!(report));
            } else {
                println!("{report}");
            }
            ExitCode::from(u8::from(!report.is_green()))
        }
        Err(error) => {
            eprintln!("nemesis: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn minutes(minutes: f64) -> Duration {
    Duration::try_from_secs_f64(minutes * 60.0).unwrap_or_default()
}
