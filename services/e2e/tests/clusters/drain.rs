//! A gateway is told to end while much is going on: everybody is sent elsewhere, at a time of
//! their own, and nobody misses anything.

use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use natter_cluster::Cluster;
use natter_e2e::{
    Api, Socket, Stage,
    api::client,
    crowd::{Guest, introduce, invite},
    soon::{SOON, within},
    tokens,
};
use natter_protocol::ids::{ChatId, Seq};
use tokio::time::Instant;
use uuid::Uuid;

/// Seconds that draining may take.
const DRAIN: u64 = 4;
const GUESTS: usize = 50;
/// Every so many of them speaks.
const SPEAKS: usize = 5;
/// Chats that each is in, and participants of each.
const CHATS: usize = 2;
const PARTICIPANTS: usize = 10;

static STAGE: Stage = Stage::with(|builder| {
    // On a quick machine they say more than is allowed by default.
    tokens::trusted(builder)
        .gateway_env("NATTER_DRAIN_SECONDS", DRAIN.to_string())
        .gateway_env("NATTER_EVENTS_PER_SECOND", "1000")
        .gateway_env("NATTER_EVENTS_BURST", "1000")
});

/// What goes on.
struct Party<'a> {
    cluster: &'a Cluster,
    apis: Vec<Api>,
    guests: Vec<Guest>,
    /// Each guest's chats.
    chats: Vec<Vec<ChatId>>,
    said: AtomicUsize,
    over: AtomicBool,
    /// Guests who have said all that they will.
    silent: AtomicUsize,
}

/// How it went for one guest.
struct Went {
    after_ms: u64,
    /// What they got on the gateway that went, and on the other.
    got: [HashMap<ChatId, Vec<Seq>>; 2],
    /// What they said.
    said: Vec<String>,
}

impl<'a> Party<'a> {
    async fn gather(cluster: &'a Cluster) -> Result<Self> {
        let api = |node: &natter_cluster::Node| Ok(Api::new(client()?, node.address()));
        let apis: Vec<Api> = cluster.gateways().iter().map(api).collect::<Result<_>>()?;
        let guests = invite(&apis, GUESTS).await?;
        introduce(&apis, &guests, CHATS, PARTICIPANTS).await?;
        let chats = guests.iter().map(async |guest| {
            let page = apis[1].with_token(&guest.token).chats("limit=10").await?;
            anyhow::Ok(page.items.into_iter().map(|chat| chat.id).collect::<Vec<_>>())
        });
        let chats = try_join_all(chats).await?;
        ensure!(chats.iter().all(|chats| chats.len() == CHATS), "{chats:?}");
        let (said, over, silent) = Default::default();
        Ok(Self { cluster, apis, guests, chats, said, over, silent })
    }

    /// A guest, from the first connection until all is over.
    async fn attends(&self, n: usize, here: Socket) -> Result<Went> {
        let mut said = Vec::new();
        let pending = self.speak(n, &here, None, &mut said).await?;
        let reconnect = here.expect("reconnect", |_| true).await?;
        here.expect_close(1012).await?;
        here.check_feeds()?;
        let there = self.cluster.gateway(1).address();
        let there = Socket::resume(there, &self.guests[n].token, &here.cursor()?).await?;
        ensure!(there.ready()?.resumed, there.failure("it was not resumed"));
        self.speak(n, &there, pending, &mut said).await?;
        self.silent.fetch_add(1, Ordering::Relaxed);
        for chat in &self.chats[n] {
            there.hears(*chat, "the end").await?;
        }
        there.check_feeds()?;
        let got = [&here, &there].map(|socket| socket.entries().map(by_chat));
        let [before, after] = got;
        let after_ms = reconnect["afterMs"].as_u64().context("no afterMs")?;
        Ok(Went { after_ms, got: [before?, after?], said })
    }

    /// Says one thing after the other, if it is one who speaks, until the connection ends or all is
    /// over. What has no answer yet is to be said again, and is what comes first.
    async fn speak(
        &self,
        n: usize,
        socket: &Socket,
        mut pending: Option<(ChatId, String, String)>,
        said: &mut Vec<String>,
    ) -> Result<Option<(ChatId, String, String)>> {
        if !n.is_multiple_of(SPEAKS) {
            // The others are there until the same happens.
            within(SOON * 6, "it is over", async || {
                Ok((self.over.load(Ordering::Relaxed) || !socket.is_open()).then_some(()))
            })
            .await?;
            return Ok(None);
        }
        while pending.is_some() || !self.over.load(Ordering::Relaxed) {
            let (chat, text, id) = pending.take().unwrap_or_else(|| {
                let chat = self.chats[n][said.len() % CHATS];
                (chat, format!("{n} says {}", said.len()), Uuid::now_v7().to_string())
            });
            if socket.say_as(chat, &text, &id).await.is_err() {
                ensure!(!socket.closed(SOON).await?.reason.is_empty(), "it was refused");
                return Ok(Some((chat, text, id)));
            }
            said.push(text);
            self.said.fetch_add(1, Ordering::Relaxed);
        }
        Ok(None)
    }

