//! Servers and nodes, started and stopped in order.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::task;

use crate::{
    Node,
    binaries::Binaries,
    install::{self, Tool},
    nats,
    node::joined,
    ports::Port,
    postgres::{Durability, Postgres},
    process::{Launch, wait_for_strays},
    progress::Progress,
    redis, secret,
    secured::Secured,
    throwaway::{Throwaway, lay_out},
    turns,
};

mod lock;
mod plan;

use plan::Environment;

/// How long a killed launcher's servers may take over ending, before the next may start.
const STRAYS: Duration = Duration::from_secs(30);

/// So many NATS servers hold each log, where there are enough.
pub const REPLICATED: usize = 3;

/// How long the migration may take.
const MIGRATED: Duration = Duration::from_mins(5);

/// A running Natter. Dropping ends it at once; [`Cluster::stop`] does so in good order.
#[derive(Debug)]
pub struct Cluster {
    gateways: Vec<Node>,
    workers: Vec<Node>,
    pushers: Vec<Node>,
    postgres: Postgres,
    redis: Node,
    brokers: Vec<Node>,
    redis_url: String,
    nats_url: String,
    commands: Arc<Commands>,
    jwt_secret: String,
    data: PathBuf,
    // Last: the data go, or are free for the next, once nothing uses them any more.
    _hold: Hold,
}

/// What the worker's binary does besides working.
#[derive(Debug)]
struct Commands {
    migration: Launch,
    new_epoch: Launch,
}

/// What makes the data directory ours.
#[derive(Debug)]
enum Hold {
    Throwaway { _dir: Throwaway },
    Locked { _file: File },
}

/// How a [`Cluster`] is to be.
#[derive(Clone, Debug)]
pub struct Builder {
    gateways: usize,
    workers: usize,
    pushers: usize,
    brokers: usize,
    shards: u16,
    first_port: Option<u16>,
    data_dir: Option<PathBuf>,
    throwaway: Option<bool>,
    nats_sync_interval: String,
    env: Vec<(String, String)>,
    gateway_env: Vec<(String, String)>,
    worker_env: Vec<(String, String)>,
    push_env: Vec<(String, String)>,
    detour: Option<Detour>,
    secured: Option<Secured>,
    progress: Progress,
}

/// Where gateways reach NATS, given where it is.
#[derive(Clone)]
struct Detour(Arc<dyn Fn(SocketAddr) -> Result<SocketAddr> + Send + Sync>);

impl std::fmt::Debug for Detour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Detour")
    }
}

impl Builder {
    /// How many gateways; 1 by default.
    #[must_use]
    pub fn gateways(mut self, count: usize) -> Self {
        self.gateways = count;
        self
    }

    /// How many persistence workers; 1 by default.
    #[must_use]
    pub fn workers(mut self, count: usize) -> Self {
        self.workers = count;
        self
    }

    /// How many push workers; 1 by default.
    #[must_use]
    pub fn pushers(mut self, count: usize) -> Self {
        self.pushers = count;
        self
    }

    /// How many NATS servers, at least 1, the default. Several make one cluster, each with
    /// streams of its own; from [`REPLICATED`] on, every log is held by that many of them.
    #[must_use]
    pub fn brokers(mut self, count: usize) -> Self {
        self.brokers = count;
        self
    }

    /// How many shards; 1 by default.
    #[must_use]
    pub fn shards(mut self, count: u16) -> Self {
        self.shards = count;
        self
    }

    /// The first gateway's port, the others' following; any free ones by default.
    #[must_use]
    pub fn first_port(mut self, port: u16) -> Self {
        self.first_port = Some(port);
        self
    }

    /// Where the data are kept; by default in a temporary directory that goes with the cluster.
    #[must_use]
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Whether the data need not survive a crash of the machine, which makes Postgres much
    /// faster; so by default, unless there is a [`Builder::data_dir`].
    #[must_use]
    pub fn throwaway(mut self, throwaway: bool) -> Self {
        self.throwaway = Some(throwaway);
        self
    }

    /// How often NATS syncs its files: a duration like `2m`, the default, or `always`.
    #[must_use]
    pub fn nats_sync_interval(mut self, interval: impl Into<String>) -> Self {
        self.nats_sync_interval = interval.into();
        self
    }

