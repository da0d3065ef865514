//! Who has fetched what: kept in batches beside the answers, which never wait for it.

use std::time::Duration;

use natter_runtime::causes;
use natter_store::{DownloadRecord, Store};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::measures;

/// Records that wait to be written; what is beyond is counted, and lost.
const WAITING: usize = 10_000;
/// Records written at once.
const BATCH: usize = 500;
/// How long they are gathered.
const GATHER: Duration = Duration::from_millis(200);
/// Between two tries while Postgres is away.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the last of them may take.
const LAST: Duration = Duration::from_secs(10);

/// Where records go. Cloning shares it.
#[derive(Clone)]
pub struct Records {
    waiting: mpsc::Sender<DownloadRecord>,
}

impl Records {
    /// A queue, and what is to be given to [`write_all`].
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<DownloadRecord>) {
        let (waiting, records) = mpsc::channel(WAITING);
        (Self { waiting }, records)
    }

    /// Notes a download.
    pub fn note(&self, record: DownloadRecord) {
        if self.waiting.try_send(record).is_err() {
            measures::downloads_unrecorded().increment(1);
        }
    }
}

/// Writes records until `stop`, and then those that wait, for a while.
pub async fn write_all(
    store: Store,
    mut records: mpsc::Receiver<DownloadRecord>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            _ = records.recv_many(&mut batch, BATCH) => {}
            () = stop.cancelled() => break,
        }
        // A download ends for each of many people at about the same time.
        let until = Instant::now() + GATHER;
        while batch.len() < BATCH
            && let Ok(Some(record)) = timeout_at(until, records.recv()).await
        {
            batch.push(record);
        }
        while !batch.is_empty() && !write(&store, &mut batch).await {
            tokio::select! {
                () = sleep(AGAIN) => {}
                () = stop.cancelled() => break,
            }
        }
    }
    records.close();
    let until = Instant::now() + LAST;
    loop {
        while let Ok(record) = records.try_recv() {
            batch.push(record);
            if batch.len() >= BATCH {
                break;
            }
        }
        if batch.is_empty() {
            return;
        }
        if !write(&store, &mut batch).await {
            if Instant::now() >= until {
                let lost = (batch.len() + records.len()) as u64;
                tracing::error!(lost, "downloads were not recorded");
                measures::downloads_unrecorded().increment(lost);
                return;
            }
            sleep(AGAIN).await;
        }
    }
}

/// Empties the batch when it has been written.
async fn write(store: &Store, batch: &mut Vec<DownloadRecord>) -> bool {
    match store.record_downloads(batch).await {
        Ok(()) => {
            batch.clear();
            true
        }
        Err(error) => {
            tracing::warn!(error = %causes(&error), "downloads are not recorded yet");
            false
        }
    }
}
