//! The Socket.IO client for JavaScript, with npm.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{node_js, python::scratch, run, tools_path};
use crate::progress::Progress;

/// Stories are told with this version of the client, and not with whichever is the newest.
const SOCKET_IO_CLIENT: &str = "4.8.4";

/// Where Debian and Ubuntu keep the authorities that the system trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(super) fn how() -> String {
    format!("socket.io-client {SOCKET_IO_CLIENT}, with npm, into Natter's own folder")
}

/// The folder from which scripts can `require` it.
pub fn socket_io_client() -> Option<PathBuf> {
    Some(place(&tools_path())).filter(|place| place.is_dir())
}

pub(super) fn install_socket_io_client(tools: &Path, progress: Progress) -> Result<()> {
    let programs = node_js().context("there is no Node.js with npm")?;
    let _step = progress.step("npm install socket.io-client");
    let scratch = scratch(tools)?;
    // npm's first line says `env node`; the one beside it need not be on the PATH.
    let mut path = vec![programs.node.parent().context("node is in no folder")?.to_owned()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let quietly =
        ["install", "--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"];
    let mut npm = Command::new(programs.npm);
    // Node.js knows authorities of its own only; a network with another one has told the system.
    if env::var_os("NODE_EXTRA_CA_CERTS").is_none() && Path::new(AUTHORITIES).exists() {
        npm.env("NODE_EXTRA_CA_CERTS", AUTHORITIES);
    }
    run(npm
        .args(quietly)
        .arg("--prefix")
        .arg(scratch.path())
        .arg(format!("socket.io-client@{SOCKET_IO_CLIENT}"))
        .current_dir(scratch.path())
        .env("PATH", env::join_paths(path)?))?;
    // Renamed into place, so that nobody ever sees half of it.
    fs::rename(scratch.keep(), place(tools)).context("cannot move socket.io-client into place")
}

fn place(tools: &Path) -> PathBuf {
    tools.join(format!("socket.io-client-{SOCKET_IO_CLIENT}"))
}
