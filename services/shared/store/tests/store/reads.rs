//! What is read, delivered and unread, and what one wants of a chat for oneself.

use std::time::Duration;

use anyhow::{Context, Result};
use natter_protocol::{
    client::Mark,
    feed::{Event, Feed},
    ids::{ChatId, Seq, UserId},
    rest::UnreadTotal,
    server::{Chat, Me},
};
use natter_store::{Muting, Replayed, Row, RowKind, Store, StoreError};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;

use crate::support::{
    Broker, LEASE, OWNER, at, message, persist, person, relay, store, store_at, void,
};

pub fn read(user: UserId, chat_id: ChatId, seq: Seq, up_to: Seq) -> Row {
    let kind = RowKind::Read(Mark { chat_id, seq: up_to });
    Row { feed: Feed::user(0, user), seq, at: at(seq), kind }
}

fn delivered(user: UserId, chat_id: ChatId, seq: Seq, up_to: Seq) -> Row {
    let kind = RowKind::Delivered(Mark { chat_id, seq: up_to });
    Row { feed: Feed::user(0, user), seq, at: at(seq), kind }
}

async fn seen(store: &Store, user: UserId, chat: ChatId) -> Result<Chat> {
    store.chat(user, chat).await?.context("takes part")
}

async fn me(store: &Store, user: UserId, chat: ChatId) -> Result<Me> {
    seen(store, user, chat).await?.me.context("a viewer")
}

/// Up to where it is read, and how many are unread.
async fn unread(store: &Store, user: UserId, chat: ChatId) -> Result<(Seq, u64)> {
    let Me { read_seq, unread_count, .. } = me(store, user, chat).await?;
    Ok((read_seq, unread_count))
}

#[tokio::test]
async fn reading_goes_forward_and_sending_reads() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
    let other = store.create_group(ana, Some("U"), false, &[ben], 0).await?.chat;
    let rows = [
        message(chat, ana, 1, "a", "one"),
        message(other, ana, 2, "a", "elsewhere"),
        message(chat, ana, 3, "b", "two"),
        void(chat, 4),
        message(chat, ana, 5, "c", "three"),
    ];
    persist(&store, &rows).await?;
    assert_eq!(unread(&store, ben, chat).await?, (0, 3));
    assert_eq!(unread(&store, ana, chat).await?, (5, 0), "sending reads");
    assert_eq!(store.unread_total(ben).await?, UnreadTotal { total: 4, chats: 2 });
    assert_eq!(store.unread_total(ana).await?, UnreadTotal::default());

    // Places between entries count what lies below them; the furthest of a batch counts.
    persist(&store, &[read(ben, chat, 6, 4)]).await?;
    assert_eq!(unread(&store, ben, chat).await?, (4, 1));
    persist(&store, &[read(ben, chat, 7, 5), read(ben, chat, 8, 3), read(ben, chat, 9, 1)]).await?;
    assert_eq!(unread(&store, ben, chat).await?, (5, 0));
    persist(&store, &[read(ben, chat, 10, 1)]).await?;
    assert_eq!(unread(&store, ben, chat).await?, (5, 0), "never back");

    // A place whose messages are still to be written: they are read when they come.
    persist(&store, &[read(ben, other, 11, 12)]).await?;
    persist(&store, &[message(other, ana, 12, "b", "read"), message(other, ana, 13, "c", "not")])
        .await?;
    assert_eq!(unread(&store, ben, other).await?, (12, 1));

    // Nobody who takes no part is moved, nor anything that is not there.
    let cid = person(&store, "Cid").await?;
    persist(&store, &[read(cid, chat, 14, 5), read(ben, ChatId::generate(), 15, 5)]).await?;

    let items = store.receipts(chat, 10).await?;
    let receipts: Vec<_> = items.iter().map(|r| (r.user_id, r.read_seq, r.delivered_seq)).collect();
    let mut expected = vec![(ana, 5, 5), (ben, 5, 5)];
    expected.sort_unstable();
    assert_eq!(receipts, expected);
    persist(&store, &[message(chat, ana, 16, "d", "four"), delivered(ben, chat, 17, 16)]).await?;
    let items = store.receipts(chat, 10).await?;
    let bens = items.iter().find(|r| r.user_id == ben).context("takes part")?;
    assert_eq!((bens.read_seq, bens.delivered_seq), (5, 16));
    assert_eq!(unread(&store, ben, chat).await?, (5, 1), "delivered is not read");
    Ok(())
}

