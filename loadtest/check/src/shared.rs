//! What all devices of a run share: the record of what was asked for, and the chats.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use natter_protocol::ids::{ChatId, UserId};

use crate::{
    counts::{Counts, Tally},
    observations::{Attempt, Kind, Operation, Outcome, Told},
};

/// See the module.
pub struct Shared {
    began: Instant,
    pub tally: Tally,
    connections: AtomicU64,
    attempts: Mutex<Vec<Attempt>>,
    operations: Mutex<Vec<Operation>>,
    chats: Mutex<Vec<Known>>,
}

/// A chat as the run knows it.
pub struct Known {
    pub id: ChatId,
    pub open: bool,
    pub members: Vec<UserId>,
}

impl Shared {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            tally: Tally::default(),
            connections: AtomicU64::default(),
            attempts: Mutex::default(),
            operations: Mutex::default(),
            chats: Mutex::default(),
        }
    }

    /// Microseconds of the run.
    pub fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The number of a new connection.
    pub fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Records an attempt before it is made, so that none is forgotten whose answer never comes;
    /// tells its place in the record.
    pub fn attempt(&self, attempt: Attempt) -> usize {
        push(&self.attempts, attempt)
    }

    /// What came of an attempt.
    pub fn settle(&self, place: usize, outcome: Outcome) {
        lock(&self.attempts)[place].outcome = outcome;
    }

    /// Records an operation before it is begun; tells its place in the record.
    pub fn operation(&self, kind: Kind, user: UserId, chat: Option<ChatId>) -> usize {
        let (invoked, told) = (self.now(), Told::Unknown);
        push(&self.operations, Operation { kind, user, chat, invoked, told })
    }

    /// What came of an operation.
    pub fn told(&self, place: usize, told: Told) {
        lock(&self.operations)[place].told = told;
    }

    pub fn chats(&self) -> MutexGuard<'_, Vec<Known>> {
        lock(&self.chats)
    }

    pub fn counts(&self) -> Counts {
        Counts::of(&lock(&self.attempts), &lock(&self.operations), &self.tally)
    }

    /// Everything that was asked for.
    pub fn recorded(&self) -> (Vec<Attempt>, Vec<Operation>) {
        (lock(&self.attempts).clone(), lock(&self.operations).clone())
    }
}

fn push<T>(record: &Mutex<Vec<T>>, one: T) -> usize {
    let mut record = lock(record);
    record.push(one);
    record.len() - 1
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
