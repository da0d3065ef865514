//! What the sources say of metrics and settings. A counter is on `/metrics` only once it has
//! counted, so asking a running node would not tell all of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// All sources of the programs, the command that looks after them among them, without their tests.
pub fn sources() -> Result<Vec<String>> {
    let services = workspace()?.join("services");
    let mut files = Vec::new();
    for program in ["gateway", "persistence", "push", "webhooks", "operator", "shared"] {
        collect(&services.join(program), &mut files)?;
    }
    let texts = files.iter().map(|file| {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        Ok(text.split("#[cfg(test)]").next().unwrap_or_default().to_owned())
    });
    texts.collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && path.file_name() != Some("tests".as_ref()) {
            collect(&path, files)?;
        } else if path.extension() == Some("rs".as_ref()) {
            files.push(path);
        }
    }
    Ok(())
}

/// One metric: its name, and the names of its series.
pub struct Metric {
    pub name: String,
    pub series: Vec<String>,
}

/// The metrics that the programs export.
pub fn metrics() -> Result<Vec<Metric>> {
    let mut metrics = Vec::new();
    for text in sources()? {
        for (call, suffixes) in [
            ("metrics::counter!(", &[""][..]),
            ("metrics::gauge!(", &[""][..]),
            ("metrics::histogram!(", &["_bucket", "_sum", "_count"][..]),
        ] {
            for rest in text.split(call).skip(1) {
                let name = name(rest, &text)?;
                let series = suffixes.iter().map(|suffix| format!("{name}{suffix}")).collect();
                metrics.push(Metric { name, series });
            }
        }
    }
    ensure!(metrics.len() > 20, "only {} metrics are found", metrics.len());
    Ok(metrics)
}

/// The first argument of a macro: a literal, or a constant of the same file.
fn name(arguments: &str, file: &str) -> Result<String> {
    let first = arguments.split([',', ')']).next().unwrap_or_default().trim();
    let literal = if first.starts_with('"') {
        first
    } else {
        let constant = format!("const {first}: &str = ");
        file.split(&constant).nth(1).with_context(|| format!("what is {first}?"))?
    };
    let name = literal.split('"').nth(1).with_context(|| format!("no name in {literal}"))?;
    Ok(name.to_owned())
}

/// The environment variables that the programs read.
pub fn settings() -> Result<BTreeSet<String>> {
    let mut settings = BTreeSet::new();
    for text in sources()? {
        for rest in text.split("env = \"").skip(1) {
            settings.extend(rest.split('"').next().map(str::to_owned));
        }
    }
    Ok(settings)
}
