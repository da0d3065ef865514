//! Accounts deleted, and what is exported of those that are not.

use std::time::Duration;

use anyhow::{Context, Result};
use natter_protocol::{
    feed::{DELETED_USER, Event, Feed, Reacted, SystemKind, Target},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    server::Role,
};
use natter_store::{Login, NewInvite, Row, RowKind, Step, Store, StoreError, UserSearch};
use sqlx::{Connection, PgConnection};

use crate::support::{
    Broker, at, device, message, new_user, persist, person, relay, some_token, store, store_at,
    system,
};

const HASH: &str = "$argon2id$";
const LEASE: Duration = Duration::from_mins(1);

/// All of a deletion that is done here, for one round; gives the lanes.
async fn part(store: &Store, user: UserId, round: i16) -> Result<Vec<uuid::Uuid>> {
    let mut lanes = Vec::new();
    while let Some(more) = store.part(user, round).await? {
        lanes.extend(more);
    }
    Ok(lanes)
}

fn reaction(chat: ChatId, sender: UserId, client: &str, user: UserId, seqs: (Seq, Seq)) -> Row {
    let target =
        Target { message_id: MessageId::derive(chat, sender, client), message_seq: seqs.0 };
    let reacted = Reacted { target, user_id: user, emoji: "👍".to_owned(), on: true };
    let (feed, seq) = (Feed::chat(0, chat), seqs.1);
    Row { feed, seq, at: at(seq), kind: RowKind::Reaction(reacted) }
}

#[tokio::test]
async fn only_with_the_password_that_was_checked_and_only_once() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    assert!(!store.delete_user(ana, Some("another"), false).await?);
    assert!(!store.delete_user(ana, None, false).await?);
    assert_eq!(store.names(&[ana]).await?[&ana], "Ana");
    assert!(store.delete_user(ana, Some(HASH), false).await?);
    let again = store.delete_user(ana, Some(HASH), false).await;
    assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
    let nobody = store.delete_user(UserId::generate(), None, false).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)));
    Ok(())
}

#[tokio::test]
async fn nobody_is_let_in_from_the_first_moment_on() -> Result<()> {
    let store = store().await?;
    let new = new_user("Ana", Some("ana@example.com"), Some("+15550100"));
    let (user, own) = store.create_user(&new).await?;
    let ben = person(&store, "Ben").await?;
    store.delete_user(user.id, Some(HASH), false).await?;
    // Before anything that follows from it.
    assert!(store.device_state(user.id, own.id).await?.context("there")?.revoked);
    assert!(store.credentials(Login::Phone("+15550100")).await?.is_none());
    assert!(store.credentials(Login::Email("ana@example.com")).await?.is_none());
    let login = store.log_in(user.id, HASH, &device(own.id), &some_token()).await?;
    assert!(login.is_none());
    let made = store.ensure_login(user.id, DeviceId::generate(), "x", 0).await;
    assert!(matches!(made, Err(StoreError::Forbidden)), "{made:?}");
    let renamed = store.update_user(user.id, Some("Back"), None, None).await;
    assert!(matches!(renamed, Err(StoreError::NotFound)), "{renamed:?}");
    for search in [
        UserSearch::NamePrefix("a"),
        UserSearch::NamePrefix("Deleted"),
        UserSearch::Phone("+15550100"),
        UserSearch::Email("ana@example.com"),
    ] {
        assert_eq!(store.search_users(search, 10).await?, []);
    }
    assert_eq!(store.names(&[user.id]).await?[&user.id], DELETED_USER);
    // Nor does anybody make her take part in anything.
    let group = store.create_group(ben, Some("T"), false, &[], 0).await?.chat;
    let group_of = store.create_group(ben, Some("T"), false, &[user.id], 0).await;
    let opened = store.open_direct(ben, user.id, 0).await;
    for refused in [group_of, opened] {
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    }
    let added = store.add_participants(ben, group, &[user.id]).await;
    assert!(matches!(added, Err(StoreError::NotFound)), "{added:?}");
    assert!(matches!(store.block(ben, user.id).await, Err(StoreError::NotFound)));
    // What she had is anybody's.
    let other = new_user("Ana", Some("ana@example.com"), Some("+15550100"));
    store.create_user(&other).await?;
    Ok(())
}

