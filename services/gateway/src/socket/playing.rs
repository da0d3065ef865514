//! The part of a session that replays: what was missed before it began, chats that were added,
//! and what its queue could not hold while it did.

use std::{sync::Arc, time::Duration, vec};

use axum::extract::ws::Utf8Bytes;
use futures::FutureExt;
use natter_protocol::{
    cursor::{Cursor, Seal},
    error::{ErrorCode, WireError, close},
    feed::Feed,
    ids::{Seq, UserId},
    server::{Resumed, ServerEvent},
};
use natter_runtime::causes;
use tokio::time::{Instant, sleep};

use super::{
    handshake::parse_cursor,
    session::{End, Session},
};
use crate::{
    app::App,
    codec::Codec,
    fault,
    hub::frames::Part,
    measures,
    outlet::{Outgoing, Outlet},
    replay::{self, Held, NoReplay, Replay, Viewer},
};

/// Replays in a row that one connection gets: one that falls behind so often reads too slowly.
const AGAIN: u32 = 5;
/// While the log is away, what is missing is asked for so often, at this pace.
const TRIES: u32 = 60;
const RETRY: Duration = Duration::from_millis(500);

/// Whoever takes longer than this to take in what was replayed has to come back for the rest where others wait for
/// the room that it takes. A healthy client takes the largest replay in within a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was to be replayed.
pub enum Replayed {
    /// What lies between a client's cursor and the connection's beginning; the number of its
    /// request, if it asked on a live connection.
    Resumed(Option<u64>, Result<Replay, NoReplay>),
    /// What the connection cannot do without.
    Missing(Result<Replay, NoReplay>),
}

/// A replay that is being written, as fast as its client takes it in.
pub(super) struct Playing {
    /// What has been written of all feeds.
    at: Cursor,
    items: vec::IntoIter<Outgoing>,
    /// Where the connection stands after it, at least.
    onto: Cursor,
    held: Option<Held>,
    since: Instant,
    /// Of what was asked for on a live connection: where that had begun.
    began: Option<Box<Cursor>>,
    /// The client is told when it is over.
    resumes: bool,
}

/// What something queued is for the client.
pub enum Rendered {
    /// To be written, and what it answers; then, for a chat that was added, what lies on its feed
    /// is to be replayed.
    Frames([Option<Utf8Bytes>; 2], Option<u64>, Option<Begun>),
    /// A chat's feed between two entries is to be replayed first.
    After((Feed, Seq, Seq), Outgoing),
}

/// A part in a chat that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    chat: Feed,
    /// After this entry of the chat's feed …
    after: Seq,
    /// … of which the client has everything up to this one.
    read: Seq,
}

impl Begun {
    /// What lies on the chat's feed that the client has not: after an entry, and up to which. The
    /// part may have ended since, as what waits tells: nothing beyond that is for the client, who
    /// may have seen the end before (on another node) and so would not find it again.
    pub fn unread(self, waiting: &Outlet) -> Option<(Feed, Seq, Option<Seq>)> {
        let until = waiting.end_of(self.chat, self.after);
        let all = until.is_some_and(|until| until <= self.read);
        (!all).then_some((self.chat, self.read, until))
    }
}

/// Whose cursors, and under which seal.
pub type Owner = (UserId, Seal);

