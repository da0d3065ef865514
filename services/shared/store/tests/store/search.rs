//! Messages found by their words, and the index that follows what is written.

use anyhow::{Context, Result};
use natter_protocol::{
    ids::{ChatId, MediaId, Seq, UserId},
    media::{Media, MediaKind},
    rest::FoundMessage,
};
use natter_store::{
    CaughtUp, Indexer, MessageSearch, Replayed, Row, RowKind, SearchCursor, Store, StoreConfig,
    Words,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::support::{LEASE, OWNER, at, message, persist, person, store, store_at, system, void};

fn search(viewer: UserId, text: &str) -> Result<MessageSearch> {
    let words = if text.is_empty() { None } else { Some(Words::parse(text)?) };
    Ok(MessageSearch { words, ..filter(viewer) })
}

pub fn filter(viewer: UserId) -> MessageSearch {
    MessageSearch {
        viewer,
        words: None,
        fuzzy: false,
        chat: None,
        sender: None,
        after: None,
        before: None,
        has_media: None,
        media_kind: None,
        mentions_viewer: false,
        ranked: false,
        cursor: None,
        limit: 50,
    }
}

async fn found(store: &Store, search: MessageSearch) -> Result<Vec<Seq>> {
    let (items, next) = store.search_messages(search).await?;
    assert_eq!(next, None);
    Ok(places(&items))
}

async fn by(store: &Store, viewer: UserId, text: &str) -> Result<Vec<Seq>> {
    found(store, search(viewer, text)?).await
}

fn places(items: &[FoundMessage]) -> Vec<Seq> {
    items.iter().map(|found| found.message.seq).collect()
}

/// Indexes all that is written.
async fn index(store: &Store) -> Result<Seq> {
    let mut indexer = Indexer::new(store, 0);
    loop {
        if let CaughtUp::Until(seq) = indexer.catch_up().await? {
            return Ok(seq);
        }
    }
}

#[tokio::test]
async fn words_find_messages_in_ones_own_chats_only() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let sailing = store.create_group(ana, Some("Sailing"), false, &[ben], 0).await?.chat;
    let secret = store.create_group(ben, Some("Secret"), false, &[], 0).await?.chat;
    persist(
        &store,
        &[
            message(sailing, ana, 10, "a", "The Boat is in the harbour"),
            message(sailing, ben, 20, "b", "Boats, boats; two of them: 🚤 — ‏سفينة‎ 東京湾"),
            system(sailing, ana, 25, "a boat joined"),
            message(secret, ben, 30, "c", "my boat of nobody's business"),
            void(sailing, 35),
            message(sailing, ana, 40, "d", "Un café à l'œil"),
        ],
    )
    .await?;
    assert_eq!(by(&store, ana, "boat").await?, [0; 0], "not indexed yet");
    assert_eq!(index(&store).await?, 40);
    for (text, seqs) in [
        ("boat", vec![20, 10]),
        ("BOAT harbour", vec![10]),
        ("har bOAts", vec![]),
        ("boat harb", vec![10]),
        ("the", vec![20, 10]),
        ("th", vec![20, 10]),
        ("t", vec![]),
        ("cafe oeil", vec![40]),
        ("🚤", vec![20]),
        ("سفينة", vec![20]),
        ("京", vec![20]),
        ("東京湾", vec![20]),
        ("京東", vec![]),
        ("boat & !harbour", vec![10]),
        ("joined", vec![]),
        ("business", vec![]),
        ("'; DROP TABLE messages; --", vec![]),
        (r"\' | 'boat", vec![20, 10]),
    ] {
        assert_eq!(by(&store, ana, text).await?, seqs, "{text}");
    }
    assert_eq!(by(&store, ben, "boat").await?, [30, 20, 10]);
    let (items, _) = store.search_messages(search(ana, "boat")?).await?;
    let first = items.first().context("found")?;
    assert_eq!((first.chat.id, first.chat.name.as_str()), (sailing, "Sailing"));
    assert_eq!((first.message.prev_seq, first.message.sender.name.as_str()), (10, "Ben"));
    let marks: Vec<_> = first.highlights.iter().map(|mark| (mark.start, mark.end)).collect();
    assert_eq!(marks, [(0, 5), (7, 12)]);
    // Who leaves finds nothing any more.
    store.leave(ana, sailing).await?;
    assert_eq!(by(&store, ana, "boat").await?, [0; 0]);
    Ok(())
}

