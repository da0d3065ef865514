//! What is in `deploy/` holds together, and with the programs: manifests render and are what
//! Kubernetes takes, compose files what Docker Compose takes, alerts and dashboards ask for what there is, each alert has its test and its
//! page.

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use natter_cluster::{
    binaries,
    install::{self, Tool},
    progress::Progress,
};
use serde_json::Value;

mod compose;
mod exported;
mod image;
mod observed;
mod queries;

/// The oldest Kubernetes that the manifests are for, and the newest that they were checked with.
const KUBERNETES: [&str; 2] = ["1.30", "1.37"];

/// Set to write the alerts down for the Prometheus operator, instead of comparing.
const WRITE_RULES: &str = "NATTER_WRITE_RULES";

const OVERLAYS: [&str; 2] = ["development", "production"];

#[test]
fn queries_ask_for_what_is_exported_and_nothing_exported_is_forgotten() -> Result<()> {
    let mut asked: Vec<(String, String)> = Vec::new();
    for alert in alerts()? {
        asked.push((text(&alert, "/alert")?.to_owned(), text(&alert, "/expr")?.to_owned()));
    }
    for path in files(&deploy()?.join("observability/dashboards"), "json")? {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        for panel in list(&dashboard, "/panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let title = format!("{}: {}", path.display(), panel["title"]);
                asked.push((title, text(target, "/expr")?.to_owned()));
            }
        }
    }
    let metrics = exported::metrics()?;
    // Prometheus' own: whether it could ask.
    let mut known = BTreeSet::from(["up".to_owned()]);
    known.extend(metrics.iter().flat_map(|metric| metric.series.clone()));
    let mut seen = BTreeSet::new();
    for (who, query) in asked {
        let series = queries::series(&query);
        ensure!(!series.is_empty(), "{who}: asks for nothing: {query}");
        for name in series {
            ensure!(known.contains(&name), "{who}: nothing exports {name}");
            seen.insert(name);
        }
    }
    for metric in metrics {
        let shown = metric.series.iter().any(|series| seen.contains(series));
        ensure!(shown, "{} is on no dashboard and in no alert", metric.name);
    }
    Ok(())
}

#[test]
fn every_alert_has_a_page_of_the_runbook_and_a_test_and_nothing_else_has() -> Result<()> {
    let names = |documents: &[Value], pointer: &str| -> Result<BTreeSet<String>> {
        documents.iter().map(|one| Ok(text(one, pointer)?.to_owned())).collect()
    };
    let alerts = alerts()?;
    let named = names(&alerts, "/alert")?;
    let runbook = fs::read_to_string(deploy()?.join("runbook.md"))?;
    let entries = runbook.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_owned);
    assert_eq!(entries.collect::<BTreeSet<_>>(), named);
    let tests = yaml(&fs::read_to_string(deploy()?.join("observability/alerts.test.yaml"))?, &[])?;
    assert_eq!(names(list(&tests[0], "/tests")?, "/name")?, named);
    for alert in &alerts {
        let name = text(alert, "/alert")?;
        let page = format!("deploy/runbook.md#{}", name.to_lowercase());
        assert_eq!(text(alert, "/annotations/runbook")?, page);
        let severity = text(alert, "/labels/severity")?;
        ensure!(["critical", "warning"].contains(&severity), "{name}: {severity}");
    }
    Ok(())
}

#[test]
fn alerts_fire_when_they_should() -> Result<()> {
    install::ensure(&[Tool::Promtool], Progress::Quiet)?;
    let promtool = install::promtool().context("no promtool")?;
    let folder = deploy()?.join("observability");
    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]] {
        output(Command::new(&promtool).args(arguments).current_dir(&folder), "")?;
    }
    Ok(())
}