/// Moves a cursor on, and ends the frames with it. What the cursor covers has been written
/// before, and is not written again.
pub fn render(cursor: &mut Cursor, owner: Owner, codec: Codec, outgoing: Outgoing) -> Rendered {
    let (delivery, request, event) = match &outgoing {
        Outgoing::Plain(shared) => {
            return Rendered::Frames([Some(shared.spelled(codec)), None], None, None);
        }
        Outgoing::Event(delivery) => (Arc::clone(delivery), None, true),
        Outgoing::Own(request, delivery, echo) => (Arc::clone(delivery), *request, *echo),
    };
    let news = !cursor.covers(delivery.feed, delivery.seq);
    let mut added = None;
    if news {
        cursor.rebase(&delivery.bases);
    }
    match delivery.part {
        Part::Ends(chat, until) if news && !cursor.covers(chat, until) => {
            return Rendered::After((chat, cursor.position(chat), until), outgoing);
        }
        // Until it is replayed the chat stands behind what else the cursor says.
        Part::Begins(chat, after) if news => {
            cursor.set(chat, after);
            added = Some(Begun { chat, after, read: after });
        }
        Part::Begins(chat, after) => {
            added = Some(Begun { chat, after, read: after.max(cursor.position(chat)) });
        }
        Part::Ends(..) | Part::None => {}
    }
    if !news {
        return Rendered::Frames([None, None], request, added);
    }
    cursor.advance(delivery.feed, delivery.seq);
    let suffix = cursor.suffix(owner.0, owner.1);
    let reply = request.and_then(|_| delivery.reply(codec, &suffix));
    let event =
        if event { Some(delivery.event(codec, &suffix)) } else { delivery.place(codec, &suffix) };
    Rendered::Frames([reply, event], request, added)
}

impl Session {
    /// Replays a part of a chat's feed; the queue is held.
    pub(super) fn replay_chat(&mut self, chat: Feed, after: Seq, until: Option<Seq>) {
        let (app, viewer, at) = (self.app.clone(), self.viewer(), self.cursor.clone());
        let replay = async move {
            let read = || replay::chat(&app, viewer, at.clone(), chat, after, until);
            Replayed::Missing(patiently(read).await)
        };
        self.replaying = Some(replay.boxed());
    }

    /// Answers `resume`.
    pub(super) async fn resume(&mut self, request: Option<u64>, text: &str) -> Result<(), End> {
        if self.replaying.is_some() || self.playing.is_some() {
            return self.refuse(request, &fault::unavailable("resuming")).await;
        }
        if self.began.is_none() {
            let error = WireError::new(ErrorCode::Conflict, "resumed already");
            return self.refuse(request, &error).await;
        }
        let from = match parse_cursor(&self.app, text, self.viewer()) {
            Ok(from) => from,
            Err(reason) => {
                measures::resumes("refused").increment(1);
                return self
                    .reply(request, &Resumed { resumed: false, reason: Some(reason) })
                    .await;
            }
        };
        self.place.outlet.hold();
        let (app, viewer) = (self.app.clone(), self.viewer());
        let replay = async move { Replayed::Resumed(request, since(&app, viewer, &from).await) };
        self.replaying = Some(replay.boxed());
        Ok(())
    }

    /// Has what was replayed written, or lets the queue go on without it.
    pub(super) async fn on_replayed(&mut self, replayed: Replayed) -> Result<(), End> {
        match replayed {
            Replayed::Resumed(request, Ok(replay)) => {
                measures::resumes("resumed").increment(1);
                let began = self.began.take();
                self.reply(request, &Resumed { resumed: true, reason: None }).await?;
                self.play(replay, began, true);
                return Ok(());
            }
            Replayed::Resumed(request, Err(NoReplay::Refused(reason))) => {
                measures::resumes("refused").increment(1);
                self.reply(request, &Resumed { resumed: false, reason: Some(reason) }).await?;
            }
            Replayed::Resumed(request, Err(NoReplay::Failed(error))) => {
                self.refuse(request, &error).await?;
            }
            Replayed::Missing(Ok(replay)) => {
                self.play(replay, None, false);
                return Ok(());
            }
            Replayed::Resumed(_, Err(NoReplay::Revoked))
            | Replayed::Missing(Err(NoReplay::Revoked)) => {
                return Err(Some(close::DEVICE_REVOKED));
            }
            // The way back to feeds without a hole is to connect anew, and to resume.
            Replayed::Missing(Err(NoReplay::Refused(_))) => {
                return Err(Some(close::SLOW_CONSUMER));
            }
            Replayed::Missing(Err(NoReplay::Failed(_))) => return Err(Some(close::TRY_AGAIN)),
        }
        self.release()
    }

