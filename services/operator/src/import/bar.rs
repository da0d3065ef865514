//! How far it is, on standard error: a bar on a terminal, elsewhere a line now and then.

use std::{
    io::{IsTerminal, Write as _, stderr},
    time::{Duration, Instant},
};

use super::report::grouped;

const FRAME: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);
const WIDTH: u64 = 24;

/// One stage.
pub(crate) struct Bar {
    what: &'static str,
    total: u64,
    done: u64,
    began: Instant,
    /// Done before this run began.
    before: u64,
    shown: Option<Instant>,
    terminal: bool,
}

impl Bar {
    pub(crate) fn new(what: &'static str, total: u64, before: u64) -> Self {
        let terminal = stderr().is_terminal();
        Self { what, total, done: before, began: Instant::now(), before, shown: None, terminal }
    }

    pub(crate) fn forward(&mut self, by: u64) {
        self.done += by;
        let pause = if self.terminal { FRAME } else { LINE };
        let since = self.shown.unwrap_or(self.began).elapsed();
        if since >= pause {
            self.shown = Some(Instant::now());
            self.say(&self.line(), false);
        }
    }

    pub(crate) fn end(self) {
        self.say(&self.line(), true);
    }

    fn line(&self) -> String {
        let taken = self.began.elapsed().as_secs_f64().max(0.001);
        let rate = (self.done - self.before) as f64 / taken;
        let (done, total) = (grouped(self.done), grouped(self.total.max(self.done)));
        let rate = grouped(rate as u64);
        if self.terminal {
            let full = WIDTH * self.done / self.total.max(self.done).max(1);
            let bar: String = (0..WIDTH).map(|n| if n < full { '█' } else { '░' }).collect();
            format!("{:<12} {bar} {done} of {total}, {rate}/s", self.what)
        } else {
            format!("{}: {done} of {total}, {rate} rows/s", self.what)
        }
    }

    /// Nobody may be there to read it.
    fn say(&self, line: &str, last: bool) {
        let mut out = stderr().lock();
        let end = if last || !self.terminal { "\n" } else { "" };
        let begin = if self.terminal { "\r\x1b[K" } else { "" };
        let _ = write!(out, "{begin}{line}{end}").and_then(|()| out.flush());
    }
}
