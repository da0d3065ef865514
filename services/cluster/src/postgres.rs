//! One PostgreSQL server: its data directory, its process, its databases.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::Signal,
    unistd::{User, geteuid},
};

use crate::{
    install::{self, PostgresPrograms},
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::{Account, Launch},
    progress::Progress,
    secret,
    secured::{Secured, percent_encoded},
    throwaway::Throwaway,
};

/// User and database of a cluster.
const NAME: &str = "natter";
/// A database of Postgres' own with nothing in it.
pub(crate) const EMPTY: &str = "template0";

/// Connections that the server takes: gateways and workers have pools of a few dozen each.
const MAX_CONNECTIONS: u32 = 200;

/// How much the data are worth.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Durability {
    /// They survive a crash of the machine.
    Kept,
    /// They survive a crash of the server only, and everything is faster.
    Throwaway,
}

#[derive(Debug)]
pub(crate) struct Postgres {
    node: Node,
    programs: PostgresPrograms,
    password: String,
    /// Of its URLs.
    parameters: String,
}

impl Postgres {
    /// Starts a server with its data in `<dir>/postgres`, made there the first time.
    pub(crate) fn start(
        dir: &Path,
        durability: Durability,
        progress: Progress,
        secured: Option<&Secured>,
    ) -> Result<Self> {
        let home = Home::open(dir, progress)?;
        let programs = home.programs()?;
        if let Some(secured) = secured {
            fs::write(home.path.join("password"), &secured.password)?;
        }
        // A login of its own is part of what `initdb` makes.
        if durability == Durability::Throwaway && secured.is_none() {
            home.cast(&programs)?;
        }
        let password = home.password()?;
        home.initialise(&programs, durability)?;
        let settings = secured.map(|secured| home.secure(secured)).transpose()?.unwrap_or_default();
        let node = Node::start_on_free_ports(|| home.plan(dir, &programs, durability, &settings))?;
        let parameters = secured.map(Secured::postgres_parameters).unwrap_or_default();
        let server = Self { node, programs, password, parameters };
        let exists = format!("SELECT 1 FROM pg_database WHERE datname = '{NAME}'");
        if server.sql("postgres", &exists)?.trim().is_empty() {
            server.create_database(NAME, EMPTY)?;
        }
        Ok(server)
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    /// The URL of the cluster's own database.
    pub(crate) fn url(&self) -> String {
        self.url_of(NAME)
    }

    pub(crate) fn url_of(&self, database: &str) -> String {
        let Self { password, node, parameters, .. } = self;
        let password = percent_encoded(password);
        format!("postgres://{NAME}:{password}@{}/{database}{parameters}", node.address())
    }

    /// Makes a database like another that nobody is connected to. Both names must be plain lower-case
    /// identifiers.
    pub(crate) fn create_database(&self, name: &str, like: &str) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {like}")).map(drop)
    }

    /// Has a statement done in the cluster's own database; what it returns, a row a line.
    pub(crate) fn own_sql(&self, statement: &str) -> Result<String> {
        self.sql(NAME, statement)
    }

    fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let address = self.node.address();
        let output = Command::new(&self.programs.psql)
            .args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-U", NAME, "-d", database, "-c", statement])
            .env("PGPASSWORD", &self.password)
            .env("PGCONNECT_TIMEOUT", "20")
            .stdin(Stdio::null())
            .output()
            .context("cannot run psql")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("Postgres refused `{statement}`: {}", said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The folder of a server, and who it belongs to.
struct Home {
    path: PathBuf,
    account: Option<Account>,
}

impl Home {
    fn open(dir: &Path, progress: Progress) -> Result<Self> {
        let account = server_account()?;
        let mut path = dir.join("postgres");
        make_home(&path, account)?;
        if let Some(account) = account
            && !can_enter(account, &path)
        {
            fs::remove_dir(&path).ok();
            path = elsewhere(dir);
            forget_another_life(dir, &path)?;
            make_home(&path, Some(account))?;
            progress.note(&format!(
                "Postgres runs as another user, who cannot reach {}: its data are in {}",
                dir.display(),
                path.display()
            ));
        }
        Ok(Self { path, account })
    }

    fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// The installation that fits the data, or the newest for new data.
    fn programs(&self) -> Result<PostgresPrograms> {
        let made_by = fs::read_to_string(self.data().join("PG_VERSION")).ok();
        let major = made_by.and_then(|version| version.trim().parse().ok());
        install::postgres(major).with_context(|| match major {
            Some(major) => format!(
                "the data in {} need PostgreSQL {major}, which is not installed",
                self.path.display()
            ),
            None => "PostgreSQL is not installed".to_owned(),
        })
    }

    fn password(&self) -> Result<String> {
        let path = self.path.join("password");
        let password = secret::kept_in(&path)?;
        give(&path, self.account)?;
        Ok(password)
    }

    /// Makes the data directory, under another name until it is whole: `initdb` takes a second,
    /// and whoever is killed in it must not leave half a directory behind.
    fn initialise(&self, programs: &PostgresPrograms, durability: Durability) -> Result<()> {
        let data = self.data();
        if data.exists() {
            return Ok(());
        }
        let unfinished = self.path.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .context("cannot remove an unfinished data directory")?;
        }
        let mut command = Command::new(&programs.initdb);
        command
            .arg("-D")
            .arg(&unfinished)
            .args(["-U", NAME, "--auth=scram-sha-256", "--encoding=UTF8"])
            .args(["--locale=C.UTF-8", "--no-instructions", "--pwfile"])
            .arg(self.path.join("password"))
            .current_dir("/")
            .stdin(Stdio::null());
        if durability == Durability::Throwaway {
            command.arg("--no-sync");
        }
        if let Some(account) = self.account {
            command.gid(account.gid).uid(account.uid);
        }
        let output = command.output().context("cannot run initdb")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("initdb failed ({}):\n{}", output.status, said.trim());
        }
        fs::rename(&unfinished, &data).context("cannot move the new data directory into place")
    }

