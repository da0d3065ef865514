//! The built `natter` against a real cluster of two gateways.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Builder, Cluster};
use natter_e2e::{
    Person, Socket, Stage,
    person::anonymous,
    push_services::{Step, endpoint::Endpoint},
    soon::{soon, within},
};
use natter_protocol::{
    error::close,
    ids::{ChatId, DeviceId, ServiceTokenId, UserId},
    server::Message,
};
use serde_json::{Value, json};
use tokio::process::Command;

/// Endpoints of webhooks have little patience to rely on.
fn impatient(builder: Builder) -> Builder {
    builder.push_env("NATTER_WEBHOOK_ATTEMPTS", "2").push_env("NATTER_WEBHOOK_RETRY_SECONDS", "1")
}

static STAGE: Stage = Stage::with(impatient);

/// For the story that waits for webhooks most of the time: the others need not wait for it.
static APART: Stage = Stage::with(impatient);

/// What webhooks do is known to Postgres by then.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a command has said, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn expect(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "not {code}: {self:?}");
        Ok(self)
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out).with_context(|| format!("{self:?}"))
    }

    fn has(&self, part: &str) -> Result<()> {
        let said = self.out.contains(part) || self.err.contains(part);
        ensure!(said, "nothing of {part:?}: {self:?}");
        Ok(())
    }
}

/// The settings that a command may need.
fn settings(cluster: &Cluster) -> Vec<(&'static str, String)> {
    vec![
        ("NATTER_DATABASE_URL", cluster.database_url()),
        ("NATTER_NATS_URL", cluster.nats_url()),
        ("NATTER_REDIS_URL", cluster.redis_url()),
        ("NATTER_JWT_SECRET", cluster.jwt_secret().to_owned()),
    ]
}

async fn run(settings: &[(&'static str, String)], args: &[&str]) -> Result<Said> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("NATTER_") {
            command.env_remove(name);
        }
    }
    command.args(args).envs(settings.iter().cloned()).stdin(Stdio::null());
    let output = command.output().await?;
    Ok(Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout)?,
        err: String::from_utf8(output.stderr)?,
    })
}

async fn natter(cluster: &Cluster, args: &[&str]) -> Result<Said> {
    run(&settings(cluster), args).await
}

/// Until all that has been sent is written, and every part of the status is well.
async fn well(cluster: &Cluster) -> Result<Value> {
    soon("a status that is well", async || {
        let said = natter(cluster, &["status", "--json"]).await?;
        let status = said.json()?;
        let lag = status.pointer("/shards/0/lagEntries").and_then(Value::as_u64);
        Ok((said.code == Some(0) && lag == Some(0)).then_some(status))
    })
    .await
}

async fn history(person: &Person, chat: ChatId) -> Result<Vec<Message>> {
    let page = person.api(1).history(chat, "limit=50").await?;
    Ok(page.messages.into_iter().filter(|message| message.system.is_none()).collect())
}

fn text(value: &Value, pointer: &str) -> Result<String> {
    let found = value.pointer(pointer).with_context(|| format!("no {pointer} in {value}"))?;
    Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
}