#[tokio::test]
async fn filters_narrow_what_is_found() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let one = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let two = store.open_direct(ana, ben, 0).await?.chat;
    let with = |mut row: Row, kind: MediaKind| {
        if let RowKind::Message(message) = &mut row.kind {
            message.media = Some(Box::new(Media {
                id: MediaId::generate(),
                name: "a".into(),
                media_type: "a/b".into(),
                kind,
                size: 1,
                sha256: None,
                width: None,
                height: None,
                thumbnail: false,
            }));
        }
        row
    };
    persist(
        &store,
        &[
            message(one, ana, 10, "a", "word"),
            with(message(one, ben, 20, "b", "word"), MediaKind::Image),
            with(message(two, ben, 30, "c", ""), MediaKind::Document),
            message(two, ana, 40, "d", "word again"),
        ],
    )
    .await?;
    let mut admin = PgConnection::connect(&database).await?;
    sqlx::query("UPDATE messages SET mentions = ARRAY[$1] WHERE seq = 40")
        .bind(ben.0)
        .execute(&mut admin)
        .await?;
    index(&store).await?;
    let all = |search: MessageSearch| found(&store, search);
    let words = search(ana, "word")?;
    let nothing = filter(ana);
    assert_eq!(all(words.clone()).await?, [40, 20, 10]);
    assert_eq!(all(MessageSearch { chat: Some(one), ..words.clone() }).await?, [20, 10]);
    assert_eq!(all(MessageSearch { sender: Some(ben), ..words.clone() }).await?, [20]);
    assert_eq!(all(MessageSearch { sender: Some(ben), ..nothing.clone() }).await?, [30, 20]);
    assert_eq!(all(MessageSearch { after: Some(at(10)), ..words.clone() }).await?, [40, 20]);
    assert_eq!(all(MessageSearch { before: Some(at(40)), ..words.clone() }).await?, [20, 10]);
    assert_eq!(all(MessageSearch { has_media: Some(true), ..nothing.clone() }).await?, [30, 20]);
    assert_eq!(all(MessageSearch { has_media: Some(false), ..words.clone() }).await?, [40, 10]);
    assert_eq!(all(MessageSearch { has_media: Some(false), ..nothing.clone() }).await?, [40, 10]);
    let kind = |kind| MessageSearch { media_kind: Some(kind), ..nothing.clone() };
    assert_eq!(all(kind(MediaKind::Image)).await?, [20]);
    assert_eq!(all(kind(MediaKind::Audio)).await?, [0; 0]);
    assert_eq!(all(MessageSearch { mentions_viewer: true, ..words }).await?, [0; 0]);
    let bens = MessageSearch { mentions_viewer: true, ..filter(ben) };
    assert_eq!(all(bens).await?, [40]);
    assert_eq!(all(MessageSearch { chat: Some(ChatId::generate()), ..nothing }).await?, [0; 0]);
    Ok(())
}

/// All pages, as they come.
async fn pages(store: &Store, search: MessageSearch) -> Result<Vec<Vec<Seq>>> {
    let mut pages = Vec::new();
    let mut cursor: Option<SearchCursor> = None;
    loop {
        let (items, next) =
            store.search_messages(MessageSearch { cursor, ..search.clone() }).await?;
        pages.push(places(&items));
        cursor = next;
        if cursor.is_none() {
            return Ok(pages);
        }
    }
}

