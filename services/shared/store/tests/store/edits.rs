//! What becomes of messages: edits, deletions and reactions, however they are batched.

use anyhow::{Context, Result};
use natter_protocol::{
    feed::{Deleted, Edited, Feed, MessageSent, Reacted, Target},
    ids::{ChatId, MediaId, MessageId, Seq, UserId},
    media::{Media, MediaKind},
    server::{Message, ReactionCount},
};
use natter_store::{FeedEntry, Page, PlaceKind, Replayed, Row, RowKind, Store};
use sqlx::{Connection, PgConnection};

use crate::support::{at, message, persist, person, store, store_at, system, void};

const NEWEST: Page = Page { before: None, after: None, limit: 200 };

fn row(chat: ChatId, seq: Seq, kind: RowKind) -> Row {
    Row { feed: Feed::chat(0, chat), seq, at: at(seq), kind }
}

/// The message that `sender` has sent as `client` at `seq`.
fn target(chat: ChatId, sender: UserId, client: &str, seq: Seq) -> Target {
    Target { message_id: MessageId::derive(chat, sender, client), message_seq: seq }
}

fn edit(target: Target, actor: UserId, content: &str, mentions: &[UserId]) -> RowKind {
    let (content, mentions) = (content.to_owned(), mentions.to_vec());
    RowKind::Edit(Edited { target, actor_id: actor, content, mentions })
}

fn delete(target: Target, actor: UserId) -> RowKind {
    RowKind::Delete(Deleted { target, actor_id: actor })
}

fn react(target: Target, user: UserId, emoji: &str, on: bool) -> RowKind {
    RowKind::Reaction(Reacted { target, user_id: user, emoji: emoji.to_owned(), on })
}

async fn shown(store: &Store, chat: ChatId) -> Result<Vec<Message>> {
    Ok(store.history(chat, NEWEST).await?.messages)
}

async fn counts(
    store: &Store,
    chat: ChatId,
    viewer: UserId,
    seq: Seq,
) -> Result<Vec<ReactionCount>> {
    let around = store.around(chat, viewer, &[seq], &[], &[], 0).await?;
    let mut counts = around.reactions.get(&seq).cloned().unwrap_or_default();
    ReactionCount::sort(&mut counts);
    Ok(counts)
}

fn count(emoji: &str, count: u64, mine: bool) -> ReactionCount {
    ReactionCount { emoji: emoji.to_owned(), count, mine }
}

#[tokio::test]
async fn only_the_senders_last_edit_counts() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let first = target(chat, ana, "a", 1);
    persist(
        &store,
        &[
            message(chat, ana, 1, "a", "one"),
            message(chat, ana, 2, "b", "two"),
            row(chat, 3, edit(first, ana, "earlier", &[])),
            row(chat, 4, edit(first, ana, "later", &[ben])),
            row(chat, 5, edit(first, ben, "not his", &[])),
            // A message that is not there, wherever it is said to be; and the place does not matter.
            row(chat, 6, edit(target(chat, ana, "x", 2), ana, "nowhere", &[])),
            row(chat, 7, edit(Target { message_seq: 99, ..first }, ana, "last", &[ben])),
        ],
    )
    .await?;
    let page = store.history(chat, NEWEST).await?;
    let [one, two] = page.messages.as_slice() else { panic!("{page:?}") };
    assert_eq!((one.content.as_str(), one.edited_at), ("last", Some(at(7))));
    assert_eq!(one.mentions, [ben]);
    assert_eq!((two.content.as_str(), two.edited_at, two.prev_seq), ("two", None, 1));
    assert_eq!(page.to_seq, 7, "what is not shown counts");
    let listed = store.chat(ana, chat).await?.context("no chat")?;
    assert_eq!((listed.last_seq, listed.last_message.map(|m| m.seq)), (7, Some(2)));

    // One that comes late changes nothing.
    let late = row(chat, 3, edit(first, ana, "earlier, again", &[]));
    assert_eq!(store.replay(0, &late).await?, Replayed::AlreadyThere);
    assert_eq!(shown(&store, chat).await?[0].content, "last");
    let (up_to, found) = store.message(chat, first.message_id).await?;
    assert_eq!((up_to, found.map(|found| found.content)), (7, Some("last".to_owned())));
    Ok(())
}

