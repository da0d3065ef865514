//! Backups of the servers taken, and put back, with the tools that an operator has.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use natter_cluster::{Cluster, install};
use tempfile::TempDir;

/// Runs one of PostgreSQL's programs, as the user of this process; returns what it said.
fn postgres_tool(name: &str, args: &[&str]) -> Result<String> {
    let programs = install::postgres(None).context("no PostgreSQL")?;
    let program = programs.postgres.with_file_name(name);
    let output = Command::new(program).args(args).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{name} failed: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same server, another database.
fn url_of(cluster: &Cluster, database: &str) -> Result<String> {
    let url = cluster.database_url();
    let (server, _) = url.rsplit_once('/').context("no database in the URL")?;
    Ok(format!("{server}/{database}"))
}

/// A statement, run where the cluster's own database may be missing.
fn sql(cluster: &Cluster, statement: &str) -> Result<String> {
    let url = url_of(cluster, "postgres")?;
    postgres_tool("psql", &["-XqtA", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", statement])
}

/// A statement for the cluster's own database.
pub fn ask(cluster: &Cluster, statement: &str) -> Result<String> {
    let url = cluster.database_url();
    let answer =
        postgres_tool("psql", &["-XqtA", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", statement])?;
    Ok(answer.trim().to_owned())
}

/// What `pg_dump` made of the database.
pub struct Dump {
    folder: TempDir,
}

impl Dump {
    pub fn take(cluster: &Cluster) -> Result<Self> {
        let dump = Self { folder: tempfile::tempdir()? };
        postgres_tool("pg_dump", &["-Fc", "-f", &dump.file(), "-d", &cluster.database_url()])?;
        Ok(dump)
    }

    fn file(&self) -> String {
        self.folder.path().join("natter.dump").display().to_string()
    }

    /// Into an empty database beside the lost one, which takes its name once it is whole: nobody
    /// ever sees half of it.
    pub fn put_back(&self, cluster: &Cluster) -> Result<()> {
        sql(cluster, "CREATE DATABASE natter_restored TEMPLATE template0")?;
        let url = url_of(cluster, "natter_restored")?;
        postgres_tool("pg_restore", &["--exit-on-error", "-d", &url, &self.file()])?;
        sql(cluster, "ALTER DATABASE natter_restored RENAME TO natter").map(drop)
    }
}

/// The database is gone, with everything in it, under everybody's hands.
pub fn lose_database(cluster: &Cluster) -> Result<()> {
    sql(cluster, "DROP DATABASE natter WITH (FORCE)").map(drop)
}

/// What `pg_basebackup` made of the whole server.
pub struct BaseBackup {
    folder: TempDir,
    /// Where the server has its data.
    data: PathBuf,
}

impl BaseBackup {
    pub fn take(cluster: &Cluster) -> Result<Self> {
        let data = PathBuf::from(sql(cluster, "SHOW data_directory")?.trim());
        let backup = Self { folder: tempfile::tempdir()?, data };
        let to = backup.copy().display().to_string();
        let url = cluster.database_url();
        postgres_tool("pg_basebackup", &["-D", &to, "-X", "stream", "-c", "fast", "-d", &url])?;
        Ok(backup)
    }

    fn copy(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// In place of what a server that is away has.
    pub fn put_back(&self) -> Result<()> {
        let owner = fs::metadata(&self.data)?;
        fs::remove_dir_all(&self.data)?;
        copy(&self.copy(), &self.data, Some((owner.uid(), owner.gid())))
    }
}

/// Where the only broker has its streams.
fn store_of_nats(cluster: &Cluster) -> PathBuf {
    cluster.data_dir().join("nats/jetstream")
}

/// A copy of the broker's store, of one moment, as a snapshot of its volume is.
pub struct LogCopy {
    folder: TempDir,
}

impl LogCopy {
    pub fn take(cluster: &Cluster) -> Result<Self> {
        let taken = Self { folder: tempfile::tempdir()? };
        cluster.nats().pause()?;
        let copied = copy(&store_of_nats(cluster), &taken.folder.path().join("store"), None);
        cluster.nats().resume()?;
        copied?;
        Ok(taken)
    }

    /// In place of what a broker that is away has.
    pub fn put_back(&self, cluster: &Cluster) -> Result<()> {
        lose_logs(cluster)?;
        copy(&self.folder.path().join("store"), &store_of_nats(cluster), None)
    }
}

/// The disk of a broker that is away is empty.
pub fn lose_logs(cluster: &Cluster) -> Result<()> {
    Ok(fs::remove_dir_all(store_of_nats(cluster))?)
}

fn copy(from: &Path, to: &Path, owner: Option<(u32, u32)>) -> Result<()> {
    let meta = fs::symlink_metadata(from)?;
    if meta.is_dir() {
        fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
        fs::set_permissions(to, meta.permissions())?;
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            copy(&from.join(&name), &to.join(&name), owner)?;
        }
    } else {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    if let Some((user, group)) = owner {
        chown(to, Some(user), Some(group))?;
    }
    Ok(())
}
