//! What is left to do for files: those that nobody sends, or whose message is gone, are removed;
//! images get thumbnails. Postgres says which, so that any worker can do it, and one that dies
//! leaves it to another.

use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use natter_media::{Files, FilesError, thumbnail};
use natter_protocol::ids::MediaId;
use natter_runtime::causes;
use natter_store::{Store, StoreError, Sweep, UnmadeThumbnail};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::measures;

/// How often it is looked for files that are to be removed.
const SWEEP: Duration = Duration::from_secs(2);
/// Files removed in one go, and at once.
const BATCH: u32 = 200;
const AT_ONCE: usize = 8;
/// Files marked in one go.
const MARKED: u32 = 1_000;
/// How often it is looked for images without a thumbnail.
const LOOK: Duration = Duration::from_millis(500);
/// How long one has for what it has begun, before another tries.
const AGAIN: Duration = Duration::from_mins(1);
/// How often it is tried to make a thumbnail: an image that ends its worker is tried no more.
const TRIES: u16 = 3;

/// How files are swept.
#[derive(Clone, Copy, Debug)]
pub struct SweepConfig {
    /// An upload that has not gone on for so long has broken off. Gateways say every 3 s that one
    /// goes on.
    pub stalled: Duration,
    /// A file that was not sent for so long is removed.
    pub unsent: Duration,
    /// An upload past the gateways may take so long after its URL is good for no other.
    pub late: Duration,
}

/// Why a round was not finished.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the store of files")]
    Files(#[from] FilesError),
}

/// Does all of it until `stop`.
pub async fn look_after(store: Store, files: Files, config: SweepConfig, stop: CancellationToken) {
    let sweeps = sweep_until(store.clone(), files.clone(), config, stop.clone());
    tokio::join!(sweeps, make_thumbnails_until(store, files, stop));
}

/// Removes files that are to go, until `stop`.
async fn sweep_until(store: Store, files: Files, config: SweepConfig, stop: CancellationToken) {
    let mut tick = interval(SWEEP);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        // One that cannot be done does not keep the others from being done.
        for done in [
            mark(&store, config).await,
            remove_late(&store, &files, config).await,
            remove(&store, &files, config).await,
        ] {
            if let Err(error) = done {
                tracing::warn!(error = %causes(&error), "files are not swept");
            }
        }
    }
}

async fn mark(store: &Store, config: SweepConfig) -> Result<(), RoundError> {
    let orphans = store.mark_orphans(config.stalled, config.unsent, MARKED).await?;
    if orphans > 0 {
        measures::orphans().increment(orphans);
        tracing::info!(orphans, "files that nobody has sent are removed");
    }
    Ok(())
}

async fn remove_late(store: &Store, files: &Files, config: SweepConfig) -> Result<(), RoundError> {
    let closed = store.take_closed(BATCH, config.late).await?;
    let removed = each(files, closed, |files, id| {
        async move { files.remove_incoming(id.0).await.map(|()| id) }.boxed()
    })
    .await;
    if !removed.is_empty() {
        store.media_closed(&removed).await?;
    }
    Ok(())
}

async fn remove(store: &Store, files: &Files, config: SweepConfig) -> Result<(), RoundError> {
    let gone = store.take_gone(BATCH, AGAIN, config.late).await?;
    let removed = each(files, gone, |files, Sweep { id, unfinished }| {
        async move { files.remove(id.0, unfinished.as_deref()).await.map(|()| id) }.boxed()
    })
    .await;
    if !removed.is_empty() {
        measures::files_removed().increment(removed.len() as u64);
        store.forget_media(&removed).await?;
    }
    Ok(())
}

/// Does something with each, a few at once; what fails is told, and left out.
async fn each<T>(
    files: &Files,
    all: Vec<T>,
    work: fn(Files, T) -> BoxFuture<'static, Result<MediaId, FilesError>>,
) -> Vec<MediaId> {
    let begun: Vec<_> = all.into_iter().map(|one| work(files.clone(), one)).collect();
    let mut done = stream::iter(begun).buffer_unordered(AT_ONCE);
    let mut removed = Vec::new();
    while let Some(done) = done.next().await {
        match done {
            Ok(id) => removed.push(id),
            Err(error) => tracing::warn!(error = %causes(&error), "a file is not removed"),
        }
    }
    removed
}

/// Makes thumbnails, one after the other, until `stop`.
async fn make_thumbnails_until(store: Store, files: Files, stop: CancellationToken) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        loop {
            match make_thumbnail(&store, &files).await {
                Ok(true) if !stop.is_cancelled() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = %causes(&error), "a thumbnail is not made");
                    break;
                }
            }
        }
    }
}

/// Answers whether there was one to be made.
async fn make_thumbnail(store: &Store, files: &Files) -> Result<bool, RoundError> {
    let Some(UnmadeThumbnail { id, size }) = store.take_thumbnail(TRIES, AGAIN).await? else {
        return Ok(false);
    };
    let image = match read(files, id, size).await {
        Ok(image) => image,
        Err(error) => {
            store.thumbnail_not_tried(id).await?;
            return Err(error.into());
        }
    };
    // Some tens to hundreds of milliseconds, which no other task should wait for.
    let made = match spawn_blocking(move || thumbnail(&image)).await {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => {
            tracing::debug!(media = %id, error = %causes(&error), "an image has no thumbnail");
            store.thumbnail_made(id, false).await?;
            return Ok(true);
        }
        Err(panicked) => {
            tracing::error!(media = %id, error = %panicked, "a thumbnail could not be made");
            store.thumbnail_made(id, false).await?;
            return Ok(true);
        }
    };
    files.put_thumbnail(id.0, made.bytes.into(), made.media_type).await?;
    if !store.thumbnail_made(id, true).await? {
        // Its image is gone, and whoever removed that has not seen it.
        files.remove_thumbnail(id.0).await?;
        return Ok(true);
    }
    measures::thumbnails().increment(1);
    Ok(true)
}

/// An image, as long as it is known to be.
async fn read(files: &Files, id: MediaId, size: u64) -> Result<BytesMut, FilesError> {
    let mut image = BytesMut::with_capacity(usize::try_from(size).unwrap_or_default());
    let mut bytes = files.read(id.0, Some(0..size)).await?;
    while let Some(more) = bytes.try_next().await? {
        image.extend_from_slice(&more);
    }
    Ok(image)
}
