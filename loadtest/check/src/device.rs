//! One device: it connects, sends, is cut off, comes back elsewhere, and remembers what it got.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::SinkExt;
use natter_protocol::ids::{ChatId, Seq, UserId};
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    client::{ANSWER, Answer, Rest, Socket, connect, entry, id, next, send_body},
    counts::Tally,
    observations::{Attempt, Device, Entry, Outcome, Seen, Text, What, digest},
    run::{CheckError, lock},
};

/// How long a connection may take to be ready, a storm of others included.
const READY: Duration = Duration::from_secs(20);
/// Messages whose outcome is unknown that are tried again later; more stay unknown.
const UNRESOLVED: usize = 100;

/// What all devices of a run share.
pub struct Shared {
    pub began: Instant,
    pub tally: Tally,
    pub attempts: Mutex<Vec<Attempt>>,
    pub chats: Mutex<Vec<Known>>,
}

/// A chat as the run knows it.
pub struct Known {
    pub id: ChatId,
    pub open: bool,
    pub members: Vec<UserId>,
}

impl Shared {
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    pub fn attempts(&self) -> MutexGuard<'_, Vec<Attempt>> {
        lock(&self.attempts)
    }

    pub fn chats(&self) -> MutexGuard<'_, Vec<Known>> {
        lock(&self.chats)
    }
}

/// Drives a device.
pub struct Driver {
    pub rest: Rest,
    pub token: String,
    pub device: Arc<Mutex<Device>>,
    pub shared: Arc<Shared>,
    pub work: watch::Receiver<bool>,
    pub pace: Duration,
    /// It joins and leaves chats, for its user; set while it does.
    pub moves: Option<Arc<AtomicBool>>,
    pub rng: StdRng,
}

/// A message that is to be sent, or was.
#[derive(Clone)]
struct Draft {
    chat: ChatId,
    client_msg_id: String,
    content: String,
}

/// A request on the way.
struct Asked {
    draft: Draft,
    invoked: u64,
    /// Its attempt is recorded already, as unknown.
    given_up: bool,
}

/// What outlives a connection.
#[derive(Default)]
struct Memory {
    cursor: Option<String>,
    /// Its last connection could not be resumed, and what was missed is not fetched yet.
    to_fetch: bool,
    last: HashMap<ChatId, Seq>,
    unresolved: VecDeque<Draft>,
    acked: Option<Draft>,
    wait: Duration,
}

enum End {
    Cut,
    Closed,
}

impl Driver {
    /// For ever: it is ended from outside.
    pub async fn run(mut self) {
        let mut memory = Memory::default();
        let mut gateway = self.rng.random_range(0..self.rest.gateways.len());
        loop {
            sleep(std::mem::take(&mut memory.wait)).await;
            match self.connection(gateway, &mut memory).await {
                Some(End::Cut) => Tally::add(&self.shared.tally.cut),
                Some(End::Closed) => Tally::add(&self.shared.tally.closed),
                None => {
                    Tally::add(&self.shared.tally.refused_connects);
                    memory.wait = Duration::from_millis(self.rng.random_range(100..1_000));
                }
            }
            gateway += self.rng.random_range(0..self.rest.gateways.len());
        }
    }

    fn see(&self, seen: Seen) {
        lock(&self.device).seen.push((self.shared.now(), seen));
    }

    fn user(&self) -> UserId {
        lock(&self.device).user
    }

    /// One connection's life; none when it did not come about.
    async fn connection(&mut self, gateway: usize, memory: &mut Memory) -> Option<End> {
        let address = self.rest.gateways[gateway % self.rest.gateways.len()].clone();
        let mut socket = connect(&address, &self.token, memory.cursor.as_deref()).await?;
        let ready = timeout(READY, next(&mut socket)).await.ok()??;
        if ready["event"] != "ready" {
            return None;
        }
        Tally::add(&self.shared.tally.connects);
        self.see(Seen::Connected);
        if memory.cursor.is_some() {
            if ready["data"]["resumed"] == true {
                Tally::add(&self.shared.tally.resumed);
            } else {
                Tally::add(&self.shared.tally.not_resumed);
                memory.to_fetch = true;
            }
        } else {
            // A server without cursors is fetched from after each break.
            memory.to_fetch |= !memory.last.is_empty();
        }
        memory.cursor = ready["data"]["cursor"].as_str().map(str::to_owned);
        if memory.to_fetch {
            if self.fetch(gateway, memory).await.is_err() {
                // Once more, with nothing to resume from.
                memory.cursor = None;
                return Some(End::Closed);
            }
            memory.to_fetch = false;
        }
        let mut asked = HashMap::new();
        let end = self.exchange(&mut socket, memory, &mut asked).await;
        for (_, asked) in asked {
            self.give_up(asked, memory);
        }
        Some(end)
    }

