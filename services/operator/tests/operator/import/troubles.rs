//! What is wrong with an old database is told, and keeps nothing else from being moved over.

use anyhow::{Result, ensure};
use natter_cluster::Cluster;
use natter_protocol::imported::ImportedKind;
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    command::{Import, counted, noted},
    old::Old,
};

/// One of each thing that can be wrong, among rows that are not.
const ROWS: &str = r#"
INSERT INTO "User" ("id", "name", "phone", "email", "password", "updatedAt", "deletedAt") VALUES
    ('u1', 'Ada', '+1 (555) 010-0001', 'ada@old.example', '$HASH', now(), NULL),
    ('u2', 'Ben', '+15550100001', 'ADA@old.example', '$HASH', now(), NULL),
    ('u3', E' Cleo\t', '0171 5550', 'cleo', 'plain text', now(), NULL),
    ('u4', '', '+15550100004', NULL, '$DEAR', now(), NULL),
    ('u5', 'Eve', '+15550100005', NULL, '$HASH', now(), now()),
    ('u6', 'Fay', '+15550100006', NULL, '$HASH', now(), NULL);
INSERT INTO "Device" ("id", "userId", "name") VALUES
    ('d1', 'u1', 'Phone'), ('d2', 'nobody', 'Phone'), ('d5', 'u5', 'Phone');
INSERT INTO "Chat" ("id", "isGroup", "name", "createdById") VALUES
    ('c1', true, 'Sailing', 'founder'), ('c2', false, NULL, 'u1'), ('c3', false, NULL, 'u1'),
    ('c4', false, NULL, 'u1'), ('c5', false, 'Three', 'u1'), ('c6', true, 'Empty', 'u1');
INSERT INTO "ChatParticipant" ("chatId", "userId", "role") VALUES
    ('c1', 'u1', 'MEMBER'), ('c1', 'u2', 'ADMIN'), ('c1', 'u5', 'OWNER'), ('c1', 'nobody', 'MEMBER'),
    ('c2', 'u1', 'MEMBER'), ('c2', 'u2', 'MEMBER'), ('c3', 'u2', 'MEMBER'), ('c3', 'u1', 'MEMBER'),
    ('c4', 'u1', 'MEMBER'), ('c4', 'u5', 'MEMBER'), ('c5', 'u1', 'MEMBER'), ('c5', 'u2', 'MEMBER'),
    ('c5', 'u3', 'MEMBER'), ('none', 'u1', 'MEMBER');
INSERT INTO "Message" ("id", "chatId", "senderId", "type", "content", "replyToId", "createdAt") VALUES
    (1, 'c1', 'u1', 'TEXT', 'first', 2, '2024-01-01 10:00'),
    (2, 'c1', 'u2', 'TEXT', 'second', 1, '2024-01-01 10:01'),
    (3, 'c1', 'u2', 'TEXT', NULL, NULL, '2024-01-01 10:02'),
    (4, 'c1', 'u2', 'TEXT', '  ', NULL, '2024-01-01 10:03'),
    (5, 'c1', 'u2', 'POLL', 'which?', NULL, '2024-01-01 10:04'),
    (6, 'c1', 'u2', 'SYSTEM', 'Ben left', NULL, '2024-01-01 10:05'),
    (7, 'c1', 'gone', 'TEXT', 'from one who is gone', 7, '2024-01-01 10:06'),
    (8, 'c1', 'gone', 'TEXT', 'and again', NULL, '2024-01-01 10:07'),
    (9, 'c1', NULL, 'TEXT', 'from nobody', 999, '2024-01-01 10:08'),
    (10, 'none', 'u1', 'TEXT', 'nowhere', NULL, '2024-01-01 10:09'),
    (11, 'c1', 'u1', 'IMAGE', NULL, NULL, '2024-01-01 10:10'),
    (12, 'c2', 'u1', 'TEXT', repeat('x', 70000), 1, '2024-01-01 10:11'),
    (13, 'c1', 'u5', 'TEXT', 'before I left', NULL, '2024-01-01 10:12');
