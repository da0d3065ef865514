//! What a run's connections have sent and heard together, and how fast.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::sync::Notify;

/// Everything of one run; a new run has a new one.
#[derive(Debug)]
pub struct Board {
    /// The run's number, which its messages carry.
    pub run: u32,
    /// When it began.
    pub began: Instant,
    /// From when a message was due until somebody heard it, in µs.
    pub latency: RefCell<Histogram<u64>>,
    /// From when a message was due until its sender had the reply, in µs.
    pub acks: RefCell<Histogram<u64>>,
    /// Deliveries.
    pub heard: Cell<u64>,
    /// Deliveries that are due for what has been stored.
    pub expected: Cell<u64>,
    /// Deliveries of what the connection had heard last.
    pub twice: Cell<u64>,
    /// Deliveries of what lies before something that the connection had heard.
    pub disordered: Cell<u64>,
    /// Messages whose reply says that they are stored.
    pub stored: Cell<u64>,
    /// What a gateway said of the first message that it refused.
    pub refused: RefCell<Option<String>>,
    /// Connections that were closed.
    pub closed: Cell<u64>,
    /// The code with which the last of them was.
    pub code: Cell<u16>,
    chats: Vec<Chat>,
    /// Messages without a reply yet: the chat and when they were due.
    waiting: RefCell<HashMap<u64, (u32, u64)>>,
    next: Cell<u64>,
}

/// What is known of a chat.
#[derive(Debug)]
struct Chat {
    /// Who hears a message of it: all but the sender.
    hearers: u64,
    stored: Cell<u64>,
    heard: Cell<u64>,
    /// Messages on their way that all have not heard.
    open: Cell<u64>,
    moved: Rc<Notify>,
}

/// No latency is longer, in µs; one that is counts as so long.
const LONGEST: u64 = 60_000_000;

fn histogram() -> RefCell<Histogram<u64>> {
    // Only impossible bounds fail.
    let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
    RefCell::new(histogram.unwrap_or_else(|_| unreachable!("the bounds are possible")))
}

impl Board {
    /// A run that begins now, with so many members in each chat.
    pub fn new(run: u32, members: impl Iterator<Item = usize>) -> Rc<Self> {
        let chat = |members: usize| Chat {
            hearers: members as u64 - 1,
            stored: Cell::new(0),
            heard: Cell::new(0),
            open: Cell::new(0),
            moved: Rc::new(Notify::new()),
        };
        Rc::new(Self {
            run,
            began: Instant::now(),
            latency: histogram(),
            acks: histogram(),
            heard: Cell::new(0),
            expected: Cell::new(0),
            twice: Cell::new(0),
            disordered: Cell::new(0),
            stored: Cell::new(0),
            refused: RefCell::new(None),
            closed: Cell::new(0),
            code: Cell::new(0),
            chats: members.map(chat).collect(),
            waiting: RefCell::new(HashMap::new()),
            next: Cell::new(u64::from(run) << 32),
        })
    }

    /// µs since the run began.
    pub fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    /// The same for another moment.
    pub fn at(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.began).as_micros() as u64
    }

    /// Numbers a message that was due at `due`.
    pub fn sending(&self, chat: u32, due: u64) -> u64 {
        let id = self.next.replace(self.next.get() + 1);
        self.waiting.borrow_mut().insert(id, (chat, due));
        let open = &self.chats[chat as usize].open;
        open.set(open.get() + 1);
        id
    }

    /// Waits until fewer than `window` messages of the chat are on their way.
    pub async fn has_room(&self, chat: u32, window: u64) {
        let chat = &self.chats[chat as usize];
        while chat.open.get() >= window {
            chat.moved.notified().await;
        }
    }

    /// A reply says that it is stored; tells in which chat. None for what is of another run.
    pub fn stored(&self, id: u64) -> Option<u32> {
        let (number, due) = self.waiting.borrow_mut().remove(&id)?;
        self.acks.borrow_mut().saturating_record(self.now().saturating_sub(due).max(1));
        let chat = &self.chats[number as usize];
        chat.stored.set(chat.stored.get() + 1);
        self.stored.set(self.stored.get() + 1);
        self.expected.set(self.expected.get() + chat.hearers);
        Some(number)
    }

    /// A reply says that it is not.
    pub fn refuse(&self, id: u64, why: &[u8]) {
        self.waiting.borrow_mut().remove(&id);
        let why = String::from_utf8_lossy(why).into_owned();
        self.refused.borrow_mut().get_or_insert(why);
    }

    /// Somebody hears what was due at `due`.
    pub fn hear(&self, number: u32, due: u64) {
        self.latency.borrow_mut().saturating_record(self.now().saturating_sub(due).max(1));
        self.heard.set(self.heard.get() + 1);
        let Some(chat) = self.chats.get(number as usize) else { return };
        chat.heard.set(chat.heard.get() + 1);
        if chat.heard.get().is_multiple_of(chat.hearers) {
            chat.open.set(chat.open.get().saturating_sub(1));
            chat.moved.notify_waiters();
        }
    }

    /// What has been stored in a chat.
    pub fn stored_in(&self, chat: u32) -> u64 {
        self.chats[chat as usize].stored.get()
    }

    /// Whether every message has its reply, and everybody has heard everything.
    pub fn is_done(&self) -> bool {
        self.waiting.borrow().is_empty() && self.heard.get() >= self.expected.get()
    }

    /// Messages without a reply.
    pub fn unanswered(&self) -> usize {
        self.waiting.borrow().len()
    }

    /// How long the run has gone on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}