#[tokio::test]
async fn an_outside_issuers_subject_is_remembered_by_its_hash() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let ensure = async |subject: &str, device: &str| {
        store.ensure_external("issuer", subject, device, Some("Ana"), 0).await
    };
    let (user, own) = ensure("ana", "phone").await?;
    assert_eq!(ensure("ana", "phone").await?, (user, own));
    assert!(store.delete_user(user, None, false).await?);
    for device in ["phone", "tablet"] {
        let back = ensure("ana", device).await;
        assert!(matches!(back, Err(StoreError::Forbidden)), "{back:?}");
    }
    part(&store, user, 1).await?;
    assert!(matches!(ensure("ana", "phone").await, Err(StoreError::Forbidden)));
    assert_ne!(ensure("ben", "phone").await?.0, user);
    let mut connection = PgConnection::connect(&database).await?;
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM users u JOIN devices d ON d.user_id = u.id
         WHERE u.id = $1 AND (u.external_subject NOT LIKE 'deleted:%' OR u.external_subject LIKE '%ana%'
                              OR d.external_id IS NOT NULL OR d.revoked_at IS NULL)",
    )
    .bind(user.0)
    .fetch_one(&mut connection)
    .await?;
    assert_eq!(left, 0);
    Ok(())
}

#[tokio::test]
async fn the_users_part_in_everything_ends_once() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let cleo = person(&store, "Cleo").await?;
    let hers = store.create_group(ana, Some("Hers"), false, &[ben, cleo], 0).await?.chat;
    let alone = store.create_group(ana, Some("Alone"), false, &[], 0).await?.chat;
    let left = store.create_group(ben, Some("Left"), false, &[ana], 0).await?.chat;
    store.set_role(ben, left, ana, Role::Admin, false).await?;
    let invite = NewInvite {
        id: natter_protocol::ids::InviteId::generate(),
        hash: [1; 32],
        good_for: Duration::from_hours(1),
        max_uses: None,
    };
    store.create_invite(ana, left, &invite).await?;
    store.leave(ana, left).await?;
    store.set_role(ana, hers, cleo, Role::Admin, false).await?;
    let direct = store.open_direct(ana, ben, 0).await?.chat;
    store.block(ana, cleo).await?;
    let broker = Broker::default();
    for chat in [hers, alone, left, direct] {
        relay(&store, &broker, chat.0).await?;
    }
    store.delete_user(ana, Some(HASH), false).await?;
    let lanes = part(&store, ana, 1).await?;
    // Whoever does it again finds nothing.
    assert_eq!(store.part(ana, 1).await?, None);
    let before = broker.stored().len();
    for lane in lanes {
        relay(&store, &broker, lane).await?;
    }
    let told = broker.stored().split_off(before);
    let of = |feed: Feed| -> Vec<Event> {
        let entries = told.iter().filter(|(_, told, _)| *told == feed);
        entries.map(|(.., entry)| entry.event.clone()).collect()
    };
    let system = |chat: ChatId| -> Vec<(SystemKind, Option<UserId>, String)> {
        let events = of(Feed::chat(0, chat)).into_iter();
        events
            .filter_map(|event| match event {
                Event::System(event) => Some((event.kind, event.user_id, event.msg)),
                _ => None,
            })
            .collect()
    };
    let gone = (SystemKind::Left, Some(ana), "Deleted user left".to_owned());
    let heir = (SystemKind::Role, Some(cleo), "Cleo is an owner now".to_owned());
    assert_eq!(system(hers), [gone.clone(), heir]);
    assert_eq!(system(alone), [gone]);
    assert_eq!(system(left), []);
    let own = of(Feed::user(0, ana));
    assert!(matches!(own[0], Event::ProfileChanged(_)), "{own:?}");
    assert!(matches!(own[1], Event::DeviceRevoked(_)), "{own:?}");
    let removed = own.iter().filter(|event| matches!(event, Event::ChatRemoved(_))).count();
    assert_eq!((own.len(), removed), (4, 2), "{own:?}");
    let bens = of(Feed::user(0, ben));
    assert_eq!(bens.len(), 2, "{bens:?}");
    assert!(bens.iter().any(|event| matches!(event, Event::Blocking(it) if it.shut)));
    assert!(bens.iter().any(|event| matches!(
        event, Event::ChatUpdated(chat) if chat.me.as_ref().is_some_and(|me| me.name == DELETED_USER)
    )));
    assert!(store.membership(ben, direct).await?.context("takes part")?.shut);
    store.unblock(ben, ana).await?;
    assert!(store.membership(ben, direct).await?.context("takes part")?.shut, "for good");
    assert!(store.open_direct(ben, ana, 0).await?.existed);
    assert!(matches!(store.invitation(&[1; 32]).await, Err(StoreError::NotFound)));
    assert_eq!(store.blocks(ana, None, 10).await?.0, []);

    // The second round comes later, and tells nobody anything.
    assert_eq!(store.take_erasure(LEASE).await?, None);
    assert_eq!(store.erasures_waiting().await?.0, 1);
    assert!(part(&store, ana, 2).await?.is_empty());
    assert_eq!(store.erasures_waiting().await?.0, 0);
    assert_eq!(store.part(ana, 2).await?, None);
    Ok(())
}

