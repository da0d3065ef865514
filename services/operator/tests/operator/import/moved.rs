//! A whole system is moved over: killed on the way and gone on with, done twice, and compared row by row.
//!
//! `NATTER_IMPORT_MESSAGES=1000000 cargo test --release --test operator -- moved --nocapture` does it with a
//! million, and prints rows per second.

use std::{collections::HashMap, io::Write as _, time::Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use natter_cluster::Cluster;
use natter_e2e::soon::within;
use natter_protocol::imported::ImportedKind;
use sqlx::{Connection, Executor, PgConnection, Row};
use uuid::Uuid;

use super::{
    command::{Import, counted},
    old::{Old, Size},
};

/// What everything that an import writes is, in a line a table.
const EVERYTHING: &str = "
    SELECT 'users', count(*), md5(string_agg(t::text, '' ORDER BY id)) FROM (
        SELECT id, name, phone, email, password_hash, deleted_at FROM users
        WHERE id <> '00000000-0000-0000-0000-000000000000') t
    UNION ALL SELECT 'devices', count(*), md5(string_agg(t::text, '' ORDER BY id)) FROM devices t
    UNION ALL SELECT 'chats', count(*), md5(string_agg(t::text, '' ORDER BY id)) FROM (
        SELECT id, is_group, title, direct_key, created_by, created_at, members, last_seq,
               last_message_seq, last_activity_at, message_count FROM chats) t
    UNION ALL SELECT 'members', count(*), md5(string_agg(t::text, '' ORDER BY chat_id, user_id))
        FROM chat_members t
    UNION ALL SELECT 'files', count(*), md5(string_agg(t::text, '' ORDER BY id)) FROM imported_files t
    UNION ALL SELECT 'downloads', count(*), md5(string_agg(t::text, '' ORDER BY id))
        FROM media_downloads t
    UNION ALL SELECT 'messages', count(*), md5(string_agg(part, '' ORDER BY chat_id)) FROM (
        SELECT chat_id, md5(string_agg(t::text, '' ORDER BY seq)) AS part FROM messages t
        GROUP BY chat_id) m";

fn size() -> Result<Size> {
    let messages = std::env::var("NATTER_IMPORT_MESSAGES").unwrap_or_else(|_| "100000".to_owned());
    let messages: u32 = messages.parse().context("NATTER_IMPORT_MESSAGES")?;
    Ok(Size { messages, chats: messages / 200, users: messages / 50 })
}

/// The server tells tables in any order.
async fn everything(db: &mut PgConnection) -> Result<Vec<(String, i64, Option<String>)>> {
    let mut tables: Vec<_> = sqlx::query_as(EVERYTHING).fetch_all(db).await?;
    tables.sort();
    Ok(tables)
}

#[tokio::test]
async fn a_system_is_moved_over_though_it_is_killed_on_the_way() -> Result<()> {
    let size = size()?;
    let cluster = Cluster::builder().gateways(1).shards(2).start().await?;
    let mut old = Old::filled(size).await?;
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    let source = old.url.clone();
    let import = Import { cluster: &cluster, source: &source };
    let dry = import.report(&["--dry-run"]).await?;
    ensure!(counted(&dry, "messages", "read") == u64::from(size.messages), "{dry}");
    ensure!(counted(&dry, "messages", "leftOut") == 0, "{dry}");
    let none: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM users WHERE deleted_at IS NULL) + (SELECT count(*) FROM chats)
              + (SELECT count(*) FROM imports)",
    )
    .fetch_one(&mut new)
    .await?;
    ensure!(none == 0, "a dry run has written {none} rows");

    let began = Instant::now();
    // Killed while it writes messages, in small batches so that it is in the middle of them.
    let mut child = import.begin(&["--batch", "500"])?;
    let killed = within(std::time::Duration::from_mins(2), "some messages", async || {
        ensure!(child.try_wait()?.is_none(), "it is over already");
        let stage: Option<String> = sqlx::query_scalar(
            "SELECT stage FROM imports WHERE report #> '{kinds,messages}' IS NOT NULL",
        )
        .fetch_optional(&mut new)
        .await?;
        Ok(stage)
    })
    .await?;
    child.kill().await?;
    ensure!(killed == "messages", "it was killed at {killed}");
    let some: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut new).await?;
    ensure!(some > 0 && some < i64::from(size.messages), "{some} messages when it was killed");
    let open: i64 =
        sqlx::query_scalar("SELECT count(*) FROM chat_members").fetch_one(&mut new).await?;
    ensure!(open == 0, "a chat is open before all of its messages are there");

    let report = import.report(&[]).await?;
    let took = began.elapsed();
    for (kind, rows) in [
        ("users", size.users),
        ("devices", size.users),
        ("chats", size.chats),
        ("messages", size.messages),
    ] {
        ensure!(counted(&report, kind, "written") == u64::from(rows), "{kind}: {report}");
        ensure!(counted(&report, kind, "leftOut") == 0, "{kind}: {report}");
    }
    print_rates(&report, took.as_secs_f64(), size)?;
    let began = Instant::now();
    compare(&mut old.db, &mut new, size).await?;
    compare_people(&mut old.db, &mut new).await?;
    writeln!(std::io::stderr(), "compared row by row in {:.1} s", began.elapsed().as_secs_f64())?;

    // Twice is once.
    let before = everything(&mut new).await?;
    let again = import.report(&[]).await?;
    ensure!(counted(&again, "messages", "written") == 0, "{again}");
    ensure!(counted(&again, "messages", "there") == u64::from(size.messages), "{again}");
    ensure!(counted(&again, "participants", "written") == 0, "{again}");
    let after = everything(&mut new).await?;
    ensure!(before == after, "{before:?}\n{after:?}");
    let found: i64 =
        sqlx::query_scalar("SELECT COALESCE(sum(indexed_seq), 0)::bigint FROM imported_chats")
            .fetch_one(&mut new)
            .await?;
    let seconds = began.elapsed().as_secs_f64();
    writeln!(std::io::stderr(), "{found} can be found by their words after {seconds:.1} s")?;
    Ok(())
}

