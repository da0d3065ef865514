//! Runs that go on where another was killed, that come after the old system got more, or beside another.

use std::{path::Path, process::Output};

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Person, soon, soon::within};
use natter_protocol::{
    ids::ChatId,
    imported::{Imported, ImportedKind},
    server::Message,
};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

use super::{
    command::{Import, counted, noted},
    old::{Old, PASSWORD},
};

/// How long a run may take to come somewhere.
const COMES: Duration = Duration::from_mins(1);

fn chat(old: &str) -> Uuid {
    ImportedKind::Chat.id("old", old)
}

fn user(old: &str) -> Uuid {
    ImportedKind::User.id("old", old)
}

/// An old system where everybody's password is [`PASSWORD`], with these rows.
async fn old(rows: &str) -> Result<Old> {
    let mut old = Old::loose().await?;
    let hash = bcrypt::hash(PASSWORD, 4)?;
    old.run(rows.replace("$HASH", &hash)).await?;
    Ok(old)
}

/// Somebody waits for a lock, with a statement that begins so.
async fn waits(db: &mut PgConnection, statement: &str) -> Result<()> {
    within(COMES, statement, async || {
        let waits: bool = sqlx::query_scalar(
            "SELECT EXISTS (
                 SELECT FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event_type = 'Lock' AND starts_with(query, $1))",
        )
        .bind(statement)
        .fetch_one(&mut *db)
        .await?;
        Ok(waits.then_some(()))
    })
    .await
}

/// A run that is killed when it comes with the one statement to what the other has locked.
async fn killed_at(
    import: &Import<'_>,
    args: &[&str],
    (statement, lock): (&str, &str),
) -> Result<()> {
    let url = import.cluster.database_url();
    let mut looking = PgConnection::connect(&url).await?;
    let mut locking = PgConnection::connect(&url).await?;
    let mut held = locking.begin().await?;
    sqlx::query(AssertSqlSafe(lock.to_owned())).execute(&mut *held).await?;
    let mut run = import.begin(args)?;
    waits(&mut looking, statement).await?;
    run.kill().await?;
    held.rollback().await?;
    Ok(())
}

const MANY: &str = r#"
INSERT INTO "User" ("id", "name", "phone", "password", "updatedAt")
    SELECT 'u' || lpad(n::text, 3, '0'), 'User ' || n, '+1555' || lpad(n::text, 8, '0'), '$HASH', now()
    FROM generate_series(1, 300) n;
INSERT INTO "Chat" ("id", "isGroup", "name", "createdById") VALUES ('c1', true, 'Everybody', 'u001');
INSERT INTO "ChatParticipant" ("chatId", "userId", "role")
    SELECT 'c1', id, (CASE id WHEN 'u001' THEN 'OWNER' ELSE 'MEMBER' END)::"Role" FROM "User";
INSERT INTO "Message" ("id", "chatId", "senderId", "content", "createdAt")
    SELECT n, 'c1', 'u' || lpad(n::text, 3, '0'), CASE WHEN n % 20 > 0 THEN 'Message ' || n END,
           '2024-01-01'::timestamp + n * interval '1 second'
    FROM generate_series(1, 300) n;
"#;

