//! Batches, their fence, and who owns a shard.

use std::time::Duration;

use anyhow::Result;
use natter_protocol::{feed::Feed, ids::ChatId, limits};
use natter_store::{Page, Row, RowKind, StoreError};

use crate::support::{LEASE, OWNER, at, message, persist, person, store, system, void};

const NEWEST: Page = Page { before: None, after: None, limit: limits::PAGE };

#[tokio::test]
async fn a_batch_is_written_once() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let rows = [
        message(chat, ana, 1, "a", "one"),
        message(chat, ana, 2, "b", "two"),
        system(chat, ana, 3, "Ana joined"),
        Row { feed: Feed::user(0, ana), seq: 4, at: at(4), kind: RowKind::UserEvent },
    ];
    store.persist(0, OWNER, 0, 4, at(4), &rows).await?;
    assert_eq!(store.persisted_until(0).await?, (4, at(4)));
    assert_eq!(store.followed(ana).await?.user_last_seq, 4);
    let view = store.chat(ana, chat).await?.unwrap();
    assert_eq!(view.last_seq, 3);
    assert_eq!(view.last_message.unwrap().seq, 2);

    // The position has moved: the same batch is refused and nothing happens twice.
    let again = store.persist(0, OWNER, 0, 4, at(4), &rows).await;
    assert!(matches!(again, Err(StoreError::Fenced)));
    // Entries that were read again after the position are no trouble either.
    store.persist(0, OWNER, 4, 5, at(5), &rows).await?;
    assert_eq!(store.history(chat, NEWEST).await?.messages.len(), 3);

    // A quiet shard is written up to now.
    store.persist(0, OWNER, 5, 5, at(9), &[]).await?;
    assert_eq!(store.persisted_until(0).await?, (5, at(9)));
    store.persist(0, OWNER, 5, 5, at(8), &[]).await?;
    assert_eq!(store.persisted_until(0).await?, (5, at(9)));
    Ok(())
}

#[tokio::test]
async fn a_message_that_repeats_another_keeps_its_place_and_is_not_shown() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    persist(&store, &[message(chat, ana, 1, "a", "first")]).await?;
    let again = [
        message(chat, ana, 2, "a", "first, again"),
        message(chat, ana, 3, "b", "second"),
        message(chat, ana, 4, "b", "second, again"),
        message(chat, ana, 5, "c", "third"),
        message(chat, ana, 6, "a", "first, once more"),
    ];
    persist(&store, &again).await?;
    let slice = store.history(chat, NEWEST).await?;
    let shown: Vec<_> =
        slice.messages.iter().map(|m| (m.seq, m.prev_seq, m.content.as_str())).collect();
    assert_eq!(shown, [(1, 0, "first"), (3, 2, "second"), (5, 4, "third")]);
    assert_eq!(slice.to_seq, 6);
    let view = store.chat(ana, chat).await?.unwrap();
    assert_eq!((view.last_seq, view.last_message.unwrap().seq), (6, 5));
    Ok(())
}

#[tokio::test]
async fn a_row_that_cannot_be_written_is_told_apart_and_written_as_void() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let long = "x".repeat(64 * 1024);
    let poisons = [
        message(chat, ana, 2, "nul", "a\0b"),
        // Compresses well, so make it one that does not fit an index.
        message(chat, ana, 2, &incompressible(), "key too long"),
        system(chat, ana, 2, "a\0b"),
    ];
    for poison in poisons {
        let rows = [message(chat, ana, 1, "a", &long), poison];
        let error = store.persist(0, OWNER, 0, 2, at(2), &rows).await.unwrap_err();
        assert!(error.is_data_error(), "{error:?}");
        assert!(!format!("{error:?}").contains("xxxx"));
        assert_eq!(store.persisted_until(0).await?.0, 0);
    }
    let rows = [message(chat, ana, 1, "a", &long), void(chat, 2)];
    store.persist(0, OWNER, 0, 2, at(2), &rows).await?;
    let slice = store.history(chat, NEWEST).await?;
    assert_eq!((slice.messages.len(), slice.to_seq), (1, 2));

    // What names a chat or a user that is not here is written like anything else.
    let nowhere = ChatId::generate();
    persist(&store, &[message(nowhere, ana, 3, "a", "hello?")]).await?;
    Ok(())
}

