//! A connection lent to a call, and how long a call may take.
//!
//! The server bounds a statement, but a server that is frozen, or whose host has vanished without
//! a word, bounds nothing: TCP itself gives up after a quarter of an hour, or never when it has
//! nothing to send. So every call has a bound here too. What a late call leaves behind is closed
//! and not lent again.
//!
//! Most calls are one short statement, so a connection that was just used is lent again as it is:
//! asking each time whether it is alive, before and after as sqlx' own pool does, is two round
//! trips for one.

use std::time::{Duration, Instant};

use deadpool::managed::{
    Manager, Metrics, Object, Pool, PoolError, QueueMode, RecycleError, RecycleResult,
};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::{runtime::Handle, time::timeout};

use crate::{Result, Store, StoreError};

/// A connection that was given back so recently is taken to be alive. A call that finds it is not
/// fails like one that was under way when the server went.
const ALIVE: Duration = Duration::from_millis(100);
/// A connection is replaced at this age: what a server's process keeps of plans and catalogue grows.
const LIFETIME: Duration = Duration::from_mins(30);
/// How long a connection may take to show that it can be lent again: a statement whose caller
/// has gone is ended by the server within 5 s.
const RETURN: Duration = Duration::from_secs(6);

impl Store {
    /// Lends a connection to `work`, usually one statement, for as long as a call may take.
    ///
    /// # Errors
    /// What `work` says; `Unavailable` when there is no connection, or it takes too long.
    pub(crate) async fn call<T, E>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, E>,
    ) -> Result<T>
    where
        StoreError: From<E>,
    {
        let work = async |lent: &mut PgConnection| work(lent).await.map_err(StoreError::from);
        // Boxed: its future is large, and would be part of everything that waits for it.
        Box::pin(self.lend(self.call_timeout, work)).await
    }

    /// The same in a transaction, which is committed when `work` succeeds. Else it has been rolled
    /// back, and its locks are free, when this returns.
    pub(crate) async fn transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T>,
    ) -> Result<T> {
        self.transaction_of(self.call_timeout, work).await
    }

    /// The same for at most `bound`.
    pub(crate) async fn transaction_of<T, E: From<StoreError>>(
        &self,
        bound: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let work = async |lent: &mut PgConnection| {
            let mut tx = lent.begin().await.map_err(StoreError::from)?;
            let done = work(&mut tx).await;
            // A transaction that is only dropped ends some time later.
            let ended = match &done {
                Ok(_) => tx.commit().await,
                Err(_) => tx.rollback().await,
            };
            let done = done?;
            ended.map_err(StoreError::from)?;
            Ok(done)
        };
        Box::pin(self.lend(bound, work)).await
    }

    async fn lend<T, E: From<StoreError>>(
        &self,
        bound: Duration,
        work: impl AsyncFnOnce(&mut PgConnection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let mut lent = Lent { link: Some(self.acquire().await?), finished: false };
        let Some(link) = lent.link.as_mut() else { return Err(StoreError::closed().into()) };
        let Ok(done) = timeout(bound, work(&mut link.connection)).await else {
            lent.close();
            return Err(StoreError::late().into());
        };
        link.suspect = done.is_err();
        lent.finished = true;
        done
    }

    async fn acquire(&self) -> Result<Object<Opener>> {
        match timeout(self.acquire_timeout, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(PoolError::Backend(error))) => Err(error.into()),
            Ok(Err(_)) => Err(StoreError::closed()),
            Err(_) => Err(StoreError::late()),
        }
    }
}

/// Opens connections, and looks at those that are lent again.
pub(crate) struct Opener(PgConnectOptions);

impl Opener {
    /// Where the server is.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

/// The last one given back is the first lent: a few stay warm, with what they have prepared.
pub(crate) fn pool(options: PgConnectOptions, most: u32) -> Result<Pool<Opener>> {
    let pool = Pool::builder(Opener(options)).max_size(most as usize).queue_mode(QueueMode::Lifo);
    // Fails only for bounds of its own, which it has none of.
    pool.build().map_err(|_| StoreError::closed())
}

/// A connection of the pool.
pub(crate) struct Link {
    connection: PgConnection,
    /// When it was given back.
    used: Instant,
    /// The last call failed: maybe since the connection did.
    suspect: bool,
}

impl Manager for Opener {
    type Type = Link;
    type Error = sqlx::Error;

    async fn create(&self) -> std::result::Result<Link, sqlx::Error> {
        let connection = PgConnection::connect_with(&self.0).await?;
        Ok(Link { connection, used: Instant::now(), suspect: false })
    }

    async fn recycle(&self, link: &mut Link, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if metrics.age() >= LIFETIME {
            return Err(RecycleError::message("it is old"));
        }
        if link.suspect || link.used.elapsed() >= ALIVE {
            link.connection.ping().await?;
        }
        Ok(())
    }
}

/// A connection that goes back in bounded time, also from a call that its caller has given up: the
/// statement goes on, and what it answers must not be taken for the next one's.
struct Lent {
    link: Option<Object<Opener>>,
    /// The call has come to its end.
    finished: bool,
}

impl Lent {
    /// Closes the connection, and makes room for another.
    fn close(&mut self) {
        drop(self.link.take().map(Object::take));
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        link.used = Instant::now();
        if self.finished {
            return;
        }
        link.suspect = true;
        let ended = async move {
            let alive = timeout(RETURN, link.connection.ping()).await;
            if !matches!(alive, Ok(Ok(()))) {
                drop(Object::take(link));
            }
        };
        // Dropped before its end, as it is without a runtime, this gives the connection back as one
        // to be looked at.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(ended);
        }
    }
}
