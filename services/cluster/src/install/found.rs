//! Which of the needed programs this machine has, and whether they really run.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{tools_path, wheel};

/// The oldest nats-server (major, minor) that has what the bus uses.
pub const NATS_SERVER_MINIMUM: (u32, u32) = (2, 11);

/// The oldest Node.js (major, minor) that has what Socket.IO's client uses.
pub const NODE_MINIMUM: (u32, u32) = (18, 0);

/// The oldest kustomize (major, minor) within kubectl that knows what the manifests use.
pub const KUSTOMIZE_MINIMUM: (u32, u32) = (5, 0);

/// The oldest promtool (major, minor) that the alerts' tests were written for.
pub const PROMTOOL_MINIMUM: (u32, u32) = (2, 42);

/// The oldest Docker Compose (major, minor) that merges files as `deploy/` relies on.
pub const COMPOSE_MINIMUM: (u32, u32) = (2, 20);

/// The oldest k6 (major, minor) that runs the load tests.
pub const K6_MINIMUM: (u32, u32) = (1, 1);

/// Where Debian keeps the server programs of its PostgreSQL versions.
const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug)]
pub struct PostgresPrograms {
    /// The server.
    pub postgres: PathBuf,
    /// Makes a data directory.
    pub initdb: PathBuf,
    /// Speaks SQL.
    pub psql: PathBuf,
    /// The major version.
    pub major: u32,
}

/// The programs of one Node.js.
#[derive(Clone, Debug)]
pub struct NodePrograms {
    /// Runs scripts.
    pub node: PathBuf,
    /// Installs packages.
    pub npm: PathBuf,
}

/// Docker Compose: a program of its own, or a part of `docker`.
#[derive(Clone, Debug)]
pub struct ComposeProgram {
    program: PathBuf,
    arguments: &'static [&'static str],
}

impl ComposeProgram {
    /// It, to be told what to do.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments);
        command
    }
}

/// The newest PostgreSQL, or that of a major version where existing data asks for it.
pub fn postgres(major: Option<u32>) -> Option<PostgresPrograms> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(DEBIAN_POSTGRES)
        .map(|versions| {
            let dirs = versions.flatten().map(|entry| entry.path().join("bin"));
            dirs.collect()
        })
        .unwrap_or_default();
    // What is on the PATH may be a link or a wrapper, without its companions beside it.
    dirs.extend(in_path("postgres").filter_map(|program| {
        let target = fs::canonicalize(program).ok()?;
        target.parent().map(Path::to_owned)
    }));
    dirs.iter()
        .filter_map(|dir| postgres_in(dir))
        .filter(|found| major.is_none_or(|major| found.major == major))
        .max_by_key(|found| found.major)
}

fn postgres_in(dir: &Path) -> Option<PostgresPrograms> {
    let program = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
    let postgres = program("postgres")?;
    let (major, _) = version_in(&said_by(&postgres, &["--version"])?)?;
    Some(PostgresPrograms {
        initdb: program("initdb").or_else(|| in_path("initdb").next())?,
        psql: program("psql").or_else(|| in_path("psql").next())?,
        postgres,
        major,
    })
}

/// `redis-server`, or `valkey-server`, which is the same to us.
pub fn redis_server() -> Option<PathBuf> {
    ["redis-server", "valkey-server"]
        .into_iter()
        .flat_map(in_path)
        .find(|program| said_by(program, &["--version"]).is_some())
}

/// `mariadbd`.
pub fn mariadb() -> Option<PathBuf> {
    in_path("mariadbd").find(|program| said_by(program, &["--version"]).is_some())
}

/// A nats-server that is new enough.
pub fn nats_server() -> Option<PathBuf> {
    in_path("nats-server").chain([tools_path().join("nats-server")]).find(|program| {
        said_by(program, &["--version"])
            .and_then(|said| version_in(&said))
            .is_some_and(|version| version >= NATS_SERVER_MINIMUM)
    })
}

