//! Debian's and Ubuntu's package manager.

use std::{path::Path, sync::OnceLock};

use anyhow::{Result, bail};

use super::{as_root, run};
use crate::progress::Progress;

/// apt has a lock of its own; somebody else's upgrade may hold it for minutes.
const WAIT: &str = "DPkg::Lock::Timeout=300";

/// Installs packages, after one `apt-get update` per process.
pub(super) fn install(packages: &[&str], progress: Progress) -> Result<()> {
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("there is no apt-get on this machine");
    }
    static UPDATED: OnceLock<()> = OnceLock::new();
    if UPDATED.get().is_none() {
        let _step = progress.step("apt-get update");
        apt_get(&["update"])?;
        UPDATED.get_or_init(|| ());
    }
    let _step = progress.step(&format!("apt-get install {}", packages.join(" ")));
    let mut args = vec!["install", "--yes", "--no-install-recommends"];
    args.extend(packages);
    apt_get(&args)
}

fn apt_get(args: &[&str]) -> Result<()> {
    // Through `env`, since sudo drops variables.
    let mut command = as_root("env");
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", WAIT, "-q"]).args(args);
    run(&mut command)
}
