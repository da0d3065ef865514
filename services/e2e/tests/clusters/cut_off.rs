//! The log is cut while a node hears nothing: what it missed is not passed over.

use anyhow::{Result, ensure};
use natter_bus::{Bus, BusConfig};
use natter_e2e::{Lossy, Person, Stage, soon};
use natter_protocol::ids::Seq;

static LOSSY: Lossy = Lossy::new();
static STAGE: Stage = Stage::with(|builder| builder.detour(|nats| LOSSY.lead_to(nats)));

#[tokio::test]
async fn who_is_connected_to_that_node_begins_anew_and_gets_it_from_postgres() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let here = ana.connect(0).await?;
    let there = ben.connect(1).await?;
    here.say(chat, "before").await?;
    there.hears(chat, "before").await?;

    // The node stands still, and what is sent to it meanwhile gets lost.
    cluster.gateway(1).pause()?;
    LOSSY.lose_all_of(Some(format!("chat.{chat}")));
    let mut sent: Vec<Seq> = Vec::new();
    for n in 0..5 {
        sent.push(here.say(chat, &format!("missed {n}")).await?.seq);
    }
    soon("it is written", async || {
        let last = ana.api(0).chat(chat).await?.last_seq;
        Ok((last >= sent[4]).then_some(()))
    })
    .await?;
    let url = format!("nats://{}", cluster.nats().address());
    let bus = Bus::connect(&BusConfig::new(url, "cut")).await?;
    soon("the log is cut", async || Ok(bus.purge(0, sent[3]).await.ok())).await?;
    LOSSY.lose_all_of(None);
    cluster.gateway(1).resume()?;

    there.expect_close(4430).await?;
    there.check_feeds()?;
    let back = ben.first.resume(1, &there.cursor()?).await?;
    ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
    back.expect("resume_done", |_| true).await?;
    let got: Vec<Seq> =
        there.entries()?.into_iter().chain(back.entries()?).map(|g| g.seq).collect();
    ensure!(got.ends_with(&sent), "{got:?}, of {sent:?}");
    here.say(chat, "after").await?;
    back.hears(chat, "after").await?;
    back.check_feeds()
}
