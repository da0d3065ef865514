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
    postgres::{Durability, EMPTY, Postgres},
    progress::Progress,
    redis,
    throwaway::Throwaway,
    turns,
};

/// The URL of a new, empty database on the shared PostgreSQL; no migration has run.
pub async fn postgres() -> Result<String> {
    let server = shared_postgres().await?;
    let name = task::spawn_blocking(|| server.new_database(EMPTY)).await??;
    Ok(server.server.url_of(&name))
}

/// The URL of a new database on the shared PostgreSQL with what `make` does to an empty one, by its URL. It
/// does so once in a process, whatever `make` comes after it, and leaves no connection; the others are copies.
pub async fn postgres_made<M, F>(make: M) -> Result<String>
where
    M: FnOnce(String) -> F,
    F: Future<Output = Result<()>>,
{
    static MADE: OnceCell<String> = OnceCell::const_new();
    let server = shared_postgres().await?;
    let made = MADE.get_or_try_init(async || {
        let name = task::spawn_blocking(|| server.new_database(EMPTY)).await??;
        make(server.server.url_of(&name)).await?;
        anyhow::Ok(name)
    });
    let made = made.await?;
    let name = task::spawn_blocking(|| server.new_database(made)).await??;
    Ok(server.server.url_of(&name))
}

async fn shared_postgres() -> Result<&'static Own<Postgres>> {
    static SHARED: OnceCell<Own<Postgres>> = OnceCell::const_new();
    turns::take().await;
    SHARED.get_or_try_init(start_postgres).await
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
    /// A copy of this database; its name.
    fn new_database(&self, of: &str) -> Result<String> {
        let name = format!("test_{}", Uuid::now_v7().simple());
        self.server.create_database(&name, of)?;
        Ok(name)
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
