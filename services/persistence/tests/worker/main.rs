//! The worker against real servers.

mod binary;
mod epochs;
mod failover;
mod support;
mod sweeping;
mod writing;
