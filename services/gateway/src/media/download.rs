//! A file on its way to somebody who takes part in the chat: the whole of it or a part.

use std::{
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream::BoxStream};
use natter_media::FilesError;
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MediaId, MessageId},
};
use natter_runtime::causes;
use natter_store::{DownloadRecord, MediaFile};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Library, Records, files};
use crate::{auth::Caller, fault, measures};

/// A file that was asked for, of somebody who may have it.
pub struct Wanted {
    library: Library,
    /// What it is.
    pub file: MediaFile,
    message: MessageId,
    caller: Caller,
}

/// A place for a file that is fetched.
type Place = super::places::Taken;

impl Library {
    /// The file of a message, for somebody who takes part in its chat.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn wanted(
        &self,
        caller: &Caller,
        chat: ChatId,
        message: MessageId,
    ) -> Result<Wanted, WireError> {
        let file = self.inner.store.media_of(chat, message).await.map_err(fault::store)?;
        let missing = || WireError::new(ErrorCode::NotFound, "the message has no file");
        let file = file.ok_or_else(missing)?;
        Ok(Wanted { library: self.clone(), file, message, caller: caller.clone() })
    }
}

impl Library {
    /// The whole of a file, for an export: no download of anybody's. None when it is gone.
    ///
    /// # Errors
    /// When the store of files is away.
    pub async fn whole(
        &self,
        id: MediaId,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, FilesError>>>, FilesError> {
        match self.inner.files.read(id.0, None).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(FilesError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Wanted {
    /// Where the store itself gives it out for a short while; none when this node does. Noted as a
    /// download, since nobody tells what becomes of it.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn elsewhere(&self) -> Result<Option<url::Url>, WireError> {
        let inner = &self.library.inner;
        let least = inner.settings.media_signed_bytes;
        if least.is_none_or(|least| self.file.media.size < least) {
            return Ok(None);
        }
        let within = Duration::from_secs(inner.settings.media_signed_seconds);
        let url = inner.files.signed_get(self.file.media.id.0, within).await.map_err(files)?;
        if url.is_some() {
            inner.records.note(self.record(0, None));
        }
        Ok(url)
    }

    /// A part of it, noted as a download when it ends.
    ///
    /// # Errors
    /// `not_found`, `rate_limited`, `unavailable`.
    pub async fn part(&self, range: Range<u64>) -> Result<Part, WireError> {
        let inner = &self.library.inner;
        let place = inner.downloads.take(self.caller.user_id).await?;
        let size = self.file.media.size;
        let whole = range == (0..size);
        let asked = (!whole).then(|| range.clone());
        let bytes = inner.files.read(self.file.media.id.0, asked).await.map_err(files)?;
        let record = self.record(range.start, Some((0, false)));
        Ok(Part {
            _place: place,
            bytes,
            left: range.end - range.start,
            whole,
            record,
            records: inner.records.clone(),
        })
    }

    /// Its thumbnail.
    ///
    /// # Errors
    /// `not_found` when there is none (yet), `unavailable`.
    pub async fn thumbnail(&self) -> Result<Bytes, WireError> {
        if !self.file.thumbnail {
            return Err(WireError::new(ErrorCode::NotFound, "there is no thumbnail, or not yet"));
        }
        self.library.inner.files.read_thumbnail(self.file.media.id.0).await.map_err(files)
    }

    fn record(&self, first_byte: u64, written: Option<(u64, bool)>) -> DownloadRecord {
        DownloadRecord {
            id: Uuid::now_v7(),
            media: self.file.media.id,
            message: self.message,
            user: self.caller.user_id,
            device: self.caller.device_id,
            at: OffsetDateTime::now_utc(),
            first_byte,
            written,
        }
    }
}

/// The bytes of an answer. Dropped, it notes how far it came.
pub struct Part {
    _place: Place,
    bytes: BoxStream<'static, Result<Bytes, FilesError>>,
    left: u64,
    whole: bool,
    record: DownloadRecord,
    records: Records,
}

impl Stream for Part {
    type Item = Result<Bytes, FilesError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.bytes.poll_next_unpin(cx));
        match &next {
            Some(Ok(bytes)) => {
                let came = bytes.len() as u64;
                self.left = self.left.saturating_sub(came);
                let complete = self.whole && self.left == 0;
                let (before, _) = self.record.written.unwrap_or_default();
                self.record.written = Some((before + came, complete));
            }
            // The answer has begun: all that can be done is to break it off.
            Some(Err(error)) => tracing::warn!(error = %causes(error), "a download broke off"),
            None => {}
        }
        Poll::Ready(next)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let (bytes, _) = self.record.written.unwrap_or_default();
        measures::downloaded_bytes().increment(bytes);
        self.records.note(self.record.clone());
    }
}
