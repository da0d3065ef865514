//! Events that are given up, and events told again.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{
    metrics::value,
    push_services::{Step, endpoint::Told},
    soon,
    soon::within,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Hook, STAGE, impatient, pair, say};
use crate::push::support::sociable;

fn is_poison(told: &Told) -> bool {
    told.body["data"]["content"] == "poison"
}

#[tokio::test]
async fn what_is_given_up_blocks_its_chat_no_longer_and_is_told_when_somebody_wants_it()
-> Result<()> {
    let builder = impatient(sociable(Cluster::builder()))
        .push_env("NATTER_WEBHOOK_ATTEMPTS", "3")
        .push_env("NATTER_WEBHOOK_FAILURES", "100");
    let cluster = builder.start().await?;
    // From before there is an endpoint: the log has it, and the stream does not.
    let (ada, _ben, chat) = pair(&cluster).await?;
    let early = ada.api(0).say(chat, "long ago").await?.seq;
    let passed = format!("SELECT 1 FROM webhook_fills WHERE shard = 0 AND log_seq >= {early}");
    soon("it is passed over, since nobody wants to be told", async || {
        Ok((!cluster.sql(&passed)?.trim().is_empty()).then_some(()))
    })
    .await?;
    let hook = Hook::add(&cluster, "letters", &["--kinds=message"]).await?;
    hook.endpoint.rule(|told| is_poison(told).then(|| Step::status(500)));
    let (cleo, _dan, other) = pair(&cluster).await?;
    let before = say(&ada, chat, "before", 2).await?;
    ada.api(0).say(chat, "poison").await?;
    let after = say(&ada, chat, "after", 2).await?;
    let elsewhere = say(&cleo, other, "elsewhere", 3).await?;
    // Other chats are not held up by it.
    hook.endpoint.hears(other, &elsewhere).await?;
    hook.endpoint.hears(chat, &[before, after].concat()).await?;
    let tries = hook.endpoint.told().iter().filter(|told| is_poison(told)).count();
    assert_eq!(tries, 3);
    let id = hook.known().await?.id;
    let letters = soon("a dead letter", async || {
        let letters = hook.store().webhook_letters(id, 0, 10).await?;
        Ok((!letters.is_empty()).then_some(letters))
    })
    .await?;
    let letter = letters.first().context("a letter")?;
    assert_eq!((letters.len(), letter.of.attempts, letter.of.r#type.as_str()), (1, 3, "message"));
    ensure!(letter.of.answer.contains("500"), "{letter:?}");
    hook.of_it("dead-letters", &[]).await?;

    // Its stream is put back from long ago and filled again, and has another event at its place.
    let bus = natter_bus::BusConfig::new(cluster.nats_url(), "story");
    let bus = natter_bus::Bus::connect(&bus).await?;
    bus.connected_within(Duration::from_secs(5)).await?;
    let end =
        hook.endpoint.told().iter().filter_map(|told| told.body["data"]["seq"].as_u64()).max();
    let end = end.context("it was told")?;
    cluster.pusher(0).terminate().await?;
    bus.forget_hooks(0).await?;
    bus.ensure_hooks(0, &natter_bus::HooksConfig::default(), 1).await?;
    cluster.pusher(0).start().await?;
    soon("the stream is filled again", async || {
        let state = bus.hooks_state(0).await?.context("a stream")?;
        let newest = bus.hooked(0, state.last.max(1)).await?;
        Ok(newest.filter(|newest| newest.log_seq >= end).map(drop))
    })
    .await?;
    let there = bus.hooked(0, letter.of.seq).await?;
    let same = there.is_some_and(|event| event.body.windows(6).any(|part| part == b"poison"));
    ensure!(!same, "the event is where it was");

    // In vain, and the letter stays with the new answer.
    hook.endpoint.rule(|told| is_poison(told).then(|| Step::status(502)));
    hook.of_it("replay-letters", &["--all"]).await?;
    soon("the new answer", async || {
        let letters = hook.store().webhook_letters(id, 0, 10).await?;
        Ok(letters.first().filter(|letter| letter.of.answer.contains("502")).map(drop))
    })
    .await?;
    hook.endpoint.take_all();
    hook.of_it("replay-letters", &[&letter.id.to_string()]).await?;
    let told = hook.endpoint.until("it is told", |told| {
        told.iter().find(|told| told.taken && is_poison(told)).cloned()
    });
    assert_eq!(told.await?.id, letter.of.event_id);
    soon("the letter is gone", async || {
        Ok(hook.store().webhook_letters(id, 0, 10).await?.is_empty().then_some(()))
    })
    .await?;
    cluster.stop().await
}

#[tokio::test]
async fn events_are_told_again_from_a_cursor_and_from_a_time() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let of_chat = format!("--chats={chat}");
    let hook = Hook::add(&cluster, "again", &["--kinds=message", &of_chat]).await?;
    let said = say(&ada, chat, "word", 5).await?;
    hook.endpoint.hears(chat, &said).await?;
    let told = hook.endpoint.told();
    let cursor = told[2].body["cursor"].as_str().context("a cursor")?.to_owned();
    let saved = |least: u64| {
        let hook = &hook;
        soon("it is written how far it is", async move || {
            Ok(hook.lane().await?.filter(|lane| lane.seq >= Some(least)).map(drop))
        })
    };
    let last = told[4].body["cursor"].as_str().context("a cursor")?;
    let last: u64 = last.trim_start_matches("0-").parse()?;
    saved(last).await?;
    hook.of_it("replay", &["--cursor", &cursor]).await?;
    let again = async |count: usize| {
        within(Duration::from_secs(30), "it comes again", async || {
            let told = hook.endpoint.told();
            Ok((told.len() >= count).then_some(told))
        })
        .await
    };
    let all = again(7).await?;
    let named = |told: &[Told]| -> Vec<_> {
        told.iter().map(|told| (told.id.clone(), told.body.clone())).collect()
    };
    assert_eq!(named(&all[5..]), named(&told[3..]), "behind the cursor, under the same names");

    saved(last).await?;
    let start =
        OffsetDateTime::parse(told[0].body["timestamp"].as_str().context("a time")?, &Rfc3339)?;
    let since = start.format(&Rfc3339)?;
    hook.of_it("replay", &["--since", &since]).await?;
    let all = again(12).await?;
    let of_chat: Vec<_> =
        all[7..].iter().map(|told| told.body["data"]["content"].clone()).collect();
    assert_eq!(of_chat, said);
    hook.remove().await
}

#[tokio::test]
async fn what_is_dropped_before_it_was_told_is_counted_and_the_rest_comes_in_order() -> Result<()> {
    let builder = impatient(sociable(Cluster::builder()))
        .push_env("NATTER_WEBHOOK_MAX_BYTES", "1000000")
        .push_env("NATTER_WEBHOOK_FAILURES", "1");
    let cluster = builder.start().await?;
    let hook = Hook::add(&cluster, "dropped", &["--kinds=message"]).await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let first = say(&ada, chat, "told", 1).await?;
    hook.endpoint.hears(chat, &first).await?;
    hook.of_it("disable", &[]).await?;
    soon("the worker knows that it is disabled", async || {
        let lanes = value(cluster.pusher(0), "natter_webhook_lanes").await?;
        Ok(lanes.filter(|lanes| *lanes == 0.0).map(drop))
    })
    .await?;
    // About a half more than is kept.
    let long = "x".repeat(4_000);
    let (mut said, mut end) = (Vec::new(), 0);
    for n in 0..350 {
        let text = format!("{n} {long}");
        end = ada.api(0).say(chat, &text).await?.seq;
        said.push(text);
    }
    // All that is dropped is dropped before the first is told again.
    soon("the stream is filled to the last", async || {
        let fill = hook.store().fill(0).await?;
        Ok(fill.filter(|fill| fill.log_seq >= end).map(drop))
    })
    .await?;
    hook.of_it("enable", &[]).await?;
    let last = said.last().context("the last")?;
    within(Duration::from_mins(1), "it comes to the last", async || {
        Ok(hook.endpoint.said_in(chat).last().filter(|text| *text == last).map(drop))
    })
    .await?;
    // The first of them are lost, and the rest comes in order.
    let told = hook.endpoint.said_in(chat);
    let places: Vec<_> = told[1..].iter().map(|text| said.iter().position(|s| s == text)).collect();
    ensure!(places.is_sorted() && places.iter().all(Option::is_some), "{places:?}");
    let whole = places.windows(2).all(|two| two[0].map(|at| at + 1) == two[1]);
    ensure!(whole && !places.is_empty() && places.len() < said.len(), "{places:?}");
    let dropped = (said.len() - places.len()) as u64;
    let lane = soon("it is counted", async || Ok(hook.lane().await?.filter(|lane| lane.lost > 0)));
    assert_eq!(lane.await?.lost, dropped);
    let lost = value(cluster.pusher(0), "natter_webhook_lost_total{where=\"stream\"}").await?;
    assert_eq!(lost, Some(dropped as f64));

    // One that is left alone and then removed is none of those that are left alone.
    hook.endpoint.rule(|_| Some(Step::status(500)));
    ada.api(0).say(chat, "refused").await?;
    let left_alone = async |count: f64| {
        soon("endpoints that are left alone", async || {
            let open = value(cluster.pusher(0), "natter_webhook_circuits_open").await?;
            Ok((open == Some(count)).then_some(()))
        })
        .await
    };
    left_alone(1.0).await?;
    hook.remove().await?;
    left_alone(0.0).await?;
    cluster.stop().await
}
