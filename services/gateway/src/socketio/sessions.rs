//! The sessions whose transport is polling, of this node and of the others. A session's id tells
//! which node has it, so its requests may reach any: they travel on over the broker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_bus::{
    Bus, BusError,
    nodes::{AskError, Question},
};
use natter_runtime::causes;
use rand::Rng;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Moved,
    polling::{self, End, Polled, Polling, Posted},
};
use crate::{
    measures,
    socket::{Heard, Over},
};

/// Requests of other nodes that are answered at once, polls aside; more are turned away.
const ASKED: u32 = 16 * 1024;
/// How much longer than the answer itself its way may take.
const WAY: Duration = Duration::from_secs(5);
/// The longest of what is no poll: a session that comes to rest before it moves.
const LONGEST: Duration = Duration::from_secs(12);
/// Between two looks whether a node is there.
const LOOK: Duration = Duration::from_secs(1);
/// How long sessions may take to end, and answers to other nodes to be on their way.
const ENDINGS: Duration = Duration::from_secs(2);
/// How long to wait before the broker is listened to again.
const AGAIN: Duration = Duration::from_secs(1);

/// The sessions of a node, and the way to those of others. Cloning shares them.
#[derive(Clone)]
pub struct Sessions {
    inner: Arc<Inner>,
}

struct Inner {
    node: Uuid,
    bus: Bus,
    table: Arc<Table>,
    /// One for each session that may be.
    places: Arc<Semaphore>,
    most: u32,
    /// One for each poll of another node that may wait.
    polls: Arc<Semaphore>,
    asked: Arc<Semaphore>,
    /// The node drains: no request waits here for long.
    draining: CancellationToken,
    /// Nodes of which a poll's answer is awaited.
    watched: Mutex<HashMap<Uuid, Weak<CancellationToken>>>,
    /// How long a poll may wait.
    poll: Duration,
}

/// A session's id: its node, and what nobody can guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sid {
    node: Uuid,
    secret: [u8; 16],
}

/// It is no session's id.
#[derive(Debug, thiserror::Error)]
#[error("not a session's id")]
pub struct NoSid;

impl TryFrom<String> for Sid {
    type Error = NoSid;

    fn try_from(text: String) -> Result<Self, NoSid> {
        let mut bytes = [0; 32];
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).map_err(|_| NoSid)?;
        let (node, secret) = bytes.split_at(16);
        let node = Uuid::from_slice(node).map_err(|_| NoSid)?;
        let secret = secret.try_into().map_err(|_| NoSid)?;
        if read == bytes.len() { Ok(Self { node, secret }) } else { Err(NoSid) }
    }
}

impl From<Sid> for String {
    fn from(sid: Sid) -> Self {
        URL_SAFE_NO_PAD.encode([sid.node.as_bytes().as_slice(), &sid.secret].concat())
    }
}

/// What a request wants of a session.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Its packets; and what the request calls itself.
    Poll(Sid, Option<u64>),
    /// To bring it packets; likewise.
    Post(Sid, String, Option<u64>),
    /// That its poll ends.
    Release(Sid),
    /// To take it over.
    Probe(Sid),
    /// To have it, now.
    Take(Sid),
    /// Not to take it over, after all.
    Abandon(Sid),
    /// To end it.
    End(Sid),
    /// Whether its node is there.
    Look(Sid),
}

impl Ask {
    fn sid(&self) -> Sid {
        match self {
            Self::Poll(sid, _)
            | Self::Post(sid, ..)
            | Self::Release(sid)
            | Self::Probe(sid)
            | Self::Take(sid)
            | Self::Abandon(sid)
            | Self::End(sid)
            | Self::Look(sid) => *sid,
        }
    }
}

/// What it gets.
#[derive(Serialize, Deserialize)]
pub enum Answer {
    /// Packets.
    Payload(String),
    /// It is done.
    Done,
    /// The session, which has left its node.
    Moved(Moved),
    /// It makes no sense, and so the session is over.
    Malformed,
    /// There is no such session.
    Unknown,
    /// Its node cannot be reached, or has too much to do.
    Unavailable,
}

