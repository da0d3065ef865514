//! The way to a connection: what waits to be written to it, and how it is told to end.
//!
//! One allocation for both ends, and nothing on the heap while nothing waits: there are many
//! connections, and most are quiet most of the time.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
};

use natter_protocol::{error::close, feed::Feed, ids::Seq};
use tokio::sync::Notify;

use crate::{
    hub::frames::{Delivery, Part, Shared},
    measures,
};

/// What waits to be written to a connection.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// What is on no feed: a signal, or about the connection itself.
    Plain(Shared),
    /// An entry of a feed, as an event.
    Event(Arc<Delivery>),
    /// The client's own message: the reply to its request of this number, at the message's place in
    /// the feed; and the event too, if it asked for its own.
    Own(Option<u64>, Arc<Delivery>, bool),
}

impl Outgoing {
    /// Its length, but for what is the connection's own: its cursor, and a reply.
    fn bytes(&self) -> usize {
        match self {
            Self::Plain(shared) => shared.bytes(),
            Self::Event(delivery) | Self::Own(_, delivery, _) => delivery.bytes(),
        }
    }

    /// The entry of a feed, if it is one.
    #[must_use]
    pub fn delivery(&self) -> Option<&Arc<Delivery>> {
        match self {
            Self::Plain(_) => None,
            Self::Event(delivery) | Self::Own(_, delivery, _) => Some(delivery),
        }
    }
}

/// Bytes that may wait for one connection. What waits for many is shared, but a client that reads
/// nothing may follow chats that nobody else here follows.
const QUEUE_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<Outgoing>,
    bytes: usize,
    /// The session is replaying: what does not fit is replayed too, instead of the end.
    held: bool,
    /// Something did not fit.
    overflowed: bool,
}

impl Waiting {
    /// Gives the queue's memory back.
    fn clear(&mut self) {
        (self.queue, self.bytes) = (VecDeque::new(), 0);
    }
}

/// See the module.
#[derive(Debug)]
pub struct Outlet {
    waiting: Mutex<Waiting>,
    wake: Notify,
    capacity: u32,
    code: AtomicU16,
    draining: AtomicBool,
    in_doubt: AtomicBool,
}

