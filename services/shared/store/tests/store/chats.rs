//! Chats made, joined, left and listed.

use anyhow::Result;
use natter_protocol::{
    ids::{ChatId, UserId},
    server::Role,
};
use natter_store::{ChatCursor, Store, StoreError};

use crate::support::{Broker, message, persist, person, relay, store};

#[tokio::test]
async fn a_pair_that_opens_its_chat_at_once_gets_one() -> Result<()> {
    let store = store().await?;
    for _ in 0..10 {
        let (a, b) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
        let (one, two) = tokio::join!(store.open_direct(a, b, 0), store.open_direct(b, a, 0));
        let (one, two) = (one?, two?);
        assert_eq!(one.chat, two.chat);
        // One made it and tells of it.
        assert!(one.existed != two.existed);
        assert!(one.lane.is_some() != two.lane.is_some());
        let view = store.chat(a, one.chat).await?.unwrap();
        assert_eq!(view.me.unwrap().name, "Ben");
        assert_eq!(view.participant_count, 2);
        assert!(!view.is_group);
    }
    Ok(())
}

#[tokio::test]
async fn who_can_be_in_a_chat() -> Result<()> {
    let store = store().await?;
    let (a, b) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let nobody = UserId::generate();
    assert!(matches!(store.open_direct(a, a, 0).await, Err(StoreError::Forbidden)));
    assert!(matches!(store.open_direct(a, nobody, 0).await, Err(StoreError::NotFound)));
    assert!(matches!(
        store.create_group(a, None, false, &[b, nobody], 0).await,
        Err(StoreError::NotFound)
    ));
    // Nothing of the attempts is left.
    assert_eq!(store.chats(a, None, 10, None).await?.0.len(), 0);

    let closed = store.create_group(a, Some("T"), false, &[], 0).await?.chat;
    assert!(matches!(store.join(b, closed).await, Err(StoreError::Forbidden)));
    assert!(matches!(store.join(b, ChatId::generate()).await, Err(StoreError::NotFound)));
    assert_eq!(store.chat(b, closed).await?, None);
    assert_eq!(store.membership(b, closed).await?, None);
    let direct = store.open_direct(a, b, 0).await?.chat;
    assert!(matches!(store.leave(a, direct).await, Err(StoreError::Forbidden)));
    assert!(matches!(store.leave(b, closed).await, Err(StoreError::NotFound)));
    Ok(())
}

#[tokio::test]
async fn joining_twice_at_once_changes_one_thing() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let group = store.create_group(ana, Some("Open"), true, &[ana, ana], 0).await?;
    let chat = group.chat;
    for joined in 1..=10 {
        let ben = person(&store, "Ben").await?;
        let (one, two) = tokio::join!(store.join(ben, chat), store.join(ben, chat));
        let (one, two) = (one?, two?);
        assert!(one.changed != two.changed, "{one:?} {two:?}");
        let view = store.chat(ben, chat).await?.unwrap();
        assert_eq!(view.participant_count, 1 + joined);
        assert_eq!(view.participants.len() as i64, 1 + joined);
        assert_eq!(view.me.unwrap().role, Role::Member);
    }
    let owner = store.membership(ana, chat).await?.unwrap();
    assert_eq!(owner.role, Role::Owner);
    Ok(())
}

#[tokio::test]
async fn leaving_twice_at_once_is_leaving_once() -> Result<()> {
    let store = store().await?;
    let (a, b) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(a, None, true, &[b], 0).await?.chat;
    let (one, two) = tokio::join!(store.leave(b, chat), store.leave(b, chat));
    assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    assert_eq!(store.chat(a, chat).await?.unwrap().participant_count, 1);
    assert!(store.shares_chat(a, &[b]).await?.is_empty());
    assert!(store.join(b, chat).await?.changed);
    assert_eq!(store.shares_chat(a, &[a, b]).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn participants_come_in_pages() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let mut others = Vec::new();
    for n in 0..60 {
        others.push(person(&store, &format!("P{n}")).await?);
    }
    let chat = store.create_group(ana, None, false, &others, 0).await?.chat;
    let view = store.chat(ana, chat).await?.unwrap();
    assert_eq!((view.participant_count, view.participants.len()), (61, 50));

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.participants(chat, cursor, 7).await?;
        seen.extend(page.into_iter().map(|participant| participant.id));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 61);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 61);
    Ok(())
}

/// All of a user's chats, by pages of two.
async fn listed(store: &Store, user: UserId, search: Option<&str>) -> Result<Vec<ChatId>> {
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.chats(user, cursor, 2, search).await?;
        assert!(page.len() <= 2);
        seen.extend(page.into_iter().map(|chat| chat.id));
        cursor = next;
        if cursor.is_none() {
            return Ok(seen);
        }
    }
}

