//! The drill: Postgres, the log or both are lost and put back from backups of different moments, with
//! the tools that an operator has. `deploy/backup.md` says what comes back and what does not; here it
//! is seen.

use std::fs;

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::{Builder, Cluster};
use natter_e2e::{
    Answer, Device, Person, metrics::counter, soon, soon::within, stage::nothing_panicked,
};
use natter_protocol::{
    ids::{ChatId, Seq},
    rest::{DeviceList, Session},
    server::Chat,
};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

mod servers;
mod talk;
mod webhooks;

use servers::{BaseBackup, Dump, LogCopy, ask, lose_database, lose_logs};
use talk::{PATIENCE, Talk, is_unknown};

/// One for each story: what a story that fails has lost must not be missing in the next, and for five
/// minutes after a new epoch sending needs Postgres.
async fn cluster() -> Result<Cluster> {
    builder().start().await
}

fn builder() -> Builder {
    let builder = Cluster::builder().gateways(2).gateway_env("NATTER_DRAIN_SECONDS", "1");
    let unlimited = ["NATTER_ATTEMPTS_PER_ADDRESS", "NATTER_CALLS_PER_SECOND"];
    unlimited.into_iter().fold(builder, |builder, key| builder.gateway_env(key, "0"))
}

/// No epoch begins nearer to the one before.
const GAP: Seq = 1_000_000_000;

async fn bus(cluster: &Cluster) -> Result<Bus> {
    let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "operator")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    Ok(bus)
}

/// The epoch, and up to where the log is written.
fn position(cluster: &Cluster) -> Result<(i32, Seq)> {
    let row = ask(cluster, "SELECT epoch || ' ' || persisted_seq FROM shards WHERE shard = 0")?;
    let (epoch, seq) = row.split_once(' ').context("no shard")?;
    Ok((epoch.parse()?, seq.parse()?))
}

/// Workers that are running have begun this epoch.
async fn epoch_begins(cluster: &Cluster, epoch: i32) -> Result<()> {
    within(PATIENCE, "a new epoch has begun", async || {
        Ok((position(cluster)?.0 == epoch).then_some(()))
    })
    .await
}

/// A text file with a caption, in the chat of the two.
async fn sends_file(talk: &mut Talk, caption: &str) -> Result<String> {
    let part = Part::bytes(caption.as_bytes().to_vec()).file_name("note.txt");
    let form = Form::new().part("file", part).text("caption", caption.to_owned());
    let sent: Value = talk.ana.api(0).upload(talk.chat, form).await?.read(201)?;
    let message = &sent["message"];
    let seq = message["seq"].as_u64().context("no place")?;
    talk.said.push((caption.to_owned(), seq));
    talk.bens.hears(talk.chat, caption).await?;
    let id = message["id"].as_str().context("no id")?;
    Ok(format!("/chats/{}/messages/{id}/media", talk.chat))
}

/// What happened between the dump and the loss, beside messages.
struct Since {
    cleo: Person,
    group: Chat,
    refresh_token: String,
}

async fn renew(refresh_token: &str, talk: &Talk) -> Result<Answer> {
    talk.ana.api(1).post("/auth/refresh", json!({"refreshToken": refresh_token})).await
}

