//! What people may ask of their data: to have it, and to have it gone.

use std::{
    collections::BTreeMap,
    io::{Cursor, Read, Write},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use natter_cluster::Cluster;
use natter_e2e::{
    Api, Person, Socket,
    person::{anonymous, fresh_phone},
    soon,
    soon::within,
    tokens,
};
use natter_protocol::{
    ids::{ChatId, MessageId, UserId},
    media::Uploaded,
    rest::{MadeInvite, Session},
    server::Chat,
};
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use zip::ZipArchive;

use crate::stories::{APART, STAGE};

/// More than lies between a gateway and somebody who reads nothing.
const LARGE: usize = 48 << 20;
/// How long erasing may take, with what it does a second time for what comes late.
pub(crate) const ERASED: Duration = Duration::from_secs(90);

/// An archive, by the names of its entries.
struct Archive(BTreeMap<String, Vec<u8>>);

impl Archive {
    /// Exports, and opens what came with two programs that know nothing of each other.
    async fn of(api: &Api, path: &str) -> Result<Self> {
        let response = api.request(Method::GET, path).send().await?;
        ensure!(response.status() == 200, "{response:?}");
        ensure!(response.headers()["content-type"] == "application/zip");
        let saved = response.headers()["content-disposition"].to_str()?.to_owned();
        ensure!(saved.starts_with("attachment; filename=\"natter-"), "{saved}");
        let bytes = response.bytes().await?.to_vec();
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(&bytes)?;
        spawn_blocking(move || {
            let told =
                Command::new("python3").args(["-m", "zipfile", "-t"]).arg(file.path()).output()?;
            let said = String::from_utf8_lossy(&told.stdout).into_owned();
            ensure!(told.status.success() && said.contains("Done testing"), "{told:?}");
            let mut zip = ZipArchive::new(Cursor::new(bytes))?;
            let mut entries = BTreeMap::new();
            for n in 0..zip.len() {
                let mut entry = zip.by_index(n)?;
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                entries.insert(entry.name()?.into_owned(), content);
            }
            Ok(Self(entries))
        })
        .await?
    }

    fn entry(&self, name: &str) -> Result<&[u8]> {
        Ok(self.0.get(name).with_context(|| format!("no {name}: {:?}", self.0.keys()))?)
    }

    fn value(&self, name: &str) -> Result<Value> {
        Ok(serde_json::from_slice(self.entry(name)?)?)
    }

    fn lines(&self, name: &str) -> Result<Vec<Value>> {
        let text = std::str::from_utf8(self.entry(name)?)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    fn files(&self) -> Vec<&str> {
        self.0.keys().filter_map(|name| name.strip_prefix("media/")).collect()
    }
}

/// All of a chat's history, oldest first.
pub(crate) async fn all(api: &Api, chat: ChatId) -> Result<Vec<Value>> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/chats/{chat}/messages?after={after}&limit=7");
        let page = api.get(&path).await?.expect(200)?;
        all.extend(page["messages"].as_array().context("a page")?.iter().cloned());
        after = page["toSeq"].as_u64().context("a place")?;
        if page["hasMore"] == false {
            return Ok(all);
        }
    }
}

pub(crate) async fn upload(
    api: &Api,
    chat: ChatId,
    name: &str,
    bytes: Vec<u8>,
) -> Result<Uploaded> {
    let part = Part::bytes(bytes).file_name(name.to_owned());
    let form = Form::new().part("file", part).text("caption", format!("see {name}"));
    api.upload(chat, form).await?.read(201)
}

pub(crate) fn sent(uploaded: &Uploaded) -> Result<MessageId> {
    Ok(uploaded.message.as_ref().context("it was sent")?.id)
}

pub(crate) async fn react(api: &Api, chat: ChatId, message: MessageId) -> Result<()> {
    let path = format!("/chats/{chat}/messages/{message}/reactions/%F0%9F%91%8D");
    let answer = api.request(Method::PUT, &path).send().await?;
    ensure!(answer.status() == 200, "{answer:?}");
    Ok(())
}

pub(crate) async fn until_written(api: &Api, chat: ChatId, seq: u64) -> Result<()> {
    soon("the worker has written it", async || {
        Ok((api.chat(chat).await?.last_seq >= seq).then_some(()))
    })
    .await
}

