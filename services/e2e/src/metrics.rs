//! What a node counts of itself, as whoever scrapes it sees it.

use anyhow::{Context, Result, ensure};
use natter_cluster::Node;

use crate::api::client;

/// Connections that a gateway has given up because they did not read.
pub const SLOW_CONSUMERS: &str = "natter_slow_consumers_total";

/// A counter of a node, over all its labels; 0 where it has not been counted yet. It starts at 0
/// with each start of the node.
///
/// # Errors
/// When the node does not answer.
pub async fn counter(node: &Node, name: &str) -> Result<u64> {
    let response = client()?.get(format!("http://{}/metrics", node.admin())).send().await?;
    ensure!(response.status() == 200, "metrics of {}: {}", node.name(), response.status());
    let text = response.text().await?;
    let mut sum = 0;
    for line in text.lines() {
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{'])) else {
            continue;
        };
        let value = rest.rsplit(' ').next().context("no value")?;
        sum += value.parse::<u64>().with_context(|| line.to_owned())?;
    }
    Ok(sum)
}
