//! One device: it connects, sends, is cut off, comes back elsewhere, and remembers what it got.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::SinkExt;
use natter_protocol::ids::{ChatId, Seq, UserId};
use rand::{RngExt, rngs::StdRng, seq::IteratorRandom};
use reqwest::Method;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    asked::{Again, Asked, Draft, Sending, acked, not_sent},
    client::{ANSWER, Answer, Rest, Socket, connect, entry, id, next, send_body},
    counts::Tally,
    moves::Moves,
    observations::{Device, Entry, Kind, Outcome, Seen, Told, What},
    run::CheckError,
    shared::{Shared, lock},
};

/// How long a connection may take to be ready, a storm of others included.
const READY: Duration = Duration::from_secs(20);
/// Between two tries at a last word, at most.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Drives a device.
pub struct Driver {
    pub rest: Rest,
    pub token: String,
    pub device: Arc<Mutex<Device>>,
    pub shared: Arc<Shared>,
    pub work: watch::Receiver<bool>,
    /// It is connected, and could send a last word once the work was over.
    pub settled: Arc<AtomicBool>,
    pub pace: Duration,
    /// It joins and leaves chats, for its user.
    pub moves: Option<Moves>,
    pub rng: StdRng,
}

/// What outlives a connection.
#[derive(Default)]
struct Memory {
    cursor: Option<String>,
    /// Its last connection could not be resumed, and what was missed is not fetched yet.
    to_fetch: bool,
    last: HashMap<ChatId, Seq>,
    again: Again,
    last_word: LastWord,
    wait: Duration,
}

/// What a device sends when the work is over: it must be able to.
#[derive(Default, PartialEq, Eq)]
enum LastWord {
    #[default]
    Unsaid,
    Said(Draft),
    Taken,
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
            let end = self.connection(gateway, &mut memory).await;
            self.settled.store(false, Ordering::Relaxed);
            match end {
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
        let ready = self.come(gateway, memory).await;
        let (mut socket, ready) = ready?;
        Tally::add(&self.shared.tally.connects);
        self.see(Seen::Connected);
        // A server without cursors is fetched from after each break.
        let missed = memory.cursor.is_some() || !memory.last.is_empty();
        memory.to_fetch |= missed && ready["data"]["resumed"] != true;
        memory.cursor = ready["data"]["cursor"].as_str().map(str::to_owned);
        if memory.to_fetch {
            if self.fetch(gateway, memory).await.is_err() {
                // Once more, with nothing to resume from.
                memory.cursor = None;
                return Some(End::Closed);
            }
            memory.to_fetch = false;
        }
        let mut asked = Asked::new(self.shared.connection());
        let end = self.exchange(&mut socket, memory, &mut asked).await;
        asked.give_up(&mut memory.again);
        Some(end)
    }

    /// Connects, and with a cursor resumes from it; tells what `ready` said.
    async fn come(&self, gateway: usize, memory: &Memory) -> Option<(Socket, Value)> {
        let address = &self.rest.gateways[gateway % self.rest.gateways.len()];
        let (user, revoked) = {
            let device = lock(&self.device);
            (device.user, device.revoked.is_some())
        };
        // That one with a revoked device stays out is not counted against anybody.
        let resumes = memory.cursor.is_some() && !revoked;
        let operation = resumes.then(|| self.shared.operation(Kind::Resume, user, None));
        let mut socket = connect(address, &self.token, memory.cursor.as_deref()).await?;
        let ready = timeout(READY, next(&mut socket)).await.ok()??;
        if ready["event"] != "ready" {
            return None;
        }
        if let Some(operation) = operation {
            let reason = ready["data"]["resumeReason"].as_str().unwrap_or_default().to_owned();
            let resumed = ready["data"]["resumed"] == true;
            self.shared.told(operation, if resumed { Told::Ok } else { Told::Failed(reason) });
        }
        Some((socket, ready))
    }

    async fn exchange(
        &mut self,
        socket: &mut Socket,
        memory: &mut Memory,
        asked: &mut Asked,
    ) -> End {
        loop {
            let working = *self.work.borrow_and_update();
            let settled = !working && self.settle(memory);
            let mut pause = self.pace.mul_f64(self.rng.random_range(0.2..1.8));
            if !working {
                pause = pause.min(LAST_WORD);
            }
            tokio::select! {
                frame = next(socket) => match frame {
                    Some(frame) => self.on_frame(&frame, memory, asked),
                    None => return End::Closed,
                },
                _ = self.work.changed(), if working => {}
                () = sleep(pause), if !settled => {
                    asked.give_up_late(self.shared.now(), &mut memory.again);
                    let done = if working {
                        self.act(socket, memory, asked).await
                    } else {
                        self.say_last_word(socket, memory, asked).await
                    };
                    if let Err(end) = done {
                        return end;
                    }
                }
            }
        }
    }

