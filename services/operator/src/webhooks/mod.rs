//! Other people's servers: made, looked at, changed, tested, told again.

mod letters;
mod moving;

use std::{fmt::Write as _, time::Duration};

pub use letters::{list as dead_letters, replay as replay_letters};
pub use moving::replay;
use natter_outbound::signing;
use natter_protocol::{
    ids::{ChatId, EndpointId, Seq, Shard},
    webhook::{HookFilter, HookKind},
};
use natter_store::{
    Conflict, EndpointChange, LaneReport, NewEndpoint, Store, StoreError, WebhookEndpoint,
};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{
    config::{AddEndpointArgs, ChangeEndpointArgs, EndpointArgs, ListEndpointsArgs},
    outcome::{Failure, Outcome},
    text::{Table, age, harmless, moment, or_dash, print, print_json, since},
};

/// Chats that an endpoint may choose.
const CHATS: usize = 1_000;
/// How long a test may take: a worker's look, an endpoint's time, and a lease that has to run out.
const TEST: Duration = Duration::from_secs(90);
/// Between two looks what came of it.
const LOOK: Duration = Duration::from_millis(250);

/// An endpoint, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: EndpointId,
    name: String,
    url: String,
    kinds: Option<Vec<HookKind>>,
    chats: Option<Vec<ChatId>>,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_reason: Option<String>,
    created_at: String,
    /// Only where it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    lanes: Vec<ShownLane>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ShownLane {
    shard: Shard,
    seq: Option<Seq>,
    lag: u64,
    lag_seconds: u64,
    resting: bool,
    behind: u64,
    dead_letters: u64,
    lost: u64,
    last_answer: Option<String>,
    last_at: Option<String>,
    worker: Option<String>,
}

impl From<LaneReport> for ShownLane {
    fn from(lane: LaneReport) -> Self {
        Self {
            shard: lane.shard,
            seq: lane.seq,
            lag: lane.lag,
            lag_seconds: lane.oldest_at.map_or(0, |at| since(at).as_secs()),
            resting: lane.resting,
            behind: lane.behind,
            dead_letters: lane.letters,
            lost: lane.lost,
            last_answer: lane.last_answer,
            last_at: lane.last_at.map(moment),
            worker: lane.owner,
        }
    }
}

impl Shown {
    pub(crate) fn new(endpoint: WebhookEndpoint, lanes: Vec<LaneReport>) -> Self {
        Self {
            id: endpoint.id,
            name: endpoint.name,
            url: endpoint.url,
            kinds: endpoint.filter.kinds,
            chats: endpoint.filter.chats,
            enabled: endpoint.enabled,
            disabled_reason: endpoint.disabled_reason,
            created_at: moment(endpoint.created_at),
            secret: None,
            lanes: lanes.into_iter().map(Into::into).collect(),
        }
    }

    /// Whether somebody should look.
    pub(crate) fn state(&self) -> &'static str {
        let any = |of: fn(&ShownLane) -> bool| self.lanes.iter().any(of);
        if !self.enabled {
            "disabled"
        } else if any(|lane| lane.resting) {
            "resting"
        } else if any(|lane| lane.behind > 0) {
            "failing"
        } else if any(|lane| lane.worker.is_none()) || self.lanes.is_empty() {
            "untold"
        } else {
            "well"
        }
    }
}

async fn shown(store: &Store, endpoint: WebhookEndpoint) -> Result<Shown, Failure> {
    let lanes = store.endpoint_lanes(endpoint.id).await?;
    Ok(Shown::new(endpoint, lanes))
}

async fn named(store: &Store, name: &str) -> Result<WebhookEndpoint, Failure> {
    match store.endpoint(name).await {
        Err(StoreError::NotFound) => Err(unknown(name)),
        other => Ok(other?),
    }
}

fn unknown(name: &str) -> Failure {
    Failure::refused(format!("there is no endpoint {}", harmless(name)))
}

/// `webhook add`.
///
/// # Errors
/// When the name is taken, or there are as many endpoints as may be; when Postgres does not answer.
pub async fn add(args: &AddEndpointArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let secret = new_secret()?;
    let new = NewEndpoint {
        name: args.name.clone(),
        url: args.url.to_string(),
        secret: secret.clone(),
        filter: HookFilter { kinds: some(&args.kinds), chats: chats(&args.chats)? },
    };
    let made = match store.add_endpoint(&new, args.webhook_endpoints).await {
        Err(StoreError::Conflict(Conflict::Endpoint)) => {
            return Err(Failure::refused("another endpoint has this name"));
        }
        Err(StoreError::Forbidden) => {
            let why = "there are as many endpoints as may be: NATTER_WEBHOOK_ENDPOINTS (--webhook-endpoints)";
            return Err(Failure::refused(why));
        }
        other => other?,
    };
    let made = Shown { secret: Some(secret), ..Shown::new(made, Vec::new()) };
    if args.json {
        print_json(&made);
    } else {
        print(&text(&made));
    }
    Ok(Outcome::Well)
}

fn new_secret() -> Result<String, Failure> {
    signing::new_secret().ok_or_else(|| Failure::refused("the system gives no randomness"))
}

fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn chats(list: &[ChatId]) -> Result<Option<Vec<ChatId>>, Failure> {
    if list.len() > CHATS {
        return Err(Failure::refused(format!("more than {CHATS} chats")));
    }
    Ok(some(list))
}

