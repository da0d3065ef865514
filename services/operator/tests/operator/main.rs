//! The built `natter`, one program of tests: they wait for servers most of the time.

mod commands;
mod import;
