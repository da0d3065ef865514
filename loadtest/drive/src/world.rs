//! A cluster of its own, with people in chats, and connections to it.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, future::join_all, stream};
use natter_bus::{Bus, BusConfig};
use natter_cluster::{Cluster, Node, progress::Progress};
use natter_e2e::{
    Api,
    api::client,
    crowd::{AT_ONCE, Guest, invite},
    soon::within,
    tokens,
};
use natter_protocol::{ids::ChatId, server::Chat};
use natter_store::{Store, StoreConfig};
use rand::seq::SliceRandom;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    board::Board,
    figures::Figures,
    line::{Call, Ear, Line, Scene},
    metronome::Metronome,
    used::{self, Used},
    wire::Transport,
};

/// What is to be there.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Gateways.
    pub gateways: usize,
    /// Push workers, which have each message looked at for whom to notify.
    pub pushers: usize,
    /// Pairs of streams.
    pub shards: u16,
    /// When NATS syncs its files; its own default for none.
    pub sync: Option<&'static str>,
    /// People; each has one connection.
    pub people: usize,
    /// Participants of each chat.
    pub size: usize,
    /// Chats of each person.
    pub rounds: usize,
    /// Gateways give memory back to the system as soon as it is free, so that none of it hides what is
    /// taken next.
    pub frugal: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            gateways: 2,
            pushers: 0,
            shards: 1,
            sync: None,
            people: 2_000,
            size: 50,
            rounds: 1,
            frugal: false,
        }
    }
}

/// What is said.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Messages a second in all chats together; as many as go for none.
    pub rate: Option<f64>,
    /// Messages of one chat on their way at once, where no rate is given.
    pub window: u64,
    /// For how long.
    pub time: Duration,
    /// How many of the chats are spoken in.
    pub chats: usize,
}

/// A chat.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its id.
    pub id: ChatId,
    /// People by number, in ascending order.
    pub members: Vec<usize>,
}

/// A cluster, and who is connected to it.
#[derive(Debug)]
pub struct World {
    /// The servers.
    pub cluster: Cluster,
    /// Everybody.
    pub guests: Vec<Guest>,
    /// The chats.
    pub groups: Vec<Group>,
    /// What connections share.
    pub scene: Rc<Scene>,
    /// A connection each, once [`World::connect`] has made them.
    pub lines: RefCell<Vec<Rc<Line>>>,
    /// What they hear.
    pub ears: Vec<Rc<Ear>>,
    /// To which gateways.
    pub gateways: usize,
    /// How.
    pub transport: Transport,
    /// The way to the log.
    pub bus: Bus,
    /// The way to what is written: a connection that stays, since one made for each look would cost
    /// Postgres more than what is measured.
    store: Store,
    shards: u16,
    runs: Cell<u32>,
}

/// How long the last deliveries may take before they count as lost.
const GRACE: Duration = Duration::from_mins(1);
/// How long the worker may take to write what a run has sent.
const WRITTEN: Duration = Duration::from_mins(5);

