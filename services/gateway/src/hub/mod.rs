//! The one task of a node that fans feeds out to its connections.
//!
//! It owns the [`Follower`], which yields every followed feed in order and without a hole, and is
//! the only writer of the [`Registry`]. Sessions talk to it by commands and read the registry.
//!
//! - [`frames`]: from an entry to shared bytes
//! - `arrivals`: connections that come and go
//! - `shut_out`: users who were disabled
//! - `touch`: whether this node hears of everything
//! - `typing`: who types where
//! - `wakes`: when connections are woken to write
//! - `watchers`: who wants to hear of whose presence

mod arrivals;
pub mod frames;
mod measures;
mod shut_out;
mod touch;
mod typing;
mod wakes;
mod watchers;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use futures::FutureExt;
use natter_bus::follow::{Arrival, Backlog, FollowEvent, Follower, Start};
use natter_presence::Typist;
use natter_protocol::{
    client::Mark,
    cursor::{Bases, Cursor},
    error::close,
    feed::{Blocking, ChatAdded, Entry, Event, Feed, Signal, SystemEvent, SystemKind},
    ids::{ChatId, ConnectionId, DeviceId, Seq, Shard, UserId},
    server::{BlockChange, ChatRef, Presence, Receipt, ServerEvent, UserTyping},
};
use natter_runtime::context;
use natter_store::{Followed, Store};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use tracing::{field::Empty, info_span};

use self::{
    arrivals::Admission,
    frames::{Delivery, Part, Shared},
    measures::Measures,
    shut_out::ShutOut,
    touch::Touch,
    typing::Typing,
    wakes::Wakes,
    watchers::Watchers,
};
use crate::{
    online::Online,
    outlet::Outlet,
    registry::{Connection, Orphans, Registry},
};

/// Commands waiting for the hub; sessions wait when it is full.
const COMMANDS: usize = 1024;

/// What of the hub a deployment decides.
#[derive(Clone, Copy, Debug)]
pub struct HubSettings {
    /// A message reaches the sender's other devices.
    pub own_devices_get_messages: bool,
    /// Typing shows on the typist's own devices.
    pub own_devices_see_typing: bool,
    /// Connections of one device; beyond it the oldest is closed.
    pub connections_per_device: usize,
}

/// A connection that wants in.
pub struct Attach {
    /// Whose it is.
    pub user: UserId,
    /// The name that the user's messages carry.
    pub name: Arc<str>,
    /// The user's own feed.
    pub feed: Feed,
    /// The connection.
    pub connection: Connection,
    /// The user's chats; not needed when the user is connected here already.
    pub snapshot: Option<Followed>,
    /// Answered once everything is followed, with where the connection begins; with nothing when
    /// a snapshot is needed after all.
    pub admitted: oneshot::Sender<Option<Standing>>,
}

/// How a user stands on this node, all of one moment: what is queued for the user's connections
/// later than this lies beyond.
#[derive(Clone, Debug)]
pub struct Standing {
    /// How far the user's feeds have been delivered.
    pub at: Cursor,
    /// The user's chats, each with the entry of its feed that made the user a participant.
    pub chats: Vec<(Feed, Seq)>,
    /// Chats that have ended for the user with this entry of theirs, of which the user's own feed
    /// has not told yet.
    pub left: Vec<(Feed, Seq)>,
}

/// Whether a feed has entries in (`since`, `until`].
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Which feed.
    pub feed: Feed,
    /// After this one …
    pub since: Seq,
    /// … up to this one.
    pub until: Seq,
    /// Its last entry, and up to where in the log, as Postgres knows.
    pub known: Option<(Seq, Seq)>,
}