/// A session's entry in the table, until this is dropped.
pub struct Listed {
    sid: Sid,
    table: Arc<Table>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Listed {
    fn drop(&mut self) {
        lock(&self.table).remove(&self.sid);
    }
}

type Table = Mutex<HashMap<Sid, Arc<Polling>>>;

fn lock(table: &Table) -> MutexGuard<'_, HashMap<Sid, Arc<Polling>>> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// None yet, and so many at most; a poll may wait for so long.
    #[must_use]
    pub fn new(bus: Bus, most: u32, poll: Duration) -> Self {
        let inner = Inner {
            node: Uuid::new_v4(),
            bus,
            table: Arc::default(),
            places: Arc::new(Semaphore::new(most as usize)),
            most,
            polls: Arc::new(Semaphore::new(most as usize)),
            asked: Arc::new(Semaphore::new(ASKED as usize)),
            draining: CancellationToken::new(),
            watched: Mutex::default(),
            poll,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A new id for a session of this node.
    #[must_use]
    pub fn sid(&self) -> Sid {
        let mut secret = [0; 16];
        rand::rng().fill_bytes(&mut secret);
        Sid { node: self.inner.node, secret }
    }

    /// A new session, unless there are too many.
    #[must_use]
    pub fn open(&self, sid: Sid) -> Option<End> {
        let place = Arc::clone(&self.inner.places).try_acquire_owned().ok()?;
        let (polling, hears): (_, mpsc::Receiver<Result<Heard, Over>>) = polling::open();
        let table = Arc::clone(&self.inner.table);
        lock(&table).insert(sid, Arc::clone(&polling));
        let listed = Listed { sid, table, _place: place };
        Some(End::new(polling, hears, listed))
    }

    /// Asks the node that has the session.
    pub async fn ask(&self, ask: Ask) -> Answer {
        let node = ask.sid().node;
        if node == self.inner.node {
            return self.answer(ask).await;
        }
        measures::polls_relayed().increment(1);
        let polls = matches!(ask, Ask::Poll(..));
        let limit = if polls { self.inner.poll } else { LONGEST } + WAY;
        let mut cut = Cut { sessions: self, sid: polls.then_some(ask.sid()) };
        let asked = self.inner.bus.ask(node, &ask, limit);
        let answer = if polls {
            let gone = self.watch(ask.sid());
            let release = async {
                self.inner.draining.cancelled().await;
                let _ = self.tell(&Ask::Release(ask.sid()));
                std::future::pending::<()>().await;
            };
            tokio::select! {
                answer = asked => answer,
                () = gone.cancelled() => Err(AskError::Gone),
                () = release => Err(AskError::Gone),
            }
        } else {
            asked.await
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(AskError::Gone) => Answer::Unknown,
            Err(error) => {
                tracing::debug!(error = %causes(&error), "a session's node was not reached");
                Answer::Unavailable
            }
        };
        // What a poll was given and did not get here is lost: its client has to resume.
        if !matches!(answer, Answer::Unavailable) {
            cut.sid = None;
        }
        answer
    }

    /// Tells when the session's node is gone: nobody answers a poll then that it has heard.
    fn watch(&self, sid: Sid) -> Arc<CancellationToken> {
        let mut watched = self.inner.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = watched.get(&sid.node).and_then(Weak::upgrade);
        if let Some(gone) = gone.filter(|gone| !gone.is_cancelled()) {
            return gone;
        }
        watched.retain(|_, gone| gone.strong_count() > 0);
        let gone = Arc::new(CancellationToken::new());
        watched.insert(sid.node, Arc::downgrade(&gone));
        tokio::spawn(look(self.clone(), sid, Arc::downgrade(&gone)));
        gone
    }

    async fn answer(&self, ask: Ask) -> Answer {
        if matches!(ask, Ask::Look(_)) {
            return Answer::Done;
        }
        let polling = lock(&self.inner.table).get(&ask.sid()).cloned();
        let Some(polling) = polling else { return Answer::Unknown };
        let done = |done| if done { Answer::Done } else { Answer::Unknown };
        match ask {
            Ask::Poll(_, name) => match polling.poll(self.inner.poll, name).await {
                Polled::Payload(payload) => Answer::Payload(payload),
                Polled::Over => Answer::Unknown,
                Polled::Twice => Answer::Malformed,
            },
            Ask::Post(_, payload, name) => match polling.post(&payload, name).await {
                Posted::Taken => Answer::Done,
                Posted::Malformed => Answer::Malformed,
                Posted::Over => Answer::Unknown,
            },
            Ask::Release(_) => {
                polling.release();
                Answer::Done
            }
            Ask::Probe(_) => done(polling.probe()),
            Ask::Take(_) => polling.take().await.map_or(Answer::Unknown, Answer::Moved),
            Ask::Abandon(_) => {
                polling.abandon();
                Answer::Done
            }
            Ask::End(_) => {
                polling.end();
                Answer::Done
            }
            Ask::Look(_) => Answer::Done,
        }
    }

    /// Answers what other nodes ask. Runs until dropped.
    pub async fn answer_all(self) {
        loop {
            match self.inner.bus.asked(self.inner.node).await {
                Ok(mut asked) => {
                    while let Some(question) = asked.next().await {
                        self.on_question(question);
                    }
                }
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "other nodes' requests are not heard");
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// From here on no request waits here for a session of another node: its client asks again, and
    /// finds another one.
    pub fn drain(&self) {
        self.inner.draining.cancel();
    }

    /// Waits until the last session has said what it had to say, in a bounded time. No connection
    /// stands for one whose client is between two polls, or polls at another node.
    pub async fn ended(&self) {
        let Inner { bus, places, most, polls, asked, .. } = &*self.inner;
        let ended = async {
            let _ = places.acquire_many(*most).await;
            let _ = polls.acquire_many(*most).await;
            let _ = asked.acquire_many(ASKED).await;
        };
        let _ = timeout(ENDINGS, ended).await;
        bus.hand_over_all(ENDINGS).await;
    }

    fn on_question(&self, question: Question) {
        let ask: Ask = match question.read() {
            Ok(ask) => ask,
            Err(error) => {
                tracing::warn!(error = %causes(&error), "another node's request cannot be read");
                return;
            }
        };
        let sid = ask.sid();
        let sessions = self.clone();
        let places = match ask {
            Ask::Poll(..) => &self.inner.polls,
            _ => &self.inner.asked,
        };
        let place = Arc::clone(places).try_acquire_owned();
        tokio::spawn(async move {
            let short =
                matches!(ask, Ask::End(_) | Ask::Abandon(_) | Ask::Look(_) | Ask::Release(_));
            let answer = if short || place.is_ok() {
                sessions.answer(ask).await
            } else {
                Answer::Unavailable
            };
            if let Err(error) = question.answer(&answer).await {
                tracing::debug!(error = %causes(&error), "another node was not answered");
                // What a poll was given is lost: its client has to resume.
                if let Answer::Payload(_) = answer {
                    sessions.answer(Ask::End(sid)).await;
                    let _ = question.answer(&Answer::Unknown).await;
                }
            }
        });
    }

    fn tell(&self, ask: &Ask) -> Result<(), BusError> {
        self.inner.bus.tell_node(ask.sid().node, ask)
    }
}

/// Looks every second whether the session's node is there, as long as anybody awaits something of it.
async fn look(sessions: Sessions, sid: Sid, awaited: Weak<CancellationToken>) {
    loop {
        sleep(LOOK).await;
        if awaited.strong_count() == 0 {
            return;
        }
        let looked = sessions.inner.bus.ask::<Answer>(sid.node, &Ask::Look(sid), WAY).await;
        if let (Err(AskError::Gone), Some(gone)) = (looked, awaited.upgrade()) {
            gone.cancel();
            return;
        }
    }
}

/// Ends the session of a poll that has gone away before its answer came.
struct Cut<'a> {
    sessions: &'a Sessions,
    sid: Option<Sid>,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if let Some(sid) = self.sid {
            // Lost, it ends when its client does not answer the next ping.
            let _ = self.sessions.tell(&Ask::End(sid));
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// In a table of its own.
    pub fn listed() -> Listed {
        let places = Arc::new(Semaphore::new(1));
        let place = places.try_acquire_owned();
        let sid = Sid { node: Uuid::nil(), secret: [0; 16] };
        Listed { sid, table: Arc::default(), _place: place.expect("it is free") }
    }

    proptest! {
        #[test]
        fn an_id_is_read_as_it_was_written(node: u128, secret: [u8; 16]) {
            let sid = Sid { node: Uuid::from_u128(node), secret };
            prop_assert_eq!(Sid::try_from(String::from(sid)).ok(), Some(sid));
        }

        #[test]
        fn anything_else_is_none(text in ".{0,60}") {
            if let Ok(sid) = Sid::try_from(text.clone()) {
                prop_assert_eq!(String::from(sid), text);
            }
        }
    }
}
