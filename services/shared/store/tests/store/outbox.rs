//! Changes relayed to feeds, whatever dies on the way.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use natter_protocol::{
    feed::{Event, FeedKind, SystemKind},
    ids::{ChatId, UserId},
};
use natter_store::{OutboxBacklog, RelayError, Store};
use uuid::Uuid;

use crate::support::{Broker, person, relay, store};

/// What a change of membership leaves on the feeds: of the chat, the kinds; of each user, how
/// often added and removed, and from where.
fn told(broker: &Broker, user: UserId) -> (Vec<SystemKind>, Vec<u64>, Vec<u64>) {
    let (mut kinds, mut added, mut removed) = (vec![], vec![], vec![]);
    for (place, feed, entry) in broker.stored() {
        match entry.event {
            Event::System(event) => {
                assert_eq!(feed.kind, FeedKind::Chat);
                kinds.push(event.kind);
            }
            Event::ChatAdded(chat) if feed.id == user.0 => {
                assert!(chat.from_seq < place);
                assert!(chat.chat.me.is_some());
                added.push(chat.from_seq);
            }
            Event::ChatRemoved(chat) if feed.id == user.0 => removed.push(chat.until_seq),
            _ => {}
        }
    }
    (kinds, added, removed)
}

async fn group(store: &Store, people: usize) -> Result<(ChatId, Vec<UserId>)> {
    let mut users = Vec::new();
    for n in 0..people {
        users.push(person(store, &format!("P{n}")).await?);
    }
    let made = store.create_group(users[0], Some("T"), true, &users, 0);
    Ok((made.await?.chat, users))
}

async fn waiting(store: &Store, after: i64) -> Result<Vec<Uuid>> {
    let lanes = store.lanes_waiting(Duration::ZERO, after, 10).await?;
    Ok(lanes.into_iter().map(|waiting| waiting.lane).collect())
}

