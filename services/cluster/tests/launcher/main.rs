//! The launcher, told as one program: some of it waits for processes that others do not.

mod brokers;
mod cluster;
mod servers;
mod support;
mod up;
