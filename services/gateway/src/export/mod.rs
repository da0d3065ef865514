//! Data handed out whole: what a chat holds, or what a user has, as a ZIP archive that is written while
//! it is sent.
//!
//! A page is read, written into the archive, and sent, before the next is read: the socket sets the
//! pace, and memory holds a page. Whoever may not have it any more, or takes too long, gets no end: an
//! archive without its directory opens nowhere, so what is broken off never looks whole.
//! - `archive`: the archive on its way
//! - `chat`: what a chat holds
//! - `user`: what a user has

mod archive;
mod chat;
mod user;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Body;
use futures::{TryStreamExt, stream};
use natter_protocol::{
    error::WireError,
    ids::{MediaId, UserId},
    media::Media,
    timestamp,
};
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::archive::{Archive, Broken};
use crate::{
    app::App,
    auth::{Caller, Refusal, refused},
    fault,
    measures::Limit,
};

pub use chat::chat;
pub use user::user;

/// As a manifest calls this kind of archive, and how it is laid out.
const FORMAT: &str = "natter-export";
const VERSION: u32 = 1;
/// Rows that are read at once.
const PAGE: u32 = 200;
/// Files that a manifest names as missing; more are counted.
const MISSING: usize = 1_000;
/// How long one who has to wait should.
const RETRY_MS: u64 = 10_000;

/// The exports of a node. Cloning shares them.
#[derive(Clone)]
pub struct Exports {
    places: Arc<Semaphore>,
    users: Arc<Mutex<HashSet<UserId>>>,
}

/// A place, until this is dropped.
struct Place {
    of: UserId,
    users: Arc<Mutex<HashSet<UserId>>>,
    _permit: OwnedSemaphorePermit,
}

impl Exports {
    /// So many at once.
    #[must_use]
    pub fn new(count: u32) -> Self {
        Self { places: Arc::new(Semaphore::new(count as usize)), users: Arc::default() }
    }

    fn take(&self, of: UserId) -> Result<Place, WireError> {
        let busy = |message| fault::limited(Limit::Exports, message, RETRY_MS);
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| busy("too many exports at once"))?;
        if !lock(&self.users).insert(of) {
            return Err(busy("an export of yours is under way"));
        }
        Ok(Place { of, users: Arc::clone(&self.users), _permit: place })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.users).remove(&self.of);
    }
}

fn lock(users: &Mutex<HashSet<UserId>>) -> MutexGuard<'_, HashSet<UserId>> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An archive that has begun.
pub struct Export {
    /// What it is called.
    pub name: String,
    /// Its bytes, as they are made.
    pub body: Body,
}

/// What is in an archive, at its end: without it, it is not whole.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<T> {
    format: &'static str,
    version: u32,
    #[serde(with = "timestamp")]
    made_at: OffsetDateTime,
    made_for: UserId,
    #[serde(flatten)]
    of: T,
    /// Lines and files, by what they are.
    entries: Entries,
    /// Files that are in messages, and could not be found any more.
    missing: Vec<MediaId>,
    missing_count: u64,
    /// What there is besides, and is not in here.
    left_out: Vec<&'static str>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Entries {
    #[serde(skip_serializing_if = "Option::is_none")]
    participants: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chats: Option<u64>,
    messages: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reactions: Option<u64>,
    media: u64,
}

/// Files that have been put into an archive, or not.
#[derive(Default)]
struct Kept {
    count: u64,
    missing: Vec<MediaId>,
    missing_count: u64,
}

impl<T> Manifest<T> {
    fn new(caller: &Caller, of: T, mut entries: Entries, kept: Kept) -> Self {
        let Kept { count, missing, missing_count } = kept;
        entries.media = count;
        Self {
            format: FORMAT,
            version: VERSION,
            made_at: timestamp::truncate(OffsetDateTime::now_utc()),
            made_for: caller.user_id,
            of,
            entries,
            missing,
            missing_count,
            left_out: Vec::new(),
        }
    }
}

/// Makes an archive while it is sent: `write` is run beside, and what it fails with breaks it off.
fn make<F>(place: Place, name: String, write: impl FnOnce(Archive) -> F + Send + 'static) -> Export
where
    F: Future<Output = Result<(), Broken>> + Send,
{
    let (archive, mut pieces) = Archive::new(OffsetDateTime::now_utc());
    tokio::spawn(async move {
        let answer = archive.answer();
        let written = write(archive).await;
        // Another may begin, however long this one's client takes over what waits for it.
        drop(place);
        if let Err(broken) = written {
            broken.tell();
            // The connection ends in the middle of its answer.
            let _ = answer.send(Err(std::io::Error::other(broken))).await;
        }
    });
    let pieces = stream::poll_fn(move |cx| pieces.poll_recv(cx));
    Export { name, body: Body::from_stream(pieces) }
}

/// That the caller's device is still what it was when the call began.
async fn still(app: &App, caller: &Caller) -> Result<(), WireError> {
    let state = app.store.device_state(caller.user_id, caller.device_id).await;
    let state = state.map_err(fault::store)?;
    let good = state.is_some_and(|state| {
        !state.revoked
            && !state.disabled
            && (caller.session.is_none() || caller.session == state.session)
    });
    if good { Ok(()) } else { Err(refused(Refusal::Device, "the device was revoked")) }
}

/// Puts a message's file into the archive, unless it is gone.
async fn put_file(
    app: &App,
    archive: &mut Archive,
    media: &Media,
    kept: &mut Kept,
) -> Result<(), Broken> {
    let Some(mut bytes) = app.library.whole(media.id).await? else {
        kept.missing_count += 1;
        if kept.missing.len() < MISSING {
            kept.missing.push(media.id);
        }
        return Ok(());
    };
    let name = format!("media/{}-{}", media.id, natter_media::safe_name(&media.name));
    archive.begin_file(&name, media.size)?;
    let mut left = media.size;
    while let Some(some) = bytes.try_next().await? {
        left = left.checked_sub(some.len() as u64).ok_or(Broken::File)?;
        archive.put(&some).await?;
    }
    if left > 0 {
        return Err(Broken::File);
    }
    kept.count += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use natter_protocol::error::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn one_user_has_one_at_a_time_and_a_node_so_many() {
        let exports = Exports::new(2);
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let code = |place: Result<Place, WireError>| place.map(drop).map_err(|error| error.code);
        let (Ok(anas), Ok(bens)) = (exports.take(ana), exports.take(ben)) else {
            panic!("there is room")
        };
        assert_eq!(code(exports.take(UserId::generate())), Err(ErrorCode::RateLimited));
        drop(bens);
        assert_eq!(code(exports.take(ana)), Err(ErrorCode::RateLimited));
        drop(anas);
        assert_eq!(code(exports.take(ana)), Ok(()));
        assert_eq!(exports.places.available_permits(), 2);
    }
}
