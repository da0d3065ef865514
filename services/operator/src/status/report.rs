//! What `status` prints.

use std::{collections::BTreeSet, fmt, time::Duration};

use natter_protocol::node::NodeRole;
use natter_store::{Outbox, Versions};
use serde::Serialize;

use super::{
    Findings, OUTBOX_AGE, endpoints::EndpointStatus, nodes::NodeStatus, shards::ShardStatus,
};
use crate::{
    outcome::Outcome,
    text::{Table, age, bytes, harmless, or_dash},
};

/// See the module; what is missing could not be told.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// `well`, `wrong` or `unknown`.
    pub(super) verdict: &'static str,
    pub(super) wrong: Vec<String>,
    pub(super) unknown: Vec<String>,
    pub(super) versions: VersionReport,
    pub(super) gateways: Option<BTreeSet<String>>,
    pub(super) nodes: Option<Vec<NodeStatus>>,
    /// Nodes of several versions run beside each other, or some did not say which they are of.
    pub(super) mixed: bool,
    pub(super) outbox: Option<OutboxReport>,
    pub(super) dead_letters: Option<u64>,
    pub(super) shards: Vec<ShardStatus>,
    pub(super) webhooks: Option<Vec<EndpointStatus>>,
}

/// Of what versions there are.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VersionReport {
    pub(super) postgres: Option<String>,
    pub(super) nats: Option<String>,
    pub(super) redis: Option<String>,
    /// The last migration that was applied, …
    pub(super) schema: Option<i64>,
    /// … and the last that this program knows.
    pub(super) schema_known: Option<i64>,
    /// Of this program.
    pub(super) natter: Natter,
}

/// This program's version.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(super) struct Natter(&'static str);

impl Default for Natter {
    fn default() -> Self {
        Self(env!("CARGO_PKG_VERSION"))
    }
}

/// What waits in the outbox.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OutboxReport {
    depth: u64,
    oldest_seconds: Option<u64>,
}

impl Report {
    pub(super) fn schema(&mut self, versions: &Versions, findings: &mut Findings) {
        let Versions { server, applied, known, .. } = versions;
        self.versions.postgres = Some(server.clone());
        self.versions.schema = *applied;
        self.versions.schema_known = Some(*known);
        match applied {
            None => findings.wrong("the database has no schema: run `natter migrate`"),
            Some(applied) if applied < known => findings
                .wrong(format!("the schema is at {applied}, not {known}: run `natter migrate`")),
            Some(applied) if applied > known => findings
                .wrong(format!("the schema is at {applied}, newer than this program's {known}")),
            Some(_) => {}
        }
    }

    pub(super) fn outbox(&mut self, outbox: Option<Outbox>, findings: &mut Findings) {
        let Some(Outbox { depth, oldest }) = outbox else { return };
        if let Some(waited) = oldest.filter(|oldest| *oldest > OUTBOX_AGE) {
            let waited = age(waited);
            findings.wrong(format!("changes wait in the outbox, {depth}, the oldest for {waited}"));
        }
        let oldest_seconds = oldest.map(|oldest| oldest.as_secs());
        self.outbox = Some(OutboxReport { depth, oldest_seconds });
    }

    pub(super) fn gateways(
        &mut self,
        redis: Option<String>,
        gateways: BTreeSet<String>,
        findings: &mut Findings,
    ) {
        self.versions.redis = redis;
        if gateways.is_empty() {
            findings.wrong("no gateway tells Redis that it lives");
        }
        self.gateways = Some(gateways);
    }

    /// What is known to be wrong outweighs what is not known.
    pub(super) fn conclude(&mut self, findings: Findings) -> Outcome {
        let Findings { wrong, unknown } = findings;
        let (verdict, outcome) = match (wrong.is_empty(), unknown.is_empty()) {
            (false, _) => ("wrong", Outcome::Wrong),
            (true, false) => ("unknown", Outcome::Unknown),
            (true, true) => ("well", Outcome::Well),
        };
        (self.verdict, self.wrong, self.unknown) = (verdict, wrong, unknown);
        outcome
    }