    async fn exchange(
        &mut self,
        socket: &mut Socket,
        memory: &mut Memory,
        asked: &mut HashMap<u64, Asked>,
    ) -> End {
        let mut number = 0;
        let mut working = self.work.clone();
        loop {
            let pause = self.pace.mul_f64(self.rng.random_range(0.2..1.8));
            tokio::select! {
                frame = next(socket) => match frame {
                    Some(frame) => self.on_frame(&frame, memory, asked),
                    None => return End::Closed,
                },
                () = sleep(pause), if *working.borrow_and_update() => {
                    self.give_up_late(memory, asked);
                    match self.act(socket, memory, asked, &mut number).await {
                        Ok(()) => {}
                        Err(end) => return end,
                    }
                }
            }
        }
    }

    /// Does something, by chance.
    async fn act(
        &mut self,
        socket: &mut Socket,
        memory: &mut Memory,
        asked: &mut HashMap<u64, Asked>,
        number: &mut u64,
    ) -> Result<(), End> {
        let dice = self.rng.random_range(0..100);
        if dice < 2 {
            return Err(End::Cut);
        }
        if dice < 6 && self.moves.is_some() {
            self.go_in_or_out();
            return Ok(());
        }
        if dice < 12 {
            let Some(chat) = self.some_chat() else { return Ok(()) };
            Tally::add(&self.shared.tally.typed);
            let event = if dice % 2 == 0 { "typing_start" } else { "typing_stop" };
            return say(socket, &json!({"event": event, "data": {"chatId": chat}})).await;
        }
        let again = match dice {
            12..30 if !memory.unresolved.is_empty() => memory.unresolved.pop_front(),
            30..38 => memory.acked.clone(),
            _ => None,
        };
        if let (Some(draft), 34..38) = (&again, dice) {
            self.send_by_rest(draft.clone());
            return Ok(());
        }
        let Some(draft) = again.or_else(|| self.draft()) else { return Ok(()) };
        *number += 1;
        let Draft { chat, client_msg_id, content } = &draft;
        let data = json!({"chatId": chat, "clientMsgId": client_msg_id, "content": content});
        let frame = json!({"event": "send_message", "id": *number, "data": data});
        let invoked = self.shared.now();
        asked.insert(*number, Asked { draft, invoked, given_up: false });
        say(socket, &frame).await
    }

    fn draft(&mut self) -> Option<Draft> {
        let chat = self.some_chat()?;
        let client_msg_id = if self.rng.random_bool(0.7) {
            Uuid::now_v7().to_string()
        } else {
            format!("check {}", Uuid::new_v4())
        };
        let content = format!("{client_msg_id} {:x}", self.rng.random::<u64>());
        Some(Draft { chat, client_msg_id, content })
    }

    /// One that the user takes part in.
    fn some_chat(&mut self) -> Option<ChatId> {
        let user = self.user();
        let chats = self.shared.chats();
        let mine = chats.iter().filter(|known| known.members.contains(&user));
        mine.map(|known| known.id).choose(&mut self.rng)
    }

