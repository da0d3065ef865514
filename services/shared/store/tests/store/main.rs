//! The store against a real Postgres: each test has a database of its own.
#![expect(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod away;
mod blocks;
mod chats;
mod deletion;
mod edits;
mod history;
mod invites;
mod managed;
mod media;
mod outbox;
mod persist;
mod plans;
mod push;
mod reads;
mod retention;
mod roles;
mod schema;
mod search;
mod sessions;
mod support;
mod unread;
mod webhooks;
