//! The nodes' logs, shortened, on standard error.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use natter_cluster::{Cluster, Role, progress::say};

/// Between two looks into the files.
const LOOK: Duration = Duration::from_millis(150);

/// Longest line that is shown, in characters.
const WIDTH: usize = 180;

/// Most lines of one node that are shown per look: a busy node would fill the terminal.
const LINES: usize = 12;

/// Most that is read of one log per look, in bytes.
const CHUNK: u64 = 256 * 1024;

/// A log that has grown beyond this is emptied, in bytes: nobody else rotates it.
const FULL: u64 = 64 * 1024 * 1024;

/// Shows logs until it is dropped.
pub(crate) struct Following {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Shows what gateways and workers write from now on. Servers' logs are only kept short.
pub(crate) fn follow(cluster: &Cluster) -> Following {
    let mut logs: Vec<Log> = cluster
        .nodes()
        .map(|node| {
            let shown = matches!(node.role(), Role::Gateway | Role::Persistence | Role::Push);
            Log::at_end(node.name(), node.log().to_owned(), shown)
        })
        .collect();
    let (stop, stopped) = mpsc::channel();
    let thread = thread::spawn(move || {
        loop {
            let last = stopped.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout);
            for log in &mut logs {
                // A log that cannot be read now is tried again at the next look.
                log.show_new().ok();
            }
            if last {
                return;
            }
        }
    });
    Following { stop: Some(stop), thread: Some(thread) }
}

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Log {
    name: String,
    path: PathBuf,
    shown: bool,
    read_to: u64,
    /// The beginning of a line whose end is not there yet.
    begun: Vec<u8>,
}

impl Log {
    fn at_end(name: &str, path: PathBuf, shown: bool) -> Self {
        let read_to = path.metadata().map_or(0, |meta| meta.len());
        Self { name: name.to_owned(), path, shown, read_to, begun: Vec::new() }
    }

    fn show_new(&mut self) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let length = file.metadata()?.len();
        if length < self.read_to {
            self.read_to = 0;
        }
        if length > FULL {
            // Its writer appends, and so goes on at the new end.
            OpenOptions::new().write(true).open(&self.path)?.set_len(0)?;
            self.read_to = 0;
            return Ok(());
        }
        if !self.shown {
            return Ok(());
        }
        file.seek(SeekFrom::Start(self.read_to))?;
        let mut new = std::mem::take(&mut self.begun);
        self.read_to += file.take(CHUNK).read_to_end(&mut new)? as u64;
        let whole = new.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.begun = new.split_off(whole);
        if self.begun.len() as u64 > CHUNK {
            self.begun.clear();
        }
        self.show(&String::from_utf8_lossy(&new));
        Ok(())
    }

    fn show(&self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        for line in lines.iter().take(LINES) {
            let cut: String = line.chars().take(WIDTH).collect();
            let more = if cut.len() < line.len() { " …" } else { "" };
            say(&format!("{:13}│ {cut}{more}", self.name));
        }
        if let Some(hidden) = lines.len().checked_sub(LINES).filter(|hidden| *hidden > 0) {
            let path = self.path.display();
            say(&format!("{:13}│ … {hidden} more lines in {path}", self.name));
        }
    }
}