#[tokio::test]
async fn the_list_is_in_order_of_activity_over_all_its_pages() -> Result<()> {
    let store = store().await?;
    let (a, b) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let mut chats = Vec::new();
    for n in 0..5 {
        let title = format!("Chat {n}");
        let made = store.create_group(a, Some(&title), false, &[b], 0).await?;
        chats.push(made.chat);
    }
    persist(
        &store,
        &[
            message(chats[2], b, 1, "1", "two"),
            message(chats[0], a, 2, "1", "zero"),
            message(chats[2], b, 3, "2", "two again"),
        ],
    )
    .await?;
    let order = listed(&store, a, None).await?;
    assert_eq!(order[..2], [chats[2], chats[0]]);
    assert_eq!(order.len(), 5);

    let (page, cursor) = store.chats(a, None, 2, None).await?;
    let last = page[0].last_message.as_ref().unwrap();
    assert_eq!((last.content.as_str(), last.prev_seq), ("two again", 1));
    assert_eq!(last.sender.name, "Ben");
    assert_eq!(page[0].participants.len(), 2);
    assert_eq!(page[0].last_seq, 3);

    // A chat that gets a message between two pages moves before the cursor: the second page
    // neither repeats what the first had nor passes over what has not moved.
    let moved = order[4];
    persist(&store, &[message(moved, a, 4, "1", "up")]).await?;
    let cursor = cursor.unwrap();
    let (rest, _) = store.chats(a, Some(cursor), 10, None).await?;
    let rest: Vec<ChatId> = rest.into_iter().map(|chat| chat.id).collect();
    assert_eq!(rest, order[2..4]);
    assert_eq!(listed(&store, a, None).await?[0], moved);

    // A cursor that was written with milliseconds is the same.
    let at = natter_protocol::timestamp::truncate(cursor.at);
    assert_eq!(ChatCursor { at, ..cursor }, cursor);
    Ok(())
}

#[tokio::test]
async fn the_search_finds_titles_and_the_others_names() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana Ölund").await?;
    let ben = person(&store, "Ben").await?;
    let cid = person(&store, "Cid_100%").await?;
    let with_ben = store.open_direct(ana, ben, 0).await?.chat;
    let with_cid = store.open_direct(ana, cid, 0).await?.chat;
    let club = store.create_group(ana, Some("Ölclub"), false, &[ben], 0).await?;
    let club = club.chat;

    assert_eq!(listed(&store, ana, Some("öLC")).await?, [club]);
    assert_eq!(listed(&store, ana, Some("EN")).await?, [club, with_ben]);
    assert_eq!(listed(&store, ana, Some("_1")).await?, [with_cid]);
    assert_eq!(listed(&store, ana, Some("0%")).await?, [with_cid]);
    // Her own name is not what she looks for; Ben finds her by it.
    assert_eq!(listed(&store, ana, Some("ölund")).await?, []);
    assert_eq!(listed(&store, ben, Some("ölund")).await?.len(), 2);
    assert_eq!(listed(&store, ben, Some("cid")).await?, []);
    assert_eq!(listed(&store, ana, Some(r"\")).await?, []);
    Ok(())
}

#[tokio::test]
async fn what_a_connection_follows() -> Result<()> {
    let store = store().await?;
    let (a, b) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let made = store.create_group(a, None, true, &[b], 0).await?;
    let before = store.followed(b).await?;
    assert_eq!(before.chats[0].from_seq, None);
    assert_eq!(before.persisted, [(0, 0)]);

    let broker = Broker::default();
    relay(&store, &broker, made.chat.0).await?;
    persist(&store, &[message(made.chat, a, 200, "1", "hello")]).await?;
    let after = store.followed(b).await?;
    assert_eq!((after.name.as_str(), after.user_shard), ("Ben", 0));
    assert_eq!(after.chats.len(), 1);
    assert_eq!(after.chats[0].id, made.chat);
    assert_eq!(after.chats[0].from_seq, Some(100));
    assert_eq!(after.chats[0].last_seq, 200);
    assert_eq!(after.persisted, [(0, 200)]);

    store.leave(b, made.chat).await?;
    assert_eq!(store.followed(b).await?.leaving, [made.chat.0], "his feed has not told him");
    relay(&store, &broker, made.chat.0).await?;
    let left = store.followed(b).await?;
    assert!(left.chats.is_empty() && left.leaving.is_empty());
    assert!(matches!(store.followed(UserId::generate()).await, Err(StoreError::NotFound)));
    Ok(())
}
