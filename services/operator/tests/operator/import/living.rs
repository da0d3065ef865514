//! What was moved over lives on: its people log in, and its chats go on where they ended.

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Person, soon, soon::within};
use natter_protocol::{
    ids::{ChatId, Seq, UserId},
    imported::{Imported, ImportedKind},
    server::{ContentType, Message},
};
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::time::Duration;

use super::{
    command::Import,
    old::{Old, PASSWORD, Size},
};

/// The old chat whose group everything is about, and its eight participants' numbers.
const GROUP: u32 = 3;

struct Moved {
    cluster: Cluster,
    old: Old,
    db: PgConnection,
    chat: ChatId,
}

impl Moved {
    async fn over() -> Result<Self> {
        let cluster = Cluster::builder()
            .gateways(2)
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_CALLS_PER_SECOND", "0")
            .start()
            .await?;
        let old = Old::filled(Size { messages: 3_000, chats: 12, users: 40 }).await?;
        Import { cluster: &cluster, source: &old.url }.report(&[]).await?;
        let db = PgConnection::connect(&cluster.database_url()).await?;
        let mut moved = Self { cluster, old, db, chat: ChatId::generate() };
        moved.chat = ChatId(ImportedKind::Chat.id("old", &moved.old_chat().await?));
        Ok(moved)
    }

    async fn old_chat(&mut self) -> Result<String> {
        let chat = sqlx::query_scalar("SELECT id FROM numbered WHERE n = $1")
            .bind(GROUP as i32)
            .fetch_one(&mut self.old.db)
            .await?;
        Ok(chat)
    }

    /// Somebody of the group logs in, with the password of old.
    async fn person(&self, nth: u32) -> Result<Person> {
        Person::log_in(&self.cluster, &format!("+1555{:08}", GROUP + nth), PASSWORD).await
    }

    /// All that history shows of the chat, page by page from its end.
    async fn history(&self, person: &Person) -> Result<Vec<Message>> {
        let mut all: Vec<Message> = Vec::new();
        let mut before: Option<Seq> = None;
        loop {
            let query =
                before.map_or("limit=90".to_owned(), |seq| format!("limit=90&before={seq}"));
            let page = person.api(1).history(self.chat, &query).await?;
            before = page.messages.first().map(|message| message.seq);
            all.splice(0..0, page.messages);
            if !page.has_more {
                return Ok(all);
            }
        }
    }
}

#[tokio::test]
async fn chats_go_on_where_they_ended() -> Result<()> {
    let mut moved = Moved::over().await?;
    let chat = moved.chat;
    let (ada, ben) = (moved.person(0).await?, moved.person(1).await?);
    // Passwords of old are hashed as all are from the first log-in on.
    let hash: String = sqlx::query_scalar("SELECT password_hash FROM users WHERE id = $1")
        .bind(ada.id.0)
        .fetch_one(&mut moved.db)
        .await?;
    ensure!(hash.starts_with("$argon2id$"), "{hash}");
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM users WHERE password_hash LIKE '$2b$04$%'")
            .fetch_one(&mut moved.db)
            .await?;
    ensure!(kept == 38, "{kept} passwords of old");
    ada.device("second").await?;
    let wrong = natter_e2e::person::anonymous(&moved.cluster, 0)?
        .post("/auth/login", json!({"phone": moved.person(2).await?.phone, "password": "another"}))
        .await?;
    wrong.refused(401, "unauthenticated")?;

    // Everything counts as read, and is there to the beginning.
    let listed = ada.api(0).chats("limit=50").await?;
    ensure!(
        listed.items.iter().all(|chat| chat.me.as_ref().is_some_and(|me| me.unread_count == 0))
    );
    let mine = listed.items.iter().find(|listed| listed.id == chat).context("not in the list")?;
    let count: i64 = sqlx::query_scalar(r#"SELECT count(*) FROM "Message" WHERE "chatId" = $1"#)
        .bind(moved.old_chat().await?)
        .fetch_one(&mut moved.old.db)
        .await?;
    ensure!(mine.last_seq == count as Seq && mine.participant_count == 8, "{mine:?}");
    let before = moved.history(&ada).await?;
    ensure!(before.len() == count as usize, "{} of {count}", before.len());
    ensure!(
        before
            .iter()
            .enumerate()
            .all(|(n, message)| { (message.seq, message.prev_seq) == (n as Seq + 1, n as Seq) })
    );

    // What is said now comes behind, on every device, and is unread until it is read.
    let (phone, other) = (ada.connect(0).await?, ben.connect(1).await?);
    let sent = phone.say(chat, "we have moved").await?;
    ensure!(sent.seq > count as Seq, "{sent:?}");
    let heard = other.hears(chat, "we have moved").await?;
    ensure!(heard.seq == sent.seq, "{heard:?}");
    let page = ben.api(0).history(chat, "limit=1").await?;
    ensure!(page.messages[0].prev_seq == count as Seq, "{page:?}");
    soon("it is unread", async || {
        let me = ben.api(0).chat(chat).await?.me.context("no part")?;
        Ok((me.unread_count == 1).then_some(()))
    })
    .await?;
    // Away, and back.
    let cursor = other.cursor()?;
    other.close().await?;
    let missed = phone.say(chat, "who is here?").await?;
    let back = ben.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed);
    let heard = back.hears(chat, "who is here?").await?;
    ensure!(heard.seq == missed.seq, "{heard:?}");
    back.check_feeds()?;
    // An old message is edited, answered and reacted to like any other.
    let mine = before.iter().rev().find(|old| old.sender_id == ada.id && !old.deleted);
    let mine = mine.context("Ada never said anything")?;
    let path = format!("/chats/{chat}/messages/{}", mine.id);
    ada.api(0).delete(&path).await?.expect(200)?;
    let answer = json!({"content": "an answer", "replyTo": before[1].id});
    ada.api(1).post(&format!("/chats/{chat}/messages"), answer).await?.expect(201)?;
    let after = moved.history(&ben).await?;
    ensure!(after.len() == before.len() + 3, "{} and {}", after.len(), before.len());
    let gone = after.iter().find(|message| message.id == mine.id).context("it is not there")?;
    ensure!(gone.deleted && gone.content.is_empty(), "{gone:?}");
    let answer = after.last().context("nothing")?;
    ensure!(answer.quote.as_ref().is_some_and(|quote| quote.id == before[1].id), "{answer:?}");
    ensure!(
        after[..before.len()]
            .iter()
            .zip(&before)
            .all(|(a, b)| a.seq == b.seq && a.prev_seq == b.prev_seq)
    );

    // Words of old messages are found, once a worker has come to them.
    let old = before.iter().find(|old| !old.deleted && old.id != mine.id).context("all deleted")?;
    let word = old.content.split_whitespace().next_back().context("no words")?.to_owned();
    within(Duration::from_mins(1), "an old message is found", async || {
        let found = ben.api(0).search(&word, "limit=3").await?;
        Ok((found.items.len() == 1 && found.items[0].message.id == old.id).then_some(()))
    })
    .await
}

