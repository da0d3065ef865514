//! What the tests of this crate share.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

pub mod jetstream;

/// Bound of every wait: far beyond what anything takes, also on a busy machine.
pub const SOON: Duration = Duration::from_mins(1);

/// Waits until it is so.
pub fn soon(what: &str, done: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !done() {
        if start.elapsed() > SOON {
            bail!("not within {SOON:?}: {what}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// A zombie is not alive; those of a killed parent are `init`'s to wait for.
pub fn is_alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").starts_with(" Z"))
}
