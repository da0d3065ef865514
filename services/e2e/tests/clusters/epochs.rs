//! The log is gone, or has lost its end, while everybody is connected: a new epoch begins, cursors
//! of the old one resume or are refused honestly, and nobody gets anything twice.

use anyhow::{Context, Result, ensure};
use natter_bus::{Bus, BusConfig, LogConfig};
use natter_cluster::Cluster;
use natter_e2e::{Device, Person, Socket, Stage, soon};
use natter_protocol::{
    ids::{ChatId, Seq},
    server::{Ready, Sent},
};
use serde_json::json;
use uuid::Uuid;

static STAGE: Stage = Stage::new();

/// No epoch begins nearer to the one before.
const GAP: Seq = 1_000_000_000;

/// A device that stays connected: a node that cannot tell whether the old log had more for it closes
/// its connection, and it resumes.
struct Listener {
    device: Device,
    gateway: usize,
    sockets: Vec<Socket>,
}

impl Listener {
    async fn new(person: &Person, gateway: usize) -> Result<Self> {
        let sockets = vec![person.connect(gateway).await?];
        Ok(Self { device: person.first.clone(), gateway, sockets })
    }

    fn socket(&self) -> Result<&Socket> {
        self.sockets.last().context("it has never been connected")
    }

    async fn hears(&mut self, chat: ChatId, content: &str) -> Result<()> {
        let socket = self.socket()?;
        let heard = socket.hears(chat, content).await;
        if heard.is_ok() || socket.is_open() {
            return heard.map(drop);
        }
        socket.expect_close(4430).await?;
        let back = self.device.resume(self.gateway, &socket.cursor()?).await?;
        ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
        self.sockets.push(back);
        self.socket()?.hears(chat, content).await.map(drop)
    }

    /// Everything of each feed in order, and nothing twice over all connections.
    fn check(&self) -> Result<()> {
        let mut all = Vec::new();
        for socket in &self.sockets {
            socket.check_feeds()?;
            all.extend(seqs(socket)?);
        }
        ensure!(all.is_sorted_by(|a, b| a < b), "{all:?}");
        Ok(())
    }

    fn times(&self, content: &str) -> usize {
        let events = self.sockets.iter().flat_map(|socket| socket.events("message"));
        events.filter(|data| data["content"] == content).count()
    }
}

/// What Ana missed and has, from the middle of an epoch to its end.
struct Story {
    ana: Person,
    ben: Person,
    chat: ChatId,
    phone: Listener,
    bens: Listener,
    /// In the middle of what was said, and at its end.
    middle: String,
    end: String,
    /// What was said after the middle.
    rest: Vec<Seq>,
    /// The first of all, by the id that Ben gave it.
    first: (String, Seq),
}

impl Story {
    async fn begin(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        let (mut phone, bens) = (Listener::new(&ana, 0).await?, Listener::new(&ben, 1).await?);
        let (mut middle, mut rest) = (String::new(), Vec::new());
        let mut first = None;
        for n in 0..10 {
            let text = format!("before {n}");
            // Tells nothing of its age, so it is looked up whenever it comes again.
            let id = format!("the {n}th of all");
            let sent = bens.socket()?.say_as(chat, &text, &id).await?;
            first.get_or_insert((id, sent.seq));
            phone.hears(chat, &text).await?;
            if n < 5 {
                middle = phone.socket()?.cursor()?;
            } else {
                rest.push(sent.seq);
            }
        }
        let end = phone.socket()?.cursor()?;
        let first = first.context("nothing was said")?;
        let story = Self { ana, ben, chat, phone, bens, middle, end, rest, first };
        story.is_written(story.last()?).await?;
        Ok(story)
    }

    fn last(&self) -> Result<Seq> {
        self.rest.last().copied().context("nothing was said")
    }

    async fn is_written(&self, seq: Seq) -> Result<()> {
        soon("it is written", async || {
            Ok((self.ben.api(1).chat(self.chat).await?.last_seq >= seq).then_some(()))
        })
        .await
    }

    /// Says something, again and again while that is the advice; in the new epoch in the end.
    async fn insist(&self, content: &str, id: &str) -> Result<Sent> {
        let body = json!({"content": content, "clientMsgId": id});
        let path = format!("/chats/{}/messages", self.chat);
        soon("it is taken", async || {
            let answer = self.ben.api(1).post(&path, body.clone()).await?;
            match answer.status() {
                503 => Ok(None),
                status => Ok(Some(answer.read::<Sent>(status)?)),
            }
        })
        .await
    }

    /// In the new epoch: who is connected gets what is said, and each cursor resumes with all that
    /// lies beyond it, on both nodes; also what the log took when it had lost its end already.
    async fn goes_on(&mut self, carried: &[&str]) -> Result<()> {
        let last = self.last()?;
        let seq = self.insist("after", &young_id()).await?.seq;
        ensure!(seq >= last + GAP, "{seq} after {last}");
        self.phone.hears(self.chat, "after").await?;
        self.bens.hears(self.chat, "after").await?;
        // What was said in another epoch is the same message still, and nobody hears it again.
        let before = self.phone.times("before 0");
        let again = self.bens.socket()?.say_as(self.chat, "before 0", &self.first.0).await?;
        ensure!(again.duplicate && again.seq == self.first.1, "{again:?}, not {:?}", self.first);
        let said = self.bens.socket()?.say(self.chat, "and on").await?.seq;
        self.phone.hears(self.chat, "and on").await?;
        ensure!(self.phone.times("before 0") == before, "it was heard again");
        self.is_written(said).await?;
        let page = self.ben.api(1).history(self.chat, &format!("after={last}")).await?;
        let told: Vec<&str> = page.messages.iter().map(|m| m.content.as_str()).collect();
        ensure!(told == [carried, &["after", "and on"]].concat(), "{told:?}");
        let mut since: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
        ensure!(since.ends_with(&[seq, said]) && since[0] >= last + GAP, "{since:?}");
        for gateway in [0, 1] {
            for (cursor, rest) in [(&self.middle, &self.rest[..]), (&self.end, &[])] {
                let live = self.comes_back(gateway, cursor, &[rest, &since].concat()).await?;
                since.push(live);
            }
        }
        Ok(())
    }