    /// A variable of every node's environment. The later of two wins, and all win over the
    /// cluster's own.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// A variable of the gateways' environment.
    #[must_use]
    pub fn gateway_env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.gateway_env.push((key.into(), value.into()));
        self
    }

    /// A variable of the workers' environment.
    #[must_use]
    pub fn worker_env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.worker_env.push((key.into(), value.into()));
        self
    }

    /// A variable of the push workers' environment.
    #[must_use]
    pub fn push_env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.push_env.push((key.into(), value.into()));
        self
    }

    /// Sends the gateways' connections to each NATS server by another address, which `detour`
    /// answers when it is told the server's own: for what loses or delays something in between.
    #[must_use]
    pub fn detour(
        mut self,
        detour: impl Fn(SocketAddr) -> Result<SocketAddr> + Send + Sync + 'static,
    ) -> Self {
        self.detour = Some(Detour(Arc::new(detour)));
        self
    }

    /// Servers that take nobody without TLS and a login, and NATS none without a certificate; of
    /// brokers only one. What nodes need for it besides URLs is said by [`Builder::env`].
    #[must_use]
    pub fn secured(mut self, secured: Secured) -> Self {
        self.secured = Some(secured);
        self
    }

    /// What is said meanwhile; only installing is by default.
    #[must_use]
    pub fn progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }

    /// Starts it all: the servers, the migration, the workers, the gateways; each is ready when
    /// this returns.
    ///
    /// # Errors
    /// When a server cannot be found or installed, the nodes do not build, a port is taken, the
    /// data are in use by another cluster, or a process does not become ready. What has been
    /// started by then is ended.
    pub async fn start(self) -> Result<Cluster> {
        turns::take().await;
        task::spawn_blocking(move || self.start_blocking())
            .await
            .context("starting the cluster panicked")?
    }

    fn start_blocking(self) -> Result<Cluster> {
        let (data, hold) = self.hold_data()?;
        let jwt_secret = secret::kept_in(&data.join("jwt-secret"))?;
        let vapid_key = data.join("vapid-key.pem");
        secret::signing_key_in(&vapid_key)?;
        // Before anything slow: a taken port is the most likely reason to give up.
        let mut ports = self.gateway_ports()?;
        install::ensure(&Tool::SERVERS, self.progress)?;
        let binaries = Binaries::ready(self.progress)?;
        let (postgres, redis, brokers) = self.start_servers(&data)?;
        let secured = self.secured.as_ref();
        let redis_url = redis::url_of(&redis, secured);
        let nats_url = match secured {
            None => nats::urls(&brokers),
            Some(secured) => {
                let addresses = brokers.iter().map(|broker| broker.address().to_string());
                secured.nats_url(&addresses.collect::<Vec<_>>())
            }
        };
        let environment = Environment {
            data: &data,
            database_url: postgres.url(),
            redis_url: redis_url.clone(),
            nats_url: nats_url.clone(),
            log_replicas: if brokers.len() >= REPLICATED { REPLICATED } else { 1 },
            jwt_secret: &jwt_secret,
            shards: self.shards,
            all: &self.env,
        };
        let command = |command| environment.command(&binaries, command, &self.worker_env);
        let (migration, new_epoch) = (command("migrate"), command("new-epoch"));
        {
            let _step = self.progress.step("migrating the database");
            plan::run(&migration, MIGRATED).context("the migration failed")?;
        }
        let _step = self.progress.step("starting the nodes");
        let workers = start_all(self.workers, |index| {
            environment.start_worker(&binaries, index, &self.worker_env)
        })?;
        let pushers = start_all(self.pushers, |index| {
            environment.start_pusher(&binaries, index, &vapid_key, &self.push_env)
        })?;
        ports.resize_with(self.gateways, || None);
        let ports = ports.into_iter().map(Mutex::new);
        let ports: Vec<_> = ports.collect();
        let mut gateway_env = self.gateway_env.clone();
        if let Some(Detour(detour)) = &self.detour {
            let urls: Result<Vec<_>> = brokers
                .iter()
                .map(|broker| Ok(format!("nats://{}", detour(broker.address())?)))
                .collect();
            gateway_env.insert(0, ("NATTER_NATS_URL".to_owned(), urls?.join(",")));
        }
        let gateways = start_all(self.gateways, |index| {
            let claimed = ports[index].lock().ok().and_then(|mut port| port.take());
            let fixed = self.fixed_port(index)?;
            environment.start_gateway(&binaries, index, (claimed, fixed), &gateway_env)
        })?;
        let commands = Arc::new(Commands { migration, new_epoch });
        Ok(Cluster {
            gateways,
            workers,
            pushers,
            postgres,
            redis,
            brokers,
            redis_url,
            nats_url,
            commands,
            jwt_secret,
            data,
            _hold: hold,
        })
    }

    fn hold_data(&self) -> Result<(PathBuf, Hold)> {
        let Some(dir) = &self.data_dir else {
            let dir = Throwaway::new()?;
            return Ok((dir.path().to_owned(), Hold::Throwaway { _dir: dir }));
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = fs::canonicalize(dir).context("cannot resolve the data directory")?;
        let file = lock::take(&dir)?;
        lay_out(&dir)?;
        wait_for_strays(&dir.join("run"), STRAYS)?;
        plan::rotate_logs(&dir)?;
        Ok((dir, Hold::Locked { _file: file }))
    }

    fn fixed_port(&self, index: usize) -> Result<Option<u16>> {
        let Some(first) = self.first_port else {
            return Ok(None);
        };
        let port = u16::try_from(index).ok().and_then(|n| first.checked_add(n));
        port.map(Some).context("there are not that many ports")
    }

    fn gateway_ports(&self) -> Result<Vec<Option<Port>>> {
        (0..self.gateways)
            .map(|index| self.fixed_port(index)?.map(Port::exactly).transpose())
            .collect()
    }

    fn start_servers(&self, data: &Path) -> Result<(Postgres, Node, Vec<Node>)> {
        ensure!(self.brokers > 0, "a cluster has at least one NATS server");
        ensure!(self.brokers == 1 || self.secured.is_none(), "secured, there is one NATS server");
        let durability = if self.throwaway.unwrap_or(self.data_dir.is_none()) {
            Durability::Throwaway
        } else {
            Durability::Kept
        };
        let _step = self.progress.step("starting PostgreSQL, Redis and NATS");
        thread::scope(|scope| {
            let postgres = scope
                .spawn(|| Postgres::start(data, durability, self.progress, self.secured.as_ref()));
            let redis = scope.spawn(|| redis::start(data, self.secured.as_ref()));
            let more = self.secured.as_ref().map(Secured::nats).unwrap_or_default();
            let brokers = if self.brokers == 1 {
                nats::start(data, &self.nats_sync_interval, &more).map(|nats| vec![nats])
            } else {
                nats::start_cluster(data, &self.nats_sync_interval, self.brokers)
            };
            Ok((joined(postgres)?, joined(redis)?, brokers?))
        })
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            gateways: 1,
            workers: 1,
            pushers: 1,
            brokers: 1,
            shards: 1,
            first_port: None,
            data_dir: None,
            throwaway: None,
            nats_sync_interval: "2m".to_owned(),
            env: Vec::new(),
            gateway_env: Vec::new(),
            worker_env: Vec::new(),
            push_env: Vec::new(),
            detour: None,
            secured: None,
            progress: Progress::Quiet,
        }
    }
}

