//! Beats at exact times: tokio's own timer knows whole milliseconds only, and a message that is
//! sent half of one late would be reported as delivered so late.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::sync::mpsc::{Receiver, channel};

/// Beats that may wait for being taken. A driver that falls further behind is told nothing more
/// until it has caught up; the beats come all the same, each with the time when it was due.
const BEHIND: usize = 1024;

/// Beats every so often, on a thread of its own.
#[derive(Debug)]
pub struct Metronome {
    beats: Receiver<Instant>,
}

impl Metronome {
    /// The first beat is one `period` from now.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn new(period: Duration) -> Result<Self> {
        let (beat, beats) = channel(BEHIND);
        let mut due = Instant::now();
        let run = move || {
            loop {
                due += period;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if beat.blocking_send(due).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("metronome".to_owned()).spawn(run)?;
        Ok(Self { beats })
    }

    /// Waits for the next beat; tells when it was due. Beats that nobody waited for come at once.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn beat(&mut self) -> Result<Instant> {
        self.beats.recv().await.context("the metronome has stopped")
    }
}
