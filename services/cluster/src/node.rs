//! One process of a cluster, at an address that stays its own while it is away.

use std::{
    fmt,
    net::SocketAddr,
    path::Path,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde::Serialize;
use tokio::task;

use crate::{
    ports::Port,
    process::{Launch, POLL, Process},
};

mod probe;

pub(crate) use probe::Probe;

/// How long a process may take over becoming ready.
const READY: Duration = Duration::from_mins(1);

/// How long a process may take over ending by itself; a gateway drains in this time.
const ENDED: Duration = Duration::from_secs(40);

/// Between two tries of a start that met what an earlier process left behind.
const AGAIN: Duration = Duration::from_millis(100);

/// How often a start may move on to other ports.
const PORT_TRIES: usize = 5;

/// What a process is for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Terminates sockets and REST.
    Gateway,
    /// The worker that writes feeds to Postgres.
    Persistence,
    /// The worker that notifies devices that are offline.
    Push,
    /// PostgreSQL.
    Postgres,
    /// Redis or Valkey.
    Redis,
    /// nats-server with JetStream.
    Nats,
    /// MariaDB, for tests: no part of a cluster.
    MariaDb,
}

impl Role {
    /// As it stands in names and in `--json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Persistence => "persistence",
            Self::Push => "push",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::MariaDb => "mariadb",
        }
    }
}

/// A process that can be killed, paused and started again, always at the same address and on
/// the same data. Clones are handles of the same process.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    role: Role,
    name: String,
    port: Port,
    admin: Option<Port>,
    _more: Vec<Port>,
    launch: Launch,
    probe: Probe,
    process: Mutex<Option<Process>>,
}

/// What a [`Node`] is made of.
pub(crate) struct Plan {
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) port: Port,
    pub(crate) admin: Option<Port>,
    /// Further ports that it alone knows what to do with.
    pub(crate) more: Vec<Port>,
    pub(crate) launch: Launch,
    pub(crate) probe: Probe,
}

impl Node {
    pub(crate) fn new(plan: Plan) -> Self {
        let Plan { role, name, port, admin, more, launch, probe } = plan;
        let process = Mutex::new(None);
        Self(Arc::new(Inner { role, name, port, admin, _more: more, launch, probe, process }))
    }

    /// Starts what `plan` describes, planned anew with other ports when a stranger took one
    /// between our look at it and the process's own.
    pub(crate) fn start_on_free_ports(mut plan: impl FnMut() -> Result<Plan>) -> Result<Self> {
        on_free_ports(|| {
            let node = Self::new(plan()?);
            node.0.start()?;
            Ok(node)
        })
    }

    /// As [`Node::start_on_free_ports`] for several that must know each other's ports, and are
    /// ready only together.
    pub(crate) fn start_together(mut plan: impl FnMut() -> Result<Vec<Plan>>) -> Result<Vec<Self>> {
        on_free_ports(|| {
            let nodes: Vec<_> = plan()?.into_iter().map(Self::new).collect();
            thread::scope(|scope| {
                let starting: Vec<_> =
                    nodes.iter().map(|node| scope.spawn(|| node.0.start())).collect();
                let started: Vec<_> = starting.into_iter().map(joined).collect();
                started.into_iter().collect::<Result<()>>()
            })?;
            Ok(nodes)
        })
    }

    /// What it is for.
    pub fn role(&self) -> Role {
        self.0.role
    }

    /// Its role and number, like `gateway-1`: the node id, and the name of its log.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where it serves; a worker, which serves nobody, has its admin address here.
    pub fn address(&self) -> SocketAddr {
        self.0.port.address()
    }

    /// Where its health and metrics are (NATS: its monitoring). Postgres and Redis have no such
    /// port; theirs is [`Node::address`].
    pub fn admin(&self) -> SocketAddr {
        self.0.admin.as_ref().map_or_else(|| self.address(), Port::address)
    }

    /// The process id, unless it is away.
    pub fn pid(&self) -> Option<u32> {
        let mut slot = self.0.slot();
        let process = slot.as_mut()?;
        matches!(process.exited(), Ok(None)).then(|| process.pid())
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.0.launch.log
    }

    /// How it ended, when it ended by itself and was not started again.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.0.slot().as_mut()?.exited().ok().flatten()
    }

    /// Starts it where it is away, and waits until it is ready (at most a minute).
    pub async fn start(&self) -> Result<()> {
        self.blocking(Inner::start).await
    }

    /// Starts it where it is away, without waiting: for a node that cannot become ready yet.
    pub async fn launch(&self) -> Result<()> {
        self.blocking(Inner::launch).await
    }

    /// Waits until it is ready, at most a minute.
    pub async fn ready(&self) -> Result<()> {
        self.blocking(Inner::ready).await
    }

    /// Ends it in good order (`SIGTERM`; Postgres: `SIGINT`) and waits for that; an error when
    /// it has to be killed because it takes longer than 40 s. `None` when it was away.
    pub async fn terminate(&self) -> Result<Option<ExitStatus>> {
        self.blocking(Inner::terminate).await
    }

    /// Ends it by `SIGKILL` and waits until it is gone.
    pub async fn kill(&self) -> Result<()> {
        self.blocking(|node| node.end(Signal::SIGKILL).map(drop)).await
    }

    /// [`Node::terminate`], then [`Node::start`].
    pub async fn restart(&self) -> Result<()> {
        self.blocking(|node| {
            node.terminate()?;
            node.start()
        })
        .await
    }

    /// Stops it where it stands (`SIGSTOP`), all processes of a Postgres included: its sockets stay
    /// open and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.0.with_process(Process::pause)
    }

    /// Lets it go on after [`Node::pause`].
    pub fn resume(&self) -> Result<()> {
        self.0.with_process(Process::resume)
    }

    pub(crate) fn terminate_blocking(&self) -> Result<Option<ExitStatus>> {
        self.0.terminate()
    }

    /// Ends it as fast as its data allows when nobody wants them any more.
    pub(crate) fn abort(&self) {
        self.0.slot().take();
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        task::spawn_blocking(move || work(&inner)).await?
    }
}

