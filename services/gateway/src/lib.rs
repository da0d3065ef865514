//! The gateway: terminates sockets and REST, publishes to feeds, fans feeds out.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the settings |
//! | [`app`] | the parts that handlers use |
//! | [`auth`] | who is calling: tokens, devices, passwords |
//! | [`admission`] | letting connections in: paced, and for a while without Postgres |
//! | [`rest`] | `/v1/…`, described by OpenAPI |
//! | [`chats`] | what can be done with chats, over sockets and REST alike |
//! | [`groups`] | groups managed: participants, roles, bans, invites |
//! | [`send`] | messages on their way into the log |
//! | [`edits`] | messages edited, deleted, reacted to, answered |
//! | [`changes`] | the same as the log's tail has it, before it is written |
//! | [`history`] | pages of a chat's messages |
//! | [`reads`] | receipts, and what one wants of a chat for oneself |
//! | [`search`] | messages found by their words, senders, files and mentions |
//! | [`export`] | data handed out whole |
//! | [`media`] | files on their way into the store and out of it |
//! | [`hook`] | the deployment's own check of messages |
//! | [`hub`] | feeds, fanned out to this node's connections |
//! | [`registry`] | who is connected here, and takes part in what |
//! | [`outlet`] | what waits to be written to a connection, and how it is told to end |
//! | [`replay`] | what a connection has missed |
//! | [`operator`] | what an operator asks of all gateways |
//! | [`online`] | which devices are online here, told to the others |
//! | [`socket`] | connections: handshake, session; the WebSocket transport |
//! | [`socketio`] | the transport of Socket.IO's clients |
//! | [`codec`] | how a transport spells what a connection is sent, and sends |
//! | [`measures`] | what is counted and timed |
//! | `queues` | how much waits, and where |
//! | [`reference`] | the documents that describe all this, and the page to read them |
//! | [`page`] | the page at `/` |
//! | [`run`] | a gateway's life: connect, serve, drain |
//! | [`serve`] | TCP connections, bounded in number and patience |
//! | [`room`] | whether the logs take more messages |
//! | [`relay`] | committed changes, put on their feeds |
//! | [`rate`] | token buckets |
//! | [`text`] | what clients write, checked |
//! | [`fault`] | what goes wrong inside, as clients may know it |

pub mod admission;
pub mod app;
pub mod auth;
pub mod changes;
pub mod chats;
pub mod codec;
pub mod config;
pub mod edits;
pub mod export;
pub mod fault;
pub mod groups;
pub mod history;
pub mod hook;
pub mod hub;
pub mod measures;
pub mod media;
pub mod online;
pub mod operator;
pub mod outlet;
pub mod page;
mod queues;
pub mod rate;
pub mod reads;
pub mod reference;
pub mod registry;
pub mod relay;
pub mod replay;
pub mod rest;
pub mod room;
pub mod run;
pub mod search;
pub mod send;
pub mod serve;
pub mod socket;
pub mod socketio;
pub mod text;
pub mod written;

pub use run::run;
