//! What a device asks for over its socket, and what came of it.

use std::collections::{HashMap, VecDeque};

use natter_protocol::ids::{ChatId, UserId};
use serde_json::{Value, json};

use crate::{
    client::{ANSWER, id},
    observations::{Attempt, Outcome, Text, Told, Turn, digest},
    shared::Shared,
};

/// Messages whose outcome is unknown that are tried again later; more stay unknown.
const UNRESOLVED: usize = 100;

/// A message that is to be sent, or was.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    pub chat: ChatId,
    pub client_msg_id: String,
    pub content: String,
}

impl Draft {
    pub fn text(&self, sender: UserId) -> Text {
        let Self { client_msg_id, content, .. } = self;
        Text { sender, client_msg_id: client_msg_id.clone(), digest: digest(content) }
    }

    /// The attempt to send it that is about to be made.
    pub fn attempt(&self, sender: UserId, turn: Option<Turn>, shared: &Shared) -> Attempt {
        let (chat, text, invoked) = (self.chat, self.text(sender), shared.now());
        Attempt { chat, text, invoked, turn, outcome: Outcome::Unknown }
    }

    fn data(&self) -> Value {
        let Self { chat, client_msg_id, content } = self;
        json!({"chatId": chat, "clientMsgId": client_msg_id, "content": content})
    }
}

/// A message on the way.
pub struct Sending {
    pub draft: Draft,
    /// Its place in the record.
    pub attempt: usize,
    invoked: u64,
    /// It is to be tried again already.
    given_up: bool,
}

/// What is to be sent again.
#[derive(Default)]
pub struct Again {
    /// What nobody knows the outcome of, oldest first.
    pub unresolved: VecDeque<Draft>,
    /// What was acked last.
    pub acked: Option<Draft>,
}

impl Again {
    pub fn remember(&mut self, draft: Draft) {
        if self.unresolved.len() < UNRESOLVED {
            self.unresolved.push_back(draft);
        }
    }
}

/// The requests of one connection that are on the way.
pub struct Asked {
    connection: u64,
    number: u64,
    sending: HashMap<u64, Sending>,
    /// Each with its place in the record.
    typing: HashMap<u64, usize>,
}

impl Asked {
    pub fn new(connection: u64) -> Self {
        Self { connection, number: 0, sending: HashMap::new(), typing: HashMap::new() }
    }

    /// The frame that sends a message.
    pub fn send(&mut self, draft: Draft, sender: UserId, shared: &Shared) -> Value {
        self.number += 1;
        let number = self.number;
        let turn = Turn { connection: self.connection, number };
        let attempt = draft.attempt(sender, Some(turn), shared);
        let invoked = attempt.invoked;
        let data = draft.data();
        let attempt = shared.attempt(attempt);
        self.sending.insert(number, Sending { draft, attempt, invoked, given_up: false });
        json!({"event": "send_message", "id": number, "data": data})
    }

    /// The frame that starts typing or stops it; `operation` is its place in the record.
    pub fn type_in(&mut self, chat: ChatId, starts: bool, operation: usize) -> Value {
        self.number += 1;
        self.typing.insert(self.number, operation);
        let event = if starts { "typing_start" } else { "typing_stop" };
        json!({"event": event, "id": self.number, "data": {"chatId": chat}})
    }

    /// Whether this message is on the way, and not to be tried again yet.
    pub fn waits_for(&self, draft: &Draft) -> bool {
        self.sending.values().any(|sending| sending.draft == *draft && !sending.given_up)
    }

    /// The message that a reply is about. Typing is done with here.
    pub fn replied(&mut self, request: u64, frame: &Value, shared: &Shared) -> Option<Sending> {
        if let Some(operation) = self.typing.remove(&request) {
            let code = frame["error"]["code"].as_str().map(str::to_owned);
            shared.told(operation, code.map_or(Told::Ok, Told::Failed));
        }
        self.sending.remove(&request)
    }

    /// A message of which the server did not know may still get its reply, at its place.
    pub fn may_still_come(&mut self, request: u64, sending: Sending) {
        self.sending.insert(request, Sending { given_up: true, ..sending });
    }

    /// What is not answered for too long is to be tried again.
    pub fn give_up_late(&mut self, now: u64, again: &mut Again) {
        let limit = u64::try_from(ANSWER.as_micros()).unwrap_or(u64::MAX);
        for sending in self.sending.values_mut().filter(|sending| !sending.given_up) {
            if now.saturating_sub(sending.invoked) > limit {
                sending.given_up = true;
                again.remember(sending.draft.clone());
            }
        }
    }

    /// The connection has ended: what it did not answer is to be tried again.
    pub fn give_up(self, again: &mut Again) {
        for sending in self.sending.into_values().filter(|sending| !sending.given_up) {
            again.remember(sending.draft);
        }
    }
}

/// Whether a refused message is certain not to be stored.
pub fn not_sent(error: &Value) -> bool {
    match error["code"].as_str().unwrap_or_default() {
        "unavailable" => error["outcome"] == "not_sent",
        "internal" => false,
        _ => true,
    }
}

/// What a message became, if that is what this says.
pub fn acked(sent: &Value, shared: &Shared) -> Option<Outcome> {
    let (id, seq) = (id(&sent["id"])?, sent["seq"].as_u64()?);
    Some(Outcome::Acked { id, seq, duplicate: sent["duplicate"] == true, at: shared.now() })
}