/// A Node.js that is new enough, and has npm: Debian has packages of the one without the other.
pub fn node_js() -> Option<NodePrograms> {
    let on_path = in_path("node").flat_map(|node| {
        let with = move |npm| NodePrograms { node: node.clone(), npm };
        in_path("npm").take(1).map(with)
    });
    on_path.chain([wheel::node_programs(&tools_path())]).find(|found| {
        found.npm.is_file()
            && said_by(&found.node, &["--version"])
                .and_then(|said| version_in(&said))
                .is_some_and(|version| version >= NODE_MINIMUM)
    })
}

/// A kubectl whose kustomize is new enough.
pub fn kubectl() -> Option<PathBuf> {
    in_path("kubectl").chain([tools_path().join("kubectl")]).find(|program| {
        said_by(program, &["version", "--client"])
            .and_then(|said| version_in(said.split_once("Kustomize Version:")?.1))
            .is_some_and(|version| version >= KUSTOMIZE_MINIMUM)
    })
}

/// A promtool that is new enough.
pub fn promtool() -> Option<PathBuf> {
    in_path("promtool").chain([tools_path().join("promtool")]).find(|program| {
        said_by(program, &["--version"])
            .and_then(|said| version_in(&said))
            .is_some_and(|version| version >= PROMTOOL_MINIMUM)
    })
}

/// A Docker Compose that is new enough.
pub fn docker_compose() -> Option<ComposeProgram> {
    let part = |program| ComposeProgram { program, arguments: &["compose"] };
    let whole = |program| ComposeProgram { program, arguments: &[] };
    let installed = [tools_path().join("docker-compose")];
    let alone = in_path("docker-compose").chain(installed).map(whole);
    in_path("docker").map(part).chain(alone).find(|found| {
        let arguments = [found.arguments, &["version"]].concat();
        said_by(&found.program, &arguments)
            .and_then(|said| version_in(&said))
            .is_some_and(|version| version >= COMPOSE_MINIMUM)
    })
}

/// A k6 that is new enough.
pub fn k6() -> Option<PathBuf> {
    in_path("k6").chain([tools_path().join("k6")]).find(|program| {
        said_by(program, &["version"])
            .and_then(|said| version_in(&said))
            .is_some_and(|version| version >= K6_MINIMUM)
    })
}

/// All programs of this name on the PATH, and where servers are when the PATH leaves that out.
fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/bin", "/usr/sbin", "/usr/local/bin"].map(PathBuf::from));
    dirs.into_iter()
        .filter(|dir| dir.is_absolute())
        .map(move |dir| dir.join(name))
        .filter(|program| program.is_file())
}

/// What a program says when it works.
fn said_by(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then_some(said)
}

/// The first `major.minor` in a text like `nats-server: v2.12.1`; a lone number has minor 0.
fn version_in(said: &str) -> Option<(u32, u32)> {
    said.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next().and_then(|minor| minor.parse().ok());
        Some((major, minor.unwrap_or(0)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_servers_print_them() {
        assert_eq!(version_in("nats-server: v2.12.1\n"), Some((2, 12)));
        assert_eq!(version_in("postgres (PostgreSQL) 15.18 (Debian)"), Some((15, 18)));
        assert_eq!(version_in("postgres (PostgreSQL) 18beta1"), Some((18, 0)));
        assert_eq!(version_in("v20.20.2\n"), Some((20, 20)));
        assert_eq!(version_in("promtool, version 2.42.0+ds (branch: debian/sid)"), Some((2, 42)));
        assert_eq!(version_in("Docker Compose version v2.40.3"), Some((2, 40)));
        assert_eq!(
            version_in("k6 v1.1.0 (commit/0e3fb953be, go1.24.4, linux/amd64)"),
            Some((1, 1))
        );
        assert_eq!(version_in("none"), None);
    }
}
