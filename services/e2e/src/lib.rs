//! Stories told through sockets, against a real cluster.
//!
//! The stories are in `tests/`, a file a theme; here is what they are told with:
//!
//! | module | holds |
//! |---|---|
//! | [`stage`] | the clusters that stories share, each alone or among others |
//! | [`person`] | somebody with an account, and their devices |
//! | [`api`] | REST as one device uses it |
//! | [`socket`] | one WebSocket connection: requests |
//! | [`engine`] | Engine.IO sessions, request by request and frame by frame |
//! | [`peers`] | official Socket.IO clients, many in one process |
//! | [`balancer`] | one address for all gateways, without sticky sessions |
//! | [`cloud`] | a store of files as clouds have them |
//! | [`heard`] | waiting for what comes on a connection |
//! | [`product`] | the servers of a product that Natter is embedded in |
//! | [`censor`] | a deployment's own check of messages |
//! | [`push_services`] | the push services that devices are notified by |
//! | [`record`] | everything that a connection received, in order, and whether its feeds are whole |
//! | [`metrics`] | what a node counts of itself |
//! | [`nemesis`] | faults by a seed, while the checker watches: also a command of its own |
//! | [`crowd`] | many people at once, for the benches |
//! | [`lossy`] | a way to the broker on which republished events get lost |
//! | [`usage`] | what a server's process uses |
//! | [`tokens`] | tokens that no gateway gave out: an outside issuer's, and forged ones |
//! | [`soon`] | waiting for a thing itself instead of a while |
//!
//! No story lets time pass and hopes that something has happened by then: it waits for the thing
//! itself, looking again and again up to a bound. That something did *not* arrive is shown by a
//! marker: an event that is certain to arrive later on the same path. Only the nemesis and the
//! benches, which are no stories, let faults and measurements last.

pub mod api;
pub mod balancer;
pub mod censor;
pub mod cloud;
pub mod crowd;
pub mod engine;
pub mod heard;
pub mod lossy;
pub mod metrics;
pub mod nemesis;
pub mod peers;
pub mod person;
pub mod product;
pub mod push_services;
pub mod record;
pub mod socket;
pub mod soon;
pub mod stage;
pub mod tokens;
pub mod usage;

pub use api::{Answer, Api};
pub use balancer::Balancer;
pub use engine::Engine;
pub use heard::Heard;
pub use lossy::Lossy;
pub use peers::{Mode, Peer, Peers};
pub use person::{Device, Person};
pub use product::Product;
pub use push_services::PushServices;
pub use socket::{Presenting, Socket};
pub use soon::soon;
pub use stage::{Stage, Stages};
