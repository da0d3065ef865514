//! What observes Natter finds what it is pointed at: the collector its parts and the store of traces,
//! Grafana its sources and dashboards. None of that is started here.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{compose, deploy, files, list, text, yaml};

/// A file of `deploy/observability`.
fn read(name: &str) -> Result<Value> {
    let text = fs::read_to_string(deploy()?.join("observability").join(name))?;
    yaml(&text, &[])?.pop().with_context(|| format!("{name} is empty"))
}

fn names(value: &Value) -> BTreeSet<String> {
    value.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect()
}

#[test]
fn the_collector_has_each_part_that_its_pipelines_name_and_sends_to_a_service() -> Result<()> {
    let (collector, services) = (read("collector.yml")?, names(&compose::services()?));
    let pipelines = collector["service"]["pipelines"].as_object().context("no pipelines")?;
    for (pipeline, parts) in pipelines {
        for kind in ["receivers", "processors", "exporters"] {
            for part in list(parts, &format!("/{kind}"))? {
                let part = part.as_str().context("no name")?;
                ensure!(collector[kind].get(part).is_some(), "{pipeline}: {kind} has no {part}");
            }
        }
    }
    for (name, exporter) in collector["exporters"].as_object().context("no exporters")? {
        let (host, _) = text(exporter, "/endpoint")?.split_once(':').context("no port")?;
        ensure!(services.contains(host), "{name} sends to {host}, and nothing is called that");
    }
    // Where `.env` has programs send to.
    let listens = text(&collector, "/receivers/otlp/protocols/grpc/endpoint")?;
    let (_, port) = listens.rsplit_once(':').context("no port")?;
    let example = fs::read_to_string(deploy()?.join("env.example"))?;
    let sends = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:{port}\n");
    ensure!(services.contains("collector") && example.contains(&sends), "no {sends}");
    Ok(())
}

#[test]
fn grafana_finds_its_sources_and_the_dashboards_their_source() -> Result<()> {
    let services = compose::services()?;
    let sources = read("grafana/provisioning/datasources/natter.yml")?;
    let mut known = BTreeSet::new();
    for source in list(&sources, "/datasources")? {
        let url = text(source, "/url")?;
        let host = url.trim_start_matches("http://").split(':').next().unwrap_or_default();
        ensure!(services.get(host).is_some(), "{url}: nothing is called {host}");
        known.insert(text(source, "/uid")?.to_owned());
    }
    let provided = read("grafana/provisioning/dashboards/natter.yml")?;
    let path = text(&provided, "/providers/0/options/path")?;
    let mounts = list(&services, "/grafana/volumes")?;
    let mounted = mounts.iter().find(|mount| mount["target"] == path).context("not mounted")?;
    ensure!(text(mounted, "/source")?.ends_with("deploy/observability/dashboards"), "{mounted}");
    for file in files(&deploy()?.join("observability/dashboards"), "json")? {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        for panel in list(&dashboard, "/panels")? {
            let Some(source) = panel["datasource"]["uid"].as_str() else { continue };
            let variable = source.starts_with('$');
            ensure!(variable || known.contains(source), "{}: no source {source}", file.display());
        }
    }
    Ok(())
}
