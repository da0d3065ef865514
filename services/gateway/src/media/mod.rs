//! Media: files on their way into the store and out of it.
//!
//! A file is noted in Postgres before its first byte is stored, and again when it is whole: what is
//! broken off in between is removed by whoever sweeps. A message that is sent with it claims it
//! first, so that no other has it.
//! - `upload`: through this node, in bounded memory
//! - `direct`: past it, to the store itself, where that has URLs for it
//! - `download`: to participants, whole or in part
//! - `records`: who has fetched what
//! - `places`: how many of them there may be at once

mod direct;
mod download;
mod places;
mod records;
mod upload;

use std::{sync::Arc, time::Duration};

use natter_media::{Class, Files, FilesError, Kind};
use natter_protocol::{
    error::{ErrorCode, Outcome, WireError},
    ids::{ChatId, MediaId, MessageId, UserId},
    media::Media,
};
use natter_runtime::causes;
use natter_store::{Claim, Store};

use places::Places;

pub use download::{Part, Wanted};
pub use places::Taken as Place;
pub use records::{Records, write_all};
pub use upload::{Incoming, in_time};

use crate::{config::MediaArgs, fault, measures::Limit};

/// Media's part of a node. Cloning shares it.
#[derive(Clone)]
pub struct Library {
    inner: Arc<Inner>,
}

struct Inner {
    files: Files,
    store: Store,
    records: Records,
    settings: MediaArgs,
    uploads: Places,
    downloads: Places,
}

impl Library {
    /// With files there. Records are written by [`Records::run`].
    #[must_use]
    pub fn new(files: Files, store: Store, records: Records, settings: MediaArgs) -> Self {
        let uploads = Places::new(settings.media_uploads_at_once, Limit::Uploads);
        let downloads = Places::new(settings.media_downloads_at_once, Limit::Downloads);
        Self { inner: Arc::new(Inner { files, store, records, settings, uploads, downloads }) }
    }

    /// How many bytes a file of this kind may have.
    ///
    /// # Errors
    /// `unsupported_media` for one that is not taken at all.
    fn limit(&self, kind: Kind) -> Result<u64, WireError> {
        let settings = &self.inner.settings;
        let refused = || {
            let message = format!("files of type {} are not taken", kind.media_type);
            WireError::new(ErrorCode::UnsupportedMedia, message)
        };
        if settings.media_refused_types.iter().any(|refused| refused == kind.media_type) {
            return Err(refused());
        }
        match settings.limit(kind.class) {
            0 => Err(refused()),
            limit => Ok(limit),
        }
    }

    /// How many bytes any file may have.
    fn most(&self) -> u64 {
        let settings = &self.inner.settings;
        let classes = [Class::Image, Class::Video, Class::Audio, Class::Document];
        classes.into_iter().map(|class| settings.limit(class)).max().unwrap_or(0)
    }

    /// Promises a file to a message that is going to be published, and tells what it is.
    ///
    /// # Errors
    /// `not_found`, `conflict`, `unavailable` (`not_sent`).
    pub async fn claim(
        &self,
        media: MediaId,
        chat: ChatId,
        sender: UserId,
        message: MessageId,
    ) -> Result<Box<Media>, WireError> {
        let claim = self.inner.store.claim_media(media, chat, sender, message).await;
        match claim.map_err(fault::store) {
            Ok(Claim::Claimed(media)) => Ok(media),
            Ok(Claim::None) => Err(WireError::new(
                ErrorCode::NotFound,
                "mediaId: no file that the sender has uploaded to this chat",
            )),
            Ok(Claim::Taken) => Err(WireError::new(
                ErrorCode::Conflict,
                "mediaId: it was sent with another message",
            )),
            Err(error) if error.code == ErrorCode::Unavailable => {
                Err(error.outcome(Outcome::NotSent))
            }
            Err(error) => Err(error),
        }
    }
}

/// What the store's errors mean to a client.
fn files(error: FilesError) -> WireError {
    match error {
        FilesError::NotFound => WireError::new(ErrorCode::NotFound, "the file is gone"),
        FilesError::TooLarge { most, .. } => upload::too_large(most),
        error => {
            tracing::warn!(error = %causes(&error), "the store of files is unavailable");
            fault::unavailable("the store of files")
        }
    }
}

/// How long a client may take over the next bytes of a file.
const STALLED: Duration = Duration::from_secs(30);
