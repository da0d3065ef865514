//! A short bad night; the long ones are the command's.

use std::{env, time::Duration};

use anyhow::{Result, ensure};
use natter_cluster::progress::Progress;
use natter_e2e::nemesis::{self, Options, schedule::Size};

#[tokio::test]
async fn a_mix_of_faults_loses_nothing() -> Result<()> {
    let options = Options {
        lasts: Duration::from_secs(90),
        round: Duration::from_mins(5),
        seed: 7,
        size: Size { gateways: 2, workers: 2, brokers: 1 },
        shards: 2,
        rate: 40.0,
        keep: env::temp_dir(),
        progress: Progress::Quiet,
    };
    let report = nemesis::run(&options, |line| println!("{line}")).await?;
    ensure!(report.is_green(), "{report}");
    ensure!(report.faults.len() > 5, "too few faults: {report}");
    ensure!(
        report.operations["sends ok"] > 500 && report.operations["resumes ok"] > 50,
        "{report}"
    );
    Ok(())
}
