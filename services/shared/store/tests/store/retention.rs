//! What has expired: found, hidden from everybody at once, and removed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_protocol::{
    feed::{Event, Expired, Feed, Reacted, SystemKind, Target},
    ids::{ChatId, MediaId, MessageId, Seq, UserId},
    media::{Media, MediaKind},
};
use natter_store::{
    CaughtUp, ChatEdit, FeedEntry, Indexer, MessageSearch, Page, Purged, Replayed, Row, RowKind,
    Store, StoreError, Words,
};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use crate::{
    search::filter,
    support::{Broker, OWNER, at, message, persist, person, relay, store_at},
};

const NEWEST: Page = Page { before: None, after: None, limit: 200 };
const HOUR: Duration = Duration::from_hours(1);

/// A word of its own, of letters.
fn text(seq: Seq) -> String {
    let letters =
        seq.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect::<String>();
    format!("word{letters}")
}

struct Scene {
    store: Store,
    admin: PgConnection,
    ana: UserId,
    ben: UserId,
    chat: ChatId,
}

impl Scene {
    async fn new() -> Result<Self> {
        let database = crate::support::migrated().await?;
        let store = store_at(&database).await?;
        let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
        let chat = store.create_group(ana, Some("Group"), false, &[ben], 0).await?.chat;
        Ok(Self { store, admin: PgConnection::connect(&database).await?, ana, ben, chat })
    }

    /// A message that was sent so long ago.
    fn said(&self, seq: Seq, ago: Duration) -> Row {
        let (client, text) = (seq.to_string(), text(seq));
        let at = OffsetDateTime::now_utc() - ago;
        Row { at, ..message(self.chat, self.ana, seq, &client, &text) }
    }

    fn id(&self, seq: Seq) -> MessageId {
        MessageId::derive(self.chat, self.ana, &seq.to_string())
    }

    fn row(&self, seq: Seq, kind: RowKind) -> Row {
        Row { feed: Feed::chat(0, self.chat), seq, at: OffsetDateTime::now_utc(), kind }
    }

    fn expired(&self, seq: Seq, up_to: Seq) -> Row {
        self.row(seq, RowKind::Expired(Expired { up_to }))
    }

    async fn keep_for(&self, secs: Option<u32>) -> Result<()> {
        let edit = ChatEdit { retention_secs: Some(secs), ..ChatEdit::default() };
        self.store.update_chat(self.ana, self.chat, &edit).await?;
        Ok(())
    }

    /// Where it is found to begin anew; none when nobody is to look.
    async fn cut(&self, default: Option<Duration>) -> Result<Option<Option<Seq>>> {
        let aging = self.store.take_aging(default, Duration::ZERO, 10).await?;
        ensure!(aging.len() < 2, "{aging:?}");
        let Some(aging) = aging.first() else { return Ok(None) };
        ensure!(aging.chat == self.chat);
        Ok(Some(self.store.find_cut(aging, OffsetDateTime::now_utc()).await?))
    }

    async fn shown(&self) -> Result<Vec<Seq>> {
        let page = self.store.history(self.chat, NEWEST).await?;
        Ok(page.messages.iter().map(|message| message.seq).collect())
    }

    async fn found(&self) -> Result<Vec<Seq>> {
        let words = Some(Words::parse("word")?);
        let search = MessageSearch { words, ..filter(self.ben) };
        let (found, _) = self.store.search_messages(search).await?;
        Ok(found.iter().map(|found| found.message.seq).collect())
    }

    async fn unread(&self) -> Result<u64> {
        let chat = self.store.chat(self.ben, self.chat).await?.context("there")?;
        Ok(chat.me.context("a viewer")?.unread_count)
    }

    async fn count(&mut self, table: &str) -> Result<i64> {
        let count = format!("SELECT count(*) FROM {table}");
        Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut self.admin).await?)
    }

    /// Removes all, some rows at a time; answers how many.
    async fn purge(&self, some: u32) -> Result<u64> {
        let mut rows = 0;
        loop {
            match self.store.purge(self.chat, some).await? {
                Purged::Some(more) => {
                    ensure!(more <= u64::from(some), "{more}");
                    rows += more;
                }
                Purged::All => return Ok(rows),
                Purged::Busy => anyhow::bail!("nobody else is there"),
            }
        }
    }
}

