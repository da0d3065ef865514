//! A user's devices: listed, closed on every node, revoked.

use std::{collections::BTreeSet, fmt::Write as _, time::Duration};

use natter_bus::{Bus, PublishError};
use natter_presence::PresenceClient;
use natter_protocol::{
    feed::{Entry, Feed},
    ids::{DeviceId, Seq, UserId},
    node::{NodeAnswer, NodeQuestion},
};
use natter_runtime::causes;
use natter_store::{DeviceRecord, Store};
use serde::Serialize;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    config::{CloseDeviceArgs, ListDevicesArgs},
    outcome::{Failure, Outcome},
    people,
    text::{Table, age, harmless, moment, or_dash, print, print_json, since},
};

/// How long gateways have to answer.
const ANSWERS: Duration = Duration::from_secs(3);
/// How long a revocation may take to its feed. The worker sweeps what is left.
const RELAY: Duration = Duration::from_secs(5);
/// Gateways that are listened to.
const GATEWAYS: usize = 10_000;

/// A device, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: DeviceId,
    name: Option<String>,
    platform: Option<String>,
    state: &'static str,
    created_at: String,
    last_seen_at: Option<String>,
    /// Gateways that it is connected to; none when Redis could not be asked.
    pub(crate) nodes: Option<BTreeSet<String>>,
    #[serde(skip)]
    seen: Option<Duration>,
}

impl Shown {
    fn new(record: DeviceRecord, live: Option<&[(DeviceId, String)]>) -> Self {
        let nodes = live.map(|live| {
            let of_device = live.iter().filter(|(device, _)| *device == record.id);
            of_device.map(|(_, node)| node.clone()).collect()
        });
        Self {
            id: record.id,
            state: match (record.revoked_at, record.logged_in, record.outside) {
                (Some(_), ..) => "revoked",
                (None, true, _) => "logged in",
                (None, false, true) => "outside issuer's",
                (None, false, false) => "signed out",
            },
            name: record.name,
            platform: record.platform,
            created_at: moment(record.created_at),
            last_seen_at: record.last_seen_at.map(moment),
            nodes,
            seen: record.last_seen_at.map(since),
        }
    }

    /// In the order of [`HEADING`].
    pub(crate) fn cells(&self) -> [String; 6] {
        let nodes = self.nodes.as_ref().map_or_else(
            || "?".to_owned(),
            |nodes| {
                let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
                if nodes.is_empty() { "-".to_owned() } else { nodes.join(", ") }
            },
        );
        [
            self.id.to_string(),
            or_dash(self.name.as_deref()),
            or_dash(self.platform.as_deref()),
            self.state.to_owned(),
            self.seen.map_or_else(|| "-".to_owned(), |seen| format!("{} ago", age(seen))),
            nodes,
        ]
    }
}

/// The columns of a device.
pub(crate) const HEADING: [&str; 6] =
    ["DEVICE", "NAME", "PLATFORM", "STATE", "LAST SEEN", "CONNECTED TO"];

/// The devices of a user, and where they are connected if Redis can tell.
pub(crate) async fn of(
    store: &Store,
    presence: Option<&PresenceClient>,
    user: UserId,
) -> Result<(Vec<Shown>, Option<Failure>), Failure> {
    let records = store.device_records(user).await?;
    let (live, trouble) = match presence {
        None => (None, None),
        Some(presence) => match presence.device_nodes(user).await {
            Ok(live) => (Some(live), None),
            Err(error) => (None, Some(error.into())),
        },
    };
    let shown = records.into_iter().map(|record| Shown::new(record, live.as_deref())).collect();
    Ok((shown, trouble))
}

/// `devices list`.
///
/// # Errors
/// When there is no such user, or Postgres does not answer.
pub async fn list(args: &ListDevicesArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        user_id: UserId,
        name: String,
        devices: Vec<Shown>,
    }
    let store = args.servers.store()?;
    let (presence, mut trouble) = match args.servers.presence() {
        Ok(presence) => (Some(presence), None),
        Err(failure) => (None, Some(failure)),
    };
    let user = people::named(&store, &args.user).await?;
    let (devices, failed) = of(&store, presence.as_ref(), user.id).await?;
    trouble = trouble.or(failed);
    if args.json {
        print_json(&List { user_id: user.id, name: user.name, devices });
    } else {
        let mut table = Table::new(&HEADING);
        for device in &devices {
            table.row(device.cells());
        }
        print(&format!("{} {}\n{table}", user.id, harmless(&user.name)));
    }
    Ok(match trouble {
        None => Outcome::Well,
        Some(failure) => {
            eprintln!("natter: nobody can tell what is connected: {}", causes(&failure));
            Outcome::Unknown
        }
    })
}