#[tokio::test]
async fn the_texts_of_what_happened_lose_the_name_and_nothing_else() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ben, Some("T"), false, &[ana], 0).await?.chat;
    persist(
        &store,
        &[
            system(chat, ana, 1, "Ana joined"),
            system(chat, ana, 2, "Anastasia joined"),
            system(chat, ben, 3, "Ana and Ben talk"),
            message(chat, ana, 4, "a", "Ana writes to Ana"),
        ],
    )
    .await?;
    store.delete_user(ana, Some(HASH), false).await?;
    part(&store, ana, 1).await?;
    let page = natter_store::Page { before: None, after: None, limit: 10 };
    let shown = store.history(chat, page).await?.messages;
    let texts: Vec<&str> = shown.iter().map(|message| message.content.as_str()).collect();
    let expected =
        ["Deleted user joined", "Anastasia joined", "Ana and Ben talk", "Ana writes to Ana"];
    assert_eq!(texts, expected);
    assert_eq!(shown[3].sender.name, DELETED_USER);
    Ok(())
}

#[tokio::test]
async fn what_was_said_is_taken_back_bit_by_bit() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let mut chats = Vec::new();
    for _ in 0..3 {
        chats.push(store.create_group(ben, Some("T"), false, &[ana], 0).await?.chat);
    }
    chats.sort_unstable();
    let mut rows = vec![message(chats[2], ben, 1, "his", "his")];
    for seq in 2..9 {
        // In the first and the last chat.
        let chat = chats[(seq % 2) as usize * 2];
        rows.push(message(chat, ana, seq, &format!("client {seq}"), "hers"));
    }
    rows.push(reaction(chats[2], ben, "his", ana, (1, 10)));
    rows.push(reaction(chats[2], ana, "client 3", ana, (3, 11)));
    persist(&store, &rows).await?;
    store.delete_user(ana, Some(HASH), true).await?;
    part(&store, ana, 1).await?;
    let mut erasure = store.take_erasure(LEASE).await?.context("due")?;
    assert_eq!(store.take_erasure(LEASE).await?, None, "one has it in hand");
    assert_eq!((erasure.user, erasure.step, erasure.begins()), (ana, Step::Messages, true));
    let mut found: Vec<(ChatId, Seq)> = Vec::new();
    while erasure.step == Step::Messages {
        let bit = store.messages_to_erase(&erasure, 2).await?;
        assert!(bit.entries.len() <= 2);
        found.extend(bit.entries.iter().map(|message| (message.chat, message.seq)));
        store.erased(&bit.after, Duration::ZERO).await?;
        // As another would find it.
        erasure = store.take_erasure(LEASE).await?.context("due")?;
        assert_eq!(erasure, bit.after);
    }
    let mut all: Vec<(ChatId, Seq)> =
        (2..9).map(|seq| (chats[(seq % 2) as usize * 2], seq)).collect();
    all.sort_unstable();
    assert_eq!(found, all);
    let mut found = Vec::new();
    while erasure.step == Step::Reactions {
        let bit = store.reactions_to_erase(&erasure, 1).await?;
        found.extend(bit.entries.iter().map(|reaction| (reaction.message.seq, reaction.seq)));
        store.erased(&bit.after, Duration::ZERO).await?;
        erasure = bit.after;
    }
    assert_eq!(found, [(1, 10), (3, 11)]);
    // Once more, later.
    assert_eq!(store.take_erasure(LEASE).await?, None);
    assert!(part(&store, ana, 2).await?.is_empty());
    let erasure = store.take_erasure(LEASE).await?.context("due")?;
    assert_eq!((erasure.step, erasure.round), (Step::Messages, 2));
    Ok(())
}