impl Outlet {
    /// An outlet whose queue takes `capacity` frames of 1 MiB together. It is held until [`Outlet::release`].
    #[must_use]
    pub fn new(capacity: u32) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::new(Waiting { held: true, ..Waiting::default() }),
            wake: Notify::new(),
            capacity,
            code: AtomicU16::new(0),
            draining: AtomicBool::new(false),
            in_doubt: AtomicBool::new(false),
        })
    }

    /// Queues a frame. A queue that is full belongs to a consumer too slow to keep: it is closed
    /// with a resumable code, never skipped.
    pub fn send(&self, frame: Shared) {
        self.queue(Outgoing::Plain(frame));
    }

    /// The same for whatever it is.
    pub fn queue(&self, outgoing: Outgoing) {
        if self.queue_quietly(outgoing) {
            self.wake();
        }
    }

    /// The same without waking the session: answers whether it has to be, by [`Outlet::wake`].
    #[must_use]
    pub fn queue_quietly(&self, outgoing: Outgoing) -> bool {
        let mut waiting = self.lock();
        let bytes = waiting.bytes + outgoing.bytes();
        // One that is larger than all that may wait has to get through nevertheless.
        let fits = bytes <= QUEUE_BYTES || waiting.queue.is_empty();
        if waiting.queue.len() < self.capacity as usize && fits {
            waiting.bytes = bytes;
            waiting.queue.push_back(outgoing);
            return !waiting.held && waiting.queue.len() == 1;
        }
        if waiting.held {
            waiting.overflowed = true;
            waiting.clear();
        } else {
            drop(waiting);
            measures::slow_consumers().increment(1);
            self.close(close::SLOW_CONSUMER);
        }
        false
    }

    /// Wakes the session: something waits.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Ends the connection with a close code; the first one counts.
    pub fn close(&self, code: u16) {
        let _ = self.code.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.wake.notify_one();
    }

    /// Ends the connection once what is under way has been brought to its end.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// It is being asked whether the user may be here at all; or has been, and the user may.
    pub fn doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Release);
    }

    /// Whether the connection shows that its device may come in: it is not on its way out, and nobody asks.
    #[must_use]
    pub fn vouches(&self) -> bool {
        !self.closed() && !self.in_doubt.load(Ordering::Acquire)
    }

    /// Whether the connection is on its way out: nothing more may be delivered to it, since
    /// what it missed would be a hole.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.code().is_some()
    }

    /// The close code, once there is one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.code.load(Ordering::Acquire) {
            0 => None,
            code => Some(code),
        }
    }

    /// Whether the node drains.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What waits longest; none while it is held. For the session alone.
    pub fn take(&self) -> Option<Outgoing> {
        let mut waiting = self.lock();
        if waiting.held {
            return None;
        }
        let taken = waiting.queue.pop_front()?;
        waiting.bytes -= taken.bytes();
        if waiting.queue.is_empty() {
            waiting.clear();
        }
        Some(taken)
    }

    /// Where the part in the chat that began after the entry `after` ends, if what waits tells so.
    #[must_use]
    pub fn end_of(&self, chat: Feed, after: Seq) -> Option<Seq> {
        let waiting = self.lock();
        waiting.queue.iter().find_map(|outgoing| match outgoing.delivery()?.part {
            Part::Ends(feed, until) if feed == chat && until > after => Some(until),
            _ => None,
        })
    }

    /// How many frames wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    /// From here on what comes is kept for later, and what does not fit is dropped and remembered.
    pub fn hold(&self) {
        self.lock().held = true;
    }

    /// The opposite. Answers false when something was dropped: it is held still, anew, and what
    /// was dropped has to be replayed.
    #[must_use]
    pub fn release(&self) -> bool {
        let mut waiting = self.lock();
        if std::mem::take(&mut waiting.overflowed) {
            waiting.clear();
            return false;
        }
        waiting.held = false;
        true
    }

    /// Waits until something can be taken, unless the session is `paused`, the connection is to
    /// be closed, or, unless that is known, the node drains. For the session alone.
    pub async fn wait(&self, paused: bool, known_to_drain: bool) {
        loop {
            let something = !paused && {
                let waiting = self.lock();
                !waiting.held && !waiting.queue.is_empty()
            };
            if something || self.closed() || self.draining() && !known_to_drain {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Waits for the close code.
    pub async fn ended(&self) -> u16 {
        loop {
            if let Some(code) = self.code() {
                return code;
            }
            self.wake.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::{
        error::{ErrorCode, WireError},
        server::ServerEvent,
    };

    use super::*;
    use crate::codec::Codec;

    fn full() -> Arc<Outlet> {
        let outlet = Outlet::new(2);
        for after_ms in [1, 2] {
            outlet.send(some(after_ms));
        }
        outlet
    }

    fn some(after_ms: u64) -> Shared {
        Shared::new(&ServerEvent::Reconnect { after_ms })
    }

    fn is(outgoing: Option<Outgoing>, after_ms: u64) -> bool {
        let told = ServerEvent::Reconnect { after_ms };
        matches!(outgoing, Some(Outgoing::Plain(shared))
            if shared.spelled(Codec::Native) == Codec::Native.event(&told))
    }

    #[test]
    fn a_full_queue_closes_its_connection() {
        let outlet = full();
        assert!(outlet.release());
        outlet.send(some(3));
        assert_eq!(outlet.code(), Some(close::SLOW_CONSUMER));
        outlet.close(close::DRAINING);
        assert_eq!(outlet.code(), Some(close::SLOW_CONSUMER), "the first one counts");
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_too() {
        let large = |length| {
            let error = WireError::new(ErrorCode::Internal, "x".repeat(length));
            Shared::new(&ServerEvent::Exception(&error))
        };
        let outlet = Outlet::new(1_000);
        assert!(outlet.release());
        outlet.send(large(2 * QUEUE_BYTES));
        assert!(!outlet.closed() && outlet.take().is_some(), "one alone gets through");
        for _ in 0..3 {
            // What was taken makes room.
            for _ in 0..3 {
                outlet.send(large(QUEUE_BYTES / 4));
            }
            while outlet.take().is_some() {}
        }
        assert!(!outlet.closed());
        for _ in 0..4 {
            outlet.send(large(QUEUE_BYTES / 4));
        }
        assert_eq!((outlet.waiting(), outlet.code()), (3, Some(close::SLOW_CONSUMER)));
    }

    #[test]
    fn one_that_is_held_remembers_that_something_was_dropped() {
        let outlet = full();
        assert!(outlet.take().is_none());
        outlet.send(some(3));
        outlet.send(some(4));
        assert!(!outlet.closed() && !outlet.release());
        outlet.send(some(5));
        assert!(outlet.release());
        assert!(is(outlet.take(), 5));
        assert!(outlet.take().is_none() && outlet.is_empty());
    }

    #[tokio::test]
    async fn the_session_wakes_for_what_comes_and_for_its_end() {
        let outlet = Outlet::new(2);
        assert!(outlet.release());
        let waiter = tokio::spawn({
            let outlet = Arc::clone(&outlet);
            async move {
                outlet.wait(false, false).await;
                let first = outlet.take().is_some();
                outlet.wait(false, false).await;
                (first, outlet.draining(), outlet.ended().await)
            }
        });
        tokio::task::yield_now().await;
        outlet.send(some(1));
        while !outlet.is_empty() {
            tokio::task::yield_now().await;
        }
        outlet.drain();
        tokio::task::yield_now().await;
        outlet.close(close::DRAINING);
        assert_eq!(waiter.await.ok(), Some((true, true, close::DRAINING)));
    }
}