/// What closing a device has come to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Closed {
    device_id: DeviceId,
    revoked: bool,
    /// What each gateway has told to end; empty for a revocation, which every gateway hears from
    /// the user's feed.
    gateways: Vec<NodeAnswer>,
    /// Gateways that live and did not answer.
    silent: Vec<String>,
}

/// `devices close`.
///
/// # Errors
/// When there is no such device, or a server does not answer.
pub async fn close(args: &CloseDeviceArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let bus = args.servers.bus().await?;
    let user = people::named(&store, &args.user).await?.id;
    if store.device_state(user, args.device).await?.is_none() {
        return Err(Failure::refused(format!("the user has no device {}", args.device)));
    }
    if args.revoke {
        return revoke(&store, &bus, user, args).await;
    }
    let question = NodeQuestion::CloseDevice { user_id: user, device_id: args.device };
    let living = match args.servers.presence() {
        Ok(presence) => presence.nodes().await.ok(),
        Err(_) => None,
    };
    // One that Redis knows may have gone a moment ago; then the time runs out.
    let most = living.as_ref().map_or(GATEWAYS, BTreeSet::len).max(1);
    let gateways: Vec<NodeAnswer> = bus.ask_all(&question, ANSWERS, most).await?;
    let answered = |node: &String| gateways.iter().any(|gateway| gateway.node == *node);
    let silent: Vec<_> = living.iter().flatten().filter(|node| !answered(node)).cloned().collect();
    let unknown = !silent.is_empty() || gateways.is_empty();
    let closed = Closed { device_id: args.device, revoked: false, gateways, silent };
    if args.json {
        print_json(&closed);
    } else {
        print(&told(&closed));
    }
    Ok(if unknown { Outcome::Unknown } else { Outcome::Well })
}

fn told(closed: &Closed) -> String {
    let mut text = String::new();
    let connections: usize = closed.gateways.iter().map(|gateway| gateway.connections).sum();
    let plural = if connections == 1 { "" } else { "s" };
    let _ = writeln!(text, "closed {connections} connection{plural}");
    for NodeAnswer { node, connections } in &closed.gateways {
        let _ = writeln!(text, "  {}: {connections}", harmless(node));
    }
    if closed.gateways.is_empty() {
        text.push_str("no gateway answered\n");
    }
    for node in &closed.silent {
        let _ = writeln!(text, "  {}: no answer", harmless(node));
    }
    text
}

async fn revoke(
    store: &Store,
    bus: &Bus,
    user: UserId,
    args: &CloseDeviceArgs,
) -> Result<Outcome, Failure> {
    let lane = store.revoke_device(user, args.device).await?;
    let known = lane.is_none();
    if let Some(lane) = lane {
        relay(store, bus, lane).await;
    }
    if args.json {
        let (gateways, silent) = (Vec::new(), Vec::new());
        print_json(&Closed { device_id: args.device, revoked: true, gateways, silent });
    } else {
        print(if known { "revoked already\n" } else { "revoked; its connections close\n" });
    }
    Ok(Outcome::Well)
}

/// Puts the revocation on the user's feed at once. It is committed: what fails here, a worker does
/// within seconds.
async fn relay(store: &Store, bus: &Bus, lane: Uuid) {
    let publish = async |feed: Feed, id: String, entry: Entry| -> Result<Seq, PublishError> {
        Ok(bus.publish(feed, &id, &entry)?.await?.seq)
    };
    match timeout(RELAY, store.relay(lane, publish)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => eprintln!("natter: left to a worker: {}", causes(&error)),
        Err(_) => eprintln!("natter: left to a worker: the log did not take it in time"),
    }
}