fn incompressible() -> String {
    (0..400).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect()
}

#[tokio::test]
async fn a_shard_has_one_owner_and_passes_on() -> Result<()> {
    let store = store().await?;
    assert!(store.claim_shard(0, "other", LEASE).await?.is_none());
    assert!(store.claim_shard(0, OWNER, LEASE).await?.is_some());
    assert!(store.claim_shard(7, "other", LEASE).await?.is_none());
    let refused = store.persist(0, "other", 0, 1, at(1), &[]).await;
    assert!(matches!(refused, Err(StoreError::Fenced)));

    // A lease that has run out: the next claim gets it, and the one before is fenced at once,
    // though it may still think that it owns the shard.
    store.claim_shard(0, OWNER, Duration::ZERO).await?;
    let row = store.claim_shard(0, "other", LEASE).await?.unwrap();
    assert_eq!(row.owner.as_deref(), Some("other"));
    let late = store.persist(0, OWNER, 0, 1, at(1), &[]).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
    store.persist(0, "other", 0, 1, at(1), &[]).await?;

    assert!(store.claim_shard(0, OWNER, LEASE).await?.is_none());
    store.release_shard(0, "other").await?;
    let (one, two) =
        tokio::join!(store.claim_shard(0, "a", LEASE), store.claim_shard(0, "b", LEASE));
    assert!(one?.is_some() != two?.is_some());
    Ok(())
}

#[tokio::test]
async fn two_writers_at_one_position_write_once() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let one = [message(chat, ana, 1, "a", "one")];
    let (a, b) = tokio::join!(
        store.persist(0, OWNER, 0, 1, at(1), &one),
        store.persist(0, OWNER, 0, 1, at(1), &one)
    );
    assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    Ok(())
}

#[tokio::test]
async fn a_new_epoch_starts_above_all_that_is_written() -> Result<()> {
    let store = store().await?;
    store.persist(0, OWNER, 0, 10, at(10), &[]).await?;
    for (epoch, first) in [(2, 10), (3, 1_000), (1, 2)] {
        let refused = store.start_epoch(0, epoch, first, None).await;
        assert!(matches!(refused, Err(StoreError::Fenced)));
    }
    let lease = Duration::from_mins(1);
    assert!(store.claim_shard(0, OWNER, lease).await?.is_some());
    let stranger = store.start_epoch(0, 2, 1_000, Some("nobody")).await;
    assert!(matches!(stranger, Err(StoreError::Fenced)));
    // An owner whose lease has run out may be one of two.
    assert!(store.claim_shard(0, OWNER, Duration::ZERO).await?.is_some());
    let late = store.start_epoch(0, 2, 1_000, Some(OWNER)).await;
    assert!(matches!(late, Err(StoreError::Fenced)));
    assert!(store.claim_shard(0, OWNER, lease).await?.is_some());
    let row = store.start_epoch(0, 2, 1_000, Some(OWNER)).await?;
    store.release_shard(0, "another").await?;
    assert_eq!((row.epoch, row.persisted_seq), (2, 999));
    let again = store.start_epoch(0, 2, 1_000, Some(OWNER)).await;
    assert!(matches!(again, Err(StoreError::Fenced)));
    let old = store.persist(0, OWNER, 10, 11, at(11), &[]).await;
    assert!(matches!(old, Err(StoreError::Fenced)));
    store.persist(0, OWNER, 999, 1_000, at(11), &[]).await?;

    store.ensure_shards(3).await?;
    let shards = store.shards().await?;
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[0].persisted_seq, 1_000);
    assert_eq!((shards[2].epoch, shards[2].persisted_seq), (0, 0));
    Ok(())
}