/// Past the capture of a test's output: these are what the import is measured by.
fn print_rates(report: &serde_json::Value, seconds: f64, size: Size) -> Result<()> {
    let mut err = std::io::stderr();
    writeln!(err, "{size:?}: moved over in {seconds:.1} s, killed once")?;
    for (kind, tally) in report["kinds"].as_object().into_iter().flatten() {
        let rows = tally["written"].as_f64().unwrap_or_default();
        let rate = rows / tally["seconds"].as_f64().unwrap_or(1.0).max(0.001);
        writeln!(err, "{kind}: {rows} rows, {rate:.0} rows/s")?;
    }
    Ok(())
}

/// Both sides in one order, side by side: chat, place, sender, text, times, what is answered.
async fn compare(old: &mut PgConnection, new: &mut PgConnection, size: Size) -> Result<()> {
    let chats: Vec<String> =
        sqlx::query_scalar(r#"SELECT id FROM "Chat""#).fetch_all(&mut *old).await?;
    let ids: Vec<Uuid> = chats.iter().map(|chat| ImportedKind::Chat.id("old", chat)).collect();
    new.execute("CREATE TEMP TABLE IF NOT EXISTS named (old text COLLATE \"C\", id uuid)").await?;
    sqlx::query("INSERT INTO named SELECT * FROM unnest($1::text[], $2::uuid[])")
        .bind(&chats)
        .bind(&ids)
        .execute(&mut *new)
        .await?;
    let mut expected = sqlx::query(
        r#"SELECT "chatId", row_number() OVER (PARTITION BY "chatId" ORDER BY "createdAt", id),
                  "senderId", id::text AS named,
                  CASE WHEN "deletedAt" IS NULL THEN content ELSE '' END,
                  (extract(epoch FROM "createdAt") * 1000)::bigint,
                  (extract(epoch FROM CASE WHEN "deletedAt" IS NULL THEN "editedAt" END) * 1000)::bigint,
                  (extract(epoch FROM "deletedAt") * 1000)::bigint, "replyToId"::text
           FROM "Message" ORDER BY "chatId" COLLATE "C", "createdAt", id"#,
    )
    .fetch(old);
    let mut found = sqlx::query(
        "SELECT n.old, m.seq, m.sender_id, m.id, m.client_msg_id, m.content,
                (extract(epoch FROM m.created_at) * 1000)::bigint,
                (extract(epoch FROM m.edited_at) * 1000)::bigint,
                (extract(epoch FROM m.deleted_at) * 1000)::bigint, m.reply_to, m.nth, m.kind
         FROM messages m JOIN named n ON n.id = m.chat_id ORDER BY n.old, m.seq",
    )
    .fetch(new);
    let mut compared = 0;
    while let Some(old) = expected.try_next().await? {
        let new = found.next().await.context("too few messages")??;
        let (chat, seq, sender, old_id): (String, i64, String, String) =
            (old.get(0), old.get(1), old.get(2), old.get(3));
        let reply: Option<String> = old.get(8);
        let same = chat == new.get::<String, _>(0)
            && seq == new.get::<i64, _>(1)
            && sender == new.get::<Uuid, _>(2).to_string()
            && ImportedKind::Message.id("old", &old_id) == new.get::<Uuid, _>(3)
            && old_id == new.get::<String, _>(4)
            && old.get::<String, _>(4) == new.get::<String, _>(5)
            && (5..8)
                .all(|nth| old.get::<Option<i64>, _>(nth) == new.get::<Option<i64>, _>(nth + 1))
            && reply.map(|old| ImportedKind::Message.id("old", &old))
                == new.get::<Option<Uuid>, _>(9)
            && seq == new.get::<i64, _>(10)
            && new.get::<String, _>(11) == "message";
        ensure!(same, "message {old_id} of {chat}, place {seq}, is not as it was");
        compared += 1;
    }
    ensure!(found.next().await.is_none(), "too many messages");
    ensure!(compared == size.messages, "{compared} messages");
    Ok(())
}

/// Users and participants, likewise; and what chats say of themselves.
async fn compare_people(old: &mut PgConnection, new: &mut PgConnection) -> Result<()> {
    type User = (String, String, Option<String>, Option<String>, Option<String>);
    let there: Vec<User> = sqlx::query_as(
        r#"SELECT id, name, phone, email, password FROM "User" ORDER BY id COLLATE "C""#,
    )
    .fetch_all(&mut *old)
    .await?;
    let here: Vec<User> = sqlx::query_as(
        "SELECT id::text, name, phone, email, password_hash FROM users
         WHERE id <> '00000000-0000-0000-0000-000000000000' ORDER BY id::text COLLATE \"C\"",
    )
    .fetch_all(&mut *new)
    .await?;
    ensure!(there == here, "users differ");
    let there: Vec<(String, String, String)> = sqlx::query_as(
        r#"SELECT "chatId", "userId",
                  CASE WHEN "isGroup" THEN lower(role::text) ELSE 'member' END
           FROM "ChatParticipant" p JOIN "Chat" c ON c.id = p."chatId""#,
    )
    .fetch_all(&mut *old)
    .await?;
    let here: Vec<(Uuid, Uuid, String)> = sqlx::query_as(
        "SELECT m.chat_id, m.user_id, m.role FROM chat_members m JOIN chats c ON c.id = m.chat_id
         WHERE m.from_seq = 1 AND m.left_at IS NULL AND m.read_seq = c.last_seq
           AND m.delivered_seq = c.last_seq",
    )
    .fetch_all(&mut *new)
    .await?;
    let mut roles: HashMap<(Uuid, String), String> =
        here.into_iter().map(|(chat, user, role)| ((chat, user.to_string()), role)).collect();
    for (chat, user, role) in there {
        let key = (ImportedKind::Chat.id("old", &chat), user);
        let here = roles.remove(&key);
        ensure!(here.as_deref() == Some(role.as_str()), "{key:?} is {here:?} and not {role}");
    }
    ensure!(roles.is_empty(), "{} participants too many", roles.len());
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM chats c CROSS JOIN LATERAL (
             SELECT max(m.seq) AS last, count(*) AS n, min(m.created_at) AS first_at,
                    COALESCE(max(m.created_at), c.created_at) AS last_at,
                    (SELECT count(*) FROM chat_members p WHERE p.chat_id = c.id) AS members
             FROM messages m WHERE m.chat_id = c.id
         ) has
         WHERE (c.last_seq, c.last_message_seq, c.message_count, c.members, c.last_activity_at,
                c.oldest_at) IS DISTINCT FROM
               (COALESCE(has.last, 0), has.last, has.n, has.members, has.last_at, has.first_at)
            OR c.last_seq > (SELECT s.persisted_seq FROM shards s WHERE s.shard = c.shard)",
    )
    .fetch_one(&mut *new)
    .await?;
    ensure!(wrong == 0, "{wrong} chats do not say what they have");
    Ok(())
}