    /// Takes over the data directory that this process has made for all its throwaway servers, with its
    /// password: `initdb` costs six times as much as the copy, and tests start very many servers.
    fn cast(&self, programs: &PostgresPrograms) -> Result<()> {
        static MOULD: Mutex<Option<Throwaway>> = Mutex::new(None);
        if self.data().exists() {
            return Ok(());
        }
        let mut mould = MOULD.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *mould {
            Some(made) => made,
            none => none.insert(Self::mould(programs)?),
        };
        let mould = made.path().join("postgres");
        let unfinished = self.path.join("data.new");
        let output = Command::new("cp")
            .arg("-a")
            .args([mould.join("data"), unfinished.clone()])
            .stdin(Stdio::null())
            .output()
            .context("cannot run cp")?;
        if !output.status.success() {
            bail!("cannot copy a data directory: {}", String::from_utf8_lossy(&output.stderr));
        }
        let password = self.path.join("password");
        fs::copy(mould.join("password"), &password).context("cannot copy a password")?;
        give(&password, self.account)?;
        fs::rename(&unfinished, self.data()).context("cannot move a data directory into place")
    }

    fn mould(programs: &PostgresPrograms) -> Result<Throwaway> {
        let dir = Throwaway::new()?;
        let home = Self::open(dir.path(), Progress::Quiet)?;
        home.password()?;
        home.initialise(programs, Durability::Throwaway)?;
        Ok(dir)
    }

    /// Gives the server its certificate, and settings by which nobody comes without TLS.
    fn secure(&self, secured: &Secured) -> Result<Vec<String>> {
        let access = "hostssl all all 127.0.0.1/32 scram-sha-256\n".into();
        let files = secured.pair()?.into_iter().chain([("access.conf", access)]);
        for (name, content) in files {
            let path = self.path.join(name);
            fs::write(&path, content)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            give(&path, self.account)?;
        }
        let path = |name| self.path.join(name).display().to_string();
        Ok(vec![
            "ssl=on".to_owned(),
            format!("ssl_cert_file={}", path("server.pem")),
            format!("ssl_key_file={}", path("server.key")),
            format!("hba_file={}", path("access.conf")),
        ])
    }

    fn plan(
        &self,
        dir: &Path,
        programs: &PostgresPrograms,
        durability: Durability,
        more: &[String],
    ) -> Result<Plan> {
        let port = Port::any()?;
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            // A socket's path is limited to 107 bytes, and nobody needs one.
            "unix_socket_directories=".to_owned(),
            format!("max_connections={MAX_CONNECTIONS}"),
            "logging_collector=off".to_owned(),
        ];
        settings.extend(
            match durability {
                Durability::Kept => &[][..],
                // A commit still reaches the kernel before it is acknowledged, and so survives
                // SIGKILL: `synchronous_commit=off` would lose it.
                Durability::Throwaway => {
                    &["shared_buffers=64MB", "fsync=off", "full_page_writes=off"]
                }
            }
            .iter()
            .map(|setting| (*setting).to_owned()),
        );
        settings.extend_from_slice(more);
        let mut launch = Launch::new(&programs.postgres, "postgres", dir)
            .args(["-D".into(), self.data().into_os_string()])
            .args(["-p".to_owned(), port.address().port().to_string()])
            .args(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
        launch.account = self.account;
        // SIGTERM would wait for every client to leave.
        launch.stop_signal = Signal::SIGINT;
        // SIGKILL would leave its children and its shared memory behind.
        launch.abort_signal = Signal::SIGQUIT;
        Ok(Plan {
            role: Role::Postgres,
            name: "postgres".to_owned(),
            port,
            admin: None,
            more: Vec::new(),
            launch,
            probe: Probe::Postgres { data: self.data() },
        })
    }
}

