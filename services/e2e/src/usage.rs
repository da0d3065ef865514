//! What a server's process uses, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};
use natter_cluster::Node;

/// Ticks of a second in `/proc/<pid>/stat` (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// CPU-seconds that the process has used so far.
///
/// # Errors
/// When it is away.
pub fn cpu(node: &Node) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid(node)?))?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
    let ticks = |n: usize| -> Result<f64> { Ok(fields.get(n).context("no ticks")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// Its resident memory, in KiB.
///
/// # Errors
/// When it is away.
pub fn resident(node: &Node) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid(node)?))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kibibytes = line.split_whitespace().nth(1).context("no number")?;
    Ok(kibibytes.parse()?)
}

fn pid(node: &Node) -> Result<u32> {
    node.pid().with_context(|| format!("{} is away", node.name()))
}
