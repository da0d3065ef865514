//! Resuming from a cursor that lies before the log's beginning, or too far back.

use anyhow::{Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::Cluster;
use natter_e2e::{Person, Stage, soon};
use natter_protocol::ids::Seq;
use serde_json::{Value, json};

/// What a connection is replayed at most here.
const ENTRIES: usize = 100;

static STAGE: Stage = Stage::with(|builder| builder.gateway_env("NATTER_RESUME_ENTRIES", "100"));

/// Cuts the log, up to this entry, as its owner does once it is written.
async fn cut(cluster: &Cluster, person: &Person, up_to: Seq) -> Result<()> {
    soon("it is written", async || {
        let chats: Value = person.api(0).get("/chats").await?.read(200)?;
        let last = chats["items"][0]["lastSeq"].as_u64();
        Ok(last.is_some_and(|last| last >= up_to).then_some(()))
    })
    .await?;
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "cut")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    bus.purge(0, up_to).await?;
    Ok(())
}

#[tokio::test]
async fn what_the_log_has_cut_off_comes_from_postgres() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let group = ana.api(0).open_group("Group", &[&ben]).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let cursor = phone.cursor()?;
    drop(phone);
    let mut seqs = Vec::new();
    for n in 0..20 {
        seqs.push(bens.say(chat, &format!("cut {n}")).await?.seq);
    }
    let cleo = Person::register(&cluster, "Cleo").await?;
    cleo.api(0).post(&format!("/chats/{group}/join"), json!({})).await?.expect(200)?;
    let last = bens.say(group, "in the group").await?.seq;
    cut(&cluster, &ben, last).await?;
    for n in 0..5 {
        seqs.push(bens.say(chat, &format!("kept {n}")).await?.seq);
    }
    let back = ana.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
    back.expect("resume_done", |_| true).await?;
    let entries = back.entries()?;
    let of = |chat| entries.iter().filter(move |got| got.chat == chat).map(|got| got.seq);
    assert_eq!(of(chat).collect::<Vec<_>>(), seqs);
    assert_eq!(of(group).count(), 2, "Cleo's joining, and a message");
    assert_eq!(back.events("system").len(), 1);
    assert_eq!(back.events("message")[0]["sender"]["name"], "Ben");
    back.check_feeds()?;
    // And a cursor from the middle of it.
    let middle = &entries[7];
    let back = ana.first.resume(1, &middle.cursor).await?;
    back.expect("resume_done", |_| true).await?;
    assert_eq!(back.entries()?.len(), entries.len() - 8);
    Ok(())
}

#[tokio::test]
async fn chats_added_before_the_cut_are_refused_honestly() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    ana.api(0).direct(&ben).await?;
    let phone = ana.connect(0).await?;
    let cursor = phone.cursor()?;
    drop(phone);
    let group = ben.api(0).group("Missed", &[&ana]).await?.id;
    let last = ben.api(0).say(group, "hello").await?.seq;
    cut(&cluster, &ben, last).await?;
    let back = ana.first.resume(1, &cursor).await?;
    let ready = serde_json::to_value(back.ready()?)?;
    assert_eq!((&ready["resumed"], &ready["resumeReason"]), (&json!(false), &json!("too_old")));
    ben.api(0).say(group, "live").await?;
    back.hears(group, "live").await?;
    Ok(())
}

#[tokio::test]
async fn more_than_is_replayed_is_refused_honestly() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let phone = ana.connect(0).await?;
    let bens = ben.connect(1).await?;
    bens.say(chat, "before").await?;
    phone.hears(chat, "before").await?;
    let cursor = phone.cursor()?;
    drop(phone);
    for n in 0..ENTRIES {
        bens.say(chat, &format!("{n}")).await?;
    }
    let back = ana.first.resume(0, &cursor).await?;
    ensure!(back.ready()?.resumed, back.failure("as many as are replayed"));
    back.expect("resume_done", |_| true).await?;
    assert_eq!(back.entries()?.len(), ENTRIES);
    bens.say(chat, "one more").await?;
    let back = ana.first.resume(1, &cursor).await?;
    let ready = serde_json::to_value(back.ready()?)?;
    assert_eq!((&ready["resumed"], &ready["resumeReason"]), (&json!(false), &json!("too_much")));
    bens.say(chat, "live").await?;
    back.hears(chat, "live").await?;
    Ok(())
}
