//! How the nodes are run: all their configuration is environment.

use std::{env, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};

use crate::{
    Node, Role,
    binaries::Binaries,
    node::{Plan, Probe},
    ports::Port,
    process::Launch,
};

/// What all nodes of a cluster are told.
pub(super) struct Environment<'a> {
    pub(super) data: &'a Path,
    pub(super) database_url: String,
    pub(super) redis_url: String,
    pub(super) nats_url: String,
    /// NATS servers that hold each log.
    pub(super) log_replicas: usize,
    pub(super) jwt_secret: &'a str,
    pub(super) shards: u16,
    /// Said last, so that it wins.
    pub(super) all: &'a [(String, String)],
}

type Variables = [(String, String)];

impl Environment<'_> {
    /// A command of the worker's binary that ends by itself: `migrate`, say.
    pub(super) fn command(&self, binaries: &Binaries, command: &str, extra: &Variables) -> Launch {
        let mut launch = Launch::new(&binaries.persistence, command, self.data).args([command]);
        launch.env = self.variables(command, extra);
        launch
    }

    pub(super) fn start_worker(
        &self,
        binaries: &Binaries,
        index: usize,
        extra: &Variables,
    ) -> Result<Node> {
        let name = format!("{}-{}", Role::Persistence.name(), index + 1);
        Node::start_on_free_ports(|| {
            let port = Port::any()?;
            let mut launch = Launch::new(&binaries.persistence, &name, self.data).args(["run"]);
            launch.env = self.variables(&name, extra);
            let listen = ("NATTER_ADMIN_LISTEN".to_owned(), port.address().to_string());
            launch.env.insert(0, listen);
            Ok(Plan {
                role: Role::Persistence,
                name: name.clone(),
                port,
                admin: None,
                more: Vec::new(),
                launch,
                probe: Probe::HttpAllWell,
            })
        })
    }

    /// `vapid_key` is a file with what it signs Web Push with.
    pub(super) fn start_pusher(
        &self,
        binaries: &Binaries,
        index: usize,
        vapid_key: &Path,
        extra: &Variables,
    ) -> Result<Node> {
        let name = format!("{}-{}", Role::Push.name(), index + 1);
        let web_push = [
            ("NATTER_PUSH_VAPID_KEY_FILE", vapid_key.display().to_string()),
            ("NATTER_PUSH_VAPID_SUBJECT", "mailto:nobody@example.org".to_owned()),
        ];
        Node::start_on_free_ports(|| {
            let port = Port::any()?;
            let mut launch = Launch::new(&binaries.push, &name, self.data);
            launch.env = self.variables(&name, extra);
            let own = [("NATTER_ADMIN_LISTEN", port.address().to_string())];
            let own = own.into_iter().chain(web_push.clone());
            launch.env.splice(0..0, own.map(|(key, value)| (key.to_owned(), value)));
            Ok(Plan {
                role: Role::Push,
                name: name.clone(),
                port,
                admin: None,
                more: Vec::new(),
                launch,
                probe: Probe::HttpAllWell,
            })
        })
    }

    /// `port` is the claim on a fixed port, and its number to claim it again.
    pub(super) fn start_gateway(
        &self,
        binaries: &Binaries,
        index: usize,
        port: (Option<Port>, Option<u16>),
        extra: &Variables,
    ) -> Result<Node> {
        let name = format!("{}-{}", Role::Gateway.name(), index + 1);
        let (mut claimed, fixed) = port;
        Node::start_on_free_ports(|| {
            let port = match (claimed.take(), fixed) {
                (Some(port), _) => port,
                (None, Some(number)) => Port::exactly(number)?,
                (None, None) => Port::any()?,
            };
            let admin = Port::any()?;
            let mut launch = Launch::new(&binaries.gateway, &name, self.data);
            launch.env = self.variables(&name, extra);
            let listen = [("NATTER_LISTEN", &port), ("NATTER_ADMIN_LISTEN", &admin)]
                .map(|(key, port)| (key.to_owned(), port.address().to_string()));
            launch.env.splice(0..0, listen);
            Ok(Plan {
                role: Role::Gateway,
                name: name.clone(),
                port,
                admin: Some(admin),
                more: Vec::new(),
                launch,
                probe: Probe::Http,
            })
        })
    }

    fn variables(&self, node_id: &str, extra: &Variables) -> Vec<(String, String)> {
        let own = [
            ("NATTER_DATABASE_URL", self.database_url.clone()),
            ("NATTER_REDIS_URL", self.redis_url.clone()),
            ("NATTER_NATS_URL", self.nats_url.clone()),
            ("NATTER_JWT_SECRET", self.jwt_secret.to_owned()),
            ("NATTER_NODE_ID", node_id.to_owned()),
            ("NATTER_SHARDS", self.shards.to_string()),
            ("NATTER_MEDIA_STORE", self.data.join("media").display().to_string()),
            // Read by those that make streams.
            ("NATTER_LOG_REPLICAS", self.log_replicas.to_string()),
            ("NATTER_LOG", exported("NATTER_LOG", "info")),
            ("NATTER_LOG_FORMAT", exported("NATTER_LOG_FORMAT", "json")),
        ];
        own.map(|(key, value)| (key.to_owned(), value))
            .into_iter()
            .chain(self.all.iter().cloned())
            .chain(extra.iter().cloned())
            .collect()
    }
}

/// Runs it to its end.
pub(super) fn run(launch: &Launch, limit: Duration) -> Result<()> {
    let log_from = launch.log_end();
    let mut process = launch.spawn()?;
    match process.wait(limit)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("it ended with {status}:\n{}", launch.log_tail(log_from)),
        None => bail!("it takes longer than {} s", limit.as_secs()),
    }
}

/// The user's own wish about logs, or a default.
fn exported(key: &str, default: &str) -> String {
    env::var(key).unwrap_or_else(|_| default.to_owned())
}

/// Starts all logs anew, keeping those of the run before.
pub(super) fn rotate_logs(dir: &Path) -> Result<()> {
    let logs = fs::read_dir(dir.join("logs")).context("cannot list the logs")?;
    for log in logs.flatten().map(|entry| entry.path()) {
        if log.extension().is_some_and(|extension| extension == "log") {
            fs::rename(&log, log.with_extension("log.1")).context("cannot move a log")?;
        }
    }
    Ok(())
}
