//! The launcher: what it starts, stops, and leaves behind.

mod brokers;
mod cluster;
mod servers;
mod support;
mod up;