/// `webhook list`.
///
/// # Errors
/// When Postgres does not answer.
pub async fn list(args: &ListEndpointsArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let mut all = Vec::new();
    for endpoint in store.endpoints().await? {
        all.push(shown(&store, endpoint).await?);
    }
    if args.json {
        print_json(&all);
        return Ok(Outcome::Well);
    }
    let mut table = Table::new(&["NAME", "STATE", "LAG", "OLDEST", "DEAD", "LOST", "URL"]);
    for one in &all {
        let sum = |of: fn(&ShownLane) -> u64| one.lanes.iter().map(of).sum::<u64>().to_string();
        let oldest = one.lanes.iter().map(|lane| lane.lag_seconds).max().unwrap_or(0);
        table.row([
            one.name.clone(),
            one.state().to_owned(),
            sum(|lane| lane.lag),
            age(Duration::from_secs(oldest)),
            sum(|lane| lane.dead_letters),
            sum(|lane| lane.lost),
            one.url.clone(),
        ]);
    }
    print(&table.to_string());
    Ok(Outcome::Well)
}

/// `webhook show`.
///
/// # Errors
/// When there is no such endpoint, or Postgres does not answer.
pub async fn show(args: &EndpointArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let one = shown(&store, endpoint).await?;
    if args.json {
        print_json(&one);
    } else {
        print(&text(&one));
    }
    Ok(Outcome::Well)
}

fn text(one: &Shown) -> String {
    let list = |all: Option<Vec<String>>| all.map_or_else(|| "all".to_owned(), |all| all.join(","));
    let kinds = one.kinds.as_ref().map(|all| all.iter().map(|k| k.as_str().to_owned()).collect());
    let chats = one.chats.as_ref().map(|all| all.iter().map(ToString::to_string).collect());
    let mut lines = vec![
        ("id", one.id.to_string()),
        ("name", one.name.clone()),
        ("url", one.url.clone()),
        ("kinds", list(kinds)),
        ("chats", list(chats)),
        ("made", one.created_at.clone()),
        ("state", one.state().to_owned()),
    ];
    lines.extend(one.disabled_reason.clone().map(|reason| ("since", reason)));
    lines.extend(one.secret.clone().map(|secret| ("secret", secret)));
    let mut text = String::new();
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<7} {}", harmless(&value));
    }
    if !one.lanes.is_empty() {
        text.push_str(&lanes(&one.lanes));
    }
    text
}

fn lanes(lanes: &[ShownLane]) -> String {
    let mut table = Table::new(&[
        "SHARD",
        "CURSOR",
        "LAG",
        "OLDEST",
        "BEHIND",
        "DEAD",
        "LOST",
        "LAST ANSWER",
        "AT",
        "WORKER",
    ]);
    for lane in lanes {
        table.row([
            lane.shard.to_string(),
            or_dash(lane.seq.map(|seq| format!("{}-{seq}", lane.shard))),
            lane.lag.to_string(),
            age(Duration::from_secs(lane.lag_seconds)),
            lane.behind.to_string(),
            lane.dead_letters.to_string(),
            lane.lost.to_string(),
            or_dash(lane.last_answer.as_deref()),
            or_dash(lane.last_at.as_deref()),
            or_dash(lane.worker.as_deref()),
        ]);
    }
    table.to_string()
}

/// `webhook change`.
///
/// # Errors
/// When there is no such endpoint, or Postgres does not answer.
pub async fn change(args: &ChangeEndpointArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let secret = args.new_secret.then(new_secret).transpose()?;
    let chosen = chats(&args.chats)?;
    let change = EndpointChange {
        url: args.url.as_ref().map(ToString::to_string),
        secret: secret.clone(),
        kinds: (args.all_kinds || !args.kinds.is_empty()).then(|| some(&args.kinds)),
        chats: (args.all_chats || chosen.is_some()).then_some(chosen),
        enabled: None,
    };
    store.change_endpoint(endpoint.id, &change).await?;
    let now = named(&store, &endpoint.id.to_string()).await?;
    let now = Shown { secret, ..shown(&store, now).await? };
    if args.json {
        print_json(&now);
    } else {
        print(&text(&now));
    }
    Ok(Outcome::Well)
}

/// `webhook enable` and `webhook disable`.
///
/// # Errors
/// When there is no such endpoint, or Postgres does not answer.
pub async fn turn(args: &EndpointArgs, on: bool) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    let change = EndpointChange { enabled: Some(on), ..EndpointChange::default() };
    store.change_endpoint(endpoint.id, &change).await?;
    done(args.json, if on { "enabled" } else { "disabled" });
    Ok(Outcome::Well)
}

/// `webhook remove`.
///
/// # Errors
/// When there is no such endpoint, or Postgres does not answer.
pub async fn remove(args: &EndpointArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    store.remove_endpoint(endpoint.id).await?;
    done(args.json, "removed");
    Ok(Outcome::Well)
}

/// Says in one word what was done.
fn done(json: bool, what: &str) {
    #[derive(Serialize)]
    struct Done<'a> {
        outcome: &'a str,
    }
    if json {
        print_json(&Done { outcome: what });
    } else {
        print(&format!("{what}\n"));
    }
}

/// `webhook test`.
///
/// # Errors
/// When there is no such endpoint, it is disabled, no worker sends the test, or Postgres does not answer.
pub async fn test(args: &EndpointArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let endpoint = named(&store, &args.endpoint).await?;
    if !endpoint.enabled {
        return Err(Failure::refused("the endpoint is disabled"));
    }
    let test = store.ask_test(endpoint.id).await?;
    let until = Instant::now() + TEST;
    loop {
        if let Some(answer) = store.test_answer(endpoint.id, test).await? {
            done(args.json, &harmless(&answer));
            let well = answer.starts_with('2');
            return Ok(if well { Outcome::Well } else { Outcome::Wrong });
        }
        if Instant::now() >= until {
            return Err(Failure::refused("no worker has sent it: is natter-push running?"));
        }
        sleep(LOOK).await;
    }
}
