//! Webhooks: other people's servers are told of what happens.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the settings |
//! | [`worker`] | a worker's share: endpoints and shards |
//! | `filling` | a shard's stream of events, filled from its log |
//! | `lane` | one endpoint told of one shard's events |
//! | [`book`] | what a lane has in hand: which event may be told next, and up to where all is told |
//! | `target` | an endpoint: what it wants, and one signed request |
//! | `letters` | dead letters told of after all |
//! | `measures` | what is counted and timed |
//!
//! # From an entry to an endpoint
//!
//! A log is cut as soon as Postgres has it, and Postgres keeps what came of entries and not these themselves
//! (an edit writes over its message). So one worker a shard copies from the log what anybody may be told of
//! into a stream of its own, `HOOKS_<shard>`, bounded by age and bytes: the oldest go first. Nothing is
//! copied while there is no endpoint. The stream has the log's order, and holds each entry once, since whoever
//! fills it names the place that comes next; what each endpoint wants of it is decided when it is told.
//!
//! A **lane** is an endpoint and a shard. One worker at a time owns it, by a lease in Postgres, and workers
//! share lanes evenly; endpoints, and an endpoint's shards, share nothing but the endpoint's places and its
//! circuit. So one that hangs holds up nobody: neither other endpoints, nor push, which runs in the same
//! process on tasks and queues of its own, nor the log.
//!
//! | what happens | what follows |
//! |---|---|
//! | the endpoint answers 2xx | the feed's next event is told |
//! | it fails: any other answer, a redirect, none in time, no connection | the feed falls behind: its events are told one by one, later and later, and other feeds go on |
//! | it says `Retry-After` | all of it is left alone for so long |
//! | it fails many times in a row | its circuit opens: it is left alone, then tried with one event |
//! | an event has failed too often, or for too long | it is a dead letter, which names its place in the stream; its feed goes on with the next |
//! | the endpoint answers 410 | it is disabled |
//! | it is away for so long that the stream has dropped what it was not told | it goes on with what there is, and what is lost is counted, with the lane and in the metrics |
//!
//! What is not copied yet when a log is made anew its owner copies, since the new one holds only what is not
//! written. What is gone before anybody could copy it is counted for every endpoint.
//!
//! What happens when a worker dies, or stands still for too long: the place up to which all is dealt with is
//! written a few times a second, in one transaction with the feeds that are behind and the dead letters.
//! Whoever owns the lane next goes on from there, and tells again what was told since, in the same order and
//! under the same `webhook-id`. One that wakes writes nothing, since the row names another owner; what it
//! still tells are events whose earlier ones have been told.
//!
//! Whoever finds another place in the row than it has written last, since Postgres was put back from a backup,
//! begins anew from what the row says: of the feeds that are behind and of the dead letters Postgres has only
//! what it had then.
//!
//! A stream that is lost is filled anew from what the log still has, far beyond the places given before; one
//! that has lost its end is filled again from there, perhaps with other events than before, where the log has
//! lost its own as well. Lanes know by the log's places, which are given once, what they have told.

pub mod book;
pub mod config;
mod filling;
mod lane;
mod letters;
mod measures;
mod target;
pub mod worker;

pub use config::{WebhooksArgs, WebhooksConfig};
pub use worker::run;
