//! The worker against real servers.

mod away;
mod backup;
mod binary;
mod epochs;
mod failover;
mod support;
mod sweeping;
mod untold;
mod writing;