#[tokio::test]
async fn chats_with_old_messages_are_found_and_others_are_not_looked_at() -> Result<()> {
    let mut scene = Scene::new().await?;
    persist(
        &scene.store,
        &[scene.said(10, HOUR * 5), scene.said(20, HOUR * 3), scene.said(30, HOUR)],
    )
    .await?;
    assert_eq!(scene.cut(None).await?, None, "they are kept for ever");
    assert_eq!(scene.cut(Some(HOUR * 6)).await?, None, "they are younger");
    assert_eq!(scene.cut(Some(HOUR * 2)).await?, Some(Some(20)));
    scene.keep_for(Some(4 * 3_600)).await?;
    assert_eq!(scene.cut(Some(HOUR)).await?, Some(Some(10)), "the chat's own time counts");
    let soon = scene.store.take_aging(None, HOUR, 10).await?;
    assert_eq!(soon, [], "somebody looks already");
    scene.keep_for(None).await?;
    assert_eq!(scene.cut(None).await?, None);

    // What lies before it is found to be gone, and then there is nothing to look for.
    persist(&scene.store, &[scene.expired(40, 20)]).await?;
    assert_eq!(scene.cut(Some(HOUR * 2)).await?, None, "the oldest is an hour old");
    assert_eq!(scene.cut(Some(HOUR / 2)).await?, Some(Some(30)));
    persist(&scene.store, &[scene.expired(50, 30)]).await?;
    assert_eq!(scene.cut(Some(Duration::from_secs(1))).await?, None, "no message is left");

    // A chat of which nobody knows how old it is.
    sqlx::query("UPDATE chats SET oldest_at = '1970-01-01 00:00:00+00'")
        .execute(&mut scene.admin)
        .await?;
    assert_eq!(scene.cut(Some(HOUR)).await?, Some(None), "it is looked, and noted");
    assert_eq!(scene.cut(Some(HOUR)).await?, None);
    persist(&scene.store, &[scene.said(60, Duration::from_secs(1))]).await?;
    assert_eq!(scene.cut(Some(Duration::from_millis(1))).await?, Some(Some(60)));
    Ok(())
}

#[tokio::test]
async fn where_very_many_have_expired_the_first_to_stay_is_found() -> Result<()> {
    let scene = Scene::new().await?;
    for batch in 0..5_u64 {
        let ago = |n: u64| Duration::from_secs(7_200 - n);
        // With holes, as other feeds leave them.
        let rows: Vec<Row> =
            (batch * 1_000..(batch + 1) * 1_000).map(|n| scene.said(10 + n * 7, ago(n))).collect();
        persist(&scene.store, &rows).await?;
    }
    for kept in [4_000_u64, 3_000, 6_100, 7_100, 2_500] {
        let cut = scene.cut(Some(Duration::from_secs(kept))).await?;
        // The first message that is young enough, or a second's worth before it.
        let Some(Some(cut)) = cut else { anyhow::bail!("{cut:?}") };
        let first = (7_200_u64.saturating_sub(kept)).min(4_999);
        let about = 10 + first * 7;
        ensure!((about.saturating_sub(70)..=about + 70).contains(&cut), "{cut}, not about {about}");
        ensure!((cut - 10).is_multiple_of(7), "{cut} is no entry");
    }
    Ok(())
}