#[tokio::test]
async fn nothing_of_a_deleted_message_is_left() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let media = Media {
        id: MediaId::generate(),
        name: "secret.png".to_owned(),
        media_type: "image/png".to_owned(),
        kind: MediaKind::Image,
        size: 7,
        sha256: None,
        width: None,
        height: None,
        thumbnail: false,
    };
    let mut with_media = message(chat, ana, 1, "a", "a secret");
    if let RowKind::Message(sent) = &mut with_media.kind {
        *sent = MessageSent { media: Some(Box::new(media)), ..sent.clone() };
    }
    let first = target(chat, ana, "a", 1);
    persist(&store, &[with_media, row(chat, 2, edit(first, ana, "another secret", &[ben]))])
        .await?;
    persist(&store, &[row(chat, 3, react(first, ben, "👍", true))]).await?;
    persist(
        &store,
        &[
            row(chat, 4, delete(first, ben)),
            row(chat, 5, delete(first, ana)),
            row(chat, 6, edit(first, ana, "a last secret", &[])),
            row(chat, 7, react(first, ana, "🎉", true)),
        ],
    )
    .await?;
    let tombstone = shown(&store, chat).await?.remove(0);
    assert!(tombstone.deleted && tombstone.content.is_empty() && tombstone.media.is_none());
    assert!(tombstone.mentions.is_empty() && tombstone.edited_at.is_none());
    assert_eq!(counts(&store, chat, ana, 1).await?, []);
    let mut admin = PgConnection::connect(&database).await?;
    let (left, by): (bool, uuid::Uuid) = sqlx::query_as(
        "SELECT bool_or(m::text LIKE '%secret%'), (SELECT deleted_by FROM messages WHERE seq = 1)
         FROM messages m",
    )
    .fetch_one(&mut admin)
    .await?;
    assert_eq!((left, UserId(by)), (false, ben), "the first to delete it did");
    let reactions: i64 =
        sqlx::query_scalar("SELECT count(*) FROM reactions").fetch_one(&mut admin).await?;
    assert_eq!(reactions, 0);
    Ok(())
}

#[tokio::test]
async fn reactions_are_counted_exactly() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let first = target(chat, ana, "a", 1);
    persist(
        &store,
        &[
            message(chat, ana, 1, "a", "one"),
            row(chat, 2, react(first, ana, "👍", true)),
            row(chat, 3, react(first, ana, "👍", true)),
            row(chat, 4, react(first, ben, "👍", true)),
            row(chat, 5, react(first, ben, "🎉", true)),
            row(chat, 6, react(first, ben, "🎉", false)),
            row(chat, 7, react(first, ben, "❤️", false)),
        ],
    )
    .await?;
    assert_eq!(counts(&store, chat, ana, 1).await?, [count("👍", 2, true)]);
    persist(
        &store,
        &[
            row(chat, 8, react(first, ana, "👍", false)),
            row(chat, 9, react(first, ben, "👍", true)),
            row(chat, 10, react(first, ben, "🎉", true)),
        ],
    )
    .await?;
    let both = [count("🎉", 1, false), count("👍", 1, false)];
    assert_eq!(counts(&store, chat, ana, 1).await?, both);
    // One that is written late does not set again what was taken back since.
    let late = row(chat, 8, react(first, ana, "👍", true));
    persist(&store, &[void(chat, 11)]).await?;
    assert_eq!(store.replay(0, &late).await?, Replayed::AlreadyThere);
    let later = row(chat, 11, react(first, ana, "❤️", true));
    assert_eq!(store.replay(0, &later).await?, Replayed::Written);
    let asked = [(1, ana, "❤️"), (1, ana, "👍"), (1, ben, "🎉")];
    let around = store.around(chat, ben, &[1], &asked, &[first.message_id], 0).await?;
    assert_eq!(around.persisted_seq, 11);
    assert!(around.set.contains(&(1, ana, "❤️".to_owned())) && around.set.len() == 2);
    assert_eq!(around.quotes[&first.message_id].content, "one");
    Ok(())
}