/// What sessions ask of the hub.
pub enum Command {
    /// Let a connection in.
    Attach(Box<Attach>),
    /// A connection is gone, the one with this outlet: another may have its id since.
    Detach(UserId, ConnectionId, Arc<Outlet>),
    /// A feed has an entry at this place, as its ack told.
    Acked(Feed, Seq),
    /// The connection wants to hear of these users' presence, and of no others.
    Watch(UserId, ConnectionId, Vec<(UserId, Feed)>),
    /// Who types in a chat, as Redis knows: somebody here has been told.
    Typists(ChatId, Vec<Typist>),
    /// All users whose presence is watched.
    Watched(oneshot::Sender<Vec<UserId>>),
    /// What Redis knows of watched users.
    Found(Vec<Presence>),
    /// Who watches a user's presence or is watched by them: each watcher with the watched.
    WatchedAround(UserId, oneshot::Sender<Vec<(UserId, Vec<UserId>)>>),
    /// The user shares no chat any more with these, and hears no more of their presence.
    Unwatch(UserId, Vec<UserId>),
    /// For each of these, whether it is quiet, as far as digests have told.
    Quiet(Vec<Ask>, oneshot::Sender<Vec<Option<bool>>>),
    /// How a user stands.
    Standing(UserId, oneshot::Sender<Standing>),
    /// Tell the connections of a device to end and come back; answered with how many there were.
    Close(UserId, DeviceId, oneshot::Sender<usize>),
    /// Tell all connections to go elsewhere within this time.
    Drain(Duration),
}

/// The way to the hub.
#[derive(Clone)]
pub struct Hub {
    commands: mpsc::Sender<Command>,
    registry: Arc<RwLock<Registry>>,
    touch: Arc<Touch>,
    backlog: Backlog,
}

impl Hub {
    /// Starts the hub's task, which ends with the last handle.
    #[must_use]
    pub fn start(
        follower: Follower,
        shards: Shard,
        online: Online,
        store: Store,
        settings: HubSettings,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let registry = Arc::<RwLock<Registry>>::default();
        let touch = Arc::new(Touch::new(shards));
        let backlog = follower.backlog();
        let fan_out = FanOut {
            follower,
            settings,
            registry: Arc::clone(&registry),
            touch: Arc::clone(&touch),
            typing: Typing::default(),
            watchers: Watchers::default(),
            bases: Arc::new(Bases::new(vec![0; usize::from(shards)].into())),
            starting: HashMap::new(),
            admissions: HashMap::new(),
            admitting: HashMap::new(),
            next_admission: 0,
            online,
            shut_out: ShutOut::start(store),
            draining: None,
            wakes: Wakes::new(),
            measures: Measures::new(),
        };
        tokio::spawn(fan_out.run(receiver));
        Self { commands, registry, touch, backlog }
    }

    /// Hands a command over; waits while the hub is behind. A hub that is gone means that the
    /// node is going down, and commands are of no use any more.
    pub async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// Who is connected and takes part in what. Do not hold it across an await.
    pub fn registry(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What waits for the hub: commands, and batches of what feeds tell.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let commands = self.commands.max_capacity() - self.commands.capacity();
        (commands, self.backlog.batches())
    }

    /// Whether feeds are followed at this moment.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.touch.is_up()
    }

    /// Whether the shard's feeds have been out of touch for more than 2 s, until all that they
    /// told meanwhile has been asked for: membership may have changed without this node knowing,
    /// so sends are refused.
    #[must_use]
    pub fn out_of_touch(&self, shard: Shard) -> bool {
        self.touch.lost(shard)
    }
}

struct FanOut {
    follower: Follower,
    settings: HubSettings,
    registry: Arc<RwLock<Registry>>,
    touch: Arc<Touch>,
    typing: Typing,
    watchers: Watchers,
    /// Up to where everything on the followed feeds has been delivered.
    bases: Arc<Bases>,
    /// Feeds that admissions wait for.
    starting: HashMap<Feed, Vec<u64>>,
    admissions: HashMap<u64, Admission>,
    admitting: HashMap<UserId, u64>,
    next_admission: u64,
    online: Online,
    shut_out: ShutOut,
    /// Over how long the clients of this node are spread, once it drains.
    draining: Option<Duration>,
    /// Connections that have something to write since the last wait.
    wakes: Wakes,
    measures: Measures,
}