#[tokio::test]
async fn a_run_that_is_gone_on_with_leaves_nothing_out_though_the_old_system_removes_rows()
-> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let mut old = old(MANY).await?;
    let source = old.url.clone();
    let import = Import { cluster: &cluster, source: &source };
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    // In its third batch of users, and then in that of messages: of each 100 rows are dealt with.
    let somebody = format!(
        "INSERT INTO users (id, name, name_lower, shard) VALUES ('{}', 'x', 'x', 0)",
        user("u120")
    );
    killed_at(&import, &["--batch", "50"], ("INSERT INTO users", &somebody)).await?;
    let place = format!(
        "INSERT INTO messages (chat_id, seq, kind, created_at) VALUES ('{}', 110, 'void', now())",
        chat("c1")
    );
    killed_at(&import, &["--batch", "50"], ("INSERT INTO messages", &place)).await?;
    let some: i64 = sqlx::query_scalar("SELECT count(*) FROM messages").fetch_one(&mut new).await?;
    ensure!(some == 95, "{some} messages when it was killed");
    old.run(r#"DELETE FROM "Message" WHERE "id" <= 60"#).await?;
    let report = import.report(&["--batch", "50"]).await?;
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE deleted_at IS NULL")
        .fetch_one(&mut new)
        .await?;
    let messages: i64 = sqlx::query_scalar("SELECT count(*) FROM messages WHERE kind = 'message'")
        .fetch_one(&mut new)
        .await?;
    // Every twentieth says nothing.
    ensure!((users, messages) == (300, 285), "{users} users, {messages} messages: {report:#}");
    let counts = |kind, whats: [&str; 3]| whats.map(|what| counted(&report, kind, what));
    let all = counts("users", ["read", "written", "there"]);
    ensure!(all == [300, 300, 0], "{all:?}: {report:#}");
    let all = counts("messages", ["written", "there", "leftOut"]);
    ensure!(all[..2] == [285, 0], "{all:?}: {report:#}");
    ensure!(noted(&report, "messages", "sender is gone") == 0, "{report:#}");
    let members: i64 = sqlx::query_scalar("SELECT members FROM chats").fetch_one(&mut new).await?;
    ensure!(members == 300, "{members} members");
    Ok(())
}

/// The users were read before the last of them came.
const BEFORE: &str = r#"
INSERT INTO "User" ("id", "name", "phone", "password", "updatedAt") VALUES
    ('u1', 'Ada', '+15550000001', '$HASH', now()), ('u2', 'Ben', '+15550000002', '$HASH', now());
INSERT INTO "Chat" ("id", "isGroup", "name", "createdById") VALUES
    ('quiet', true, 'Quiet', 'u1'), ('lively', true, 'Lively', 'u1'), ('pair', false, NULL, 'u1'),
    ('new', false, NULL, 'u6');
INSERT INTO "ChatParticipant" ("chatId", "userId", "role") VALUES
    ('quiet', 'u1', 'OWNER'), ('quiet', 'u2', 'MEMBER'), ('quiet', 'u6', 'ADMIN'),
    ('new', 'u1', 'MEMBER'), ('new', 'u6', 'MEMBER'), ('lively', 'u1', 'OWNER'),
    ('lively', 'u2', 'MEMBER'), ('pair', 'u1', 'MEMBER'), ('pair', 'u2', 'MEMBER');
INSERT INTO "Message" ("id", "chatId", "senderId", "content", "createdAt") VALUES
    (1, 'quiet', 'u1', 'first', '2024-01-01 10:00:00'), (2, 'quiet', 'u2', 'second', '2024-01-01 10:00:05'),
    (3, 'lively', 'u1', 'first', '2024-01-01 10:00:00'), (4, 'lively', 'u2', 'second', '2024-01-01 10:00:05'),
    (5, 'pair', 'u1', 'hello', '2024-01-01 10:00:00'), (10, 'new', 'u6', 'I am new', '2024-01-01 10:00:00');
"#;

/// A transaction that took long has shown a message, another one fell on the same moment, people joined.
const SINCE: &str = r#"
INSERT INTO "User" ("id", "name", "phone", "password", "updatedAt", "deletedAt") VALUES
    ('u3', 'Cleo', '+15550000003', '$HASH', now(), NULL), ('u4', 'Dan', NULL, '$HASH', now(), now()),
    ('u5', 'Eve', '+15550000005', '$HASH', now(), NULL), ('u6', 'Fay', '+15550000006', '$HASH', now(), NULL);