#[tokio::test]
async fn what_repeats_a_message_or_is_written_later_is_counted_once() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    let rows = [
        message(chat, ana, 1, "a", "one"),
        message(chat, ana, 2, "a", "one, again"),
        message(chat, ana, 3, "b", "two"),
        void(chat, 4),
        message(chat, ana, 5, "a", "one, once more"),
        message(chat, ana, 6, "c", "three"),
    ];
    persist(&store, &rows).await?;
    assert_eq!(unread(&store, ben, chat).await?, (0, 3));
    for (place, left) in [(1, 2), (2, 2), (3, 1), (5, 1), (6, 0)] {
        persist(&store, &[read(ben, chat, 6 + place, place)]).await?;
        assert_eq!(unread(&store, ben, chat).await?, (place, left));
    }
    // Entries that were read again are no trouble.
    let (from, _) = store.persisted_until(0).await?;
    let again = [rows[0].clone(), rows[5].clone(), message(chat, ana, 20, "d", "four")];
    store.persist(0, OWNER, from, 20, at(20), &again).await?;
    assert_eq!(unread(&store, ben, chat).await?, (6, 1));

    // A dead letter that takes its place after all is one more for those who have not come there.
    let cid = person(&store, "Cid").await?;
    let late = store.create_group(ana, None, false, &[ben, cid], 0).await?.chat;
    let rows = [
        message(late, ana, 30, "a", "one"),
        void(late, 31),
        message(late, ana, 32, "b", "two"),
        read(cid, late, 33, 32),
    ];
    persist(&store, &rows).await?;
    let rescued = message(late, ana, 31, "x", "rescued");
    assert_eq!(store.replay(0, &rescued).await?, Replayed::Written);
    assert_eq!(store.replay(0, &rescued).await?, Replayed::AlreadyThere);
    assert_eq!(unread(&store, ben, late).await?, (0, 3));
    assert_eq!(unread(&store, cid, late).await?, (32, 0));
    persist(&store, &[read(ben, late, 34, 30), message(late, ana, 35, "c", "three")]).await?;
    assert_eq!(unread(&store, ben, late).await?, (30, 3));
    assert_eq!(unread(&store, cid, late).await?, (32, 1));
    // So is one of reading.
    assert_eq!(store.replay(0, &read(cid, late, 34, 35)).await?, Replayed::Written);
    assert_eq!(unread(&store, cid, late).await?, (35, 0));
    Ok(())
}

#[tokio::test]
async fn a_worker_of_the_version_before_counts_too() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, None, false, &[ben], 0).await?.chat;
    persist(&store, &[message(chat, ana, 1, "a", "one")]).await?;
    let mut admin = PgConnection::connect(&database).await?;
    // As that version writes them: it knows of no numbers.
    sqlx::query(
        "INSERT INTO messages (chat_id, seq, kind, id, sender_id, client_msg_id, created_at)
         SELECT $1, n, CASE WHEN n = 3 THEN 'void' ELSE 'message' END, gen_random_uuid(), $2,
                CASE WHEN n = 5 THEN 'a' ELSE n::text END, now()
         FROM generate_series(2, 6) AS n
         ON CONFLICT DO NOTHING",
    )
    .bind(chat.0)
    .bind(ana.0)
    .execute(&mut admin)
    .await?;
    assert_eq!(unread(&store, ben, chat).await?, (0, 4));
    persist(&store, &[message(chat, ana, 7, "b", "seven"), read(ben, chat, 8, 4)]).await?;
    assert_eq!(unread(&store, ben, chat).await?, (4, 2));
    Ok(())
}

#[tokio::test]
async fn what_came_before_one_joined_is_read() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let made = store.create_group(ana, None, true, &[], 0).await?;
    let (chat, broker) = (made.chat, Broker::default());
    relay(&store, &broker, chat.0).await?;
    persist(&store, &[message(chat, ana, 101, "a", "one")]).await?;
    store.join(ben, chat).await?;
    relay(&store, &broker, chat.0).await?;
    let joined = broker.stored().last().context("told")?.0;
    let told = broker.stored().into_iter().rev().find_map(|(_, _, entry)| match entry.event {
        Event::ChatAdded(added) => added.chat.me,
        _ => None,
    });
    let from = told.context("told of the chat")?.read_seq;
    assert!((100..=joined).contains(&from));
    assert_eq!(unread(&store, ben, chat).await?, (from, 0));
    persist(&store, &[message(chat, ana, 110, "b", "two"), message(chat, ana, 111, "c", "three")])
        .await?;
    assert_eq!(unread(&store, ben, chat).await?, (from, 2));
    store.leave(ben, chat).await?;
    relay(&store, &broker, chat.0).await?;
    assert_eq!(store.unread_total(ben).await?, UnreadTotal::default());
    Ok(())
}

