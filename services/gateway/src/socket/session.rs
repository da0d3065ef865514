//! A session: one task that reads what the client sends, writes what the hub queues, and waits
//! for what is under way.
//!
//! Requests of one connection are worked on one after the other, in their order, while what is
//! queued goes on being written. A message that was handed to the broker is not waited for: the
//! next request starts at once, and the reply comes from the hub, at the message's place in the
//! feed. Only what never gets there is answered from here: refusals and duplicates.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::ws::{Message, Utf8Bytes, WebSocket};
use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use natter_protocol::{
    client::{ClientFrame, Command},
    error::{ErrorCode, WireError, close},
    feed::{Feed, Signal},
    ids::ChatId,
    server::{ErrorReply, Reply, Sent, ServerEvent},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    code_of,
    commands::{self, Done, Who},
    goodbye,
    handshake::Place,
};
use crate::{
    app::App,
    auth::Caller,
    hub::{Command as HubCommand, frames::frame},
    rate::{Bucket, Rate},
    send::Settled,
    text,
};

/// Messages handed to the broker whose ack is awaited; beyond it the socket is not read.
const IN_FLIGHT: usize = 64;
/// Frames written before the socket is looked at again.
const WRITE_BATCH: usize = 64;
/// How long a client may take to take in what is written.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Events refused in a row, after which the client is not listening to the refusals.
const REFUSALS_MAX: u32 = 1_000;
/// How long a draining connection waits for what is in flight.
const DRAIN_IN_FLIGHT: Duration = Duration::from_secs(6);

type InFlight = BoxFuture<'static, (Option<u64>, Result<Settled, WireError>)>;

/// See the module.
pub struct Session {
    app: App,
    who: Arc<Who>,
    socket: WebSocket,
    place: Place,
    running: Option<BoxFuture<'static, Done>>,
    in_flight: FuturesUnordered<InFlight>,
    /// Chats in which this connection has started to type.
    typing: HashMap<ChatId, Feed>,
    bucket: Bucket,
    rate: Rate,
    refusals: u32,
    expires_at: OffsetDateTime,
    heard: Instant,
    pinged: Instant,
}

/// Why a session ends: a close code to say, or none when nobody listens.
type End = Option<u16>;

impl Session {
    /// A session of an authenticated connection that has its place.
    pub fn new(app: App, caller: Caller, socket: WebSocket, place: Place) -> Self {
        let now = Instant::now();
        let settings = &app.config.socket;
        let rate = Rate::per_second(settings.events_per_second, settings.events_burst);
        Self {
            bucket: Bucket::full(rate, now.into_std()),
            rate,
            expires_at: caller.expires_at,
            who: Arc::new(Who { caller, connection: place.connection }),
            app,
            socket,
            place,
            running: None,
            in_flight: FuturesUnordered::new(),
            typing: HashMap::new(),
            refusals: 0,
            heard: now,
            pinged: now,
        }
    }

    /// Runs until the connection ends.
    pub async fn run(mut self) {
        metrics::gauge!("natter_connections").increment(1);
        self.app.online.connected(&self.who.caller);
        let end = self.exchange().await;
        let end = match end {
            Some(close::DRAINING) => self.finish().await,
            other => other,
        };
        self.stop_typing();
        self.app.online.disconnected(&self.who.caller, self.who.connection);
        metrics::gauge!("natter_connections").decrement(1);
        let Self { socket, place, .. } = self;
        // Nothing more is delivered to it, while it says goodbye.
        drop(place);
        if let Some(code) = end {
            goodbye(socket, code).await;
        }
    }

