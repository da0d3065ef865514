//! What endpoints are told when Postgres is put back from an older dump, with the stream of events as it was.

use std::time::Duration;

use anyhow::{Context, Result};
use natter_cluster::Cluster;
use natter_e2e::{
    Person,
    push_services::{
        Step,
        endpoint::{Endpoint, Told},
    },
    soon::within,
    stage::nothing_panicked,
};
use natter_protocol::{
    ids::{ChatId, EndpointId},
    webhook::{HookFilter, HookKind},
};
use natter_store::{LaneReport, NewEndpoint, Store, StoreConfig};

use super::{
    builder,
    servers::{Dump, lose_database},
    talk::PATIENCE,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Seconds: what fails is not tried again before all of this has happened.
const RETRY: &str = "20";

/// Somebody's server that is told of messages.
struct Shop {
    endpoint: Endpoint,
    id: EndpointId,
    store: Store,
}

impl Shop {
    async fn open(cluster: &Cluster) -> Result<Self> {
        let store = Store::connect(&StoreConfig::new(cluster.database_url()))?;
        let endpoint = Endpoint::start().await?;
        endpoint.trust(SECRET)?;
        let new = NewEndpoint {
            name: "shop".to_owned(),
            url: endpoint.url(),
            secret: SECRET.to_owned(),
            filter: HookFilter { kinds: Some(vec![HookKind::Message]), chats: None },
        };
        let id = store.add_endpoint(&new, 1).await?.id;
        Ok(Self { endpoint, id, store })
    }

    /// How it is with the only shard.
    async fn lane(&self) -> Result<LaneReport> {
        let lanes = self.store.endpoint_lanes(self.id).await?;
        lanes.into_iter().next().context("no lane")
    }

    /// Waits until it has been told all, but for so many chats that wait by themselves.
    async fn is_told(&self, behind: u64) -> Result<LaneReport> {
        within(PATIENCE, "it is written what was told", async || {
            let all = |lane: &LaneReport| lane.seq.is_some() && lane.lag == 0;
            Ok(Some(self.lane().await?).filter(|lane| all(lane) && lane.behind == behind))
        })
        .await
    }
}

async fn say(who: &Person, chat: ChatId, said: &mut Vec<String>, what: &str) -> Result<()> {
    for n in 0..3 {
        let text = format!("{what} {n}");
        who.api(n % 2).say(chat, &text).await?;
        said.push(text);
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_is_told_again_what_a_restored_database_knows_nothing_of() -> Result<()> {
    let cluster = builder().push_env("NATTER_WEBHOOK_RETRY_SECONDS", RETRY).start().await?;
    let shop = Shop::open(&cluster).await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let (refused, taken) = (ana.api(0).direct(&ben).await?.id, ana.api(0).direct(&cleo).await?.id);
    let (mut of_refused, mut of_taken) = (Vec::new(), Vec::new());
    say(&ana, refused, &mut of_refused, "before the dump").await?;
    say(&ana, taken, &mut of_taken, "before the dump").await?;
    shop.endpoint.hears(refused, &of_refused).await?;
    shop.endpoint.hears(taken, &of_taken).await?;
    shop.is_told(0).await?;
    let dump = Dump::take(&cluster)?;

    // Of one chat nothing is taken: it is behind, and the lane goes on.
    let name = refused.to_string();
    let is_refused = move |told: &Told| told.body["data"]["chatId"] == name.as_str();
    shop.endpoint.rule(move |told| is_refused(told).then(|| Step::status(500)));
    say(&ana, refused, &mut of_refused, "since the dump").await?;
    say(&ana, taken, &mut of_taken, "since the dump").await?;
    shop.endpoint.hears(taken, &of_taken).await?;
    let before = shop.is_told(1).await?;

    // Whoever tells it goes on meanwhile, with what it has in mind.
    cluster.worker(0).terminate().await?;
    lose_database(&cluster)?;
    dump.put_back(&cluster)?;
    cluster.worker(0).start().await?;
    for gateway in 0..2 {
        within(PATIENCE, "the gateway reaches the restored database", async || {
            let answer = ana.api(gateway).get("/users/me").await?;
            Ok((answer.status() == 200).then_some(()))
        })
        .await?;
    }
    say(&ana, taken, &mut of_taken, "after the restore").await?;
    shop.endpoint.hears(taken, &of_taken).await?;
    within(PATIENCE, "the lane has come beyond where it was", async || {
        Ok((shop.lane().await?.seq > before.seq).then_some(()))
    })
    .await?;
    // Now only what is written can tell of the chat that is behind.
    shop.endpoint.take_all();
    cluster.pusher(0).kill().await?;
    cluster.pusher(0).start().await?;
    within(Duration::from_mins(1), "all of it is told", async || {
        Ok((shop.endpoint.said_in(refused).len() >= of_refused.len()).then_some(()))
    })
    .await
    .with_context(|| format!("{:?}", shop.endpoint.said_in(refused)))?;
    shop.endpoint.hears(refused, &of_refused).await?;
    shop.endpoint.hears(taken, &of_taken).await?;
    nothing_panicked(&cluster)
}
