//! Other people's servers are told of what happens, told with ones that verify what they are told.

mod breaks;
mod devices;
mod failures;
mod kinds;
mod letters;
mod side_by_side;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use natter_cluster::{Builder, Cluster};
use natter_e2e::{Person, Stage, push_services::endpoint::Endpoint, tokens};
use natter_operator::{config::Cli, outcome::Outcome};
use natter_protocol::ids::ChatId;
use natter_store::{LaneReport, Store, StoreConfig, WebhookEndpoint};

/// Little patience, and endpoints that are left alone for a short while.
pub(crate) fn impatient(builder: Builder) -> Builder {
    builder
        .push_env("NATTER_WEBHOOK_RETRY_SECONDS", "1")
        .push_env("NATTER_WEBHOOK_DEADLINE_SECONDS", "2")
        .push_env("NATTER_WEBHOOK_FAILURES", "5")
        .push_env("NATTER_WEBHOOK_PAUSE_SECONDS", "1")
}

/// What most stories are told on. An outside issuer is trusted.
pub(crate) static STAGE: Stage = Stage::with(|builder| tokens::trusted(impatient(builder)));

/// Somebody's server, made known under a name of its own.
pub(crate) struct Hook {
    pub(crate) name: String,
    pub(crate) endpoint: Endpoint,
    store: Store,
    database: String,
    nats: String,
}

impl Hook {
    /// Made with these further arguments, like `--kinds=edit`.
    pub(crate) async fn add(cluster: &Cluster, name: &str, more: &[&str]) -> Result<Self> {
        let endpoint = Endpoint::start().await?;
        let hook = Self {
            name: name.to_owned(),
            endpoint,
            store: Store::connect(&StoreConfig::new(cluster.database_url()))?,
            database: cluster.database_url(),
            nats: cluster.nats_url(),
        };
        let url = hook.endpoint.url();
        let args = [&["add", name, url.as_str()], more].concat();
        hook.natter(&args).await?;
        hook.endpoint.trust(&hook.known().await?.secret)?;
        Ok(hook)
    }

    /// The operators' command `natter webhook …`.
    pub(crate) async fn natter(&self, args: &[&str]) -> Result<()> {
        let servers =
            ["--database-url", &self.database, "--nats-url", &self.nats].map(str::to_owned);
        let all = ["natter", "webhook"].iter().chain(args).map(|arg| (*arg).to_owned());
        let cli = Cli::try_parse_from(all.chain(servers))?;
        let outcome = natter_operator::run(cli).await?;
        ensure!(outcome == Outcome::Well, "{args:?}: {outcome:?}");
        Ok(())
    }

    /// The same about this endpoint.
    pub(crate) async fn of_it(&self, what: &str, more: &[&str]) -> Result<()> {
        self.natter(&[&[what, self.name.as_str()], more].concat()).await
    }

    pub(crate) async fn known(&self) -> Result<WebhookEndpoint> {
        Ok(self.store.endpoint(&self.name).await?)
    }

    /// How it is with the only shard; none before a worker has looked.
    pub(crate) async fn lane(&self) -> Result<Option<LaneReport>> {
        let lanes = self.store.endpoint_lanes(self.known().await?.id).await?;
        Ok(lanes.into_iter().next().filter(|lane| lane.seq.is_some()))
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Nothing more is told, so that the next story is not about it.
    pub(crate) async fn remove(self) -> Result<()> {
        self.of_it("remove", &[]).await
    }
}

/// Two who talk.
pub(crate) async fn pair(cluster: &Cluster) -> Result<(Person, Person, ChatId)> {
    let ada = Person::register(cluster, "Ada").await?;
    let ben = Person::register(cluster, "Ben").await?;
    let chat = ada.api(0).direct(&ben).await?.id;
    Ok((ada, ben, chat))
}

/// Says so many things, one after the other.
pub(crate) async fn say(
    who: &Person,
    chat: ChatId,
    what: &str,
    count: usize,
) -> Result<Vec<String>> {
    let mut said = Vec::new();
    for n in 0..count {
        let text = format!("{what} {n}");
        who.api(n % 2).say(chat, &text).await.context("not sent")?;
        said.push(text);
    }
    Ok(said)
}
