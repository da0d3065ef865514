//! The clusters that stories share: started when one asks, ended when none has used them for a while.

use std::{
    fs,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::{select_all, try_join_all};
use natter_cluster::{Builder, Cluster, Node, turns};
use tokio::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// For so long an empty stage is kept for the next story. Stories of one file follow one another;
/// those of other files need what an idle cluster takes.
const KEPT: Duration = Duration::from_secs(2);

/// A cluster of two gateways, started when a story asks for it, and ended when none has used it for
/// a while, or with the process of the tests.
pub struct Stage {
    configure: fn(Builder) -> Builder,
    cluster: Mutex<Option<Arc<Cluster>>>,
    /// How many stories have left it.
    left: AtomicU64,
    /// Stories that leave all processes alone run side by side; one that does not runs alone.
    turns: RwLock<State>,
    /// Held by who puts in order what a story that ran alone has left, for all that wait to run side by side.
    putting: Mutex<()>,
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
        let cluster = Mutex::const_new(None);
        Self { configure, cluster, left: AtomicU64::new(0), turns, putting: Mutex::const_new(()) }
    }

    /// The cluster, for a story that stops nothing of it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn among_others(&'static self) -> Result<Scene> {
        if let Some(turn) = self.in_order().await {
            return self.shared(turn).await;
        }
        let putting = self.putting.lock().await;
        // By now another may have done it.
        if let Some(turn) = self.in_order().await {
            drop(putting);
            return self.shared(turn).await;
        }
        let mut turn = self.turns.write().await;
        turns::take().await;
        put_in_order(&*self.cluster().await?).await?;
        *turn = State::InOrder;
        self.shared(turn.downgrade()).await
    }

    async fn in_order(&'static self) -> Option<RwLockReadGuard<'static, State>> {
        let turn = self.turns.read().await;
        matches!(*turn, State::InOrder).then_some(turn)
    }

    async fn shared(&'static self, turn: RwLockReadGuard<'static, State>) -> Result<Scene> {
        turns::take().await;
        let cluster = self.cluster().await?;
        Ok(Scene { stage: self, cluster, _turn: Turn::Shared { _guard: turn } })
    }

    /// The cluster for this story alone, everything running, whatever the story before did.
    ///
    /// # Errors
    /// When something of it does not start.
    pub async fn alone(&'static self) -> Result<Scene> {
        self.given_over(self.turns.write().await).await
    }

    async fn turn(&'static self) -> (&'static Self, RwLockWriteGuard<'static, State>) {
        (self, self.turns.write().await)
    }

    async fn given_over(
        &'static self,
        mut turn: RwLockWriteGuard<'static, State>,
    ) -> Result<Scene> {
        turns::take().await;
        let cluster = self.cluster().await?;
        if matches!(*turn, State::Unknown) {
            put_in_order(&cluster).await?;
        }
        *turn = State::Unknown;
        Ok(Scene { stage: self, cluster, _turn: Turn::Alone { _guard: turn } })
    }

    async fn cluster(&'static self) -> Result<Arc<Cluster>> {
        let mut kept = self.cluster.lock().await;
        if let Some(cluster) = &*kept {
            return Ok(cluster.clone());
        }
        // All stories come from one address, and ask again and again for what they wait for.
        let builder = Cluster::builder()
            .gateways(2)
            .gateway_env("NATTER_ATTEMPTS_PER_ADDRESS", "0")
            .gateway_env("NATTER_CALLS_PER_SECOND", "0");
        let cluster = Arc::new((self.configure)(builder).start().await?);
        ensure!(cluster.gateways().len() >= 2, "a story needs two gateways");
        *kept = Some(cluster.clone());
        Ok(cluster)
    }

    /// Ends the cluster unless a story uses it, or has left it since `left` had.
    fn clear(&self, left: u64) {
        let mut kept = self.cluster.blocking_lock();
        // Who is given a share of it gets it under the lock.
        let idle = kept.as_ref().is_some_and(|cluster| Arc::strong_count(cluster) == 1);
        if idle && self.left.load(Ordering::Relaxed) == left {
            *kept = None;
        }
    }
}

/// Three stages alike, for stories that each want one alone: the first that is free is theirs.
pub struct Stages([Stage; 3]);

impl Stages {
    /// Stages with clusters that `configure` has a say in; see [`Stage::with`].
    pub const fn with(configure: fn(Builder) -> Builder) -> Self {
        Self([Stage::with(configure), Stage::with(configure), Stage::with(configure)])
    }

    /// A cluster for this story alone, everything running, whatever the story before did.
    ///
    /// # Errors
    /// When something of it does not start.
    pub async fn alone(&'static self) -> Result<Scene> {
        let turns = self.0.iter().map(|stage| Box::pin(stage.turn()));
        let ((stage, turn), _, _) = select_all(turns).await;
        stage.given_over(turn).await
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
    stage: &'static Stage,
    cluster: Arc<Cluster>,
    _turn: Turn,
}

impl Drop for Scene {
    fn drop(&mut self) {
        // The story's own share goes with it. Not a task, which would end with the story's runtime.
        let stage = self.stage;
        let left = stage.left.fetch_add(1, Ordering::Relaxed) + 1;
        thread::spawn(move || {
            thread::sleep(KEPT);
            stage.clear(left);
        });
    }
}

enum Turn {
    Shared { _guard: RwLockReadGuard<'static, State> },
    Alone { _guard: RwLockWriteGuard<'static, State> },
}

impl Deref for Scene {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}
