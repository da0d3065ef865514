//! nats-server with JetStream: one, or several that are one cluster.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    install,
    node::{Node, Plan, Probe, Role},
    ports::Port,
    process::Launch,
};

/// Of one answer; nobody gives one for a stream without a leader.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts a server with its streams in `<dir>/nats`. `sync_interval` is a duration as NATS
/// writes it, or `always`: a sync before every ack.
/// `more` are further lines of its configuration.
pub(crate) fn start(dir: &Path, sync_interval: &str, more: &str) -> Result<Node> {
    let program = program()?;
    Node::start_on_free_ports(|| {
        let seat = Seat::new("nats".to_owned(), Vec::new())?;
        let mut plan = seat.plan(&program, dir, sync_interval, ("", more))?;
        if !more.is_empty() {
            // It may not speak in the clear any more, but for its monitoring.
            plan.probe = Probe::NatsCluster;
        }
        Ok(plan)
    })
}

/// Starts `count` servers that are one cluster, with their streams in `<dir>/nats-1` and so on.
/// They are ready once they have chosen a leader for the making of streams.
pub(crate) fn start_cluster(dir: &Path, sync_interval: &str, count: usize) -> Result<Vec<Node>> {
    let program = program()?;
    Node::start_together(|| {
        let seats: Result<Vec<_>> = (1..=count)
            .map(|number| Seat::new(format!("nats-{number}"), vec![Port::any()?]))
            .collect();
        let seats = seats?;
        let routes: Vec<_> = seats.iter().flat_map(|seat| seat.more.iter()).collect();
        let routes: Vec<_> =
            routes.iter().map(|port| format!("nats://{}", port.address())).collect();
        let routes = routes.join(", ");
        seats
            .into_iter()
            .map(|seat| seat.plan(&program, dir, sync_interval, (&routes, "")))
            .collect()
    })
}

fn program() -> Result<PathBuf> {
    install::nats_server().context("nats-server 2.11 or newer is not installed")
}

/// A server's name, the same across starts, since its peers know it by that, and its ports.
struct Seat {
    name: String,
    port: Port,
    admin: Port,
    /// Where its peers reach it, if it has any.
    more: Vec<Port>,
}

impl Seat {
    fn new(name: String, more: Vec<Port>) -> Result<Self> {
        Ok(Self { name, port: Port::any()?, admin: Port::any()?, more })
    }

    fn plan(
        self,
        program: &Path,
        dir: &Path,
        sync_interval: &str,
        (routes, more): (&str, &str),
    ) -> Result<Plan> {
        let home = dir.join(&self.name);
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let config = home.join("nats.conf");
        let text = self.settings(&home, sync_interval, routes)? + more;
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let launch =
            Launch::new(program, &self.name, dir).args(["-c".into(), config.into_os_string()]);
        let probe = if self.more.is_empty() { Probe::Nats } else { Probe::NatsCluster };
        let Self { name, port, admin, more } = self;
        Ok(Plan { role: Role::Nats, name, port, admin: Some(admin), more, launch, probe })
    }

    /// The limits are accounts, not reservations: they hold on a small disk too. Nobody is told
    /// of other servers than those that it was given: a detour would be left.
    fn settings(&self, home: &Path, sync_interval: &str, routes: &str) -> Result<String> {
        let store = home.join("jetstream");
        // A quoted string of this format is close enough to JSON's.
        let store = serde_json::to_string(&store).context("the path is not UTF-8")?;
        let (listen, monitoring) = (self.port.address(), self.admin.address());
        let cluster = self.more.first().map(|route| {
            format!(
                "cluster {{\n  name: natter\n  listen: \"{}\"\n  no_advertise: true\n  \
                 routes: [{routes}]\n}}\n",
                route.address(),
            )
        });
        Ok(format!(
            "listen: \"{listen}\"\nhttp: \"{monitoring}\"\nserver_name: {}\nmax_payload: 1MB\n\
             jetstream {{\n  store_dir: {store}\n  max_mem: 1GB\n  max_file: 20GB\n  \
             sync_interval: {sync_interval}\n}}\n{}",
            self.name,
            cluster.unwrap_or_default(),
        ))
    }
}

pub(crate) fn url(node: &Node) -> String {
    format!("nats://{}", node.address())
}

/// All of them, as nodes take it.
pub(crate) fn urls(nodes: &[Node]) -> String {
    nodes.iter().map(url).collect::<Vec<_>>().join(",")
}

/// The name of the server that leads a stream, where one of `nodes` knows it.
pub(crate) fn leader_of(nodes: &[Node], stream: &str) -> Option<String> {
    let running = nodes.iter().filter(|node| node.pid().is_some());
    let answers = running.filter_map(|node| stream_info(node.address(), stream).ok());
    let mut leaders =
        answers.filter_map(|info| Some(info["cluster"]["leader"].as_str()?.to_owned()));
    leaders.next()
}

/// How many servers are to hold a stream, where one of `nodes` knows it.
pub(crate) fn replicas_of(nodes: &[Node], stream: &str) -> Option<u64> {
    let running = nodes.iter().filter(|node| node.pid().is_some());
    let mut answers = running.filter_map(|node| stream_info(node.address(), stream).ok());
    answers.find_map(|info| info["config"]["num_replicas"].as_u64())
}

/// What its leader says of a stream, asked in NATS's own protocol.
fn stream_info(server: SocketAddr, stream: &str) -> Result<Value> {
    let mut connection = TcpStream::connect_timeout(&server, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(
        format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n\
             PUB $JS.API.STREAM.INFO.{stream} answer 0\r\n\r\n"
        )
        .as_bytes(),
    )?;
    let mut lines = BufReader::new(connection).lines();
    loop {
        let line = lines.next().context("no answer")??;
        if line.starts_with("MSG answer") {
            let answer = lines.next().context("half an answer")??;
            return serde_json::from_str(&answer).context("not JSON");
        }
    }
}
