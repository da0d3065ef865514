//! One child process that cannot outlive us.
//!
//! A child is started through a few lines of shell. They leave a watcher behind, hold on to a
//! pipe whose other end is ours, and become the server by `exec` (so the child's pid is the
//! server's). When we end, however we end, the kernel closes our end; the watcher wakes, sees
//! that its parent still is that server (so no stranger with a reused pid is hit), and ends it.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read, Seek, SeekFrom},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

/// Between two looks at whether a child has ended.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// How long a dropped child may take over ending before it is killed.
const DROPPED: Duration = Duration::from_secs(10);

/// How much of a log's end goes into an error.
const TAIL: u64 = 3_000;

/// `$1` is the signal that ends the server, the rest its command. The pipe is moved to
/// descriptor 3 first: a shell gives what runs in the background an empty stdin. A paused server
/// is woken, with its children, since it could not end otherwise; one that does not end in 10 s is killed. Signals
/// to the process group are ignored: the kernel itself sends `SIGHUP` to one that is orphaned
/// while a member is paused.
const WATCHED: &str = r#"
exec 3<&0 </dev/null
(
  trap '' HUP INT QUIT TERM
  cat <&3 >/dev/null
  exec 3<&-
  ours() { read -r _ _ _ parent _ </proc/self/stat && [ "$parent" = "$$" ]; }
  wake() {
    kill -s CONT "$$"
    for stat in /proc/[0-9]*/stat; do
      read -r pid _ _ parent _ <"$stat" && [ "$parent" = "$$" ] && kill -s CONT "$pid"
    done
  }
  ours && kill -s "$1" "$$" && wake
  n=0
  while ours && [ "$n" -lt 100 ]; do sleep 0.1; n=$((n + 1)); done
  ours && kill -s KILL "$$"
) >/dev/null 2>&1 &
shift
exec "$@" 3<&-
"#;

/// A user that a child runs as instead of us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Everything that starts one process, as often as wanted.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) account: Option<Account>,
    /// Standard output and error are appended here.
    pub(crate) log: PathBuf,
    /// Names the process while it runs: pid and start time, see [`wait_for_strays`].
    pub(crate) pid_file: PathBuf,
    /// What ends it in good order.
    pub(crate) stop_signal: Signal,
    /// What ends it fast, when nobody wants its data any more.
    pub(crate) abort_signal: Signal,
}

impl Launch {
    /// A command with the defaults of a plain program: ends on `SIGTERM`, runs as we do.
    pub(crate) fn new(program: &Path, name: &str, dir: &Path) -> Self {
        Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            account: None,
            log: dir.join("logs").join(format!("{name}.log")),
            pid_file: dir.join("run").join(format!("{name}.pid")),
            stop_signal: Signal::SIGTERM,
            abort_signal: Signal::SIGKILL,
        }
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts the process; it is not ready yet when this returns.
    pub(crate) fn spawn(&self) -> Result<Process> {
        let log = self.open_log()?;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", WATCHED, "sh", signal_name(self.stop_signal)])
            .arg(&self.program)
            .args(&self.args)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().context("cannot share a log")?)
            .stderr(log)
            // A terminal's Ctrl-C must reach the launcher alone, which then stops all in order.
            .process_group(0);
        // Only what the cluster says configures a node, not what happens to be exported here.
        for (key, _) in env::vars_os() {
            if key.to_string_lossy().starts_with("NATTER_") {
                command.env_remove(key);
            }
        }
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(account) = self.account {
            command.gid(account.gid).uid(account.uid);
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let lifeline = child.stdin.take();
        let process = Process {
            child,
            lifeline,
            ended: None,
            abort_signal: self.abort_signal,
            pid_file: self.pid_file.clone(),
        };
        process.write_pid_file()?;
        Ok(process)
    }

    fn open_log(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))
    }

    /// Where the log ends now: what is said later comes after.
    pub(crate) fn log_end(&self) -> u64 {
        fs::metadata(&self.log).map_or(0, |meta| meta.len())
    }

    /// The last lines of the log that were written after `from`.
    pub(crate) fn log_tail(&self, from: u64) -> String {
        let read = || {
            let mut file = File::open(&self.log)?;
            let end = file.seek(SeekFrom::End(0))?;
            file.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL))))?;
            let mut tail = Vec::new();
            file.take(TAIL).read_to_end(&mut tail)?;
            Ok::<_, std::io::Error>(String::from_utf8_lossy(&tail).trim().to_owned())
        };
        read().unwrap_or_default()
    }
}