#[test]
fn the_operator_gets_the_same_alerts() -> Result<()> {
    let alerts = fs::read_to_string(deploy()?.join("observability/alerts.yaml"))?;
    let path = deploy()?.join("kubernetes/components/prometheus-operator/rules.yaml");
    let before = fs::read_to_string(&path)?;
    let (head, _) = before.split_once("spec:\n").context("no spec")?;
    let (_, groups) = alerts.split_once("\ngroups:\n").context("no groups")?;
    let mut rules = format!("{head}spec:\n  groups:\n");
    for line in groups.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        rules.extend([indent, line, "\n"]);
    }
    if env::var_os(WRITE_RULES).is_some() {
        fs::write(path, rules)?;
    } else {
        ensure!(rules == before, "{} is not that of alerts.yaml: see its head", path.display());
    }
    Ok(())
}

#[test]
fn manifests_render_and_kubernetes_takes_them() -> Result<()> {
    for overlay in OVERLAYS {
        let rendered = yaml(&render(overlay)?, &KUBERNETES).with_context(|| overlay.to_owned())?;
        ensure!(rendered.len() > 15, "{overlay}: only {} objects", rendered.len());
        let kept = rendered.iter().any(|object| object["kind"] == "Secret");
        ensure!(!kept, "{overlay}: a Secret in the repository");
    }
    let folder = deploy()?.join("kubernetes/examples");
    for path in files(&folder, "yaml")? {
        let text = fs::read_to_string(&path)?;
        // Values of charts are no objects, and only have to be YAML.
        let values = path.to_string_lossy().ends_with("-values.yaml");
        let versions = if values { &[][..] } else { &KUBERNETES[..] };
        yaml(&text, versions).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[test]
fn pods_may_do_little_and_stop_in_time() -> Result<()> {
    for overlay in OVERLAYS {
        let objects = yaml(&render(overlay)?, &[])?;
        let settings = settings(&objects)?;
        let drain: u64 = text(&settings, "/NATTER_DRAIN_SECONDS")?.parse()?;
        let mut pods = 0;
        for object in &objects {
            let Some(pod) = object.pointer("/spec/template/spec") else { continue };
            pods += 1;
            let name = text(object, "/metadata/name")?;
            let who = format!("{overlay}: {name}");
            assert_eq!(pod["automountServiceAccountToken"], false, "{who}");
            assert_eq!(pod["enableServiceLinks"], false, "{who}");
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{who}");
            assert!(pod["securityContext"]["runAsUser"].as_u64().is_some_and(|id| id > 0), "{who}");
            let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
            assert_eq!(seccomp, "RuntimeDefault", "{who}");
            for container in list(pod, "/containers")? {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{who}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{who}");
                assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]), "{who}");
                text(container, "/resources/limits/memory").context(who.clone())?;
                // Neither may depend on a server: an outage must not restart anything.
                if object["kind"] == "Deployment" {
                    for probe in ["startupProbe", "livenessProbe"] {
                        assert_eq!(container[probe]["httpGet"]["path"], "/live", "{who}");
                    }
                    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/ready", "{who}");
                }
            }
            if name == "natter-gateway" {
                let number = |pointer: &str| pod.pointer(pointer).and_then(Value::as_u64);
                let grace = number("/terminationGracePeriodSeconds").context("no grace")?;
                let sleep = number("/containers/0/lifecycle/preStop/sleep/seconds");
                let sleep = sleep.context("no preStop")?;
                ensure!(grace > sleep + drain + 10, "{who}: killed while it drains");
            }
        }
        assert_eq!(pods, 4, "gateways, workers of both kinds, the migration");
    }
    Ok(())
}

#[test]
fn every_setting_is_one_that_the_programs_have() -> Result<()> {
    let known = exported::settings()?;
    let own = |name: &str| name.starts_with("NATTER_");
    for overlay in OVERLAYS {
        let objects = yaml(&render(overlay)?, &[])?;
        let mut set: BTreeSet<String> = BTreeSet::new();
        set.extend(settings(&objects)?.as_object().into_iter().flatten().map(|(k, _)| k.clone()));
        for object in &objects {
            let containers = object.pointer("/spec/template/spec/containers");
            for container in containers.and_then(Value::as_array).into_iter().flatten() {
                let variables = container["env"].as_array().into_iter().flatten();
                set.extend(variables.filter_map(|one| one["name"].as_str()).map(str::to_owned));
            }
        }
        for name in set.iter().filter(|name| own(name)) {
            ensure!(known.contains(name), "{overlay}: nothing reads {name}");
        }
    }
    for name in ["kubernetes/secrets-example", "kubernetes/examples/external-secrets.yaml"] {
        let text = fs::read_to_string(deploy()?.join(name))?;
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        for word in words.filter(|word| own(word)) {
            ensure!(known.contains(word), "{name}: nothing reads {word}");
        }
    }
    Ok(())
}

