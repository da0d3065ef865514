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
    let of_name = |series: &str| series.split('{').next() == Some(name);
    let values = shown(node).await?;
    let sum: f64 = values.iter().filter(|(series, _)| of_name(series)).map(|(_, v)| v).sum();
    Ok(sum as u64)
}

/// One series of a node, spelled as it shows it, such as `a_total{b="c"}`; none where it is not there.
///
/// # Errors
/// When the node does not answer.
pub async fn value(node: &Node, series: &str) -> Result<Option<f64>> {
    let mut values = shown(node).await?;
    values.retain(|(name, _)| name == series);
    Ok(values.pop().map(|(_, value)| value))
}

/// All series of a node.
async fn shown(node: &Node) -> Result<Vec<(String, f64)>> {
    let response = client()?.get(format!("http://{}/metrics", node.admin())).send().await?;
    ensure!(response.status() == 200, "metrics of {}: {}", node.name(), response.status());
    let text = response.text().await?;
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let read = |line: &str| {
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        Ok((name.to_owned(), value.parse().with_context(|| line.to_owned())?))
    };
    series.map(read).collect()
}