    async fn exchange(&mut self) -> End {
        loop {
            let reading = self.running.is_none() && self.in_flight.len() < IN_FLIGHT;
            let deadline = self.deadline();
            let step = tokio::select! {
                code = self.place.closing.closed() => return self.last_words(code).await,
                Some(frame) = self.place.frames.recv() => self.write(frame).await,
                message = self.socket.recv(), if reading => self.on_message(message).await,
                done = run(&mut self.running), if self.running.is_some() => self.on_done(done).await,
                Some((request, settled)) = self.in_flight.next() => {
                    self.on_settled(request, settled).await
                }
                () = sleep_until(deadline) => self.on_time().await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// What is queued and still matters when the hub closes the connection.
    async fn last_words(&mut self, code: u16) -> End {
        if code == close::DEVICE_REVOKED || code == close::DRAINING {
            while let Ok(frame) = self.place.frames.try_recv() {
                if self.write(frame).await.is_err() {
                    return None;
                }
            }
        }
        Some(code)
    }

    /// The node drains: nothing new is taken, what was taken is brought to its end.
    async fn finish(&mut self) -> End {
        let until = Instant::now() + DRAIN_IN_FLIGHT;
        loop {
            if self.running.is_none() && self.in_flight.is_empty() {
                return Some(close::DRAINING);
            }
            let step = tokio::select! {
                Some(frame) = self.place.frames.recv() => self.write(frame).await,
                done = run(&mut self.running), if self.running.is_some() => self.on_done(done).await,
                Some((request, settled)) = self.in_flight.next() => {
                    self.on_settled(request, settled).await
                }
                () = sleep_until(until) => return Some(close::DRAINING),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// The earliest of: time to ping, silence for too long, the token's end.
    fn deadline(&self) -> Instant {
        let heartbeat = self.app.config.socket.heartbeat();
        let ping = self.pinged + heartbeat;
        let left = self.expires_at - OffsetDateTime::now_utc();
        let expiry = Instant::now() + left.try_into().unwrap_or(Duration::ZERO);
        ping.min(expiry)
    }

    async fn on_time(&mut self) -> Result<(), End> {
        if self.expires_at <= OffsetDateTime::now_utc() {
            return Err(Some(close::UNAUTHENTICATED));
        }
        let heartbeat = self.app.config.socket.heartbeat();
        if self.heard.elapsed() >= heartbeat * 2 {
            return Err(Some(close::TIMEOUT));
        }
        if self.pinged.elapsed() >= heartbeat {
            self.pinged = Instant::now();
            return self.flushed(Message::Ping(bytes::Bytes::new())).await;
        }
        Ok(())
    }

    /// Writes the frame and all that waits behind it, and flushes once.
    async fn write(&mut self, frame: Utf8Bytes) -> Result<(), End> {
        let closing = Arc::clone(&self.place.closing);
        let write = async {
            self.socket.feed(Message::Text(frame)).await?;
            for _ in 0..WRITE_BATCH {
                let Ok(frame) = self.place.frames.try_recv() else { break };
                self.socket.feed(Message::Text(frame)).await?;
            }
            self.socket.flush().await
        };
        within(&closing, write).await
    }

    async fn flushed(&mut self, message: Message) -> Result<(), End> {
        let closing = Arc::clone(&self.place.closing);
        within(&closing, self.socket.send(message)).await
    }

    async fn on_message(
        &mut self,
        message: Option<Result<Message, axum::Error>>,
    ) -> Result<(), End> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => self.on_frame(&text).await,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
            Some(Ok(Message::Binary(_))) => Err(Some(close::MALFORMED)),
            Some(Ok(Message::Close(_))) | None => Err(None),
            Some(Err(error)) => Err(code_of(error)),
        }
    }

    async fn on_frame(&mut self, text: &str) -> Result<(), End> {
        let Ok(frame) = ClientFrame::parse(text) else { return Err(Some(close::MALFORMED)) };
        if let Err(wait) = self.bucket.take(self.rate, std::time::Instant::now()) {
            self.refusals += 1;
            if self.refusals > REFUSALS_MAX {
                return Err(Some(close::RATE_LIMITED));
            }
            let wait = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let error = WireError::new(ErrorCode::RateLimited, "too many events");
            return self.refuse(frame.id, &error.retry_after_ms(wait)).await;
        }
        self.refusals = 0;
        let caller = self.who.caller.user_id;
        let command = text::refuse_nul(text)
            .and_then(|()| Command::parse(&frame.event, frame.data, Some(caller)));
        match command {
            Ok(Command::TypingStop(target)) if !self.typing.contains_key(&target.chat_id) => {
                self.reply(frame.id, &natter_protocol::server::Empty {}).await
            }
            Ok(command) => {
                let run = commands::run(self.app.clone(), Arc::clone(&self.who), frame.id, command);
                let mut run = run.boxed();
                // Most need nothing that is not at hand.
                if let Some(done) = (&mut run).now_or_never() {
                    return self.on_done(done).await;
                }
                self.running = Some(run);
                Ok(())
            }
            Err(error) => self.refuse(frame.id, &error).await,
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
            Ok(commands::Outcome::Published(in_flight)) => {
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
            Ok(commands::Outcome::Renewed(renewed)) => {
                self.expires_at = renewed.expires_at;
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
            Ok(Settled::Stored(feed, seq)) => {
                if let Some(chat) = feed.chat_id() {
                    self.typing.remove(&chat);
                }
                self.app.hub.tell(HubCommand::Acked(feed, seq)).await;
                Ok(())
            }
            Ok(Settled::Duplicate(sent)) => self.reply::<Sent>(request, &sent).await,
            Err(error) => self.refuse(request, &error).await,
        }
    }

    async fn reply<T: serde::Serialize>(
        &mut self,
        request: Option<u64>,
        data: &T,
    ) -> Result<(), End> {
        match request {
            Some(reply) => self.write(frame(&Reply { reply, data })).await,
            None => Ok(()),
        }
    }

    async fn refuse(&mut self, request: Option<u64>, error: &WireError) -> Result<(), End> {
        let frame = match request {
            Some(reply) => frame(&ErrorReply { reply, error }),
            None => frame(&ServerEvent::Exception(error)),
        };
        self.write(frame).await
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

/// The request that is worked on; for `select!`, which asks only while there is one.
async fn run(running: &mut Option<BoxFuture<'static, Done>>) -> Done {
    match running {
        Some(future) => {
            let done = future.await;
            *running = None;
            done
        }
        None => std::future::pending().await,
    }
}

/// Writing, for as long as a client may take, or until the hub gives the connection up.
async fn within(
    closing: &crate::registry::Closing,
    write: impl Future<Output = Result<(), axum::Error>>,
) -> Result<(), End> {
    let write = timeout(WRITE_TIMEOUT, write);
    tokio::pin!(write);
    tokio::select! {
        biased;
        written = &mut write => match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(code_of(error)),
            Err(_) => Err(Some(close::SLOW_CONSUMER)),
        },
        code = closing.closed() => {
            // A half-written frame cannot be followed by a close frame: give it a moment.
            match timeout(super::GOODBYE, &mut write).await {
                Ok(Ok(Ok(()))) => Err(Some(code)),
                _ => Err(None),
            }
        }
    }
}
