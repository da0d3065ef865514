//! One MariaDB server, for tests: what an older system may have kept its data in.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use crate::{
    install,
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::Launch,
};

/// Starts a server that lets anybody in who is on this machine, without a database.
pub(crate) fn start(dir: &Path) -> Result<Node> {
    let program = install::mariadb().context("MariaDB is not installed")?;
    let data = dir.join("mariadb");
    fs::create_dir_all(&data).context("cannot make the data directory")?;
    Node::start_on_free_ports(|| {
        let port = Port::any()?;
        // It makes what it needs in an empty directory, all but the tables of accounts.
        let mut launch = Launch::new(&program, "mariadb", dir)
            .args(["--no-defaults", "--skip-grant-tables", "--skip-slave-start"])
            .args([format!("--datadir={}", data.display())])
            // A socket's path is limited to 107 bytes, and nobody needs one.
            .args([format!("--socket=natter-{}", port.address().port())])
            .args(["--bind-address=127.0.0.1".to_owned()])
            .args([format!("--port={}", port.address().port())])
            .args(["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=OFF"]);
        if geteuid().is_root() {
            launch = launch.args(["--user=root"]);
        }
        Ok(Plan {
            role: Role::MariaDb,
            name: "mariadb".to_owned(),
            port,
            admin: None,
            more: Vec::new(),
            launch,
            probe: Probe::Listening,
        })
    })
}

pub(crate) fn url(node: &Node) -> String {
    format!("mysql://root@{}", node.address())
}
