//! Signals become a cancellation token, and draining has a deadline.

use std::{io, process, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal as listen},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that an interrupt ended.
const INTERRUPTED: i32 = 130;

/// A token that SIGTERM or SIGINT cancels. A second signal means "now": the process exits at
/// once with status 130, whatever is still draining.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn signal() -> io::Result<CancellationToken> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let first = next().await;
        tracing::info!(signal = first, "shutting down; a second signal exits at once");
        stop.cancel();
        let second = next().await;
        tracing::warn!(signal = second, "exiting at once");
        process::exit(INTERRUPTED);
    });
    Ok(token)
}

/// Waits for all `tasks`, for `limit` at most; those still running then are aborted.
/// Returns how many were aborted. A task that panicked is logged.
pub async fn join_within<T: 'static>(tasks: &mut JoinSet<T>, limit: Duration) -> usize {
    let deadline = Instant::now() + limit;
    while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a task panicked");
        }
    }
    let left = tasks.len();
    if left > 0 {
        tracing::warn!(tasks = left, ?limit, "aborting tasks that did not end in time");
        tasks.shutdown().await;
    }
    left
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn tasks_that_end_are_awaited_and_the_rest_aborted() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        assert_eq!(join_within(&mut tasks, Duration::from_secs(10)).await, 0);
        tasks.spawn(pending());
        tasks.spawn(async {});
        assert_eq!(join_within(&mut tasks, Duration::from_millis(50)).await, 1);
        assert!(tasks.is_empty());
    }
}