/// Tries to delete the account, on a gateway.
async fn delete(person: &Person, gateway: usize, body: Value) -> Result<reqwest::Response> {
    let request = person.api(gateway).request(Method::DELETE, "/users/me");
    Ok(request.json(&body).send().await?)
}

pub(crate) async fn deleted(person: &Person, gateway: usize) -> Result<()> {
    let answer = delete(person, gateway, json!({"password": person.password})).await?;
    ensure!(answer.status() == 204, "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn a_chat_is_exported_as_its_history_shows_it_written_or_not() -> Result<()> {
    let cluster = APART.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Exported", &[&ben]).await?.id;
    let mut first = None;
    for n in 0..230 {
        let content = format!("{n}: \"quoted\", ünïcödé \u{1f984} and\nlines");
        let said = ana.api(n % 2).say(chat, &content).await?;
        first.get_or_insert(said.id);
    }
    let first = first.context("said")?;
    let picture = upload(&ben.api(1), chat, "../har\u{202e}bour.txt", b"boats".to_vec()).await?;
    react(&ben.api(0), chat, first).await?;
    let written = ben.api(0).say(chat, "to be edited").await?;
    until_written(&ben.api(0), chat, written.seq).await?;

    // The rest is in the log alone.
    cluster.worker(0).kill().await?;
    let path = format!("/chats/{chat}/messages/{}", written.id);
    ben.api(1).patch(&path, json!({"content": "edited"})).await?.expect(200)?;
    let taken_back = ana.api(0).say(chat, "taken back").await?;
    ana.api(1).delete(&format!("/chats/{chat}/messages/{}", taken_back.id)).await?.expect(200)?;
    let reply = json!({"content": "an answer", "replyTo": first});
    ben.api(0).post(&format!("/chats/{chat}/messages"), reply).await?.expect(201)?;
    let last = upload(&ana.api(0), chat, "late.bin", vec![7; 100_000]).await?;

    let path = format!("/chats/{chat}/export");
    let archive = Archive::of(&ben.api(1), &path).await?;
    let shown = all(&ben.api(1), chat).await?;
    ensure!(shown.len() == 230 + 1 + 1 + 1 + 1 + 1 + 1, "{}", shown.len());
    let exported = archive.lines("messages.ndjson")?;
    ensure!(exported == shown, "{:?}\n{:?}", exported.last(), shown.last());
    let media = [&picture, &last].map(|it| &it.media);
    let names = media.map(|media| format!("{}-{}", media.id, media.name));
    ensure!(archive.files() == names, "{:?}", archive.files());
    ensure!(archive.entry(&format!("media/{}", names[0]))? == b"boats");
    ensure!(archive.entry(&format!("media/{}", names[1]))? == vec![7; 100_000]);
    let participants = archive.lines("participants.ndjson")?;
    let ids: Vec<_> = participants.iter().map(|one| one["id"].clone()).collect();
    ensure!(ids.len() == 2 && ids.contains(&json!(ana.id)) && ids.contains(&json!(ben.id)));
    ensure!(archive.value("chat.json")?["title"] == "Exported");
    let manifest = archive.value("manifest.json")?;
    ensure!(manifest["format"] == "natter-export" && manifest["version"] == 1, "{manifest}");
    ensure!(manifest["chat"] == json!(chat) && manifest["madeFor"] == json!(ben.id), "{manifest}");
    let entries = json!({"participants": 2, "messages": 236, "media": 2});
    ensure!(manifest["entries"] == entries && manifest["missingCount"] == 0, "{manifest}");
    ensure!(manifest["upTo"].as_u64() >= shown.last().and_then(|m| m["seq"].as_u64()));

    let bare = Archive::of(&ana.api(0), &format!("{path}?media=false")).await?;
    ensure!(bare.files().is_empty() && bare.lines("messages.ndjson")?.len() == 236);
    cluster.worker(0).start().await?;

    // It is for those who take part.
    cleo.api(0).get(&path).await?.refused(403, "not_member")?;
    let nowhere = format!("/chats/{}/export", ChatId::generate());
    ana.api(1).get(&nowhere).await?.refused(403, "not_member")?;
    ana.api(0).get(&format!("{path}?media=perhaps")).await?.refused(400, "bad_request")?;
    anonymous(&cluster, 0)?.get(&path).await?.refused(401, "unauthenticated").map(drop)
}

#[tokio::test]
async fn there_is_one_export_at_a_time_and_none_for_who_is_removed_meanwhile() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Large", &[&ben]).await?.id;
    upload(&ana.api(0), chat, "large.bin", vec![1; LARGE]).await?;
    let path = format!("/chats/{chat}/export");
    // Nobody reads it: it waits.
    let one = ben.api(1).request(Method::GET, &path).send().await?;
    ensure!(one.status() == 200, "{one:?}");
    for second in [path.as_str(), "/users/me/export"] {
        let refused = ben.api(1).get(second).await?.refused(429, "rate_limited")?;
        ensure!(refused["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{refused}");
    }
    // Others may.
    let theirs = ana.api(1).request(Method::GET, &format!("{path}?media=false")).send().await?;
    ensure!(theirs.status() == 200 && !theirs.bytes().await?.is_empty());
    let removed = ana.api(0).delete(&format!("/chats/{chat}/participants/{}", ben.id)).await?;
    ensure!(removed.status() < 300, "{removed:?}");
    let rest = one.bytes().await;
    ensure!(rest.is_err(), "it was broken off: {:?}", rest.map(|bytes| bytes.len()));
    // Then he may have another.
    soon("the place is free", async || {
        let answer = ben.api(1).request(Method::GET, "/users/me/export").send().await?;
        Ok((answer.status() == 200).then_some(()))
    })
    .await?;
    ben.api(1).get(&path).await?.refused(403, "not_member").map(drop)
}

#[tokio::test]
async fn people_have_all_that_is_theirs() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let tablet = ana.device("tablet").await?;
    let here = ana.api(0).group("Here", &[&ben]).await?.id;
    let left = ben.api(0).group("Left", &[&ana]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let theirs = ben.api(1).say(here, "his").await?;
    react(&ana.api(0), here, theirs.id).await?;
    let mut mine = Vec::new();
    for (chat, count) in [(here, 3), (left, 205), (direct, 2)] {
        for n in 0..count {
            mine.push(ana.api(n % 2).say(chat, &format!("hers {n}")).await?.id);
        }
    }
    let file = upload(&ana.api(1), left, "hers.txt", b"hers".to_vec()).await?;
    mine.push(sent(&file)?);
    upload(&ben.api(1), here, "his.txt", b"his".to_vec()).await?;
    let gone = ana.api(1).post(&format!("/chats/{left}/leave"), json!({})).await?;
    gone.expect(200)?;
    let blocked = format!("/users/{}/block", ben.id);
    ensure!(ana.api(0).request(Method::PUT, &blocked).send().await?.status() == 204);

    let archive = Archive::of(&tablet.api(1), "/users/me/export").await?;
    let profile = archive.value("profile.json")?;
    assert_eq!(archive.value("notifications.json")?["preview"], "full");
    ensure!(profile["name"] == "Ana" && profile["phone"] == json!(ana.phone), "{profile}");
    let devices = archive.lines("devices.ndjson")?;
    let current: Vec<_> = devices.iter().filter(|device| device["current"] == true).collect();
    ensure!(devices.len() == 2 && current.len() == 1 && current[0]["id"] == json!(tablet.id));
    ensure!(archive.lines("blocks.ndjson")?[0]["user"]["id"] == json!(ben.id));
    let chats = archive.lines("chats.ndjson")?;
    let of = |id: ChatId| chats.iter().find(|chat| chat["id"] == json!(id)).context("missing");
    ensure!(chats.len() == 3, "{chats:?}");
    ensure!(of(here)?["chat"]["title"] == "Here" && of(here)?["chat"]["me"].is_object());
    ensure!(of(here)?["leftAt"].is_null() && of(here)?["joinedAt"].is_string());
    ensure!(of(left)?["leftAt"].is_string() && of(left)?["chat"].is_null(), "{:?}", of(left)?);
    ensure!(of(direct)?["isGroup"] == false);
    let messages = archive.lines("messages.ndjson")?;
    ensure!(messages.iter().all(|message| message["senderId"] == json!(ana.id)));
    let mut ids: Vec<MessageId> = messages
        .iter()
        .map(|message| Ok(serde_json::from_value(message["id"].clone())?))
        .collect::<Result<_>>()?;
    ids.sort_unstable();
    mine.sort_unstable();
    ensure!(ids == mine, "{} of {}", ids.len(), mine.len());
    let reactions = archive.lines("reactions.ndjson")?;
    ensure!(reactions.len() == 1 && reactions[0]["messageId"] == json!(theirs.id));
    ensure!(archive.files() == [format!("{}-hers.txt", file.media.id)], "{:?}", archive.files());
    let manifest = archive.value("manifest.json")?;
    ensure!(manifest["user"] == json!(ana.id) && manifest["partial"] == false, "{manifest}");
    ensure!(manifest["entries"]["messages"] == json!(mine.len()), "{manifest}");
    anonymous(&cluster, 0)?.get("/users/me/export").await?.refused(401, "unauthenticated").map(drop)
}

/// Nobody comes in with what the account had.
async fn shut_out(cluster: &Cluster, person: &Person) -> Result<()> {
    for gateway in [0, 1] {
        person.api(gateway).get("/users/me").await?.refused(401, "unauthenticated")?;
        let one = anonymous(cluster, gateway)?;
        let refresh = json!({"refreshToken": person.first.refresh_token});
        one.post("/auth/refresh", refresh).await?.refused(401, "unauthenticated")?;
        let log_in = async |phone: &str| -> Result<Value> {
            let body = json!({"phone": phone, "password": person.password});
            one.post("/auth/login", body).await?.refused(401, "unauthenticated")
        };
        // As one who never was.
        ensure!(log_in(&person.phone).await?["detail"] == log_in(&fresh_phone()).await?["detail"]);
    }
    Ok(())
}

async fn hears(socket: &Socket, chat: ChatId, kind: &str) -> Result<Value> {
    socket.expect("system", |data| data["chatId"] == json!(chat) && data["kind"] == kind).await
}

#[tokio::test]
async fn whoever_deletes_their_account_is_out_at_once_and_known_to_nobody() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Anastasia").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let group = ana.api(0).group("Hers", &[&ben, &cleo]).await?.id;
    let other = ben.api(0).group("His", &[&ana]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let said = ana.api(1).say(direct, "between us").await?;
    ana.api(1).say(group, "to all").await?;
    let path = format!("/chats/{group}/invites");
    let invite: MadeInvite = ana.api(0).post(&path, json!({})).await?.read(201)?;
    let invite = format!("/invites/{}", invite.code);
    cleo.api(0).get(&invite).await?.expect(200)?;
    let mine = [ana.connect(0).await?, ana.device("tablet").await?.connect(1).await?];
    let bens = ben.connect(1).await?;
    until_written(&ben.api(0), direct, said.seq).await?;

    // Only whoever knows the password.
    for (body, status, code) in [
        (json!({"password": "something else"}), 401, "unauthenticated"),
        (json!({}), 400, "bad_request"),
        (json!({"password": 7}), 400, "bad_request"),
    ] {
        let answer = delete(&ana, 0, body.clone()).await?;
        let told = answer.status();
        let problem: Value = serde_json::from_slice(&answer.bytes().await?)?;
        ensure!(told == status && problem["code"] == code, "{body}: {told} {problem}");
    }
    ana.api(0).get("/users/me").await?.expect(200)?;
    deleted(&ana, 0).await?;
    for socket in &mine {
        socket.expect_close(4403).await?;
    }
    shut_out(&cluster, &ana).await?;

    // Groups are left by the rules of leaving.
    for chat in [group, other] {
        let left = hears(&bens, chat, "left").await?;
        ensure!(left["userId"] == json!(ana.id) && left["msg"] == "Deleted user left", "{left}");
    }
    let role = hears(&bens, group, "role").await?;
    ensure!(role["role"] == "owner", "{role}");
    let seen = ben.api(0).chat(group).await?;
    ensure!(seen.participant_count == 2, "{seen:?}");
    cleo.api(0).get(&invite).await?.refused(404, "not_found")?;

    // A one-to-one stays, and nobody can write there.
    let named = |data: &Value| data["id"] == json!(direct) && data["me"]["name"] == "Deleted user";
    bens.expect("chat_updated", named).await?;
    for gateway in [0, 1] {
        let path = format!("/chats/{direct}/messages");
        soon("he cannot write", async || {
            let said = ben.api(gateway).post(&path, json!({"content": "hello?"})).await?;
            Ok((said.status() == 403).then_some(()))
        })
        .await?;
        let page = ben.api(gateway).history(direct, "limit=50").await?;
        let hers: Vec<_> = page.messages.iter().filter(|m| m.sender_id == ana.id).collect();
        ensure!(hers.iter().any(|message| message.content == "between us"), "{page:?}");
        ensure!(hers.iter().all(|message| message.sender.name == "Deleted user"), "{hers:?}");
    }
    let unblocked = format!("/users/{}/block", ana.id);
    ben.api(0).delete(&unblocked).await?.expect(204)?;
    let path = format!("/chats/{direct}/messages");
    ben.api(0).post(&path, json!({"content": "now?"})).await?.refused(403, "forbidden")?;

    // Nobody finds her, or makes her take part in anything.
    for gateway in [0, 1] {
        for words in ["Anastasia", "Deleted user"] {
            let found =
                ben.api(gateway).get(&format!("/users?search={words}")).await?.expect(200)?;
            let items = found["items"].as_array().context("items")?;
            ensure!(items.iter().all(|user| user["id"] != json!(ana.id)), "{found}");
        }
    }
    let there = json!({"isGroup": false, "participantIds": [ana.id]});
    let again: Chat = ben.api(1).post("/chats", there.clone()).await?.read(200)?;
    ensure!(again.id == direct);
    cleo.api(0).post("/chats", there).await?.refused(404, "not_found")?;
    let made = json!({"isGroup": true, "title": "New", "participantIds": [ana.id]});
    cleo.api(1).post("/chats", made).await?.refused(404, "not_found")?;
    let add = format!("/chats/{other}/participants");
    let added = ben.api(0).post(&add, json!({"userIds": [ana.id]})).await?;
    added.refused(404, "not_found")?;
    ensure!(ben.api(0).request(Method::PUT, &unblocked).send().await?.status() == 404);

    // Nor do the texts of what happened name her, once all is done.
    let done = format!("SELECT step FROM erasures WHERE user_id = '{}'", ana.id);
    within(ERASED, "the deletion is done", async || {
        Ok((cluster.sql(&done)?.trim() == "done").then_some(()))
    })
    .await?;
    for chat in [group, other, direct] {
        let shown = json!(all(&ben.api(0), chat).await?).to_string();
        ensure!(!shown.contains("Anastasia"), "{shown}");
    }
    let known = format!(
        "SELECT count(*) FROM users u LEFT JOIN devices d ON d.user_id = u.id
         WHERE u.id = '{}' AND (phone IS NOT NULL OR password_hash IS NOT NULL
             OR d.name IS NOT NULL OR d.session IS NOT NULL OR d.revoked_at IS NULL)",
        ana.id
    );
    ensure!(cluster.sql(&known)?.trim() == "0");

    // The number is free again, for another account.
    let body = json!({"name": "Ana", "phone": ana.phone, "password": "another password"});
    let session: Session = anonymous(&cluster, 1)?.post("/auth/register", body).await?.read(201)?;
    ensure!(session.user.id != ana.id);
    bens.check_feeds()
}

#[tokio::test]
async fn an_outside_issuers_user_does_not_come_back() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let subject = format!("subject-{}", UserId::generate());
    let token = |device: &str| tokens::outside(&tokens::outside_claims(&subject, device));
    let (phone, tablet) = (token("phone")?, token("tablet")?);
    let with = |gateway: usize, token: &str| -> Result<Api> {
        Ok(anonymous(&cluster, gateway)?.with_token(token))
    };
    // One of both gateways remembers both devices.
    for token in [&phone, &tablet] {
        with(0, token)?.get("/users/me").await?.expect(200)?;
    }
    let socket = Socket::connect(cluster.gateway(1).address(), &tablet).await?;
    // There is no password to show.
    let answer = with(1, &phone)?.request(Method::DELETE, "/users/me").send().await?;
    ensure!(answer.status() == 204, "{answer:?}");
    socket.expect_close(4403).await?;
    for gateway in [0, 1] {
        for token in [&phone, &tablet, &token("another")?] {
            with(gateway, token)?.get("/users/me").await?.refused(401, "unauthenticated")?;
        }
    }
    let kept =
        cluster.sql(&format!("SELECT count(*) FROM users WHERE external_subject = '{subject}'"))?;
    ensure!(kept.trim() == "0");
    Ok(())
}
