//! The built `natter import`.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use serde_json::Value;
use tokio::process::{Child, Command};

/// How an import is called.
pub struct Import<'a> {
    pub cluster: &'a Cluster,
    /// The old system's database.
    pub source: &'a str,
}

impl Import<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natter"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("NATTER_") {
                command.env_remove(name);
            }
        }
        command
            .arg("import")
            .args(args)
            .env("NATTER_IMPORT_SOURCE", self.source)
            .env("NATTER_DATABASE_URL", self.cluster.database_url())
            .env("NATTER_NATS_URL", self.cluster.nats_url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Begins, and does not wait.
    pub fn begin(&self, args: &[&str]) -> Result<Child> {
        Ok(self.command(args).spawn()?)
    }

    /// The whole of it: how it ended, and what it said on standard output and error.
    pub async fn said(&self, args: &[&str]) -> Result<(ExitStatus, String, String)> {
        let output = self.command(args).output().await?;
        let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        Ok((output.status, out, err))
    }

    /// The report of one that ends well.
    pub async fn report(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let (status, out, err) = self.said(&args).await?;
        ensure!(status.success(), "{status}: {out}{err}");
        serde_json::from_str(&out).with_context(|| format!("{out}{err}"))
    }
}

/// Of a report, what has been counted.
pub fn counted(report: &Value, kind: &str, what: &str) -> u64 {
    report["kinds"][kind][what].as_u64().unwrap_or(u64::MAX)
}

/// How often a report tells of something that was wrong.
pub fn noted(report: &Value, kind: &str, part: &str) -> u64 {
    let notes = report["kinds"][kind]["notes"].as_object();
    let told = notes.into_iter().flatten().filter(|(what, _)| what.contains(part));
    told.filter_map(|(_, note)| note["count"].as_u64()).sum()
}