impl Inner {
    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn launch(&self) -> Result<()> {
        let mut slot = self.slot();
        if let Some(process) = slot.as_mut()
            && process.exited()?.is_none()
        {
            return Ok(());
        }
        *slot = None;
        *slot = Some(self.launch.spawn()?);
        Ok(())
    }

    fn start(&self) -> Result<()> {
        let deadline = Instant::now() + READY;
        loop {
            let log_from = self.launch.log_end();
            self.launch()?;
            match self.ready_before(deadline, log_from) {
                Ok(()) => return Ok(()),
                Err(NotReady::Left(status)) => {
                    let log = self.launch.log_tail(log_from);
                    // Its predecessor was killed and the children of that are still going.
                    if Instant::now() < deadline && self.probe.is_passing_trouble(&log) {
                        thread::sleep(AGAIN);
                        continue;
                    }
                    bail!("{} ended while it started ({status}):\n{log}", self.name);
                }
                Err(NotReady::Failed(error)) => return Err(error),
            }
        }
    }

    fn ready(&self) -> Result<()> {
        match self.ready_before(Instant::now() + READY, 0) {
            Ok(()) => Ok(()),
            Err(NotReady::Left(status)) => bail!("{} ended ({status})", self.name),
            Err(NotReady::Failed(error)) => Err(error),
        }
    }

    /// The lock is let go between two probes, so that others can ask, or end it, meanwhile.
    fn ready_before(&self, deadline: Instant, log_from: u64) -> Result<(), NotReady> {
        let probed = self.admin.as_ref().unwrap_or(&self.port).address();
        loop {
            let pid = {
                let mut slot = self.slot();
                let process = slot.as_mut().context("not started")?;
                if let Some(status) = process.exited()? {
                    return Err(NotReady::Left(status));
                }
                process.pid()
            };
            if self.probe.answers(pid, self.port.address(), probed) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let log = self.launch.log_tail(log_from);
                let seconds = READY.as_secs();
                let error = anyhow::anyhow!("{} not ready in {seconds} s:\n{log}", self.name);
                return Err(NotReady::Failed(error));
            }
            thread::sleep(self.probe.pause());
        }
    }

    fn with_process(&self, act: fn(&mut Process) -> Result<()>) -> Result<()> {
        match self.slot().as_mut() {
            Some(process) => act(process),
            None => bail!("{} is away", self.name),
        }
    }

    fn terminate(&self) -> Result<Option<ExitStatus>> {
        self.end(self.launch.stop_signal)
    }

    /// The process id, unless it is away.
    fn ask_to_end(&self, signal: Signal) -> Result<Option<u32>> {
        let mut slot = self.slot();
        let Some(process) = slot.as_mut() else { return Ok(None) };
        process.ask_to_end(signal)?;
        Ok(Some(process.pid()))
    }

    /// The lock is let go between two looks: a drain may take long, and others may watch it.
    fn end(&self, signal: Signal) -> Result<Option<ExitStatus>> {
        let Some(asked) = self.ask_to_end(signal)? else { return Ok(None) };
        let deadline = Instant::now() + ENDED;
        loop {
            let mut slot = self.slot();
            // Somebody else may have started it again meanwhile: that one was not asked.
            let Some(process) = slot.as_mut().filter(|process| process.pid() == asked) else {
                return Ok(None);
            };
            if let Some(status) = process.exited()? {
                *slot = None;
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                // Dropping ends it the hard way.
                *slot = None;
                let seconds = ENDED.as_secs();
                bail!("{} did not end in {seconds} s and was killed", self.name);
            }
            drop(slot);
            thread::sleep(POLL);
        }
    }
}

enum NotReady {
    /// It ended instead.
    Left(ExitStatus),
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for NotReady {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Tries again with other ports when a stranger took one.
fn on_free_ports<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    let mut tries = 0;
    loop {
        tries += 1;
        match start() {
            Err(error) if tries < PORT_TRIES && address_in_use(&error) => {}
            done => return done,
        }
    }
}

/// What a thread of the launcher came to.
pub(crate) fn joined<T>(thread: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    match thread.join() {
        Ok(result) => result,
        Err(_) => bail!("a thread of the launcher panicked"),
    }
}

/// Whether a process gave up because its port was taken; all of them use libc's words.
fn address_in_use(error: &anyhow::Error) -> bool {
    format!("{error:#}").to_lowercase().contains("address already in use")
}

impl fmt::Debug for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Node")
            .field("name", &self.name())
            .field("address", &self.address())
            .finish_non_exhaustive()
    }
}