impl World {
    /// Starts it all, and lets everybody in.
    ///
    /// # Errors
    /// When anything of it fails.
    pub async fn build(plan: &Plan) -> Result<Self> {
        let mut builder = tokens::trusted(Cluster::builder().gateways(plan.gateways))
            .pushers(plan.pushers)
            .shards(plan.shards)
            .throwaway(false)
            .progress(Progress::detect());
        if let Some(sync) = plan.sync {
            builder = builder.nats_sync_interval(sync);
        }
        let unlimited = [
            ("NATTER_CALLS_PER_SECOND", "0"),
            ("NATTER_ATTEMPTS_PER_ADDRESS", "0"),
            ("NATTER_EVENTS_PER_SECOND", "1000000"),
            ("NATTER_EVENTS_BURST", "1000000"),
        ];
        for (name, value) in unlimited {
            builder = builder.gateway_env(name, value);
        }
        if plan.frugal {
            builder = builder.gateway_env("MIMALLOC_PURGE_DELAY", "0");
        }
        let cluster = builder.start().await?;
        // As a server of its own would have, a sixth of the memory here (its manual says a quarter); what it
        // comes with is for the smallest of machines.
        cluster.sql("ALTER SYSTEM SET shared_buffers = '4GB'")?;
        cluster.postgres().restart().await?;
        let api = |node: &Node| Ok(Api::new(client()?, node.address()));
        let apis: Vec<Api> = cluster.gateways().iter().map(api).collect::<Result<_>>()?;
        let began = Instant::now();
        let guests = invite(&apis, plan.people).await?;
        let groups = introduce(&apis, &guests, plan).await?;
        ensure!(
            !groups.is_empty(),
            "{} people are too few for a chat of {}",
            plan.people,
            plan.size
        );
        eprintln!(
            "{} people in {} chats after {:.0?}",
            guests.len(),
            groups.len(),
            began.elapsed()
        );
        let bus = Bus::connect(&BusConfig::new(cluster.nats_url(), "drive")).await?;
        bus.connected_within(Duration::from_secs(10)).await?;
        let store = Store::connect(&StoreConfig::new(cluster.database_url()))?;
        Ok(Self {
            cluster,
            guests,
            groups,
            scene: Rc::default(),
            lines: RefCell::default(),
            ears: Vec::new(),
            gateways: plan.gateways,
            transport: Transport::Native,
            bus,
            store,
            shards: plan.shards,
            runs: Cell::new(0),
        })
    }

    /// Everybody connects, to the gateways in turn; to the first `gateways` of them only.
    ///
    /// # Errors
    /// When somebody is not let in.
    pub async fn connect(&mut self, transport: Transport, gateways: usize) -> Result<()> {
        for line in self.lines.take() {
            line.hang_up();
        }
        (self.gateways, self.transport) = (gateways, transport);
        self.ears = self.guests.iter().map(|_| Rc::default()).collect();
        let lines = (0..self.guests.len()).map(|number| self.call(number, 0));
        let lines = stream::iter(lines).buffered(AT_ONCE).try_collect().await?;
        self.lines.replace(lines);
        Ok(())
    }

    /// One person connects: to the gateway of its turn, or the one after; from where it has heard
    /// everything, if it has.
    ///
    /// # Errors
    /// When it is not let in.
    pub async fn call(&self, number: usize, elsewhere: usize) -> Result<Rc<Line>> {
        let gateway = self.cluster.gateway((number + elsewhere) % self.gateways).address();
        let (guest, ear) = (&self.guests[number], &self.ears[number]);
        let cursor = Some(ear.cursor()).filter(|cursor| !cursor.is_empty());
        let (transport, cursor) = (self.transport, cursor.as_deref());
        let call = Call { gateway, transport, token: &guest.token, cursor, number };
        Line::open(call, &self.scene, ear).await
    }

    /// Lets them talk, waits until everybody has heard everything and the worker has written it,
    /// and counts.
    ///
    /// # Errors
    /// When a gateway refuses a message, a connection is closed, or the worker does not get through.
    pub async fn play(&self, load: Load) -> Result<Figures> {
        let (board, before) = self.begin()?;
        match load.rate {
            Some(rate) => self.at_a_rate(&board, load, rate, None).await?,
            None => self.as_fast_as_it_goes(&board, load).await,
        }
        self.end(&board, before).await
    }

    /// Begins a run.
    ///
    /// # Errors
    /// When a server is away.
    pub fn begin(&self) -> Result<(Rc<Board>, Used)> {
        let run = self.runs.get() + 1;
        self.runs.set(run);
        let before = used::by(&self.cluster)?;
        let board = Board::new(run, self.groups.iter().map(|group| group.members.len()));
        *self.scene.board.borrow_mut() = Some(Rc::clone(&board));
        Ok((board, before))
    }

