//! The polling transport of one session: packets that wait for a request to fetch them, and those
//! that requests have brought.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::extract::ws::Utf8Bytes;
use natter_protocol::socketio::{self, PAYLOAD_PACKETS, SEPARATOR};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Moved, sessions::Listed};
use crate::socket::{Heard, Over, packet};

/// Packets from the client that wait for its session.
const HEARD: usize = 64;
/// Bytes that wait to be fetched; beyond it the session waits, and counts as slow in the end.
const WAITING: usize = 64 * 1024;
/// The same once nobody fetches them any more, since they move: what the session was still asked
/// for is answered first. As much as fits into what the broker takes, escaped once more.
const MOVING: usize = 384 * 1024;
/// While a WebSocket takes over, polls end at once, but not more often than this.
const NOOPS: Duration = Duration::from_millis(100);
/// Bytes of one answer, unless a single packet has more.
const PAYLOAD: usize = 256 * 1024;
/// Packets of one answer: python-engineio takes no more.
const PAYLOAD_ANSWER: usize = 16;
/// How long a session may take over what a request has brought.
const TAKEN_IN: Duration = Duration::from_secs(10);
/// How long the last packets wait to be fetched.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a WebSocket may take to take a session over, once it has asked.
const PROBE: Duration = Duration::from_secs(10);
/// How long a session may take to come to rest before it moves, and a little.
const MOVE: Duration = Duration::from_secs(10);

/// What requests see of a session.
pub struct Polling {
    state: Mutex<State>,
    /// Something waits to be fetched, or a poll is to end for another reason.
    filled: Notify,
    /// Something has been fetched.
    fetched: Notify,
    over: CancellationToken,
    heard: mpsc::Sender<Result<Heard, Over>>,
    /// Held while a request brings something. True once the session moves: what were brought then
    /// would be lost.
    moves: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Utf8Bytes>,
    bytes: usize,
    /// A request waits.
    polled: bool,
    /// Since when a WebSocket wants to take over.
    probed: Option<Instant>,
    /// When a poll was last ended for that.
    ended: Option<Instant>,
    /// It has taken over.
    taken: bool,
    /// The poll that waits is to end.
    released: bool,
    /// What the last requests called themselves.
    last_poll: Option<u64>,
    last_post: Option<u64>,
    /// Nothing more comes: what waits is the last.
    last: bool,
    /// The session ends, or moves, as its client knows: a poll that waits needs not be told.
    known: bool,
}

/// What a poll gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Polled {
    /// Packets.
    Payload(String),
    /// The session is over.
    Over,
    /// Another one waits already, and so the session is over.
    Twice,
}

/// What becomes of what a request has brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Posted {
    /// The session has it.
    Taken,
    /// It is no payload, and so the session is over.
    Malformed,
    /// The session is over.
    Over,
}

/// A session's transport, and what requests see of it.
#[must_use]
pub fn open() -> (Arc<Polling>, mpsc::Receiver<Result<Heard, Over>>) {
    let (heard, hears) = mpsc::channel(HEARD);
    let polling = Polling {
        state: Mutex::default(),
        filled: Notify::new(),
        fetched: Notify::new(),
        over: CancellationToken::new(),
        heard,
        moves: tokio::sync::Mutex::new(false),
    };
    (Arc::new(polling), hears)
}

impl Polling {
    /// Waits for packets, for so long at most. A request that comes a second time, by its own
    /// `name`, was repeated on its way: the answer to the first may be lost, so the session is over.
    pub async fn poll(&self, longest: Duration, name: Option<u64>) -> Polled {
        if self.over.is_cancelled() {
            return Polled::Over;
        }
        {
            let mut state = self.lock();
            if name.is_some() && state.last_poll == name {
                drop(state);
                self.end();
                return Polled::Over;
            }
            state.last_poll = name;
            if state.polled {
                drop(state);
                self.end();
                return Polled::Twice;
            }
            state.polled = true;
        }
        // A request that goes away takes what it may have been given with it.
        let mut waiting = Waiting { polling: self, answered: false };
        let until = Instant::now() + longest;
        let payload = loop {
            if let Some(payload) = self.payload() {
                break payload;
            }
            let again = Instant::now() + NOOPS;
            tokio::select! {
                () = self.filled.notified() => {}
                () = tokio::time::sleep_until(again), if self.lock().is_probed() => {}
                () = self.over.cancelled() => match self.lock().ending() {
                    Some(packet) => break packet.to_owned(),
                    None => return Polled::Over,
                },
                () = tokio::time::sleep_until(until) => break socketio::NOOP.to_owned(),
            }
        };
        waiting.answered = true;
        Polled::Payload(payload)
    }