#[tokio::test]
async fn a_chat_is_muted_and_hidden_for_oneself() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let direct = store.open_direct(ana, ben, 0).await?.chat;
    let group = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
    let broker = Broker::default();
    for chat in [direct, group] {
        relay(&store, &broker, chat.0).await?;
    }

    let until =
        natter_protocol::timestamp::truncate(OffsetDateTime::now_utc()) + Duration::from_hours(1);
    let changed = store.mute(ana, group, Muting::Until(until)).await?;
    let own = changed.chat.me.clone().context("a viewer")?;
    assert_eq!((own.muted, own.muted_until), (true, Some(until)));
    relay(&store, &broker, changed.lane).await?;
    let told = broker.stored().pop().context("told")?;
    assert_eq!(told.1, Feed::user(0, ana));
    assert_eq!(told.2.event, Event::ChatUpdated(Box::new(changed.chat)));
    store.mute(ana, group, Muting::Forever).await?;
    let own = me(&store, ana, group).await?;
    assert_eq!((own.muted, own.muted_until), (true, None));
    let past = OffsetDateTime::now_utc() - Duration::from_secs(1);
    store.mute(ana, group, Muting::Until(past)).await?;
    assert!(!me(&store, ana, group).await?.muted, "it ends by itself");
    store.mute(ana, group, Muting::Forever).await?;
    store.mute(ana, group, Muting::Ended).await?;
    assert!(!me(&store, ana, group).await?.muted);
    assert!(!me(&store, ben, group).await?.muted, "for oneself alone");

    // What is sent already and not written yet is no next message.
    persist(&store, &[message(direct, ben, 301, "a", "one")]).await?;
    assert_eq!(store.unread_total(ana).await?, UnreadTotal { total: 1, chats: 1 });
    let hidden = store.hide(ana, direct, 302).await?;
    assert!(hidden.chat.me.context("a viewer")?.hidden);
    let listed = async |user| -> Result<Vec<ChatId>> {
        let (chats, _) = store.chats(user, None, 10, None).await?;
        Ok(chats.into_iter().map(|chat| chat.id).collect())
    };
    assert_eq!(listed(ana).await?, [group]);
    assert_eq!(listed(ben).await?, [direct, group]);
    assert_eq!(store.unread_total(ana).await?, UnreadTotal::default());
    persist(&store, &[message(direct, ben, 302, "b", "two")]).await?;
    assert_eq!(listed(ana).await?, [group]);
    persist(&store, &[message(direct, ben, 303, "c", "three")]).await?;
    assert_eq!(listed(ana).await?, [direct, group]);
    assert_eq!(unread(&store, ana, direct).await?.1, 3);

    // One without a message.
    let cid = person(&store, "Cid").await?;
    let empty = store.open_direct(ana, cid, 0).await?.chat;
    store.hide(ana, empty, 0).await?;
    assert_eq!(listed(ana).await?, [direct, group]);
    persist(&store, &[message(empty, cid, 304, "a", "hello")]).await?;
    assert_eq!(listed(ana).await?, [empty, direct, group]);

    for refused in [store.hide(cid, direct, 0).await, store.mute(cid, group, Muting::Ended).await] {
        assert!(matches!(refused, Err(StoreError::NotFound)));
    }
    assert!(matches!(store.hide(ana, group, 0).await, Err(StoreError::Forbidden)));
    Ok(())
}

/// Workers of several shards move the same people at once: nobody waits for ever.
#[tokio::test]
async fn workers_that_move_the_same_people_do_not_lock_each_other() -> Result<()> {
    // However Postgres comes to the rows: of a table so small it may rather read all than look each of
    // them up by the key.
    let database = crate::support::migrated().await?;
    let store = store_at(&format!("{database}?options=-c%20enable_nestloop%3Doff")).await?;
    store.ensure_shards(2).await?;
    store.start_epoch(1, 1, 1, None).await?;
    store.claim_shard(1, OWNER, LEASE).await?.context("free")?;
    let mut people = Vec::new();
    for n in 0..20 {
        people.push(person(&store, &format!("P{n}")).await?);
    }
    let mut chats = Vec::new();
    for _ in 0..10 {
        chats.push(store.create_group(people[0], None, false, &people[1..], 0).await?.chat);
    }
    // Shard 0 has the chats, shard 1 what is read; each in an order of its own.
    let writes = async |shard: u16, backwards: bool| -> Result<()> {
        for round in 0..20_u64 {
            let mut rows = Vec::new();
            for chat in &chats {
                for user in &people {
                    let seq = round * 200 + rows.len() as Seq + 1;
                    rows.push(if shard == 0 {
                        message(*chat, *user, seq, &seq.to_string(), "x")
                    } else {
                        Row { feed: Feed::user(1, *user), ..read(*user, *chat, seq, seq) }
                    });
                }
            }
            if backwards {
                rows.reverse();
            }
            let (from, to) = (round * 200, round * 200 + 200);
            store.persist(shard, OWNER, from, to, at(to), &rows).await?;
        }
        Ok(())
    };
    tokio::try_join!(writes(0, false), writes(1, true))?;
    for chat in chats {
        let items = store.receipts(chat, 100).await?;
        assert_eq!(items.len(), people.len());
        assert!(items.iter().all(|receipt| receipt.read_seq > 3_800), "{items:?}");
    }
    Ok(())
}