#[tokio::test]
async fn the_status_tells_what_is_wrong_and_what_nobody_can_tell() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let (ada, ben) =
        (Person::register(&cluster, "Ada").await?, Person::register(&cluster, "Ben").await?);
    let chat = ada.api(0).direct(&ben).await?.id;
    let status = well(&cluster).await?;
    assert_eq!(text(&status, "/verdict")?, "well");
    assert_eq!(text(&status, "/versions/schema")?, text(&status, "/versions/schemaKnown")?);
    for version in ["postgres", "nats", "redis", "natter"] {
        let version = text(&status, &format!("/versions/{version}"))?;
        ensure!(version.starts_with(|c: char| c.is_ascii_digit()), "{version}");
    }
    let gateways = status["gateways"].as_array().context("gateways")?;
    assert_eq!(gateways.len(), 2, "{status}");
    assert_eq!(status.pointer("/shards/0/mirror"), Some(&Value::Bool(true)));
    let nodes = status["nodes"].as_array().context("nodes")?;
    let roles: Vec<&Value> = nodes.iter().map(|node| &node["role"]).collect();
    assert_eq!(roles, ["gateway", "gateway", "worker", "push"], "{status}");
    for node in nodes {
        assert_eq!(node["version"], status["versions"]["natter"], "{node}");
        assert_eq!(node["schema"], status["versions"]["schemaKnown"], "{node}");
    }
    assert_eq!(nodes[2]["shards"], json!([0]), "{status}");
    assert_eq!(status["mixed"], false);
    let plain = natter(&cluster, &["status"]).await?.expect(0)?;
    plain.has("all is well")?;
    plain.has(gateways[0].as_str().unwrap_or_default())?;
    natter(&cluster, &["migrate"]).await?.expect(0)?;

    // The worker ends: what is sent waits in the log.
    cluster.worker(0).terminate().await?;
    let sent = ada.api(0).say(chat, "before the worker is back").await?;
    let status = natter(&cluster, &["status", "--json"]).await?.expect(1)?.json()?;
    assert_eq!(text(&status, "/shards/0/lagEntries")?, "1");
    natter(&cluster, &["status"]).await?.expect(1)?.has("wrong: shard 0 has no owner")?;
    let path = natter(&cluster, &["message", &sent.id.to_string(), "--json"]).await?.expect(0)?;
    let path = path.json()?;
    assert_eq!(text(&path, "/postgres/state")?, "waiting");
    assert_eq!(
        (text(&path, "/log/seq")?, text(&path, "/log/held")?),
        (sent.seq.to_string(), "true".into())
    );
    cluster.worker(0).start().await?;
    well(&cluster).await?;

    // What is away is named, and the rest is told.
    cluster.redis().pause()?;
    let said = natter(&cluster, &["status"]).await?.expect(2)?;
    said.has("could not tell: Redis (NATTER_REDIS_URL)")?;
    said.has("follows")?;
    cluster.redis().resume()?;
    let mut elsewhere = settings(&cluster);
    elsewhere[0].1 = "postgres://natter:x@127.0.0.1:9/natter".to_owned();
    let said = run(&elsewhere, &["status"]).await?.expect(2)?;
    said.has("could not tell: Postgres (NATTER_DATABASE_URL)")?;
    said.has("follows")?;
    Ok(())
}

#[tokio::test]
async fn the_status_tells_how_endpoints_of_webhooks_are() -> Result<()> {
    let cluster = APART.alone().await?;
    let endpoint = Endpoint::start().await?;
    let args = ["webhook", "add", "shop", &endpoint.url(), "--kinds=message", "--json"];
    let made = natter(&cluster, &args).await?.expect(0)?.json()?;
    endpoint.trust(&text(&made, "/secret")?)?;
    // Until the status has this to say of the only endpoint, which it then says is well or not.
    let says = async |code: i32, pointer: &'static str, value: Value| {
        let what = format!("{pointer} is {value}, and the exit code {code}");
        let status = within(PATIENCE, &what, async || {
            let said = natter(&cluster, &["status", "--json"]).await?;
            let status = said.json()?;
            let found = status.pointer(&format!("/webhooks/0/{pointer}"));
            Ok((found == Some(&value) && said.code == Some(code)).then_some(status))
        });
        status.await
    };
    let status = says(0, "state", json!("well")).await?;
    assert_eq!(status["webhooks"][0]["enabled"], true, "{status}");
    assert_eq!(status["webhooks"][0]["lastAnswer"], Value::Null, "{status}");

    let (ada, ben) =
        (Person::register(&cluster, "Ada").await?, Person::register(&cluster, "Ben").await?);
    let chat = ada.api(0).direct(&ben).await?.id;
    endpoint.rule(|_| Some(Step::status(503)));
    ada.api(0).say(chat, "given up").await?;
    let status = says(1, "deadLetters", json!(1)).await?;
    ensure!(text(&status, "/webhooks/0/lastAnswer")?.starts_with("503"), "{status}");
    let plain = natter(&cluster, &["status"]).await?.expect(1)?;
    plain.has("wrong: 1 dead letters of the endpoint shop: `natter webhook dead-letters shop`")?;
    plain.has("LAST FAILURE")?;
    endpoint.take_all();
    natter(&cluster, &["webhook", "replay-letters", "shop", "--all"]).await?.expect(0)?;
    says(0, "deadLetters", json!(0)).await?;

    // Nobody tells it: by then it is no news that it was made.
    cluster.pusher(0).terminate().await?;
    let created = "UPDATE webhook_endpoints SET created_at = created_at - interval '1 minute'";
    cluster.sql(created)?;
    says(1, "state", json!("untold")).await?;
    let plain = natter(&cluster, &["status"]).await?.expect(1)?;
    plain.has("wrong: no push worker tells the endpoint shop")?;
    natter(&cluster, &["webhook", "disable", "shop"]).await?.expect(0)?;
    says(0, "state", json!("disabled")).await?;
    natter(&cluster, &["status"]).await?.expect(0)?.has("disabled")?;
    cluster.pusher(0).start().await?;
    natter(&cluster, &["webhook", "remove", "shop"]).await?.expect(0)?;
    ensure!(endpoint.violations().is_empty(), "{:?}", endpoint.violations());
    Ok(())
}

