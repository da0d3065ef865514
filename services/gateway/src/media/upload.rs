//! A file that comes through this node: looked at, bounded, hashed and stored piece by piece.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use natter_media::{
    HEAD_BYTES, Kind, Upload, dimensions, disposition, safe_name, shows_inline, sniff,
};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MediaId, UserId},
    media::Media,
};
use natter_runtime::causes;
use natter_store::{Measures, NewMedia, Store};
use sha2::{Digest, Sha256};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use super::{Library, STALLED, files};
use crate::fault;

/// How often it is said that an upload goes on; others give it up a good while after the last time.
const GOES_ON: Duration = Duration::from_secs(3);
/// How long to wait for a place among the uploads.
const PLACE: Duration = Duration::from_secs(5);
/// Images that get a thumbnail; larger ones do not.
const THUMBNAILS: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const THUMBNAIL_OF: u64 = 32 * 1024 * 1024;

/// A file that comes, of which nothing stays when this is dropped before [`Incoming::finish`].
pub struct Incoming {
    library: Library,
    chat: ChatId,
    uploader: UserId,
    name: String,
    /// What has come until it was known what it is.
    head: BytesMut,
    open: Option<Open>,
    hash: Sha256,
    size: u64,
    _place: OwnedSemaphorePermit,
}

/// A file that is being stored.
struct Open {
    noted: Noted,
    kind: Kind,
    limit: u64,
    /// The first bytes.
    head: Bytes,
    upload: Upload,
    told: Instant,
}

/// A file that Postgres knows of; given up when this is dropped.
struct Noted {
    id: MediaId,
    store: Option<Store>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Some(store) = self.store.take() {
            let id = self.id;
            tokio::spawn(async move {
                if let Err(error) = store.give_up_media(id).await {
                    tracing::debug!(error = %causes(&error), "a broken-off upload is swept later");
                }
            });
        }
    }
}

impl Incoming {
    /// A file of this name that a participant uploads to a chat.
    ///
    /// # Errors
    /// `rate_limited` when there is no place for it.
    pub async fn new(
        library: &Library,
        chat: ChatId,
        uploader: UserId,
        name: &str,
    ) -> Result<Self, WireError> {
        let place = library.inner.uploads.clone().acquire_owned();
        let Ok(Ok(place)) = timeout(PLACE, place).await else {
            let error = WireError::new(ErrorCode::RateLimited, "too many uploads at once");
            return Err(error.retry_after_ms(1_000));
        };
        Ok(Self {
            library: library.clone(),
            chat,
            uploader,
            name: safe_name(name),
            head: BytesMut::new(),
            open: None,
            hash: Sha256::new(),
            size: 0,
            _place: place,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// `too_large`, `unsupported_media`, `unavailable`.
    pub async fn take(&mut self, bytes: Bytes) -> Result<(), WireError> {
        self.size += bytes.len() as u64;
        let most = self.open.as_ref().map_or_else(|| self.library.most(), |open| open.limit);
        if self.size > most {
            return Err(too_large(most));
        }
        self.hash.update(&bytes);
        if self.open.is_some() {
            return self.store(bytes).await;
        }
        self.head.extend_from_slice(&bytes);
        if self.head.len() >= HEAD_BYTES {
            self.begin().await?;
        }
        Ok(())
    }

    /// The file is whole.
    ///
    /// # Errors
    /// `bad_request` for an empty file, and those of [`Incoming::take`].
    pub async fn finish(mut self) -> Result<Media, WireError> {
        if self.size == 0 {
            return Err(WireError::new(ErrorCode::BadRequest, "file: is empty"));
        }
        if self.open.is_none() {
            self.begin().await?;
        }
        let Some(open) = self.open.take() else {
            return Err(given_up());
        };
        let Open { mut noted, kind, head, upload, .. } = open;
        upload.finish().await.map_err(files)?;
        let measures = measures(kind, &head, self.size, Some(self.hash.finalize().into()));
        let store = &self.library.inner.store;
        let media = store.finish_media(noted.id, &measures).await.map_err(fault::store)?;
        let media = media.ok_or_else(given_up)?;
        noted.store = None;
        metrics::counter!("natter_media_uploaded_total").increment(1);
        metrics::counter!("natter_media_uploaded_bytes_total").increment(self.size);
        Ok(media)
    }

    /// What the file is, is known: it is noted, and its first bytes are stored.
    async fn begin(&mut self) -> Result<(), WireError> {
        let head = self.head.split().freeze();
        let kind = sniff(&head);
        let limit = self.library.limit(kind)?;
        if self.size > limit {
            return Err(too_large(limit));
        }
        let inner = &self.library.inner;
        let (id, media_type) = (MediaId::generate(), kind.media_type);
        let (chat, uploader, name) = (self.chat, self.uploader, self.name.as_str());
        let new = NewMedia { id, chat, uploader, name, media_type, open: None };
        inner.store.begin_media(&new).await.map_err(fault::store)?;
        let noted = Noted { id, store: Some(inner.store.clone()) };
        let shown = disposition(name, shows_inline(media_type));
        let upload = inner.files.create(id.0, media_type, &shown);
        let open = Open { noted, kind, limit, head: head.clone(), upload, told: Instant::now() };
        self.open = Some(open);
        self.store(head).await
    }

    async fn store(&mut self, bytes: Bytes) -> Result<(), WireError> {
        let Some(open) = &mut self.open else { return Err(given_up()) };
        let before = open.upload.unfinished().is_some();
        open.upload.write(bytes).await.map_err(files)?;
        // Noted as soon as it has a name, so that whoever sweeps can end it.
        let named = !before && open.upload.unfinished().is_some();
        if named || open.told.elapsed() >= GOES_ON {
            open.told = Instant::now();
            let unfinished = open.upload.unfinished();
            let on = self.library.inner.store.media_goes_on(open.noted.id, unfinished).await;
            match on {
                Ok(true) => {}
                Ok(false) => return Err(given_up()),
                // It may come back before the upload is over.
                Err(error) => tracing::debug!(error = %causes(&error), "an upload is not noted"),
            }
        }
        Ok(())
    }
}

/// What is known of a file whose first bytes these are.
pub(super) fn measures(kind: Kind, head: &[u8], size: u64, sha256: Option<[u8; 32]>) -> Measures {
    let seen = dimensions(&kind, head);
    let thumbnail = THUMBNAILS.contains(&kind.media_type) && size <= THUMBNAIL_OF;
    Measures { size, sha256, seen, thumbnail }
}

/// Waits for the next bytes of a body, as long as may be.
///
/// # Errors
/// `bad_request` when they do not come.
pub async fn in_time<T>(next: impl Future<Output = T>) -> Result<T, WireError> {
    let stalled = |_| WireError::new(ErrorCode::BadRequest, "the body does not go on");
    timeout(STALLED, next).await.map_err(stalled)
}

pub(super) fn too_large(limit: u64) -> WireError {
    WireError::new(ErrorCode::TooLarge, format!("file: more than {limit} bytes"))
}

pub(super) fn given_up() -> WireError {
    fault::unavailable("the upload was given up: it")
}
