//! Packages of npm, for tests.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{node_js, python::scratch, run, tools_path};
use crate::progress::Progress;

/// Where Debian and Ubuntu keep the authorities that the system trusts.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Packages that are used together, in a folder of their own.
pub(super) struct Packages {
    /// What the folder's name begins with.
    name: &'static str,
    /// These versions, and not whichever are the newest; the folder tells them.
    packages: &'static [(&'static str, &'static str)],
}

/// Stories are told with this version of the client.
pub(super) const SOCKET_IO_CLIENT: Packages =
    Packages { name: "socket.io-client", packages: &[("socket.io-client", "4.8.4")] };

/// What reads the documents that a gateway serves.
pub(super) const DOCUMENT_READERS: Packages = Packages {
    name: "document-readers",
    packages: &[
        ("@asyncapi/parser", "3.6.6"),
        ("ajv", "8.20.0"),
        ("ajv-formats", "3.0.1"),
        ("@seriousme/openapi-schema-validator", "2.11.0"),
        ("typescript", "5.9.3"),
    ],
};

/// The folder from which scripts can `require` the client.
pub fn socket_io_client() -> Option<PathBuf> {
    SOCKET_IO_CLIENT.found()
}

/// The folder from which scripts can `require` what reads AsyncAPI, OpenAPI and TypeScript.
pub fn document_readers() -> Option<PathBuf> {
    DOCUMENT_READERS.found()
}

impl Packages {
    pub(super) fn how(&self) -> String {
        let names: Vec<String> =
            self.packages.iter().map(|(name, version)| format!("{name} {version}")).collect();
        format!("{}, with npm, into Natter's own folder", names.join(", "))
    }

    fn found(&self) -> Option<PathBuf> {
        Some(self.place(&tools_path())).filter(|place| place.is_dir())
    }

    fn place(&self, tools: &Path) -> PathBuf {
        let versions: Vec<&str> = self.packages.iter().map(|(_, version)| *version).collect();
        tools.join(format!("{}-{}", self.name, versions.join("-")))
    }

    pub(super) fn install(&self, tools: &Path, progress: Progress) -> Result<()> {
        let programs = node_js().context("there is no Node.js with npm")?;
        let _step = progress.step(&format!("npm install {}", self.name));
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
            .args(self.packages.iter().map(|(name, version)| format!("{name}@{version}")))
            .current_dir(scratch.path())
            .env("PATH", env::join_paths(path)?))?;
        // Renamed into place, so that nobody ever sees half of it.
        fs::rename(scratch.keep(), self.place(tools))
            .with_context(|| format!("cannot move {} into place", self.name))
    }
}