    /// The same message again on another node, beside whatever else goes on.
    fn send_by_rest(&mut self, draft: Draft) {
        let gateway = self.rng.random_range(0..self.rest.gateways.len());
        let (rest, token, shared) =
            (self.rest.clone(), self.token.clone(), Arc::clone(&self.shared));
        let sender = self.user();
        tokio::spawn(async move {
            let path = format!("/chats/{}/messages", draft.chat);
            let body = send_body(&draft.client_msg_id, &draft.content);
            let invoked = shared.now();
            let answer = rest.call(gateway, Method::POST, &path, Some(&token), Some(body)).await;
            let outcome = match answer {
                Answer::Ok(sent) => acked(&sent, &shared).unwrap_or(Outcome::Unknown),
                Answer::Refused(..) => Outcome::Failed,
                Answer::None => Outcome::Unknown,
            };
            record(&shared, sender, &draft, invoked, outcome);
        });
    }

    /// Joins or leaves an open chat, and insists on it: who takes part where must be known.
    fn go_in_or_out(&mut self) {
        // One at a time: the next one would see a chat that its user is neither in nor out of.
        let Some(moving) = self.moves.clone().filter(|moving| !moving.load(Ordering::Relaxed))
        else {
            return;
        };
        let user = self.user();
        let choice = {
            let mut chats = self.shared.chats();
            let open = chats.iter_mut().filter(|known| known.open).choose(&mut self.rng);
            open.map(|known| {
                let member = known.members.contains(&user);
                // Nothing is sent there while it goes out.
                known.members.retain(|member| *member != user);
                (known.id, member)
            })
        };
        let Some((chat, leaves)) = choice else { return };
        let (rest, token, shared) =
            (self.rest.clone(), self.token.clone(), Arc::clone(&self.shared));
        moving.store(true, Ordering::Relaxed);
        let device = Arc::clone(&self.device);
        tokio::spawn(async move {
            let verb = if leaves { "leave" } else { "join" };
            let path = format!("/chats/{chat}/{verb}");
            let done = rest.insist(Method::POST, &path, Some(&token), Some(json!({}))).await;
            let counter = if leaves { &shared.tally.leaves } else { &shared.tally.joins };
            Tally::add(counter);
            let member = matches!((&done, leaves), (Ok(_), false));
            if member {
                let user = lock(&device).user;
                let mut chats = shared.chats();
                let known = chats.iter_mut().find(|known| known.id == chat);
                if let Some(known) = known.filter(|known| !known.members.contains(&user)) {
                    known.members.push(user);
                }
            }
            moving.store(false, Ordering::Relaxed);
        });
    }

    fn on_frame(&mut self, frame: &Value, memory: &mut Memory, asked: &mut HashMap<u64, Asked>) {
        let data = &frame["data"];
        let cursor = frame["cursor"].as_str();
        if let Some(request) = frame["reply"].as_u64()
            && let Some(mut one) = asked.remove(&request)
        {
            self.on_reply(frame, &one, memory);
            // A message of which the server did not know may still get its reply, at its place.
            if frame["error"].is_object() && !not_sent(&frame["error"]) {
                one.given_up = true;
                asked.insert(request, one);
            }
        }
        match frame["event"].as_str().unwrap_or_default() {
            "message" | "system" => {
                if let (Some(chat), Some(entry)) = (id(&data["chatId"]), entry(data)) {
                    self.got(chat, entry, memory);
                }
            }
            "chat_added" => {
                if let Some(chat) = id(&data["id"]) {
                    self.see(Seen::Added(chat));
                }
            }
            "resume_done" => memory.cursor = data["cursor"].as_str().map(str::to_owned),
            "reconnect" => {
                let after = data["afterMs"].as_u64().unwrap_or(0).min(30_000);
                memory.wait = Duration::from_millis(after);
            }
            _ => {}
        }
        if let Some(cursor) = cursor {
            memory.cursor = Some(cursor.to_owned());
        }
    }

    fn got(&self, chat: ChatId, entry: Entry, memory: &mut Memory) {
        let last = memory.last.entry(chat).or_default();
        *last = (*last).max(entry.seq);
        self.see(Seen::Entry(chat, entry));
    }