#[tokio::test]
async fn pages_fit_together_while_more_comes() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let mut admin = PgConnection::connect(&database).await?;
    let ana = person(&store, "Ana").await?;
    // In more chats than are named to Postgres, too.
    for chats in [2, 1_020] {
        let mut ids = Vec::new();
        for _ in 0..chats {
            ids.push(store.create_group(ana, None, false, &[], 0).await?.chat);
        }
        let word = format!("word{chats}");
        let (from, _) = store.persisted_until(0).await?;
        let rows: Vec<Row> = (1..=25)
            .map(|n| {
                let seq = from + n;
                let content = format!("{word} {}", word.repeat(1 + (n % 3) as usize));
                let chat = ids[n as usize % ids.len()];
                // Several at the same time.
                Row { at: at(seq / 4), ..message(chat, ana, seq, &seq.to_string(), &content) }
            })
            .collect();
        persist(&store, &rows).await?;
        index(&store).await?;
        for ranked in [false, true] {
            let all = MessageSearch { ranked, ..search(ana, &word)? };
            let whole = pages(&store, all.clone()).await?.concat();
            assert_eq!(whole.len(), 25);
            let paged = pages(&store, MessageSearch { limit: 4, ..all.clone() }).await?;
            assert_eq!(paged.len(), 7);
            assert_eq!(paged.concat(), whole);

            let (items, next) =
                store.search_messages(MessageSearch { limit: 10, ..all.clone() }).await?;
            let last = rows.iter().map(|row| row.seq).max().unwrap_or(0);
            let (persisted, _) = store.persisted_until(0).await?;
            let newer = persisted.max(last) + 100;
            let client = newer.to_string();
            persist(&store, &[message(ids[0], ana, newer, &client, &word)]).await?;
            index(&store).await?;
            let rest = MessageSearch { cursor: next, limit: 50, ..all };
            let (more, end) = store.search_messages(rest).await?;
            assert_eq!(end, None);
            let both: Vec<Seq> = [places(&items), places(&more)].concat();
            assert_eq!(both, whole, "ranked: {ranked}");
            // It is gone for the next round.
            let mut whole = pages(&store, search(ana, &word)?).await?.concat();
            assert_eq!(whole.remove(0), newer);
            sqlx::query("DELETE FROM message_search WHERE seq = $1")
                .bind(i64::try_from(newer)?)
                .execute(&mut admin)
                .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_is_handed_over_is_followed_and_what_is_missed_caught_up_with() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let other = store.create_group(ana, None, false, &[], 0).await?.chat;
    let write = async |seq: Seq, chat: ChatId| {
        let row = message(chat, ana, seq, &seq.to_string(), &format!("word no{seq}"));
        persist(&store, std::slice::from_ref(&row)).await?;
        anyhow::Ok((chat, seq))
    };
    let mut indexer = Indexer::new(&store, 0);
    let places = [write(10, chat).await?];
    assert!(indexer.follow(0, 10, &places).await?);
    assert_eq!(by(&store, ana, "word").await?, [10]);
    // A batch is lost; the next one is found at once all the same.
    write(20, chat).await?;
    let places = [write(30, other).await?];
    assert!(!indexer.follow(20, 30, &places).await?);
    assert_eq!(by(&store, ana, "word").await?, [30, 10]);
    // Halfway through, another begins where this one was.
    assert!(matches!(indexer.catch_up().await?, CaughtUp::NotYet { .. }));
    let places = [write(40, chat).await?];
    assert!(!indexer.follow(30, 40, &places).await?, "there is a gap");
    assert_eq!(index(&store).await?, 40);
    assert_eq!(by(&store, ana, "word").await?, [40, 30, 20, 10]);
    assert!(!indexer.follow(10, 20, &[]).await?, "that was long ago");
    let places = [write(50, chat).await?];
    assert!(indexer.follow(40, 50, &places).await?);
    assert_eq!(indexer.catch_up().await?, CaughtUp::Until(50));
    Ok(())
}

#[tokio::test]
async fn a_long_way_is_caught_up_with_in_steps_and_searched_in_pages() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let mut chats = Vec::new();
    for _ in 0..3 {
        chats.push(store.create_group(ana, None, false, &[], 0).await?.chat);
    }
    let rows: Vec<Row> = (1..=6_500)
        .map(|n| {
            let chat = chats[if n % 100 == 0 { 0 } else { 1 + usize::from(n % 50 == 0) }];
            let content = if n < 7 || n == 900 { "word, rarely" } else { "word" };
            message(chat, ana, n, &n.to_string(), content)
        })
        .collect();
    persist(&store, &rows).await?;
    let mut indexer = Indexer::new(&store, 0);
    let mut steps = 0;
    while let CaughtUp::NotYet { .. } = indexer.catch_up().await? {
        steps += 1;
    }
    assert!(steps >= 7, "{steps}");
    // More than is looked through: frequent words are among the newest, rare ones are not.
    let all: Vec<Seq> = rows.iter().rev().map(|row| row.seq).collect();
    let word = MessageSearch { limit: 100, ..search(ana, "word")? };
    assert_eq!(pages(&store, word.clone()).await?.concat(), all);
    assert_eq!(by(&store, ana, "rarely").await?, [900, 6, 5, 4, 3, 2, 1]);
    let rare = MessageSearch { limit: 3, ..search(ana, "rarely")? };
    assert_eq!(pages(&store, rare).await?, [vec![900, 6, 5], vec![4, 3, 2], vec![1]]);
    let ranked = pages(&store, MessageSearch { ranked: true, ..word.clone() }).await?.concat();
    assert_eq!(ranked, all[..500]);
    let in_one = MessageSearch { chat: Some(chats[1]), ..word };
    let of_one: Vec<Seq> = all.iter().copied().filter(|seq| seq % 50 != 0).collect();
    assert!(of_one.len() > 5_000);
    assert_eq!(pages(&store, in_one).await?.concat(), of_one);
    let rare_in_one = MessageSearch { chat: Some(chats[1]), ..search(ana, "rarely")? };
    assert_eq!(found(&store, rare_in_one).await?, [6, 5, 4, 3, 2, 1]);
    Ok(())
}