#[tokio::test]
async fn postgres_comes_from_an_older_dump_and_the_log_tells_what_was_said_since() -> Result<()> {
    let cluster = cluster().await?;
    let mut talk = Talk::begin(&cluster).await?;
    let club = talk.ana.api(0).open_group("Club", &[&talk.ben]).await?.id;
    let dan = Person::register(&cluster, "Dan").await?;
    dan.api(0).post(&format!("/chats/{club}/join"), json!({})).await?.expect(200)?;
    let stolen = talk.ben.device("a stolen phone").await?;
    let tablet = talk.ana.device("a tablet").await?;
    talk.goes_on("before the dump", 10).await?;
    let file_before = sends_file(&mut talk, "a file before the dump").await?;
    let dump = Dump::take(&cluster)?;

    talk.goes_on("since the dump", 20).await?;
    let file_since = sends_file(&mut talk, "a file since the dump").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    cleo.api(1).post(&format!("/chats/{club}/join"), json!({})).await?.expect(200)?;
    cleo.api(1).say(club, "Cleo is new here").await?;
    dan.api(0).post(&format!("/chats/{club}/leave"), json!({})).await?.expect(200)?;
    let group = talk.ben.api(1).group("Since", &[&talk.ana]).await?;
    talk.ben.api(1).say(group.id, "in a chat that the dump lacks").await?;
    let path = format!("/devices/{}", stolen.id);
    talk.ben.api(0).delete(&path).await?.expect(204)?;
    let renewed = renew(&tablet.refresh_token, &talk).await?.read::<Session>(200)?;
    let since = Since { cleo, group, refresh_token: renewed.refresh_token };
    talk.is_complete().await?;

    cluster.worker(0).terminate().await?;
    lose_database(&cluster)?;
    // The conversation does not need it.
    talk.goes_on("without a database", 4).await?;
    dump.put_back(&cluster)?;
    cluster.migrate().await?;
    cluster.worker(0).start().await?;
    talk.goes_on("with the restored database", 4).await?;
    talk.is_complete().await?;
    ensure!(position(&cluster)?.0 == 1, "nothing of the log was missing");

    // Gateways still have in mind whom and what the database has lost; so they start anew.
    for (gateway, listener) in [(0, &mut talk.anas), (1, &mut talk.bens)] {
        cluster.gateway(gateway).restart().await?;
        listener.come_back().await?;
    }
    talk.goes_on("on gateways that know it", 4).await?;
    talk.is_complete().await?;
    what_is_lost(&cluster, &talk, &since, &dan, &stolen, club).await?;
    ensure!(talk.ben.api(1).get(&file_before).await?.status() == 200, "its row is in the dump");
    ensure!(talk.ben.api(1).get(&file_since).await?.status() == 404, "its row is not");

    // Numbers that the database gives again are not taken for what the broker remembers.
    for n in 0..10 {
        let name = format!("Afterwards {n}");
        let group = talk.ana.api(0).group(&name, &[&talk.ben]).await?;
        talk.bens.socket()?.expect_as("chat_added", |added: &Chat| added.id == group.id).await?;
        talk.ana.api(0).say(group.id, &name).await?;
        talk.bens.hears(group.id, &name).await?;
    }
    // A file that its backup lacks is missing, and nothing else is.
    fs::remove_dir_all(cluster.data_dir().join("media"))?;
    ensure!(talk.ben.api(1).get(&file_before).await?.status() == 404, "its bytes are gone");
    talk.goes_on("without files", 2).await?;
    talk.is_complete().await?;

    // What is to be done about devices that were revoked since the dump: everybody logs in again.
    ask(&cluster, "UPDATE devices SET session = NULL; DELETE FROM refresh_tokens")?;
    ensure!(stolen.connect(1).await.is_err(), "it is still let in");
    talk.ben.device("with the password").await?.connect(1).await?;
    ensure!(counter(cluster.worker(0), "natter_dead_letters_total").await? == 0, "dead letters");
    nothing_panicked(&cluster)
}

/// What begins in Postgres, and was not in the dump.
async fn what_is_lost(
    cluster: &Cluster,
    talk: &Talk,
    since: &Since,
    dan: &Person,
    stolen: &Device,
    club: ChatId,
) -> Result<()> {
    // An account; what was said with it in chats that are there stays.
    is_unknown(&since.cleo, 0).await?;
    let page = talk.ana.api(0).history(club, "limit=50").await?;
    ensure!(page.messages.iter().any(|message| message.content == "Cleo is new here"));
    // A chat, though what was said in it is written.
    let path = format!("/chats/{}", since.group.id);
    talk.ana.api(0).get(&path).await?.refused(403, "not_member")?;
    let count = format!("SELECT count(*) FROM messages WHERE chat_id = '{}'", since.group.id);
    ensure!(ask(cluster, &count)? != "0", "its entries are in the log");
    // Who left is there again, and a device that was revoked is let in.
    dan.api(0).chat(club).await?;
    let devices: DeviceList = talk.ben.api(0).get("/devices").await?.read(200)?;
    ensure!(devices.items.iter().any(|device| device.id == stolen.id));
    stolen.connect(1).await?;
    // Whoever has renewed a token since has one that nobody knows, and logs in again.
    renew(&since.refresh_token, talk).await?.expect(401)?;
    talk.ana.device("the tablet again").await?;
    Ok(())
}