    /// Whether it has nothing more to do, the work being over.
    fn settle(&mut self, memory: &Memory) -> bool {
        let settled = memory.last_word == LastWord::Taken || self.some_chat().is_none();
        self.settled.store(settled, Ordering::Relaxed);
        settled
    }

    async fn say_last_word(
        &mut self,
        socket: &mut Socket,
        memory: &mut Memory,
        asked: &mut Asked,
    ) -> Result<(), End> {
        let draft = match &memory.last_word {
            LastWord::Taken => return Ok(()),
            LastWord::Said(draft) if asked.waits_for(draft) => return Ok(()),
            LastWord::Said(draft) => draft.clone(),
            LastWord::Unsaid => {
                let Some(draft) = self.draft() else { return Ok(()) };
                draft
            }
        };
        memory.last_word = LastWord::Said(draft.clone());
        say(socket, &asked.send(draft, self.user(), &self.shared)).await
    }

    /// Does something, by chance.
    async fn act(
        &mut self,
        socket: &mut Socket,
        memory: &mut Memory,
        asked: &mut Asked,
    ) -> Result<(), End> {
        let dice = self.rng.random_range(0..100);
        if dice < 2 {
            return Err(End::Cut);
        }
        if dice < 6
            && let Some(moves) = self.moves.clone()
        {
            moves.go(&mut self.rng);
            return Ok(());
        }
        if dice < 12 {
            let Some(chat) = self.some_chat() else { return Ok(()) };
            let operation = self.shared.operation(Kind::Typing, self.user(), Some(chat));
            return say(socket, &asked.type_in(chat, dice % 2 == 0, operation)).await;
        }
        let again = match dice {
            12..30 if !memory.again.unresolved.is_empty() => memory.again.unresolved.pop_front(),
            30..38 => memory.again.acked.clone(),
            _ => None,
        };
        if let (Some(draft), 34..38) = (&again, dice) {
            self.send_by_rest(draft.clone());
            return Ok(());
        }
        let Some(draft) = again.or_else(|| self.draft()) else { return Ok(()) };
        say(socket, &asked.send(draft, self.user(), &self.shared)).await
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
        let attempt = shared.attempt(draft.attempt(self.user(), None, &shared));
        tokio::spawn(async move {
            let path = format!("/chats/{}/messages", draft.chat);
            let body = send_body(&draft.client_msg_id, &draft.content);
            let answer = rest.call(gateway, Method::POST, &path, Some(&token), Some(body)).await;
            let outcome = match answer {
                Answer::Ok(sent) => acked(&sent, &shared).unwrap_or(Outcome::Unknown),
                Answer::Refused(..) => Outcome::Failed,
                Answer::None => Outcome::Unknown,
            };
            shared.settle(attempt, outcome);
        });
    }

    fn on_frame(&mut self, frame: &Value, memory: &mut Memory, asked: &mut Asked) {
        let data = &frame["data"];
        if let Some(request) = frame["reply"].as_u64()
            && let Some(sending) = asked.replied(request, frame, &self.shared)
        {
            self.on_reply(frame, &sending, memory);
            if frame["error"].is_object() && !not_sent(&frame["error"]) {
                asked.may_still_come(request, sending);
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
        if let Some(cursor) = frame["cursor"].as_str() {
            memory.cursor = Some(cursor.to_owned());
        }
    }

    fn got(&self, chat: ChatId, entry: Entry, memory: &mut Memory) {
        let last = memory.last.entry(chat).or_default();
        *last = (*last).max(entry.seq);
        self.see(Seen::Entry(chat, entry));
    }

    fn on_reply(&mut self, frame: &Value, sending: &Sending, memory: &mut Memory) {
        let (data, draft) = (&frame["data"], &sending.draft);
        let last = matches!(&memory.last_word, LastWord::Said(said) if said == draft);
        if let Some(outcome) = acked(data, &self.shared) {
            // At its place in the feed it carries a cursor, and stands for the event.
            if let (Outcome::Acked { id, seq, duplicate: false, .. }, true) =
                (&outcome, frame["cursor"].is_string())
            {
                let text = draft.text(self.user());
                let prev = data["prevSeq"].as_u64().unwrap_or(0);
                let entry = Entry { seq: *seq, prev, what: What::Message { id: *id, text } };
                self.got(draft.chat, entry, memory);
            }
            memory.again.acked = Some(draft.clone());
            if last {
                memory.last_word = LastWord::Taken;
            }
            self.shared.settle(sending.attempt, outcome);
            return;
        }
        let error = &frame["error"];
        let unknown = !not_sent(error);
        if unknown || error["code"] == "unavailable" {
            memory.again.remember(draft.clone());
        }
        if !unknown {
            self.shared.settle(sending.attempt, Outcome::Failed);
            // Its user may have left that chat meanwhile: another one will do.
            if last {
                memory.last_word = LastWord::Unsaid;
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

async fn say(socket: &mut Socket, frame: &Value) -> Result<(), End> {
    let sent = timeout(ANSWER, socket.send(Message::text(frame.to_string()))).await;
    match sent {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(End::Closed),
    }
}
