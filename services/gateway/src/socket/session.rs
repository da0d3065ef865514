//! A session: one task that reads what the client sends, writes what the hub queues, and waits
//! for what is under way.
//!
//! Requests of one connection are worked on one after the other, in their order, while what is
//! queued goes on being written. A message that was handed to the broker is not waited for: the
//! next request starts at once, and the reply comes from the hub, at the message's place in the
//! feed. Only what never gets there is answered from here: refusals and duplicates.
//!
//! While something is replayed what is queued waits: see [`super::playing`].

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use natter_protocol::{
    client::Command,
    cursor::Cursor,
    error::{WireError, close},
    feed::{Feed, Signal},
    ids::{ChatId, Seq},
    server::Sent,
};
use time::OffsetDateTime;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    checkpoints::Checkpoints,
    commands::{self, Done, Who},
    handshake::{Begin, Place},
    moving::Baggage,
    playing::{Owner, Playing, Replayed},
    wire::{Heard, Wire},
    writing::within,
};
use crate::{
    app::App,
    auth::Caller,
    codec::Incoming,
    fault,
    hub::Command as HubCommand,
    measures::Limit,
    outlet::Outgoing,
    rate::{Bucket, Rate},
    replay::Viewer,
    send::{Settled, Stored},
    serve,
    socketio::{Moved, polling::Polling},
    text,
};

/// Messages handed to the broker whose ack is awaited; beyond it the socket is not read.
const IN_FLIGHT: usize = 64;
/// Refusals that a client may collect: so many at once, and this many a second for long. One
/// that exceeds it is not listening to them.
const PATIENCE: Rate = Rate { per_second: 100.0, burst: 1_000.0 };
/// How long a draining connection waits for what is in flight.
const DRAIN_IN_FLIGHT: Duration = Duration::from_secs(8);
/// A message that was stored and has not come by in its feed for this long will hardly: its sender
/// is no participant any more, for one. The reply is then given out of its place.
const OWED: Duration = Duration::from_secs(15);
/// How long after its ack a message may take to come by in its feed before the hub is told to look for
/// it. Nearly always it comes within a millisecond, and telling the hub each time would be work for
/// nothing.
const LATE: Duration = Duration::from_millis(20);

type InFlight = BoxFuture<'static, (Option<u64>, Result<Settled, WireError>)>;

/// A request that is answered from its message's place in the feed.
pub(super) struct Owed {
    pub(super) request: u64,
    /// Once the broker has acknowledged it.
    pub(super) stored: Option<(Instant, Box<Stored>)>,
    /// The hub has been told that it is late.
    late: bool,
}

/// See the module.
pub struct Session {
    pub(super) app: App,
    pub(super) who: Arc<Who>,
    pub(super) echo: bool,
    pub(super) wire: Wire,
    /// Binary frames that belong to a request that was refused.
    attachments: u32,
    /// What it needs to move to another transport; only over polling.
    pub(super) baggage: Option<Box<Baggage>>,
    /// What its client has yet to acknowledge; only where it wants to be asked.
    pub(super) checkpoints: Option<Box<Checkpoints>>,
    /// Moves, once it is at rest.
    pub(super) moving: Option<oneshot::Sender<Moved>>,
    pub(super) place: Place,
    /// What has been written of all feeds.
    pub(super) cursor: Cursor,
    /// Where it began, until something has been resumed.
    pub(super) began: Option<Box<Cursor>>,
    pub(super) replaying: Option<BoxFuture<'static, Replayed>>,
    /// What was replayed and is being written.
    pub(super) playing: Option<Box<Playing>>,
    /// It moves before all that it missed has been written, which its client is told.
    pub(super) resuming: bool,
    /// What is written after a replay that it needs, and up to which entry of which chat that is.
    pub(super) postponed: Option<(Feed, Seq, Outgoing)>,
    /// Replays in a row because the queue did not hold what came meanwhile.
    pub(super) again: u32,
    running: Option<BoxFuture<'static, Done>>,
    in_flight: FuturesUnordered<InFlight>,
    /// Oldest first, at most [`IN_FLIGHT`] and those stored within the last 15 s.
    pub(super) owed: VecDeque<Owed>,
    /// Chats in which this connection has started to type.
    pub(super) typing: HashMap<ChatId, Feed>,
    bucket: Bucket,
    rate: Rate,
    patience: Bucket,
    expires_at: OffsetDateTime,
    heard: Instant,
    pub(super) pinged: Instant,
    /// What is written is measured now and then: at every so many flushes.
    pub(super) flushes: u8,
    /// When it was last kept what lets the device in.
    kept: Option<Instant>,
}

