//! Requests to servers that are not ours: push services, webhooks.
//!
//! | module | holds |
//! |---|---|
//! | [`exchange`] | a client that goes nowhere but where it is sent; one request and its answer, within bounds |
//! | [`outcome`] | what became of a request, and a line that says why |
//! | [`breaker`] | circuits: who fails again and again is left alone for a while |
//! | [`signing`] | bodies signed as standardwebhooks.com says |
//! | [`backoff`] | the pause before the next try |

pub mod backoff;
pub mod breaker;
pub mod exchange;
pub mod outcome;
pub mod signing;

pub use exchange::{Alarm, Bounds, Reply};
pub use outcome::{Answer, Outcome};