#[tokio::test]
async fn a_worker_that_stands_by_is_told_of_and_so_is_a_gateway_that_does_not_answer() -> Result<()>
{
    let cluster = Cluster::builder().gateways(1).workers(2).start().await?;
    let nodes = async || {
        let said = natter(&cluster, &["status", "--json"]).await?.json()?;
        let nodes = said["nodes"].as_array().cloned().with_context(|| said.to_string())?;
        anyhow::Ok((nodes, said["mixed"] == true))
    };
    soon("one works and one stands by", async || {
        let (nodes, mixed) = nodes().await?;
        let workers = nodes.iter().filter(|node| node["role"] == "worker");
        let mut shards: Vec<String> = workers.map(|node| node["shards"].to_string()).collect();
        shards.sort();
        Ok((shards == ["[0]", "[]"] && !mixed).then_some(()))
    })
    .await?;
    natter(&cluster, &["status"]).await?.expect(0)?.has("stands by")?;
    cluster.gateway(0).pause()?;
    let (listed, mixed) = nodes().await?;
    cluster.gateway(0).resume()?;
    let gateway = listed.iter().find(|node| node["role"] == "gateway").context("no gateway")?;
    ensure!(gateway["version"].is_null() && mixed, "{gateway}");
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_is_written_after_all_once_its_cause_is_mended() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let (ada, ben) =
        (Person::register(&cluster, "Ada").await?, Person::register(&cluster, "Ben").await?);
    let chat = ada.api(0).direct(&ben).await?.id;
    let before = ada.api(0).say(chat, "before").await?;
    // As a schema that is behind, or broken by hand, would.
    cluster
        .sql("ALTER TABLE messages ADD CONSTRAINT no_secrets CHECK (content NOT LIKE 'secret%')")?;
    let sent = ada.api(0).say(chat, "secret plan").await?;
    let after = ada.api(0).say(chat, "after").await?;
    let total = soon("a dead letter", async || {
        let said = natter(&cluster, &["dead-letters", "list", "--json"]).await?.expect(0)?;
        let list = said.json()?;
        Ok((list["total"] == 1 && history_of(&ada, chat).await? == ["before", "after"])
            .then_some(list))
    })
    .await?;
    let letter = text(&total, "/letters/0/id")?;
    assert_eq!(text(&total, "/letters/0/seq")?, sent.seq.to_string());
    ensure!(!total.to_string().contains("secret plan"), "{total}");

    let plain = natter(&cluster, &["dead-letters", "list"]).await?.expect(0)?;
    plain.has("no_secrets")?;
    plain.has(&format!("chat {chat}"))?;
    ensure!(!plain.out.contains("secret plan"), "{plain:?}");
    let shown = natter(&cluster, &["dead-letters", "show", &letter]).await?.expect(0)?;
    shown.has(&format!("seq     {}", sent.seq))?;
    ensure!(!shown.out.contains("secret plan"), "{shown:?}");
    natter(&cluster, &["dead-letters", "show", &letter, "--body"])
        .await?
        .expect(0)?
        .has("secret plan")?;
    natter(&cluster, &["status"]).await?.expect(1)?.has("wrong: 1 dead letters")?;

    let id = sent.id.to_string();
    let path = natter(&cluster, &["message", &id, "--json"]).await?.expect(1)?.json()?;
    assert_eq!(text(&path, "/postgres/state")?, "void");
    assert_eq!(text(&path, "/deadLetter/id")?, letter);

    // Not yet mended: it stays.
    let kept = natter(&cluster, &["dead-letters", "replay", &letter]).await?.expect(1)?;
    kept.has("kept")?;
    kept.has("no_secrets")?;
    assert_eq!(history_of(&ada, chat).await?, ["before", "after"]);

    cluster.sql("ALTER TABLE messages DROP CONSTRAINT no_secrets")?;
    natter(&cluster, &["dead-letters", "replay", &letter]).await?.expect(0)?.has("written")?;
    let messages = history(&ada, chat).await?;
    let places: Vec<_> = messages.iter().map(|message| (message.id, message.seq)).collect();
    let expected = [&before, &sent, &after].map(|sent| (sent.id, sent.seq));
    assert_eq!(places, expected, "at its own place");
    let chain: Vec<_> = messages[1..].iter().map(|message| message.prev_seq).collect();
    assert_eq!(chain, [before.seq, sent.seq]);
    let list = natter(&cluster, &["dead-letters", "list", "--json"]).await?.expect(0)?.json()?;
    assert_eq!(list["total"], 0);
    natter(&cluster, &["dead-letters", "replay", &letter])
        .await?
        .expect(1)?
        .has("no dead letter")?;
    natter(&cluster, &["dead-letters", "replay", "--all"]).await?.expect(0)?;
    let path = natter(&cluster, &["message", &id, "--json"]).await?.expect(0)?.json()?;
    assert_eq!(text(&path, "/postgres/state")?, "written");
    Ok(())
}

