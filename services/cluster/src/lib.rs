//! A whole Natter on this machine: real PostgreSQL, Redis and NATS, and N nodes, as child
//! processes. `cargo up` runs it for a person; tests start the same, with data thrown away.
//!
//! | module | holds |
//! |---|---|
//! | [`cluster`] | [`Cluster`]: servers and nodes started, and stopped, in order |
//! | [`node`] | [`Node`]: one process of it that can be killed, paused and started again |
//! | [`testing`] | the servers that the tests of one process share |
//! | [`turns`] | how many tests are at work at once |
//! | [`binaries`] | the node binaries, built before they are run |
//! | [`install`] | PostgreSQL, Redis and nats-server, and what tests need: found, or installed |
//! | [`tools`] | programs that build or install, ended when we are told to stop |
//! | [`progress`] | what is said while slow things happen |
//! | `postgres`, `redis`, `nats`, `mariadb` | how a server of each kind is run |
//! | `process` | one child process that cannot outlive us, even when we are killed by `SIGKILL` |
//! | `throwaway` | a directory that goes when we do |
//! | [`secured`] | servers that speak TLS and want to know who comes |
//! | `ports`, `secret` | loopback ports of one's own; passwords made once |

pub mod binaries;
pub mod cluster;
pub mod install;
pub mod node;
pub mod progress;
pub mod secured;
pub mod testing;
pub mod tools;
pub mod turns;

mod mariadb;
mod nats;
mod ports;
mod postgres;
mod process;
mod redis;
mod secret;
mod throwaway;

pub use cluster::{Builder, Cluster};
pub use node::{Node, Role};
pub use secured::Secured;