#[tokio::test]
async fn changes_of_a_message_change_what_it_is_found_by() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let rows = [
        message(chat, ana, 10, "a", "before wonderful"),
        message(chat, ana, 20, "b", "harmless wonderful"),
    ];
    persist(&store, &rows).await?;
    assert_eq!(index(&store).await?, 20);
    let mut admin = PgConnection::connect(&database).await?;
    // What the entries of changes leave in Postgres.
    sqlx::raw_sql("ALTER TABLE messages DROP CONSTRAINT IF EXISTS messages_kind_check")
        .execute(&mut admin)
        .await?;
    let mut indexer = Indexer::new(&store, 0);
    let changes = [
        (21, "edit", "UPDATE messages SET content = 'after' WHERE seq = 10", "after", vec![10]),
        (
            22,
            "delete",
            "UPDATE messages SET content = '', deleted_at = now() WHERE seq = 10",
            "after",
            vec![],
        ),
    ];
    for (seq, kind, done, word, seqs) in changes {
        sqlx::query(
            "INSERT INTO messages (chat_id, seq, kind, detail, created_at)
             VALUES ($1, $2, $3, '{\"messageSeq\": 10}', now())",
        )
        .bind(chat.0)
        .bind(i64::try_from(seq)?)
        .bind(kind)
        .execute(&mut admin)
        .await?;
        sqlx::raw_sql(done).execute(&mut admin).await?;
        store.persist(0, OWNER, seq - 1, seq, at(seq), &[]).await?;
        assert!(indexer.follow(seq - 1, seq, &[(chat, seq)]).await?);
        assert_eq!(by(&store, ana, "before").await?, [0; 0]);
        assert_eq!(by(&store, ana, word).await?, seqs);
    }
    assert_eq!(found(&store, MessageSearch { sender: Some(ana), ..filter(ana) }).await?, [20]);
    // Of a word that was deleted nothing is left; one that another message has too is known.
    let known: Vec<String> = sqlx::query_scalar("SELECT word FROM search_words ORDER BY word")
        .fetch_all(&mut admin)
        .await?;
    assert_eq!(known, ["harmless", "wonderful"]);
    // Whoever comes later finds the same.
    sqlx::raw_sql("DELETE FROM message_search; DELETE FROM search_progress")
        .execute(&mut admin)
        .await?;
    assert_eq!(index(&store).await?, 22);
    assert_eq!(found(&store, MessageSearch { sender: Some(ana), ..filter(ana) }).await?, [20]);
    Ok(())
}

/// Whatever the index says.
#[tokio::test]
async fn what_was_deleted_a_moment_ago_is_not_shown() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let rows = [message(chat, ana, 10, "a", "word"), message(chat, ana, 20, "b", "word")];
    persist(&store, &rows).await?;
    index(&store).await?;
    let mut admin = PgConnection::connect(&database).await?;
    sqlx::raw_sql("UPDATE messages SET deleted_at = now() WHERE seq = 20")
        .execute(&mut admin)
        .await?;
    assert_eq!(by(&store, ana, "word").await?, [10]);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_written_after_all_is_found() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    persist(&store, &[void(chat, 10), message(chat, ana, 20, "b", "word")]).await?;
    index(&store).await?;
    let late = message(chat, ana, 10, "a", "late word");
    assert_eq!(store.replay(0, &late).await?, Replayed::Written);
    assert_eq!(by(&store, ana, "word").await?, [20, 10]);
    Ok(())
}

