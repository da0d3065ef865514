//! The compose files, as Docker Compose itself reads and merges them. That takes no Docker.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{exported, list, output, text, workspace};

const ALONE: &[&str] = &["docker-compose.yml"];
const CLUSTER: &[&str] = &["docker-compose.yml", "deploy/compose.cluster.yml"];

/// What Compose reads, in a folder of its own.
const FILES: [&str; 4] =
    ["docker-compose.yml", "deploy/compose.cluster.yml", "deploy/env.example", "deploy/make-env"];

/// What `deploy/make-env` and Compose are asked in.
struct Folder(TempDir);

impl Folder {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join("deploy"))?;
        for file in FILES {
            fs::copy(workspace()?.join(file), folder.path().join(file))
                .with_context(|| file.to_owned())?;
        }
        Ok(Self(folder))
    }

    /// With the secrets that one makes before the first start.
    fn with_env() -> Result<Self> {
        let folder = Self::new()?;
        output(Command::new("sh").arg("deploy/make-env").current_dir(folder.path()), "")?;
        Ok(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Asks Compose about these files, as a shell without settings of its own would.
    fn config(&self, files: &[&str], arguments: &[&str]) -> Result<String> {
        install::ensure(&[Tool::DockerCompose], Progress::Quiet)?;
        let mut command = install::docker_compose().context("no docker compose")?.command();
        command.current_dir(self.path()).env_clear();
        command.envs(env::vars_os().filter(|(name, _)| name == "PATH" || name == "HOME"));
        command.args(files.iter().flat_map(|file| ["-f", *file]));
        // The second one looks from the first one's folder.
        command.args(["--project-directory", "."]);
        command.args(arguments);
        output(&mut command, "")
    }

    /// What is to run, all profiles together.
    fn everything(&self, files: &[&str]) -> Result<Value> {
        let arguments = ["--profile", "*", "config", "--format", "json"];
        Ok(serde_json::from_str(&self.config(files, &arguments)?)?)
    }
}

#[test]
fn compose_takes_its_files_with_each_profile() -> Result<()> {
    let folder = Folder::with_env()?;
    for files in [ALONE, CLUSTER] {
        let profiles = folder.config(files, &["config", "--profiles"])?;
        ensure!(profiles.lines().count() >= 3, "only these profiles: {profiles}");
        folder.config(files, &["config", "--quiet"])?;
        for profile in profiles.lines() {
            let arguments = ["--profile", profile, "config", "--quiet"];
            folder.config(files, &arguments).with_context(|| profile.to_owned())?;
        }
    }
    Ok(())
}

#[test]
fn compose_names_what_makes_the_secrets_while_there_are_none() -> Result<()> {
    let Err(error) = Folder::new()?.config(ALONE, &["config", "--quiet"]) else {
        anyhow::bail!("it would start without secrets")
    };
    ensure!(error.to_string().contains("run deploy/make-env"), "{error}");
    Ok(())
}

#[test]
fn compose_sets_what_the_programs_read_and_no_less_for_a_cluster() -> Result<()> {
    let folder = Folder::with_env()?;
    let known = exported::settings()?;
    for files in [ALONE, CLUSTER] {
        let all = folder.everything(files)?;
        for (service, program) in all["services"].as_object().into_iter().flatten() {
            let settings = program["environment"].as_object().into_iter().flatten();
            for (name, _) in settings.filter(|(name, _)| name.starts_with("NATTER_")) {
                ensure!(known.contains(name), "{service}: nothing reads {name}");
            }
        }
    }
    for files in [ALONE, CLUSTER] {
        let all = folder.everything(files)?;
        let of_gateway = settings_of(&all, "gateway");
        for (name, value) in settings_of(&all, "migrate") {
            let there = of_gateway.iter().find(|(other, _)| *other == name);
            ensure!(
                there.is_some_and(|(_, other)| *other == value),
                "{name}: `natter migrate` in a gateway's container would undo it"
            );
        }
    }
    let cluster = folder.everything(CLUSTER)?;
    for service in ["migrate", "worker", "push"] {
        let replicas = format!("/services/{service}/environment/NATTER_LOG_REPLICAS");
        assert_eq!(text(&cluster, &replicas)?, "3", "{service}");
    }
    for service in ["migrate", "worker", "push", "gateway"] {
        let servers = text(&cluster, &format!("/services/{service}/environment/NATTER_NATS_URL"))?;
        assert_eq!(servers.split(',').count(), 3, "{service}");
    }
    for server in ["nats", "nats-2", "nats-3"] {
        let command = list(&cluster, &format!("/services/{server}/command"))?;
        ensure!(command.contains(&"/etc/nats/cluster.conf".into()), "{server}: {command:?}");
    }
    Ok(())
}

#[test]
fn compose_takes_the_override_for_servers_elsewhere() -> Result<()> {
    let folder = Folder::with_env()?;
    let page = fs::read_to_string(workspace()?.join("deploy/tls.md"))?;
    let mut examples = page.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let own = examples.find(|example| example.contains("\nservices:\n"));
    fs::write(folder.path().join("own.yml"), own.context("deploy/tls.md has no override")?)?;
    let files = ["docker-compose.yml", "own.yml"];
    let started = folder.config(&files, &["config", "--services"])?;
    let mut started: Vec<_> = started.lines().collect();
    started.sort_unstable();
    assert_eq!(started, ["gateway", "lb", "migrate", "push", "worker"]);
    let all = folder.everything(&files)?;
    for service in ["gateway", "worker", "push", "migrate"] {
        let of_service = settings_of(&all, service);
        ensure!(
            of_service.iter().any(|(name, _)| *name == "NATTER_NATS_CA"),
            "{service}: {of_service:?}"
        );
    }
    Ok(())
}

/// All services, of every profile.
pub fn services() -> Result<Value> {
    Ok(Folder::with_env()?.everything(ALONE)?["services"].take())
}

/// A service's own settings, those too that `.env` may give it.
fn settings_of<'a>(all: &'a Value, service: &str) -> Vec<(&'a String, &'a Value)> {
    let environment = all["services"][service]["environment"].as_object();
    environment.into_iter().flatten().filter(|(name, _)| name.starts_with("NATTER_")).collect()
}