#[tokio::test]
async fn a_feed_is_read_as_it_is_now() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let (kept, gone) = (target(chat, ana, "a", 1), target(chat, ana, "b", 2));
    persist(
        &store,
        &[
            message(chat, ana, 1, "a", "kept"),
            message(chat, ana, 2, "b", "gone"),
            system(chat, ben, 3, "Ben joined"),
            row(chat, 4, edit(kept, ana, "first", &[])),
            row(chat, 5, edit(gone, ana, "a secret", &[])),
            void(chat, 6),
            row(chat, 7, react(kept, ben, "👍", true)),
            row(chat, 8, edit(kept, ana, "second", &[ben])),
            row(chat, 9, delete(gone, ben)),
        ],
    )
    .await?;
    let (entries, up_to) = store.feed(chat, 0, 10, 200).await?;
    assert_eq!(up_to, None);
    let told: Vec<(Seq, String)> = entries
        .iter()
        .map(|entry| {
            let what = match entry {
                FeedEntry::Message(message) => format!("message {}", message.content),
                FeedEntry::Edited(edited) => format!("edited {}", edited.content),
                FeedEntry::Deleted(deleted) => format!("deleted {}", deleted.message_seq),
                FeedEntry::Reaction(reaction) => format!("{} {}", reaction.emoji, reaction.on),
                FeedEntry::Expired(expired) => format!("up to {}", expired.up_to),
            };
            (entry.seq(), what)
        })
        .collect();
    let told: Vec<(Seq, &str)> = told.iter().map(|(seq, what)| (*seq, what.as_str())).collect();
    assert_eq!(
        told,
        [
            (1, "message second"),
            (2, "message "),
            (3, "message Ben joined"),
            (4, "edited second"),
            (5, "deleted 2"),
            (7, "👍 true"),
            (8, "edited second"),
            (9, "deleted 2"),
        ]
    );
    let FeedEntry::Reaction(reaction) = &entries[5] else { panic!("{entries:?}") };
    assert_eq!((reaction.prev_seq, reaction.user_id, reaction.created_at), (6, ben, at(7)));
    let (some, up_to) = store.feed(chat, 1, 10, 3).await?;
    assert_eq!(
        (some.iter().map(FeedEntry::seq).collect::<Vec<_>>(), up_to),
        (vec![2, 3, 4], Some(4))
    );
    let place = store.place(chat, 9).await?.context("no place")?;
    assert_eq!(place.kind, PlaceKind::Change { message: gone.message_id });
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_written_late_stays_deleted() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let first = target(chat, ana, "a", 1);
    persist(&store, &[void(chat, 1), row(chat, 2, delete(first, ana))]).await?;
    let late = message(chat, ana, 1, "a", "a secret");
    assert_eq!(store.replay(0, &late).await?, Replayed::Written);
    let tombstone = shown(&store, chat).await?.remove(0);
    assert!(tombstone.deleted && tombstone.content.is_empty(), "{tombstone:?}");
    Ok(())
}

#[tokio::test]
async fn those_who_take_part_are_told_apart() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let dora = person(&store, "Dora").await?;
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    assert_eq!(store.take_part(chat, &[dora, ben]).await?, [ben]);
    store.leave(ben, chat).await?;
    assert_eq!(store.take_part(chat, &[dora, ben]).await?, []);
    Ok(())
}
