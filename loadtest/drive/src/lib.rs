//! Drives a cluster of its own to its limits, cheaply enough to share a machine with it.
//!
//! | module | holds |
//! |---|---|
//! | [`scenarios`] | what is measured |
//! | [`world`] | a cluster, people in chats, and what they say |
//! | [`line`] | one person's connection |
//! | [`board`] | what all have sent and heard in a run |
//! | [`frame`], [`wire`] | WebSocket frames, and the little of what they carry that matters here |
//! | [`metronome`] | exact times to send at |
//! | [`used`] | CPU and memory of processes |
//! | [`figures`], [`results`], [`report`] | a run, the figures of many, and how they are shown |

pub mod board;
pub mod figures;
pub mod frame;
pub mod line;
pub mod metronome;
pub mod report;
pub mod results;
pub mod scenarios;
pub mod used;
pub mod wire;
pub mod world;