INSERT INTO "MediaFile" ("id", "messageId", "url") VALUES
    ('f1', 11, '/uploads/a.png'), ('f2', 999, '/uploads/b.png');
INSERT INTO "MediaDownload" ("mediaId", "userId") VALUES
    ('f1', 'u2'), ('f2', 'u2'), ('f1', 'nobody');
"#;

/// What is told of it: kind, a part of what is said, how often.
const TOLD: [(&str, &str, u64); 22] = [
    ("users", "phone number is somebody else's", 1),
    ("users", "e-mail address is somebody else's", 1),
    ("users", "phone number is not + and", 1),
    ("users", "e-mail address is none", 1),
    ("users", "neither a phone number", 1),
    ("users", "no password", 1),
    ("users", "costs too much", 1),
    ("devices", "no such user", 2),
    ("messages", "no text", 2),
    ("messages", "kind that is not known", 1),
    ("messages", "wrote itself", 1),
    ("messages", "sender is gone", 3),
    ("messages", "no such chat", 1),
    ("messages", "longer than 64 KiB", 1),
    ("messages", "what it answers", 4),
    ("media", "no message has this file", 1),
    ("downloads", "no such file", 1),
    ("downloads", "no such user", 1),
    ("participants", "no such user", 1),
    ("participants", "no such chat", 1),
    ("participants", "made a group", 2),
    ("participants", "nobody takes part", 0),
];

async fn wrong() -> Result<Old> {
    let mut old = Old::loose().await?;
    let hash = bcrypt::hash("secret words", 4)?;
    let dear = hash.replacen("$04$", "$15$", 1);
    old.run(ROWS.replace("$HASH", &hash).replace("$DEAR", &dear)).await?;
    Ok(old)
}

fn told(report: &Value) -> Result<()> {
    let mut wrong = Vec::new();
    for (kind, part, count) in TOLD {
        let found = noted(report, kind, part);
        if found != count {
            wrong.push(format!("{kind}: {part}: {found} and not {count}"));
        }
    }
    ensure!(wrong.is_empty(), "{}\n{report:#}", wrong.join("\n"));
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_rest_is_moved_over() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let old = wrong().await?;
    let import = Import { cluster: &cluster, source: &old.url };
    let dry = import.report(&["--dry-run"]).await?;
    for (kind, part, count) in [
        ("users", "costs too much", 1),
        ("messages", "no text", 2),
        ("messages", "no such chat", 1),
        ("participants", "no such user", 1),
        ("participants", "no such chat", 1),
        ("downloads", "no such user", 1),
    ] {
        ensure!(noted(&dry, kind, part) == count, "{kind}: {part}: {dry:#}");
    }
    let report = import.report(&[]).await?;
    told(&report)?;
    for (kind, read, written, left_out) in [
        ("users", 6, 6, 0),
        ("devices", 3, 1, 2),
        ("chats", 6, 6, 0),
        ("messages", 13, 8, 5),
        ("media", 2, 1, 1),
        ("downloads", 3, 1, 2),
    ] {
        let counts = ["read", "written", "leftOut"].map(|what| counted(&report, kind, what));
        ensure!(counts == [read, written, left_out], "{kind}: {counts:?}\n{report:#}");
    }
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    let user = |old: &str| ImportedKind::User.id("old", old);
    let chat = |old: &str| ImportedKind::Chat.id("old", old);
    // Ben has neither Ada's number nor her address, though he is spelt otherwise.
    let ben: (Option<String>, Option<String>, bool) =
        sqlx::query_as("SELECT phone, email, password_hash IS NOT NULL FROM users WHERE id = $1")
            .bind(user("u2"))
            .fetch_one(&mut new)
            .await?;
    ensure!(ben == (None, None, true), "{ben:?}");
    let names: Vec<(String, bool)> = sqlx::query_as(
        "SELECT name, deleted_at IS NOT NULL FROM users
             WHERE id <> '00000000-0000-0000-0000-000000000000' ORDER BY name, id",
    )
    .fetch_all(&mut new)
    .await?;
    let names: Vec<(&str, bool)> =
        names.iter().map(|(name, gone)| (name.as_str(), *gone)).collect();
    // Eve, the one who is gone, who made the group, and nobody.
    let gone = ("Deleted user", true);
    ensure!(
        names
            == [
                ("Ada", false),
                ("Ben", false),
                ("Cleo", false),
                gone,
                gone,
                gone,
                gone,
                ("Fay", false),
                ("User", false)
            ],
        "{names:?}"
    );
    // Messages close up, an answer is to an earlier message, and who is gone is the same one.
    let said: Vec<(i64, String, Uuid, Option<Uuid>)> = sqlx::query_as(
        "SELECT seq, content, sender_id, reply_to FROM messages WHERE chat_id = $1 ORDER BY seq",
    )
    .bind(chat("c1"))
    .fetch_all(&mut new)
    .await?;
    let texts: Vec<(i64, &str)> =
        said.iter().map(|(seq, text, ..)| (*seq, text.as_str())).collect();
    ensure!(
        texts
            == [
                (1, "first"),
                (2, "second"),
                (3, "from one who is gone"),
                (4, "and again"),
                (5, "from nobody"),
                (6, "/uploads/a.png"),
                (7, "before I left"),
            ],
        "{texts:?}"
    );
    let first = ImportedKind::Message.id("old", "1");
    let answers: Vec<Option<Uuid>> = said.iter().map(|(.., answer)| *answer).collect();
    ensure!(answers == [None, Some(first), None, None, None, None, None], "{answers:?}");
    ensure!(
        said[2].2 == said[3].2 && said[2].2 == user("gone") && said[4].2 == user(""),
        "{said:?}"
    );
    roles_and_pairs(&mut new).await
}