    /// Waits until everybody has heard everything and the worker has written it, and counts.
    ///
    /// # Errors
    /// As [`World::play`].
    pub async fn end(&self, board: &Rc<Board>, before: Used) -> Result<Figures> {
        let sent = board.elapsed();
        let done = async {
            while !board.is_done() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        // What is missing then is lost, and reported as that.
        let _ = tokio::time::timeout(GRACE, done).await;
        let heard = board.elapsed();
        if let Some(why) = &*board.refused.borrow() {
            anyhow::bail!("a message was refused: {why}");
        }
        let (closed, code) = (board.closed.get(), board.code.get());
        ensure!(closed == 0, "{closed} connections were closed, the last with {code}");
        self.written().await?;
        let used = used::by(&self.cluster)?.since(&before);
        let mut chats = vec![Vec::new(); self.ears.len()];
        for (number, group) in (0..).zip(&self.groups) {
            for member in &group.members {
                chats[*member].push(number);
            }
        }
        let lost = self.ears.iter().zip(chats);
        let lost = lost.map(|(ear, chats)| ear.lost(board, chats.into_iter())).sum();
        *self.scene.board.borrow_mut() = None;
        Ok(Figures::of(board, used, sent, heard, lost))
    }

    /// So many messages a second, in all chats in turn; in each by the first `speakers` only.
    ///
    /// # Errors
    /// When there is no timer.
    pub async fn at_a_rate(
        &self,
        board: &Board,
        load: Load,
        rate: f64,
        speakers: Option<usize>,
    ) -> Result<()> {
        let mut beats = Metronome::new(Duration::from_secs_f64(1.0 / rate))?;
        let messages = (rate * load.time.as_secs_f64()) as usize;
        for n in 0..messages {
            let due = board.at(beats.beat().await?);
            let chat = n % load.chats;
            let turn = n / load.chats;
            self.say(board, chat, speakers.map_or(turn, |speakers| turn % speakers), due);
        }
        Ok(())
    }

    async fn as_fast_as_it_goes(&self, board: &Board, load: Load) {
        let talks = (0..load.chats).map(async |chat| {
            let mut turn = 0;
            while board.elapsed() < load.time {
                board.has_room(chat as u32, load.window).await;
                self.say(board, chat, turn, board.now());
                turn += 1;
            }
        });
        // Who waits for room in a chat whose messages do not arrive would wait for ever.
        let _ = tokio::time::timeout(load.time + GRACE, join_all(talks)).await;
    }

    /// Members take turns.
    fn say(&self, board: &Board, chat: usize, turn: usize, due: u64) {
        let group = &self.groups[chat];
        let member = group.members[turn % group.members.len()];
        let line = Rc::clone(&self.lines.borrow()[member]);
        line.say(board, (chat as u32, group.id), due);
    }

    /// Waits until the worker has written all that the log holds.
    ///
    /// # Errors
    /// When it does not get through.
    pub async fn written(&self) -> Result<()> {
        for shard in 0..self.shards {
            let last = self.bus.log_state(shard).await?.context("no log")?.last_seq;
            within(WRITTEN, "all is written", async || {
                let (written, _) = self.store.persisted_until(shard).await?;
                Ok((written >= last).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Everybody gets into so many chats, with others each time.
async fn introduce(apis: &[Api], guests: &[Guest], plan: &Plan) -> Result<Vec<Group>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for _ in 0..plan.rounds {
        let mut order: Vec<usize> = (0..guests.len()).collect();
        order.shuffle(&mut rand::rng());
        groups.extend(order.chunks_exact(plan.size).map(|members| {
            let mut members = members.to_vec();
            members.sort_unstable();
            members
        }));
    }
    let made = groups.into_iter().enumerate().map(async |(n, members)| {
        let ids: Vec<_> = members[1..].iter().map(|member| guests[*member].id).collect();
        let body = json!({"isGroup": true, "title": format!("Chat {n}"), "participantIds": ids});
        let api = apis[n % apis.len()].with_token(&guests[members[0]].token);
        let chat: Chat = api.post("/chats", body).await?.read(201)?;
        anyhow::Ok(Group { id: chat.id, members })
    });
    stream::iter(made).buffered(AT_ONCE).try_collect().await
}
