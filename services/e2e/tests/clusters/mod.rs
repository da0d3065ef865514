//! Stories that want a cluster of their own kind, or stop something of it. They wait for servers most
//! of the time, so they are one program, which tells several beside each other.

mod bad_input;
mod brokers;
mod checker;
mod connections;
mod cut_log;
mod cut_off;
mod drain;
mod edits;
mod epochs;
mod erasure;
mod faults;
mod full_log;
mod idempotence;
mod logs;
mod media;
mod metrics;
mod protocol;
mod restore;
mod retention;
mod settings;
mod tls;
mod traces;
mod upgrade;
