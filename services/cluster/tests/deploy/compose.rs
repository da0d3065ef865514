//! The compose file, as Docker Compose itself reads it. That takes no Docker.

use std::{collections::HashSet, env, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::{exported, list, output, text, workspace};

const FILE: &str = "docker-compose.yml";

/// What Compose reads, in a folder of its own.
const FILES: [&str; 3] = [FILE, "deploy/env.example", "deploy/make-env"];

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

    /// The same with the lines that a profile needs in `.env`.
    fn with_profile(profile: &str) -> Result<Self> {
        let folder = Self::with_env()?;
        let path = folder.path().join(".env");
        let all = fs::read_to_string(&path)?;
        let start = format!("# With `{profile}`");
        let lines = all.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
        let settings: Vec<_> = lines.map_while(|line| line.strip_prefix('#')).collect();
        ensure!(!settings.is_empty(), "env.example has nothing for {profile}");
        fs::write(&path, format!("{all}{}\n", settings.join("\n")))?;
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
fn compose_takes_its_file_with_each_profile() -> Result<()> {
    let folder = Folder::with_env()?;
    folder.config(&[FILE], &["config", "--quiet"])?;
    let profiles = folder.config(&[FILE], &["config", "--profiles"])?;
    for profile in ["check", "cluster", "observability", "s3"] {
        ensure!(profiles.lines().any(|one| one == profile), "only these profiles: {profiles}");
    }
    for profile in profiles.lines() {
        let arguments = ["--profile", profile, "config", "--quiet"];
        folder.config(&[FILE], &arguments).with_context(|| profile.to_owned())?;
    }
    Ok(())
}

#[test]
fn compose_names_what_makes_the_secrets_while_there_are_none() -> Result<()> {
    let Err(error) = Folder::new()?.config(&[FILE], &["config", "--quiet"]) else {
        anyhow::bail!("it would start without secrets")
    };
    ensure!(error.to_string().contains("run deploy/make-env"), "{error}");
    Ok(())
}

#[test]
fn compose_sets_what_the_programs_read() -> Result<()> {
    let all = Folder::with_env()?.everything(&[FILE])?;
    let known = exported::settings()?;
    for (service, program) in all["services"].as_object().into_iter().flatten() {
        let settings = program["environment"].as_object().into_iter().flatten();
        for (name, _) in settings.filter(|(name, _)| name.starts_with("NATTER_")) {
            ensure!(known.contains(name), "{service}: nothing reads {name}");
        }
    }
    let of_gateway = settings_of(&all, "gateway");
    let of_push = settings_of(&all, "push");
    for name in known.iter().filter(|name| name.contains("_HOOK_") || name.contains("_WEBHOOK_")) {
        let passed = of_gateway.iter().chain(&of_push).any(|(there, _)| *there == name);
        ensure!(passed, "{name} in .env reaches nobody");
    }
    for (name, value) in settings_of(&all, "migrate") {
        let there = of_gateway.iter().find(|(other, _)| *other == name);
        ensure!(
            there.is_some_and(|(_, other)| *other == value),
            "{name}: `natter migrate` in a gateway's container would undo it"
        );
    }
    Ok(())
}

#[test]
fn compose_has_three_brokers_where_that_is_asked_for() -> Result<()> {
    let alone = Folder::with_env()?;
    let started = alone.config(&[FILE], &["config", "--services"])?;
    let brokers = |started: &str| started.lines().filter(|name| name.starts_with("nats")).count();
    assert_eq!(brokers(&started), 1, "{started}");
    let command = "/services/nats/command";
    let of_one = list(&alone.everything(&[FILE])?, command)?.to_vec();
    ensure!(of_one.contains(&"/etc/nats/nats.conf".into()), "{of_one:?}");

    let folder = Folder::with_profile("cluster")?;
    let started = folder.config(&[FILE], &["--profile", "cluster", "config", "--services"])?;
    assert_eq!(brokers(&started), 3, "{started}");
    let all = folder.everything(&[FILE])?;
    for service in ["migrate", "worker", "push", "gateway"] {
        let replicas = format!("/services/{service}/environment/NATTER_LOG_REPLICAS");
        assert_eq!(text(&all, &replicas)?, "3", "{service}");
    }
    let (mut names, mut volumes) = (HashSet::new(), HashSet::new());
    for server in ["nats", "nats-2", "nats-3"] {
        let of = &all["services"][server];
        let command = list(of, "/command")?;
        ensure!(command.contains(&"/etc/nats/cluster.conf".into()), "{server}: {command:?}");
        ensure!(names.insert(text(of, "/environment/NATS_NAME")?), "{server}: another's name");
        let store = list(of, "/volumes")?.iter().find(|volume| volume["target"] == "/data");
        ensure!(volumes.insert(text(store.context("no store")?, "/source")?), "{server}");
        // The one URL that all programs have is that of all three.
        let others: &[Value] = list(of, "/networks/back/aliases")?;
        ensure!(server == "nats" || others.contains(&"nats".into()), "{server}: {others:?}");
        ensure!(of["networks"].get("front").is_none(), "{server} is reached from in front");
        let waited = &all["services"]["migrate"]["depends_on"][server]["condition"];
        assert_eq!(waited, "service_healthy", "{server}");
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
    let files = [FILE, "own.yml"];
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
    Ok(Folder::with_env()?.everything(&[FILE])?["services"].take())
}

/// A service's own settings, those too that `.env` may give it.
fn settings_of<'a>(all: &'a Value, service: &str) -> Vec<(&'a String, &'a Value)> {
    let environment = all["services"][service]["environment"].as_object();
    environment.into_iter().flatten().filter(|(name, _)| name.starts_with("NATTER_")).collect()
}
