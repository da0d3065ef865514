//! Replaying what a connection has missed: from a cursor that a client kept, or from where a chat
//! that was added begins.
//!
//! A connection that replays is attached like any other, so that all its feeds are followed and
//! what comes live waits in its queue. What lies between its cursor and where the node stands is
//! read from the log, from Postgres where the log has cut it off, and written before the queue.
//! The queue may repeat it; the connection's cursor tells, and drops that.
//!
//! All of it is read before anything is written, so that a refusal is honest, and so that a cut
//! of the log in the middle can be noticed.

mod plan;
mod read;

use std::sync::Arc;

use natter_protocol::{
    cursor::Cursor,
    error::WireError,
    feed::Feed,
    ids::{ConnectionId, DeviceId, Seq, UserId},
    server::ResumeRefusal,
};
use natter_runtime::causes;
use natter_store::Followed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use uuid::Uuid;

pub use self::plan::moved;
use crate::{
    app::App,
    fault,
    hub::{Command, Standing},
    outlet::Outgoing,
};

/// Replays under way at once on this node; more wait. A storm of clients that come back meets the
/// broker and Postgres at this width.
const AT_ONCE: usize = 16;

/// KiB that all replays of this node hold while they wait for their clients to take them.
const HELD_KIB: usize = 512 * 1024;

/// The replays of a node.
#[derive(Clone)]
pub struct Replays {
    turn: Arc<Semaphore>,
    held: Arc<Semaphore>,
    /// Entries that one replay may hold.
    entries: usize,
}

impl Replays {
    /// With this many entries in one of them at most.
    #[must_use]
    pub fn new(entries: u32) -> Self {
        let (turn, held) = (Arc::new(Semaphore::new(AT_ONCE)), Arc::new(Semaphore::new(HELD_KIB)));
        Self { turn, held, entries: entries as usize }
    }

    /// Room for a replay of so many bytes and items, until it is dropped.
    async fn hold(&self, bytes: usize, items: usize) -> Option<Held> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        let part = Arc::clone(&self.held).acquire_many_owned(kib).await.ok()?;
        Some(Held { part, kib: kib as usize, items })
    }

    /// Whether one of the largest replays would have to wait for another to be taken.
    #[must_use]
    pub fn crowded(&self) -> bool {
        self.held.available_permits() < read::BYTES / 1024
    }
}

/// A replay's part of what all of a node may hold: less and less of it.
#[derive(Debug)]
pub struct Held {
    part: OwnedSemaphorePermit,
    /// What it began with.
    kib: usize,
    items: usize,
}

impl Held {
    /// Only so many items are left: the room of those that were written is for other replays.
    pub fn shrink(&mut self, items: usize) {
        let wanted = self.kib * items / self.items.max(1) + 1;
        let beyond = self.part.num_permits().saturating_sub(wanted);
        drop(self.part.split(beyond));
    }
}

/// For whom.
#[derive(Clone, Copy, Debug)]
pub struct Viewer {
    /// The user.
    pub user: UserId,
    /// The user's own feed.
    pub feed: Feed,
    /// The device.
    pub device: DeviceId,
    /// The device as its tokens name it.
    pub key: Uuid,
    /// Its login.
    pub session: Option<Uuid>,
    /// The user is a program.
    pub bot: bool,
    /// The connection.
    pub connection: ConnectionId,
    /// It wants its own messages as events too.
    pub echo: bool,
}

/// What was missed, and where it leads.
#[derive(Debug)]
pub struct Replay {
    /// Where it begins.
    pub from: Cursor,
    /// In order.
    pub items: Vec<Outgoing>,
    /// Where the connection stands after it, at least.
    pub onto: Cursor,
    /// Its part of what a node's replays may hold.
    pub held: Option<Held>,
}

impl Replay {
    /// Nothing was missed.
    #[must_use]
    pub fn nothing(at: Cursor) -> Self {
        Self { from: at.clone(), items: Vec::new(), onto: at, held: None }
    }
}

/// Why there is no replay.
#[derive(Debug, thiserror::Error)]
pub enum NoReplay {
    /// It has to be fetched afresh.
    #[error("cannot be replayed: {0:?}")]
    Refused(ResumeRefusal),
    /// The device or its login was revoked meanwhile.
    #[error("the device was revoked")]
    Revoked,
    /// Something that it needs is away just now.
    #[error("{0}")]
    Failed(WireError),
}

impl From<WireError> for NoReplay {
    fn from(error: WireError) -> Self {
        Self::Failed(error)
    }
}

impl From<natter_bus::BusError> for NoReplay {
    fn from(error: natter_bus::BusError) -> Self {
        tracing::debug!(error = %causes(&error), "reading what a connection missed");
        Self::Failed(fault::unavailable("the log"))
    }
}

impl From<natter_store::StoreError> for NoReplay {
    fn from(error: natter_store::StoreError) -> Self {
        Self::Failed(fault::store(error))
    }
}

/// Everything that lies between `from` and where the viewer stands on all of the viewer's feeds.
/// What has come since is queued for the connection.
///
/// # Errors
/// [`NoReplay`].
pub async fn everything(
    app: &App,
    viewer: Viewer,
    from: Cursor,
    standing: Standing,
    snapshot: Option<&Followed>,
) -> Result<Replay, NoReplay> {
    let _turn = app.replays.turn.acquire().await;
    let (items, bytes) = plan::everything(app, viewer, &from, &standing, snapshot).await?;
    let held = app.replays.hold(bytes, items.len()).await;
    Ok(Replay { from, items, onto: standing.at, held })
}

/// What lies on one chat's feed after `after`, up to `until`, for a connection that stands at `at`.
///
/// # Errors
/// [`NoReplay`].
pub async fn chat(
    app: &App,
    viewer: Viewer,
    at: Cursor,
    chat: Feed,
    after: Seq,
    until: Option<Seq>,
) -> Result<Replay, NoReplay> {
    let _turn = app.replays.turn.acquire().await;
    let mut reader = read::Reader::new(app, viewer, at.bases());
    let part = reader.chat(chat, after, until).await?;
    reader.check().await?;
    let items = reader.items(part);
    let held = app.replays.hold(reader.bytes(), items.len()).await;
    Ok(Replay { from: at.clone(), items, onto: at, held })
}

/// How a user stands on this node now.
///
/// # Errors
/// When the node is going down.
pub async fn standing(app: &App, user: UserId) -> Result<Standing, NoReplay> {
    let (answer, standing) = oneshot::channel();
    app.hub.tell(Command::Standing(user, answer)).await;
    standing.await.map_err(|_| NoReplay::Failed(fault::unavailable("the node")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_written_makes_room_for_others() {
        let replays = Replays::new(1);
        let mut held = Vec::new();
        while !replays.crowded() {
            held.extend(replays.hold(read::BYTES, 100).await);
        }
        assert_eq!(held.len(), HELD_KIB / (read::BYTES / 1024 + 1));
        let Some(first) = held.first_mut() else { panic!("nobody holds anything") };
        for (left, crowded) in [(100, true), (99, false), (0, false)] {
            first.shrink(left);
            assert_eq!(replays.crowded(), crowded, "{left} are left");
        }
        drop(held);
        assert_eq!(replays.held.available_permits(), HELD_KIB);
        // One without items holds nothing worth giving back.
        if let Some(mut nothing) = replays.hold(0, 0).await {
            nothing.shrink(0);
        }
    }
}
