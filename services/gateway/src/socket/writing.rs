//! The part of a session that writes: what is queued, what was replayed, replies.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
    vec,
};

use axum::extract::ws::Utf8Bytes;
use natter_protocol::{
    cursor::Cursor,
    error::{WireError, close},
};
use time::OffsetDateTime;
use tokio::time::timeout;

use super::{
    checkpoints::Checkpoints,
    playing::{Owner, Rendered, render},
    session::{End, Owed, Session, paid},
};
use crate::{
    codec::Codec,
    hub::frames::Part,
    outlet::{Outgoing, Outlet},
};

/// Frames written before the socket is looked at again.
const WRITE_BATCH: usize = 64;
/// Of so many flushes one is timed: it would cost as much as writing to many connections.
const MEASURED: u8 = 16;
/// How long a client may take to take in what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

impl Session {
    /// What is queued and still matters when the hub closes the connection.
    pub(super) async fn last_words(&mut self, code: u16) -> End {
        if matches!(code, close::DEVICE_REVOKED | close::ACCOUNT_DISABLED) {
            while let Some(outgoing) = self.place.outlet.take() {
                let (owner, codec) = (self.owner(), self.wire.codec());
                let Rendered::Frames(frames, ..) = render(&mut self.cursor, owner, codec, outgoing)
                else {
                    continue;
                };
                for frame in frames.into_iter().flatten() {
                    let written = timeout(super::GOODBYE, self.wire.send(frame)).await;
                    if !matches!(written, Ok(Ok(()))) {
                        return None;
                    }
                }
            }
        }
        Some(code)
    }

    /// Answers what was stored so long ago and has not come by in its feed.
    pub(super) async fn pay_owed(&mut self, age: Duration) -> Result<(), End> {
        while let Some(Owed { stored: Some((since, _)), .. }) = self.owed.front()
            && since.elapsed() >= age
        {
            let Some(Owed { request, stored: Some((_, stored)), .. }) = self.owed.pop_front()
            else {
                break;
            };
            let sent = stored.reply(&self.app).await;
            match sent {
                Ok(sent) => self.reply(Some(request), &sent).await?,
                Err(error) => self.refuse(Some(request), &error).await?,
            }
        }
        Ok(())
    }

    /// Writes what is queued, and flushes once; up to where a part of a chat's feed is to be
    /// replayed.
    ///
    /// What a socket takes at once, which is nearly always everything, is written without a timer.
    pub(super) async fn write_queued(&mut self) -> Result<(), End> {
        let flushed = poll_fn(|context| Poll::Ready(self.write_at_once(context))).await?;
        if flushed {
            return Ok(());
        }
        let outlet = Arc::clone(&self.place.outlet);
        Box::pin(within(&outlet, self.wire.flush())).await
    }

    /// Answers whether the socket has taken it all.
    fn write_at_once(&mut self, context: &mut Context<'_>) -> Result<bool, End> {
        let outlet = Arc::clone(&self.place.outlet);
        let (owner, codec) = (self.owner(), self.wire.codec());
        let (mut missing, mut news) = (None, false);
        let (mut written, mut oldest) = (0, None);
        for _ in 0..WRITE_BATCH {
            // The cursor covers what is rendered, so nothing is that cannot be written.
            if self.wire.full().is_some() || self.wire.poll_ready(context)?.is_pending() {
                break;
            }
            let Some(outgoing) = outlet.take() else { break };
            if let Some(began) = &mut self.began {
                begin_anew(began, &self.cursor, &outgoing);
            }
            let stored_at = outgoing.delivery().and_then(|delivery| delivery.at);
            match render(&mut self.cursor, owner, codec, outgoing) {
                Rendered::Frames(frames, request, added) => {
                    // Also after an error whose outcome was unknown: the message has its place,
                    // and a client that follows the chain must see it there.
                    paid(&mut self.owed, request);
                    news |= frames[1].is_some();
                    for frame in frames.into_iter().flatten() {
                        self.wire.add(frame)?;
                        written += 1;
                        oldest = oldest.or(stored_at);
                    }
                    missing = added.and_then(|begun| begun.unread(&outlet));
                }
                Rendered::After((chat, after, until), outgoing) => {
                    self.postponed = Some((chat, until, outgoing));
                    missing = Some((chat, after, Some(until)));
                }
            }
            if missing.is_some() {
                outlet.hold();
                break;
            }
        }
        if news && let Some(asks) = ask(&mut self.checkpoints, &self.cursor, owner, codec) {
            self.wire.add(asks)?;
        }
        let flushed = self.wire.poll_flush(context)?.is_ready();
        self.measure(written, oldest);
        if let Some((chat, after, until)) = missing {
            self.replay_chat(chat, after, until);
        }
        Ok(flushed)
    }