    /// What was written live since the connection `began`, if it resumes only now, is not written
    /// again.
    fn play(&mut self, replay: Replay, began: Option<Box<Cursor>>, resumes: bool) {
        let Replay { from: at, items, onto, held } = replay;
        let items = items.into_iter();
        let since = Instant::now();
        self.playing = Some(Box::new(Playing { at, items, onto, held, since, began, resumes }));
    }

    /// Writes more of what was replayed; after the last of it the queue goes on.
    pub(super) async fn play_on(&mut self) -> Result<(), End> {
        let Some(mut playing) = self.playing.take() else { return Ok(()) };
        let Playing { at, items, began, .. } = &mut *playing;
        self.write_items(at, began.as_deref(), items).await?;
        let left = playing.items.len();
        if left > 0 {
            if playing.since.elapsed() > PATIENCE && self.app.replays.crowded() {
                measures::slow_consumers().increment(1);
                return Err(Some(close::SLOW_CONSUMER));
            }
            if let Some(held) = &mut playing.held {
                held.shrink(left);
            }
            self.playing = Some(playing);
            return Ok(());
        }
        let Playing { at, onto, resumes, .. } = *playing;
        self.cursor = at.merged(&onto).merged(&self.cursor);
        if let Some((chat, until, outgoing)) = self.postponed.take() {
            // Whatever the log had of it has been written.
            self.cursor.advance(chat, until);
            let mut at = self.cursor.clone();
            self.write_item(&mut at, outgoing).await?;
            self.cursor = at;
        }
        if resumes {
            let (user, seal) = self.owner();
            let cursor = self.cursor.text(user, seal);
            let done = ServerEvent::ResumeDone { cursor: cursor.clone() };
            self.write(self.wire.codec().event_at(&done, &cursor)).await?;
        }
        self.release()
    }

    /// Leaves the rest of what was replayed to another transport, which reads it anew: this one's
    /// client fetches nothing any more. Not what was asked for on a live connection: what went by
    /// since it began is known here alone.
    pub(super) fn break_off(&mut self) {
        if let Some(playing) = self.playing.take_if(|playing| playing.began.is_none()) {
            self.cursor = playing.at;
            self.resuming = playing.resumes;
            // It has not been written, and comes again.
            self.postponed = None;
        }
    }

    /// Lets the queue go on; what it could not hold meanwhile is replayed first.
    pub(super) fn release(&mut self) -> Result<(), End> {
        if self.place.outlet.release() {
            self.again = 0;
            return Ok(());
        }
        self.again += 1;
        if self.again > AGAIN {
            return Err(Some(close::SLOW_CONSUMER));
        }
        let (app, viewer, from) = (self.app.clone(), self.viewer(), self.cursor.clone());
        let replay = async move {
            let read = || since(&app, viewer, &from);
            Replayed::Missing(patiently(read).await)
        };
        self.replaying = Some(replay.boxed());
        Ok(())
    }
}

async fn since(app: &App, viewer: Viewer, from: &Cursor) -> Result<Replay, NoReplay> {
    let standing = replay::standing(app, viewer.user).await?;
    replay::everything(app, viewer, from.clone(), standing, None).await
}

/// Tries again while what it needs is away: a connection outlives that.
async fn patiently<F>(read: impl Fn() -> F) -> Result<Replay, NoReplay>
where
    F: Future<Output = Result<Replay, NoReplay>>,
{
    let mut tries = TRIES;
    loop {
        match read().await {
            Err(NoReplay::Failed(error)) if tries > 0 => {
                tracing::debug!(error = %causes(&error), "what a connection missed is asked for again");
                tries -= 1;
                sleep(RETRY).await;
            }
            done => return done,
        }
    }
}
