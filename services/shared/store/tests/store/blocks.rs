//! Who wants nothing from whom.

use anyhow::{Context, Result};
use natter_protocol::{
    feed::{Blocking, Event},
    ids::{ChatId, UserId},
};
use natter_store::{Store, StoreError};

use crate::support::{Broker, person, relay, store};

async fn shut(store: &Store, user: UserId, chat: ChatId) -> Result<bool> {
    let member = store.membership(user, chat).await?.context("takes part")?;
    let followed = store.followed(user).await?;
    assert_eq!(followed.shut.contains(&chat), member.shut);
    Ok(member.shut)
}

#[tokio::test]
async fn a_one_to_one_is_shut_while_either_blocks_the_other() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.open_direct(ana, ben, 0).await?.chat;
    let group = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
    assert!(!shut(&store, ana, chat).await?);
    let lane = store.block(ana, ben).await?.context("news")?;
    assert_eq!(store.block(ana, ben).await?, None);
    for user in [ana, ben] {
        assert!(shut(&store, user, chat).await?);
        assert!(!shut(&store, user, group).await?);
    }
    assert_eq!(store.block(ben, ana).await?, Some(lane), "the pair's own");
    store.unblock(ana, ben).await?;
    assert_eq!(store.unblock(ana, ben).await?, None);
    assert!(shut(&store, ana, chat).await?, "he blocks her still");
    // It is there still, for both.
    assert!(store.open_direct(ana, ben, 0).await?.existed);
    store.unblock(ben, ana).await?;
    assert!(!shut(&store, ben, chat).await?);

    let broker = Broker::default();
    relay(&store, &broker, lane).await?;
    let told = |user: UserId| -> Vec<Blocking> {
        let of_user =
            broker.stored().into_iter().filter(|(_, feed, _)| feed.user_id() == Some(user));
        of_user
            .filter_map(|(.., entry)| match entry.event {
                Event::Blocking(blocking) => Some(blocking),
                _ => None,
            })
            .collect()
    };
    let said = |by: UserId, user_id: UserId, blocked: bool, shut: bool| Blocking {
        by,
        user_id,
        blocked,
        chat_id: Some(chat),
        shut,
    };
    let all = [
        said(ana, ben, true, true),
        said(ben, ana, true, true),
        said(ana, ben, false, true),
        said(ben, ana, false, false),
    ];
    assert_eq!((told(ana).as_slice(), told(ben).as_slice()), (&all[..], &all[..]));
    Ok(())
}

#[tokio::test]
async fn who_is_blocked_opens_nothing_and_does_not_see_who_is_there() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    store.create_group(ana, Some("T"), false, &[ben], 0).await?;
    store.block(ana, ben).await?;
    for (a, b) in [(ana, ben), (ben, ana)] {
        assert!(matches!(store.open_direct(a, b, 0).await, Err(StoreError::Forbidden)));
    }
    assert_eq!(store.shares_chat(ben, &[ana]).await?, []);
    assert_eq!(store.shares_chat(ana, &[ben]).await?, [(ben, 0)]);
    assert_eq!(store.shares_chat(ben, &[ben]).await?, [(ben, 0)]);
    store.unblock(ana, ben).await?;
    assert_eq!(store.shares_chat(ben, &[ana]).await?, [(ana, 0)]);
    assert!(!store.open_direct(ben, ana, 0).await?.existed);

    assert!(matches!(store.block(ana, ana).await, Err(StoreError::Forbidden)));
    assert!(matches!(store.block(ana, UserId::generate()).await, Err(StoreError::NotFound)));
    Ok(())
}

#[tokio::test]
async fn those_who_are_blocked_come_in_pages() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let mut blocked = Vec::new();
    for n in 0..5 {
        let user = person(&store, &format!("P{n}")).await?;
        store.block(ana, user).await?;
        blocked.push(user);
    }
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let (page, next) = store.blocks(ana, cursor, 2).await?;
        seen.extend(page.into_iter().map(|block| block.user.id));
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    seen.sort_unstable();
    blocked.sort_unstable();
    assert_eq!(seen, blocked);
    assert_eq!(store.blocks(blocked[0], None, 10).await?.0, []);
    Ok(())
}

#[tokio::test]
async fn blocking_and_opening_at_once_leave_no_chat_that_can_be_written_to() -> Result<()> {
    let store = store().await?;
    for _ in 0..20 {
        let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
        let (blocked, opened) = tokio::join!(store.block(ana, ben), store.open_direct(ben, ana, 0));
        blocked?;
        match opened {
            Ok(opened) => assert!(shut(&store, ben, opened.chat).await?),
            Err(error) => assert!(matches!(error, StoreError::Forbidden), "{error:?}"),
        }
    }
    Ok(())
}