INSERT INTO "ChatParticipant" ("chatId", "userId", "role") VALUES
    ('quiet', 'u3', 'ADMIN'), ('quiet', 'u4', 'MEMBER'), ('quiet', 'u5', 'OWNER'),
    ('lively', 'u3', 'ADMIN'), ('pair', 'u3', 'MEMBER');
INSERT INTO "Message" ("id", "chatId", "senderId", "content", "createdAt") VALUES
    (6, 'quiet', 'u1', 'late', '2024-01-01 10:00:04'), (7, 'quiet', 'u3', 'last', '2024-01-01 10:00:06'),
    (8, 'quiet', 'u1', 'same moment', '2024-01-01 10:00:05'),
    (9, 'lively', 'u1', 'late', '2024-01-01 10:00:04');
"#;

#[tokio::test]
async fn what_the_old_system_showed_late_and_who_joined_comes_with_another_run() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let mut old = old(BEFORE).await?;
    let source = old.url.clone();
    let import = Import { cluster: &cluster, source: &source };
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    import.report(&[]).await?;
    let ada = Person::log_in(&cluster, "+15550000001", PASSWORD).await?;
    let lively = ChatId(chat("lively"));
    let said = ada.api(0).say(lively, "here already").await?;
    soon("it is written", async || {
        Ok((ada.api(0).chat(lively).await?.last_seq >= said.seq).then_some(()))
    })
    .await?;
    old.run(SINCE.replace("$HASH", &bcrypt::hash(PASSWORD, 4)?)).await?;

    let report = import.report(&[]).await?;
    let counts = |report: &Value, kind| {
        ["read", "written", "there", "leftOut"].map(|what| counted(report, kind, what))
    };
    ensure!(counts(&report, "users") == [6, 4, 2, 0], "{report:#}");
    ensure!(counts(&report, "messages") == [10, 3, 6, 1], "{report:#}");
    ensure!(noted(&report, "messages", "older than what was here") == 1, "{report:#}");
    ensure!(noted(&report, "messages", "gone on here") == 1, "{report:#}");
    ensure!(counts(&report, "participants") == [14, 4, 9, 1], "{report:#}");
    ensure!(noted(&report, "participants", "has its two") == 1, "{report:#}");
    // Nothing is put between, and times go up with places.
    let history = ada.api(0).history(ChatId(chat("quiet")), "limit=9").await?.messages;
    let texts: Vec<&str> = history.iter().map(|message| message.content.as_str()).collect();
    ensure!(texts == ["first", "second", "late", "same moment", "last"], "{texts:?}");
    ensure!(history.is_sorted_by_key(|message: &Message| message.created_at), "{history:?}");
    let mut members: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT COALESCE(c.title, ''), u.name, m.role, m.left_at IS NULL FROM chat_members m
         JOIN users u ON u.id = m.user_id JOIN chats c ON c.id = m.chat_id",
    )
    .fetch_all(&mut new)
    .await?;
    members.sort();
    let members: Vec<(&str, &str, &str, bool)> =
        members.iter().map(|(c, u, role, stays)| (&**c, &**u, &**role, *stays)).collect();
    let expected = [
        ("", "Ada", "member", true),
        ("", "Ada", "member", true),
        ("", "Ben", "member", true),
        ("", "Fay", "member", true),
        ("Lively", "Ada", "owner", true),
        ("Lively", "Ben", "member", true),
        ("Lively", "Cleo", "admin", true),
        ("Quiet", "Ada", "owner", true),
        ("Quiet", "Ben", "member", true),
        ("Quiet", "Cleo", "admin", true),
        ("Quiet", "Deleted user", "member", false),
        ("Quiet", "Eve", "owner", true),
        ("Quiet", "Fay", "admin", true),
    ];
    ensure!(members == expected, "{members:?}");
    let wrong: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM chats c WHERE members <> (
             SELECT count(*) FROM chat_members m WHERE m.chat_id = c.id AND m.left_at IS NULL)",
    )
    .fetch_one(&mut new)
    .await?;
    ensure!(wrong == 0, "{wrong} chats do not know who is in them");
    // Whoever had only been too late is like everybody else.
    let fay = Person::log_in(&cluster, "+15550000006", PASSWORD).await?;
    ensure!(fay.name == "Fay" && fay.id.0 == user("u6"), "{}", fay.name);
    ada.api(0).say(ChatId(chat("new")), "welcome").await?;

    // What was removed here since, because it is not kept for longer, does not come back.
    sqlx::query("UPDATE chats SET expired_seq = 2 WHERE id = $1")
        .bind(chat("quiet"))
        .execute(&mut new)
        .await?;
    sqlx::query("DELETE FROM messages WHERE chat_id = $1 AND seq = 1")
        .bind(chat("quiet"))
        .execute(&mut new)
        .await?;
    let report = import.report(&[]).await?;
    ensure!(counts(&report, "users") == [6, 0, 6, 0], "{report:#}");
    ensure!(counts(&report, "messages") == [10, 0, 9, 1], "{report:#}");
    ensure!(counts(&report, "participants") == [14, 0, 13, 1], "{report:#}");
    Ok(())
}