#[test]
fn the_alert_and_the_autoscaler_know_how_many_connections_a_gateway_holds() -> Result<()> {
    let objects = yaml(&render("production")?, &[])?;
    let limit: u64 = text(&settings(&objects)?, "/NATTER_CONNECTIONS_MAX")?.parse()?;
    let alerts = alerts()?;
    let alert = alerts.iter().find(|alert| alert["alert"] == "NatterConnectionsNearLimit");
    let expected = format!("natter_connections > {}", limit / 5 * 4);
    assert_eq!(text(alert.context("no alert")?, "/expr")?, expected);
    let autoscaler = objects.iter().find(|object| object["kind"] == "HorizontalPodAutoscaler");
    let metrics = list(autoscaler.context("no autoscaler")?, "/spec/metrics")?;
    let pods = &metrics.iter().find(|metric| metric["type"] == "Pods").context("none")?["pods"];
    let counted = text(pods, "/metric/name")?;
    ensure!(exported::metrics()?.iter().any(|one| one.name == counted), "no {counted}");
    assert_eq!(text(pods, "/target/averageValue")?, (limit / 2).to_string());
    Ok(())
}

/// The settings of a rendered overlay.
fn settings(objects: &[Value]) -> Result<Value> {
    let of_settings = |object: &&Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        object["kind"] == "ConfigMap" && name.starts_with("natter-settings-")
    };
    Ok(objects.iter().find(of_settings).context("no settings")?["data"].clone())
}

/// The rules of alerts.yaml.
fn alerts() -> Result<Vec<Value>> {
    let file = yaml(&fs::read_to_string(deploy()?.join("observability/alerts.yaml"))?, &[])?;
    let mut alerts = Vec::new();
    for group in list(&file[0], "/groups")? {
        alerts.extend(list(group, "/rules")?.iter().cloned());
    }
    ensure!(!alerts.is_empty(), "no alerts");
    Ok(alerts)
}

/// An overlay, rendered.
fn render(overlay: &str) -> Result<String> {
    install::ensure(&[Tool::Kubectl], Progress::Quiet)?;
    let kubectl = install::kubectl().context("no kubectl")?;
    let folder = deploy()?.join("kubernetes/overlays").join(overlay);
    output(Command::new(kubectl).arg("kustomize").arg(folder), "")
}

/// The documents of a YAML text, valid by the schemas of these versions of Kubernetes.
fn yaml(text: &str, versions: &[&str]) -> Result<Vec<Value>> {
    install::ensure(&[Tool::KubernetesSchemas], Progress::Quiet)?;
    let found = install::kubernetes_schemas().context("no schemas")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/deploy/documents.py");
    let mut command = Command::new(found.python);
    command.arg(script).args(versions).env("PYTHONPATH", found.packages);
    Ok(serde_json::from_str(&output(&mut command, text)?)?)
}

/// What a program says when it is told `input`.
fn output(command: &mut Command, input: &str) -> Result<String> {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn()?;
    // It reads all of it before it says anything.
    child.stdin.take().context("no input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{}: {said}{error}", command.get_program().display());
    }
    Ok(said)
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.retain(|path| path.extension() == Some(extension.as_ref()));
    ensure!(!files.is_empty(), "nothing in {}", folder.display());
    Ok(files)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no {pointer} in {value}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a [Value]> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.map(Vec::as_slice).with_context(|| format!("no {pointer} in {value}"))
}

fn deploy() -> Result<PathBuf> {
    Ok(workspace()?.join("deploy"))
}

fn workspace() -> Result<PathBuf> {
    binaries::workspace().context("not within the workspace")
}
