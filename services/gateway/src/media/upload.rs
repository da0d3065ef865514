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
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{Library, STALLED, files, places::Taken as Place};
use crate::{fault, measures};

/// How often it is said that an upload goes on; others give it up a good while after the last time.
const GOES_ON: Duration = Duration::from_secs(3);
/// Bytes a second that a file has to come with on average, once this long has gone by.
const SLOWEST: u64 = 1024;
const AT_FIRST: Duration = Duration::from_mins(1);
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
    began: Instant,
    _place: Place,
}

/// A file that is being stored.
struct Open {
    noted: Noted,
    kind: Kind,
    limit: u64,
    /// The first bytes.
    head: Bytes,
    upload: Upload,
}

/// A file that Postgres knows of, and is told now and then that it goes on; given up when this is
/// dropped.
pub(super) struct Noted {
    id: MediaId,
    store: Option<Store>,
    telling: AbortHandle,
}

impl Noted {
    /// From here on.
    pub(super) fn new(store: &Store, id: MediaId) -> Self {
        let telling = tokio::spawn(tell(store.clone(), id)).abort_handle();
        Self { id, store: Some(store.clone()), telling }
    }

    /// It is what it was to be, or for somebody else to go on with.
    pub(super) fn keep(mut self) {
        self.store = None;
    }
}

async fn tell(store: Store, id: MediaId) {
    loop {
        sleep(GOES_ON).await;
        match store.media_goes_on(id, None).await {
            Ok(true) => {}
            // Whoever makes a file of it finds out.
            Ok(false) => return,
            // It may come back before the upload is over.
            Err(error) => tracing::debug!(error = %causes(&error), "an upload is not noted"),
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.telling.abort();
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
    pub fn new(
        library: &Library,
        place: Place,
        chat: ChatId,
        uploader: UserId,
        name: &str,
    ) -> Self {
        Self {
            library: library.clone(),
            chat,
            uploader,
            name: safe_name(name),
            head: BytesMut::new(),
            open: None,
            hash: Sha256::new(),
            size: 0,
            began: Instant::now(),
            _place: place,
        }
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
        let took = self.began.elapsed();
        if took > AT_FIRST && self.size < took.as_secs() * SLOWEST {
            return Err(WireError::new(ErrorCode::BadRequest, "file: comes too slowly"));
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
        let Open { noted, kind, head, upload, .. } = open;
        upload.finish().await.map_err(files)?;
        let measures = measures(kind, &head, self.size, Some(self.hash.finalize().into()));
        let media = self.library.made(noted.id, &measures).await?;
        noted.keep();
        measures::uploads().increment(1);
        measures::uploaded_bytes().increment(self.size);
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
        let noted = Noted::new(&inner.store, id);
        let shown = disposition(name, shows_inline(media_type));
        let upload = inner.files.create(id.0, media_type, &shown);
        self.open = Some(Open { noted, kind, limit, head: head.clone(), upload });
        self.store(head).await
    }

    async fn store(&mut self, bytes: Bytes) -> Result<(), WireError> {
        let Some(open) = &mut self.open else { return Err(given_up()) };
        let before = open.upload.unfinished().is_some();
        open.upload.write(bytes).await.map_err(files)?;
        // Noted as soon as it has a name, so that whoever sweeps can end it.
        if !before && let Some(unfinished) = open.upload.unfinished() {
            let store = &self.library.inner.store;
            let noted = store.media_goes_on(open.noted.id, Some(unfinished)).await;
            if !noted.map_err(fault::store)? {
                return Err(given_up());
            }
        }
        Ok(())
    }
}

impl Library {
    /// A place for a file that this user uploads.
    ///
    /// # Errors
    /// `rate_limited`.
    pub async fn place(&self, uploader: UserId) -> Result<Place, WireError> {
        self.inner.uploads.take(uploader).await
    }

    /// The file is whole.
    pub(super) async fn made(&self, id: MediaId, measures: &Measures) -> Result<Media, WireError> {
        let made = self.inner.store.finish_media(id, measures).await.map_err(fault::store)?;
        if made.is_none()
            && let Err(error) = self.inner.files.remove(id.0, None).await
        {
            // Given up meanwhile, it may have been removed before it came to be.
            tracing::warn!(media = %id, error = %causes(&error), "a file that nobody knows of");
        }
        made.ok_or_else(given_up)
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
