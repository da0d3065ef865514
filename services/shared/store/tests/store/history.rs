//! Pages of history, in both directions.

use anyhow::Result;
use natter_protocol::{
    ids::{ChatId, MessageId, Seq, UserId},
    server::{ContentType, system_entry_id},
};
use natter_store::{HistorySlice, Page, Store, StoreError};

use crate::support::{at, message, persist, person, store, system, void};

/// A chat with the entries 10, 20 (void), 30 (system), 40, 50; another chat has 45.
async fn written() -> Result<(Store, ChatId, UserId)> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let other = store.create_group(ana, None, false, &[], 0).await?.chat;
    persist(
        &store,
        &[
            message(chat, ana, 10, "a", "ten"),
            void(chat, 20),
            system(chat, ana, 30, "Ana joined"),
            message(chat, ana, 40, "b", "forty"),
            message(other, ana, 45, "b", "elsewhere"),
            message(chat, ana, 50, "c", "fifty"),
        ],
    )
    .await?;
    Ok((store, chat, ana))
}

fn page(before: impl Into<Option<Seq>>, after: impl Into<Option<Seq>>, limit: u32) -> Page {
    Page { before: before.into(), after: after.into(), limit }
}

/// (seq, prev_seq) of the messages, whether there are more, and the range.
fn shape(slice: &HistorySlice) -> (Vec<(Seq, Seq)>, bool, (Seq, Seq)) {
    let places = slice.messages.iter().map(|m| (m.seq, m.prev_seq)).collect();
    (places, slice.has_more, (slice.from_seq, slice.to_seq))
}

#[tokio::test]
async fn pages_backwards() -> Result<()> {
    let (store, chat, _) = written().await?;
    let newest = store.history(chat, page(None, None, 2)).await?;
    assert_eq!(shape(&newest), (vec![(40, 30), (50, 40)], true, (30, 50)));
    assert_eq!((newest.shard, newest.persisted_seq), (0, 50));
    let older = store.history(chat, page(40, None, 2)).await?;
    // The void entry before 30 counts on the feed and is not shown.
    assert_eq!(shape(&older), (vec![(10, 0), (30, 20)], false, (0, 30)));
    let all = store.history(chat, page(u64::MAX, None, 1000)).await?;
    assert_eq!(all.messages.len(), 4);
    assert_eq!((all.from_seq, all.to_seq), (0, 50));
    for before in [0, 1, 10] {
        let none = store.history(chat, page(before, None, 5)).await?;
        assert_eq!(shape(&none), (vec![], false, (0, 0)));
    }
    let void_only = store.history(chat, page(30, None, 1)).await?;
    assert_eq!(shape(&void_only), (vec![(10, 0)], false, (0, 20)));
    Ok(())
}

#[tokio::test]
async fn pages_forwards() -> Result<()> {
    let (store, chat, _) = written().await?;
    let first = store.history(chat, page(None, 0, 2)).await?;
    assert_eq!(shape(&first), (vec![(10, 0), (30, 20)], true, (0, 30)));
    let next = store.history(chat, page(None, 30, 2)).await?;
    assert_eq!(shape(&next), (vec![(40, 30), (50, 40)], false, (30, 50)));
    for after in [50, 1_000] {
        let none = store.history(chat, page(None, after, 2)).await?;
        assert_eq!(shape(&none), (vec![], false, (after, after)));
    }
    let beyond = store.history(chat, page(None, u64::MAX, 2)).await?;
    let end = i64::MAX as u64;
    assert_eq!(shape(&beyond), (vec![], false, (end, end)));
    let between = store.history(chat, page(50, 10, 9)).await?;
    assert_eq!(shape(&between), (vec![(30, 20), (40, 30)], false, (10, 40)));
    Ok(())
}

#[tokio::test]
async fn what_an_entry_shows() -> Result<()> {
    let (store, chat, ana) = written().await?;
    store.update_user(ana, Some("Anna"), None, None).await.ok();
    let slice = store.history(chat, page(None, None, 0)).await?;
    assert_eq!(slice.messages.len(), 1);
    let slice = store.history(chat, page(None, None, 50)).await?;
    let (ten, joined) = (&slice.messages[0], &slice.messages[1]);
    assert_eq!(ten.id, MessageId::derive(chat, ana, "a"));
    assert_eq!((ten.content.as_str(), ten.created_at), ("ten", at(10)));
    assert_eq!(ten.content_type, ContentType::Text);
    assert_eq!(joined.content_type, ContentType::System);
    assert_eq!(joined.content, "Ana joined");
    assert_eq!(joined.id, system_entry_id(chat, 30));
    assert_eq!(joined.system.as_ref().unwrap().actor_id, ana);
    assert_eq!((joined.client_msg_id.as_str(), joined.sender_id), ("", ana));

    let empty = store.create_group(ana, None, false, &[], 0).await?.chat;
    let slice = store.history(empty, page(None, None, 5)).await?;
    assert_eq!(shape(&slice), (vec![], false, (0, 0)));
    assert_eq!(slice.persisted_seq, 50);
    assert!(matches!(
        store.history(ChatId::generate(), page(None, None, 5)).await,
        Err(StoreError::NotFound)
    ));
    Ok(())
}

#[tokio::test]
async fn a_sender_who_is_unknown_has_no_name() -> Result<()> {
    let (store, chat, _) = written().await?;
    let stranger = UserId::generate();
    persist(&store, &[message(chat, stranger, 60, "x", "who?")]).await?;
    let slice = store.history(chat, page(None, None, 1)).await?;
    assert_eq!(slice.messages[0].sender_id, stranger);
    assert_eq!(slice.messages[0].sender.name, "");
    Ok(())
}

#[tokio::test]
async fn the_triple_is_found() -> Result<()> {
    let (store, chat, ana) = written().await?;
    let sent = store.sent_before(chat, ana, "b").await?.unwrap();
    assert_eq!((sent.seq, sent.prev_seq), (40, 30));
    assert_eq!(sent.id, MessageId::derive(chat, ana, "b"));
    assert_eq!(sent.created_at, at(40));
    assert_eq!(store.sent_before(chat, ana, "B").await?, None);
    let error = store.sent_before(chat, ana, "\0").await.unwrap_err();
    assert!(error.is_data_error());
    Ok(())
}