/// Why a session ends: a close code to say, or none when nobody listens.
pub(super) type End = Option<u16>;

impl Session {
    /// A session of an authenticated connection that has its place.
    pub fn new(
        app: App,
        caller: Caller,
        wire: Wire,
        place: Place,
        begin: Begin,
        echo: bool,
    ) -> Box<Self> {
        let now = Instant::now();
        let settings = &app.config.socket;
        let rate = Rate::per_second(settings.events_per_second, settings.events_burst);
        let (cursor, began, replaying) = match begin {
            Begin::Afresh(at, _) => (at.clone(), Some(Box::new(at)), None),
            Begin::Resumed(replay) => {
                let at = replay.onto.clone();
                (at, None, Some(std::future::ready(Replayed::Resumed(None, Ok(*replay))).boxed()))
            }
            Begin::Moved(replay, began) => {
                let at = replay.onto.clone();
                (at, began, Some(std::future::ready(Replayed::Missing(Ok(*replay))).boxed()))
            }
        };
        Box::new(Self {
            echo,
            cursor,
            began,
            replaying,
            playing: None,
            resuming: false,
            postponed: None,
            again: 0,
            bucket: Bucket::full(rate, now.into_std()),
            rate,
            expires_at: caller.expires_at,
            who: Arc::new(Who { caller, connection: place.connection, codec: wire.codec() }),
            app,
            wire,
            attachments: 0,
            baggage: None,
            checkpoints: None,
            moving: None,
            place,
            running: None,
            in_flight: FuturesUnordered::new(),
            owed: VecDeque::new(),
            typing: HashMap::new(),
            patience: Bucket::full(PATIENCE, now.into_std()),
            heard: now,
            pinged: now,
            flushes: 0,
            kept: None,
        })
    }

    /// Its client was pinged so long ago, or has waited for that long: it does not wait for ever.
    pub(super) fn pinged_before(&mut self, ago: Duration) {
        self.pinged = self.pinged.checked_sub(ago).unwrap_or(self.pinged);
    }

    /// Runs it in a task of its own, and with it its connection's place: the task of an upgrade holds
    /// the socket several times over, and is better not kept.
    pub fn start(self: Box<Self>, place: Option<serve::Place>) {
        tokio::spawn(async move {
            let _place = place;
            self.run().await;
        });
    }

    /// Runs until the connection ends.
    async fn run(mut self: Box<Self>) {
        self.wire.adopt().await;
        self.app.measures.connections.increment(1);
        let end = self.exchange().await;
        self.app.measures.connections.decrement(1);
        if let (None, Some(moving)) = (end, self.moving.take()) {
            return Box::pin(self.move_out(moving)).await;
        }
        self.stop_typing();
        let Self { wire, place, .. } = *self;
        // Nothing more is delivered to it, while it says goodbye.
        drop(place);
        if let Some(code) = end {
            Box::pin(wire.goodbye(code)).await;
        }
    }

