//! Files that go to the store past this node: it says where, and looks at what has come.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use natter_media::{FilesError, HEAD_BYTES, disposition, safe_name, shows_inline, sniff};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MediaId, UserId},
    media::{Media, UploadDraft, UploadTicket},
};
use natter_runtime::causes;
use natter_store::{NewMedia, Taken};
use time::OffsetDateTime;

use super::{
    Library, files,
    upload::{Noted, measures, too_large},
};
use crate::fault;

/// The largest file that S3 copies.
const COPIED: u64 = 5 * 1024 * 1024 * 1024;
/// How long making a file of what has come may take.
const LONGEST: Duration = Duration::from_mins(15);
/// What a file is called until it is there.
const UNKNOWN: &str = "application/octet-stream";

impl Library {
    /// Where a file may be put directly.
    ///
    /// # Errors
    /// `not_found` where uploads only go through nodes, `too_large`, `unavailable`.
    pub async fn ticket(
        &self,
        chat: ChatId,
        uploader: UserId,
        draft: &UploadDraft,
    ) -> Result<UploadTicket, WireError> {
        let inner = &self.inner;
        let elsewhere = || {
            WireError::new(ErrorCode::NotFound, "files are uploaded by multipart/form-data here")
        };
        if inner.settings.media_signed_bytes.is_none() {
            return Err(elsewhere());
        }
        let most = self.most().min(COPIED);
        if draft.size > most {
            return Err(too_large(most));
        }
        let id = MediaId::generate();
        let within = Duration::from_secs(inner.settings.media_signed_seconds);
        let url = inner.files.signed_put(id.0, within).await.map_err(files)?;
        let url = url.ok_or_else(elsewhere)?;
        let name = safe_name(&draft.name);
        let open = Some(within);
        let new = NewMedia { id, chat, uploader, name: &name, media_type: UNKNOWN, open };
        inner.store.begin_media(&new).await.map_err(fault::store)?;
        let expires_at = OffsetDateTime::now_utc() + within;
        let headers = inner.files.put_headers().iter();
        let headers = headers.map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Ok(UploadTicket { media_id: id, url: url.into(), headers, expires_at })
    }

    /// Looks at what was put there, and makes it a file that can be sent. The URL is good for
    /// longer, so what it leads to is not what is kept. Again is the same.
    ///
    /// # Errors
    /// `not_found` when nothing has come, `conflict` while another call is about it, `too_large`, `unsupported_media`, `unavailable`.
    pub async fn complete(
        &self,
        chat: ChatId,
        uploader: UserId,
        id: MediaId,
    ) -> Result<Media, WireError> {
        let inner = &self.inner;
        let _place = self.place(uploader).await?;
        let taken = inner.store.take_upload(id, chat, uploader, LONGEST).await;
        let name = match taken.map_err(fault::store)? {
            Taken::Upload(name) => name,
            Taken::Whole(media) => return Ok(*media),
            Taken::ByAnother => {
                let error = WireError::new(ErrorCode::Conflict, "it is being completed");
                return Err(error.retry_after_ms(1_000));
            }
            Taken::None => {
                return Err(WireError::new(
                    ErrorCode::NotFound,
                    "there is no such upload of yours",
                ));
            }
        };
        let noted = Noted::new(&inner.store, id);
        let made = self.make(id, &name).await;
        // Not given up when it fails: it may be tried again, or put there again.
        noted.keep();
        if made.is_err()
            && let Err(error) = inner.store.leave_upload(id).await
        {
            tracing::debug!(error = %causes(&error), "an upload stays taken for a while");
        }
        made
    }

    async fn make(&self, id: MediaId, name: &str) -> Result<Media, WireError> {
        let inner = &self.inner;
        let missing = |error| match error {
            FilesError::NotFound => WireError::new(ErrorCode::NotFound, "nothing has come yet"),
            error => files(error),
        };
        let changed = |error| match error {
            FilesError::Changed => WireError::new(ErrorCode::Conflict, "the file has just changed"),
            error => files(error),
        };
        let incoming = inner.files.incoming(id.0).await.map_err(missing)?;
        let size = incoming.size;
        if size == 0 {
            return Err(WireError::new(ErrorCode::BadRequest, "file: is empty"));
        }
        let least = self.most();
        if size > least {
            return Err(too_large(least));
        }
        let first = Some(0..size.min(HEAD_BYTES as u64));
        let head = inner.files.read_incoming(id.0, &incoming, first).await.map_err(changed)?;
        let join = async |mut head: BytesMut, more: Bytes| {
            head.extend_from_slice(&more);
            Ok(head)
        };
        let head = head.try_fold(BytesMut::new(), join).await.map_err(changed)?;
        let kind = sniff(&head);
        let limit = self.limit(kind)?;
        if size > limit {
            return Err(too_large(limit));
        }
        let shown = disposition(name, shows_inline(kind.media_type));
        // Of what was looked at: the URL may be used again until it expires.
        let adopted = inner.files.adopt(id.0, &incoming, kind.media_type, &shown).await;
        adopted.map_err(changed)?;
        inner.store.media_turned_out(id, kind.media_type).await.map_err(fault::store)?;
        self.made(id, &measures(kind, &head, size, None)).await
    }
}
