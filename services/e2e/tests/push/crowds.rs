//! Many workers, many recipients, and a service that is dead.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{
    Person,
    metrics::counter,
    push_services::{PushServices, Step, crowd::take_part},
    soon::within,
    usage,
};

use crate::push::support::{Offline, SCRIPTED, decided, delivery, register, scripted, sociable};

/// People in the large group.
const CROWD: usize = 10_000;
/// KiB by which a worker may grow while it notifies them; all of them at once would be more.
const GROWTH: u64 = 64 * 1024;

#[tokio::test]
async fn two_workers_share_the_work_and_nobody_hears_of_anything_twice() -> Result<()> {
    let services = PushServices::start().await?;
    let env = services.env().into_iter();
    let builder = sociable(Cluster::builder()).pushers(2).shards(2);
    let builder = env.fold(builder, |builder, (key, value)| builder.env(key, value));
    let cluster = builder.push_env("NATTER_PUSH_WAIT", "0").start().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let mut chats = Vec::new();
    for n in 0..20 {
        let person = Person::register(&cluster, &format!("P{n}")).await?;
        register(&person.first, &services.subscribe()?).await?;
        chats.push(ana.api(0).direct(&person).await?.id);
    }
    for chat in &chats {
        ana.api(0).say(*chat, "to each").await?;
    }
    let pushed = services.web_push.desk.pushes(chats.len()).await?;
    assert_eq!(pushed.len(), chats.len());
    for node in cluster.pushers() {
        ensure!(counter(node, "natter_push_sent_total").await? > 0, "{} idles", node.name());
    }
    cluster.stop().await
}

#[tokio::test]
async fn a_service_that_is_dead_slows_no_other() -> Result<()> {
    let cluster = SCRIPTED.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    register(&cleo.first, &scripted().fcm.register()).await?;
    scripted().fcm.desk.always(Some(Step::Hang));
    let chats = [ana.api(0).direct(&ben.person).await?.id, ana.api(0).direct(&cleo).await?.id];
    for n in 0..5 {
        ana.api(0).say(chats[1], &format!("into the void {n}")).await?;
        let sent = ana.api(0).say(chats[0], &format!("to Ben {n}")).await?;
        ben.notified(sent.id).await?;
    }
    scripted().fcm.desk.always(None);
    // Of what waited the newest is sent.
    let shown = scripted().fcm.desk.pushes(1).await?;
    ensure!(!shown.is_empty(), "nothing came after all");
    Ok(())
}

#[tokio::test]
async fn ten_thousand_are_notified_once_each_by_a_worker_that_does_not_grow() -> Result<()> {
    let services = PushServices::start().await?;
    let env = services.env().into_iter();
    let builder = sociable(Cluster::builder()).gateways(1);
    let builder = env.fold(builder, |builder, (key, value)| builder.env(key, value));
    let builder = builder.push_env("NATTER_PUSH_WAIT", "0");
    let cluster = builder.push_env("NATTER_PUSH_CONCURRENCY", "256").start().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let chat = ana.api(0).group("Everybody", &[]).await?.id;
    take_part(&cluster, &services, chat, CROWD)?;
    let before = usage::resident(cluster.pusher(0))?;
    let began = Instant::now();
    let sent = ana.api(0).say(chat, "to all of you").await?;
    let (mut most, limit) = (before, Duration::from_mins(2));
    within(limit, "all are notified", async || {
        most = most.max(usage::resident(cluster.pusher(0))?);
        Ok((services.webhook.desk.taken() >= CROWD).then_some(()))
    })
    .await?;
    let took = began.elapsed();
    println!(
        "{CROWD} recipients in {took:?}: {:.0} a second, {before} KiB before, {most} at most",
        CROWD as f64 / took.as_secs_f64()
    );
    ensure!(most - before < GROWTH, "it grew from {before} to {most} KiB");
    assert_eq!(services.webhook.desk.shown().len(), CROWD);
    assert_eq!(services.webhook.desk.violations(), Vec::<String>::new());
    decided(&ana.api(0), sent.id).await?;
    let page = delivery(&ana.api(0), sent.id).await?;
    assert_eq!(page.items.len(), CROWD + 1);
    cluster.stop().await
}