impl Cluster {
    /// One gateway and one worker of each kind on throwaway data, unless told otherwise.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A gateway, counted from 0.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn gateway(&self, index: usize) -> &Node {
        &self.gateways[index]
    }

    /// All gateways.
    pub fn gateways(&self) -> &[Node] {
        &self.gateways
    }

    /// A persistence worker, counted from 0.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn worker(&self, index: usize) -> &Node {
        &self.workers[index]
    }

    /// All persistence workers.
    pub fn workers(&self) -> &[Node] {
        &self.workers
    }

    /// A push worker, counted from 0.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn pusher(&self, index: usize) -> &Node {
        &self.pushers[index]
    }

    /// All push workers.
    pub fn pushers(&self) -> &[Node] {
        &self.pushers
    }

    /// The PostgreSQL server.
    pub fn postgres(&self) -> &Node {
        self.postgres.node()
    }

    /// The Redis server; its data do not survive its restart.
    pub fn redis(&self) -> &Node {
        &self.redis
    }

    /// The NATS server; the first of several.
    pub fn nats(&self) -> &Node {
        self.broker(0)
    }

    /// A NATS server, counted from 0.
    ///
    /// # Panics
    /// When there are not that many.
    pub fn broker(&self, index: usize) -> &Node {
        &self.brokers[index]
    }

    /// All NATS servers.
    pub fn brokers(&self) -> &[Node] {
        &self.brokers
    }

    /// The NATS server that leads a stream such as `LOG_0` now, as far as the others know; none
    /// while there is no such leader, or nobody says so within seconds.
    pub async fn leader_of(&self, stream: &str) -> Option<&Node> {
        let (brokers, stream) = (self.brokers.clone(), stream.to_owned());
        let asking = task::spawn_blocking(move || nats::leader_of(&brokers, &stream));
        let name = asking.await.ok().flatten()?;
        self.brokers.iter().find(|broker| broker.name() == name)
    }

    /// How many NATS servers are to hold a stream such as `LOG_0`; none while nobody says so.
    pub async fn replicas_of(&self, stream: &str) -> Option<u64> {
        let (brokers, stream) = (self.brokers.clone(), stream.to_owned());
        let asking = task::spawn_blocking(move || nats::replicas_of(&brokers, &stream));
        asking.await.ok().flatten()
    }

    /// Everything that runs: gateways, workers, push workers, then the servers.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.gateways.iter().chain(&self.workers).chain(&self.pushers);
        nodes.chain([self.postgres(), &self.redis]).chain(&self.brokers)
    }

    /// Where Postgres is, with its password.
    pub fn database_url(&self) -> String {
        self.postgres.url()
    }

    /// Has Postgres do a statement in the nodes' database, to break something or mend it: what it
    /// returns, a row a line.
    ///
    /// # Errors
    /// When Postgres refuses it.
    pub fn sql(&self, statement: &str) -> Result<String> {
        self.postgres.own_sql(statement)
    }

    /// Where Redis is.
    pub fn redis_url(&self) -> String {
        self.redis_url.clone()
    }

    /// Where NATS is: all its servers, separated by commas.
    pub fn nats_url(&self) -> String {
        self.nats_url.clone()
    }

    /// What the gateways sign tokens with.
    pub fn jwt_secret(&self) -> &str {
        &self.jwt_secret
    }

    /// The directory with data and logs.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Brings the schema and the streams up to date once more, as every upgrade does.
    ///
    /// # Errors
    /// When it fails, with the end of its log.
    pub async fn migrate(&self) -> Result<()> {
        let commands = Arc::clone(&self.commands);
        task::spawn_blocking(move || plan::run(&commands.migration, MIGRATED)).await?
    }

    /// Begins a new epoch of every log, as an operator does who has restored Postgres and NATS.
    ///
    /// # Errors
    /// When it fails, with the end of its log.
    pub async fn new_epoch(&self) -> Result<()> {
        let commands = Arc::clone(&self.commands);
        task::spawn_blocking(move || plan::run(&commands.new_epoch, MIGRATED)).await?
    }

    /// Ends everything in good order: gateways, which drain, then workers, then the servers.
    ///
    /// # Errors
    /// When a process had to be killed; the others are ended all the same.
    pub async fn stop(self) -> Result<()> {
        task::spawn_blocking(move || {
            let mut servers = vec![self.redis.clone(), self.postgres.node().clone()];
            servers.extend(self.brokers.iter().cloned());
            let ended = [
                end_all(&self.gateways),
                end_all(&self.pushers),
                end_all(&self.workers),
                end_all(&servers),
            ];
            ended.into_iter().collect()
        })
        .await
        .context("stopping the cluster panicked")?
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in self.nodes() {
            node.abort();
        }
    }
}

/// Starts nodes side by side: most of the time each waits for somebody else.
fn start_all(count: usize, start: impl Fn(usize) -> Result<Node> + Sync) -> Result<Vec<Node>> {
    let start = &start;
    thread::scope(|scope| {
        let starting: Vec<_> = (0..count).map(|index| scope.spawn(move || start(index))).collect();
        // All are waited for, so that those which did start are ended when one did not.
        let started: Vec<_> = starting.into_iter().map(joined).collect();
        started.into_iter().collect()
    })
}

fn end_all(nodes: &[Node]) -> Result<()> {
    thread::scope(|scope| {
        let ending: Vec<_> =
            nodes.iter().map(|node| scope.spawn(|| node.terminate_blocking().map(drop))).collect();
        let ended: Vec<_> = ending.into_iter().map(joined).collect();
        ended.into_iter().collect()
    })
}
