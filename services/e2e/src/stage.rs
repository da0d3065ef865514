//! The cluster that the stories of a file share.

use std::{fs, ops::Deref};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_cluster::{Builder, Cluster, Node};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A cluster of two gateways, started when the first story asks for it. It is never dropped, as
/// statics are not; its processes and data go with the process of the tests.
pub struct Stage {
    configure: fn(Builder) -> Builder,
    cluster: OnceCell<Cluster>,
    /// Stories that leave all processes alone run side by side; one that does not runs alone.
    turns: RwLock<State>,
}

/// How the last story that ran alone has left the processes.
enum State {
    InOrder,
    Unknown,
}

impl Stage {
    /// A stage with a cluster as it is by default, but for two limits of how often REST may be
    /// called.
    pub const fn new() -> Self {
        Self::with(|builder| builder)
    }

    /// A stage with a cluster that `configure` has a say in.
    pub const fn with(configure: fn(Builder) -> Builder) -> Self {
        let turns = RwLock::const_new(State::InOrder);
        Self { configure, cluster: OnceCell::const_new(), turns }
    }

    /// The cluster, for a story that stops nothing of it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn among_others(&'static self) -> Result<Scene> {
        let cluster = self.cluster().await?;
        let turn = self.turns.read().await;
        if matches!(*turn, State::InOrder) {
            return Ok(Scene { cluster, _turn: Turn::Shared { _guard: turn } });
        }
        drop(turn);
        let mut turn = self.turns.write().await;
        put_in_order(cluster).await?;
        *turn = State::InOrder;
        Ok(Scene { cluster, _turn: Turn::Shared { _guard: turn.downgrade() } })
    }

    /// The cluster for this story alone, everything running, whatever the story before did.
    ///
    /// # Errors
    /// When something of it does not start.
    pub async fn alone(&'static self) -> Result<Scene> {
        let cluster = self.cluster().await?;
        let mut turn = self.turns.write().await;
        if matches!(*turn, State::Unknown) {
            put_in_order(cluster).await?;
        }
        *turn = State::Unknown;
        Ok(Scene { cluster, _turn: Turn::Alone { _guard: turn } })
    }

    async fn cluster(&'static self) -> Result<&'static Cluster> {
        // All stories come from one address, and ask again and again for what they wait for.
        let builder = Cluster::builder()
            .gateways(2)
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_CALLS_PER_SECOND", "0");
        let start = async || (self.configure)(builder).start().await;
        let cluster = self.cluster.get_or_try_init(start).await?;
        ensure!(cluster.gateways().len() >= 2, "a story needs two gateways");
        Ok(cluster)
    }
}

/// That no gateway and no worker of either kind has panicked so far, by what they have logged.
///
/// # Errors
/// When one has, with what it said; or a log cannot be read.
pub fn nothing_panicked(cluster: &Cluster) -> Result<()> {
    for node in cluster.gateways().iter().chain(cluster.workers()).chain(cluster.pushers()) {
        let log = fs::read(node.log()).with_context(|| format!("the log of {}", node.name()))?;
        let log = String::from_utf8_lossy(&log);
        ensure!(!log.is_empty(), "{} has logged nothing", node.name());
        let panicked = log.lines().find(|line| line.contains("panicked"));
        ensure!(panicked.is_none(), "{}: {panicked:?}", node.name());
    }
    Ok(())
}

/// Wakes and starts everything, and waits until it is ready: the servers first, since what rests
/// on them is ready only when they are.
///
/// # Errors
/// When something is not ready in a minute.
pub async fn put_in_order(cluster: &Cluster) -> Result<()> {
    // Side by side, since several brokers are ready only together.
    start_all([cluster.postgres(), cluster.redis()].into_iter().chain(cluster.brokers())).await?;
    let nodes = cluster.workers().iter().chain(cluster.pushers()).chain(cluster.gateways());
    start_all(nodes).await
}

async fn start_all<'a>(nodes: impl Iterator<Item = &'a Node>) -> Result<()> {
    try_join_all(nodes.map(async |node| {
        node.resume().ok();
        node.start().await
    }))
    .await?;
    Ok(())
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}

/// A story's turn on the stage.
pub struct Scene {
    cluster: &'static Cluster,
    _turn: Turn,
}

enum Turn {
    Shared { _guard: RwLockReadGuard<'static, State> },
    Alone { _guard: RwLockWriteGuard<'static, State> },
}

impl Deref for Scene {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        self.cluster
    }
}