    fn payload(&self) -> Option<String> {
        let mut state = self.lock();
        let (mut payload, mut packets) = (String::new(), 0);
        while let Some(packet) = state.waiting.front()
            && packets < PAYLOAD_ANSWER
            && (payload.is_empty() || payload.len() + packet.len() < PAYLOAD)
        {
            if !payload.is_empty() {
                payload.push(SEPARATOR);
            }
            payload.push_str(packet);
            packets += 1;
            state.bytes -= packet.len();
            state.waiting.pop_front();
        }
        if payload.is_empty() {
            let now = Instant::now();
            let due = state.ended.is_none_or(|ended| now - ended >= NOOPS);
            if std::mem::take(&mut state.released) || state.is_probed() && due {
                state.ended = Some(now);
                return Some(socketio::NOOP.to_owned());
            }
            return None;
        }
        drop(state);
        self.fetched.notify_one();
        Some(payload)
    }

    /// Takes in what a request has brought. One that comes a second time, by its own `name`, was
    /// repeated on its way, and so the session is over.
    pub async fn post(&self, payload: &str, name: Option<u64>) -> Posted {
        // One at a time, as Engine.IO has it.
        let Ok(moves) = self.moves.try_lock() else { return self.malformed() };
        if *moves || self.over.is_cancelled() {
            return Posted::Over;
        }
        if name.is_some() && std::mem::replace(&mut self.lock().last_post, name) == name {
            self.end();
            return Posted::Over;
        }
        let packets: Vec<&str> = payload.split(SEPARATOR).take(PAYLOAD_PACKETS + 1).collect();
        if packets.len() > PAYLOAD_PACKETS {
            return self.malformed();
        }
        let heard: Vec<_> = packets.into_iter().map(|text| packet(text.into())).collect();
        if heard.iter().any(|heard| matches!(heard, Err(Some(_)))) {
            return self.malformed();
        }
        if heard.iter().any(Result::is_err) {
            self.lock().known = true;
        }
        for heard in heard {
            match timeout(TAKEN_IN, self.heard.send(heard)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Posted::Over,
                Err(_) => {
                    self.end();
                    return Posted::Over;
                }
            }
        }
        Posted::Taken
    }

    fn malformed(&self) -> Posted {
        self.end();
        Posted::Malformed
    }

    /// A WebSocket wants to take over: polls end at once, so that the client can stop. Answers
    /// whether it may.
    pub fn probe(&self) -> bool {
        let mut state = self.lock();
        if state.is_probed() || state.last || self.over.is_cancelled() {
            return false;
        }
        state.probed = Some(Instant::now());
        drop(state);
        self.filled.notify_one();
        true
    }

    /// The poll that waits ends as if nothing had come: its request has to end.
    pub fn release(&self) {
        self.lock().released = true;
        self.filled.notify_one();
    }

    /// Waits until more may wait to be fetched.
    pub async fn room(&self) {
        while self.lock().bytes >= WAITING {
            tokio::select! {
                () = self.fetched.notified() => {}
                () = self.over.cancelled() => return,
            }
        }
    }

    /// It does not, after all.
    pub fn abandon(&self) {
        self.lock().probed = None;
    }

    /// Gives up the session for the WebSocket.
    pub async fn take(&self) -> Option<Moved> {
        if !self.lock().is_probed() {
            return None;
        }
        let (moving, moved) = oneshot::channel();
        let moved = async {
            *self.moves.lock().await = true;
            self.lock().taken = true;
            self.fetched.notify_one();
            self.heard.send(Ok(Heard::MoveOut(moving))).await.ok()?;
            moved.await.ok()
        };
        timeout(MOVE, moved).await.ok().flatten()
    }

    /// Ends the session: its client is gone, or makes no sense.
    pub fn end(&self) {
        self.over.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What tells a poll that waits of the end. Where the last things were said nothing does, as in
    /// [`End::finish`]: such a poll came between their being fetched and the end.
    fn ending(&self) -> Option<&'static str> {
        match (self.known, self.last) {
            (true, _) => Some(socketio::NOOP),
            (false, true) => None,
            (false, false) => Some(socketio::CLOSE),
        }
    }

    fn is_probed(&self) -> bool {
        self.probed.is_some_and(|since| since.elapsed() < PROBE)
    }
}

struct Waiting<'a> {
    polling: &'a Polling,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.polling.lock().polled = false;
        if !self.answered {
            self.polling.end();
        }
    }
}

/// The session's end of it.
pub struct End {
    polling: Arc<Polling>,
    hears: mpsc::Receiver<Result<Heard, Over>>,
    /// In the table of sessions, until this is dropped.
    _listed: Listed,
}

impl End {
    /// Of a session that is in the table.
    pub fn new(
        polling: Arc<Polling>,
        hears: mpsc::Receiver<Result<Heard, Over>>,
        listed: Listed,
    ) -> Self {
        Self { polling, hears, _listed: listed }
    }

