//! What is said on standard error while slow things happen.

use std::{
    io::{IsTerminal, Write, stderr},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

const FRAME: Duration = Duration::from_millis(120);
const FRAMES: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

/// Steps shorter than this are not worth a duration.
const SHORT: Duration = Duration::from_millis(500);

/// How much is said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Progress {
    /// Only what changes the machine: installing.
    Quiet,
    /// A line for every step.
    Lines,
    /// A line for every step, alive while the step runs.
    Terminal,
}

impl Progress {
    /// As much as standard error is good for.
    pub fn detect() -> Self {
        if stderr().is_terminal() { Self::Terminal } else { Self::Lines }
    }

    /// A step that ends when what is returned is dropped.
    pub fn step(self, what: &str) -> Step {
        match self {
            Self::Quiet => Step::silent(),
            Self::Lines => {
                say(&format!("{what} …"));
                Step::silent()
            }
            Self::Terminal => Step::spinning(what),
        }
    }

    /// A line of its own, said at every level but [`Progress::Quiet`].
    pub fn note(self, what: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines => say(what),
            // A step may be under way on this line; it draws itself anew below.
            Self::Terminal => say(&format!("\r\x1b[K{what}")),
        }
    }
}

/// Writes a line to standard error itself: `eprintln!` would vanish in a test's captured output.
pub fn say(line: &str) {
    writeln!(stderr().lock(), "{line}").ok();
}

/// A step under way.
#[derive(Debug)]
pub struct Step {
    spinner: Option<(mpsc::Sender<()>, thread::JoinHandle<()>)>,
}

impl Step {
    fn silent() -> Self {
        Self { spinner: None }
    }

    fn spinning(what: &str) -> Self {
        let what = what.to_owned();
        let (done, ended) = mpsc::channel();
        let spin = move || {
            let start = Instant::now();
            for frame in FRAMES.iter().cycle() {
                let seconds = start.elapsed().as_secs();
                write!(stderr().lock(), "\r\x1b[K{frame} {what} {seconds} s").ok();
                stderr().flush().ok();
                if ended.recv_timeout(FRAME) != Err(RecvTimeoutError::Timeout) {
                    break;
                }
            }
            let taken = match start.elapsed() {
                short if short < SHORT => String::new(),
                long => format!(" ({:.1} s)", long.as_secs_f32()),
            };
            write!(stderr().lock(), "\r\x1b[K").ok();
            say(&format!("· {what}{taken}"));
        };
        Self { spinner: Some((done, thread::spawn(spin))) }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some((done, spinner)) = self.spinner.take() {
            drop(done);
            spinner.join().ok();
        }
    }
}