    // What happens now and then is boxed: its futures would otherwise be part of every idle
    // connection, several KiB of it.
    async fn exchange(&mut self) -> End {
        let outlet = Arc::clone(&self.place.outlet);
        self.keep();
        if self.replaying.is_none()
            && let Err(end) = self.release()
        {
            return end;
        }
        // Once the node drains, or the client has moved to another transport, nothing new is taken,
        // and what was taken is brought to its end.
        let mut ends = None;
        // Set anew when it has passed, or would be too late: what is to happen is put off with every
        // frame that is heard, and setting a timer is not cheap.
        let timer = sleep_until(self.deadline());
        tokio::pin!(timer);
        loop {
            let draining = outlet.draining();
            if ends.is_none() && (draining || self.moving.is_some()) {
                ends = Some(Instant::now() + DRAIN_IN_FLIGHT);
            }
            if self.moving.is_some() {
                self.break_off();
            }
            if ends.is_some() && self.at_rest() {
                if self.moving.is_some() {
                    return None;
                }
                if outlet.is_empty() {
                    return Some(close::DRAINING);
                }
            }
            let reading =
                ends.is_none() && self.running.is_none() && self.in_flight.len() < IN_FLIGHT;
            let deadline = ends.unwrap_or_else(|| self.deadline());
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            let full = self.wire.full();
            let paused = full.is_some() || self.waits_for_acknowledgement();
            let step = tokio::select! {
                () = outlet.wait(paused, draining) => {
                    if let Some(code) = outlet.code() {
                        return Box::pin(self.last_words(code)).await;
                    }
                    self.write_queued().await
                }
                replayed = pending(&mut self.replaying), if self.replaying.is_some() => {
                    Box::pin(self.on_replayed(replayed)).await
                }
                () = std::future::ready(()), if self.playing.is_some() && !paused => {
                    Box::pin(self.play_on()).await
                }
                () = room(full.as_deref()), if full.is_some() => Ok(()),
                heard = self.wire.hear(), if reading => Box::pin(self.on_heard(heard)).await,
                done = pending(&mut self.running), if self.running.is_some() => {
                    Box::pin(self.on_done(done)).await
                }
                Some((request, settled)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    Box::pin(self.on_settled(request, settled)).await
                }
                () = timer.as_mut() => {
                    if Instant::now() < deadline {
                        continue;
                    }
                    if ends.is_some() {
                        // What is stored is answered, also out of its place.
                        let _ = Box::pin(self.pay_owed(Duration::ZERO)).await;
                        self.moving = None;
                        return Some(close::DRAINING);
                    }
                    Box::pin(self.on_time()).await
                }
            };
            if let Err(end) = step {
                // What the cursor covers may not have been written.
                self.moving = None;
                return end;
            }
        }
    }