    /// What the client does next.
    pub async fn hear(&mut self) -> Result<Heard, Over> {
        tokio::select! {
            biased;
            () = self.polling.over.cancelled() => Err(None),
            heard = self.hears.recv() => heard.unwrap_or(Err(None)),
        }
    }

    /// There is no room.
    pub fn full(&self) -> Option<Arc<Polling>> {
        (self.polling.lock().bytes >= WAITING).then(|| Arc::clone(&self.polling))
    }

    /// Lets a packet wait to be fetched, for whom there was room before.
    pub fn add(&mut self, packet: Utf8Bytes) {
        let mut state = self.polling.lock();
        state.bytes += packet.len();
        state.waiting.push_back(packet);
    }

    /// Lets a packet wait to be fetched, once there is room.
    pub async fn feed(&mut self, packet: Utf8Bytes) -> Result<(), Over> {
        loop {
            {
                let mut state = self.polling.lock();
                if state.bytes < if state.taken { MOVING } else { WAITING } {
                    state.bytes += packet.len();
                    state.waiting.push_back(packet);
                    return Ok(());
                }
            }
            self.flush();
            tokio::select! {
                () = self.polling.fetched.notified() => {}
                () = self.polling.over.cancelled() => return Err(None),
            }
        }
    }

    /// Lets a poll that waits have what there is.
    pub fn flush(&self) {
        self.polling.filled.notify_one();
    }

    /// What has not been fetched, for another transport.
    pub fn waiting(&mut self) -> Vec<String> {
        let mut state = self.polling.lock();
        (state.bytes, state.known) = (0, true);
        std::mem::take(&mut state.waiting).into_iter().map(|packet| packet.to_string()).collect()
    }

    /// Says the last things, and waits a moment until they are fetched. The end itself is not said:
    /// stock clients would do nothing about what comes in the same answer, and python-socketio would
    /// not come back. The next poll is told that there is no such session.
    pub async fn finish(self, last: Vec<Utf8Bytes>) {
        {
            let mut state = self.polling.lock();
            state.waiting.extend(last);
            state.bytes = state.waiting.iter().map(|packet| packet.len()).sum();
            state.last = true;
        }
        self.flush();
        let fetched = async {
            while !self.polling.lock().waiting.is_empty() {
                self.polling.fetched.notified().await;
            }
        };
        tokio::select! {
            () = fetched => {}
            () = self.polling.over.cancelled() => {}
            () = sleep(GOODBYE) => {}
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.polling.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;

    use super::*;
    use crate::socketio::sessions::tests::listed;

    const LONG: Duration = Duration::from_secs(10);

    fn pair() -> (Arc<Polling>, End) {
        let (polling, hears) = open();
        (Arc::clone(&polling), End::new(polling, hears, listed()))
    }

    fn payload(text: &str) -> Polled {
        Polled::Payload(text.to_owned())
    }

    #[tokio::test]
    async fn a_poll_waits_for_packets_and_gets_all_of_them() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        let waits = tokio::spawn({
            let polling = Arc::clone(&polling);
            async move { polling.poll(LONG, None).await }
        });
        yield_now().await;
        for packet in ["42[\"a\"]", "2"] {
            assert!(end.feed(packet.into()).await.is_ok());
        }
        end.flush();
        assert_eq!(waits.await?, payload("42[\"a\"]\u{1e}2"));
        assert_eq!(polling.poll(Duration::ZERO, None).await, payload("6"), "there is nothing");
        Ok(())
    }

    #[tokio::test]
    async fn what_a_request_brings_is_heard_in_order_or_ends_the_session() {
        let (polling, mut end) = pair();
        assert_eq!(polling.post("42[\"a\"]\u{1e}3", None).await, Posted::Taken);
        assert!(matches!(end.hear().await, Ok(Heard::Frame(text)) if text == "42[\"a\"]"));
        assert!(matches!(end.hear().await, Ok(Heard::Alive)));
        assert_eq!(polling.post("42[\"b\"]\u{1e}x", None).await, Posted::Malformed);
        assert!(matches!(end.hear().await, Err(None)));
        assert_eq!(polling.post("42[\"c\"]", None).await, Posted::Over);
        let many = vec!["3"; PAYLOAD_PACKETS + 1].join("\u{1e}");
        let (polling, _end) = pair();
        assert_eq!(polling.post(&many, None).await, Posted::Malformed);
    }

    #[tokio::test]
    async fn a_second_poll_ends_the_session_and_so_does_one_that_goes_away() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        let waits = tokio::spawn({
            let polling = Arc::clone(&polling);
            async move { polling.poll(LONG, None).await }
        });
        yield_now().await;
        assert_eq!(polling.poll(LONG, None).await, Polled::Twice);
        assert_eq!(waits.await?, payload("1"));
        assert!(matches!(end.hear().await, Err(None)));

        let (polling, mut end) = pair();
        assert!(timeout(Duration::from_millis(1), polling.poll(LONG, None)).await.is_err());
        assert!(matches!(end.hear().await, Err(None)));
        Ok(())
    }