#[tokio::test]
async fn mistyped_words_find_what_was_meant() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let rows = [
        message(chat, ana, 10, "a", "We meet at the harbour tomorrow"),
        message(chat, ana, 20, "b", "Встретимся завтра"),
        message(chat, ana, 30, "c", "harbinger"),
    ];
    persist(&store, &rows).await?;
    index(&store).await?;
    for (text, seqs) in [
        ("harbuor", vec![10]),
        ("habrour tomorow", vec![10]),
        ("harbor", vec![10]),
        ("завтар", vec![20]),
        ("hurdle", vec![]),
        ("harbour", vec![10]),
    ] {
        let fuzzy = MessageSearch { fuzzy: true, ..search(ana, text)? };
        let (items, _) = store.search_messages(fuzzy).await?;
        assert_eq!(places(&items), seqs, "{text}");
        assert!(items.iter().all(|found| !found.highlights.is_empty()), "{text}");
    }
    assert_eq!(by(&store, ana, "harbuor").await?, [0; 0]);
    Ok(())
}

/// Whatever somebody writes is indexed, and whatever somebody searches is answered.
#[tokio::test]
async fn any_text_can_be_written_and_searched() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, None, false, &[], 0).await?.chat;
    let texts = [
        r"' \\ \' '' & | ! ( ) : * <-> <2> :* ':* a'b \x",
        "a\u{1}b\u{7f}c \u{feff}\u{202e}rtl\u{202c} \u{10ffff}",
        "👨‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪 1️⃣ ❤️‍🔥",
        "שָׁלוֹם עולם مُحَمَّد",
        "हिन्दी தமிழ் ไทยภาษา 日本語テキスト 한국어",
        &"x".repeat(16_384),
        &"a ".repeat(8_192),
        &"字".repeat(5_461),
        &r"'\".repeat(8_000),
        &(0..2_000).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" "),
    ];
    let rows: Vec<Row> =
        (1..).zip(texts).map(|(n, text)| message(chat, ana, n, &n.to_string(), text)).collect();
    persist(&store, &rows).await?;
    index(&store).await?;
    let all = found(&store, MessageSearch { sender: Some(ana), ..filter(ana) }).await?;
    assert_eq!(all.len(), texts.len());
    for text in texts {
        let start: String = text.chars().take(200).collect();
        for part in [start.as_str(), text.split_whitespace().next().unwrap_or_default()] {
            let Ok(words) = Words::parse(part) else { continue };
            for fuzzy in [false, true] {
                let words = Some(words.clone());
                store.search_messages(MessageSearch { words, fuzzy, ..filter(ana) }).await?;
            }
        }
    }
    for emoji in ["👨‍👩‍👧‍👦", "🇩🇪", "❤️", "1️⃣"] {
        assert!(by(&store, ana, emoji).await?.contains(&3), "{emoji}");
    }
    Ok(())
}

/// Two who follow different shards at once learn the same words.
#[tokio::test]
async fn shards_are_followed_side_by_side() -> Result<()> {
    let store = Store::connect(&StoreConfig::new(natter_cluster::testing::postgres().await?))?;
    store.migrate().await?;
    store.ensure_shards(2).await?;
    let ana = person(&store, "Ana").await?;
    let mut chats = Vec::new();
    for shard in [0, 1] {
        store.start_epoch(shard, 1, 1, None).await?;
        store.claim_shard(shard, "w", LEASE).await?.context("free")?;
        let chat = store.create_group(ana, None, false, &[], shard).await?.chat;
        let rows: Vec<Row> = (1..=900)
            .map(|n| {
                let words = format!("word{} thing{} same", n % 7, (n * 31) % 900);
                message(chat, ana, n, &Uuid::now_v7().to_string(), &words)
            })
            .collect();
        store.persist(shard, "w", 0, 900, at(900), &rows).await?;
        chats.push(chat);
    }
    let follow = async |shard: u16| {
        let mut indexer = Indexer::new(&store, shard);
        while let CaughtUp::NotYet { .. } = indexer.catch_up().await? {}
        anyhow::Ok(())
    };
    tokio::try_join!(follow(0), follow(1))?;
    for chat in chats {
        let one = MessageSearch { chat: Some(chat), limit: 100, ..search(ana, "same")? };
        assert_eq!(pages(&store, one).await?.concat().len(), 900);
    }
    Ok(())
}