    fn waits_for_acknowledgement(&self) -> bool {
        self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.full())
    }

    /// Nothing is under way.
    fn at_rest(&self) -> bool {
        self.running.is_none()
            && self.replaying.is_none()
            && self.playing.is_none()
            && self.in_flight.is_empty()
            && self.owed.is_empty()
    }

    /// Keeps, now and then, what lets the device in while Postgres is away.
    fn keep(&mut self) {
        let Some(every) = self.app.admissions.keep_every() else { return };
        if self.kept.is_none_or(|kept| kept.elapsed() >= every) {
            self.kept = Some(Instant::now());
            self.app.admissions.keep(self.viewer());
        }
    }

    /// Whose cursors it writes.
    pub(super) fn owner(&self) -> Owner {
        (self.who.caller.user_id, self.app.seals.current())
    }

    /// For whom replays are.
    pub(super) fn viewer(&self) -> Viewer {
        self.place.viewer(&self.who.caller, self.echo)
    }

    /// The earliest of: time to ping, the token's end, a reply that is owed for too long.
    fn deadline(&self) -> Instant {
        let heartbeat = self.app.config.socket.heartbeat();
        let ping = self.pinged + heartbeat;
        let left = self.expires_at - OffsetDateTime::now_utc();
        let expiry = Instant::now() + left.try_into().unwrap_or(Duration::ZERO);
        let owed = self.owed.front().and_then(|owed| owed.stored.as_ref());
        let owed = owed.map_or(ping, |(since, _)| *since + OWED);
        let stored = |owed: &Owed| owed.stored.as_ref().filter(|_| !owed.late).map(|(at, _)| *at);
        let late = self.owed.iter().find_map(stored).map_or(ping, |since| since + LATE);
        ping.min(expiry).min(owed).min(late)
    }

    async fn on_time(&mut self) -> Result<(), End> {
        if self.expires_at <= OffsetDateTime::now_utc() {
            return Err(Some(close::UNAUTHENTICATED));
        }
        self.tell_late().await;
        self.pay_owed(OWED).await?;
        let heartbeat = self.app.config.socket.heartbeat();
        if self.heard.elapsed() >= heartbeat * 2 {
            return Err(Some(close::TIMEOUT));
        }
        if self.pinged.elapsed() >= heartbeat {
            self.pinged = Instant::now();
            self.keep();
            let outlet = Arc::clone(&self.place.outlet);
            return within(&outlet, self.wire.ping()).await;
        }
        Ok(())
    }

    async fn on_heard(&mut self, heard: Result<Heard, End>) -> Result<(), End> {
        self.heard = Instant::now();
        match heard? {
            Heard::Frame(text) => self.on_frame(&text).await,
            Heard::Alive => Ok(()),
            Heard::Binary if self.attachments > 0 => {
                self.attachments -= 1;
                Ok(())
            }
            Heard::Binary => Err(Some(close::MALFORMED)),
            Heard::MoveOut(moving) => {
                self.moving = Some(moving);
                Ok(())
            }
        }
    }

    async fn on_frame(&mut self, text: &str) -> Result<(), End> {
        self.app.measures.frames_received.increment(1);
        let Ok(incoming) = self.wire.codec().read(text) else {
            return Err(Some(close::MALFORMED));
        };
        let (request, frame) = match incoming {
            Incoming::Request(frame) => (frame.id, Ok(frame)),
            Incoming::Refused(request, error, attachments) => {
                self.attachments = attachments;
                (request, Err(error))
            }
            Incoming::Answered(frame) => return self.write(frame).await,
            Incoming::Acknowledged(number, attachments) => {
                self.attachments = attachments;
                if let Some(checkpoints) = &mut self.checkpoints {
                    checkpoints.acknowledged(number);
                }
                return Ok(());
            }
            Incoming::Nothing => return Ok(()),
            Incoming::Leaves => return Err(None),
        };
        let now = std::time::Instant::now();
        if let Err(wait) = self.bucket.take(self.rate, now) {
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let error = fault::limited(Limit::Events, "too many events", wait);
            if self.patience.take(PATIENCE, now).is_err() {
                return Err(Some(close::RATE_LIMITED));
            }
            return self.refuse(request, &error).await;
        }
        let caller = self.who.caller.user_id;
        let command = frame.and_then(|frame| {
            text::refuse_nul(text)?;
            Command::parse(&frame.event, frame.data, Some(caller))
        });
        match command {
            Ok(Command::Resume(resume)) => self.resume(request, &resume.cursor).await,
            Ok(Command::TypingStop(target)) if !self.typing.contains_key(&target.chat_id) => {
                self.reply(request, &natter_protocol::server::Empty {}).await
            }
            Ok(command) => {
                let who = Arc::clone(&self.who);
                let run = commands::run_in_time(self.app.clone(), who, request, command);
                let mut run = run.boxed();
                // Most need nothing that is not at hand.
                if let Some(done) = (&mut run).now_or_never() {
                    return self.on_done(done).await;
                }
                self.running = Some(run);
                Ok(())
            }
            Err(error) => self.refuse(request, &error).await,
        }
    }

    async fn on_done(&mut self, done: Done) -> Result<(), End> {
        let Done { request, result } = done;
        match result {
            Ok(commands::Outcome::Frames(frames)) => {
                for frame in frames {
                    self.write(frame).await?;
                }
                Ok(())
            }
            Ok(commands::Outcome::Watching(users, frames)) => {
                if let Some(baggage) = &mut self.baggage {
                    baggage.watching = users;
                }
                for frame in frames {
                    self.write(frame).await?;
                }
                Ok(())
            }
            Ok(commands::Outcome::Published(in_flight)) => {
                // The message ends the typing, everywhere; what is typed from here on does not.
                self.typing.remove(&in_flight.chat());
                if let Some(request) = request {
                    self.owed.push_back(Owed { request, stored: None, late: false });
                }
                let app = self.app.clone();
                self.in_flight.push(async move { (request, in_flight.settle(&app).await) }.boxed());
                Ok(())
            }
            Ok(commands::Outcome::Sent(sent)) => self.reply(request, &sent).await,
            Ok(commands::Outcome::Typing(chat, feed)) => {
                match feed {
                    Some(feed) => self.typing.insert(chat, feed),
                    None => self.typing.remove(&chat),
                };
                self.reply(request, &natter_protocol::server::Empty {}).await
            }
            Ok(commands::Outcome::Renewed(renewed, token)) => {
                self.expires_at = renewed.expires_at;
                if let Some(baggage) = &mut self.baggage {
                    baggage.token = token;
                }
                self.reply(request, &renewed).await
            }
            Err(error) => self.refuse(request, &error).await,
        }
    }

    async fn on_settled(
        &mut self,
        request: Option<u64>,
        settled: Result<Settled, WireError>,
    ) -> Result<(), End> {
        match settled {
            // The hub replies, at the message's place; were the live copy lost, it is fetched.
            Ok(Settled::Stored(stored)) => {
                let (feed, seq) = (stored.feed(), stored.seq());
                let owed = self
                    .owed
                    .iter_mut()
                    .find(|owed| Some(owed.request) == request && owed.stored.is_none());
                if let Some(owed) = owed {
                    owed.stored = Some((Instant::now(), stored));
                } else if request.is_none() {
                    // Nobody waits for it here.
                    self.app.hub.tell(HubCommand::Acked(feed, seq)).await;
                }
                if self.waits_for_acknowledgement() {
                    // Its client may wait for the reply before it acknowledges anything.
                    return self.pay_owed(Duration::ZERO).await;
                }
                Ok(())
            }
            Ok(Settled::Duplicate(sent)) => {
                paid(&mut self.owed, request);
                self.reply::<Sent>(request, &sent).await
            }
            Err(error) => {
                paid(&mut self.owed, request);
                self.refuse(request, &error).await
            }
        }
    }

    /// Has the hub look for messages that were acknowledged and have not come by.
    async fn tell_late(&mut self) {
        for owed in self.owed.iter_mut().filter(|owed| !owed.late) {
            let Some((since, stored)) = &owed.stored else { continue };
            if since.elapsed() >= LATE {
                owed.late = true;
                self.app.hub.tell(HubCommand::Acked(stored.feed(), stored.seq())).await;
            }
        }
    }

    /// Whoever types on a connection that ends has stopped.
    fn stop_typing(&mut self) {
        let caller = &self.who.caller;
        let (user_id, device_id) = (caller.user_id, caller.device_id);
        for (chat, feed) in self.typing.drain() {
            let _ = self.app.bus.signal(feed, &Signal::Typing { user_id, device_id, ttl_ms: 0 });
            let presence = self.app.presence.clone();
            tokio::spawn(async move {
                let _ = presence.typing_stop(chat, user_id, device_id).await;
            });
        }
    }
}

/// The request is answered now.
pub(super) fn paid(owed: &mut VecDeque<Owed>, request: Option<u64>) {
    if let Some(place) = owed.iter().position(|owed| Some(owed.request) == request) {
        owed.remove(place);
    }
}

/// Waits until more may be written.
async fn room(full: Option<&Polling>) {
    match full {
        Some(polling) => polling.room().await,
        None => std::future::pending().await,
    }
}

/// What is worked on; for `select!`, which asks only while there is something.
async fn pending<T>(working: &mut Option<BoxFuture<'static, T>>) -> T {
    match working {
        Some(future) => {
            let done = future.await;
            *working = None;
            done
        }
        None => std::future::pending().await,
    }
}
