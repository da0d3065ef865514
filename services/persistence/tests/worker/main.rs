//! The worker against real servers.

mod epochs;
mod failover;
mod support;
mod writing;