    async fn until_more_is_said(&self) -> Result<()> {
        let more = self.said.load(Ordering::Relaxed) + GUESTS;
        within(SOON, "the guests speak", async || {
            Ok((self.said.load(Ordering::Relaxed) >= more).then_some(()))
        })
        .await
    }

    /// Ends the gateway in the middle of it, and everything once all are on the other.
    async fn ends(&self) -> Result<Duration> {
        self.until_more_is_said().await?;
        let began = Instant::now();
        let status = self.cluster.gateway(0).terminate().await?.context("it was away")?;
        let took = began.elapsed();
        ensure!(status.success(), "{status}");
        self.until_more_is_said().await?;
        self.over.store(true, Ordering::Relaxed);
        Ok(took)
    }

    /// Each chat, and one who is in it.
    fn chats(&self) -> HashMap<ChatId, Api> {
        let api = |guest: &Guest| self.apis[1].with_token(&guest.token);
        let each = self.guests.iter().zip(&self.chats);
        each.flat_map(|(guest, chats)| chats.iter().map(move |chat| (*chat, api(guest)))).collect()
    }

    /// A last message in each chat, once nobody says anything any more.
    async fn concludes(&self) -> Result<()> {
        within(SOON, "all are silent", async || {
            Ok((self.silent.load(Ordering::Relaxed) == GUESTS).then_some(()))
        })
        .await?;
        for (chat, api) in self.chats() {
            api.say(chat, "the end").await?;
        }
        Ok(())
    }
}

/// Everything in a chat.
async fn history(api: &Api, chat: ChatId) -> Result<Vec<(Seq, String)>> {
    let mut told: Vec<(Seq, String)> = Vec::new();
    loop {
        let after = told.last().map_or(0, |(seq, _)| *seq);
        let page = api.history(chat, &format!("after={after}&limit=200")).await?;
        told.extend(page.messages.into_iter().map(|message| (message.seq, message.content)));
        if !page.has_more {
            return Ok(told);
        }
    }
}

fn by_chat(entries: Vec<natter_e2e::record::Got>) -> HashMap<ChatId, Vec<Seq>> {
    let mut chats: HashMap<ChatId, Vec<Seq>> = HashMap::new();
    for got in entries {
        chats.entry(got.chat).or_default().push(got.seq);
    }
    chats
}

#[tokio::test]
async fn everybody_goes_elsewhere_in_the_middle_of_it_and_misses_nothing() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let party = Party::gather(&cluster).await?;
    let address = cluster.gateway(0).address();
    let here = party.guests.iter().map(|guest| Socket::connect(address, &guest.token));
    let here = try_join_all(here).await?;
    let attend = join_all(here.into_iter().enumerate().map(|(n, socket)| party.attends(n, socket)));
    let end = async {
        let took = party.ends().await?;
        party.concludes().await?;
        anyhow::Ok(took)
    };
    let (went, ended) = tokio::join!(attend, end);
    let went: Vec<Went> = went.into_iter().collect::<Result<_>>()?;
    let took = ended?;

    // Not all at once, and none later than the gateway is there for.
    let spread: HashSet<u64> = went.iter().map(|went| went.after_ms).collect();
    ensure!(spread.iter().all(|after| *after <= DRAIN * 1_000), "{spread:?}");
    ensure!(spread.len() > GUESTS / 2, "{spread:?}");
    let (first, last) = (spread.iter().min(), spread.iter().max());
    ensure!(last.zip(first).is_some_and(|(last, first)| last - first > DRAIN * 500), "{spread:?}");
    ensure!(took < Duration::from_secs(DRAIN) + SOON, "{took:?}");

    let mut all = HashMap::new();
    for (chat, api) in party.chats() {
        all.insert(chat, history(&api, chat).await?);
    }
    for (n, went) in went.iter().enumerate() {
        for chat in &party.chats[n] {
            let got = went.got.iter().flat_map(|got| got.get(chat).into_iter().flatten());
            let got: Vec<Seq> = got.copied().collect();
            let told: Vec<Seq> = all[chat].iter().map(|(seq, _)| *seq).collect();
            // That it was made is all that was before the connection.
            ensure!(told[1..] == got, "{n}: {got:?} of {told:?}");
        }
    }
    let mut told: Vec<&str> = all.values().flatten().map(|(_, text)| text.as_str()).collect();
    told.retain(|text| text.contains(" says "));
    let mut said: Vec<&str> = went.iter().flat_map(|went| &went.said).map(String::as_str).collect();
    told.sort_unstable();
    said.sort_unstable();
    ensure!(
        told == said && said.len() > 2 * GUESTS,
        "{} were said, {} are told",
        said.len(),
        told.len()
    );
    Ok(())
}
