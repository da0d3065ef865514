//! What push services answer, and what comes of it.

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{
    Person,
    push_services::{Step, web_push::WebPush},
    soon,
};
use natter_protocol::notify::{PushReason, PushState, PushTarget};
use time::Duration;

use crate::push::support::{Offline, SCRIPTED, comes_to, decided, of, register, scripted};

/// Waits until a story before has left nothing that would have the next answer.
async fn nothing_left(cluster: &Cluster) -> Result<()> {
    soon("nothing is left to be sent", async || {
        let left = "SELECT 1 FROM pushes WHERE state IN ('queued', 'sending', 'retrying') LIMIT 1";
        Ok(cluster.sql(left)?.trim().is_empty().then_some(()))
    })
    .await
}

#[tokio::test]
async fn whoever_is_offline_hears_of_it_once_and_everybody_concerned_can_see_why() -> Result<()> {
    let cluster = SCRIPTED.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let sent = ana.api(1).say(chat, "Hello Ben").await?;
    let pushed = ben.notified(sent.id).await?;
    let notice = &pushed.notice;
    assert_eq!((&notice["title"], &notice["body"]), (&"Ana".into(), &"Hello Ben".into()));
    let listed = ben.person.api(0).chat(chat).await?.me.map(|me| me.unread_count);
    assert_eq!((notice["unread"].as_u64(), listed), (Some(1), Some(1)));

    let line = comes_to(&ana.api(0), sent.id, ben.person.first.id, PushState::Delivered).await?;
    ensure!(line.attempts == 1 && line.answer.is_some() && line.ended_at.is_some(), "{line:?}");
    let page = decided(&ana.api(1), sent.id).await?;
    assert_eq!(of(&page, ana.id)?.reason, Some(PushReason::Sender));
    let stranger = Person::register(&cluster, "Eve").await?;
    let path = format!("/messages/{}/delivery", sent.id);
    ben.person.api(0).get(&path).await?.refused(404, "not_found")?;
    stranger.api(0).get(&path).await?.refused(404, "not_found")?;

    let path = format!("/devices/{}/push", ben.person.first.id);
    let target: PushTarget = ben.person.api(0).get(&path).await?.read(200)?;
    assert_eq!(target.last.map(|last| last.state), Some(PushState::Delivered));
    assert_eq!(ben.pushed().len(), 1);
    assert_eq!(scripted().web_push.desk.violations(), Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_gone_is_forgotten_and_another_takes_its_place() -> Result<()> {
    let cluster = SCRIPTED.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    scripted().web_push.unsubscribe(&ben.target);
    let sent = ana.api(0).say(chat, "to nobody").await?;
    let device = ben.person.first.id;
    comes_to(&ana.api(0), sent.id, device, PushState::Gone).await?;
    let path = format!("/devices/{device}/push");
    let target: PushTarget = ben.person.api(0).get(&path).await?.read(200)?;
    ensure!(target.gone, "{target:?}");
    let sent = ana.api(0).say(chat, "to nobody any more").await?;
    let page = decided(&ana.api(0), sent.id).await?;
    assert_eq!(of(&page, ben.person.id)?.reason, Some(PushReason::NoTarget));

    let target = scripted().subscribe()?;
    register(&ben.person.first, &target).await?;
    let ben = Offline { target, ..ben };
    let sent = ana.api(0).say(chat, "to Ben again").await?;
    ben.notified(sent.id).await?;
    Ok(())
}

#[tokio::test]
async fn what_fails_is_tried_again_when_the_service_says_or_after_a_pause() -> Result<()> {
    let cluster = SCRIPTED.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let device = ben.person.first.id;
    let desk = &scripted().web_push.desk;

    let mut slower = 0;
    let (sent, waits) = loop {
        slower += 1;
        desk.next([Step::with(429, "retry-after", "3")]);
        let sent = ana.api(0).say(chat, "slower").await?;
        let line = soon("it is tried", async || {
            let page = decided(&ana.api(0), sent.id).await?;
            let line = page.items.into_iter().find(|line| line.device_id == Some(device));
            Ok(line.filter(|line| matches!(line.state, PushState::Retrying | PushState::Delivered)))
        })
        .await?;
        if line.state == PushState::Retrying {
            break (sent, line);
        }
        // What a story before has left to be tried again has had the answer.
        ensure!(slower < 5, "{line:?}");
    };
    let pause = waits.next_at.zip(waits.attempted_at).map(|(next, at)| next - at);
    ensure!(pause.is_some_and(|pause| pause >= Duration::seconds(3)), "{waits:?}");
    let line = comes_to(&ana.api(0), sent.id, device, PushState::Delivered).await?;
    assert_eq!(line.attempts, 2);

    // (Of an answer that breaks off the status holds, if it has come.)
    for trouble in [Step::status(500), Step::Hang, Step::HangUp(500)] {
        desk.next([trouble]);
        let sent = ana.api(0).say(chat, "once more").await?;
        let line = comes_to(&ana.api(0), sent.id, device, PushState::Delivered).await?;
        ensure!(line.attempts <= 2, "{line:?}");
        ben.notified(sent.id).await?;
    }
    assert_eq!(ben.shown().len(), slower + 3);
    Ok(())
}

#[tokio::test]
async fn what_a_service_takes_and_loses_is_said_to_be_with_the_service() -> Result<()> {
    let cluster = SCRIPTED.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    nothing_left(&cluster).await?;
    scripted().web_push.desk.next([Step::Lose]);
    let sent = ana.api(0).say(chat, "lost").await?;
    let device = ben.person.first.id;
    let line = comes_to(&ana.api(0), sent.id, device, PushState::Delivered).await?;
    ensure!(line.answer.as_deref().is_some_and(|answer| answer.contains("201")), "{line:?}");
    ensure!(ben.shown().is_empty(), "{:?}", WebPush::name(&ben.target));
    Ok(())
}

#[tokio::test]
async fn what_a_service_refuses_is_not_tried_again() -> Result<()> {
    let cluster = SCRIPTED.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register_with(scripted(), &cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    nothing_left(&cluster).await?;
    scripted().web_push.desk.next([Step::status(413)]);
    let sent = ana.api(0).say(chat, "too much").await?;
    let device = ben.person.first.id;
    let line = comes_to(&ana.api(0), sent.id, device, PushState::Refused).await?;
    assert_eq!(line.attempts, 1);
    ensure!(ben.pushed().is_empty(), "it was refused");
    Ok(())
}
