//! The words that Natter's parts and its clients share: ids, what feeds hold,
//! what travels over the wire, and the errors of both. `serde` only, no I/O.
//!
//! - [`ids`]: typed identifiers, and the message id derived from its idempotency key
//! - [`feed`]: which feed an event is on, and the events that feeds and signals carry
//! - [`client`]: what clients send (`wire`: client → server)
//! - [`server`]: what clients receive (`wire`: server → client)
//! - [`rest`]: bodies of REST requests and answers
//! - [`cursor`]: how far a connection has come on all its feeds
//! - [`imported`]: what was brought in from another system, by its old ids
//! - [`error`]: reply codes and close codes
//! - [`limits`]: the bounds on what clients send
//! - [`node`]: what an operator asks of every gateway
//! - [`notify`]: what users want to be notified of, and what became of that
//! - [`place`]: entries of a chat's feed as those see them who are told of them
//! - [`push`]: where a device is notified while it is not connected
//! - [`service`]: what other servers ask for (`/v1/server`)
//! - [`socketio`]: the packets of Engine.IO and Socket.IO
//! - [`timestamp`]: RFC 3339 UTC with milliseconds, the one time format
//! - [`webhook`]: what other people's servers are told of feeds

pub mod client;
pub mod cursor;
pub mod error;
pub mod feed;
pub mod ids;
pub mod imported;
pub mod limits;
pub mod media;
pub mod node;
pub mod notify;
pub mod place;
pub mod push;
pub mod rest;
pub mod server;
pub mod service;
pub mod socketio;
pub mod timestamp;
pub mod webhook;
mod words;