#[tokio::test]
async fn a_letter_that_was_sent_again_or_replayed_before_is_one_message() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let (ada, ben) =
        (Person::register(&cluster, "Ada").await?, Person::register(&cluster, "Ben").await?);
    let chat = ada.api(0).direct(&ben).await?.id;
    let letter_of = async |content: &str| -> Result<String> {
        let refuse = format!("CONSTRAINT nothing CHECK (content <> '{content}')");
        cluster.sql(&format!("ALTER TABLE messages ADD {refuse}"))?;
        let sent = ada.api(0).say(chat, content).await?;
        let letter = soon("a dead letter", async || {
            let said = natter(&cluster, &["dead-letters", "list", "--json"]).await?.expect(0)?;
            let list = said.json()?;
            let letters = list["letters"].as_array().cloned().unwrap_or_default();
            let found = letters.into_iter().find(|letter| letter["seq"] == sent.seq);
            Ok(found.and_then(|letter| letter["id"].as_u64()))
        })
        .await?;
        soon("its void row", async || Ok(void_at(&cluster, sent.seq)?.then_some(()))).await?;
        cluster.sql("ALTER TABLE messages DROP CONSTRAINT nothing")?;
        Ok(letter.to_string())
    };

    // Whoever replayed it has died before removing the letter.
    let letter = letter_of("again: once").await?;
    let copy = natter(&cluster, &["dead-letters", "show", &letter, "--body", "--json"]).await?;
    let copy = copy.expect(0)?.json()?;
    natter(&cluster, &["dead-letters", "replay", &letter]).await?.expect(0)?.has("written")?;
    let nats = async_nats::connect(cluster.nats_url()).await?;
    let jetstream = async_nats::jetstream::new(nats);
    bury_again(&jetstream, &copy).await?;
    natter(&cluster, &["dead-letters", "replay", "--all"])
        .await?
        .expect(0)?
        .has("already_there")?;
    assert_eq!(history_of(&ada, chat).await?, ["again: once"]);

    // Its sender has sent it again, after the log's window, so that it has another place.
    let letter = letter_of("again: twice").await?;
    let copy = natter(&cluster, &["dead-letters", "show", &letter, "--body", "--json"]).await?;
    let copy = copy.expect(0)?.json()?;
    let body = text(&copy, "/body")?;
    jetstream.publish(format!("in.0.chat.{chat}"), body.into()).await?.await?;
    // History shows it before it is written.
    let written = "SELECT count(*) FROM messages WHERE content = 'again: twice'";
    soon("the second", async || Ok((cluster.sql(written)?.trim() == "1").then_some(()))).await?;
    natter(&cluster, &["dead-letters", "replay", &letter]).await?.expect(0)?.has("repeats")?;
    soon("Postgres alone", async || {
        let texts = history_of(&ada, chat).await?;
        Ok((texts == ["again: once", "again: twice"]).then_some(()))
    })
    .await?;
    Ok(())
}