/// Somebody is added and deletes their account at once: they are refused, or leave again.
#[tokio::test]
async fn nobody_slips_in_while_the_account_is_deleted() -> Result<()> {
    let store = store().await?;
    let ben = person(&store, "Ben").await?;
    for round in 0..20 {
        let ana = person(&store, "Ana").await?;
        let group = store.create_group(ben, Some("T"), false, &[], 0).await?.chat;
        if round % 2 == 0 {
            // Somebody who comes back has a row already.
            store.add_participants(ben, group, &[ana]).await?;
            store.leave(ana, group).await?;
        }
        let added = [ana];
        let (added, opened, deleted) = tokio::join!(
            store.add_participants(ben, group, &added),
            store.open_direct(ben, ana, 0),
            store.delete_user(ana, Some(HASH), false),
        );
        assert!(deleted?);
        part(&store, ana, 1).await?;
        assert!(added.is_ok() || matches!(added, Err(StoreError::NotFound)), "{added:?}");
        assert_eq!(store.membership(ana, group).await?, None);
        match opened {
            Ok(direct) => assert!(store.membership(ben, direct.chat).await?.context("his")?.shut),
            Err(error) => assert!(matches!(error, StoreError::NotFound), "{error:?}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn all_that_is_the_users_is_found_page_by_page() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let here = store.create_group(ana, Some("Here"), false, &[ben], 0).await?.chat;
    let left = store.create_group(ben, Some("Left"), false, &[ana], 0).await?.chat;
    store.leave(ana, left).await?;
    let direct = store.open_direct(ana, ben, 0).await?.chat;
    store.hide(ana, direct, 0).await?;
    persist(
        &store,
        &[
            message(here, ana, 1, "b", "second"),
            message(here, ana, 2, "a", "first"),
            message(here, ben, 3, "c", "his"),
            message(left, ana, 4, "d", "left"),
            reaction(here, ben, "c", ana, (3, 5)),
        ],
    )
    .await?;
    let (mut parts, mut after) = (Vec::new(), None);
    loop {
        let page = store.own_parts(ana, after, 1).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.chat_id);
        parts.extend(page);
    }
    let of = |chat| parts.iter().find(|part| part.chat_id == chat).context("missing");
    assert_eq!(parts.len(), 3);
    assert_eq!(of(here)?.chat.as_ref().and_then(|chat| chat.title.as_deref()), Some("Here"));
    assert!(of(left)?.chat.is_none() && of(left)?.left_at.is_some());
    assert!(of(direct)?.chat.is_some() && !of(direct)?.is_group, "hidden ones too");
    let page = store.own_messages(ana, here, None, 1, false).await?;
    assert_eq!((page.len(), page[0].content.as_str()), (1, "first"));
    let page = store.own_messages(ana, here, Some("a"), 10, false).await?;
    assert_eq!((page.len(), page[0].content.as_str()), (1, "second"));
    assert_eq!(store.own_messages(ana, left, None, 10, false).await?.len(), 1);
    assert_eq!(store.own_messages(ana, here, None, 10, true).await?, []);
    let reactions = store.own_reactions(ana, None, 10).await?;
    assert_eq!(reactions.len(), 1);
    assert_eq!(reactions[0].message_id, Some(MessageId::derive(here, ben, "c")));
    let after = Some(&reactions[0].key);
    assert_eq!(store.own_reactions(ana, after, 10).await?, []);
    Ok(())
}
