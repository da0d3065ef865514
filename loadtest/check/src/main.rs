//! `natter-check`: see the README beside.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::Parser;
use natter_check::{Counts, Outcomes, Plan, Report, Run, SeededFault};

/// Drives many devices over a cluster's public protocol, then verifies that nothing was lost,
/// nothing came twice, and everything in order. Exit status: 0 when so, 1 when not, 2 when it
/// could not be found out.
#[derive(Debug, Parser)]
#[command(name = "natter-check", version, about)]
struct Cli {
    /// Where a gateway, or a load balancer, is: `http://host:port` or `https://host`; repeat for several.
    #[arg(long = "gateway", required = true)]
    gateways: Vec<String>,
    /// Seconds of work; fewer than the access tokens last, 15 minutes by default.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Users: 3 to 1,000.
    #[arg(long, default_value_t = 8)]
    users: usize,
    /// Devices of each: 1 to 100; one is revoked only where there are 2.
    #[arg(long, default_value_t = 2)]
    devices: usize,
    /// Groups, up to 1,000, every second one open to join.
    #[arg(long, default_value_t = 4)]
    groups: usize,
    /// What all devices do together in a second, most of it sending: above 0, up to 10,000.
    #[arg(long, default_value_t = 40.0)]
    rate: f64,
    /// What chance follows; by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// One line of JSON instead of text.
    #[arg(long)]
    json: bool,
    /// Spoils what was seen: drop, duplicate, swap or early-ack. The verdict must be red; exit
    /// status 2 when there was nothing to spoil.
    #[arg(long, hide = true)]
    seed_fault: Option<SeededFault>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match check(&cli).await {
        Ok(report) => {
            if cli.json {
                println!("{}", serde_json::json!(report));
            } else {
                print(&report);
            }
            ExitCode::from(u8::from(!report.verdict.ok))
        }
        Err(error) => {
            eprintln!("natter-check: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn check(cli: &Cli) -> Result<Report> {
    let plan = Plan {
        gateways: cli.gateways.iter().map(|url| url.trim_end_matches('/').to_owned()).collect(),
        users: cli.users,
        devices: cli.devices,
        groups: cli.groups,
        rate: cli.rate,
        seed: cli.seed.unwrap_or_else(rand::random),
        fault: cli.seed_fault,
    };
    let run = Run::start(plan).await?;
    let half = Duration::from_secs(cli.seconds) / 2;
    tokio::time::sleep(half).await;
    run.revoke_one().await;
    tokio::time::sleep(half).await;
    Ok(run.finish().await?)
}

fn print(report: &Report) {
    let Report { seed, seconds, counts, verdict } = report;
    println!("seed {seed}, {seconds:.1} s of work");
    for (what, outcomes) in [
        ("sends", counts.sends),
        ("REST sends", counts.rest_sends),
        ("typing", counts.typing),
        ("joins", counts.joins),
        ("leaves", counts.leaves),
        ("resumes", counts.resumes),
        ("revocations", counts.revocations),
    ] {
        let Outcomes { invoked, ok, failed, unknown } = outcomes;
        println!("{what:12} {invoked} invoked: {ok} ok, {failed} failed, {unknown} unknown");
    }
    println!("duplicates   {} recognised", counts.duplicates);
    let Counts { connects, refused_connects, cut, closed, .. } = counts;
    println!("connections  {connects} ready, {refused_connects} not, {cut} cut, {closed} closed");
    println!("verified     {} entries, {} deliveries", verdict.entries, verdict.deliveries);
    for violation in &verdict.listed {
        println!("  {}", serde_json::json!(violation));
    }
    match verdict.violations {
        0 => println!("verdict      GREEN: nothing lost, nothing twice, all in order"),
        count => println!("verdict      RED: {count} violations"),
    }
}