fn void_at(cluster: &Cluster, seq: u64) -> Result<bool> {
    let voids = format!("SELECT count(*) FROM messages WHERE kind = 'void' AND seq = {seq}");
    Ok(cluster.sql(&voids)?.trim() == "1")
}

/// The letter of an entry, stored anew as a worker stores it.
async fn bury_again(jetstream: &async_nats::jetstream::Context, letter: &Value) -> Result<()> {
    let (seq, shard) = (text(letter, "/seq")?, text(letter, "/shard")?);
    let feed = text(letter, "/feed")?.replace(' ', ".");
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("dead.{shard}.{seq}.1700000000000000000"));
    headers.insert("Natter-Reason", "as before");
    headers.insert("Natter-Subject", format!("in.{shard}.{feed}"));
    headers.insert("Natter-Seq", seq);
    let body = text(letter, "/body")?;
    jetstream.publish_with_headers(format!("dead.{shard}"), headers, body.into()).await?.await?;
    Ok(())
}

async fn history_of(person: &Person, chat: ChatId) -> Result<Vec<String>> {
    Ok(history(person, chat).await?.into_iter().map(|message| message.content).collect())
}

#[tokio::test]
async fn the_path_of_a_message_leads_to_the_devices_that_are_connected() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let (ada, ben) =
        (Person::register(&cluster, "Ada").await?, Person::register(&cluster, "Ben").await?);
    let chat = ada.api(0).direct(&ben).await?.id;
    let bens = ben.connect(1).await?;
    let sent = ada.api(0).say(chat, "hello").await?;
    let (id, chat) = (sent.id.to_string(), chat.to_string());
    let path = soon("it is written, and Ben is there", async || {
        let said = natter(&cluster, &["message", &id, "--chat", &chat, "--json"]).await?;
        let path = said.expect(0)?.json()?;
        let nodes = nodes_of(&path["participants"], ben.first.id);
        Ok((path["postgres"]["state"] == "written" && !nodes.is_empty()).then_some((path, nodes)))
    })
    .await?;
    let (path, nodes) = path;
    assert_eq!(nodes, [cluster.gateway(1).name()]);
    assert_eq!(text(&path, "/chatId")?, chat);
    assert_eq!(text(&path, "/senderId")?, ada.id.to_string());
    assert_eq!(text(&path, "/log/epoch")?, "1");
    // How far it has come with each.
    let reached = async |who: UserId| {
        let said = natter(&cluster, &["message", &id, "--chat", &chat, "--json"]).await?;
        let path = said.expect(0)?.json()?;
        let mut participants = path["participants"].as_array().into_iter().flatten();
        let found = participants.find(|one| one["id"] == json!(who)).context("not there")?;
        text(found, "/reached")
    };
    assert_eq!(reached(ada.id).await?, "sent");
    assert_eq!(reached(ben.id).await?, "untold");
    for (event, state) in [("delivered", "delivered"), ("read", "read")] {
        bens.request(event, json!({"chatId": chat, "seq": sent.seq})).await?;
        soon(event, async || Ok((reached(ben.id).await? == state).then_some(()))).await?;
    }
    let plain = natter(&cluster, &["message", &id]).await?.expect(0)?;
    plain.has("  read  ")?;
    plain.has("postgres     written")?;
    plain.has(&format!("seq {}", sent.seq))?;
    let nothing = UserId::generate().to_string();
    natter(&cluster, &["message", &nothing]).await?.expect(1)?.has("there is no message")?;
    Ok(())
}

