//! Every stream, subject and header, and the only code that talks to NATS.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | where NATS is, and who connects: [`NatsArgs`], [`BusConfig`] |
//! | `access` | what a connection shows of itself and checks of the server: logins, TLS |
//! | [`subjects`] | names of subjects, streams and headers |
//! | [`client`] | [`Bus`]: the connection |
//! | [`publish`] | entries into the log, pipelined, in order |
//! | [`read`] | a feed's entries, one entry, the heads of feeds |
//! | [`follow`] | feeds live, in order and without a hole: what gets lost is found and read |
//! | [`log_reader`] | a whole shard in order, for its owner |
//! | [`intake`] | durable consumers that workers share |
//! | [`push`] | what is to be notified of, and the queue of notifications |
//! | [`hooks`] | what other people's servers are to be told of |
//! | [`streams`] | the streams: made, looked at, cut off |
//! | [`signals`] | what may be lost: signals and digests |
//! | [`nodes`] | what one node asks of another |
//! | [`kept`] | what goes over from a log into the one that takes its place |
//! | [`dead_letter`] | what the log holds and Postgres cannot take |
//! | [`inspection`] | how the streams and the server are, for an operator |

mod access;
pub mod client;
pub mod config;
pub mod dead_letter;
mod error;
pub mod follow;
pub mod hooks;
pub mod inspection;
pub mod intake;
pub mod kept;
pub mod log_reader;
mod measures;
pub mod nodes;
pub mod publish;
pub mod push;
pub mod read;
pub mod signals;
mod stored;
pub mod streams;
pub mod subjects;

pub use client::Bus;
pub use config::{BusConfig, NatsArgs};
pub use dead_letter::DeadLetter;
pub use error::BusError;
pub use hooks::{Filled, HookError, HookReader, Hooked, HooksConfig, HooksState};
pub use inspection::LogReport;
pub use intake::{Backlog, Handed, Intake, IntakeConfig};
pub use kept::{Kept, KeptReader};
pub use log_reader::LogReader;
pub use publish::{PublishError, Published, Publishing};
pub use push::{QueueConfig, Queued};
pub use stored::{Raw, Stored};
pub use streams::{CLOSED_FOR, LOOK_COUNTS, Live, LiveWatch, LogConfig, LogState};