async fn roles_and_pairs(new: &mut PgConnection) -> Result<()> {
    let chat = |old: &str| ImportedKind::Chat.id("old", old);
    let rows: Vec<(Uuid, bool, Option<String>, bool, i64)> =
        sqlx::query_as("SELECT id, is_group, title, shut, members FROM chats")
            .fetch_all(&mut *new)
            .await?;
    let of = |old: &str| rows.iter().find(|(id, ..)| *id == chat(old));
    let seen =
        |old| of(old).map(|(_, group, title, shut, n)| (*group, title.as_deref(), *shut, *n));
    ensure!(seen("c1") == Some((true, Some("Sailing"), false, 2)), "{rows:?}");
    // Of two one-to-ones of the same two, one is a group; with whom is gone nobody can talk.
    let pairs = [seen("c2"), seen("c3")];
    let one = Some((false, None, false, 2));
    let other = Some((true, None, false, 2));
    ensure!(pairs == [one, other] || pairs == [other, one], "{rows:?}");
    ensure!(seen("c4") == Some((false, None, true, 2)), "{rows:?}");
    ensure!(seen("c5") == Some((true, Some("Three"), false, 3)), "{rows:?}");
    ensure!(seen("c6") == Some((true, Some("Empty"), false, 0)), "{rows:?}");
    let roles: Vec<(Uuid, String, bool)> = sqlx::query_as(
        "SELECT user_id, role, left_at IS NULL FROM chat_members WHERE chat_id = $1 ORDER BY role",
    )
    .bind(chat("c1"))
    .fetch_all(new)
    .await?;
    let user = |old: &str| ImportedKind::User.id("old", old);
    // Eve, who owned the group, is gone: its admin owns it.
    for (old, role, stays) in
        [("u1", "member", true), ("u2", "owner", true), ("u5", "owner", false)]
    {
        ensure!(roles.contains(&(user(old), role.to_owned(), stays)), "{old}: {roles:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mapping_says_what_is_called_otherwise() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let mut old = Old::loose().await?;
    old.run(
        r#"DROP TABLE "MediaDownload", "MediaFile", "Device", "Message", "ChatParticipant", "Chat", "User";
        CREATE SCHEMA odd;
        CREATE TABLE odd.people (no bigint, called text, cell text, secret text);
        CREATE TABLE odd.talks (no bigint, topic text);
        CREATE TABLE odd.talkers (talk bigint, person bigint, rank text);
        CREATE TABLE odd.said (no bigint, talk bigint, person bigint, what text, sort text,
                               at timestamptz);
        INSERT INTO odd.people VALUES (1, 'Ada', '0171 5550001', NULL), (2, 'Ben', '49171 5550002', NULL);
        INSERT INTO odd.talks VALUES (7, 'Harbour');
        INSERT INTO odd.talkers VALUES (7, 1, 'captain'), (7, 2, 'mate');
        INSERT INTO odd.said VALUES (10, 7, 2, 'aye', 'word', '2024-01-01 12:00+02'),
                                    (9, 7, 1, 'ahoy', 'word', '2024-01-01 10:00+00'),
                                    (8, 7, 1, 'ding', 'bell', '2024-01-01 09:00+00');"#,
    )
    .await?;
    let dir = tempfile::tempdir()?;
    let map = dir.path().join("map.json");
    std::fs::write(
        &map,
        r#"{
            "users": {"table": "people", "columns": {"id": "no", "name": "called", "phone": "cell",
                                                     "password": "secret"}},
            "chats": {"table": "talks", "columns": {"id": "no", "title": "topic"}},
            "participants": {"table": "talkers", "columns": {"chatId": "talk", "userId": "person",
                                                             "role": "rank"}},
            "messages": {"table": "said", "columns": {"id": "no", "chatId": "talk", "senderId": "person",
                                                      "content": "what", "type": "sort", "createdAt": "at"}},
            "kinds": {"word": "text", "bell": "skip"},
            "roles": {"captain": "owner", "mate": "member"},
            "countryCode": "+49"
        }"#,
    )?;
    let source = format!("{}?schema=odd", old.url);
    let import = Import { cluster: &cluster, source: &source };
    // Without the mapping nothing is guessed.
    let (status, _, said) = import.said(&[]).await?;
    ensure!(status.code() == Some(1) && said.contains("users: no table was found"), "{said}");
    let report = import.report(&["--map", &map.to_string_lossy(), "--name", "odd"]).await?;
    ensure!(noted(&report, "messages", "mapping leaves out") == 1, "{report:#}");
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    let chat = ImportedKind::Chat.id("odd", "7");
    let said: Vec<(String, String, String, Option<String>)> = sqlx::query_as(
        "SELECT m.content, u.name, u.phone, c.title FROM messages m
         JOIN users u ON u.id = m.sender_id JOIN chats c ON c.id = m.chat_id
         WHERE m.chat_id = $1 ORDER BY m.seq",
    )
    .bind(chat)
    .fetch_all(&mut new)
    .await?;
    let title = Some("Harbour".to_owned());
    // Both at ten o'clock, by their numbers as numbers.
    let expected = [("ahoy", "Ada", "+491715550001"), ("aye", "Ben", "+491715550002")];
    let expected = expected.map(|(what, who, phone)| {
        (what.to_owned(), who.to_owned(), phone.to_owned(), title.clone())
    });
    ensure!(said == expected, "{said:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_is_written_while_a_log_has_no_room_for_old_messages() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let mut old = wrong().await?;
    old.run(r#"UPDATE "Message" SET "chatId" = 'c1'"#).await?;
    cluster.worker(0).terminate().await?;
    let import = Import { cluster: &cluster, source: &old.url };
    let (status, _, said) = import.said(&["--patience", "0"]).await?;
    ensure!(
        status.code() == Some(1) && said.contains("a worker must be running"),
        "{status}: {said}"
    );
    let mut new = PgConnection::connect(&cluster.database_url()).await?;
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users WHERE deleted_at IS NULL")
        .fetch_one(&mut new)
        .await?;
    ensure!(users == 0, "{users} users");
    cluster.worker(0).start().await?;
    import.report(&[]).await?;
    Ok(())
}