/// Where a device is connected, among participants.
fn nodes_of(participants: &Value, device: DeviceId) -> Vec<String> {
    let device = device.to_string();
    let participants = participants.as_array().into_iter().flatten();
    let mut devices = participants.flat_map(|one| one["devices"].as_array().into_iter().flatten());
    let found = devices.find(|one| one["id"] == device.as_str());
    let nodes = found.and_then(|found| found["nodes"].as_array());
    nodes.into_iter().flatten().filter_map(|node| Some(node.as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn a_device_is_closed_on_every_node_and_comes_back_unless_it_is_revoked() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ada = Person::register(&cluster, "Ada").await?;
    let tablet = ada.device("tablet").await?;
    let (here, there) = (ada.connect(0).await?, ada.connect(1).await?);
    let other = tablet.connect(1).await?;
    let device = ada.first.id.to_string();
    let listed = soon("Redis knows both", async || {
        let said = natter(&cluster, &["devices", "list", "--user", &ada.phone, "--json"]).await?;
        let list = said.expect(0)?.json()?;
        let all = serde_json::json!([list]);
        let known = nodes_of(&all, ada.first.id).len() == 2 && nodes_of(&all, tablet.id).len() == 1;
        Ok(known.then_some(list))
    })
    .await?;
    assert_eq!(text(&listed, "/userId")?, ada.id.to_string());
    let plain = natter(&cluster, &["devices", "list", "--user", &ada.id.to_string()]).await?;
    plain.expect(0)?.has("logged in")?;

    let closed = natter(&cluster, &["devices", "close", &ada.phone, &device]).await?.expect(0)?;
    closed.has("closed 2 connections")?;
    for socket in [&here, &there] {
        socket.expect("reconnect", |_| true).await?;
        socket.expect_close(close::DRAINING).await?;
    }
    ensure!(other.is_open(), "another device");
    let back = ada.connect(0).await?;
    let id = ada.id.to_string();
    natter(&cluster, &["devices", "close", &id, &device, "--revoke"])
        .await?
        .expect(0)?
        .has("revoked")?;
    back.expect_close(close::DEVICE_REVOKED).await?;
    ensure!(ada.connect(1).await.is_err(), "a revoked device came back");
    other.request("typing_start", serde_json::json!({"chatId": ChatId::generate()})).await.ok();
    ensure!(other.is_open(), "another device");
    let plain = natter(&cluster, &["devices", "list", "--user", &id]).await?.expect(0)?;
    plain.has("revoked")?;
    natter(&cluster, &["devices", "close", &id, &device, "--revoke"])
        .await?
        .expect(0)?
        .has("already")?;
    Ok(())
}

#[tokio::test]
async fn a_minted_token_connects() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ada = Person::register(&cluster, "Ada").await?;
    let (user, device) = (ada.id.to_string(), ada.first.id.to_string());
    let mint = async |user: &str, device: &str, more: &[&str]| {
        let args = ["token", "mint", "--user", user, "--device", device];
        natter(&cluster, &[&args[..], more].concat()).await
    };
    let minted = mint(&user, &device, &["--seconds", "60"]).await?.expect(0)?;
    assert_eq!(minted.out.trim().split('.').count(), 3, "only the token: {minted:?}");
    let socket = Socket::connect(cluster.gateway(1).address(), minted.out.trim()).await?;
    assert_eq!(socket.ready()?.device_id, ada.first.id);

    let (new_user, new_device) = (UserId::generate(), DeviceId::generate());
    let (user, device) = (new_user.to_string(), new_device.to_string());
    mint(&user, &device, &[]).await?.expect(1)?.has("--create")?;
    let minted = mint(&user, &device, &["--create"]).await?.expect(0)?;
    let socket = Socket::connect(cluster.gateway(0).address(), minted.out.trim()).await?;
    assert_eq!(socket.ready()?.user_id, new_user);
    // The login stays: the first token is still good.
    mint(&user, &device, &["--create"]).await?.expect(0)?;
    Socket::connect(cluster.gateway(1).address(), minted.out.trim()).await?;
    mint(&ada.id.to_string(), &device, &["--create"]).await?.expect(1)?.has("another user")?;
    Ok(())
}

#[tokio::test]
async fn what_is_missing_or_makes_no_sense_is_named() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let nothing = [];
    let someone = UserId::generate().to_string();
    for (args, named) in [
        (&["status"][..], "NATTER_DATABASE_URL"),
        (&["dead-letters", "list"], "NATTER_NATS_URL"),
        (&["dead-letters", "replay", "x"], "[ID]"),
        (&["message", &someone], "NATTER_DATABASE_URL"),
        (&["message", "x"], "<ID>"),
        (&["devices", "list", "--user", "x"], "NATTER_DATABASE_URL"),
        (&["token", "mint", "--user", &someone, "--device", &someone], "NATTER_JWT_SECRET"),
        (&["token", "mint", "--user", "x", "--device", &someone], "--user"),
        (&["migrate"], "--database-url"),
    ] {
        run(&nothing, args).await?.expect(2)?.has(named).context(args.join(" "))?;
    }
    let short = [("NATTER_JWT_SECRET", "short".to_owned())];
    let mint = ["token", "mint", "--user", &someone, "--device", &someone];
    run(&short, &mint).await?.expect(2)?.has("fewer than 32 bytes")?;
    let wrong = [("NATTER_NATS_URL", "nats://user:hunter2@:::".to_owned())];
    let said = run(&wrong, &["dead-letters", "list"]).await?.expect(2)?;
    said.has("NATTER_NATS_URL")?;
    ensure!(!said.err.contains("hunter2"), "{said:?}");
    let said = natter(&cluster, &["devices", "list", "--user", "+1 nobody"]).await?.expect(1)?;
    said.has("+1 nobody")?;
    Ok(())
}

