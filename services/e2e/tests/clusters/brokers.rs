//! Three brokers hold each log, and lose one of them in the middle of sending: what was acked is
//! there once and in order, and what was not is refused in a way that a client can act on.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use natter_bus::{Bus, BusConfig};
use natter_cluster::Node;
use natter_e2e::{Person, Socket, Stage, soon::within, stage::Scene};
use natter_protocol::{
    error::{ErrorCode, Outcome},
    ids::{ChatId, Seq},
    server::{ContentType, Sent},
};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// A log has another leader after 4 to 9 s, and more than one election may be needed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Messages of each of the two after which the broker goes, and until it comes back.
const BEFORE: usize = 20;
const AFTER: usize = 40;

static STAGE: Stage = Stage::with(|builder| builder.brokers(3).workers(2));

/// One message, as its sender knows it.
#[derive(Clone, Debug)]
struct Acked {
    content: String,
    seq: Seq,
}

/// Ana on one gateway and Ben on the other, in one chat.
struct Story {
    ana: Person,
    ben: Person,
    chat: ChatId,
    anas: Socket,
    bens: Socket,
}

impl Story {
    async fn begin(cluster: &Scene) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        let (anas, bens) = (ana.connect(0).await?, ben.connect(1).await?);
        Ok(Self { ana, ben, chat, anas, bens })
    }

    /// Both send, one message after the other, while `gone` is killed and comes back.
    async fn goes_through(&self, cluster: &Scene, gone: &Node) -> Result<Vec<Acked>> {
        let (anas, bens) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let reach = async |count: usize| {
            within(PATIENCE, "both go on sending", async || {
                let least = anas.load(Ordering::Relaxed).min(bens.load(Ordering::Relaxed));
                Ok((least >= count).then_some(()))
            })
            .await
        };
        let accident = async {
            reach(BEFORE).await?;
            gone.kill().await?;
            reach(BEFORE + AFTER).await?;
            // What it led is led by others, and what it alone had is made anew.
            for stream in ["LOG_0", "LIVE_0"] {
                within(PATIENCE, &format!("another one has {stream}"), async || {
                    Ok(cluster.leader_of(stream).await.filter(|now| now.name() != gone.name()))
                })
                .await?;
            }
            gone.start().await?;
            anyhow::Ok(())
        };
        let count = BEFORE + 2 * AFTER;
        let (anas, bens, ()) = tokio::try_join!(
            speak(&self.anas, self.chat, "Ana", count, &anas),
            speak(&self.bens, self.chat, "Ben", count, &bens),
            accident,
        )?;
        let mut all: Vec<_> = anas.into_iter().chain(bens).collect();
        all.sort_by_key(|acked| acked.seq);
        Ok(all)
    }

    /// Everybody saw exactly what was acked, in one order.
    async fn is_complete(&self, acked: &[Acked]) -> Result<()> {
        let seqs: Vec<Seq> = acked.iter().map(|acked| acked.seq).collect();
        ensure!(seqs.iter().collect::<HashSet<_>>().len() == seqs.len(), "a place given twice");
        let last = *seqs.last().context("nothing was said")?;
        for socket in [&self.anas, &self.bens] {
            let told = within(PATIENCE, "everything is told", async || {
                let entries = socket.entries()?;
                let told = entries.iter().map(|got| got.seq).filter(|seq| *seq >= seqs[0]);
                let told: Vec<Seq> = told.collect();
                Ok((told.last() == Some(&last)).then_some(told))
            });
            ensure!(told.await? == seqs, socket.failure("not what was acked"));
            socket.check_feeds()?;
        }
        for (gateway, person) in [(0, &self.ben), (1, &self.ana)] {
            let mut told = Vec::new();
            let mut query = "limit=100".to_owned();
            loop {
                let page = person.api(gateway).history(self.chat, &query).await?;
                ensure!(!page.partial, "partial, with everything running");
                let texts = page.messages.iter().filter(|m| m.content_type == ContentType::Text);
                let page_told: Vec<_> = texts.map(|m| (m.content.clone(), m.seq)).collect();
                told.splice(0..0, page_told);
                if !page.has_more {
                    break;
                }
                let oldest = page.messages.first().context("an empty page, and more of them")?;
                query = format!("limit=100&before={}", oldest.seq);
            }
            let all: Vec<_> = acked.iter().map(|a| (a.content.clone(), a.seq)).collect();
            assert_eq!(told, all, "on gateway {gateway}");
        }
        within(PATIENCE, "a worker has written it", async || {
            Ok((self.ana.api(1).chat(self.chat).await?.last_seq >= last).then_some(()))
        })
        .await
    }
}

