//! `cargo up` as a person and a script see it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use support::{SOON, is_alive, soon};
use tempfile::TempDir;

mod support;

const ROLES: [&str; 6] = ["gateway", "gateway", "persistence", "postgres", "redis", "nats"];

#[test]
fn it_runs_once_at_a_time_and_goes_on_with_its_data() -> Result<()> {
    let dir = passable_dir()?;
    let mut first = Up::start(dir.path())?;
    let roles: Vec<&str> = first.processes.iter().map(|p| p.role.as_str()).collect();
    assert_eq!(roles, ROLES);
    for process in &first.processes {
        ensure!(is_alive(process.pid), "{} is away", process.role);
        TcpStream::connect(process.address)?;
    }

    let second = up(dir.path(), free_ports()?).output()?;
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    let holder = format!("process {}", first.child.id());
    assert!(said.contains("already") && said.contains(&holder), "{said}");

    let taken = first.processes[0].address.port();
    let elsewhere = tempfile::tempdir()?;
    let third = up(elsewhere.path(), taken).output()?;
    assert_eq!(third.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&third.stderr).contains(&taken.to_string()));

    let secret = fs::read(dir.path().join("data/jwt-secret"))?;
    assert!(first.stop(Signal::SIGINT)?.success());
    for process in &first.processes {
        ensure!(!is_alive(process.pid), "{} is left", process.role);
    }

    let mut again = Up::start(dir.path())?;
    assert_eq!(fs::read(dir.path().join("data/jwt-secret"))?, secret);
    assert!(again.stop(Signal::SIGTERM)?.success());
    Ok(())
}

#[test]
fn a_killed_node_comes_back_and_a_killed_launcher_leaves_nothing() -> Result<()> {
    let dir = passable_dir()?;
    let mut up = Up::start(dir.path())?;
    let gateway = &up.processes[0];
    kill(Pid::from_raw(gateway.pid.cast_signed()), Signal::SIGKILL)?;
    soon("the gateway is gone", || !is_alive(gateway.pid))?;
    soon("the gateway is back", || TcpStream::connect(gateway.address).is_ok())?;

    up.child.kill()?;
    up.child.wait()?;
    for process in &up.processes {
        soon(&process.role, || !is_alive(process.pid))?;
    }
    soon("the gateway's successor is gone", || TcpStream::connect(gateway.address).is_err())?;
    // The next one finds everything in order.
    assert!(Up::start(dir.path())?.stop(Signal::SIGINT)?.success());
    Ok(())
}

#[test]
fn the_lines_it_prints_work_as_they_stand() -> Result<()> {
    if Command::new("curl").arg("--version").output().is_err() {
        // They are for people who have it.
        return Ok(());
    }
    let dir = passable_dir()?;
    let mut up = Up::start(dir.path())?;
    soon("the welcome is printed", || up.said().contains("Data and logs"))?;
    let said = up.said();
    let line = |start: &str| {
        let found = said.lines().find(|line| line.trim().starts_with(start));
        found.with_context(|| format!("no line `{start}` in:\n{said}"))
    };
    let (register, socket, list) = (line("TOKEN=")?, line("echo")?, line("curl")?);
    // Only the alias is replaced: here, cargo would build once more.
    let socket = socket.replace("cargo up", env!("CARGO_BIN_EXE_natter-cluster"));
    let output = run(&format!("{register}\n{socket}\n{list}"))?;
    let mut frames = output.lines();
    let token = frames.next().context("no token")?;
    assert_eq!(token.split('.').count(), 3, "{output}");
    assert!(output.contains(r#""event":"ready""#), "{output}");
    assert!(output.contains(r#""reply":1"#), "{output}");
    let listed = output.lines().last().context("nothing listed")?;
    assert!(listed.contains(r#""title":"Hello""#), "{output}");
    assert!(up.stop(Signal::SIGINT)?.success());
    Ok(())
}

#[derive(Deserialize)]
struct Processes {
    processes: Vec<Process>,
}

#[derive(Deserialize)]
struct Process {
    role: String,
    pid: u32,
    address: SocketAddr,
}

/// A running `cargo up`.
struct Up {
    child: Child,
    stderr: PathBuf,
    processes: Vec<Process>,
}

impl Up {
    fn start(dir: &Path) -> Result<Self> {
        let stderr = dir.join("stderr");
        let mut child = up(dir, free_ports()?)
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&stderr)?)
            .spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().context("no output")?);
        stdout.read_line(&mut line)?;
        let said = || fs::read_to_string(&stderr).unwrap_or_default();
        let Processes { processes } =
            serde_json::from_str(&line).with_context(|| format!("`{line}`: {}", said()))?;
        Ok(Self { child, stderr, processes })
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)?;
        let start = Instant::now();
        while start.elapsed() < SOON {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("it does not stop: {}", self.said())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // After a failed test; its children see it go.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Postgres may run as another user, who must get through.
fn passable_dir() -> Result<TempDir> {
    let open = fs::Permissions::from_mode(0o755);
    let mut builder = tempfile::Builder::new();
    Ok(builder.permissions(open).tempdir_in("/var/tmp")?)
}

fn up(dir: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_natter-cluster"));
    command
        .args(["--json", "--port", &port.to_string(), "--data"])
        .arg(dir.join("data"))
        .stdin(Stdio::null());
    command
}

fn run(script: &str) -> Result<String> {
    let Output { status, stdout, stderr } = Command::new("sh").args(["-c", script]).output()?;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    ensure!(status.success(), "{script}\n{status}: {stdout}{stderr}");
    Ok(stdout)
}

/// The first of two free neighbours, below the ephemeral ports and above the clusters' own.
fn free_ports() -> Result<u16> {
    let mut seed = [0; 2];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let start = u16::from_le_bytes(seed) % 600;
    (0..600)
        .map(|step| 32_000 + (start + step) % 600)
        .find(|port| {
            [*port, port + 1].map(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
                == [true; 2]
        })
        .context("no free ports")
}
