//! How everything stands. What could not be reached is said, and the rest is told all the same.
//!
//! - `nodes`: gateways, workers and push workers, by what each says of itself
//! - `shards`: each shard's owner, log, mirror, and how far it is written
//! - `endpoints`: the endpoints of webhooks, and how far each has been told
//! - `report`: what is printed

mod endpoints;
mod nodes;
mod report;
mod shards;

use std::{collections::BTreeSet, time::Duration};

use endpoints::EndpointStatus;
use natter_bus::Bus;
use natter_runtime::causes;
use natter_store::{LaneReport, Outbox, ShardRow, Store, Versions, WebhookEndpoint};
use report::Report;

use crate::{
    config::{Servers, StatusArgs},
    outcome::{Failure, Outcome},
    text::{print, print_json},
};

/// An outbox whose oldest change has waited for longer is wrong: workers sweep every second.
const OUTBOX_AGE: Duration = Duration::from_secs(30);

/// What is wrong, and what could not be told.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    wrong: Vec<String>,
    unknown: Vec<String>,
}

impl Findings {
    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// The answer, or a note that there is none.
    pub(crate) fn told<T>(&mut self, answer: Result<T, impl Into<Failure>>) -> Option<T> {
        answer.map_err(|failure| self.unknown.push(causes(&failure.into()).to_string())).ok()
    }
}

/// What Postgres says.
struct Database {
    versions: Versions,
    outbox: Option<Outbox>,
    shards: Vec<ShardRow>,
    /// None where the schema is older than they are, maybe.
    endpoints: Option<Vec<(WebhookEndpoint, Vec<LaneReport>)>>,
}

impl Database {
    /// The shards that somebody has a lease of.
    fn owned(&self) -> impl Iterator<Item = &ShardRow> {
        let lasts = |row: &&ShardRow| row.owner_until.is_some_and(|end| end > self.versions.now);
        self.shards.iter().filter(lasts)
    }
}

/// `status`.
///
/// # Errors
/// None: what could not be told is part of the report.
pub async fn run(args: &StatusArgs) -> Result<Outcome, Failure> {
    let (database, bus, redis) =
        tokio::join!(database(&args.servers), args.servers.bus(), redis(&args.servers));
    let mut findings = Findings::default();
    let database = findings.told(database);
    let bus = findings.told(bus);
    let redis = findings.told(redis);
    let mut report = Report::default();
    if let Some(Database { versions, outbox, .. }) = &database {
        report.schema(versions, &mut findings);
        report.outbox(*outbox, &mut findings);
    }
    let said = match &bus {
        Some(bus) => findings.told(nodes::ask(bus).await),
        None => None,
    };
    let owned: Vec<&ShardRow> = database.iter().flat_map(Database::owned).collect();
    let living = redis.as_ref().map(|(_, gateways)| gateways);
    report.nodes = said.map(|said| nodes::all(&said, living, &owned));
    report.mixed = report.nodes.as_deref().is_some_and(nodes::are_mixed);
    if let Some((version, gateways)) = redis {
        report.gateways(version, gateways, &mut findings);
    }
    if let Some(bus) = &bus {
        report.versions.nats = bus.server_version();
        report.dead_letters = findings.told(bus.dead_letters().await);
        if let Some(letters @ 1..) = report.dead_letters {
            findings.wrong(format!("{letters} dead letters: `natter dead-letters list`"));
        }
    }
    let now = database.as_ref().map(|database| database.versions.now);
    let (rows, endpoints) = database.map(|found| (found.shards, found.endpoints)).unzip();
    report.shards = shards::all(bus.as_ref(), rows, now, &mut findings).await;
    report.webhooks = endpoints.flatten().map(|all| {
        let status = |(one, lanes)| EndpointStatus::new(one, lanes, &mut findings);
        all.into_iter().map(status).collect()
    });
    let outcome = report.conclude(findings);
    if args.json {
        print_json(&report);
    } else {
        print(&report.to_string());
    }
    Ok(outcome)
}

async fn database(servers: &Servers) -> Result<Database, Failure> {
    let store: Store = servers.store()?;
    let versions = store.versions().await?;
    // A database without a schema is one that was reached.
    if versions.applied.is_none() {
        return Ok(Database { versions, outbox: None, shards: Vec::new(), endpoints: None });
    }
    let (outbox, shards) = (Some(store.outbox().await?), store.shards().await?);
    let current = versions.applied >= Some(versions.known);
    let endpoints = if current { Some(endpoints(&store).await?) } else { None };
    Ok(Database { versions, outbox, shards, endpoints })
}

async fn endpoints(store: &Store) -> Result<Vec<(WebhookEndpoint, Vec<LaneReport>)>, Failure> {
    let mut all = Vec::new();
    for endpoint in store.endpoints().await? {
        let lanes = store.endpoint_lanes(endpoint.id).await?;
        all.push((endpoint, lanes));
    }
    Ok(all)
}

async fn redis(servers: &Servers) -> Result<(Option<String>, BTreeSet<String>), Failure> {
    let presence = servers.presence()?;
    Ok((presence.version().await?, presence.nodes().await?))
}

/// Whether there is a shard of this number at all, for when Postgres cannot tell.
async fn exists(bus: &Bus, shard: natter_protocol::ids::Shard) -> bool {
    matches!(bus.log_state(shard).await, Ok(Some(_)))
}
