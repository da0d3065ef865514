//! `natter-drive`: see `--help`.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use natter_drive::{
    report,
    scenarios::{self, ALL, Extent},
};
use tokio::{
    runtime::Builder,
    task::{LocalSet, spawn_local, yield_now},
};

/// What it costs is little beside what it measures, but not nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Drives clusters of its own to their limits, counts every delivery, and writes down what it finds.
#[derive(Debug, Parser)]
#[command(name = "natter-drive", version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Only these scenarios, separated by commas; all by default. `--list` tells which there are.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,

    /// Tell which scenarios there are.
    #[arg(long)]
    list: bool,

    /// Times that each figure is measured; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    repeat: u16,

    /// Seconds of each run.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,

    /// Divides crowds and backlogs by this: 1 to 100. What is measured then is not what is promised,
    /// and is not written down.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    smaller: u16,

    /// Look at the connections only every so many microseconds, not as soon as something comes: over
    /// loopback a server that writes pays for waking whoever waits, which it does not over a network.
    /// Delays are measured that much longer.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    look_every: Option<u64>,

    /// Folder of `RESULTS.md`, `results.json` and `results.svg`, which are brought up to date with what
    /// was measured. Without it results are only printed.
    #[arg(long)]
    write: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Holds connections for another process, which tells which.
    #[command(hide = true)]
    Hold,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match cli.command {
            Some(Command::Hold) => scenarios::hold().await,
            None if cli.list => {
                for scenario in ALL {
                    println!("{:12} {}", scenario.name, scenario.about);
                }
                Ok(())
            }
            None => drive(&cli).await,
        }
    })
}

/// Keeps this thread asleep in a way that nothing that comes wakes it.
async fn look_every(pause: Duration) {
    loop {
        thread::sleep(pause);
        yield_now().await;
    }
}

async fn drive(cli: &Cli) -> Result<()> {
    for name in &cli.only {
        ensure!(ALL.iter().any(|scenario| scenario.name == name), "no scenario {name}: see --list");
    }
    ensure!(cli.write.is_none() || cli.smaller == 1, "--smaller and --write do not go together");
    ensure!(
        cli.write.is_none() || cli.look_every.is_none(),
        "--look-every and --write do not go together"
    );
    if let Some(pause) = cli.look_every {
        spawn_local(look_every(Duration::from_micros(pause)));
    }
    let extent = Extent {
        repeat: cli.repeat.into(),
        time: Duration::from_secs(cli.seconds),
        smaller: cli.smaller.into(),
    };
    let mut faulty = Vec::new();
    for scenario in ALL {
        if !cli.only.is_empty() && !cli.only.iter().any(|name| name == scenario.name) {
            continue;
        }
        eprintln!("{}: {}", scenario.name, scenario.about);
        let sheet = (scenario.run)(extent).await.context(scenario.name)?;
        print!("{}", report::table(scenario.name, &sheet));
        if report::faults(&sheet) > 0.0 {
            faulty.push(scenario.name);
        }
        // At once: what comes after may fail.
        if let Some(folder) = &cli.write {
            report::bring_up_to_date(folder, scenario.name, sheet)?;
        }
    }
    ensure!(faulty.is_empty(), "not everything was delivered once and in order: {faulty:?}");
    Ok(())
}
