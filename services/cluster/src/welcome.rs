//! What a newcomer, or a script, is told once everything runs.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use natter_cluster::{Cluster, Node, Role};
use serde::Serialize;
use uuid::Uuid;

#[derive(Serialize)]
struct Processes {
    processes: Vec<Process>,
}

#[derive(Serialize)]
struct Process {
    role: Role,
    pid: u32,
    address: SocketAddr,
}

/// One line of JSON with every process. One that is started again later has another pid.
pub(crate) fn processes(cluster: &Cluster) -> Result<String> {
    let processes: Option<Vec<Process>> = cluster.nodes().map(process).collect();
    let processes = processes.context("a process ended as soon as it was ready")?;
    Ok(serde_json::to_string(&Processes { processes })?)
}

fn process(node: &Node) -> Option<Process> {
    Some(Process { role: node.role(), pid: node.pid()?, address: node.address() })
}

/// What to do next; the lines work as they stand, each time they are printed.
pub(crate) fn text(cluster: &Cluster) -> String {
    let pages: Vec<String> =
        cluster.gateways().iter().map(|gateway| format!("http://{}/", gateway.address())).collect();
    let address = cluster.gateway(0).address();
    let other = cluster.gateways().last().map_or(address, Node::address);
    // An address is registered once, and the data of the run before may still be there.
    let random = Uuid::new_v4().simple().to_string();
    let email = format!("ada-{}@example.org", &random[..6]);
    format!(
        r#"
Natter is up. Ctrl-C stops it.

  The page (open it twice, as two people):
    {pages}

  Register somebody, and keep the token:
    TOKEN=$(curl -sS http://{address}/v1/auth/register -H 'content-type: application/json' -d '{{"name":"Ada","email":"{email}","password":"correct horse battery"}}' | sed 's/.*"accessToken":"\([^"]*\)".*/\1/'); echo $TOKEN

  Make a chat over a WebSocket (without the echo: type frames yourself):
    echo '{{"event":"create_chat","id":1,"data":{{"isGroup":true,"title":"Hello","participantIds":[]}}}}' | NATTER_TOKEN=$TOKEN cargo up socket --url ws://{other}/v1/ws

  The same chat over REST:
    curl -sS http://{address}/v1/chats -H "authorization: Bearer $TOKEN"

  Data and logs: {data}
"#,
        pages = pages.join("  "),
        data = cluster.data_dir().display(),
    )
}
