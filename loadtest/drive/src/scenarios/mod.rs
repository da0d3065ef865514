//! What the suite does, each on servers of its own.

mod chats;
mod conversation;
mod idle;
mod kept;
mod peer;
mod storms;

use std::{future::Future, pin::Pin, time::Duration};

pub use self::idle::hold;

use anyhow::Result;

use crate::results::Sheet;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Times that each figure is measured.
    pub repeat: usize,
    /// How long each run is.
    pub time: Duration,
    /// By how much crowds and backlogs are smaller than they should be: for a look that all works.
    pub smaller: usize,
}

impl Extent {
    /// How long what lasts so many seconds lasts in this run: for a mere look as long as the rest.
    fn lasts(self, seconds: u64) -> Duration {
        let whole = Duration::from_secs(seconds);
        if self.smaller > 1 { whole.min(self.time) } else { whole }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Sheet>>>>;

/// One of the suite's parts.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Does it.
    pub run: fn(Extent) -> Running,
}

/// All of them, in the order in which they run.
pub const ALL: [Scenario; 14] = [
    Scenario {
        name: "groups",
        about: "groups of 50 over two gateways, at saturation and at 10,000 deliveries/s",
        run: |extent| Box::pin(chats::groups(extent)),
    },
    Scenario {
        name: "hot",
        about: "one chat with 500 connections on one gateway, 500 messages/s",
        run: |extent| Box::pin(chats::hot(extent)),
    },
    Scenario {
        name: "direct",
        about: "one-to-one chats, as fast as it goes",
        run: |extent| Box::pin(chats::direct(extent)),
    },
    Scenario {
        name: "push",
        about: "what a push worker adds to a message",
        run: |extent| Box::pin(chats::push(extent)),
    },
    Scenario {
        name: "latency",
        about: "groups of 10 at 10,000 deliveries/s, beside nats-server's own WebSocket",
        run: |extent| Box::pin(peer::latency(extent)),
    },
    Scenario {
        name: "connections",
        about: "what a delivery costs with 100, 1,000 and 10,000 connections",
        run: |extent| Box::pin(chats::connections(extent)),
    },
    Scenario {
        name: "chats",
        about: "what a delivery costs with 10, 1,000 and 100,000 chats",
        run: |extent| Box::pin(chats::chats(extent)),
    },
    Scenario {
        name: "acks",
        about: "publishes from one gateway to the broker, pipelined",
        run: |extent| Box::pin(kept::acks(extent)),
    },
    Scenario {
        name: "backlog",
        about: "a worker that comes back and finds much to write",
        run: |extent| Box::pin(kept::backlog(extent)),
    },
    Scenario {
        name: "history",
        about: "pages of 50 out of a history of 10,000,000 messages",
        run: |extent| Box::pin(kept::history(extent)),
    },
    Scenario {
        name: "conversation",
        about: "lists of chats, pages and searches among 1,000,000 messages in 10,000 chats",
        run: |extent| Box::pin(conversation::conversation(extent)),
    },
    Scenario {
        name: "storms",
        about: "10,000 connections cut at once, and each at a time of its own, while people talk",
        run: |extent| Box::pin(storms::storms(extent)),
    },
    Scenario {
        name: "idle",
        about: "the memory of an idle connection in 20 chats, over both transports",
        run: |extent| Box::pin(idle::idle(extent)),
    },
    Scenario {
        name: "many",
        about: "40,000 connections held at once",
        run: |extent| Box::pin(idle::many(extent)),
    },
];