#[tokio::test]
async fn service_tokens_are_made_listed_and_revoked() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let create = ["service-token", "create", "--name=shop \u{1f6d2}", "--scopes=users,send,users"];
    let made = natter(&cluster, &[&create[..], &["--rate=50", "--json"]].concat()).await?;
    let made = made.expect(0)?.json()?;
    let (id, token) = (text(&made, "/id")?, text(&made, "/token")?);
    let shop = anonymous(&cluster, 1)?.with_token(&token);
    shop.get("/server/users?externalId=7").await?.expect(200)?;
    shop.post("/server/chats", json!({})).await?.refused(403, "forbidden")?;

    let plain = natter(&cluster, &create).await?.expect(0)?;
    ensure!(plain.out.starts_with("nst_") && plain.out.lines().count() == 1, "{plain:?}");
    let listed = natter(&cluster, &["service-token", "list", "--json"]).await?.expect(0)?;
    for shown in [&token, plain.out.trim()] {
        let secret = shown.rsplit('_').next().unwrap_or_default();
        ensure!(!listed.out.contains(secret), "a token is shown again");
    }
    let listed = listed.json()?;
    let of_shop = listed.as_array().into_iter().flatten().find(|it| it["id"] == *id);
    let of_shop = of_shop.context("it is not listed")?;
    assert_eq!(of_shop["scopes"], json!(["users", "send"]));
    assert_eq!(of_shop["callsPerSecond"], 50);
    ensure!(of_shop["lastUsedAt"].is_string() && of_shop["revokedAt"].is_null(), "{of_shop}");

    natter(&cluster, &["service-token", "revoke", &id]).await?.expect(0)?;
    soon("it is refused", async || {
        let answer = shop.get("/server/users?externalId=7").await?;
        Ok((answer.status() == 401).then_some(()))
    })
    .await?;
    natter(&cluster, &["service-token", "list"]).await?.expect(0)?.has("revoked")?;
    let nobody = ServiceTokenId::generate().to_string();
    natter(&cluster, &["service-token", "revoke", &nobody])
        .await?
        .expect(1)?
        .has("no service token")
}