/// How long a process may take to stop: a thread that waits for its disk does not before.
const STOPPED: Duration = Duration::from_secs(5);

/// The parent of a process, by what stands behind its name, which may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether all threads of a process are stopped, or it has ended.
fn stands_still(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut states = threads.filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        stat.rsplit(')').next()?.split_ascii_whitespace().next().map(str::to_owned)
    });
    states.all(|state| matches!(state.as_str(), "T" | "Z" | "X"))
}

fn signal_name(signal: Signal) -> &'static str {
    signal.as_str().trim_start_matches("SIG")
}

/// A process that runs, or has ended and was not asked about since. Dropping ends it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Our end of the watcher's pipe. Apart from `child`, which would close it in its `wait`.
    lifeline: Option<ChildStdin>,
    ended: Option<ExitStatus>,
    abort_signal: Signal,
    pid_file: PathBuf,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it where it stands, and then its own children: a Postgres is many processes. When this
    /// returns none of them does anything any more: on a busy machine a thread could still answer a
    /// request long after the signal was sent.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        let children = self.signal_children(Signal::SIGSTOP);
        let deadline = Instant::now() + STOPPED;
        for pid in children.into_iter().chain([self.child.id()]) {
            while !stands_still(pid) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    /// Lets it go on after [`Process::pause`].
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.signal_children(Signal::SIGCONT);
        self.signal(Signal::SIGCONT)
    }

    /// Those of the same program: the watcher is none of them. One that has just ended is no error.
    /// Gives those that were there.
    fn signal_children(&self, signal: Signal) -> Vec<u32> {
        let parent = self.child.id();
        let program = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).ok();
        let Some(own) = program(parent) else { return Vec::new() };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let children: Vec<u32> = pids
            .filter(|pid| parent_of(*pid) == Some(parent) && program(*pid).as_ref() == Some(&own))
            .collect();
        for pid in &children {
            signal::kill(Pid::from_raw(pid.cast_signed()), signal).ok();
        }
        children
    }

    /// Does nothing to a process that has ended: its pid is only reused once we have asked.
    fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.exited()?.is_some() {
            return Ok(());
        }
        signal::kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.child.id()))
    }

    /// The exit status, once it has ended.
    pub(crate) fn exited(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("cannot wait for a child")?;
            if self.ended.is_some() {
                // The watcher has nothing left to watch and goes too.
                self.lifeline = None;
                fs::remove_file(&self.pid_file).ok();
            }
        }
        Ok(self.ended)
    }

    /// Waits for the end, or until `limit` has passed.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let exited = self.exited()?;
            if exited.is_some() || Instant::now() >= deadline {
                return Ok(exited);
            }
            thread::sleep(POLL);
        }
    }

    /// Sends what shall end it, and wakes it if it is paused: it could not end otherwise. Its
    /// children first: once it has ended nobody knows whose they were.
    pub(crate) fn ask_to_end(&mut self, signal: Signal) -> Result<()> {
        if signal == Signal::SIGKILL {
            self.signal_children(Signal::SIGCONT);
        }
        self.signal(signal)?;
        self.resume()
    }

    fn end(&mut self) -> Result<()> {
        self.ask_to_end(self.abort_signal)?;
        if self.wait(DROPPED)?.is_none() {
            self.signal(Signal::SIGKILL)?;
            self.wait(DROPPED)?;
        }
        Ok(())
    }

    fn write_pid_file(&self) -> Result<()> {
        let pid = self.child.id();
        let Some(started) = start_time(pid) else {
            return Ok(());
        };
        fs::write(&self.pid_file, format!("{pid} {started}\n"))
            .with_context(|| format!("cannot write {}", self.pid_file.display()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to tell; the watcher gets a last try when the lifeline closes.
        self.end().ok();
    }
}

/// When a process started, in clock ticks since boot: with the pid, its identity.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, also spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

/// Waits until no process of an earlier run on the same data is left: the watchers end them,
/// but not before the next run may start, and two servers on the same files destroy them.
pub(crate) fn wait_for_strays(run_dir: &Path, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit;
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context("cannot list processes of the last run"),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let known = fs::read_to_string(&path).unwrap_or_default();
        let Some((pid, started)) = known.trim().split_once(' ') else {
            continue;
        };
        let Ok(pid) = pid.parse::<u32>() else {
            continue;
        };
        while start_time(pid).as_deref() == Some(started) {
            if Instant::now() >= deadline {
                bail!("process {pid} of an earlier run on the same data does not end: stop it");
            }
            thread::sleep(POLL);
        }
        fs::remove_file(path).ok();
    }
    Ok(())
}
