//! The load tests of `loadtest/k6` against a cluster, briefly, with the stock k6: they run, they
//! are green, and what they count can turn them red.

use std::{fmt, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use natter_cluster::{
    Cluster, Node,
    install::{self, Tool},
    progress::Progress,
};
use natter_e2e::Stage;
use serde_json::Value;
use tokio::{fs, process::Command, task::spawn_blocking, time::timeout};

static STAGE: Stage = Stage::new();

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../loadtest/k6");

/// What k6 ends with when an objective was missed.
const MISSED: i32 = 99;

/// A run takes a few seconds; on a machine with much else to do some more.
const PATIENCE: Duration = Duration::from_mins(4);

/// Small, and with objectives that a busy machine meets: times are not what is tested here.
const SMALL: [(&str, &str); 8] = [
    ("NATTER_SECONDS", "5"),
    ("NATTER_ACK_P95_MS", "20000"),
    ("NATTER_DELIVERY_P95_MS", "20000"),
    ("NATTER_DELIVERY_P99_MS", "20000"),
    ("NATTER_TYPING_P95_MS", "20000"),
    ("NATTER_TYPING_SEEN", "0.5"),
    ("NATTER_RESUME_P95_MS", "20000"),
    ("NATTER_READ_P95_MS", "20000"),
];

#[tokio::test]
async fn the_smoke_test_is_green() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let run = Run::of(&cluster, "smoke", &[]).await?;
    run.is_green()?;
    ensure!(run.count("natter_resumed") > 0, "nobody was cut: {run}");
    ensure!(run.page.contains("<svg") && !run.page.contains("://"), "{}", run.page);
    Ok(())
}

#[tokio::test]
async fn what_is_spoilt_turns_it_red() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let counts = ["natter_lost", "natter_duplicates", "natter_reordered"];
    for (fault, spoilt) in ["drop", "duplicate", "swap"].into_iter().zip(counts) {
        let faults = [("NATTER_SEED_FAULT", fault), ("NATTER_GRACE_SECONDS", "8")];
        let run = Run::of(&cluster, "smoke", &faults).await?;
        ensure!(run.code == Some(MISSED), "{fault} was not seen: {run}");
        for count in counts {
            ensure!(run.count(count) == u64::from(count == spoilt), "{fault}: {run}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn socket_io_is_green_over_both_transports() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    for transport in ["websocket", "polling"] {
        let run = Run::of(&cluster, "socketio", &[("NATTER_TRANSPORT", transport)]).await?;
        run.is_green().with_context(|| transport)?;
    }
    Ok(())
}

#[tokio::test]
async fn reading_is_green() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let few = [("NATTER_MESSAGES", "25"), ("NATTER_PAGE", "10"), ("NATTER_CHATS", "2")];
    let run = Run::of(&cluster, "history", &few).await?;
    ensure!(run.code == Some(0) && run.count("natter_checked") > 0, "{run}");
    Ok(())
}

/// What a script has ended with.
struct Run {
    code: Option<i32>,
    report: Value,
    said: String,
    page: String,
}

impl Run {
    async fn of(cluster: &Cluster, script: &str, settings: &[(&str, &str)]) -> Result<Self> {
        spawn_blocking(|| install::ensure(&[Tool::K6], Progress::Lines)).await??;
        let dir = tempfile::tempdir()?;
        let prefix = dir.path().join(script);
        let url = |node: &Node| format!("http://{}", node.address());
        let urls: Vec<_> = cluster.gateways().iter().map(url).collect();
        let running = Command::new(install::k6().context("there is no k6")?)
            // It would tell its maker of the run, and wait for that.
            .args(["run", "--quiet", "--no-usage-report", "--address", ""])
            .arg(Path::new(SCRIPTS).join(format!("{script}.js")))
            .envs(SMALL)
            .envs(settings.iter().copied())
            .env("NATTER_URL", urls.join(","))
            .env("NATTER_REPORT", &prefix)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(PATIENCE, running).await.context("k6 does not end")??;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let report = fs::read(prefix.with_extension("json")).await.with_context(|| said.clone())?;
        let page = fs::read_to_string(prefix.with_extension("html")).await?;
        let (code, report) = (output.status.code(), serde_json::from_slice(&report)?);
        Ok(Self { code, report, said, page })
    }

    fn count(&self, name: &str) -> u64 {
        self.report["counts"][name].as_u64().unwrap_or(0)
    }

    fn is_green(&self) -> Result<()> {
        ensure!(self.code == Some(0), "{self}");
        ensure!(self.report["ok"] == true, "{self}");
        for none in ["natter_lost", "natter_duplicates", "natter_reordered"] {
            ensure!(self.report["counts"][none] == 0, "{none}: {self}");
        }
        ensure!(self.count("natter_deliveries") > 0, "nothing was delivered: {self}");
        Ok(())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}\n{}\n{}", self.code, self.said, self.report["counts"])
    }
}
