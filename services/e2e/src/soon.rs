//! Waiting for a thing itself.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Within this everything happens that is going to; a story that waits longer has failed.
pub const SOON: Duration = Duration::from_secs(20);

/// Between two looks.
const AGAIN: Duration = Duration::from_millis(20);
const AGAIN_AT_MOST: Duration = Duration::from_millis(250);

/// Looks until `look` finds something, for at most [`SOON`].
///
/// # Errors
/// When it finds nothing in that time (naming `what` is awaited), or fails.
pub async fn soon<T>(what: &str, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    within(SOON, what, look).await
}

/// As [`soon`], for at most `limit`.
pub async fn within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if began.elapsed() >= limit {
            bail!("waited {limit:?} in vain: {what}");
        }
        // The longer it takes, the less is it worth to be early: looking costs what is waited for.
        sleep((began.elapsed() / 10).clamp(AGAIN, AGAIN_AT_MOST)).await;
    }
}
