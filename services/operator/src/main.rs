//! `natter`: see `--help`.

use std::process::ExitCode;

use natter_operator::config::Cli;
use natter_runtime::{causes, config};

#[tokio::main]
async fn main() -> ExitCode {
    let cli: Cli = config::parse();
    // One TLS provider in the process. An error means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match natter_operator::run(cli).await {
        Ok(outcome) => outcome.into(),
        Err(failure) => {
            eprintln!("natter: {}", causes(&failure));
            failure.outcome().into()
        }
    }
}