/// Thirty messages with a file each; one of which another message, in another chat, is a copy; and one
/// whose file is somewhere that a link leads to.
const FILES: &str = r#"
ALTER TABLE "Message" ADD COLUMN "mediaId" TEXT;
INSERT INTO "User" ("id", "name", "phone", "password", "updatedAt") VALUES
    ('u1', 'Ada', '+15550000001', '$HASH', now()), ('u2', 'Ben', '+15550000002', '$HASH', now());
INSERT INTO "Chat" ("id", "isGroup", "name", "createdById") VALUES
    ('c1', true, 'One', 'u1'), ('c2', true, 'Other', 'u2');
INSERT INTO "ChatParticipant" ("chatId", "userId", "role") VALUES
    ('c1', 'u1', 'OWNER'), ('c2', 'u2', 'OWNER');
INSERT INTO "Message" ("id", "chatId", "senderId", "type", "mediaId", "createdAt")
    SELECT n, 'c1', 'u1', 'IMAGE', 'f' || n, '2024-01-01'::timestamp + n * interval '1 second'
    FROM generate_series(1, 31) n;
INSERT INTO "Message" ("id", "chatId", "senderId", "type", "mediaId") VALUES (32, 'c2', 'u2', 'IMAGE', 'f30');
INSERT INTO "MediaFile" ("id", "messageId", "url", "fileName")
    SELECT 'f' || n, n, '/uploads/' || n || '.png', n || '.png' FROM generate_series(1, 30) n
    UNION ALL SELECT 'f31', 31, '/linked/secret', 'secret';
"#;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0\0\0\0\0";

/// How a run gives a file that is copied to its message.
const GIVES: &str = "SELECT m.seq FROM messages m";

