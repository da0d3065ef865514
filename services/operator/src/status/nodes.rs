//! Gateways, workers and push workers: who runs, in which version, and which workers stand by.

use std::{collections::BTreeSet, time::Duration};

use natter_bus::Bus;
use natter_protocol::{
    ids::Shard,
    node::{NodeDescription, NodeQuestion, NodeRole},
};
use natter_store::ShardRow;
use serde::Serialize;

use crate::outcome::Failure;

/// How long nodes have to answer.
const ANSWERS: Duration = Duration::from_secs(1);
/// Nodes that are listened to.
const MOST: usize = 10_000;

/// A node. What it did not say is not known: it is older than this question, or does not answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeStatus {
    pub(super) node: String,
    pub(super) role: NodeRole,
    pub(super) version: Option<String>,
    pub(super) schema: Option<i64>,
    /// What a worker owns; one that owns nothing stands by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) shards: Option<Vec<Shard>>,
}

/// What nodes say of themselves.
pub(super) async fn ask(bus: &Bus) -> Result<Vec<NodeDescription>, Failure> {
    Ok(bus.ask_all(&NodeQuestion::Describe, ANSWERS, MOST).await?)
}

/// Those that answered, and those that do not and live by their heartbeat or own a shard.
pub(super) fn all(
    said: &[NodeDescription],
    living: Option<&BTreeSet<String>>,
    rows: &[&ShardRow],
) -> Vec<NodeStatus> {
    // A worker's name, without what tells its lives apart.
    let owner = |row: &&ShardRow| Some(row.owner.as_ref()?.rsplit_once('.')?.0.to_owned());
    let mut known: BTreeSet<(NodeRole, String)> = BTreeSet::new();
    known.extend(said.iter().map(|node| (node.role, node.node.clone())));
    known.extend(living.into_iter().flatten().map(|node| (NodeRole::Gateway, node.clone())));
    known.extend(rows.iter().filter_map(owner).map(|node| (NodeRole::Worker, node)));
    let status = |(role, node): (NodeRole, String)| {
        let said = said.iter().find(|said| said.role == role && said.node == node);
        let owned = rows.iter().filter(|row| owner(row).as_ref() == Some(&node));
        NodeStatus {
            role,
            version: said.map(|said| said.version.clone()),
            schema: said.map(|said| said.schema),
            shards: (role == NodeRole::Worker).then(|| owned.map(|row| row.shard).collect()),
            node,
        }
    };
    known.into_iter().map(status).collect()
}

/// Whether nodes of several versions run beside each other, or may.
pub(super) fn are_mixed(nodes: &[NodeStatus]) -> bool {
    let versions: BTreeSet<_> = nodes.iter().map(|node| (&node.version, node.schema)).collect();
    versions.len() > 1
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;

    fn said(node: &str, role: NodeRole, schema: i64) -> NodeDescription {
        NodeDescription { node: node.to_owned(), role, version: "0.1.0".to_owned(), schema }
    }

    fn row(shard: Shard, owner: &str) -> ShardRow {
        ShardRow {
            shard,
            epoch: 1,
            first_seq: 1,
            persisted_seq: 0,
            persisted_at: OffsetDateTime::UNIX_EPOCH,
            owner: Some(owner.to_owned()),
            owner_until: None,
        }
    }

    #[test]
    fn who_does_not_answer_is_there_by_what_else_tells_of_it() {
        let living = BTreeSet::from(["g-1".to_owned(), "g.old".to_owned()]);
        let answers = vec![said("g-1", NodeRole::Gateway, 12), said("w-2", NodeRole::Worker, 12)];
        let nodes =
            all(&answers, Some(&living), &[&row(0, "w.1.0a1b2c3d"), &row(1, "w.1.0a1b2c3d")]);
        let told: Vec<_> = nodes
            .iter()
            .map(|node| (node.node.as_str(), node.schema, node.shards.as_deref()))
            .collect();
        let stands_by: &[Shard] = &[];
        assert_eq!(
            told,
            [
                ("g-1", Some(12), None),
                ("g.old", None, None),
                ("w-2", Some(12), Some(stands_by)),
                ("w.1", None, Some(&[0, 1][..])),
            ]
        );
        assert!(are_mixed(&nodes), "two are of a version that nobody knows");
    }

    #[test]
    fn one_version_is_not_mixed_and_two_are() {
        let both = |schema| {
            let answers =
                vec![said("g", NodeRole::Gateway, 12), said("w", NodeRole::Worker, schema)];
            are_mixed(&all(&answers, None, &[]))
        };
        assert!(!both(12));
        assert!(both(13));
    }
}