#[tokio::test]
async fn a_bot_is_made_with_what_it_logs_in_by() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let external = format!("--external-id=bot-{}", UserId::generate());
    let create = ["bot", "create", "--name=Helper", &external];
    let made = natter(&cluster, &[&create[..], &["--json"]].concat()).await?.expect(0)?.json()?;
    let body = json!({"refreshToken": text(&made, "/refreshToken")?});
    let session = anonymous(&cluster, 0)?.post("/auth/refresh", body).await?.expect(200)?;
    assert_eq!(session["user"]["bot"], true);
    assert_eq!(
        (&session["user"]["id"], &session["device"]["id"]),
        (&made["userId"], &made["deviceId"])
    );
    let socket =
        Socket::connect(cluster.gateway(1).address(), &text(&session, "/accessToken")?).await?;
    assert_eq!(json!(socket.ready()?.user_id), made["userId"]);
    // Made again it is the same bot, on another device.
    let again = natter(&cluster, &[&create[..], &["--json"]].concat()).await?.expect(0)?.json()?;
    assert_eq!(again["userId"], made["userId"]);
    ensure!(again["deviceId"] != made["deviceId"], "{again}");
    Ok(())
}

#[tokio::test]
async fn an_endpoint_is_made_and_its_secret_is_shown_once() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let made = ["webhook", "add", "shop", "http://127.0.0.1:9/hook", "--kinds=edit", "--json"];
    let made = natter(&cluster, &made).await?.expect(0)?.json()?;
    let secret = text(&made, "/secret")?;
    ensure!(secret.starts_with("whsec_"), "{secret}");
    assert_eq!(made["kinds"], json!(["edit"]));
    for args in [&["webhook", "show", "shop"][..], &["webhook", "list"]] {
        let plain = natter(&cluster, args).await?.expect(0)?;
        plain.has("http://127.0.0.1:9/hook")?;
        let whole = natter(&cluster, &[args, &["--json"]].concat()).await?.expect(0)?;
        for said in [plain, whole] {
            ensure!(!said.out.contains(&secret) && !said.err.contains(&secret), "{args:?}");
        }
    }
    let changed = ["webhook", "change", "shop", "--new-secret", "--all-kinds", "--json"];
    let changed = natter(&cluster, &changed).await?.expect(0)?.json()?;
    ensure!(text(&changed, "/secret")? != secret, "the same secret");
    assert_eq!(changed["kinds"], Value::Null);
    // Nobody is at that port.
    natter(&cluster, &["webhook", "test", "shop"]).await?.expect(1)?.has("no connection")?;
    natter(&cluster, &["webhook", "add", "shop", "http://127.0.0.1:9/"])
        .await?
        .expect(1)?
        .has("has this name")?;
    natter(&cluster, &["webhook", "remove", "shop"]).await?.expect(0)?;
    natter(&cluster, &["webhook", "show", "shop"]).await?.expect(1)?.has("no endpoint")?;
    Ok(())
}
