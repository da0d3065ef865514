//! Many at once.

use std::{collections::HashMap, time::Duration};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use natter_e2e::{
    Api, Balancer, Mode, Peers, api::client, crowd::introduce, crowd::invite, peers::Dial,
    peers::Language, stage::nothing_panicked,
};
use natter_protocol::ids::ChatId;
use serde_json::Value;

use crate::socketio::APART;

const CLIENTS: usize = 200;
const PARTICIPANTS: usize = 50;
/// Within this all have recovered, on a machine that is busy with other stories.
const RECOVERED: Duration = Duration::from_mins(1);
/// Said in each chat while everybody is away.
const MISSED: usize = 20;

#[tokio::test]
async fn two_hundred_clients_recover_at_once_on_the_node_that_is_left() -> Result<()> {
    let cluster = APART.alone().await?;
    let api = |node: &natter_cluster::Node| Ok(Api::new(client()?, node.address()));
    let apis: Vec<Api> = cluster.gateways().iter().map(api).collect::<Result<_>>()?;
    let guests = invite(&apis, CLIENTS).await?;
    let chats = introduce(&apis, &guests, 1, PARTICIPANTS).await?;
    let balancer = Balancer::before(&cluster).await?;
    let peers = Peers::start(Language::JavaScript).await?;
    let connecting = guests.iter().enumerate().map(async |(n, guest)| {
        let dial = Dial::new(&balancer.url(), &guest.token, Mode::ALL[n % 3]);
        peers.connect(&format!("guest {n}"), &dial).await
    });
    let clients = try_join_all(connecting).await?;
    for (chat, maker) in &chats {
        apis[1].with_token(&guests[*maker].token).say(*chat, "before").await?;
    }
    let heard = clients.iter().map(|client| client.expect("message", |_| true));
    try_join_all(heard).await?;

    cluster.gateway(0).kill().await?;
    balancer.cut();
    for (chat, maker) in &chats {
        let api = apis[1].with_token(&guests[*maker].token);
        for n in 0..MISSED {
            api.say(*chat, &format!("missed {n}")).await?;
        }
        api.say(*chat, "the end").await?;
    }
    let ended = clients.iter().map(|client| client.expect_within(RECOVERED, "message", is_the_end));
    try_join_all(ended).await?;
    let mut recovered = 0;
    let mut told: HashMap<ChatId, usize> = HashMap::new();
    for client in &clients {
        client.check_feeds()?;
        let connects = client.events("connect");
        // One that polls the node that is left may not have noticed anything.
        let back = connects.len() - 1;
        ensure!(connects[1..].iter().all(|c| c["recovered"] == true), "{connects:?}");
        recovered += usize::from(back > 0);
        let messages = client.events("message");
        let contents: Vec<_> = messages.iter().map(|data| data["content"].clone()).collect();
        let mut all = vec!["before".to_owned()];
        all.extend((0..MISSED).map(|n| format!("missed {n}")));
        all.push("the end".to_owned());
        ensure!(contents == all, client.failure("not everything once and in order"));
        *told.entry(serde_json::from_value(messages[0]["chatId"].clone())?).or_default() += 1;
    }
    ensure!(recovered > CLIENTS / 2, "{recovered} came back");
    ensure!(chats.iter().all(|(chat, _)| told[chat] == PARTICIPANTS), "{told:?}");
    nothing_panicked(&cluster)
}

fn is_the_end(data: &Value) -> bool {
    data["content"] == "the end"
}