    /// Resumes; or is told why not, and finds what was missed in the history. Tells what was said
    /// then.
    async fn comes_back(&self, gateway: usize, cursor: &str, missed: &[Seq]) -> Result<Seq> {
        let back = self.ana.first.resume(gateway, cursor).await?;
        if back.ready()?.resumed {
            back.expect("resume_done", |_| true).await?;
            ensure!(seqs(&back)? == missed, back.failure(&format!("not {missed:?}")));
        } else {
            let reason = refusal(back.ready()?)?;
            ensure!(["ahead", "too_old"].contains(&reason.as_str()), "{reason}");
            ensure!(seqs(&back)?.is_empty(), back.failure("it was replayed all the same"));
        }
        let text = format!("live on {gateway} {}", Uuid::new_v4());
        let live = self.bens.socket()?.say(self.chat, &text).await?.seq;
        back.hears(self.chat, &text).await?;
        back.check_feeds()?;
        let page = self.ana.api(gateway).history(self.chat, "limit=200").await?;
        let told: Vec<Seq> = page.messages.iter().map(|message| message.seq).collect();
        ensure!(missed.iter().all(|seq| told.contains(seq)), "{missed:?} is not in {told:?}");
        Ok(live)
    }
}

fn seqs(socket: &Socket) -> Result<Vec<Seq>> {
    Ok(socket.entries()?.iter().map(|got| got.seq).collect())
}

fn refusal(ready: &Ready) -> Result<String> {
    let reason = serde_json::to_value(ready)?["resumeReason"].as_str().map(str::to_owned);
    reason.context("refused without a reason")
}

/// So young that the broker is trusted to know whether it was sent before.
fn young_id() -> String {
    Uuid::now_v7().to_string()
}

async fn bus(cluster: &Cluster) -> Result<Bus> {
    let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "operator")).await?;
    soon("the broker is reached", async || Ok(bus.ping().await.ok())).await?;
    Ok(bus)
}

/// The log as it is after a power failure, or out of a backup: without all that was written.
async fn lose_its_end(cluster: &Cluster) -> Result<()> {
    let bus = bus(cluster).await?;
    let log = bus.log_state(0).await?.context("there is no log")?;
    bus.replace_log(0, &LogConfig::default(), 1, log.made_at).await?;
    bus.open_log(0).await?;
    Ok(())
}

#[tokio::test]
async fn the_log_loses_its_end_while_its_owner_is_there() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    let id = young_id();
    let said = story.bens.socket()?.say_as(story.chat, "just now", &id).await?;
    story.phone.hears(story.chat, "just now").await?;
    story.rest.push(said.seq);
    story.end = story.phone.socket()?.cursor()?;
    story.is_written(said.seq).await?;
    lose_its_end(&cluster).await?;
    soon("a new epoch has begun", async || {
        let log = bus(&cluster).await?.log_state(0).await?;
        Ok(log.is_some_and(|log| log.first_seq >= GAP).then_some(()))
    })
    .await?;
    // The log that is new does not know it, and no node takes it for one that does.
    let again = story.insist("just now", &id).await?;
    ensure!(again.duplicate && (again.id, again.seq) == (said.id, said.seq), "{again:?}");
    story.goes_on(&[]).await?;
    ensure!(story.phone.times("just now") == 1, "it was heard again");
    story.phone.check()?;
    story.bens.check()
}

#[tokio::test]
async fn the_log_loses_its_end_and_nobody_has_noticed() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let mut story = Story::begin(&cluster).await?;
    cluster.worker(0).terminate().await?;
    lose_its_end(&cluster).await?;
    // A node that is new has only the log to go by, which has not got so far; one that was there
    // knows that nothing has happened since. Neither gives anything twice.
    cluster.gateway(0).restart().await?;
    let fresh = story.ana.first.resume(0, &story.end).await?;
    ensure!(!fresh.ready()?.resumed, fresh.failure("it was resumed"));
    assert_eq!(refusal(fresh.ready()?)?, "ahead");
    ensure!(seqs(&fresh)?.is_empty(), fresh.failure("it got something twice"));
    let knowing = story.ana.first.resume(1, &story.end).await?;
    if knowing.ready()?.resumed {
        knowing.expect("resume_done", |_| true).await?;
    } else {
        assert_eq!(refusal(knowing.ready()?)?, "ahead");
    }
    ensure!(seqs(&knowing)?.is_empty(), knowing.failure("it got something twice"));

    // What is said meanwhile is not lost, and nobody gets it twice.
    story.ana.api(1).say(story.chat, "in between").await?;
    cluster.worker(0).start().await?;
    story.phone = Listener::new(&story.ana, 0).await?;
    story.goes_on(&["in between"]).await?;
    let heard = story.bens.times("in between");
    ensure!(heard == 1, story.bens.socket()?.failure(&format!("it came {heard} times")));
    story.phone.check()?;
    story.bens.check()
}