#[tokio::test]
async fn a_relay_that_fails_at_any_step_is_continued_where_it_stopped() -> Result<()> {
    let store = store().await?;
    // A new group of three: one entry for the chat and one for each of them.
    for fail_at in 0..4 {
        let (chat, users) = group(&store, 3).await?;
        let broker = Broker::default();
        broker.fail_at(fail_at);
        let failed = relay(&store, &broker, chat.0).await;
        assert!(matches!(failed, Err(RelayError::Publish(_))));
        assert_eq!(waiting(&store, 0).await?, [chat.0]);

        assert_eq!(relay(&store, &broker, chat.0).await?.items, 1);
        assert!(waiting(&store, 0).await?.is_empty());
        assert_eq!(broker.stored().len(), 4, "no entry is there twice");
        for user in users {
            assert_eq!(told(&broker, user), (vec![SystemKind::Created], vec![100], vec![]));
            assert_eq!(store.followed(user).await?.chats[0].from_seq, Some(100));
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_lane_is_relayed_in_the_order_of_its_changes() -> Result<()> {
    let store = store().await?;
    let (chat, _) = group(&store, 1).await?;
    let ben = person(&store, "Ben").await?;
    store.join(ben, chat).await?;
    store.leave(ben, chat).await?;
    store.join(ben, chat).await?;
    let broker = Broker::default();
    let relayed = relay(&store, &broker, chat.0).await?;
    assert_eq!((relayed.items, relayed.left), (4, false));
    let (kinds, added, removed) = told(&broker, ben);
    use SystemKind::{Created, Joined, Left};
    assert_eq!(kinds, [Created, Joined, Left, Joined]);
    // The places are those of the chat's entries, and the last one stands.
    let places: Vec<u64> = broker
        .stored()
        .iter()
        .filter(|(_, feed, _)| feed.kind == FeedKind::Chat)
        .map(|(place, ..)| *place)
        .collect();
    assert_eq!(added, [places[1], places[3]]);
    assert_eq!(removed, [places[2]]);
    let followed = store.followed(ben).await?;
    assert_eq!(followed.chats[0].from_seq, Some(places[3]));
    Ok(())
}

#[tokio::test]
async fn many_relays_of_one_lane_at_once_publish_each_change_once() -> Result<()> {
    let store = store().await?;
    let (chat, _) = group(&store, 2).await?;
    let mut people = Vec::new();
    for n in 0..12 {
        people.push(person(&store, &format!("J{n}")).await?);
    }
    let broker = Arc::new(Broker::default());
    let mut tasks = tokio::task::JoinSet::new();
    for user in people {
        let (store, broker) = (store.clone(), broker.clone());
        // As a gateway does it: commit, then relay; in tasks, so the relay must be `Send`.
        tasks.spawn(async move {
            store.join(user, chat).await?;
            let publish = |feed, id, entry| {
                let broker = broker.clone();
                async move {
                    tokio::task::yield_now().await;
                    broker.publish(feed, id, entry)
                }
            };
            store.relay(chat.0, publish).await?;
            anyhow::Ok(())
        });
    }
    while let Some(joined) = tasks.join_next().await {
        joined??;
    }
    // Whoever found the lane taken relied on the one who had it: nothing waits for the sweep.
    assert!(waiting(&store, 0).await?.is_empty());
    let versions: Vec<i64> = broker
        .stored()
        .into_iter()
        .filter_map(|(.., entry)| match entry.event {
            Event::System(event) => Some(event.version),
            _ => None,
        })
        .collect();
    assert_eq!(versions, (1..=13).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_new_name_is_told_on_the_users_feed() -> Result<()> {
    let store = store().await?;
    let (ana, issuer) = ("Ana", "https://id.example");
    let (user, _) = store.ensure_external(issuer, "s", "d", Some(ana), 0).await?;
    let (_, lane) = store.update_user(user, Some("Anna"), None, None).await?;
    let broker = Broker::default();
    relay(&store, &broker, lane.unwrap()).await?;
    let (_, feed, entry) = broker.stored().remove(0);
    assert_eq!(feed.user_id(), Some(user));
    let Event::ProfileChanged(changed) = entry.event else {
        panic!("{entry:?}");
    };
    assert_eq!(changed.name, "Anna");
    Ok(())
}

#[tokio::test]
async fn a_membership_counts_once_its_user_has_been_told_and_a_leaving_that_waits_is_named()
-> Result<()> {
    let store = store().await?;
    let (chat, _) = group(&store, 1).await?;
    let broker = Broker::default();
    relay(&store, &broker, chat.0).await?;
    let ben = person(&store, "Ben").await?;
    let seen = async || -> Result<(Vec<Option<u64>>, Vec<Uuid>)> {
        let followed = store.followed(ben).await?;
        Ok((followed.chats.iter().map(|chat| chat.from_seq).collect(), followed.leaving))
    };
    // The chat's entry gets out, the user's does not: the membership has its place, and Ben has
    // not been told.
    store.join(ben, chat).await?;
    broker.fail_at(1);
    assert!(relay(&store, &broker, chat.0).await.is_err());
    assert_eq!(seen().await?, (vec![None], vec![]));
    relay(&store, &broker, chat.0).await?;
    let (joined, leaving) = seen().await?;
    assert!(joined[0].is_some() && leaving.is_empty());
    // He leaves: also while only the chat's feed has been told.
    store.leave(ben, chat).await?;
    assert_eq!(seen().await?, (vec![], vec![chat.0]));
    broker.fail_at(1);
    assert!(relay(&store, &broker, chat.0).await.is_err());
    assert_eq!(seen().await?, (vec![], vec![chat.0]));
    // And is let in again meanwhile.
    store.join(ben, chat).await?;
    assert_eq!(seen().await?, (vec![None], vec![chat.0]));
    relay(&store, &broker, chat.0).await?;
    let (again, leaving) = seen().await?;
    assert!(again > joined && leaving.is_empty());
    store.leave(ben, chat).await?;
    relay(&store, &broker, chat.0).await?;
    assert_eq!(seen().await?, (vec![], vec![]));
    // A change that waits for somebody else is none of his.
    store.join(ben, chat).await?;
    relay(&store, &broker, chat.0).await?;
    let cleo = person(&store, "Cleo").await?;
    store.join(cleo, chat).await?;
    assert!(seen().await?.0[0].is_some());
    store.leave(cleo, chat).await?;
    assert!(seen().await?.1.is_empty());
    Ok(())
}

#[tokio::test]
async fn what_waits_is_counted_up_to_a_bound() -> Result<()> {
    let store = store().await?;
    assert_eq!(store.outbox_backlog(10).await?, OutboxBacklog::default());
    for _ in 0..3 {
        group(&store, 2).await?;
    }
    let waits = store.outbox_backlog(10).await?;
    assert_eq!(waits.changes, 3);
    assert_eq!(store.outbox_backlog(2).await?.changes, 2);
    assert!(store.outbox_backlog(10).await?.age > waits.age);
    Ok(())
}

#[tokio::test]
async fn a_restored_database_numbers_its_changes_again_and_each_gets_a_place_of_its_own()
-> Result<()> {
    let broker = Broker::default();
    let mut places = Vec::new();
    // Two databases of one beginning: the broker has heard of the first one's change when the
    // second one's comes, with the same number.
    for _ in 0..2 {
        let store = store().await?;
        let (chat, users) = group(&store, 1).await?;
        relay(&store, &broker, chat.0).await?;
        places.push(store.followed(users[0]).await?.chats[0].from_seq);
    }
    assert!(places[0] < places[1], "{places:?}");
    assert_eq!(broker.stored().len(), 4, "both chats' entries and both users'");
    Ok(())
}
