//! Bad input: every kind of it gets the documented code, and closes the connection or not as
//! documented. Whatever happens to one connection, the gateway is there for the next, and nothing
//! panics: each story ends by looking, so that whichever is the last has looked at all of them.

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Person, Socket, Stage, tokens as issued};
use natter_protocol::ids::ChatId;
use serde_json::json;

mod frames;
mod rates;
mod rest;
mod tokens;

static STAGE: Stage = Stage::with(|builder| {
    issued::trusted(builder)
        .gateway_env("NATTER_HANDSHAKE_SECONDS", "2")
        .gateway_env("NATTER_CALLS_PER_SECOND", "20")
});

/// Two people with a one-to-one, and a group that Ana is no part of.
struct Scenery {
    ana: Person,
    direct: ChatId,
    foreign: ChatId,
}

async fn scenery(cluster: &Cluster) -> Result<Scenery> {
    let ana = Person::register(cluster, "Ana").await?;
    let ben = Person::register(cluster, "Ben").await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let foreign = ben.api(0).group("Not for Ana", &[]).await?.id;
    ben.api(0).say(foreign, "nothing for Ana").await?;
    Ok(Scenery { ana, direct, foreign })
}

async fn usable(socket: &Socket) -> Result<()> {
    let answer = socket.request("presence_subscribe", json!({"userIds": []})).await?;
    ensure!(answer == json!({"items": []}), "{answer}");
    Ok(())
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}
