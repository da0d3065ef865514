//! `cargo up`: a whole Natter on this machine, from nothing.
//!
//! | module | holds |
//! |---|---|
//! | `up` | the life of a run: start, say so, keep it up, stop |
//! | `supervise` | processes that end by themselves are started again |
//! | `logs` | the nodes' logs, shortened, on standard error |
//! | `welcome` | what a newcomer, or a script, is told once it runs |
//! | `socket` | `cargo up socket`: a WebSocket by hand |

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use natter_cluster::progress::say;

mod logs;
mod socket;
mod supervise;
mod up;
mod welcome;

/// Runs a whole Natter on this machine: PostgreSQL, Redis, NATS, gateways and a worker.
///
/// What is missing is installed. The data stay for the next run; Ctrl-C stops everything.
///
/// The nodes' other settings are taken from exported NATTER_… variables; `NATTER_LOG=debug` says
/// more.
#[derive(Debug, Parser)]
#[command(name = "cargo up", bin_name = "cargo up", version)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    up: up::Options,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Socket(socket::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => up::run(arguments.up).await,
        Some(Command::Socket(options)) => socket::run(options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
