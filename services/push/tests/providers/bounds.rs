//! Deadlines, places and circuits.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use futures::future::join_all;
use natter_e2e::{push_services::Step, soon};
use natter_protocol::push::Provider;
use natter_push::providers::Outcome;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    time::{Instant, timeout},
};

use crate::support::{ALL, accepted, notice, providers, retry, stage};

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_answer_is_left_at_the_deadline() -> Result<()> {
    let (services, providers) = stage(&[("NATTER_PUSH_DEADLINE_SECONDS", "1")]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        desk.next([Step::Hang]);
        let began = Instant::now();
        let outcome = providers.send(&target, &notice()).await;
        assert_eq!(retry(&outcome)?, None);
        assert_eq!(outcome.answer().as_str(), "no answer in time");
        ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // The request is given up, not only left.
        soon("the request ends", async || Ok((desk.at_once() == 0).then_some(()))).await?;
        accepted(&providers.send(&target, &notice()).await)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_worth_its_status() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        desk.next([Step::HangUp(500), Step::HangUp(200)]);
        retry(&providers.send(&target, &notice()).await)?;
        accepted(&providers.send(&target, &notice()).await)?;
        accepted(&providers.send(&target, &notice()).await)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_without_an_answer_or_is_not_there_is_tried_again() -> Result<()> {
    let services = natter_e2e::PushServices::start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let mut env = services.env();
    for (name, value) in &mut env {
        if *name == "NATTER_PUSH_WEBHOOK_URL" || *name == "NATTER_PUSH_APNS_URL" {
            value.clone_from(&url);
        }
    }
    let providers = providers(&env)?;
    let hanging_up = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().await?;
            let _ = socket.read(&mut [0; 64]).await?;
        }
        anyhow::Ok(())
    });
    for provider in [Provider::Webhook, Provider::Apns] {
        let outcome = providers.send(&services.register(provider)?, &notice()).await;
        assert_eq!(retry(&outcome)?, None);
        assert_eq!(outcome.answer().as_str(), "the connection broke off", "{provider}");
    }
    hanging_up.await??;
    // Now the port is shut.
    for provider in [Provider::Webhook, Provider::Apns] {
        let outcome = providers.send(&services.register(provider)?, &notice()).await;
        assert_eq!(retry(&outcome)?, None);
        assert_eq!(outcome.answer().as_str(), "no connection", "{provider}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_huge_answer_only_the_beginning_is_read() -> Result<()> {
    let (services, providers) = stage(&[]).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        desk.next([Step::Huge(500), Step::Huge(200)]);
        let both = async {
            retry(&providers.send(&target, &notice()).await)?;
            accepted(&providers.send(&target, &notice()).await)
        };
        timeout(Duration::from_secs(5), both).await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_provider_has_so_many_notices_at_the_same_time() -> Result<()> {
    const PLACES: usize = 4;
    let (services, providers) = stage(&[("NATTER_PUSH_CONCURRENCY", "4")]).await?;
    let providers = Arc::new(providers);
    for provider in ALL {
        assert_eq!(providers.concurrency(provider), PLACES);
        let desk = services.desk(provider);
        desk.hold();
        let mut sending = Vec::new();
        for _ in 0..3 * PLACES {
            let (target, providers) = (services.register(provider)?, providers.clone());
            sending.push(tokio::spawn(async move { providers.send(&target, &notice()).await }));
        }
        desk.arrivals(PLACES).await?;
        desk.release();
        for outcome in join_all(sending).await {
            accepted(&outcome?)?;
        }
        assert_eq!((desk.taken(), desk.most_at_once()), (3 * PLACES, PLACES), "{provider}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_again_and_again_is_left_alone_and_then_tried_with_one() -> Result<()> {
    let settings = [("NATTER_PUSH_FAILURES", "3"), ("NATTER_PUSH_PAUSE_SECONDS", "1")];
    let (services, providers) = stage(&settings).await?;
    for provider in ALL {
        let target = services.register(provider)?;
        let desk = services.desk(provider);
        let before = desk.arrived();
        desk.always(Some(Step::status(500)));
        for _ in 0..3 {
            assert_eq!(providers.ready(provider), Ok(()));
            retry(&providers.send(&target, &notice()).await)?;
        }
        assert_eq!(desk.arrived(), before + 3);
        let wait = providers.ready(provider).expect_err("is left alone");
        ensure!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(providers.room(provider), 0);
        let outcome = providers.send(&target, &notice()).await;
        ensure!(matches!(outcome, Outcome::Retry { sent: false, .. }), "{outcome:?}");
        let told = retry(&outcome)?;
        ensure!(told.is_some_and(|told| told <= Duration::from_secs(1)), "{told:?}");
        assert_eq!(desk.arrived(), before + 3, "nothing was sent");
        // The others go on.
        for other in ALL.into_iter().filter(|other| *other > provider) {
            assert_eq!(providers.ready(other), Ok(()));
            accepted(&providers.send(&services.register(other)?, &notice()).await)?;
        }

        let ready = async || Ok(providers.ready(provider).is_ok().then_some(()));
        soon("a try", ready).await?;
        assert_eq!(providers.room(provider), 1);
        retry(&providers.send(&target, &notice()).await)?;
        let wait = providers.ready(provider).expect_err("is left alone for longer");
        ensure!(wait > Duration::from_secs(1), "{wait:?}");

        desk.always(None);
        soon("another try", ready).await?;
        accepted(&providers.send(&target, &notice()).await)?;
        assert_eq!(providers.ready(provider), Ok(()));
        accepted(&providers.send(&target, &notice()).await)?;
        assert_eq!(desk.violations(), Vec::<String>::new());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_push_service_that_is_dead_leaves_the_others_alone() -> Result<()> {
    let services = natter_e2e::PushServices::start().await?;
    let dead = services.web_push.another().await?;
    let mut env = services.env();
    env.retain(|(name, _)| *name != "NATTER_PUSH_HOSTS");
    env.push(("NATTER_PUSH_HOSTS", format!("{},{}", services.web_push.url(), dead.url())));
    env.push(("NATTER_PUSH_FAILURES", "2".to_owned()));
    env.push(("NATTER_PUSH_PAUSE_SECONDS", "3600".to_owned()));
    let providers = providers(&env)?;

    let (alive, target) = (services.subscribe()?, dead.subscribe()?);
    accepted(&providers.send(&alive, &notice()).await)?;
    dead.desk.always(Some(Step::status(503)));
    for _ in 0..5 {
        retry(&providers.send(&target, &notice()).await)?;
    }
    assert_eq!(dead.desk.arrived(), 2);
    assert_eq!(providers.ready(Provider::WebPush), Ok(()));
    accepted(&providers.send(&alive, &notice()).await)?;
    Ok(())
}