#[tokio::test]
async fn the_log_no_longer_reaches_back_to_the_dump_and_everybody_is_told() -> Result<()> {
    let cluster = cluster().await?;
    let mut talk = Talk::begin(&cluster).await?;
    talk.goes_on("before the dump", 6).await?;
    talk.is_written().await?;
    let dump = Dump::take(&cluster)?;
    let kept = talk.said.len();
    let last = talk.goes_on("cut off", 6).await?;
    talk.is_written().await?;
    let lost = talk.said.len() - kept;
    bus(&cluster).await?.purge(0, last).await?;
    talk.goes_on("in the log", 6).await?;
    talk.is_written().await?;

    let (epoch, _) = position(&cluster)?;
    cluster.worker(0).terminate().await?;
    lose_database(&cluster)?;
    dump.put_back(&cluster)?;
    cluster.worker(0).start().await?;
    epoch_begins(&cluster, epoch + 1).await?;
    ensure!(counter(cluster.worker(0), "natter_persistence_epochs_total").await? == 1, "told");
    talk.said.drain(kept..kept + lost);
    talk.goes_on("afterwards", 6).await?;
    talk.is_complete().await
}

#[tokio::test]
async fn the_log_is_lost_and_what_was_written_stays() -> Result<()> {
    let cluster = cluster().await?;
    let mut talk = Talk::begin(&cluster).await?;
    talk.goes_on("written", 10).await?;
    let old = talk.goes_on("and on", 1).await?;
    talk.is_written().await?;
    let (epoch, _) = position(&cluster)?;
    cluster.worker(0).kill().await?;
    let kept = talk.said.len();
    // Acked, delivered, and only in the log: what the dashboard's lag counts.
    talk.goes_on("unwritten", 5).await?;
    cluster.nats().kill().await?;
    lose_logs(&cluster)?;
    cluster.nats().start().await?;
    cluster.worker(0).start().await?;
    epoch_begins(&cluster, epoch + 1).await?;
    let unwritten = talk.said.split_off(kept);
    let new = talk.goes_on("in the new log", 6).await?;
    ensure!(new >= old + GAP, "{new} after {old}");
    talk.is_complete().await?;
    // Who still has what was lost may say it again.
    for (content, _) in unwritten {
        talk.say_again(&content).await?;
    }
    talk.is_complete().await
}

#[tokio::test]
async fn the_log_comes_from_an_older_copy_than_postgres() -> Result<()> {
    let cluster = cluster().await?;
    let mut talk = Talk::begin(&cluster).await?;
    talk.goes_on("in the copy", 8).await?;
    let copy = LogCopy::take(&cluster)?;
    let old = talk.goes_on("since the copy", 8).await?;
    talk.is_written().await?;
    let (epoch, _) = position(&cluster)?;
    // Nobody but the broker is stopped.
    cluster.nats().kill().await?;
    copy.put_back(&cluster)?;
    cluster.nats().start().await?;
    epoch_begins(&cluster, epoch + 1).await?;
    let new = talk.goes_on("after the copy", 8).await?;
    ensure!(new >= old + GAP, "{new} after {old}");
    talk.is_complete().await
}

#[tokio::test]
async fn both_come_from_backups_of_different_moments() -> Result<()> {
    let cluster = cluster().await?;
    let mut talk = Talk::begin(&cluster).await?;
    talk.goes_on("in both", 8).await?;
    talk.is_written().await?;
    // Postgres first, so that the log goes on where it ends.
    let base = BaseBackup::take(&cluster)?;
    talk.goes_on("in the log alone", 8).await?;
    let copy = LogCopy::take(&cluster)?;
    let kept = talk.said.len();
    let given = talk.goes_on("in neither", 8).await?;
    talk.is_written().await?;
    let (epoch, _) = position(&cluster)?;

    for node in cluster.gateways().iter().chain(cluster.pushers()).chain(cluster.workers()) {
        node.terminate().await?;
    }
    for server in [cluster.postgres(), cluster.nats(), cluster.redis()] {
        server.kill().await?;
    }
    base.put_back()?;
    copy.put_back(&cluster)?;
    for server in [cluster.postgres(), cluster.nats(), cluster.redis()] {
        server.start().await?;
    }
    cluster.migrate().await?;
    cluster.worker(0).start().await?;
    // Neither knows of the places that were given since: they must not be given again.
    cluster.new_epoch().await?;
    ensure!(position(&cluster)?.0 == epoch + 1, "a new epoch");
    for gateway in cluster.gateways() {
        gateway.start().await?;
    }
    talk.said.truncate(kept);
    let seqs: Vec<Seq> = talk.said.iter().map(|(_, seq)| *seq).collect();
    ensure!(seqs.iter().all(|seq| *seq < given), "what is written keeps its place");
    talk.anas.come_back().await?;
    talk.bens.come_back().await?;
    let new = talk.goes_on("after both", 8).await?;
    ensure!(new > given, "{new} after {given}");
    talk.is_complete().await?;
    nothing_panicked(&cluster)
}
