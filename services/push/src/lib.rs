//! Push: whoever is offline hears of it, once.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the command line |
//! | [`worker`] | the tasks: deciding and sending, a task a shard and push service |
//! | [`deciding`] | a shard's messages, held for a while, then decided about |
//! | `round` | some chats' messages that are due: their participants, page by page |
//! | [`judging`] | whether somebody is notified of a message, and if not, why |
//! | [`sending`] | the queue of one push service, taken as fast as that goes |
//! | `keeping` | what came of attempts, written in batches |
//! | [`wording`] | what a notification says |
//! | [`providers`] | Web Push, FCM, APNs and the webhook: one notice to one device |
//! | `upkeep` | what is too old; how much waits |
//! | `measures` | what is counted and timed |
//!
//! Beside notifications the program tells other people's servers of what happens: [`natter_webhooks`], which
//! shares nothing with them but the process and its connections.
//!
//! # From a message to a device
//!
//! Workers share one durable consumer of each log. A message is held for a few seconds and until it is in
//! Postgres; then it is decided about its recipients, page by page. Each page is one transaction: who is not
//! notified and why (`push_decisions`), and a row of `pushes` in state `queued` for each device that is.
//! After that the page's notifications go into the queue, `PUSH_<shard>`, and the next page comes. The log's
//! entry is acknowledged at the end.
//!
//! | state | means | who moves it | to |
//! |---|---|---|---|
//! | `queued` | decided | whoever takes it from the queue | `sending`, `cancelled`, `given_up` |
//! | `sending` | with a push service, until `due_at` | whoever took it, by the number of the attempt | `delivered`, `gone`, `refused`, `retrying`, `given_up` |
//! | `retrying` | has failed, and waits in the queue until `due_at` | as `queued` | as `queued` |
//! | `delivered` | the push service has it | nobody | |
//! | `gone` | the push service knows no such target; the device's is forgotten, unless it has another by now | nobody | |
//! | `refused` | the push service does not take it | nobody | |
//! | `cancelled` | not wanted any more when it was taken: read, taken back, left, muted, logged out, disabled, or a newer one of the chat waits for the device | nobody | |
//! | `given_up` | failed too often, or too old | nobody | |
//!
//! What happens when a worker dies, or stands still for too long:
//!
//! - **while it holds a message, or decides**: the log's entry is handed to another, which goes on behind the
//!   last page that is written, and queues again what is `queued` of those before. The broker knows a
//!   notification that it has had a moment ago; one that it has twice is taken once, since only one
//!   takes the row.
//! - **between taking a notification and sending it**: the row is `sending`. The queue hands it out again,
//!   and it is taken again once `due_at` has passed. It is sent then, for the first time.
//! - **after the request went out, before its answer is written**: nobody can tell this from the case before.
//!   So it is sent again, under the same name (Web Push's topic, FCM's and Apple's collapse ids, Apple's
//!   `apns-id`, `webhook-id`) and with the same `messageId`: the push service puts it in place of the first,
//!   and a device that has shown the id does not show it again. A person sees one.
//! - **after the answer is written, before the queue hears of it**: it is handed out again, the row says that
//!   it is over, and nothing is sent.
//!
//! One that stood still and wakes writes nothing: the row names a later attempt.

pub mod config;
pub mod deciding;
pub mod judging;
mod keeping;
mod measures;
pub mod providers;
mod round;
pub mod sending;
mod upkeep;
pub mod wording;
pub mod worker;

use anyhow::{Context, Result};
use config::{PushConfig, RunArgs};
use natter_bus::Bus;
use natter_presence::PresenceClient;
use natter_protocol::{
    node::{NodeDescription, NodeRole},
    notify::PushKey,
};
use natter_runtime::{Health, VERSION};
use natter_store::{Store, schema_known};
use natter_webhooks::WebhooksConfig;
use providers::{Providers, ProvidersConfig, web_push};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;

/// Runs as the command line says, until `stop`.
///
/// # Errors
/// When the settings cannot work.
pub async fn run_by(args: &RunArgs, health: Health, stop: CancellationToken) -> Result<()> {
    let config = PushConfig::try_from(args)?;
    let of_providers = ProvidersConfig::try_from(&args.providers)?;
    let public_key = of_providers.web_push.as_ref();
    let public_key = public_key
        .map(|of| web_push::application_server_key(of.key.expose_secret()))
        .transpose()?;
    let providers = Providers::new(&of_providers)?;
    let told = PushKey { public_key, providers: providers.configured().to_vec() };
    if told.providers.is_empty() {
        tracing::warn!("no push service is set up: nobody is notified");
    }
    let store = Store::connect(&args.store()).context("NATTER_DATABASE_URL (--database-url)")?;
    let bus = Bus::connect(&args.nats.config(format!("push {}", args.node.node_id))).await?;
    let presence = PresenceClient::new(args.redis.config(&args.node.node_id))?;
    let described = tokio::spawn(bus.clone().describe(NodeDescription {
        node: args.node.node_id.clone(),
        role: NodeRole::Push,
        version: VERSION.to_owned(),
        schema: schema_known(),
    }));
    let parts = worker::Parts { store: store.clone(), bus, presence, providers: providers.into() };
    let webhooks = WebhooksConfig::new(&args.webhooks, args.shards, args.log_replicas);
    let telling = natter_webhooks::run(
        webhooks,
        parts.bus.clone(),
        parts.store.clone(),
        &args.node.node_id,
        stop.clone(),
    );
    let ((), told) = tokio::join!(worker::run(config, parts, told, health, stop), telling);
    described.abort();
    told.context("the HTTP client of webhooks")?;
    store.close();
    Ok(())
}