#[tokio::test]
async fn old_ids_lead_to_what_the_caller_may_see() -> Result<()> {
    let mut moved = Moved::over().await?;
    let chat = moved.old_chat().await?;
    let ada = moved.person(0).await?;
    let stranger = Person::register(&moved.cluster, "A stranger").await?;
    let (message, file, phone): (i32, String, String) = sqlx::query_as(
        r#"SELECT m.id, f.id, u.phone FROM "Message" m JOIN "MediaFile" f ON f."messageId" = m.id
           JOIN "ChatParticipant" p ON p."chatId" = m."chatId" JOIN "User" u ON u.id = p."userId"
           ORDER BY m.id, p.id LIMIT 1"#,
    )
    .fetch_one(&mut moved.old.db)
    .await?;
    let has_file = Person::log_in(&moved.cluster, &phone, PASSWORD).await?;
    let message = message.to_string();
    let device: String = sqlx::query_scalar(r#"SELECT id FROM "Device" WHERE "userId" = $1"#)
        .bind(ada.id.to_string())
        .fetch_one(&mut moved.old.db)
        .await?;
    let ben = moved.person(1).await?.id.to_string();
    for (kind, old) in [
        (ImportedKind::Chat, chat.as_str()),
        (ImportedKind::Message, &message),
        (ImportedKind::Media, &file),
        (ImportedKind::User, &ben),
        (ImportedKind::Device, &device),
    ] {
        let path = format!("/imported/{}/{old}", kind.as_str());
        let of_file = matches!(kind, ImportedKind::Message | ImportedKind::Media);
        let caller = if of_file { &has_file } else { &ada };
        let found: Imported = caller.api(1).get(&path).await?.read(200)?;
        ensure!(found.id == kind.id("old", old) && found.old_id == old, "{found:?}");
        match kind {
            ImportedKind::Message => {
                let around = format!("around={}&limit=1", found.seq.context("no place")?);
                let chat = found.chat_id.context("no chat")?;
                let page = caller.api(0).history(chat, &around).await?;
                ensure!(page.messages.iter().any(|m| m.id.0 == found.id), "{page:?}");
            }
            ImportedKind::Media => {
                ensure!(found.url == Some(format!("/uploads/{message}.png")), "{found:?}");
            }
            _ => {}
        }
        stranger.api(0).get(&path).await?.refused(404, "not_found")?;
    }
    ada.api(0).get("/imported/message/0").await?.refused(404, "not_found")?;
    ada.api(0).get("/imported/song/1").await?.refused(400, "bad_request")?;
    Ok(())
}

#[tokio::test]
async fn what_the_old_system_gets_meanwhile_comes_with_another_run() -> Result<()> {
    let mut moved = Moved::over().await?;
    let (quiet, lively) = (moved.old_chat().await?, {
        let other: String = sqlx::query_scalar("SELECT id FROM numbered WHERE n = 6")
            .fetch_one(&mut moved.old.db)
            .await?;
        other
    });
    // In one of two chats somebody has gone on here.
    let ada = moved.person(3).await?;
    let here = ChatId(ImportedKind::Chat.id("old", &lively));
    let said = ada.api(0).say(here, "here already").await?;
    soon("it is written", async || {
        Ok((ada.api(0).chat(here).await?.last_seq >= said.seq).then_some(()))
    })
    .await?;
    let ids: [String; 2] = [quiet.clone(), lively];
    for chat in &ids {
        moved
            .old
            .run(format!(
                r#"INSERT INTO "Message" ("chatId", "senderId", "content", "createdAt")
                   VALUES ('{chat}', '{}', 'still there', '2030-01-01')"#,
                ada.id
            ))
            .await?;
    }
    let import = Import { cluster: &moved.cluster, source: &moved.old.url };
    let report = import.report(&[]).await?;
    ensure!(super::command::counted(&report, "messages", "written") == 1, "{report:#}");
    ensure!(super::command::noted(&report, "messages", "gone on here") == 1, "{report:#}");
    let history = moved.history(&ada).await?;
    let last = history.last().context("nothing")?;
    ensure!(last.content == "still there" && last.seq == last.prev_seq + 1, "{last:?}");
    let me = ada.api(0).chat(moved.chat).await?.me.context("no part")?;
    ensure!(me.unread_count == 0, "{me:?}");
    Ok(())
}

#[tokio::test]
async fn files_are_copied_or_told_of_by_where_they_are() -> Result<()> {
    let store = tempfile::tempdir()?;
    let folder = tempfile::tempdir()?;
    let media = store.path().to_string_lossy().into_owned();
    let cluster = Cluster::builder().env("NATTER_MEDIA_STORE", &media).start().await?;
    let mut old = Old::filled(Size { messages: 3_000, chats: 12, users: 40 }).await?;
    let files: Vec<(i32, String, String)> = sqlx::query_as(
        r#"SELECT f."messageId", f.url, m."senderId" FROM "MediaFile" f
           JOIN "Message" m ON m.id = f."messageId" ORDER BY 1"#,
    )
    .fetch_all(&mut old.db)
    .await?;
    old.run(r#"UPDATE "Message" SET type = 'IMAGE', content = NULL WHERE id IN (SELECT "messageId" FROM "MediaFile")"#)
        .await?;
    ensure!(files.len() == 3, "{files:?}");
    std::fs::create_dir(folder.path().join("uploads"))?;
    let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0\0\0\0\0";
    for (_, url, _) in &files[1..] {
        std::fs::write(folder.path().join(url.trim_start_matches('/')), png)?;
    }
    let import = Import { cluster: &cluster, source: &old.url };
    let args = ["--media", &folder.path().to_string_lossy(), "--media-store", &media];
    let report = import.report(&args).await?;
    ensure!(
        (report["copied"].as_u64(), report["notCopied"].as_u64()) == (Some(2), Some(1)),
        "{report:#}"
    );
    for (nth, (message, url, sender)) in files.iter().enumerate() {
        let sender: UserId = sender.parse()?;
        let mut db = PgConnection::connect(&cluster.database_url()).await?;
        let phone: String = sqlx::query_scalar("SELECT phone FROM users WHERE id = $1")
            .bind(sender.0)
            .fetch_one(&mut db)
            .await?;
        let person = Person::log_in(&cluster, &phone, PASSWORD).await?;
        let found: Imported =
            person.api(0).get(&format!("/imported/message/{message}")).await?.read(200)?;
        let (chat, seq) = (found.chat_id.context("no chat")?, found.seq.context("no place")?);
        let page = person.api(0).history(chat, &format!("around={seq}&limit=1")).await?;
        let message = page.messages.iter().find(|m| m.seq == seq).context("not there")?;
        if nth == 0 {
            ensure!(message.content == *url && message.media.is_none(), "{message:?}");
            continue;
        }
        ensure!(
            message.content.is_empty() && message.content_type == ContentType::Media,
            "{message:?}"
        );
        let path = message.media_url.as_deref().context("no file")?;
        let got = person.api(0).request(reqwest::Method::GET, path.trim_start_matches("/v1"));
        let got = got.send().await?.error_for_status()?.bytes().await?;
        ensure!(got.as_ref() == png, "{got:?}");
        let downloads = format!("/chats/{chat}/messages/{}/downloads", message.id);
        let downloads = person.api(0).get(&downloads).await?.expect(200)?;
        let times = downloads["items"].as_array().context("no downloads")?;
        ensure!(times.len() >= 2, "{downloads}");
    }
    // The missing one turns up.
    std::fs::write(folder.path().join(files[0].1.trim_start_matches('/')), png)?;
    let report = import.report(&args).await?;
    ensure!(
        (report["copied"].as_u64(), report["notCopied"].as_u64()) == (Some(1), Some(0)),
        "{report:#}"
    );
    Ok(())
}
