//! Endpoints that fail, each in its own way, and are told everything all the same, in order.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use natter_e2e::{
    Person,
    push_services::{
        Step,
        endpoint::{Endpoint, Told},
    },
    soon,
    soon::within,
};

use super::{Hook, STAGE, pair, say};

/// The first time that each event comes, the next of these steps.
fn first_time(steps: Vec<Step>) -> impl Fn(&Told) -> Option<Step> + Send + Sync {
    let seen: Mutex<HashSet<String>> = Mutex::default();
    let next = AtomicUsize::new(0);
    move |told| {
        let mut seen = seen.lock().expect("nobody panics with it");
        if !seen.insert(told.id.clone()) {
            return None;
        }
        Some(steps[next.fetch_add(1, Ordering::Relaxed) % steps.len()].clone())
    }
}

#[tokio::test]
async fn through_failures_each_event_comes_in_the_order_of_its_chat() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let elsewhere = Endpoint::start().await?;
    let (ada, ben, chat) = pair(&cluster).await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let other = ben.api(0).direct(&cleo).await?.id;
    let of_chats = format!("--chats={chat},{other}");
    let hook = Hook::add(&cluster, "failing", &["--kinds=message", &of_chats]).await?;
    hook.endpoint.rule(first_time(vec![
        Step::status(500),
        Step::Hang,
        Step::HangUp(500),
        Step::with(307, "location", elsewhere.url()),
        Step::status(404),
        Step::with(429, "retry-after", "1"),
        Step::Huge(503),
    ]));
    let said = say(&ada, chat, "one", 8).await?;
    let more = say(&ben, other, "two", 4).await?;
    within(Duration::from_mins(3), "all of it", async || {
        let (one, two) = (hook.endpoint.said_in(chat), hook.endpoint.said_in(other));
        Ok((one.len() == said.len() && two.len() == more.len()).then_some(()))
    })
    .await?;
    hook.endpoint.hears(chat, &said).await?;
    hook.endpoint.hears(other, &more).await?;
    // Of each chat no event came before the one before was taken.
    ordered(&hook.endpoint.told(), &chat.to_string())?;
    ordered(&hook.endpoint.told(), &other.to_string())?;
    assert_eq!(hook.endpoint.most_at_once(), 1);
    assert_eq!(elsewhere.violations(), Vec::<String>::new(), "a redirect was followed");
    soon("nothing is left", async || {
        let lane = hook.lane().await?;
        Ok(lane.filter(|lane| lane.behind == 0 && lane.letters == 0).map(drop))
    })
    .await?;
    hook.remove().await
}

/// No later event of a chat was tried before an earlier one was taken.
pub(super) fn ordered(told: &[Told], chat: &str) -> Result<()> {
    let of_chat = || told.iter().filter(|told| told.body["data"]["chatId"] == chat);
    let seq = |told: &Told| told.body["data"]["seq"].as_u64();
    for (at, later) in of_chat().enumerate() {
        let earlier = of_chat().filter(|earlier| seq(earlier) < seq(later));
        for earlier in earlier {
            let taken = of_chat().take(at).any(|t| t.taken && t.id == earlier.id);
            ensure!(taken, "{later:?} before {earlier:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_asks_for_time_is_given_it() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let of_chat = format!("--chats={chat}");
    let hook = Hook::add(&cluster, "asks", &["--kinds=message", &of_chat]).await?;
    hook.endpoint.rule(first_time(vec![Step::with(429, "retry-after", "4")]));
    let sent = ada.api(0).say(chat, "hello").await?;
    hook.endpoint.hears(chat, &["hello".to_owned()]).await?;
    let told = hook.endpoint.told();
    let waited = told[1].at.duration_since(told[0].at);
    ensure!(told.len() == 2 && waited >= Duration::from_secs(4), "{waited:?}, {sent:?}");
    hook.remove().await
}

#[tokio::test]
async fn an_endpoint_that_is_away_for_a_while_catches_up() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let mut pairs = Vec::new();
    for _ in 0..3 {
        let (ada, _, chat) = pair(&cluster).await?;
        pairs.push((ada, chat));
    }
    let ids: Vec<String> = pairs.iter().map(|(_, chat)| chat.to_string()).collect();
    let of_chats = format!("--chats={}", ids.join(","));
    let hook = Hook::add(&cluster, "away", &["--kinds=message", &of_chats]).await?;
    hook.endpoint.rule(|_| Some(Step::status(503)));
    let mut chats = Vec::new();
    for (ada, chat) in pairs {
        let said = say(&ada, chat, "kept", 10).await?;
        chats.push((chat, said));
    }
    soon("it is left alone", async || {
        Ok(hook.lane().await?.filter(|lane| lane.resting && lane.oldest_at.is_some()).map(drop))
    })
    .await?;
    // Tried with one event now and then, and not with all.
    let tried = hook.endpoint.told().len();
    ensure!(tried < 25, "{tried} requests to an endpoint that is away");
    hook.endpoint.take_all();
    for (chat, said) in &chats {
        let chat = *chat;
        within(Duration::from_mins(1), "it catches up", async || {
            Ok((hook.endpoint.said_in(chat).len() == said.len()).then_some(()))
        })
        .await?;
        hook.endpoint.hears(chat, said).await?;
        ordered(&hook.endpoint.told(), &chat.to_string())?;
    }
    hook.remove().await
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_disabled() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (ada, _ben, chat) = pair(&cluster).await?;
    let of_chat = format!("--chats={chat}");
    let hook = Hook::add(&cluster, "gone", &["--kinds=message", &of_chat]).await?;
    hook.endpoint.rule(|_| Some(Step::status(410)));
    let said = say(&ada, chat, "to nobody", 2).await?;
    let known = soon("it is disabled", async || {
        let known = hook.known().await?;
        Ok((!known.enabled).then_some(known))
    });
    let reason = known.await?.disabled_reason.unwrap_or_default();
    ensure!(reason.contains("410"), "{reason}");
    let asked = hook.endpoint.told().len();
    hook.endpoint.take_all();
    hook.of_it("enable", &[]).await?;
    hook.endpoint.hears(chat, &said).await?;
    ensure!(asked == 1, "asked {asked} times, and in order");
    hook.remove().await
}
