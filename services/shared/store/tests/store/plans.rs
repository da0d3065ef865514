//! What is asked at every handshake, request and batch goes by an index, however much there is.

use std::time::Duration;

use anyhow::{Context, Result};
use natter_protocol::{
    feed::{self, Deleted, Edited, Expired, Feed, Reacted},
    ids::{ChatId, DeviceId, EndpointId, MessageId, Seq, ServiceTokenId, UserId},
    notify::{PushReason, PushState},
    push::{self, Provider, Target},
    server::Role,
};
use natter_store::{
    Attempted, Behind, Called, ChatEdit, Decided, DeliveryCursor, FillRow, Indexer, LaneKey,
    LanePlace, LaneSave, Login, MessageSearch, Muting, NewHookLetter, NewPush, Page, Purged,
    PushKey, Row, RowKind, Store, StoreConfig, UserSearch, Words,
};
use sqlx::{Connection, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    reads::read,
    search::filter as anything,
    support::{Broker, LEASE, OWNER, at, device, message, relay, some_token},
};

/// Postgres plans a prepared statement for its values at first and for any values later, which
/// may be another plan.
const REPEATS: u128 = 8;
const PATIENCE: Duration = Duration::from_mins(1);

/// 20,000 people with a device each, half of whom have blocked somebody, and 2,000 chats of 25 of them,
/// a fifth of whom have left, with some who are banned, and an invite. Half of the chats have 40
/// messages; in all of them some changes wait to be relayed.
const CROWD: &str = "
    CREATE FUNCTION id(n bigint) RETURNS uuid IMMUTABLE LANGUAGE sql
        AS $$ SELECT lpad(to_hex(n), 32, '0')::uuid $$;
    INSERT INTO users (id, name, name_lower, phone, email, email_lower, password_hash, shard)
    SELECT id(n), 'P' || n, 'p' || n, n::text, 'p' || n, 'p' || n, '$', 0
    FROM generate_series(1, 20000) AS n;
    INSERT INTO devices (id, user_id, session) SELECT id(n), id(n), id(n)
    FROM generate_series(1, 20000) AS n;
    INSERT INTO refresh_tokens (hash, family, user_id, device_id, expires_at)
    SELECT decode(lpad(to_hex(n), 64, '0'), 'hex'), id(n), id(n), id(n), now() + interval '1 day'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO chats (id, is_group, title, title_lower, created_by, created_at, shard, members,
                       last_activity_at, open, last_message_seq, oldest_at)
    SELECT id(n), true, 'C', 'c', id(1), now(), 0, 25, now() - n * interval '1 s', true, n,
           now() - n * interval '1 s'
    FROM generate_series(1, 2000) AS n;
    INSERT INTO chat_members (chat_id, user_id, role, joined_at, version, left_at)
    SELECT id(n), id((n * 10 + m) % 20000 + 1), 'member', now(), 1,
           CASE WHEN m % 5 = 0 THEN now() END
    FROM generate_series(1, 2000) AS n, generate_series(1, 25) AS m;
    INSERT INTO messages (chat_id, seq, kind, id, sender_id, client_msg_id, created_at)
    SELECT id(n), m * 2000 + n, 'message', id(m * 2000 + n), id(1), m::text, now()
    FROM generate_series(1, 1000) AS n, generate_series(0, 39) AS m;
    INSERT INTO reactions (chat_id, message_seq, user_id, emoji, seq, active)
    SELECT id(n), m * 2000 + n, id(u), 'x', 1, true
    FROM generate_series(1, 1000) AS n, generate_series(0, 9) AS m, generate_series(1, 5) AS u;
    INSERT INTO reaction_counts (chat_id, message_seq, emoji, count)
    SELECT chat_id, message_seq, emoji, count(*) FROM reactions GROUP BY 1, 2, 3;
    INSERT INTO message_search (chat_id, seq, at, words)
    SELECT chat_id, seq, created_at, ('''w' || seq || ''':1 ''everywhere'':2 ''@0000000000000001''')::tsvector
    FROM messages;
    INSERT INTO search_words SELECT 'w' || seq FROM messages;
    INSERT INTO outbox (lane, payload)
    SELECT id(n), jsonb_build_object('users', jsonb_build_array(jsonb_build_object(
               'userId', id((n * 10 + m) % 20000 + 1), 'shard', 0, 'change', 'removed')))
    FROM generate_series(1, 2000) AS n, generate_series(1, 5) AS m;
    INSERT INTO blocks (user_id, blocked_id) SELECT id(n), id(n + 10000)
    FROM generate_series(1, 10000) AS n;
    INSERT INTO chat_bans (chat_id, user_id, banned_by) SELECT id(n), id(n + 10000 + m), id(1)
    FROM generate_series(1, 2000) AS n, generate_series(1, 5) AS m;
    INSERT INTO erasures (user_id, messages, step) SELECT id(n), false, 'done'
    FROM generate_series(1, 20000) AS n;
    INSERT INTO chat_invites (id, chat_id, hash, created_by, expires_at)
    SELECT id(n), id(n), decode(lpad(to_hex(n), 64, '0'), 'hex'), id(1), now() + interval '1 day'
    FROM generate_series(1, 2000) AS n;
    INSERT INTO push_targets (device_id, user_id, id, provider, target, hash)
    SELECT id(n), id(n), id(n), 'webhook', '{\"provider\": \"webhook\", \"token\": \"t\"}',
           decode(lpad(to_hex(n), 64, '0'), 'hex')
    FROM generate_series(1, 20000) AS n;
    UPDATE users SET external_id = 'x' || name;
    INSERT INTO service_tokens (id, name, hash, scopes)
    SELECT id(n), 'T', '\\x00', '{users}' FROM generate_series(1, 20000) AS n;
    INSERT INTO notification_settings (user_id) SELECT id(n) FROM generate_series(1, 20000) AS n;
    INSERT INTO push_decisions (message_id, after_user, chat_id, seq, users, reasons, decided_at)
    SELECT id(m * 2000 + n), id(0), id(n), m * 2000 + n, ARRAY[id(1)], '{s}', now() - m * interval '1 h'
    FROM generate_series(1, 1000) AS n, generate_series(0, 39) AS m;
    INSERT INTO pushes (message_id, device_id, user_id, chat_id, seq, provider, target_id, queued_at)
    SELECT id(m * 2000 + n), id(n * 10 + u), id(n * 10 + u), id(n), m * 2000 + n, 'webhook',
           id(n * 10 + u), now() - m * interval '1 h'
    FROM generate_series(1, 1000) AS n, generate_series(0, 19) AS m, generate_series(3, 4) AS u;
    INSERT INTO webhook_endpoints (id, name, url, secret)
    SELECT id(n), n::text, 'http://127.0.0.1/', 's' FROM generate_series(1, 2000) AS n;
    INSERT INTO webhook_lanes (endpoint_id, shard, from_at, owner, owner_until)
    SELECT id(n), s, now(), 'owner', now() + interval '1 h'
    FROM generate_series(1, 2000) AS n, generate_series(0, 9) AS s;
    INSERT INTO webhook_fills (shard, owner, log_seq)
    SELECT s, 'owner', 0 FROM generate_series(0, 2000) AS s;
    INSERT INTO webhook_behind (endpoint_id, shard, kind, feed_id, seq, log_seq, at, due_at)
    SELECT id(n), 0, 'chat', id(m), 1, 1, now(), now()
    FROM generate_series(1, 2000) AS n, generate_series(1, 20) AS m;
    INSERT INTO webhook_dead_letters (endpoint_id, shard, seq, kind, feed_id, event_id, type, at,
                                      attempts, answer, replay_at)
    SELECT id(n), 0, m, 'chat', id(m), 'e', 't', now(), 1, '', CASE WHEN m = 1 THEN now() END
    FROM generate_series(1, 2000) AS n, generate_series(1, 20) AS m;
    ANALYZE;";

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn chat(n: u128) -> ChatId {
    ChatId(Uuid::from_u128(n))
}

/// One of the chat with the same number.
fn message_of(n: u128) -> MessageId {
    MessageId(Uuid::from_u128(2_000 + n))
}

fn device_of(n: u128) -> DeviceId {
    DeviceId(Uuid::from_u128(n))
}

/// The places of as many messages as a batch of a backlog has, in 125 chats.
fn backlog() -> Result<Vec<(ChatId, Seq)>> {
    let places = (1..=125).flat_map(|n| (0..40).map(move |m| (n, m * 2_000 + n)));
    places.map(|(n, place)| Ok((chat(n), Seq::try_from(place)?))).collect()
}

/// How often each table was read from its beginning so far.
async fn scans(connection: &mut PgConnection) -> Result<Vec<(String, i64)>> {
    let scans = sqlx::query_as(
        // Of a few rows each; a setting says how many endpoints there may be.
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables
         WHERE relname NOT IN ('shards', 'search_progress', 'webhook_endpoints', '_sqlx_migrations')
         ORDER BY relname",
    );
    Ok(scans.fetch_all(connection).await?)
}

/// A connection's statistics are there when it has ended, at the latest.
async fn until_alone(connection: &mut PgConnection) -> Result<()> {
    let others = "SELECT count(*) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()
                    AND backend_type = 'client backend'";
    let alone = async {
        while sqlx::query_scalar::<_, i64>(others).fetch_one(&mut *connection).await? > 0 {}
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, alone).await.context("others stay")?
}

fn number(n: u128) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[16..].copy_from_slice(&n.to_be_bytes());
    hash
}

/// The first participant who owns it.
async fn owner_of(store: &Store, chat: ChatId) -> Result<UserId> {
    let (people, _) = store.participants(chat, None, 50).await?;
    let owner = people.iter().find(|one| one.role == Role::Owner);
    Ok(owner.context("nobody owns it")?.id)
}

/// What gateways and workers ask again and again; `n` is another one each time.
async fn ask(store: &Store, what: &str, n: u128) -> Result<()> {
    let (ana, chat, phone) = (user(n), chat(n), n.to_string());
    let page = Page { before: None, after: None, limit: 50 };
    let place = Seq::try_from(n)? * 2 + 99_999;
    match what {
        "device_state" => drop(store.device_state(ana, device_of(n)).await?.context("there")?),
        "devices" => drop(store.devices(ana).await?),
        "touch_devices" => store.touch_devices(&[(device_of(n), at(1))]).await?,
        "credentials" => {
            store.credentials(Login::Phone(&phone)).await?.context("there")?;
            store.credentials(Login::Email(&format!("P{n}"))).await?.context("there")?;
        }
        "service_token" => {
            let token = ServiceTokenId(ana.0);
            store.service_token(token).await?.context("there")?;
            store.note_service_token(token).await?;
        }
        "managed" => {
            let id = format!("xP{n}");
            store.managed(Called::ExternalId(&id)).await?.context("there")?;
            store.managed(Called::Id(ana)).await?.context("there")?;
            store.speaker(ana).await?.context("there")?;
            store.chat_shard(chat).await?.context("there")?;
            store.set_disabled(ana, true).await?;
            store.set_disabled(ana, false).await?;
            let phone = DeviceId(Uuid::from_u128(1_000_000 + n));
            store.log_device_in(ana, &device(phone), &some_token()).await?;
        }
        "names" => drop(store.names(&[ana]).await?),
        "search" => {
            store.search_users(UserSearch::NamePrefix(&format!("p{n}")), 10).await?;
            store.search_users(UserSearch::Phone(&phone), 10).await?;
            store.search_users(UserSearch::Email(&phone), 10).await?;
        }
        "log_in" => drop(store.log_in(ana, "$", &device(device_of(n)), &some_token()).await?),
        "rotate_refresh" => {
            store.rotate_refresh(&number(n), &some_token()).await?;
        }
        "join_by_invite" => drop(store.join_by_invite(user(n + 5_000), &number(n)).await?),
        "invitation" => drop(store.invitation(&number(n)).await?),
        // Nobody owns these groups yet: one of them does from here on.
        "set_role" => {
            let member = user(n * 10 + 3);
            store.set_role(member, chat, member, Role::Member, false).await?;
        }
        "update_chat" => {
            let title = ChatEdit { title: Some(&phone), ..ChatEdit::default() };
            store.update_chat(owner_of(store, chat).await?, chat, &title).await?;
        }
        "remove_participant" => {
            let (owner, member) = (owner_of(store, chat).await?, user(n * 10 + 5));
            store.remove_participant(owner, chat, member, true).await?;
        }
        "add_participants" => {
            let owner = owner_of(store, chat).await?;
            store.add_participants(owner, chat, &[user(n + 6_000), user(n + 7_000)]).await?;
        }
        "bans" => drop(store.bans(owner_of(store, chat).await?, chat, None, 10).await?),
        "invites" => drop(store.invites(owner_of(store, chat).await?, chat).await?),
        "block" => {
            store.block(ana, user(n + 3)).await?;
            store.blocks(ana, None, 10).await?;
            store.unblock(ana, user(n + 3)).await?;
        }
        "delete_chat" => drop(store.delete_chat(owner_of(store, chat).await?, chat).await?),
        "sign_out" => drop(store.sign_out(ana, device_of(n)).await?),
        "followed" => drop(store.followed(ana).await?),
        "membership" => drop(store.membership(ana, chat).await?),
        "shares_chat" => drop(store.shares_chat(ana, &[user(n + 1), user(n + 2)]).await?),
        "participants" => drop(store.participants(chat, None, 50).await?),
        "chats" => drop(store.chats(ana, None, 50, None).await?),
        "chats searched" => drop(store.chats(ana, None, 50, Some("c")).await?),
        "chat" => drop(store.chat(ana, chat).await?),
        "history" => {
            store.history(chat, page).await?;
            store.history(chat, Page { before: Some(50_000), ..page }).await?;
            store.history(chat, Page { after: Some(50_000), ..page }).await?;
        }
        "receipts" => drop(store.receipts(chat, 256).await?),
        "size" => drop(store.size(chat).await?.context("there")?),
        "unread_total" => drop(store.unread_total(ana).await?),
        "mute" => drop(store.mute(user(n * 10 + 2), chat, Muting::Forever).await?),
        "search_messages" => {
            for (text, fuzzy, ranked) in
                [("everywhere", false, false), ("everywhere w", false, true), (&phone, true, false)]
            {
                let words = Some(Words::parse(text)?);
                let search = MessageSearch { words, fuzzy, ranked, ..anything(ana) };
                store.search_messages(search).await?;
            }
            store.search_messages(MessageSearch { chat: Some(chat), ..anything(ana) }).await?;
        }
        "follow" => {
            let mut indexer = Indexer::new(store, 0);
            indexer.follow(0, 0, &[(chat, Seq::try_from(n)? + 2_000)]).await?;
        }
        "follow_backlog" => Indexer::new(store, 0).follow(0, 0, &backlog()?).await.map(drop)?,
        "change_backlog" => {
            let (from, _) = store.persisted_until(0).await?;
            let on = n.is_multiple_of(2);
            let rows = backlog()?.into_iter().zip(from + 1..).map(|((chat, place), seq)| {
                let message_id = MessageId(Uuid::from_u128(place.into()));
                let target = feed::Target { message_id, message_seq: place };
                let reacted = Reacted { target, user_id: user(9), emoji: "z".to_owned(), on };
                let kind = RowKind::Reaction(reacted);
                Row { feed: Feed::chat(0, chat), seq, at: at(seq), kind }
            });
            let rows: Vec<Row> = rows.collect();
            let to = rows[rows.len() - 1].seq;
            store.persist(0, OWNER, from, to, at(to), &rows).await?;
        }
        "own_parts" => drop(store.own_parts(ana, None, 50).await?),
        "own_messages" => drop(store.own_messages(user(1), chat, Some("7"), 50, false).await?),
        "own_reactions" => drop(store.own_reactions(user(n), None, 50).await?),
        "take_erasure" => {
            anyhow::ensure!(store.take_erasure(LEASE).await?.is_none());
            anyhow::ensure!(store.erasures_waiting().await?.0 == 0);
        }
        "sent_before" => drop(store.sent_before(chat, user(1), "7").await?),
        "join" => drop(store.join(ana, chat).await?),
        "leave" => drop(store.leave(ana, chat).await?),
        "create_group" => drop(store.create_group(ana, None, false, &[user(n + 1)], 0).await?),
        "open_direct" => drop(store.open_direct(ana, user(n + 1), 0).await?),
        "lanes_waiting" => drop(store.lanes_waiting(Duration::ZERO, 500, 10).await?),
        "outbox_backlog" => drop(store.outbox_backlog(100).await?),
        "relay" => drop(relay(store, &Broker::default(), chat.0).await?),
        "persist" => {
            let rows = [message(chat, ana, place, &phone, "x"), read(ana, chat, place + 1, place)];
            let to = place + 1;
            store.persist(0, OWNER, to - 2, to, at(to), &rows).await?;
        }
        "message" => drop(store.message(chat, message_of(n)).await?.1.context("there")?),
        "around" => {
            let places = [2_000 + Seq::try_from(n)?, 4_000 + Seq::try_from(n)?];
            let asked = [(places[0], user(2), "x")];
            let around = store.around(chat, user(1), &places, &asked, &[message_of(n)], 0).await?;
            let found = (around.reactions.len(), around.set.len(), around.quotes.len());
            anyhow::ensure!(found == (2, 1, 1), "{found:?}");
        }
        "feed" => drop(store.feed(chat, 0, 50_000, 200).await?),
        "take_part" => drop(store.take_part(chat, &[user(n + 1), user(n + 2)]).await?),
        "change" => {
            let place = place + 1_000;
            let message_seq = 2_000 + Seq::try_from(n)?;
            let target = feed::Target { message_id: message_of(n), message_seq };
            let next = feed::Target {
                message_id: MessageId(Uuid::from_u128(4_000 + n)),
                message_seq: message_seq + 2_000,
            };
            let (actor_id, user_id, emoji) = (user(1), user(9), "y".to_owned());
            let kinds = [
                RowKind::Edit(Edited { target, actor_id, content: "y".into(), mentions: vec![] }),
                RowKind::Reaction(Reacted { target, user_id, emoji, on: true }),
                RowKind::Delete(Deleted { target: next, actor_id }),
            ];
            let (from, _) = store.persisted_until(0).await?;
            let mut rows = Vec::new();
            for (more, kind) in kinds.into_iter().enumerate() {
                let seq = from.max(place) + 1 + more as Seq;
                rows.push(Row { feed: Feed::chat(0, chat), seq, at: at(seq), kind });
            }
            let to = rows[2].seq;
            store.persist(0, OWNER, from, to, at(to), &rows).await?;
            anyhow::ensure!(
                store.message(chat, next.message_id).await?.1.context("there")?.deleted
            );
        }
        "take_aging" => drop(store.take_aging(Some(LEASE), LEASE, 10).await?),
        "find_cut" => {
            let kept = ChatEdit { retention_secs: Some(Some(1)), ..ChatEdit::default() };
            store.update_chat(owner_of(store, chat).await?, chat, &kept).await?;
            for aging in store.take_aging(None, LEASE, 10).await? {
                store.find_cut(&aging, at(1)).await?;
            }
        }
        "begins" => drop(store.begins(&[chat]).await?),
        "expire" => {
            let (from, _) = store.persisted_until(0).await?;
            let (seq, up_to) = (from + 1, Seq::try_from(n)? + 10_000);
            let kind = RowKind::Expired(Expired { up_to });
            let row = Row { feed: Feed::chat(0, chat), seq, at: at(seq), kind };
            store.persist(0, OWNER, from, seq, at(seq), &[row]).await?;
        }
        "purge" => {
            store.empty_deleted(Duration::ZERO, 2).await?;
            for chat in store.chats_to_purge(None, 10).await? {
                while let Purged::Some(_) = store.purge(chat, 20).await? {}
            }
        }
        "push_target" => {
            let target = Target::Webhook(push::Registration { token: phone.clone() });
            let session = Some(Uuid::from_u128(n));
            store.set_push_target(ana, device_of(n), session, &target, None).await?;
            store.push_target(ana, device_of(n)).await?.context("there")?;
            store.begin_push_test(ana, device_of(n)).await?;
            store.drop_push_target(ana, device_of(n)).await?;
            store.notification_settings(ana).await?;
        }
        "decide" => {
            let nobody = UserId(Uuid::nil());
            let pages =
                store.push_pages(&[(chat, nobody)], &[user(2)], &[Provider::Webhook]).await?;
            let page = &pages[0];
            anyhow::ensure!(page.len() == 20 && page.iter().any(|who| !who.targets.is_empty()));
            anyhow::ensure!(store.push_progress(&[message_of(n)]).await?.len() == 1);
            let place = 2_000 + Seq::try_from(n)?;
            anyhow::ensure!(
                store.still_there(&[(chat, place)]).await? == [((chat, place), true)].into()
            );
            let target = page.iter().find_map(|who| who.targets.first()).context("no target")?;
            let push = NewPush { user: page[0].user, target: *target, mentioned: false };
            let decided = Decided {
                message: MessageId(Uuid::from_u128(1_000_000 + n)),
                chat,
                seq: place,
                after: nobody,
                upto: None,
                skipped: vec![(user(1), PushReason::Sender)],
                whole: None,
                pushes: vec![push],
            };
            anyhow::ensure!(store.keep_decisions(&[decided]).await? == [(0, 0)]);
            store.queued_pushes(message_of(n), DeviceId(Uuid::nil())).await?;
        }
        "send" => {
            let keys: Vec<PushKey> =
                (3..5).map(|device| (message_of(n), device_of(n * 10 + device))).collect();
            let (lease, age) = (LEASE, Duration::from_hours(100));
            let claimed = store.claim_pushes(&keys, lease, age).await?;
            anyhow::ensure!(claimed.len() == 2, "{claimed:?}");
            let attempts = keys.into_iter().map(|key| Attempted {
                key,
                attempt: 1,
                state: PushState::Delivered,
                reason: None,
                again: None,
                answer: "201".to_owned(),
                sent: true,
            });
            store.keep_attempts(&attempts.collect::<Vec<_>>()).await?;
        }
        "delivery" => {
            store.explainable(user(n * 10 + 3), message_of(n)).await?;
            let page = store.deliveries(message_of(n), DeliveryCursor::default(), 50).await?;
            anyhow::ensure!(page.items.len() == 3, "{page:?}");
        }
        "tell" => {
            let endpoint = EndpointId(Uuid::from_u128(n));
            let key = LaneKey { endpoint, shard: 0 };
            anyhow::ensure!(store.behind(key).await?.len() == 20);
            anyhow::ensure!(store.letters_to_replay(key, 16).await?.len() == 1);
            anyhow::ensure!(store.webhook_letters(endpoint, 0, 100).await?.len() == 20);
            anyhow::ensure!(store.forget_letters(key, 3).await? == 2);
            let feed = Feed::chat(0, chat);
            let letter = NewHookLetter {
                seq: 100,
                feed,
                event_id: "e".to_owned(),
                r#type: "t".to_owned(),
                at: at(1),
                attempts: 1,
                answer: String::new(),
            };
            let place = LanePlace {
                key,
                generation: 0,
                seq: None,
                log_seq: 0,
                from_at: at(1),
                replay: false,
            };
            let behind = Behind {
                feed,
                seq: 7,
                log_seq: 7,
                at: at(1),
                attempts: 1,
                failing_since: Some(at(1)),
                due_at: at(2),
            };
            let save = LaneSave {
                behind: vec![behind],
                caught_up: vec![Feed::chat(0, ChatId(Uuid::from_u128(20)))],
                letters: vec![letter],
                most_letters: 10,
                ..LaneSave::default()
            };
            anyhow::ensure!(store.save_lane("owner", &place, &save).await? == 9);
            let fill = FillRow { log_seq: 1, stream_seq: 1 };
            store.save_fill(u16::try_from(n)?, "owner", fill, 0).await?;
        }
        "forget" => {
            let (kept, now) = (Duration::from_hours(38), OffsetDateTime::now_utc());
            store.forget_pushes(kept).await?;
            store.give_up_pushes(now - kept, now - Duration::from_hours(18)).await?;
        }
        _ => anyhow::bail!("nobody asks {what}"),
    }
    Ok(())
}

#[tokio::test]
async fn nothing_that_is_asked_often_reads_a_whole_table() -> Result<()> {
    let database = natter_cluster::testing::postgres().await?;
    let config = StoreConfig {
        // One connection, which then plans each statement often enough.
        max_connections: 1,
        acquire_timeout: Duration::from_secs(30),
        ..StoreConfig::new(database.as_str())
    };
    let store = Store::connect(&config)?;
    store.migrate().await?;
    store.ensure_shards(1).await?;
    store.start_epoch(0, 1, 100_001, None).await?;
    store.claim_shard(0, OWNER, LEASE).await?.context("free")?;
    store.close();
    let mut admin = PgConnection::connect(&database).await?;
    sqlx::raw_sql(CROWD).execute(&mut admin).await?;
    until_alone(&mut admin).await?;

    let mut found = Vec::new();
    for what in [
        "device_state",
        "devices",
        "touch_devices",
        "credentials",
        "service_token",
        "managed",
        "names",
        "search",
        "followed",
        "membership",
        "shares_chat",
        "participants",
        "chats",
        "chats searched",
        "chat",
        "history",
        "search_messages",
        "follow",
        "follow_backlog",
        "sent_before",
        "own_parts",
        "own_messages",
        "own_reactions",
        "take_erasure",
        "receipts",
        "size",
        "unread_total",
        "mute",
        "decide",
        "send",
        "delivery",
        "forget",
        "tell",
        "persist",
        "message",
        "around",
        "feed",
        "take_part",
        "change",
        "change_backlog",
        "relay",
        "lanes_waiting",
        "outbox_backlog",
        "join",
        "leave",
        "create_group",
        "open_direct",
        "join_by_invite",
        "invitation",
        "set_role",
        "update_chat",
        "remove_participant",
        "add_participants",
        "bans",
        "invites",
        "take_aging",
        "find_cut",
        "begins",
        "block",
        "delete_chat",
        "expire",
        "purge",
        "push_target",
        "log_in",
        "rotate_refresh",
        "sign_out",
    ] {
        let before = scans(&mut admin).await?;
        let store = Store::connect(&config)?;
        for n in 1..=REPEATS {
            ask(&store, what, n).await.with_context(|| what.to_owned())?;
        }
        store.close();
        until_alone(&mut admin).await?;
        let after = scans(&mut admin).await?;
        let more = after.into_iter().zip(before).filter(|(after, before)| after != before);
        found.extend(more.map(|((table, _), _)| format!("{what}: all of {table}")));
    }
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn messages_are_partitioned_by_chat() -> Result<()> {
    let database = natter_cluster::testing::postgres().await?;
    Store::connect(&StoreConfig::new(database.as_str()))?.migrate().await?;
    let mut admin = PgConnection::connect(&database).await?;
    let (key, parts): (String, i64) = sqlx::query_as(
        "SELECT pg_get_partkeydef('messages'::regclass),
                (SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass)",
    )
    .fetch_one(&mut admin)
    .await?;
    assert_eq!((key.as_str(), parts), ("HASH (chat_id)", 16));
    Ok(())
}