/// Who runs the server: it refuses to be root's.
pub(crate) fn server_account() -> Result<Option<Account>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name).context("cannot look up a user")? {
            return Ok(Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    bail!("Postgres does not run as root, and there is no user `postgres` or `nobody`")
}

/// Whether the user gets into this directory: its own permissions and those of all above it.
pub(crate) fn can_enter(account: Account, dir: &Path) -> bool {
    Command::new("/bin/sh")
        .args(["-c", "cd -- \"$1\"", "sh"])
        .arg(dir)
        .current_dir("/")
        .gid(account.gid)
        .uid(account.uid)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn make_home(path: &Path, account: Option<Account>) -> Result<()> {
    if !path.is_dir() {
        DirBuilder::new()
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make {}", path.display()))?;
    }
    // Whoever else made something of this name below /var/tmp must not get at the data, nor make
    // us give away what a link of theirs leads to.
    let meta = fs::symlink_metadata(path);
    let meta = meta.with_context(|| format!("cannot look at {}", path.display()))?;
    if !meta.is_dir() {
        bail!("{} is no directory", path.display());
    }
    let owner = meta.uid();
    let allowed = [Some(geteuid().as_raw()), account.map(|account| account.uid)];
    if !allowed.contains(&Some(owner)) {
        bail!("{} belongs to somebody else", path.display());
    }
    give(path, account)
}

fn give(path: &Path, account: Option<Account>) -> Result<()> {
    let Some(account) = account else {
        return Ok(());
    };
    lchown(path, Some(account.uid), Some(account.gid))
        .with_context(|| format!("cannot give {} to Postgres", path.display()))
}

/// Removes what stands elsewhere for a folder that is gone: whoever removes the data removes all of
/// it. The folder's secret is made before the data, and outlives them only if nothing was removed.
fn forget_another_life(dir: &Path, home: &Path) -> Result<()> {
    let made = |path: PathBuf| path.metadata().and_then(|found| found.modified()).ok();
    let (Some(secret), Some(data)) =
        (made(dir.join("jwt-secret")), made(home.join("data/PG_VERSION")))
    else {
        return Ok(());
    };
    if secret <= data {
        return Ok(());
    }
    fs::remove_dir_all(home).with_context(|| format!("cannot remove {}", home.display()))
}

/// A place that everybody can reach, always the same for the same data directory.
fn elsewhere(dir: &Path) -> PathBuf {
    // FNV-1a: the name must be the same in every build, which std's hasher does not promise.
    let hash =
        dir.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    Path::new("/var/tmp").join(format!("natter-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_stands_elsewhere_goes_with_its_folder() -> Result<()> {
        let (dir, home) = (tempfile::tempdir()?, tempfile::tempdir()?);
        let (secret, data) = (dir.path().join("jwt-secret"), home.path().join("data/PG_VERSION"));
        fs::create_dir(home.path().join("data"))?;
        forget_another_life(dir.path(), home.path())?;
        let now = std::time::SystemTime::now();
        let make = |path: &Path, ago| -> Result<()> {
            fs::write(path, "18")?;
            let file = fs::File::options().write(true).open(path)?;
            Ok(file.set_modified(now - std::time::Duration::from_secs(ago))?)
        };
        make(&secret, 20)?;
        make(&data, 10)?;
        forget_another_life(dir.path(), home.path())?;
        assert!(data.exists(), "of the same life");
        make(&secret, 5)?;
        forget_another_life(dir.path(), home.path())?;
        assert!(!home.path().exists(), "the folder was removed and made anew");
        Ok(())
    }

    #[test]
    fn a_link_in_the_place_of_a_home_is_not_followed() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        make_home(&target, None)?;
        symlink(&target, &link)?;
        let refused = make_home(&link, None).expect_err("it is a link");
        assert!(refused.to_string().contains("no directory"), "{refused}");
        make_home(&target, None)
    }
}
