//! Workers that are killed: at most one alert of each message, and none lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_cluster::{Builder, Cluster};
use natter_e2e::{
    Person,
    push_services::{PushServices, web_push::WebPush},
    soon::within,
    stage::nothing_panicked,
};
use natter_protocol::{
    ids::{DeviceId, MessageId},
    notify::{Delivery, PushState},
};

use crate::push::support::{comes_to, delivery, register, sociable};

/// What a killed worker has in hand is taken over after the time that a service may take, and some more.
const TAKEN_OVER: Duration = Duration::from_secs(40);

/// With services of its own, which take one notification at a time.
fn one_by_one(services: &PushServices) -> Builder {
    let env = services.env().into_iter();
    env.fold(sociable(Cluster::builder()), |builder, (key, value)| builder.env(key, value))
        .push_env("NATTER_PUSH_WAIT", "0")
        .push_env("NATTER_PUSH_DEADLINE_SECONDS", "5")
        .push_env("NATTER_PUSH_RETRY_SECONDS", "1")
        .push_env("NATTER_PUSH_CONCURRENCY", "1")
}

async fn delivered(ana: &Person, message: MessageId, device: DeviceId) -> Result<Delivery> {
    within(TAKEN_OVER, "it is sent", async || {
        let page = delivery(&ana.api(0), message).await?;
        let line = page.items.into_iter().find(|line| line.device_id == Some(device));
        Ok(line.filter(|line| line.state == PushState::Delivered))
    })
    .await
}

#[tokio::test]
async fn killed_between_taking_and_sending_or_before_the_answer_a_worker_shows_each_once()
-> Result<()> {
    let services = PushServices::start().await?;
    let cluster = one_by_one(&services).start().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let (ben, cleo) =
        (Person::register(&cluster, "Ben").await?, Person::register(&cluster, "Cleo").await?);
    let (bens, cleos) = (services.subscribe()?, services.subscribe()?);
    register(&ben.first, &bens).await?;
    register(&cleo.first, &cleos).await?;
    let chats = [ana.api(0).direct(&ben).await?.id, ana.api(0).direct(&cleo).await?.id];
    let desk = &services.web_push.desk;
    desk.hold();
    // Ben's is with the service, which does not answer; Cleo's waits for a place.
    let to_ben = ana.api(0).say(chats[0], "to Ben").await?;
    desk.arrivals(1).await?;
    let to_cleo = ana.api(0).say(chats[1], "to Cleo").await?;
    comes_to(&ana.api(0), to_cleo.id, cleo.first.id, PushState::Queued).await?;
    cluster.pusher(0).kill().await?;
    // As a worker leaves it that is killed when it has taken the row, and has not sent yet.
    let taken = format!(
        "UPDATE pushes SET state = 'sending', attempts = 1, attempted_at = now(),
             due_at = now() + interval '3 seconds'
         WHERE message_id = '{}' AND state = 'queued' RETURNING device_id",
        to_cleo.id
    );
    ensure!(cluster.sql(&taken)?.contains(&cleo.first.id.to_string()), "it was not queued");
    desk.release();
    cluster.pusher(0).start().await?;
    let line = delivered(&ana, to_cleo.id, cleo.first.id).await?;
    assert_eq!(line.attempts, 2);
    delivered(&ana, to_ben.id, ben.first.id).await?;

    let to = |target| {
        let name = WebPush::name(target);
        move |all: Vec<natter_e2e::push_services::Pushed>| {
            all.into_iter().filter(|pushed| pushed.target == name).count()
        }
    };
    // What was with the service may have come twice, and is shown once.
    assert_eq!(to(&bens)(desk.shown()), 1);
    assert_eq!(to(&cleos)(desk.pushed()), 1);
    assert_eq!(desk.violations(), Vec::<String>::new());
    nothing_panicked(&cluster)?;
    cluster.stop().await
}

#[tokio::test]
async fn killed_while_it_holds_or_decides_a_worker_leaves_it_to_another() -> Result<()> {
    let services = PushServices::start().await?;
    let builder = one_by_one(&services).pushers(2).push_env("NATTER_PUSH_WAIT", "2");
    let cluster = builder.push_env("NATTER_PUSH_CONCURRENCY", "16").start().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let mut people = Vec::new();
    for n in 0..8 {
        let person = Person::register(&cluster, &format!("P{n}")).await?;
        let target = services.subscribe()?;
        register(&person.first, &target).await?;
        let chat = ana.api(0).direct(&person).await?.id;
        people.push((person, target, chat));
    }
    let mut sent = Vec::new();
    for (person, _, chat) in &people {
        sent.push((ana.api(0).say(*chat, "to one of them").await?.id, person.first.id));
    }
    // Each has some of them in hand, and nothing is due.
    cluster.pusher(0).kill().await?;
    for (message, device) in sent {
        within(Duration::from_mins(1), "the other has it", async || {
            let answer = ana.api(0).get(&format!("/messages/{message}/delivery")).await?;
            if answer.status() == 404 {
                return Ok(None);
            }
            let page = delivery(&ana.api(0), message).await?;
            let line = page.items.into_iter().find(|line| line.device_id == Some(device));
            Ok(line.filter(|line| line.state == PushState::Delivered))
        })
        .await?;
    }
    // On a slow machine one of the first may have been with the service already.
    assert_eq!(services.web_push.desk.shown().len(), people.len());
    assert_eq!(services.web_push.desk.violations(), Vec::<String>::new());
    cluster.stop().await
}