    fn table(&self) -> Table {
        let mut table = Table::new(&[
            "SHARD", "OWNER", "LEASE", "EPOCH", "LOG", "WRITTEN", "LAG", "OLDEST", "SIZE", "OF",
            "REPLICAS", "LEADER", "MIRROR",
        ]);
        let seconds = |seconds: Option<u64>| {
            or_dash(seconds.map(|seconds| age(Duration::from_secs(seconds))))
        };
        for shard in &self.shards {
            let log = shard.log.as_ref();
            table.row([
                shard.shard.to_string(),
                or_dash(shard.owner.as_deref()),
                or_dash(shard.lease_seconds.map(|seconds| format!("{seconds}s"))),
                or_dash(shard.epoch),
                or_dash(log.map(|log| log.last_seq)),
                or_dash(shard.written_seq),
                or_dash(shard.lag_entries),
                seconds(shard.lag_seconds),
                or_dash(log.map(|log| bytes(log.bytes))),
                or_dash(log.map(|log| bytes(log.max_bytes))),
                or_dash(log.map(|log| format!("{}/{}", log.current_replicas, log.replicas))),
                or_dash(log.and_then(|log| log.leader.as_deref())),
                match (shard.mirror, shard.mirror_lag_entries) {
                    (Some(true), Some(0)) => "follows".to_owned(),
                    (Some(true), lag) => format!("{} behind", or_dash(lag)),
                    (Some(false), _) => "none".to_owned(),
                    (None, _) => "-".to_owned(),
                },
            ]);
        }
        table
    }
}

fn running(nodes: &[NodeStatus]) -> Table {
    let mut table = Table::new(&["NODE", "ROLE", "VERSION", "SCHEMA", "SHARDS"]);
    for node in nodes {
        table.row([
            node.node.clone(),
            match node.role {
                NodeRole::Gateway => "gateway".to_owned(),
                NodeRole::Worker => "worker".to_owned(),
                NodeRole::Push => "push".to_owned(),
            },
            or_dash(node.version.as_deref()),
            or_dash(node.schema),
            match node.shards.as_deref() {
                None => "-".to_owned(),
                Some([]) => "stands by".to_owned(),
                Some(shards) => {
                    let shards: Vec<_> = shards.iter().map(ToString::to_string).collect();
                    shards.join(" ")
                }
            },
        ]);
    }
    table
}

fn told(endpoints: &[EndpointStatus]) -> Table {
    let mut table = Table::new(&[
        "ENDPOINT",
        "STATE",
        "LAG",
        "OLDEST",
        "BEHIND",
        "DEAD",
        "LOST",
        "LAST FAILURE",
    ]);
    for endpoint in endpoints {
        table.row([
            endpoint.name.clone(),
            endpoint.state.to_owned(),
            endpoint.lag_events.to_string(),
            age(Duration::from_secs(endpoint.lag_seconds)),
            endpoint.behind.to_string(),
            endpoint.dead_letters.to_string(),
            endpoint.lost.to_string(),
            or_dash(endpoint.last_answer.as_deref()),
        ]);
    }
    table
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let VersionReport { postgres, nats, redis, schema, schema_known, natter } = &self.versions;
        writeln!(f, "natter        {}", natter.0)?;
        writeln!(f, "schema        {} of {}", or_dash(*schema), or_dash(*schema_known))?;
        writeln!(f, "postgres      {}", or_dash(postgres.as_deref()))?;
        writeln!(f, "nats          {}", or_dash(nats.as_deref()))?;
        writeln!(f, "redis         {}", or_dash(redis.as_deref()))?;
        let gateways = self.gateways.as_ref().map(|gateways| {
            let names: Vec<_> = gateways.iter().map(|name| harmless(name)).collect();
            format!("{}  {}", names.len(), names.join(" "))
        });
        writeln!(f, "gateways      {}", or_dash(gateways).trim_end())?;
        let outbox = self.outbox.as_ref().map(|outbox| match outbox.oldest_seconds {
            Some(oldest) => {
                format!("{}, oldest {}", outbox.depth, age(Duration::from_secs(oldest)))
            }
            None => outbox.depth.to_string(),
        });
        writeln!(f, "outbox        {}", or_dash(outbox))?;
        writeln!(f, "dead letters  {}", or_dash(self.dead_letters))?;
        write!(f, "\n{}\n", self.table())?;
        if let Some(nodes) = &self.nodes {
            writeln!(f, "{}", running(nodes))?;
        }
        if let Some(endpoints) = self.webhooks.as_deref().filter(|all| !all.is_empty()) {
            writeln!(f, "{}", told(endpoints))?;
        }
        if self.mixed {
            writeln!(
                f,
                "note: nodes of several versions run beside each other, or some did not answer"
            )?;
        }
        for wrong in &self.wrong {
            writeln!(f, "wrong: {}", harmless(wrong))?;
        }
        for unknown in &self.unknown {
            writeln!(f, "could not tell: {}", harmless(unknown))?;
        }
        if self.verdict == "well" { writeln!(f, "all is well") } else { Ok(()) }
    }
}