/// The names of all files below a folder.
fn files_below(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(files_below(&entry.path())?);
        } else {
            names.insert(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// What holds a run up that copies the file so far among those that are left.
async fn held_at(db: &mut PgConnection, nth: i64) -> Result<String> {
    let message: Uuid = sqlx::query_scalar(
        "SELECT message_id FROM imported_files WHERE state <> 'copied' ORDER BY id OFFSET $1 LIMIT 1",
    )
    .bind(nth)
    .fetch_one(db)
    .await?;
    Ok(format!("SELECT FROM messages WHERE id = '{message}' FOR UPDATE"))
}

async fn copied(db: &mut PgConnection) -> Result<i64> {
    let copied = "SELECT count(*) FROM imported_files WHERE state = 'copied'";
    Ok(sqlx::query_scalar(copied).fetch_one(db).await?)
}

#[tokio::test]
async fn files_are_copied_by_one_run_at_a_time_and_each_message_has_its_own() -> Result<()> {
    let (store, folder) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let elsewhere = tempfile::tempdir()?;
    std::fs::write(elsewhere.path().join("secret"), PNG)?;
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("linked"))?;
    std::fs::create_dir(folder.path().join("uploads"))?;
    for n in 1..=30 {
        std::fs::write(folder.path().join(format!("uploads/{n}.png")), PNG)?;
    }
    let media = store.path().to_string_lossy().into_owned();
    let cluster = Cluster::builder().env("NATTER_MEDIA_STORE", &media).start().await?;
    let old = old(FILES).await?;
    let import = Import { cluster: &cluster, source: &old.url };
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    // Until it is copied, each message says where its file is.
    import.report(&[]).await?;
    let says: Vec<String> = sqlx::query_scalar(
        "SELECT content FROM messages WHERE client_msg_id IN ('30', '31', '32') ORDER BY client_msg_id",
    )
    .fetch_all(&mut new)
    .await?;
    ensure!(says == ["/uploads/30.png", "/linked/secret", "/uploads/30.png"], "{says:?}");

    let from = folder.path().to_string_lossy();
    let args = ["--media", &*from, "--media-store", &media, "--json"];
    let lock = held_at(&mut new, 5).await?;
    killed_at(&import, &args, (GIVES, &lock)).await?;
    let done = copied(&mut new).await?;
    ensure!((4..=5).contains(&done), "{done} files when it was killed");

    // One is held up in the midst of it; another one begins, and waits until the file is done with.
    let lock = held_at(&mut new, 5).await?;
    let mut locking = PgConnection::connect(&cluster.database_url()).await?;
    let mut held = locking.begin().await?;
    sqlx::query(AssertSqlSafe(lock)).execute(&mut *held).await?;
    let one = import.begin(&args)?;
    waits(&mut new, GIVES).await?;
    let other = import.begin(&args)?;
    waits(&mut new, "INSERT INTO imports").await?;
    held.rollback().await?;
    let (one, other): (Output, Output) =
        tokio::try_join!(one.wait_with_output(), other.wait_with_output())?;
    let said = String::from_utf8_lossy(&one.stderr);
    ensure!(one.status.code() == Some(1) && said.contains("another run"), "{}: {said}", one.status);
    let said = String::from_utf8_lossy(&other.stderr);
    ensure!(other.status.success(), "{}: {said}", other.status);
    let report: Value = serde_json::from_slice(&other.stdout)?;
    ensure!(report["notCopied"] == 1, "{report:#}");
    ensure!(noted(&report, "media", "not copied: it is not there") == 1, "{report:#}");

    // Thirty and the copy of one, each where it is looked for.
    ensure!(copied(&mut new).await? == 31);
    let known: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM media WHERE state = 'ready'")
        .fetch_all(&mut new)
        .await?;
    let known: BTreeSet<String> = known.iter().map(Uuid::to_string).collect();
    let there = files_below(&store.path().join("media"))?;
    ensure!(known.len() == 31 && known == there, "{known:?}\n{there:?}");
    for (phone, group) in [("+15550000001", "c1"), ("+15550000002", "c2")] {
        let person = Person::log_in(&cluster, phone, PASSWORD).await?;
        let found: Imported = person.api(0).get("/imported/media/f30").await?.read(200)?;
        ensure!(found.chat_id == Some(ChatId(chat(group))), "{found:?}");
        let page = person.api(0).history(ChatId(chat(group)), "limit=50").await?;
        let message = page.messages.iter().find(|m| Some(m.id.0) == found.message_id);
        let path = message.and_then(|message| message.media_url.as_deref()).context("no file")?;
        let got = person.api(0).request(reqwest::Method::GET, path.trim_start_matches("/v1"));
        let got = got.send().await?.error_for_status()?.bytes().await?;
        ensure!(got.as_ref() == PNG, "{got:?}");
    }
    Ok(())
}
