//! A connection lent to a call, and how long a call may take.
//!
//! The server bounds a statement, but a server that is frozen, or whose host has vanished without
//! a word, bounds nothing: TCP itself gives up after a quarter of an hour, or never when it has
//! nothing to send. So every call has a bound here too. What a late call leaves behind is closed
//! and not lent again.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Connection as _, PgConnection, Postgres, pool::PoolConnection};
use tokio::{runtime::Handle, time::timeout};

use crate::{Result, Store, StoreError};

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
        let mut lent = Lent(self.pool.acquire().await.map_err(StoreError::from)?);
        if let Ok(done) = timeout(bound, work(&mut lent)).await {
            return done;
        }
        lent.0.close_on_drop();
        Err(StoreError::late().into())
    }
}

/// A connection that goes back in bounded time, also from a call that its caller has given up.
/// The pool by itself would wait for a frozen server, and the connection's place would be gone
/// for as long.
struct Lent(PoolConnection<Postgres>);

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Dropped before its end, this closes the connection. So it does without a runtime.
        let back = self.0.return_to_pool();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(RETURN, back));
        }
    }
}
