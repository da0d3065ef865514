//! A black-box checker: drives many devices over a cluster's public protocol, and verifies
//! afterwards that nothing was lost, nothing came twice, and everything in order.
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | a run: users, chats, devices, their work, and what is read back in the end |
//! | [`observations`] | what was seen |
//! | [`verify`] | what must hold of it; pure |
//! | [`seeded`] | faults of the observer, to check the checker |
//! | `counts` | what was done, by what came of it |
//! | `client` | REST, and frames |
//! | `device` | one device: it connects, sends, is cut off, resumes |
//! | `asked` | what a device asks for over its socket, and what came of it |
//! | `moves` | joining and leaving |
//! | `shared` | what all devices share: the record of what was asked for, and the chats |

mod asked;
mod client;
mod counts;
mod device;
mod moves;
pub mod observations;
pub mod run;
pub mod seeded;
mod shared;
pub mod verify;

#[cfg(test)]
mod tests;

pub use counts::{Counts, Outcomes};
pub use run::{CheckError, Plan, Report, Run};
pub use seeded::SeededFault;
pub use verify::{Verdict, Violation, verify};
