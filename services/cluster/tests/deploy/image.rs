//! What the image is built from: all of the workspace, though `.dockerignore` lets in only what it
//! names and the Dockerfile copies it folder by folder. That takes no Docker either.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{deploy, list, output, text, workspace};

/// The stages of the Dockerfile that want the whole workspace, by their names.
const STAGES: [&str; 2] = ["manifests", "build"];

#[test]
fn the_image_is_built_from_every_member_of_the_workspace() -> Result<()> {
    let members = members(&workspace()?)?;
    let rules = rules()?;
    for member in &members {
        let manifest = member.join("Cargo.toml");
        ensure!(let_in(&rules, &manifest), ".dockerignore keeps {} out", manifest.display());
        for stage in STAGES {
            let copied = copied(stage)?;
            let there = copied.iter().any(|folder| member.starts_with(folder));
            ensure!(there, "the Dockerfile's `{stage}` copies no {}", member.display());
        }
    }
    ensure!(!let_in(&rules, Path::new(".env")), ".dockerignore lets secrets in");
    ensure!(!let_in(&rules, Path::new("services/gateway/target/debug")), "it lets builds in");
    Ok(())
}

#[test]
fn cargo_takes_the_workspace_that_the_layer_of_dependencies_is_made_of() -> Result<()> {
    let (source, folder) = (workspace()?, tempfile::tempdir()?);
    let rules = rules()?;
    for name in copied("manifests")? {
        copy(&source, folder.path(), &name, &rules)?;
    }
    let step = stage("manifests")?.split_once("\nRUN ").context("it runs nothing")?.1.to_owned();
    output(Command::new("sh").args(["-c", &step]).current_dir(folder.path()), "")?;
    // Every member, with every target that its manifest names.
    assert_eq!(members(folder.path())?, members(&source)?);
    let files = listing(folder.path())?;
    for target in files.iter().filter(|path| path.extension().is_some_and(|it| it == "rs")) {
        assert_eq!(fs::read_to_string(folder.path().join(target))?, "fn main() { }\n");
    }
    Ok(())
}

/// The folders of the members of a workspace, as Cargo tells them.
fn members(workspace: &Path) -> Result<Vec<PathBuf>> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--no-deps", "--offline", "--format-version", "1"]);
    let told: Value = serde_json::from_str(&output(command.current_dir(workspace), "")?)?;
    let root = Path::new(text(&told, "/workspace_root")?);
    let mut members = Vec::new();
    for package in list(&told, "/packages")? {
        let manifest = Path::new(text(package, "/manifest_path")?).strip_prefix(root)?;
        members.push(manifest.parent().context("no folder")?.to_owned());
    }
    members.sort();
    ensure!(members.len() > 10, "only {members:?}");
    Ok(members)
}

/// The lines of `.dockerignore`, and whether each lets in.
fn rules() -> Result<Vec<(bool, String)>> {
    let text = fs::read_to_string(workspace()?.join(".dockerignore"))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines
        .map(|line| match line.strip_prefix('!') {
            Some(pattern) => (true, pattern.to_owned()),
            None => (false, line.to_owned()),
        })
        .collect())
}

/// Whether a file is part of what the builder gets: the last line that fits it or a folder above
/// decides. Of patterns it knows those that are there: `*`, `**/NAME` and plain paths.
fn let_in(rules: &[(bool, String)], path: &Path) -> bool {
    let fits = |pattern: &str| match pattern.strip_prefix("**/") {
        Some(name) => path.iter().any(|part| part == name),
        None => pattern == "*" || path.starts_with(pattern),
    };
    rules.iter().rev().find(|(_, pattern)| fits(pattern)).is_none_or(|(inside, _)| *inside)
}

/// A stage of the Dockerfile, with continued lines as one.
fn stage(name: &str) -> Result<String> {
    let dockerfile = fs::read_to_string(deploy()?.join("Dockerfile"))?;
    let lines = dockerfile.lines().filter(|line| !line.starts_with('#'));
    let text = lines.fold(String::new(), |text, line| match line.strip_suffix('\\') {
        Some(line) => text + line,
        None => text + line + "\n",
    });
    let end = format!(" AS {name}\n");
    let (_, rest) = text.split_once(&end).with_context(|| format!("no stage {name}"))?;
    Ok(rest.split("\nFROM ").next().unwrap_or(rest).to_owned())
}

/// What a stage copies from the builder's context.
fn copied(name: &str) -> Result<Vec<PathBuf>> {
    let stage = stage(name)?;
    let copies = stage.lines().filter_map(|line| line.strip_prefix("COPY "));
    let own = copies.filter(|copy| !copy.starts_with("--from="));
    Ok(own
        .flat_map(|copy| {
            let mut words: Vec<_> = copy.split_whitespace().map(PathBuf::from).collect();
            words.pop();
            words
        })
        .collect())
}

/// Copies a file or folder of the context, without what is kept out.
fn copy(source: &Path, target: &Path, path: &Path, rules: &[(bool, String)]) -> Result<()> {
    let from = source.join(path);
    if from.is_dir() {
        for entry in fs::read_dir(&from)? {
            copy(source, target, &path.join(entry?.file_name()), rules)?;
        }
    } else if let_in(rules, path) {
        let to = target.join(path);
        fs::create_dir_all(to.parent().context("no folder")?)?;
        fs::copy(from, to)?;
    }
    Ok(())
}

/// The files below a folder.
fn listing(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    Ok(files)
}
