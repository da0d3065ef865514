//! Servers for tests: one of each kind per test process, started when first asked for, shared
//! by all its tests, gone with the process. Each call gives a place of its own on them.
//!
//! A test that kills or pauses a server takes a fresh one.

use std::{
    ops::Deref,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result};
use tokio::{sync::OnceCell, task};
use uuid::Uuid;

use crate::{
    Node,
    install::{self, Tool},
    mariadb, nats,
    postgres::{Durability, Postgres},
    progress::Progress,
    redis,
    throwaway::Throwaway,
    turns,
};

/// The URL of a new, empty database on the shared PostgreSQL; no migration has run.
pub async fn postgres() -> Result<String> {
    static SHARED: OnceCell<Own<Postgres>> = OnceCell::const_new();
    turns::take().await;
    let server = SHARED.get_or_try_init(start_postgres).await?;
    task::spawn_blocking(|| server.fresh_database()).await?
}

/// The URL of an empty database of the shared Redis: keys are its own, but channels and the
/// memory are shared. After 1,024 calls in a process they come round again.
pub async fn redis() -> Result<String> {
    static SHARED: OnceCell<Own<Node>> = OnceCell::const_new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    turns::take().await;
    let server = SHARED.get_or_try_init(start_redis).await?;
    let database = NEXT.fetch_add(1, Ordering::Relaxed) % redis::DATABASES;
    Ok(redis::url(&server.server, database))
}

/// The URL of the shared NATS: streams and subjects are shared too, so a test that makes the
/// system's streams takes [`nats_fresh`].
pub async fn nats() -> Result<String> {
    static SHARED: OnceCell<Own<Node>> = OnceCell::const_new();
    turns::take().await;
    let server = SHARED.get_or_try_init(start_nats).await?;
    Ok(nats::url(&server.server))
}

/// A PostgreSQL of one's own, with one empty database.
pub async fn postgres_fresh() -> Result<Fresh> {
    let own = start_postgres().await?;
    Ok(Fresh { url: own.server.url(), node: own.server.node().clone(), _dir: own.dir })
}

/// A Redis of one's own.
pub async fn redis_fresh() -> Result<Fresh> {
    let own = start_redis().await?;
    Ok(Fresh { url: redis::url(&own.server, 0), node: own.server, _dir: own.dir })
}

/// A MariaDB of one's own, without a database: whoever takes it makes one.
pub async fn mariadb_fresh() -> Result<Fresh> {
    let own = own(Tool::MariaDb, mariadb::start).await?;
    Ok(Fresh { url: mariadb::url(&own.server), node: own.server, _dir: own.dir })
}

/// A NATS of one's own, JetStream on and empty.
pub async fn nats_fresh() -> Result<Fresh> {
    let own = start_nats().await?;
    Ok(Fresh { url: nats::url(&own.server), node: own.server, _dir: own.dir })
}

/// A server of one's own, to be killed, paused and restarted through [`Node`]'s methods.
/// Dropping ends it and removes its data.
#[derive(Debug)]
pub struct Fresh {
    url: String,
    node: Node,
    // After the node: the data go last.
    _dir: Throwaway,
}

impl Fresh {
    /// Stays the same across restarts.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Deref for Fresh {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        self.node.abort();
    }
}

/// A server with the directory that it lives in.
struct Own<T> {
    server: T,
    dir: Throwaway,
}

impl Own<Postgres> {
    fn fresh_database(&self) -> Result<String> {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.server.create_database(&name)?;
        Ok(self.server.url_of(&name))
    }
}

async fn start_postgres() -> Result<Own<Postgres>> {
    own(Tool::Postgres, |dir| Postgres::start(dir, Durability::Throwaway, Progress::Quiet, None))
        .await
}

async fn start_redis() -> Result<Own<Node>> {
    own(Tool::Redis, |dir| redis::start(dir, None)).await
}

async fn start_nats() -> Result<Own<Node>> {
    own(Tool::Nats, |dir| nats::start(dir, "2m", "")).await
}

async fn own<T: Send + 'static>(
    server: Tool,
    start: impl FnOnce(&Path) -> Result<T> + Send + 'static,
) -> Result<Own<T>> {
    turns::take().await;
    task::spawn_blocking(move || {
        install::ensure(&[server], Progress::Lines)?;
        let dir = Throwaway::new()?;
        let server = start(dir.path())?;
        Ok(Own { server, dir })
    })
    .await
    .context("starting a server panicked")?
}
