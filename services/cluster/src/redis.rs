//! One Redis server, in memory only: what it holds may be lost.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use crate::{
    install,
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::Launch,
    secured::Secured,
};

/// Databases of a server, so that every test may have its own.
pub(crate) const DATABASES: usize = 1_024;

pub(crate) fn start(dir: &Path, secured: Option<&Secured>) -> Result<Node> {
    let program = install::redis_server().context("Redis is not installed")?;
    let databases = DATABASES.to_string();
    Node::start_on_free_ports(|| {
        let port = Port::any()?;
        let number = port.address().port().to_string();
        let launch = Launch::new(&program, "redis", dir);
        let (launch, probe) = match secured {
            None => (launch.args(["--port", &number]), Probe::Redis),
            Some(secured) => {
                let config = dir.join("redis.conf");
                let text = secured.redis(port.address().port());
                fs::write(&config, text).context("cannot write Redis' configuration")?;
                (launch.args([config]), Probe::Listening)
            }
        };
        let launch = launch
            .args(["--bind", "127.0.0.1"])
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
            probe,
        })
    })
}

pub(crate) fn url_of(node: &Node, secured: Option<&Secured>) -> String {
    match secured {
        None => url(node, 0),
        Some(secured) => format!("rediss://{}{}/0", secured.login(), node.address()),
    }
}

pub(crate) fn url(node: &Node, database: usize) -> String {
    format!("redis://{}/{database}", node.address())
}