#[tokio::test]
async fn what_has_expired_is_not_there_for_anybody_and_its_rows_are_removed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let media = Media {
        id: MediaId::generate(),
        name: "a.png".into(),
        media_type: "image/png".into(),
        kind: MediaKind::Image,
        size: 7,
        sha256: None,
        width: None,
        height: None,
        thumbnail: false,
    };
    let target = Target { message_id: scene.id(20), message_seq: 20 };
    let (user_id, emoji) = (scene.ben, "👍".to_owned());
    let mut with_file = scene.said(20, HOUR * 2);
    let mut answer = scene.said(40, HOUR);
    if let (RowKind::Message(file), RowKind::Message(reply)) =
        (&mut with_file.kind, &mut answer.kind)
    {
        file.media = Some(Box::new(media.clone()));
        reply.reply_to = Some(file.id);
    }
    let react = RowKind::Reaction(Reacted { target, user_id, emoji: emoji.clone(), on: true });
    let rows =
        [scene.said(10, HOUR * 3), with_file, scene.row(30, react), answer, scene.said(50, HOUR)];
    persist(&scene.store, &rows).await?;
    sqlx::query(
        "INSERT INTO media (id, chat_id, uploader_id, name, media_type, size, state, message_id, sent)
         VALUES ($1, $2, $3, 'a.png', 'image/png', 7, 'ready', $4, true)",
    )
    .bind(media.id.0)
    .bind(scene.chat.0)
    .bind(scene.ana.0)
    .bind(scene.id(20).0)
    .execute(&mut scene.admin)
    .await?;
    sqlx::query(
        "INSERT INTO media_downloads (id, media_id, message_id, user_id, device_id, at)
         SELECT $1, $1, $2, $3, $3, now()",
    )
    .bind(media.id.0)
    .bind(scene.id(20).0)
    .bind(scene.ben.0)
    .execute(&mut scene.admin)
    .await?;
    let mut indexer = Indexer::new(&scene.store, 0);
    while !matches!(indexer.catch_up().await?, CaughtUp::Until(50)) {}
    assert_eq!(scene.found().await?.len(), 4);
    assert_eq!(scene.unread().await?, 4);

    persist(&scene.store, &[scene.expired(60, 30)]).await?;
    for removed in [false, true] {
        let page = scene.store.history(scene.chat, NEWEST).await?;
        let seqs: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, [40, 50]);
        assert_eq!((page.from_seq, page.to_seq, page.has_more), (30, 60, false));
        assert_eq!(page.messages[0].prev_seq, 30, "the chain goes on from where it begins");
        let older = Page { before: Some(40), ..NEWEST };
        let older = scene.store.history(scene.chat, older).await?;
        assert_eq!((older.messages.len(), older.from_seq, older.to_seq), (0, 30, 30));
        let newer = Page { after: Some(5), limit: 1, ..NEWEST };
        let newer = scene.store.history(scene.chat, newer).await?;
        assert_eq!((newer.messages[0].seq, newer.from_seq, newer.to_seq), (40, 30, 40));
        assert_eq!(scene.store.message(scene.chat, scene.id(20)).await?.1, None);
        assert!(scene.store.message(scene.chat, scene.id(40)).await?.1.is_some());
        let around = [scene.id(20), scene.id(40)];
        let around = scene.store.around(scene.chat, scene.ben, &[40], &[], &around, 0).await?;
        assert_eq!(around.quotes.keys().copied().collect::<Vec<_>>(), [scene.id(40)]);
        assert_eq!(scene.store.media_of(scene.chat, scene.id(20)).await?, None);
        assert_eq!(scene.store.media_sender(scene.chat, scene.id(20)).await?, None);
        assert_eq!(scene.found().await?, [50, 40]);
        assert_eq!(scene.unread().await?, 2);
        let (entries, _) = scene.store.feed(scene.chat, 0, 100, 10).await?;
        let entries: Vec<Seq> = entries.iter().map(FeedEntry::seq).collect();
        assert_eq!(entries, [40, 50, 60]);
        if !removed {
            assert!(matches!(
                scene.store.replay(0, &scene.said(20, HOUR)).await?,
                Replayed::Expired
            ));
            // Rows 10 and 20 of 30 or before, two of the search, a reaction and its count.
            assert_eq!(scene.purge(2).await?, 6);
        }
    }
    assert_eq!(scene.count("messages").await?, 4, "a place that has expired, and what is left");
    assert_eq!(scene.count("messages WHERE kind = 'void' AND seq = 30 AND content = ''").await?, 1);
    assert_eq!(scene.count("messages WHERE seq = 30 AND sender_id IS NULL AND nth = 2").await?, 1);
    assert_eq!(scene.count("reactions").await? + scene.count("reaction_counts").await?, 0);
    assert_eq!(scene.count("message_search").await?, 2);
    assert_eq!(scene.count("search_words WHERE word IN ('wordba', 'wordca')").await?, 0);
    assert_eq!(scene.count("search_words WHERE word IN ('wordea', 'wordfa')").await?, 2);
    assert_eq!(scene.count("media WHERE state = 'gone'").await?, 1);
    assert_eq!(scene.count("media_downloads").await?, 0);
    assert_eq!(scene.count("chats WHERE to_purge").await?, 0);
    assert_eq!(scene.store.chats_to_purge(None, 10).await?, []);

    // A reaction that comes too late leaves nothing; nor does what was said before.
    let target = Target { message_id: scene.id(40), message_seq: 40 };
    let late = RowKind::Reaction(Reacted { target, user_id, emoji, on: true });
    let earlier = scene.expired(70, 20);
    persist(&scene.store, &[earlier, scene.expired(80, 50), scene.row(90, late)]).await?;
    assert_eq!(scene.count("reactions").await?, 0);
    assert_eq!(scene.shown().await?, Vec::<Seq>::new());
    let chat = scene.store.chat(scene.ben, scene.chat).await?.context("there")?;
    assert_eq!((chat.last_message, chat.last_seq), (None, 90));
    assert_eq!(scene.unread().await?, 0);
    // An entry that would take away what comes after it takes away what came before.
    persist(&scene.store, &[scene.expired(100, 5_000), scene.said(110, Duration::ZERO)]).await?;
    assert_eq!(scene.shown().await?, [110]);
    assert_eq!(scene.unread().await?, 1);
    scene.purge(100).await?;
    assert_eq!(scene.unread().await?, 1);
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_of_a_group_that_was_deleted() -> Result<()> {
    let mut scene = Scene::new().await?;
    persist(&scene.store, &[scene.said(10, HOUR), scene.said(20, HOUR)]).await?;
    scene.store.remove_participant(scene.ana, scene.chat, scene.ben, true).await?;
    scene.store.delete_chat(scene.ana, scene.chat).await?;
    let other = scene.store.create_group(scene.ana, None, false, &[], 0).await?.chat;
    persist(&scene.store, &[message(other, scene.ana, 30, "x", "stays")]).await?;
    assert_eq!(scene.store.empty_deleted(HOUR, 10).await?, 0, "it is kept for a while");
    assert_eq!(scene.store.empty_deleted(Duration::ZERO, 10).await?, 1);
    assert_eq!(scene.store.empty_deleted(Duration::ZERO, 10).await?, 0);
    assert_eq!(scene.store.chats_to_purge(None, 10).await?, [scene.chat]);
    scene.purge(100).await?;
    let left = "messages WHERE content <> ''";
    assert_eq!(scene.count(left).await?, 1, "another chat's");
    assert_eq!(scene.count("chat_bans").await?, 0);
    assert_eq!(scene.count("chats WHERE title IS NOT NULL").await?, 0);
    assert_eq!(scene.count("chats").await?, 2, "the row says that there was one");
    // What was still under way when it was removed.
    persist(&scene.store, &[scene.said(40, HOUR)]).await?;
    assert_eq!(scene.store.empty_deleted(Duration::ZERO, 10).await?, 1);
    scene.purge(100).await?;
    assert_eq!(scene.count(left).await?, 1);
    Ok(())
}

