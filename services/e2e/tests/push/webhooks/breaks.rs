//! Workers that die, and workers that share.

use std::{collections::HashSet, time::Duration};

use anyhow::{Result, ensure};
use natter_cluster::{Builder, Cluster};
use natter_e2e::{push_services::Step, soon::within, stage::nothing_panicked};

use super::{Hook, failures::ordered, impatient, pair, say};
use crate::push::support::sociable;

fn slow(told: &natter_e2e::push_services::endpoint::Told) -> Option<Step> {
    (told.body["type"] == "message").then_some(Step::Late(Duration::from_millis(30)))
}

fn two_workers() -> Builder {
    impatient(sociable(Cluster::builder())).pushers(2)
}

#[tokio::test]
async fn killed_in_the_middle_every_event_comes_and_none_before_an_earlier_one() -> Result<()> {
    let cluster = impatient(sociable(Cluster::builder())).start().await?;
    let hook = Hook::add(&cluster, "killed", &["--kinds=message"]).await?;
    hook.endpoint.rule(slow);
    let mut chats = Vec::new();
    for _ in 0..3 {
        let (ada, _, chat) = pair(&cluster).await?;
        chats.push((ada, chat, Vec::new()));
    }
    for round in 0..3 {
        // While they talk: however fast it is told, there is more to tell.
        let least = hook.endpoint.told().len() + 4;
        let talking = async {
            for (ada, chat, said) in &mut chats {
                said.extend(say(ada, *chat, &format!("round {round}"), 12).await?);
            }
            anyhow::Ok(())
        };
        let killing = async {
            hook.endpoint.until("some of it", |told| (told.len() >= least).then_some(())).await?;
            cluster.pusher(0).kill().await?;
            cluster.pusher(0).start().await
        };
        tokio::try_join!(talking, killing)?;
    }
    for (_, chat, said) in &chats {
        let chat = *chat;
        within(Duration::from_mins(1), "all of it", async || {
            Ok((hook.endpoint.said_in(chat).len() == said.len()).then_some(()))
        })
        .await?;
        hook.endpoint.hears(chat, said).await?;
        ordered(&hook.endpoint.told(), &chat.to_string())?;
    }
    nothing_panicked(&cluster)?;
    cluster.stop().await
}

#[tokio::test]
async fn two_workers_share_endpoints_and_one_takes_over_from_the_other() -> Result<()> {
    let cluster = two_workers().start().await?;
    let mut hooks = Vec::new();
    for n in 0..4 {
        hooks.push(Hook::add(&cluster, &format!("shared-{n}"), &["--kinds=message"]).await?);
    }
    let owners = async || {
        let mut owners = Vec::new();
        for hook in &hooks {
            owners.extend(hook.lane().await?.and_then(|lane| lane.owner));
        }
        anyhow::Ok(owners)
    };
    within(Duration::from_secs(30), "each has its share", async || {
        let owners = owners().await?;
        let distinct: HashSet<_> = owners.iter().collect();
        let of_first = owners.iter().filter(|owner| *owner == &owners[0]).count();
        Ok((owners.len() == 4 && distinct.len() == 2 && of_first == 2).then_some(()))
    })
    .await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let mut said = say(&ada, chat, "shared", 10).await?;
    for hook in &hooks {
        hook.endpoint.hears(chat, &said).await?;
    }
    cluster.pusher(0).kill().await?;
    said.extend(say(&ada, chat, "taken over", 10).await?);
    for hook in &hooks {
        hook.endpoint.hears(chat, &said).await?;
        ordered(&hook.endpoint.told(), &chat.to_string())?;
    }
    let left: HashSet<_> = owners().await?.into_iter().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    cluster.pusher(0).start().await?;
    within(Duration::from_secs(30), "it gets its share again", async || {
        let owners: HashSet<_> = owners().await?.into_iter().collect();
        Ok((owners.len() == 2).then_some(()))
    })
    .await?;
    said.extend(say(&ada, chat, "shared again", 10).await?);
    for hook in &hooks {
        hook.endpoint.hears(chat, &said).await?;
        ordered(&hook.endpoint.told(), &chat.to_string())?;
    }
    ensure!(hooks.iter().all(|hook| hook.endpoint.most_at_once() == 1), "a chat's came at once");
    nothing_panicked(&cluster)?;
    cluster.stop().await
}

#[tokio::test]
async fn a_stream_that_is_lost_is_filled_again_and_nothing_is_missed() -> Result<()> {
    let cluster = impatient(sociable(Cluster::builder())).start().await?;
    let hook = Hook::add(&cluster, "lost", &["--kinds=message"]).await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let mut said = say(&ada, chat, "before", 5).await?;
    hook.endpoint.hears(chat, &said).await?;
    let bus = natter_bus::BusConfig::new(cluster.nats_url(), "story");
    let bus = natter_bus::Bus::connect(&bus).await?;
    bus.connected_within(Duration::from_secs(5)).await?;
    hook.of_it("disable", &[]).await?;
    said.extend(say(&ada, chat, "while it is lost", 5).await?);
    cluster.pusher(0).terminate().await?;
    bus.forget_hooks(0).await?;
    cluster.pusher(0).start().await?;
    hook.of_it("enable", &[]).await?;
    said.extend(say(&ada, chat, "after", 5).await?);
    hook.endpoint.hears(chat, &said).await?;
    // Put back from long ago, it has other events at the places that were given before.
    cluster.pusher(0).terminate().await?;
    bus.forget_hooks(0).await?;
    let config = natter_bus::HooksConfig {
        replicas: 1,
        max_bytes: 1_000_000,
        max_age: Duration::from_hours(1),
    };
    bus.ensure_hooks(0, &config, 1).await?;
    said.extend(say(&ada, chat, "while it is short", 5).await?);
    cluster.pusher(0).start().await?;
    said.extend(say(&ada, chat, "in the end", 5).await?);
    hook.endpoint.hears(chat, &said).await?;
    let again = hook.endpoint.taken().len() - said.len();
    ensure!(again == 0, "{again} were told again");
    ordered(&hook.endpoint.told(), &chat.to_string())?;
    hook.remove().await?;
    within(Duration::from_secs(20), "nothing is kept for nobody", async || {
        let state = bus.hooks_state(0).await?;
        Ok(state.filter(|state| state.first > state.last).map(drop))
    })
    .await?;
    nothing_panicked(&cluster)?;
    cluster.stop().await
}
