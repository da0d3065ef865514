//! The store against a real Postgres: each test has a database of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod away;
mod chats;
mod history;
mod media;
mod outbox;
mod persist;
mod plans;
mod search;
mod sessions;
mod support;
