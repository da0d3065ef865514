//! Presence: who is there, told to those who share a chat with them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_e2e::{Person, Socket, soon};
use natter_protocol::{
    ids::UserId,
    server::{Presence, PresenceList},
};
use serde_json::json;
use time::OffsetDateTime;

use crate::stories::{APART, STAGE};

async fn subscribe(socket: &Socket, users: &[UserId]) -> Result<Vec<Presence>> {
    let answer = socket.request("presence_subscribe", json!({"userIds": users})).await?;
    let mut items = serde_json::from_value::<PresenceList>(answer)?.items;
    items.sort_by_key(|presence| presence.user_id);
    Ok(items)
}

async fn turns(socket: &Socket, user: UserId, online: bool) -> Result<Presence> {
    let is_it = |presence: &Presence| presence.user_id == user && presence.online == online;
    socket.expect_as("presence", is_it).await
}

fn recently(presence: &Presence) -> Result<()> {
    let at = presence.last_seen_at.context("last seen never")?;
    let ago = OffsetDateTime::now_utc() - at;
    ensure!((-1..60).contains(&ago.whole_seconds()), "last seen {ago} ago");
    Ok(())
}

#[tokio::test]
async fn it_is_told_across_gateways() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    ana.api(0).direct(&ben).await?;
    let watchers = [ana.connect(0).await?, ana.connect(1).await?];
    for watcher in &watchers {
        let now = subscribe(watcher, &[ben.id]).await?;
        assert_eq!(now.len(), 1);
        assert!(!now[0].online);
    }

    let phone = ben.connect(0).await?;
    for watcher in &watchers {
        turns(watcher, ben.id, true).await?;
    }
    // A second device makes him no more online, and its going no less.
    let tablet = ben.device("tablet").await?.connect(1).await?;
    phone.close().await?;
    let fresh = ana.device("tablet").await?.connect(1).await?;
    assert!(subscribe(&fresh, &[ben.id]).await?[0].online);
    tablet.close().await?;
    for watcher in watchers.iter().chain([&fresh]) {
        recently(&turns(watcher, ben.id, false).await?)?;
    }
    let turned = |socket: &Socket| socket.events("presence").len();
    assert_eq!(watchers.each_ref().map(turned), [2, 2], "one coming and one going");
    let now = subscribe(&fresh, &[ben.id]).await?;
    assert!(!now[0].online);
    recently(&now[0])
}

#[tokio::test]
async fn only_people_one_shares_a_chat_with() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let stranger = Person::register(&cluster, "Cleo").await?;
    ana.api(0).direct(&ben).await?;
    let anas = ana.connect(0).await?;
    let answer = subscribe(&anas, &[ben.id, stranger.id, UserId::generate()]).await?;
    assert_eq!(answer.iter().map(|presence| presence.user_id).collect::<Vec<_>>(), [ben.id]);

    let _strangers = stranger.connect(1).await?;
    let bens = ben.connect(1).await?;
    turns(&anas, ben.id, true).await?;
    assert!(anas.events("presence").iter().all(|data| data["userId"] == json!(ben.id)));

    // A later list takes the place of the earlier one.
    assert_eq!(subscribe(&anas, &[]).await?, []);
    drop(bens);
    let others = ana.device("tablet").await?.connect(0).await?;
    soon("Ben is away", async || {
        Ok((!subscribe(&others, &[ben.id]).await?[0].online).then_some(()))
    })
    .await?;
    assert_eq!(anas.events("presence").len(), 1);
    Ok(())
}

#[tokio::test]
async fn who_shares_no_chat_any_more_is_watched_no_more() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let group = ana.api(0).group("Three", &[&ben, &cleo]).await?.id;
    let anas = ana.connect(0).await?;
    assert_eq!(subscribe(&anas, &[ben.id, cleo.id]).await?.len(), 2);
    let told = |of: UserId| -> Vec<serde_json::Value> {
        anas.events("presence").into_iter().filter(|p| p["userId"] == json!(of)).collect()
    };
    // Told of both, she has heard all that there was of him before that of her.
    let come_and_go =
        async |person: &Person| -> Result<()> { person.connect(1).await?.close().await };
    come_and_go(&ben).await?;
    turns(&anas, ben.id, true).await?;
    ben.api(1).post(&format!("/chats/{group}/leave"), json!({})).await?.expect(200)?;
    soon("she hears no more of him", async || {
        let (his, hers) = (told(ben.id).len(), told(cleo.id).len());
        come_and_go(&ben).await?;
        come_and_go(&cleo).await?;
        soon("she has come and gone", async || Ok((told(cleo.id).len() >= hers + 2).then_some(())))
            .await?;
        Ok((told(ben.id).len() == his).then_some(()))
    })
    .await
}

#[tokio::test]
async fn devices_are_listed_as_they_are() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let tablet = ana.device("tablet").await?;
    let _connected = tablet.connect(1).await?;
    soon("the tablet is listed as online", async || {
        let list = ana.api(0).get("/devices").await?.expect(200)?;
        let items = list["items"].as_array().context("no items")?.clone();
        assert_eq!(items.len(), 2);
        let one = |id| items.iter().find(|item| item["id"] == json!(id)).context("not listed");
        let (first, second) = (one(ana.first.id)?, one(tablet.id)?);
        assert_eq!((&first["current"], &second["current"]), (&json!(true), &json!(false)));
        assert_eq!((&first["online"], &second["name"]), (&json!(false), &json!("tablet")));
        Ok((second["online"] == true).then_some(()))
    })
    .await
}

#[tokio::test]
async fn those_on_a_killed_gateway_go_offline() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    ana.api(0).direct(&ben).await?;
    let anas = ana.connect(1).await?;
    let _bens = ben.connect(0).await?;
    assert!(
        soon("Ben is there", async || {
            let now = subscribe(&anas, &[ben.id]).await?;
            Ok(now[0].online.then_some(true))
        })
        .await?
    );

    cluster.gateway(0).kill().await?;
    let gone = anas
        .expect_within(Duration::from_mins(1), "presence", |data| {
            data["userId"] == json!(ben.id) && data["online"] == false
        })
        .await?;
    recently(&serde_json::from_value(gone)?)
}
