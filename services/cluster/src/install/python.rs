//! Python with pip, and packages for it: the Socket.IO client, and the schemas of Kubernetes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::{apt, run, tools_path};
use crate::progress::Progress;

/// A package in a folder of its own, always of the version that the tests were written for.
struct Package {
    name: &'static str,
    version: &'static str,
    /// As pip is asked for it: with extras.
    wanted: &'static str,
    /// What a script imports of it.
    modules: &'static str,
}

const SOCKETIO: Package = Package {
    name: "python-socketio",
    version: "5.18.1",
    // Spelled as in the package: older pips leave out an extra that is spelled otherwise.
    wanted: "python-socketio[asyncio-client]",
    modules: "aiohttp, socketio",
};

const KUBERNETES: Package = Package {
    name: "kubernetes-validate",
    version: "1.37.0",
    wanted: "kubernetes-validate",
    modules: "kubernetes_validate, yaml",
};

/// A Python and where packages for it are.
#[derive(Clone, Debug)]
pub struct PythonPackages {
    /// Runs scripts.
    pub python: PathBuf,
    /// What its `PYTHONPATH` has to name.
    pub packages: PathBuf,
}

/// The Socket.IO client, where it has been installed.
pub fn python_socketio() -> Option<PythonPackages> {
    SOCKETIO.found()
}

/// The schemas of Kubernetes, and a reader of YAML, where they have been installed.
pub fn kubernetes_schemas() -> Option<PythonPackages> {
    KUBERNETES.found()
}

pub(super) fn how_socketio() -> String {
    SOCKETIO.how()
}

pub(super) fn how_kubernetes() -> String {
    KUBERNETES.how()
}

pub(super) fn install_socketio(tools: &Path, progress: Progress) -> Result<()> {
    SOCKETIO.install(tools, progress)
}

pub(super) fn install_kubernetes(tools: &Path, progress: Progress) -> Result<()> {
    KUBERNETES.install(tools, progress)
}

impl Package {
    fn how(&self) -> String {
        format!("{} {}, with pip, into Natter's own folder", self.name, self.version)
    }

    fn found(&self) -> Option<PythonPackages> {
        pythons().into_iter().find_map(|python| {
            let packages = self.place(&tools_path(), &python)?;
            packages.is_dir().then_some(PythonPackages { python, packages })
        })
    }

    fn install(&self, tools: &Path, progress: Progress) -> Result<()> {
        let python = with_pip(progress)?;
        let _step = progress.step(&format!("pip install {}", self.name));
        let place = self.place(tools, &python).context("python3 does not tell its version")?;
        let scratch = scratch(tools)?;
        let install = ["-m", "pip", "--quiet", "install", "--only-binary", ":all:", "--target"];
        let package = format!("{}=={}", self.wanted, self.version);
        run(Command::new(&python).args(install).arg(scratch.path()).arg(package))?;
        let import = format!("import {}", self.modules);
        run(Command::new(&python).arg("-c").arg(import).env("PYTHONPATH", scratch.path()))?;
        // Renamed into place, so that nobody ever sees half of it.
        fs::rename(scratch.keep(), place)
            .with_context(|| format!("cannot move {} into place", self.name))
    }

    /// The packages hold compiled code, which is one version of Python's.
    fn place(&self, tools: &Path, python: &Path) -> Option<PathBuf> {
        let version = ["-c", "import sys; print(sys.implementation.cache_tag)"];
        let output = Command::new(python).args(version).stdin(Stdio::null()).output().ok()?;
        let tag = String::from_utf8(output.stdout).ok().filter(|_| output.status.success())?;
        Some(tools.join(format!("{}-{}-{}", self.name, self.version, tag.trim())))
    }
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
