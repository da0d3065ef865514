//! Who is online and who types: what may be lost, kept in Redis with a time to live on
//! everything. The only user of `redis`.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | [`PresenceClient`], its connection; fail-fast while Redis is away |
//! | [`config`] | [`PresenceConfig`]: where Redis is, how long things live |
//! | `circuit` | when to refuse without touching the network |
//! | `node` | a node's liveness: its heartbeat |
//! | `online` | devices and users: online, last seen |
//! | `kept` | what lets a device in while Postgres is away |
//! | `typing` | who types in a chat |
//! | `inspection` | what an operator looks up |
//!
//! | key | value | lives |
//! |---|---|---|
//! | `node:<node>.<life>` | `1` | 10 s, beaten every 3 s |
//! | `online:<user>` | zset of `device|node.life` by expiry in ms | 120 s, refreshed |
//! | `last_seen:<user>` | ms since 1970 | 30 days |
//! | `admission:<user>|<device>` | a gateway's JSON | as the gateway says: 1 h, refreshed |
//! | `typing:<chat>` | zset of `user|device` by expiry in ms | as its latest entry |
//!
//! **A device is online while its entry has not expired and its node's key lives.** So a node
//! that is killed takes its devices offline within 10 s, without anybody cleaning up. `life`
//! is new with every start of a process: the same node started again does not bring back the
//! devices it had before.
//!
//! Every decision is one Lua script on Redis' own clock: two nodes that connect and disconnect
//! devices of one user at once agree who was first and last, and the nodes' clocks don't
//! matter. The scripts build the nodes' key names themselves, so this wants one Redis primary
//! (with replicas if you like), not a Redis Cluster.
//!
//! Every call may fail, soon, and callers go on without the answer: see [`PresenceError`].

pub mod client;
pub mod config;

mod circuit;
mod error;
mod inspection;
mod kept;
mod node;
mod online;
mod typing;

pub use client::PresenceClient;
pub use config::{PresenceConfig, RedisArgs};
pub use error::PresenceError;
pub use node::Heartbeat;
pub use online::REFRESH_EVERY;
pub use typing::Typist;