    #[tokio::test]
    async fn a_session_whose_packets_nobody_fetches_waits() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        let large = Utf8Bytes::from("4".repeat(WAITING));
        assert!(end.feed(large.clone()).await.is_ok());
        assert!(timeout(Duration::from_millis(1), end.feed(large.clone())).await.is_err());
        let feeds = tokio::spawn(async move { (end.feed(large).await.is_ok(), end) });
        assert!(matches!(polling.poll(LONG, None).await, Polled::Payload(_)));
        assert!(feeds.await?.0);
        Ok(())
    }

    #[tokio::test]
    async fn one_websocket_may_take_over_and_gets_what_waits() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        assert!(polling.take().await.is_none(), "it has not asked");
        assert!(polling.probe() && !polling.probe());
        assert_eq!(polling.poll(LONG, None).await, payload("6"), "polls end at once");
        polling.abandon();
        assert!(polling.probe());
        assert!(end.feed("42[\"a\"]".into()).await.is_ok());
        let takes = tokio::spawn(async move { polling.take().await });
        let Ok(Heard::MoveOut(moving)) = end.hear().await else { anyhow::bail!("not moved") };
        assert_eq!(end.waiting(), ["42[\"a\"]"]);
        let _ = moving.send(Moved::Fresh { token: None, waiting: Vec::new() });
        assert!(takes.await?.is_some());
        Ok(())
    }

    #[tokio::test]
    async fn the_last_packets_are_fetched_before_it_is_over() -> anyhow::Result<()> {
        let (polling, end) = pair();
        let finishes = tokio::spawn(end.finish(vec!["41".into()]));
        assert_eq!(polling.poll(LONG, None).await, payload("41"));
        finishes.await?;
        assert_eq!(polling.poll(LONG, None).await, Polled::Over);
        Ok(())
    }

    #[tokio::test]
    async fn a_poll_that_comes_between_the_last_packets_and_the_end_is_not_told_to_stay_away()
    -> anyhow::Result<()> {
        let (polling, end) = pair();
        let finishes = tokio::spawn(end.finish(vec!["42[]".into()]));
        assert_eq!(polling.poll(LONG, None).await, payload("42[]"));
        assert!(!finishes.is_finished(), "it is not over yet");
        assert_eq!(polling.poll(LONG, None).await, Polled::Over);
        finishes.await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_request_that_is_repeated_on_its_way_ends_the_session() {
        let (polling, mut end) = pair();
        assert_eq!(polling.post("3", Some(1)).await, Posted::Taken);
        assert_eq!(polling.post("3", Some(2)).await, Posted::Taken);
        for _ in 0..2 {
            assert!(end.feed("42[]".into()).await.is_ok());
        }
        assert!(matches!(polling.poll(LONG, Some(7)).await, Polled::Payload(_)));
        assert_eq!(polling.poll(LONG, Some(7)).await, Polled::Over);
        assert!(matches!(end.hear().await, Err(None)));
        let (polling, _end) = pair();
        assert_eq!(polling.post("3", Some(1)).await, Posted::Taken);
        assert_eq!(polling.post("3", Some(1)).await, Posted::Over);
        assert_eq!(polling.post("3", Some(2)).await, Posted::Over);
    }

    #[tokio::test]
    async fn a_poll_that_has_to_end_ends_and_the_session_goes_on() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        let waits = tokio::spawn({
            let polling = Arc::clone(&polling);
            async move { polling.poll(LONG, None).await }
        });
        yield_now().await;
        polling.release();
        assert_eq!(waits.await?, payload("6"));
        assert!(end.feed("42[]".into()).await.is_ok());
        assert_eq!(polling.poll(LONG, None).await, payload("42[]"));
        Ok(())
    }

    #[tokio::test]
    async fn what_moves_may_be_more_than_what_waits() -> anyhow::Result<()> {
        let (polling, mut end) = pair();
        let large = Utf8Bytes::from("4".repeat(WAITING));
        assert!(end.full().is_none() && end.feed(large.clone()).await.is_ok());
        assert!(end.full().is_some() && polling.probe());
        let takes = tokio::spawn(async move { polling.take().await.is_some() });
        assert!(end.feed(large).await.is_ok());
        let Ok(Heard::MoveOut(moving)) = end.hear().await else { anyhow::bail!("not moved") };
        assert_eq!(end.waiting().len(), 2);
        let _ = moving.send(Moved::Fresh { token: None, waiting: Vec::new() });
        assert!(takes.await?);
        Ok(())
    }
}
