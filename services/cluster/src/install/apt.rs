//! Debian's and Ubuntu's package manager.

use std::{fs, path::Path, process::Command, sync::OnceLock};

use anyhow::{Context, Result, bail};

use super::{as_root, python::scratch, run};
use crate::progress::Progress;

/// apt has a lock of its own; somebody else's upgrade may hold it for minutes.
const WAIT: &str = "DPkg::Lock::Timeout=300";

/// Installs packages, after one `apt-get update` per process.
pub(super) fn install(packages: &[&str], progress: Progress) -> Result<()> {
    update(progress)?;
    let _step = progress.step(&format!("apt-get install {}", packages.join(" ")));
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

/// One program out of a package that is not installed: its server would start.
pub(super) fn take_program(
    name: &str,
    package: &str,
    tools: &Path,
    progress: Progress,
) -> Result<()> {
    update(progress)?;
    let _step = progress.step(&format!("apt-get download {package}"));
    let scratch = scratch(tools)?;
    run(Command::new("apt-get").args(["-q", "download", package]).current_dir(scratch.path()))?;
    let is_package = |path: &Path| path.extension() == Some("deb".as_ref());
    let file = fs::read_dir(scratch.path())?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| is_package(path))
        .context("apt-get downloaded no package")?;
    let unpacked = scratch.path().join("unpacked");
    run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&unpacked))?;
    // Renamed into place, so that nobody ever sees half a binary.
    fs::rename(unpacked.join("usr/bin").join(name), tools.join(name))
        .with_context(|| format!("cannot move {name} into place"))
}

fn update(progress: Progress) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no apt-get on this machine");
    }
    static UPDATED: OnceLock<()> = OnceLock::new();
    if UPDATED.get().is_none() {
        let _step = progress.step("apt-get update");
        apt_get(&["update"])?;
        UPDATED.get_or_init(|| ());
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> Result<()> {
    // Through `env`, since sudo drops variables.
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", WAIT, "-q"]).args(args);
    run(&mut command)
}
