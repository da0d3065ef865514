//! Python with pip, and the Socket.IO client for it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{apt, run, tools_path};
use crate::progress::Progress;

/// Stories are told with this version of the client, and not with whichever is the newest.
const SOCKETIO: &str = "5.18.1";

/// A Python and where its Socket.IO client is.
#[derive(Clone, Debug)]
pub struct PythonClient {
    /// Runs scripts.
    pub python: PathBuf,
    /// What its `PYTHONPATH` has to name.
    pub packages: PathBuf,
}

pub(super) fn how() -> String {
    format!("python-socketio {SOCKETIO}, with pip, into Natter's own folder")
}

/// A Python for which [`install_socketio`] has been run.
pub fn python_socketio() -> Option<PythonClient> {
    pythons().into_iter().find_map(|python| {
        let packages = packages(&tools_path(), &python)?;
        packages.is_dir().then_some(PythonClient { python, packages })
    })
}

pub(super) fn install_socketio(tools: &Path, progress: Progress) -> Result<()> {
    let python = with_pip(progress)?;
    let _step = progress.step("pip install python-socketio");
    let place = packages(tools, &python).context("python3 does not tell its version")?;
    let scratch = scratch(tools)?;
    let install = ["-m", "pip", "--quiet", "install", "--only-binary", ":all:", "--target"];
    // Spelled as in the package: older pips leave out an extra that is spelled otherwise.
    let package = format!("python-socketio[asyncio-client]=={SOCKETIO}");
    run(Command::new(&python).args(install).arg(scratch.path()).arg(package))?;
    let import = ["-c", "import aiohttp, socketio"];
    run(Command::new(&python).args(import).env("PYTHONPATH", scratch.path()))?;
    // Renamed into place, so that nobody ever sees half of it.
    fs::rename(scratch.keep(), place).context("cannot move python-socketio into place")
}

/// The client's packages hold compiled code, which is one version of Python's.
fn packages(tools: &Path, python: &Path) -> Option<PathBuf> {
    let version = ["-c", "import sys; print(sys.implementation.cache_tag)"];
    let output = Command::new(python).args(version).stdin(Stdio::null()).output().ok()?;
    let tag = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
    Some(tools.join(format!("python-socketio-{SOCKETIO}-{}", tag.trim())))
}

/// A Python that has pip, installed if need be.
pub(super) fn with_pip(progress: Progress) -> Result<PathBuf> {
    if let Some(python) = pythons().into_iter().find(|python| has_pip(python)) {
        return Ok(python);
    }
    apt::install(&["python3", "python3-pip"], progress)?;
    match pythons().into_iter().find(|python| has_pip(python)) {
        Some(python) => Ok(python),
        None => bail!("there is no python3 with pip"),
    }
}

fn pythons() -> [PathBuf; 2] {
    ["python3", "/usr/bin/python3"].map(PathBuf::from)
}

fn has_pip(python: &Path) -> bool {
    Command::new(python)
        .args(["-m", "pip", "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A folder for a download, on the file system where it is going to stay.
pub(super) fn scratch(tools: &Path) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("download-")
        .tempdir_in(tools)
        .context("cannot make a directory for the download")
}
