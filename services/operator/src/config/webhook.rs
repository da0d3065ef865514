//! Of `webhook`.

use clap::{Args, Subcommand};
use natter_protocol::{
    ids::ChatId,
    webhook::{HookCursor, HookKind},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::Url;

use super::Servers;

/// What can be done with webhooks.
#[derive(Debug, Subcommand)]
pub enum Webhook {
    /// Make an endpoint, which is told of what happens from now on. Its secret is shown once.
    Add(AddEndpointArgs),
    /// List all endpoints.
    List(ListEndpointsArgs),
    /// Show an endpoint, and how far it is with each shard.
    Show(EndpointArgs),
    /// Change where an endpoint is, what it is told of, or what signs.
    Change(ChangeEndpointArgs),
    /// Tell an endpoint again, from where it was.
    Enable(EndpointArgs),
    /// Tell an endpoint nothing, until it is enabled. What happens meanwhile is kept for it.
    Disable(EndpointArgs),
    /// Remove an endpoint, and all that is kept for it.
    Remove(EndpointArgs),
    /// Send an endpoint a request of type `test`, and tell what it answers.
    Test(EndpointArgs),
    /// Tell an endpoint again of what it was told before, from a place or a time on.
    Replay(ReplayEventsArgs),
    /// List the events that an endpoint could not be told of.
    DeadLetters(EndpointLettersArgs),
    /// Tell an endpoint of such events after all. A letter that is told is removed.
    ReplayLetters(ReplayLettersArgs),
}

/// Of most of them.
#[derive(Args, Debug)]
pub struct EndpointArgs {
    /// The endpoint: its name or its id.
    pub endpoint: String,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook add`.
#[derive(Args, Debug)]
pub struct AddEndpointArgs {
    /// What the endpoint is called here and in metrics: 1 to 64 letters, digits, `-`, `_` and `.`.
    #[arg(value_parser = name)]
    pub name: String,

    /// Where it is: an `https:` URL, or `http:` where nobody listens.
    #[arg(value_parser = url)]
    pub url: Url,

    /// Only these kinds of events, with commas between them: message, edit, delete, reaction,
    /// membership, expiry, device, media. All by default.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    pub kinds: Vec<HookKind>,

    /// Only these chats, by their ids, with commas between them: 1,000 at most. All by default.
    #[arg(long, value_delimiter = ',')]
    pub chats: Vec<ChatId>,

    /// Endpoints that there may be: 1 to 1,000.
    #[arg(long, env = "NATTER_WEBHOOK_ENDPOINTS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub webhook_endpoints: u32,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook list`.
#[derive(Args, Debug)]
pub struct ListEndpointsArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook change`.
#[derive(Args, Debug)]
pub struct ChangeEndpointArgs {
    /// The endpoint: its name or its id.
    pub endpoint: String,

    /// Where it is from now on.
    #[arg(long, value_parser = url)]
    pub url: Option<Url>,

    /// Only these kinds of events from now on, as for `add`.
    #[arg(long, value_delimiter = ',', value_parser = kind)]
    pub kinds: Vec<HookKind>,

    /// All kinds.
    #[arg(long, conflicts_with = "kinds")]
    pub all_kinds: bool,

    /// Only these chats from now on, as for `add`.
    #[arg(long, value_delimiter = ',')]
    pub chats: Vec<ChatId>,

    /// All chats.
    #[arg(long, conflicts_with = "chats")]
    pub all_chats: bool,

    /// Make a new secret, and show it. The one before signs nothing from now on.
    #[arg(long)]
    pub new_secret: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook replay`.
#[derive(Args, Debug)]
pub struct ReplayEventsArgs {
    /// The endpoint: its name or its id.
    pub endpoint: String,

    /// From the first event on that was stored at this time or later, RFC 3339.
    #[arg(long, value_parser = moment, required_unless_present = "cursor")]
    pub since: Option<OffsetDateTime>,

    /// From behind the event whose `cursor` this is, of its shard.
    #[arg(long, conflicts_with = "since")]
    pub cursor: Option<HookCursor>,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked, and NATS for a time.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook dead-letters`.
#[derive(Args, Debug)]
pub struct EndpointLettersArgs {
    /// The endpoint: its name or its id.
    pub endpoint: String,

    /// Begin after this letter.
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub after: i64,

    /// Letters at most: 1 to 10,000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

/// Of `webhook replay-letters`.
#[derive(Args, Debug)]
pub struct ReplayLettersArgs {
    /// The endpoint: its name or its id.
    pub endpoint: String,

    /// The letters, as `dead-letters` calls them.
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub ids: Vec<i64>,

    /// All that there are by now.
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked.
    #[command(flatten)]
    pub servers: Servers,
}

fn name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = (1..=64).contains(&text.len()) && text.chars().all(plain);
    if fits { Ok(text.to_owned()) } else { Err("1 to 64 letters, digits, - _ .".to_owned()) }
}

/// Says nothing of the text, which may hold a password.
fn url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host());
    url.ok_or_else(|| "is not an https: or http: URL".to_owned())
}

fn kind(text: &str) -> Result<HookKind, String> {
    let all = HookKind::MEANINGS.iter().map(|(kind, _)| kind.as_str());
    HookKind::parse(text)
        .ok_or_else(|| format!("is none of {}", all.collect::<Vec<_>>().join(", ")))
}

fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "is not a time as 2026-01-31T12:00:00Z".into())
}
