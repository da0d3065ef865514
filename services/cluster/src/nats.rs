//! One nats-server with JetStream.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    install,
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::Launch,
};

/// Starts a server with its streams in `<dir>/nats`. `sync_interval` is a duration as NATS
/// writes it, or `always`: a sync before every ack.
pub(crate) fn start(dir: &Path, sync_interval: &str) -> Result<Node> {
    let program = install::nats_server().context("nats-server 2.11 or newer is not installed")?;
    let home = dir.join("nats");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    Node::start_on_free_ports(|| {
        let (port, admin) = (Port::any()?, Port::any()?);
        let config = home.join("nats.conf");
        let text = settings(&home, &port, &admin, sync_interval)?;
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let launch =
            Launch::new(&program, "nats", dir).args(["-c".into(), config.into_os_string()]);
        Ok(Plan {
            role: Role::Nats,
            name: "nats".to_owned(),
            port,
            admin: Some(admin),
            launch,
            probe: Probe::Nats,
        })
    })
}

/// The limits are accounts, not reservations: they hold on a small disk too.
fn settings(home: &Path, port: &Port, admin: &Port, sync_interval: &str) -> Result<String> {
    let store = home.join("jetstream");
    // A quoted string of this format is close enough to JSON's.
    let store = serde_json::to_string(&store).context("the path is not UTF-8")?;
    Ok(format!(
        "listen: \"{}\"\nhttp: \"{}\"\nmax_payload: 1MB\n\
         jetstream {{\n  store_dir: {store}\n  max_mem: 1GB\n  max_file: 20GB\n  \
         sync_interval: {sync_interval}\n}}\n",
        port.address(),
        admin.address(),
    ))
}

pub(crate) fn url(node: &Node) -> String {
    format!("nats://{}", node.address())
}
