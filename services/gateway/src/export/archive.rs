//! A ZIP archive that is sent while it is written, without ever going back: sizes and checksums follow
//! what they are of.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use natter_media::FilesError;
use natter_protocol::error::WireError;
use natter_runtime::causes;
use natter_store::StoreError;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::{sync::mpsc, time::timeout};
use zip::{
    CompressionMethod, DateTime, ZipWriter,
    write::{SimpleFileOptions, StreamWriter},
};

use crate::fault;

/// Bytes that are sent in one piece, about.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the socket.
const WAITING: usize = 4;
/// How long a client may take over the next bytes.
const STALLED: Duration = Duration::from_mins(1);
/// Fast: text shrinks to a fraction all the same.
const LEVEL: i64 = 1;
/// From here on sizes do not fit into what every reader knows.
const LARGE: u64 = u32::MAX as u64;

/// Why an archive was broken off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Nobody reads it any more, or too slowly.
    #[error("nobody fetches it")]
    Left,
    /// What is to go into it may not, or cannot be had.
    #[error("{0:?}")]
    Refused(WireError),
    /// A file cannot be read.
    #[error("the store of files")]
    Files(#[from] FilesError),
    /// A file is not as long as is known of it.
    #[error("a file is not as long as it was")]
    File,
    /// It cannot be written.
    #[error("the archive")]
    Zip(#[from] zip::result::ZipError),
    /// It cannot be written.
    #[error("the archive")]
    Io(#[from] io::Error),
    /// It cannot be spelled.
    #[error("a line of the archive")]
    Json(#[from] serde_json::Error),
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Broken {
    fn from(error: StoreError) -> Self {
        Self::Refused(fault::store(error))
    }
}

impl Broken {
    /// Tells the operator, where that is of interest.
    pub(super) fn tell(&self) {
        let error = causes(self);
        if matches!(self, Self::Left) {
            tracing::debug!(%error, "an export was broken off");
        } else {
            tracing::warn!(%error, "an export was broken off");
        }
    }
}

/// The archive.
pub(super) struct Archive {
    zip: ZipWriter<StreamWriter<Written>>,
    written: Written,
    answer: mpsc::Sender<io::Result<Bytes>>,
    options: SimpleFileOptions,
}

/// What has been written and not been sent. An archive that is dropped ends itself properly in here,
/// and that is as far as its end comes.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Bytes {
        mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Archive {
    /// One whose entries are of this time, and its pieces as they come.
    pub(super) fn new(at: OffsetDateTime) -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (answer, pieces) = mpsc::channel(WAITING);
        let year = u16::try_from(at.year()).unwrap_or_default();
        let (month, day) = (u8::from(at.month()), at.day());
        let at =
            DateTime::from_date_and_time(year, month, day, at.hour(), at.minute(), at.second());
        let options = SimpleFileOptions::default().last_modified_time(at.unwrap_or_default());
        let written = Written::default();
        let zip = ZipWriter::new_stream(written.clone());
        (Self { zip, written, answer, options }, pieces)
    }

    /// Where a failure goes.
    pub(super) fn answer(&self) -> mpsc::Sender<io::Result<Bytes>> {
        self.answer.clone()
    }

    /// Begins an entry of text; how long it becomes is not known.
    pub(super) fn begin_text(&mut self, name: &str) -> Result<(), Broken> {
        let options = self.options.compression_method(CompressionMethod::Deflated);
        let options = options.compression_level(Some(LEVEL)).large_file(true);
        Ok(self.zip.start_file(name, options)?)
    }

    /// Begins a file of so many bytes. Most are compressed already.
    pub(super) fn begin_file(&mut self, name: &str, size: u64) -> Result<(), Broken> {
        let options = self.options.compression_method(CompressionMethod::Stored);
        Ok(self.zip.start_file(name, options.large_file(size >= LARGE))?)
    }

    /// Adds to the entry.
    pub(super) async fn put(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        for piece in bytes.chunks(PIECE) {
            self.zip.write_all(piece)?;
            if self.written.len() >= PIECE {
                self.send().await?;
            }
        }
        Ok(())
    }

    /// Adds a line of JSON to the entry.
    pub(super) async fn line(&mut self, value: &impl Serialize) -> Result<(), Broken> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.put(&line).await
    }

    /// An entry that is one value.
    pub(super) async fn value(&mut self, name: &str, value: &impl Serialize) -> Result<(), Broken> {
        self.begin_text(name)?;
        let mut text = serde_json::to_vec_pretty(value)?;
        text.push(b'\n');
        self.put(&text).await
    }

    /// Writes the end, and sends all that is left.
    pub(super) async fn finish(self) -> Result<(), Broken> {
        let Self { zip, written, answer, .. } = self;
        zip.finish()?;
        send(&answer, &written).await
    }

    async fn send(&mut self) -> Result<(), Broken> {
        send(&self.answer, &self.written).await
    }
}

async fn send(answer: &mpsc::Sender<io::Result<Bytes>>, written: &Written) -> Result<(), Broken> {
    let piece = written.take();
    if piece.is_empty() {
        return Ok(());
    }
    match timeout(STALLED, answer.send(Ok(piece))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Broken::Left),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read};

    use zip::ZipArchive;

    use super::*;

    async fn all(mut pieces: mpsc::Receiver<io::Result<Bytes>>) -> io::Result<Vec<u8>> {
        let mut whole = Vec::new();
        while let Some(piece) = pieces.recv().await {
            whole.extend_from_slice(&piece?);
        }
        Ok(whole)
    }

    fn noise(bytes: usize) -> Vec<u8> {
        let mut state = 7_u64;
        let next = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        (0..bytes).map(next).collect()
    }

    #[tokio::test]
    async fn what_is_sent_opens_and_holds_what_was_put_in() -> anyhow::Result<()> {
        let (mut archive, pieces) = Archive::new(OffsetDateTime::now_utc());
        let file = noise(3 * PIECE + 17);
        let written = async {
            archive.begin_text("lines.ndjson")?;
            for n in 0..20_000 {
                archive.line(&n).await?;
            }
            archive.begin_file("media/a.bin", file.len() as u64)?;
            archive.put(&file).await?;
            archive.begin_file("media/empty", 0)?;
            archive.value("manifest.json", &"the end").await?;
            archive.finish().await
        };
        let (written, sent) = tokio::join!(written, all(pieces));
        written?;
        let mut zip = ZipArchive::new(Cursor::new(sent?))?;
        let names = zip.file_names_raw().map(|name| String::from_utf8_lossy(name).into_owned());
        let names: Vec<String> = names.collect();
        assert_eq!(names, ["lines.ndjson", "media/a.bin", "media/empty", "manifest.json"]);
        let mut lines = String::new();
        zip.by_name("lines.ndjson")?.read_to_string(&mut lines)?;
        assert!(lines.lines().eq((0..20_000).map(|n| n.to_string())));
        let mut found = Vec::new();
        zip.by_name("media/a.bin")?.read_to_end(&mut found)?;
        assert!(found == file);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_broken_off_opens_nowhere() -> anyhow::Result<()> {
        let (mut archive, pieces) = Archive::new(OffsetDateTime::now_utc());
        let file = noise(3 * PIECE);
        let broken = async {
            archive.begin_file("media/a.bin", file.len() as u64)?;
            archive.put(&file).await?;
            archive.begin_text("more")?;
            drop(archive);
            Ok::<_, Broken>(())
        };
        let (broken, sent) = tokio::join!(broken, all(pieces));
        broken?;
        let sent = sent?;
        assert!(sent.len() > PIECE, "some had been sent");
        assert!(ZipArchive::new(Cursor::new(sent)).is_err());
        Ok(())
    }

    #[tokio::test]
    async fn nobody_reading_ends_it() -> anyhow::Result<()> {
        let (mut archive, pieces) = Archive::new(OffsetDateTime::now_utc());
        drop(pieces);
        archive.begin_file("media/a.bin", 1)?;
        let put = archive.put(&noise(2 * PIECE)).await;
        assert!(matches!(put, Err(Broken::Left)));
        Ok(())
    }
}
