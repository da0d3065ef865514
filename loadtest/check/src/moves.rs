//! Joining and leaving open chats, on behalf of a device's user.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use natter_protocol::ids::{ChatId, UserId};
use rand::{rngs::StdRng, seq::IteratorRandom};
use reqwest::Method;
use serde_json::json;

use crate::{
    client::Rest,
    observations::{Kind, Told},
    run::CheckError,
    shared::Shared,
};

/// Moves one user. One at a time: the next would see a chat that its user is neither in nor out of.
#[derive(Clone)]
pub struct Moves {
    user: UserId,
    token: String,
    rest: Rest,
    shared: Arc<Shared>,
    moving: Arc<AtomicBool>,
}

impl Moves {
    pub fn new(user: UserId, token: String, rest: Rest, shared: Arc<Shared>) -> Self {
        Self { user, token, rest, shared, moving: Arc::default() }
    }

    /// Whether the user is on the way.
    pub fn under_way(&self) -> bool {
        self.moving.load(Ordering::Relaxed)
    }

    /// Joins a chat or leaves it, beside whatever else goes on, unless the user is on the way
    /// already. It is insisted on: who takes part where must be known.
    pub fn go(&self, rng: &mut StdRng) {
        if self.under_way() {
            return;
        }
        let Some((chat, leaves)) = self.choose(rng) else { return };
        self.moving.store(true, Ordering::Relaxed);
        let going = self.clone();
        tokio::spawn(async move {
            let done = if leaves { going.leave(chat).await } else { going.join(chat).await };
            if done && !leaves {
                going.enter(chat);
            }
            going.moving.store(false, Ordering::Relaxed);
        });
    }

    /// An open chat, and whether the user is in it. Nothing is sent there while they move.
    fn choose(&self, rng: &mut StdRng) -> Option<(ChatId, bool)> {
        let mut chats = self.shared.chats();
        let known = chats.iter_mut().filter(|known| known.open).choose(rng)?;
        let member = known.members.contains(&self.user);
        known.members.retain(|member| *member != self.user);
        Some((known.id, member))
    }

    async fn join(&self, chat: ChatId) -> bool {
        let operation = self.shared.operation(Kind::Join, self.user, Some(chat));
        let done = self.post(chat, "join").await;
        self.ended(operation, done)
    }

    async fn leave(&self, chat: ChatId) -> bool {
        let operation = self.shared.operation(Kind::Leave, self.user, Some(chat));
        let done = match self.post(chat, "leave").await {
            // It had been done by a try that was not answered.
            Err(CheckError::Refused { code, unsure: true, .. }) if code == "not_member" => Ok(()),
            done => done,
        };
        self.ended(operation, done)
    }

    async fn post(&self, chat: ChatId, verb: &str) -> Result<(), CheckError> {
        let (path, body) = (format!("/chats/{chat}/{verb}"), Some(json!({})));
        self.rest.insist(Method::POST, &path, Some(&self.token), body).await.map(drop)
    }

    fn ended(&self, operation: usize, done: Result<(), CheckError>) -> bool {
        let told = Told::from(done);
        let done = told == Told::Ok;
        self.shared.told(operation, told);
        done
    }

    fn enter(&self, chat: ChatId) {
        let mut chats = self.shared.chats();
        let known = chats.iter_mut().find(|known| known.id == chat);
        if let Some(known) = known.filter(|known| !known.members.contains(&self.user)) {
            known.members.push(self.user);
        }
    }
}

impl From<Result<(), CheckError>> for Told {
    fn from(done: Result<(), CheckError>) -> Self {
        match done {
            Ok(()) => Self::Ok,
            Err(CheckError::Refused { code, .. }) => Self::Failed(code),
            Err(_) => Self::Unknown,
        }
    }
}
