//! `cargo up` as a person and a script see it.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::{self, ffi::OsStrExt, fs::PermissionsExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Deserialize;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{SOON, is_alive, soon};

const ROLES: [&str; 7] = ["gateway", "gateway", "persistence", "push", "postgres", "redis", "nats"];

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

    let gateway = first.processes[0].address;
    let account = r#""email":"ana@example.org","password":"correct horse""#;
    let (status, said) = post(gateway, "register", &format!(r#"{{"name":"Ana",{account}}}"#))?;
    assert_eq!(status, 201, "{said}");
    let secret = fs::read(dir.path().join("data/jwt-secret"))?;
    assert!(first.stop(Signal::SIGINT)?.success());
    for process in &first.processes {
        ensure!(!is_alive(process.pid), "{} is left", process.role);
    }

    let mut again = Up::start(dir.path())?;
    assert_eq!(fs::read(dir.path().join("data/jwt-secret"))?, secret);
    let (status, said) = post(again.processes[0].address, "login", &format!("{{{account}}}"))?;
    assert_eq!(status, 200, "who registered before is known: {said}");
    assert!(again.stop(Signal::SIGTERM)?.success());
    Ok(())
}

#[test]
fn as_many_gateways_run_as_are_asked_for() -> Result<()> {
    let dir = passable_dir()?;
    let mut command = up(dir.path(), free_ports()?);
    // Nor does it stumble over what others export.
    let no_unicode = OsStr::from_bytes(b"\xff");
    command.args(["--gateways", "1"]).env("NATTER_SOMETHING", no_unicode).env(no_unicode, "x");
    let mut one = Up::started_by(command, dir.path())?;
    let gateways = one.processes.iter().filter(|process| process.role == "gateway");
    assert_eq!(gateways.count(), 1);
    assert!(one.stop(Signal::SIGTERM)?.success());
    Ok(())
}

#[test]
fn what_it_builds_with_ends_with_it() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let dir = passable_dir()?;
        // In the place of cargo, since a real one may have nothing to do.
        let (builder, pid_file) = (dir.path().join("builder"), dir.path().join("pid"));
        let script = format!(
            "#!/bin/sh\necho $$ > {0}.new\nmv {0}.new {0}\nexec sleep 600\n",
            pid_file.display()
        );
        fs::write(&builder, script)?;
        fs::set_permissions(&builder, fs::Permissions::from_mode(0o755))?;
        let mut launcher =
            up(dir.path(), free_ports()?).env("CARGO", &builder).stderr(Stdio::null()).spawn()?;
        soon("it builds", || pid_file.exists())?;
        let pid: u32 = fs::read_to_string(&pid_file)?.trim().parse()?;
        kill(Pid::from_raw(launcher.id().cast_signed()), signal)?;
        assert_eq!(launcher.wait()?.code(), Some(130));
        soon("the builder has gone", || !is_alive(pid))?;
    }
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
    for step in ["starting PostgreSQL, Redis and NATS", "migrating the database"] {
        assert!(said.contains(step), "no `{step}` in:\n{said}");
    }
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
    // What nodes log is shown while they run: one that stops says so.
    let gateway = Pid::from_raw(up.processes[1].pid.cast_signed());
    kill(gateway, Signal::SIGTERM)?;
    soon("a line of a node's log", || up.said().lines().any(|line| line.starts_with("gateway-")))?;
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
        Self::started_by(up(dir, free_ports()?), dir)
    }

    fn started_by(mut command: Command, dir: &Path) -> Result<Self> {
        let stderr = dir.join("stderr");
        let mut child =
            command.stdout(Stdio::piped()).stderr(fs::File::create(&stderr)?).spawn()?;
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

/// The status and all that was answered.
fn post(gateway: SocketAddr, call: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(gateway)?;
    stream.set_read_timeout(Some(SOON))?;
    let length = body.len();
    write!(
        stream,
        "POST /v1/auth/{call} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, answer))
}

fn run(script: &str) -> Result<String> {
    let Output { status, stdout, stderr } = Command::new("sh").args(["-c", script]).output()?;
    let (stdout, stderr) = (String::from_utf8(stdout)?, String::from_utf8(stderr)?);
    ensure!(status.success(), "{script}\n{status}: {stdout}{stderr}");
    Ok(stdout)
}

/// The first of two free neighbours, below the ephemeral ports and above the clusters' own. Each
/// caller in this process looks elsewhere, since none takes what it gets at once; other processes
/// begin elsewhere, most likely.
fn free_ports() -> Result<u16> {
    static CALLS: AtomicU16 = AtomicU16::new(0);
    static BEGIN: OnceLock<u16> = OnceLock::new();
    let begin = *BEGIN.get_or_init(|| Uuid::new_v4().as_fields().1 % PAIRS);
    let start = begin + CALLS.fetch_add(1, Ordering::Relaxed) * (PAIRS / 10);
    (0..PAIRS)
        .map(|step| 32_000 + (start + step) % PAIRS * 2)
        .find(|port| [*port, port + 1].map(is_free) == [true; 2])
        .context("no free ports")
}

const PAIRS: u16 = 300;

/// Launchers claim a port by a name long before anything listens there.
fn is_free(port: u16) -> bool {
    let name = unix::net::SocketAddr::from_abstract_name(format!("natter-port-{port}"));
    name.is_ok_and(|name| UnixListener::bind_addr(&name).is_ok())
        && TcpListener::bind(("127.0.0.1", port)).is_ok()
}