    /// Writes some of these in order and flushes once, `at` going along; all but those that were
    /// written live since the connection `began`. They need no replay themselves.
    pub(super) async fn write_items(
        &mut self,
        at: &mut Cursor,
        began: Option<&Cursor>,
        items: &mut vec::IntoIter<Outgoing>,
    ) -> Result<(), End> {
        let outlet = Arc::clone(&self.place.outlet);
        let (owner, codec) = (self.owner(), self.wire.codec());
        let (mut news, mut written) = (false, 0);
        let write = async {
            for _ in 0..WRITE_BATCH {
                if self.wire.full().is_some() {
                    break;
                }
                let Some(outgoing) = items.next() else { break };
                let live = began.is_some_and(|began| since(began, &self.cursor, &outgoing));
                let Rendered::Frames(frames, request, _) = render(at, owner, codec, outgoing)
                else {
                    continue;
                };
                paid(&mut self.owed, request);
                if live {
                    continue;
                }
                news |= frames[1].is_some();
                for frame in frames.into_iter().flatten() {
                    self.wire.feed(frame).await?;
                    written += 1;
                }
            }
            if news && let Some(asks) = ask(&mut self.checkpoints, at, owner, codec) {
                self.wire.feed(asks).await?;
            }
            self.wire.flush().await
        };
        within(&outlet, write).await?;
        self.app.measures.frames_sent.increment(written);
        Ok(())
    }

    /// Counts what was flushed and, of some flushes, how long ago the oldest of it was stored.
    fn measure(&mut self, written: u64, oldest: Option<OffsetDateTime>) {
        self.app.measures.frames_sent.increment(written);
        let Some(stored_at) = oldest else { return };
        if self.flushes.is_multiple_of(MEASURED) {
            let delay = OffsetDateTime::now_utc() - stored_at;
            self.app.measures.delivery.record(delay.as_seconds_f64().max(0.0));
        }
        self.flushes = self.flushes.wrapping_add(1);
    }

    /// Writes this one, though there may be no room.
    pub(super) async fn write_item(
        &mut self,
        at: &mut Cursor,
        outgoing: Outgoing,
    ) -> Result<(), End> {
        let (owner, codec) = (self.owner(), self.wire.codec());
        let Rendered::Frames(frames, request, _) = render(at, owner, codec, outgoing) else {
            return Ok(());
        };
        paid(&mut self.owed, request);
        for frame in frames.into_iter().flatten() {
            self.write(frame).await?;
        }
        Ok(())
    }

    /// Writes a frame of this session's own.
    pub(super) async fn write(&mut self, frame: Utf8Bytes) -> Result<(), End> {
        let outlet = Arc::clone(&self.place.outlet);
        within(&outlet, self.wire.send(frame)).await?;
        self.app.measures.frames_sent.increment(1);
        Ok(())
    }

    pub(super) async fn reply<T: serde::Serialize>(
        &mut self,
        request: Option<u64>,
        data: &T,
    ) -> Result<(), End> {
        match request {
            Some(request) => self.write(self.wire.codec().reply(request, data)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn refuse(
        &mut self,
        request: Option<u64>,
        error: &WireError,
    ) -> Result<(), End> {
        self.write(self.wire.codec().refusal(request, error)).await
    }
}

/// Asks whether the client has dealt with everything up to here, if it wants to be asked.
fn ask(
    checkpoints: &mut Option<Box<Checkpoints>>,
    at: &Cursor,
    owner: Owner,
    codec: Codec,
) -> Option<Utf8Bytes> {
    let number = checkpoints.as_mut()?.ask();
    codec.checkpoint(number, &at.text(owner.0, owner.1))
}

/// Whether this was written by a connection that stands at `now`, since it stood at `began`.
fn since(began: &Cursor, now: &Cursor, outgoing: &Outgoing) -> bool {
    let Some(delivery) = outgoing.delivery() else { return false };
    now.covers(delivery.feed, delivery.seq) && !began.covers(delivery.feed, delivery.seq)
}

/// A chat that is added begins anew: nothing of it after its beginning was written before, however
/// far the connection had begun in its shard.
fn begin_anew(began: &mut Cursor, now: &Cursor, outgoing: &Outgoing) {
    if let Some(delivery) = outgoing.delivery()
        && let Part::Begins(chat, after) = delivery.part
        && !now.covers(delivery.feed, delivery.seq)
    {
        began.set(chat, after);
    }
}

/// Writing, for as long as a client may take, or until the hub gives the connection up.
pub(super) async fn within(
    outlet: &Outlet,
    write: impl Future<Output = Result<(), End>>,
) -> Result<(), End> {
    tokio::pin!(write);
    // Nearly always the socket takes it at once, and a timer would cost as much as the writing.
    if let Poll::Ready(written) = poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await
    {
        return written;
    }
    let write = timeout(WRITE_TIMEOUT, write);
    tokio::pin!(write);
    tokio::select! {
        biased;
        written = &mut write => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(over)) => Err(over),
            Err(_) => Err(Some(close::SLOW_CONSUMER)),
        },
        code = outlet.ended() => {
            // A half-written frame cannot be followed by a close frame: give it a moment.
            match timeout(super::GOODBYE, &mut write).await {
                Ok(Ok(Ok(()))) => Err(Some(code)),
                _ => Err(None),
            }
        }
    }
}
