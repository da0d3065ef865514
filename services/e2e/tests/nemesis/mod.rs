//! A short bad night; the long ones are the command's.

use std::{
    collections::BTreeSet,
    env,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use natter_cluster::progress::Progress;
use natter_e2e::nemesis::{
    self, Options,
    schedule::{Schedule, Size},
};

/// Every kind of fault is dealt in so many windows.
const WINDOWS: usize = 14;
/// What it may take in all, the cluster's start included: on two quiet cores it is less than two minutes.
const SHORT: Duration = Duration::from_mins(5);

#[tokio::test]
async fn a_mix_of_faults_loses_nothing() -> Result<()> {
    let options = Options {
        lasts: Duration::from_mins(1),
        windows: WINDOWS,
        round: Duration::from_mins(5),
        seed: 18,
        size: Size { gateways: 2, workers: 2, brokers: 1 },
        shards: 2,
        rate: 40.0,
        keep: env::temp_dir(),
        progress: Progress::Quiet,
    };
    let began = Instant::now();
    let report = nemesis::run(&options, |line| println!("{line}")).await?;
    ensure!(report.is_green(), "{report}");
    ensure!(began.elapsed() < SHORT, "it took {:?}", began.elapsed());

    let windows = Schedule::new(options.seed, options.size).take(WINDOWS);
    let dealt: BTreeSet<String> =
        windows.flat_map(|window| window.faults).map(|planned| planned.fault.kind()).collect();
    let done: BTreeSet<String> = report.faults.keys().cloned().collect();
    ensure!(dealt.len() == 21 && dealt.is_subset(&done), "{dealt:?} were dealt: {report}");
    // Beside them, with this seed, comes nothing that could take the connection away.
    ensure!(report.slow_closed + report.slow_cut > 0, "nobody was too slow: {report}");
    ensure!(
        report.operations["sends ok"] > 200 && report.operations["resumes ok"] > 20,
        "{report}"
    );
    ensure!(report.operations["duplicates"] > 10, "{report}");
    Ok(())
}