#[tokio::test]
async fn who_manages_a_chat_says_for_how_long_messages_are_kept() -> Result<()> {
    let scene = Scene::new().await?;
    let (store, ana, ben) = (&scene.store, scene.ana, scene.ben);
    let week = ChatEdit { retention_secs: Some(Some(604_800)), ..ChatEdit::default() };
    let refused = store.update_chat(ben, scene.chat, &week).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    assert!(store.update_chat(ana, scene.chat, &week).await?.is_some());
    assert_eq!(store.update_chat(ana, scene.chat, &week).await?, None, "it is so already");
    scene.keep_for(None).await?;
    let direct = store.open_direct(ana, ben, 0).await?.chat;
    assert!(store.update_chat(ben, direct, &week).await?.is_some(), "both of a one-to-one may");
    let titled = ChatEdit { title: Some("X"), ..week };
    let refused = store.update_chat(ben, direct, &titled).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    assert_eq!(store.chat(ana, direct).await?.context("there")?.retention_secs, Some(604_800));
    store.block(ana, ben).await?;
    let off = ChatEdit { retention_secs: Some(None), ..ChatEdit::default() };
    let refused = store.update_chat(ben, direct, &off).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");

    let broker = Broker::default();
    relay(store, &broker, scene.chat.0).await?;
    let told = broker.stored().into_iter().filter_map(|(_, _, entry)| match entry.event {
        Event::System(event) if event.kind == SystemKind::Retention => {
            Some((event.retention_secs, event.msg))
        }
        _ => None,
    });
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            (Some(604_800), "Ana had messages removed after 7 days".to_owned()),
            (None, "Ana let messages be kept as everywhere".to_owned()),
        ]
    );
    Ok(())
}

/// Removing a chat's past takes no lock that its worker waits for.
#[tokio::test]
async fn a_chat_is_written_while_its_past_is_removed() -> Result<()> {
    let mut scene = Scene::new().await?;
    let rows: Vec<Row> = (1..=900).map(|seq| scene.said(seq, HOUR)).collect();
    persist(&scene.store, &rows).await?;
    persist(&scene.store, &[scene.expired(901, 899)]).await?;
    // A purge that has been stopped in the middle of its transaction.
    sqlx::raw_sql("BEGIN").execute(&mut scene.admin).await?;
    sqlx::query("DELETE FROM messages WHERE chat_id = $1 AND seq < 500")
        .bind(scene.chat.0)
        .execute(&mut scene.admin)
        .await?;
    let (from, to) = (901, 902);
    let next = [scene.said(902, Duration::ZERO)];
    scene.store.persist(0, OWNER, from, to, at(to), &next).await?;
    sqlx::raw_sql("ROLLBACK").execute(&mut scene.admin).await?;
    let purge = async {
        while let Purged::Some(_) = scene.store.purge(scene.chat, 50).await? {}
        anyhow::Ok(())
    };
    let write = async {
        for seq in 903..940 {
            persist(&scene.store, &[scene.said(seq, Duration::ZERO)]).await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(purge, write)?;
    assert_eq!(scene.shown().await?.len(), 39);
    assert_eq!(scene.count("messages").await?, 41);
    Ok(())
}