/// Sends `count` messages, each until it is taken, always with the same client id.
async fn speak(
    socket: &Socket,
    chat: ChatId,
    who: &str,
    count: usize,
    progress: &AtomicUsize,
) -> Result<Vec<Acked>> {
    let mut acked: Vec<Acked> = Vec::new();
    for n in 0..count {
        let (content, id) = (format!("{who} {n}"), Uuid::now_v7().to_string());
        let sent = insist(socket, chat, &content, &id).await?;
        ensure!(acked.last().is_none_or(|before| before.seq < sent.seq), "out of order: {sent:?}");
        acked.push(Acked { content, seq: sent.seq });
        progress.store(acked.len(), Ordering::Relaxed);
    }
    Ok(acked)
}

async fn insist(socket: &Socket, chat: ChatId, content: &str, id: &str) -> Result<Sent> {
    let data = json!({"chatId": chat, "content": content, "clientMsgId": id});
    let (began, mut never_sent) = (Instant::now(), true);
    while began.elapsed() < PATIENCE {
        match socket.ask("send_message", data.clone()).await? {
            Ok(sent) => {
                let sent: Sent = serde_json::from_value(sent)?;
                ensure!(!(never_sent && sent.duplicate), "it was sent all the same: {sent:?}");
                return Ok(sent);
            }
            Err(error) => {
                ensure!(error.code == ErrorCode::Unavailable, "no reason to try again: {error:?}");
                let outcome = error.outcome.context("whether it may have happened")?;
                never_sent &= outcome == Outcome::NotSent;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("{content} was not taken within {PATIENCE:?}")
}

/// The broker that leads a stream.
async fn leader<'a>(cluster: &'a Scene, stream: &str) -> Result<&'a Node> {
    let what = format!("{stream} has a leader");
    let name = within(PATIENCE, &what, async || Ok(cluster.leader_of(stream).await)).await?.name();
    cluster.brokers().iter().find(|broker| broker.name() == name).context("a stranger")
}

async fn story_without(cluster: &Scene, gone: &Node) -> Result<()> {
    let story = Story::begin(cluster).await?;
    let acked = story.goes_through(cluster, gone).await?;
    story.is_complete(&acked).await
}

#[tokio::test]
async fn a_follower_of_the_log_is_killed_and_sending_goes_on() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let (log, live) = (leader(&cluster, "LOG_0").await?, leader(&cluster, "LIVE_0").await?);
    let mut brokers = cluster.brokers().iter();
    let follower = brokers.find(|broker| ![log.name(), live.name()].contains(&broker.name()));
    story_without(&cluster, follower.context("they all lead something")?).await
}

#[tokio::test]
async fn the_leader_of_the_log_is_killed_and_another_takes_over() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let gone = leader(&cluster, "LOG_0").await?;
    story_without(&cluster, gone).await
}

#[tokio::test]
async fn the_broker_with_the_live_mirror_is_killed_and_another_makes_it_anew() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let gone = leader(&cluster, "LIVE_0").await?;
    story_without(&cluster, gone).await
}

#[tokio::test]
async fn as_many_brokers_hold_the_dead_letters_as_the_setting_says_by_now() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "dead")).await?;
    within(PATIENCE, "it is connected", async || Ok(bus.connected().then_some(()))).await?;
    for replicas in [1, 3] {
        bus.ensure_dead_letters(replicas).await?;
        let all = u64::try_from(replicas)?;
        within(PATIENCE, "the dead letters' stream is held so", async || {
            Ok(cluster.replicas_of("DEAD").await.filter(|now| *now == all))
        })
        .await?;
    }
    Ok(())
}