    fn on_reply(&mut self, frame: &Value, asked: &Asked, memory: &mut Memory) {
        let data = &frame["data"];
        let draft = asked.draft.clone();
        if let Some(outcome) = acked(data, &self.shared) {
            // At its place in the feed it carries a cursor, and stands for the event.
            if let (Outcome::Acked { id, seq, duplicate: false, .. }, true) =
                (&outcome, frame["cursor"].is_string())
            {
                let text = text(self.user(), &draft);
                let prev = data["prevSeq"].as_u64().unwrap_or(0);
                let entry = Entry { seq: *seq, prev, what: What::Message { id: *id, text } };
                self.got(draft.chat, entry, memory);
            }
            memory.acked = Some(draft.clone());
            self.settle(asked, outcome);
            return;
        }
        let error = &frame["error"];
        let unknown = !not_sent(error);
        if unknown || error["code"] == "unavailable" {
            remember(draft, memory);
        }
        self.settle(asked, if unknown { Outcome::Unknown } else { Outcome::Failed });
    }

    fn settle(&self, asked: &Asked, outcome: Outcome) {
        let tally = &self.shared.tally;
        Tally::add(match outcome {
            Outcome::Acked { duplicate: false, .. } => &tally.acked,
            Outcome::Acked { duplicate: true, .. } => &tally.duplicates,
            Outcome::Failed => &tally.failed,
            Outcome::Unknown => &tally.unknown,
        });
        record(&self.shared, self.user(), &asked.draft, asked.invoked, outcome);
    }

    fn give_up(&self, asked: Asked, memory: &mut Memory) {
        if !asked.given_up {
            self.settle(&asked, Outcome::Unknown);
            remember(asked.draft, memory);
        }
    }

    /// What is not answered for too long is unknown; the reply may still come, at its place.
    fn give_up_late(&self, memory: &mut Memory, asked: &mut HashMap<u64, Asked>) {
        let limit = u64::try_from(ANSWER.as_micros()).unwrap_or(u64::MAX);
        let now = self.shared.now();
        for asked in asked.values_mut().filter(|asked| !asked.given_up) {
            if now.saturating_sub(asked.invoked) > limit {
                asked.given_up = true;
                remember(asked.draft.clone(), memory);
                self.settle(asked, Outcome::Unknown);
            }
        }
    }

    /// What was missed and could not be replayed, out of the history.
    async fn fetch(&self, gateway: usize, memory: &mut Memory) -> Result<(), CheckError> {
        let chats: Vec<ChatId> = self.shared.chats().iter().map(|known| known.id).collect();
        for chat in chats {
            let after = memory.last.get(&chat).copied().unwrap_or(0);
            match self.rest.history(gateway, &self.token, chat, after).await {
                Ok(entries) => {
                    let end = entries.last().map_or(after, |entry| entry.seq);
                    memory.last.insert(chat, end);
                    self.see(Seen::Fetched(chat, entries));
                }
                Err(CheckError::Refused { .. }) => self.see(Seen::Lost(chat)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether a refused message is certain not to be stored.
fn not_sent(error: &Value) -> bool {
    match error["code"].as_str().unwrap_or_default() {
        "unavailable" => error["outcome"] == "not_sent",
        "internal" => false,
        _ => true,
    }
}

fn acked(sent: &Value, shared: &Shared) -> Option<Outcome> {
    let (id, seq) = (id(&sent["id"])?, sent["seq"].as_u64()?);
    Some(Outcome::Acked { id, seq, duplicate: sent["duplicate"] == true, at: shared.now() })
}

fn text(sender: UserId, draft: &Draft) -> Text {
    let Draft { client_msg_id, content, .. } = draft;
    Text { sender, client_msg_id: client_msg_id.clone(), digest: digest(content) }
}

fn record(shared: &Shared, sender: UserId, draft: &Draft, invoked: u64, outcome: Outcome) {
    let text = text(sender, draft);
    shared.attempts().push(Attempt { chat: draft.chat, text, invoked, outcome });
}

fn remember(draft: Draft, memory: &mut Memory) {
    if memory.unresolved.len() < UNRESOLVED {
        memory.unresolved.push_back(draft);
    }
}

async fn say(socket: &mut Socket, frame: &Value) -> Result<(), End> {
    let sent = timeout(ANSWER, socket.send(Message::text(frame.to_string()))).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Closed),
    }
}