impl FanOut {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            // All that is at hand is queued before anybody is woken.
            while let Some(event) = self.follower.next().now_or_never() {
                self.on_follow(event);
                self.wakes.entry();
                // A follower that has much at hand never waits; sessions must write meanwhile.
                tokio::task::consume_budget().await;
            }
            self.wakes.wake_if_paid();
            let expiry = self.typing.next_expiry();
            tokio::select! {
                () = tokio::time::sleep_until(self.wakes.due()), if self.wakes.pending() => {}
                event = self.follower.next() => {
                    self.on_follow(event);
                    self.wakes.entry();
                }
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = tokio::time::sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                    for (chat, user) in self.typing.expire(Instant::now()) {
                        self.show_typing(chat, user, None, false);
                    }
                }
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.registry.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Attach(attach) => self.attach(*attach),
            Command::Detach(user, connection, outlet) => self.detach(user, connection, &outlet),
            Command::Acked(feed, seq) => self.follower.expect(feed, seq),
            Command::Watch(user, connection, mut users) => {
                users.retain(|(other, _)| !self.read().is_hidden(user, *other));
                let change = self.watchers.subscribe((user, connection), &users);
                self.watch(change);
            }
            Command::Typists(chat, typists) => {
                let now = Instant::now();
                for Typist { user, device, left } in typists {
                    if self.typing.start(chat, user, device, left, now) {
                        self.show_typing(chat, user, Some(device), true);
                    }
                }
            }
            Command::Watched(answer) => {
                let _ = answer.send(self.watchers.users());
            }
            Command::Found(presences) => {
                for presence in presences {
                    self.show_presence(&presence);
                }
            }
            Command::WatchedAround(user, answer) => {
                let registry = self.read();
                let connections = registry.user(user).map(|user| &user.connections[..]);
                let connections = connections.unwrap_or_default().iter().map(|c| c.id);
                let _ = answer.send(self.watchers.around(user, connections));
            }
            Command::Unwatch(watcher, users) => {
                let change = self.watchers.forget(watcher, &users);
                self.watch(change);
            }
            Command::Quiet(asks, answer) => {
                let quiet =
                    |ask: &Ask| self.follower.quiet(ask.feed, ask.since, ask.until, ask.known);
                let _ = answer.send(asks.iter().map(quiet).collect());
            }
            Command::Standing(user, answer) => {
                let _ = answer.send(self.standing(user));
            }
            Command::Close(user, device, answer) => {
                let _ = answer.send(self.close_device(user, device));
            }
            Command::Drain(spread) => self.drain(spread),
        }
    }

    fn unfollow(&mut self, orphans: Orphans) {
        for feed in orphans {
            self.follower.unfollow(feed);
            self.admitted_to(feed);
            if let Some(chat) = feed.chat_id() {
                self.typing.forget_chat(chat);
            }
        }
    }

    fn watch(&mut self, change: watchers::Change) {
        for feed in change.watch {
            self.follower.watch(feed);
        }
        for feed in change.unwatch {
            self.follower.unwatch(feed);
        }
    }

    fn on_follow(&mut self, event: FollowEvent) {
        match event {
            FollowEvent::Entry(feed, arrival) => self.on_entry(feed, &arrival),
            FollowEvent::Signal(feed, body) => match serde_json::from_slice(&body) {
                Ok(signal) => self.on_signal(feed, signal),
                Err(error) => tracing::warn!(%error, "a signal that cannot be read"),
            },
            FollowEvent::Following(feed, at) => self.on_following(feed, at),
            FollowEvent::Verified(shard, to) => {
                let mut seqs = self.bases.seqs().to_vec();
                if let Some(seq) = seqs.get_mut(usize::from(shard)) {
                    *seq = to;
                    self.bases = Arc::new(Bases::new(seqs.into()));
                }
            }
            FollowEvent::Connected(up) => self.touch.connected(up),
            FollowEvent::InTouch(shard) => self.touch.back(shard),
            FollowEvent::Lost(feed) => self.lost(feed),
        }
    }

    /// This node cannot deliver the feed without a hole. Its users begin anew, here or elsewhere,
    /// and get from Postgres what the log has cut off.
    fn lost(&mut self, feed: Feed) {
        let users: Vec<UserId> = match feed.chat_id() {
            Some(chat) => self.read().participants(chat).map(|user| user.id).collect(),
            None => feed.user_id().into_iter().collect(),
        };
        tracing::warn!(
            shard = feed.shard,
            users = users.len(),
            "the log was cut before it was read"
        );
        for user in users {
            let connections: Vec<_> = {
                let registry = self.read();
                let connections = registry.user(user).map(|user| &user.connections[..]);
                let connections = connections.unwrap_or_default().iter();
                connections.map(|c| (c.id, Arc::clone(&c.outlet))).collect()
            };
            for (id, outlet) in connections {
                outlet.close(close::SLOW_CONSUMER);
                // At once: whoever comes back must not find what this node believed before.
                self.detach(user, id, &outlet);
            }
        }
    }

    fn on_entry(&mut self, feed: Feed, arrival: &Arrival) {
        {
            let registry = self.read();
            registry.reached(feed, arrival.seq);
            registry.saw(feed, arrival.seq);
        }
        let Some(entry) = frames::parse(arrival) else { return };
        let Some(chat) = feed.chat_id() else {
            return self.on_user_entry(feed, arrival.seq, entry);
        };
        if let Event::Message(sent) = &entry.event
            && let Some(device) = sent.device_id
            && self.typing.stop(chat, sent.sender.id, device)
        {
            self.show_typing(chat, sent.sender.id, Some(device), false);
        }
        let Some(delivery) = Delivery::new(feed, &entry, arrival, &self.bases) else { return };
        let delivery = Arc::new(delivery);
        {
            let fans_out = || info_span!("fan_out", %chat, seq = arrival.seq, connections = Empty);
            let span = context::follow(arrival.traceparent.as_deref(), fans_out);
            let _entered = span.enter();
            let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
            let (own_devices, wakes) = (self.settings.own_devices_get_messages, &mut self.wakes);
            let mut connections = 0;
            for user in registry.members(chat) {
                connections += delivery.send(user, own_devices, wakes);
            }
            span.record("connections", connections);
            self.measures.fanned_out(arrival, connections);
        }
        if let Event::System(SystemEvent { kind, user_id, .. }) = entry.event {
            let ended: Vec<UserId> = match user_id {
                _ if kind == SystemKind::Deleted => {
                    self.read().participants(chat).map(|user| user.id).collect()
                }
                Some(user) if kind.ends_membership() => vec![user],
                _ => Vec::new(),
            };
            for user in ended {
                self.leave(user, chat, arrival.seq);
                self.online.parted(user);
            }
        }
    }

    /// Ends the user's part in the chat here. Answers whether that was news.
    fn leave(&mut self, user: UserId, chat: ChatId, at: Seq) -> bool {
        if self.typing.forget(chat, user) {
            self.show_typing(chat, user, None, false);
        }
        let (news, orphan) = self.write().leave(user, chat, at);
        self.unfollow(orphan.into_iter().collect());
        news
    }

    fn on_user_entry(&mut self, feed: Feed, seq: Seq, entry: Entry) {
        let user = UserId(feed.id);
        match entry.event {
            Event::ChatAdded(added) => self.chat_added(feed, seq, *added),
            Event::ChatRemoved(removed) => {
                let chat = self.read().chat_feed(removed.chat_id);
                self.leave(user, removed.chat_id, removed.until_seq);
                self.write().told_left(user, removed.chat_id, removed.until_seq);
                // Somebody who has joined again since is not told of the leaving before.
                if self.read().membership(user, removed.chat_id).is_none() {
                    let event = ServerEvent::ChatRemoved(ChatRef { id: removed.chat_id });
                    let delivery = Delivery::own(feed, seq, &event, &self.bases);
                    let shard = removed.shard.or(chat.map(|chat| chat.shard));
                    let part = shard.map_or(Part::None, |shard| {
                        Part::Ends(Feed::chat(shard, removed.chat_id), removed.until_seq)
                    });
                    self.deliver_own(delivery.with(part));
                }
            }
            Event::DeviceRevoked(revoked) => {
                let device_id = revoked.device_id;
                let frame = Shared::new(&ServerEvent::DeviceRevoked { device_id });
                let registry = self.read();
                let connections = registry.user(user).map(|u| &u.connections[..]);
                for connection in connections.unwrap_or_default() {
                    // An outside issuer's device has no logins to tell apart. One that comes back
                    // after it has logged out is not meant, and whether it is good is asked of
                    // Postgres once it has arrived.
                    if connection.session.is_none() && registry.arriving(user) {
                        continue;
                    }
                    // A later login of the device is another one.
                    if (connection.device, connection.session) == (device_id, revoked.session) {
                        connection.outlet.send(frame.clone());
                        connection.outlet.close(close::DEVICE_REVOKED);
                    }
                }
            }
            // Whoever arrives is asked about once they are here.
            Event::Disabled if self.read().arriving(user) => {}
            Event::Disabled => {
                let registry = self.read();
                let connections = registry.user(user).map(|u| &u.connections[..]);
                let outlets = connections.unwrap_or_default().iter().map(|c| Arc::clone(&c.outlet));
                self.shut_out.told(user, outlets.collect());
            }
            Event::ProfileChanged(profile) => self.write().rename(user, &profile.name),
            // One device may tell of less after another has told of more.
            Event::Read(Mark { chat_id, seq: read }) if self.read().reads(user, chat_id, read) => {
                let event = ServerEvent::Read(Receipt { chat_id, user_id: user, seq: read });
                let delivery = Delivery::own(feed, seq, &event, &self.bases);
                self.deliver_own(delivery.asked_by(user, entry.origin.as_ref()));
            }
            Event::ChatUpdated(chat) => {
                let event = ServerEvent::ChatUpdated(&chat);
                self.deliver_own(Delivery::own(feed, seq, &event, &self.bases));
            }
            Event::Blocking(blocking) => self.blocking(feed, seq, blocking),
            // For the other participants, who have a signal.
            Event::Read(_)
            | Event::Delivered(_)
            // For other people's servers.
            | Event::DeviceAdded(_)
            | Event::Message(_)
            | Event::System(_)
            | Event::Edited(_)
            | Event::Deleted(_)
            | Event::Reacted(_)
            | Event::Expired(_) => {}
        }
    }

    /// One of the two this feed is of has blocked the other, or does so no more.
    fn blocking(&mut self, own: Feed, seq: Seq, blocking: Blocking) {
        let user = UserId(own.id);
        let Blocking { by, user_id, blocked, chat_id, shut } = blocking;
        if let Some(chat) = chat_id {
            for typist in [by, user_id].into_iter().filter(|_| shut) {
                if self.typing.forget(chat, typist) {
                    self.show_typing(chat, typist, None, false);
                }
            }
            self.write().set_shut(user, chat, shut);
        }
        if user == user_id {
            // Kept for a subscription that has asked before this was committed, and comes after.
            self.write().set_hidden(user, by, blocked);
            if blocked {
                let change = self.watchers.forget(user, &[by]);
                self.watch(change);
            }
        } else {
            let event = ServerEvent::Blocking(BlockChange { user_id, blocked, chat_id });
            self.deliver_own(Delivery::own(own, seq, &event, &self.bases));
        }
    }

    fn chat_added(&mut self, own: Feed, seq: Seq, added: ChatAdded) {
        let ChatAdded { chat, shard, from_seq } = added;
        let (user, feed) = (UserId(own.id), Feed::chat(shard, chat.id));
        let news = self.write().join(user, chat.id, feed, from_seq);
        // The user's feed and the chat's are independent: followed here already, the chat's may be
        // past the entry that made the user a participant, or not there yet. Each connection reads
        // what lies between, and knows from its cursor what of both it has.
        self.follower.follow(feed, Start::After(from_seq.saturating_sub(1)));
        let delivery = Delivery::own(own, seq, &ServerEvent::ChatAdded(&chat), &self.bases);
        self.deliver_own(if news {
            delivery.with(Part::Begins(feed, from_seq.saturating_sub(1)))
        } else {
            // The snapshot knew it already.
            delivery
        });
    }

    /// Queues an entry of a user's own feed for all of the user's connections.
    fn deliver_own(&mut self, delivery: Delivery) {
        let registry = self.registry.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(user) = registry.user(UserId(delivery.feed.id)) {
            Arc::new(delivery).send(user, true, &mut self.wakes);
        }
    }

    fn on_signal(&mut self, feed: Feed, signal: Signal) {
        match (signal, feed.chat_id(), feed.user_id()) {
            (Signal::Typing { user_id, device_id, ttl_ms: 0 }, Some(chat), _) => {
                if self.typing.stop(chat, user_id, device_id) {
                    self.show_typing(chat, user_id, Some(device_id), false);
                }
            }
            (Signal::Typing { user_id, device_id, ttl_ms }, Some(chat), _) => {
                let ttl = Duration::from_millis(ttl_ms.into());
                if self.typing.start(chat, user_id, device_id, ttl, Instant::now()) {
                    self.show_typing(chat, user_id, Some(device_id), true);
                }
            }
            (Signal::Presence { online, last_seen_at }, _, Some(user_id)) => {
                self.show_presence(&Presence { user_id, online, last_seen_at });
            }
            (Signal::Read { user_id, seq }, Some(chat_id), _) => {
                let receipt = Receipt { chat_id, user_id, seq };
                self.show_to_others(&ServerEvent::Read(receipt), chat_id, user_id);
            }
            (Signal::Delivered { user_id, seq }, Some(chat_id), _) => {
                let receipt = Receipt { chat_id, user_id, seq };
                self.show_to_others(&ServerEvent::Delivered(receipt), chat_id, user_id);
            }
            (
                Signal::Presence { .. }
                | Signal::Typing { .. }
                | Signal::Read { .. }
                | Signal::Delivered { .. },
                ..,
            ) => {}
        }
    }

    /// Shows a signal to the participants but this one.
    fn show_to_others(&self, event: &ServerEvent<'_>, chat: ChatId, user: UserId) {
        let frame = Shared::new(event);
        let registry = self.read();
        let others = registry.members(chat).filter(|other| other.id != user);
        for connection in others.flat_map(|other| &other.connections) {
            if !connection.outlet.closed() {
                connection.outlet.send(frame.clone());
            }
        }
    }

    fn show_typing(&self, chat: ChatId, user: UserId, device: Option<DeviceId>, typing: bool) {
        let event = ServerEvent::UserTyping(UserTyping { chat_id: chat, user_id: user, typing });
        let frame = Shared::new(&event);
        let registry = self.read();
        for other in registry.members(chat) {
            // A start may have been on its way when one of the two blocked the other.
            if typing && registry.is_shut(other.id, chat) {
                continue;
            }
            let own = other.id == user;
            if own && !self.settings.own_devices_see_typing {
                continue;
            }
            for connection in &other.connections {
                let typist = own && device == Some(connection.device);
                if !typist && !connection.outlet.closed() {
                    connection.outlet.send(frame.clone());
                }
            }
        }
    }

    fn show_presence(&mut self, presence: &Presence) {
        let watchers = self.watchers.changed(presence.user_id, presence.online);
        if watchers.is_empty() {
            return;
        }
        let frame = Shared::new(&ServerEvent::Presence(presence));
        let registry = self.read();
        for (user, connection) in watchers {
            if let Some(connection) = registry.connection(user, connection)
                && !connection.outlet.closed()
            {
                connection.outlet.send(frame.clone());
            }
        }
    }

    /// Each may come back at once: it is not the device that is unwanted.
    fn close_device(&self, user: UserId, device: DeviceId) -> usize {
        let registry = self.read();
        let connections = registry.user(user).map(|user| &user.connections[..]);
        let of_device = connections
            .unwrap_or_default()
            .iter()
            .filter(|c| c.device == device && !c.outlet.closed() && !c.outlet.draining());
        of_device.map(|connection| send_elsewhere(&connection.outlet, Duration::ZERO)).count()
    }

    fn drain(&mut self, spread: Duration) {
        self.draining = Some(spread);
        for user in self.read().users() {
            for connection in &user.connections {
                send_elsewhere(&connection.outlet, spread);
            }
        }
    }
}

/// Tells a connection to come back elsewhere, after a while of its own, and to end here.
fn send_elsewhere(outlet: &Outlet, spread: Duration) {
    let spread = spread.as_millis().try_into().unwrap_or(u64::MAX);
    let after_ms = rand::random_range(0..=spread);
    outlet.send(Shared::new(&ServerEvent::Reconnect { after_ms }));
    outlet.drain();
}
