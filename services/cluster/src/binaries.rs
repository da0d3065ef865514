//! The node binaries: built before they are run, so that nobody ever runs stale ones.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail};

use crate::{progress::Progress, tools};

/// Names a folder with the binaries where there is nothing to build, as in a container.
pub const BIN_DIR: &str = "NATTER_BIN_DIR";

const GATEWAY: &str = "natter-gateway";
const PERSISTENCE: &str = "natter-persistence";
const PUSH: &str = "natter-push";

/// How much of the compiler's output goes into an error, in bytes.
const TAIL: usize = 6_000;

/// Where the binaries of the nodes are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// `natter-gateway`.
    pub gateway: PathBuf,
    /// `natter-persistence`.
    pub persistence: PathBuf,
    /// `natter-push`.
    pub push: PathBuf,
}

impl Binaries {
    /// Builds them with this process's own profile and target directory, once per process; or
    /// takes those of `NATTER_BIN_DIR`, or of our own folder when we run outside the workspace.
    pub fn ready(progress: Progress) -> Result<Self> {
        static READY: Mutex<Option<Binaries>> = Mutex::new(None);
        let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binaries) = ready.as_ref() {
            return Ok(binaries.clone());
        }
        let own = Own::detect()?;
        let dir = match (env::var_os(BIN_DIR), workspace()) {
            (Some(dir), _) => PathBuf::from(dir),
            (None, Some(workspace)) => {
                own.build(&workspace, progress)?;
                own.dir
            }
            (None, None) => own.dir,
        };
        let binaries = Self::in_dir(&dir)?;
        *ready = Some(binaries.clone());
        Ok(binaries)
    }

    fn in_dir(dir: &Path) -> Result<Self> {
        let program = |name: &str| {
            let path = dir.join(name);
            if !path.is_file() {
                bail!("there is no {name} in {}", dir.display());
            }
            Ok(path)
        };
        Ok(Self {
            gateway: program(GATEWAY)?,
            persistence: program(PERSISTENCE)?,
            push: program(PUSH)?,
        })
    }
}

/// How this process was built: where cargo put it.
struct Own {
    /// `target/debug`, `target/release` or that of a profile of its own.
    dir: PathBuf,
}

impl Own {
    fn detect() -> Result<Self> {
        let exe = env::current_exe().context("cannot tell where this program is")?;
        let dir = exe.parent().context("this program is in no folder")?;
        // Test binaries, and examples and benches, are one level below the others.
        let nested = ["deps", "examples"].iter().any(|name| dir.ends_with(name));
        let dir = if nested { dir.parent() } else { Some(dir) };
        let dir = dir.context("this program is in no folder")?.to_owned();
        Ok(Self { dir })
    }

    fn build(&self, workspace: &Path, progress: Progress) -> Result<()> {
        let target = self.dir.parent().context("not in a target directory")?;
        let profile = match self.dir.file_name().and_then(|name| name.to_str()) {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .args(["build", "--workspace", "--bin", GATEWAY, "--bin", PERSISTENCE, "--bin", PUSH])
            .args(["--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(workspace)
            .stdin(Stdio::null());
        for (key, _) in env::vars_os() {
            // Those tell cargo's children about our own package.
            let name = key.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                command.env_remove(key);
            }
        }
        if progress == Progress::Terminal {
            return build_visibly(&mut command);
        }
        let _step = progress.step("building the nodes");
        let output = tools::output(&mut command).context("cannot run cargo")?;
        if !output.status.success() {
            let tail = &output.stderr[output.stderr.len().saturating_sub(TAIL)..];
            let tail = String::from_utf8_lossy(tail);
            bail!("the nodes do not build ({}):\n{tail}", output.status);
        }
        Ok(())
    }
}

/// On a terminal cargo's own progress is the best there is.
fn build_visibly(command: &mut Command) -> Result<()> {
    let status = tools::status(command.stdout(Stdio::null())).context("cannot run cargo")?;
    if !status.success() {
        bail!("the nodes do not build ({status})");
    }
    Ok(())
}

/// The workspace that this process was built in, when it still is there.
pub fn workspace() -> Option<PathBuf> {
    let exe = env::current_exe().ok();
    let starts = [
        env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from),
        exe.and_then(|exe| exe.parent().map(Path::to_owned)),
        env::current_dir().ok(),
    ];
    starts
        .iter()
        .flatten()
        .find_map(|start| start.ancestors().find(|dir| is_workspace(dir)).map(Path::to_owned))
}

fn is_workspace(dir: &Path) -> bool {
    dir.join("services/cluster/Cargo.toml").is_file()
        && fs::read_to_string(dir.join("Cargo.toml"))
            .is_ok_and(|manifest| manifest.contains("[workspace]"))
}
