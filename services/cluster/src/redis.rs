//! One Redis server, in memory only: what it holds may be lost.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{
    install,
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::Launch,
};

/// Databases of a server, so that every test may have its own.
pub(crate) const DATABASES: usize = 1_024;

pub(crate) fn start(dir: &Path) -> Result<Node> {
    let program = install::redis_server().context("Redis is not installed")?;
    let databases = DATABASES.to_string();
    Node::start_on_free_ports(|| {
        let port = Port::any()?;
        let number = port.address().port().to_string();
        let launch = Launch::new(&program, "redis", dir)
            .args(["--port", &number, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no"])
            .args(["--databases", &databases])
            // Everything has a time to live, so there always is something to make room with.
            .args(["--maxmemory", "512mb", "--maxmemory-policy", "volatile-ttl"]);
        Ok(Plan {
            role: Role::Redis,
            name: "redis".to_owned(),
            port,
            admin: None,
            more: Vec::new(),
            launch,
            probe: Probe::Redis,
        })
    })
}

pub(crate) fn url(node: &Node, database: usize) -> String {
    format!("redis://{}/{database}", node.address())
}
