//! Who is connected to this node, and which chats they take part in: what fan-out walks.
//!
//! The hub is the only writer; sessions read it to know whether their user may write to a chat.
//! Everything here can be rebuilt from Postgres and the feeds.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, Ordering},
    },
};

use axum::extract::ws::Utf8Bytes;
use natter_protocol::{
    feed::Feed,
    ids::{ChatId, ConnectionId, DeviceId, Seq, UserId},
};
use slab::Slab;
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

/// What waits to be written to a connection.
#[derive(Clone, Debug)]
pub enum Outgoing {
    /// An event.
    Event(Utf8Bytes),
    /// The reply to the client's request of this number, at its message's place in the feed.
    Reply(u64, Utf8Bytes),
}

impl Outgoing {
    /// The frame, whichever it is.
    #[must_use]
    pub fn into_frame(self) -> Utf8Bytes {
        match self {
            Self::Event(frame) | Self::Reply(_, frame) => frame,
        }
    }
}

/// Tells a session from outside that its connection ends, and why.
#[derive(Debug, Default)]
pub struct Closing {
    code: AtomicU16,
    draining: AtomicBool,
    wake: Notify,
}

impl Closing {
    /// Ends the connection with a close code; the first one counts.
    pub fn close(&self, code: u16) {
        let _ = self.code.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        self.wake.notify_one();
    }

    /// The node drains: what is under way is brought to its end, then the connection closes.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether the node drains.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Waits until the connection is to be closed, or drained.
    pub async fn ending(&self) {
        while self.code().is_none() && !self.draining() {
            self.wake.notified().await;
        }
    }

    /// The close code, once there is one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self.code.load(Ordering::Acquire) {
            0 => None,
            code => Some(code),
        }
    }

    /// Waits for the close code.
    pub async fn closed(&self) -> u16 {
        loop {
            if let Some(code) = self.code() {
                return code;
            }
            self.wake.notified().await;
        }
    }
}

/// The way to a connection: its bounded queue of frames, shared bytes, and its end.
#[derive(Clone, Debug)]
pub struct Outlet {
    queue: mpsc::Sender<Outgoing>,
    closing: Arc<Closing>,
}

impl Outlet {
    /// An outlet whose queue takes `capacity` frames.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, mpsc::Receiver<Outgoing>, Arc<Closing>) {
        let (queue, frames) = mpsc::channel(capacity);
        let closing = Arc::new(Closing::default());
        (Self { queue, closing: Arc::clone(&closing) }, frames, closing)
    }

    /// Queues a frame. A queue that is full belongs to a consumer too slow to keep: it is closed
    /// with a resumable code, never skipped. Answers whether the connection still lives.
    pub fn send(&self, frame: Utf8Bytes) -> bool {
        self.queue_up(Outgoing::Event(frame))
    }

    /// The same for the reply to a request.
    pub fn reply(&self, request: u64, frame: Utf8Bytes) -> bool {
        self.queue_up(Outgoing::Reply(request, frame))
    }

    fn queue_up(&self, outgoing: Outgoing) -> bool {
        match self.queue.try_send(outgoing) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("natter_slow_consumers_total").increment(1);
                self.close(natter_protocol::error::close::SLOW_CONSUMER);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Ends the connection.
    pub fn close(&self, code: u16) {
        self.closing.close(code);
    }

    /// Ends the connection once what is under way has been brought to its end.
    pub fn drain(&self) {
        self.closing.drain();
    }

    /// Whether the connection is on its way out: nothing more may be delivered to it, since
    /// what it missed would be a hole.
    #[must_use]
    pub fn closed(&self) -> bool {
        self.closing.code().is_some()
    }
}

/// One socket of a device.
#[derive(Debug)]
pub struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// Its device.
    pub device: DeviceId,
    /// The login that it came with.
    pub session: Option<Uuid>,
    /// The way to it.
    pub outlet: Outlet,
    /// It wants its own messages as events too.
    pub echo: bool,
}

/// A user with at least one connection here.
#[derive(Debug)]
pub struct User {
    /// The user.
    pub id: UserId,
    /// The name that messages are sent with.
    pub name: Arc<str>,
    /// The user's own feed.
    pub feed: Feed,
    /// Oldest first.
    pub connections: Vec<Connection>,
    /// What the user takes part in, as far as the feeds have told.
    chats: Vec<Participation>,
}

/// A user's part in a chat.
#[derive(Clone, Copy, Debug)]
struct Participation {
    chat: u32,
    /// The entry of the chat's feed that made the user a participant. The user's feed and the
    /// chat's are independent: an earlier leaving may be heard of after a later joining.
    from: Seq,
}

/// A chat with at least one participant connected here.
#[derive(Debug)]
pub struct Chat {
    /// The chat.
    pub id: ChatId,
    /// Its feed.
    pub feed: Feed,
    /// Participants here whom events are delivered to.
    members: Vec<u32>,
    /// Participants here, those included that are still being caught up.
    participants: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry {
    users: Slab<User>,
    chats: Slab<Chat>,
    users_by_id: HashMap<UserId, u32>,
    chats_by_id: HashMap<ChatId, u32>,
}

/// What a removal leaves behind: feeds that nobody here needs any more.
pub type Orphans = Vec<Feed>;

impl Registry {
    /// The user, when connected here.
    #[must_use]
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(*self.users_by_id.get(&id)? as usize)
    }

    /// The chat's feed, when somebody here takes part in it.
    #[must_use]
    pub fn chat_feed(&self, chat: ChatId) -> Option<Feed> {
        Some(self.chats.get(*self.chats_by_id.get(&chat)? as usize)?.feed)
    }

    /// The chat's feed, when the user is connected here and takes part in it.
    #[must_use]
    pub fn membership(&self, user: UserId, chat: ChatId) -> Option<Feed> {
        let slot = *self.chats_by_id.get(&chat)?;
        let takes_part = self.user(user)?.chats.iter().any(|part| part.chat == slot);
        takes_part.then(|| self.chats[slot as usize].feed)
    }

    /// Whether the user's device has a connection here.
    #[must_use]
    pub fn has_device(&self, user: UserId, device: DeviceId) -> bool {
        self.user(user).is_some_and(|user| user.connections.iter().any(|c| c.device == device))
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.users.iter().map(|(_, user)| user.connections.len()).sum()
    }

    /// All users connected here.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.iter().map(|(_, user)| user)
    }

    /// Participants of the chat here, whom its events go to.
    pub fn members(&self, chat: ChatId) -> impl Iterator<Item = &User> {
        let slot = self.chats_by_id.get(&chat);
        let members = slot.and_then(|slot| self.chats.get(*slot as usize)).map(|c| &c.members[..]);
        members.unwrap_or_default().iter().filter_map(|user| self.users.get(*user as usize))
    }

    /// The chats of a user connected here.
    pub fn chats_of(&self, user: UserId) -> impl Iterator<Item = &Chat> {
        self.user(user)
            .map(|user| &user.chats[..])
            .unwrap_or_default()
            .iter()
            .filter_map(|part| self.chats.get(part.chat as usize))
    }

    /// Adds a connection, and its user when it is the first one here.
    pub fn connect(&mut self, user: UserId, name: &Arc<str>, feed: Feed, connection: Connection) {
        let slot = *self.users_by_id.entry(user).or_insert_with(|| {
            self.users.insert(User {
                id: user,
                name: Arc::clone(name),
                feed,
                connections: Vec::with_capacity(1),
                chats: Vec::new(),
            }) as u32
        });
        self.users[slot as usize].connections.push(connection);
    }

    /// Takes a connection out. With the user's last one the user goes, and what remains is the
    /// feeds that nobody here follows any more.
    pub fn disconnect(&mut self, user: UserId, connection: ConnectionId) -> Orphans {
        let Some(&slot) = self.users_by_id.get(&user) else { return Orphans::new() };
        let entry = &mut self.users[slot as usize];
        entry.connections.retain(|other| other.id != connection);
        if !entry.connections.is_empty() {
            return Orphans::new();
        }
        let user = self.users.remove(slot as usize);
        self.users_by_id.remove(&user.id);
        let mut orphans = vec![user.feed];
        for part in user.chats {
            orphans.extend(self.drop_member(part.chat, slot));
        }
        orphans
    }

    /// The user takes part in the chat since its entry `from`, and may write to it. Answers
    /// whether that is news. Events are delivered after [`Registry::deliver_to`].
    pub fn join(&mut self, user: UserId, chat: ChatId, feed: Feed, from: Seq) -> bool {
        let Some(&user_slot) = self.users_by_id.get(&user) else { return false };
        let chat_slot = *self.chats_by_id.entry(chat).or_insert_with(|| {
            self.chats.insert(Chat {
                id: chat,
                feed,
                members: Vec::with_capacity(1),
                participants: 0,
            }) as u32
        });
        let chats = &mut self.users[user_slot as usize].chats;
        if let Some(part) = chats.iter_mut().find(|part| part.chat == chat_slot) {
            part.from = part.from.max(from);
            return false;
        }
        chats.push(Participation { chat: chat_slot, from });
        self.chats[chat_slot as usize].participants += 1;
        true
    }

    /// Delivers the chat's events to the user, who takes part in it.
    pub fn deliver_to(&mut self, user: UserId, chat: ChatId) {
        let (Some(&user_slot), Some(&chat_slot)) =
            (self.users_by_id.get(&user), self.chats_by_id.get(&chat))
        else {
            return;
        };
        let takes_part =
            self.users[user_slot as usize].chats.iter().any(|part| part.chat == chat_slot);
        let members = &mut self.chats[chat_slot as usize].members;
        if takes_part && !members.contains(&user_slot) {
            members.push(user_slot);
        }
    }

    /// The user's part in the chat ended with its entry `at`: nothing later is delivered. Answers
    /// whether that is news (not for somebody who has joined again since), and the chat's feed
    /// when nobody here needs it any more.
    pub fn leave(&mut self, user: UserId, chat: ChatId, at: Seq) -> (bool, Option<Feed>) {
        let (Some(&user_slot), Some(&chat_slot)) =
            (self.users_by_id.get(&user), self.chats_by_id.get(&chat))
        else {
            return (false, None);
        };
        let chats = &mut self.users[user_slot as usize].chats;
        let before = chats.len();
        chats.retain(|part| part.chat != chat_slot || part.from > at);
        let news = chats.len() < before;
        let orphan = if news { self.drop_member(chat_slot, user_slot) } else { None };
        (news, orphan)
    }

    /// A connection by its user and id.
    #[must_use]
    pub fn connection(&self, user: UserId, id: ConnectionId) -> Option<&Connection> {
        self.user(user)?.connections.iter().find(|connection| connection.id == id)
    }

    /// The user's new name.
    pub fn rename(&mut self, user: UserId, name: &str) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            self.users[slot as usize].name = name.into();
        }
    }

    fn drop_member(&mut self, chat_slot: u32, user_slot: u32) -> Option<Feed> {
        let chat = self.chats.get_mut(chat_slot as usize)?;
        chat.members.retain(|slot| *slot != user_slot);
        chat.participants -= 1;
        if chat.participants > 0 {
            return None;
        }
        let chat = self.chats.remove(chat_slot as usize);
        self.chats_by_id.remove(&chat.id);
        Some(chat.feed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> (Connection, mpsc::Receiver<Outgoing>) {
        let (outlet, frames, _) = Outlet::new(2);
        let (id, device) = (ConnectionId::generate(), DeviceId::generate());
        (Connection { id, device, session: None, outlet, echo: false }, frames)
    }

    #[test]
    fn the_last_one_to_go_orphans_the_feeds() {
        let mut registry = Registry::default();
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let chat = ChatId::generate();
        let feed = Feed::chat(0, chat);
        let name: Arc<str> = "x".into();
        let (first, _a) = connection();
        let (second, _b) = connection();
        let (first_id, second_id) = (first.id, second.id);
        registry.connect(ana, &name, Feed::user(0, ana), first);
        registry.connect(ben, &name, Feed::user(0, ben), second);
        assert!(registry.join(ana, chat, feed, 1));
        assert!(!registry.join(ana, chat, feed, 1));
        assert!(registry.join(ben, chat, feed, 5));
        registry.deliver_to(ana, chat);
        assert_eq!(registry.members(chat).count(), 1);
        assert_eq!(registry.membership(ben, chat), Some(feed));
        // Ben is still being caught up; the chat must outlive Ana.
        assert_eq!(registry.disconnect(ana, first_id), [Feed::user(0, ana)]);
        registry.deliver_to(ben, chat);
        assert_eq!(registry.members(chat).map(|user| user.id).collect::<Vec<_>>(), [ben]);
        // An older leaving, heard of late.
        assert_eq!(registry.leave(ben, chat, 3), (false, None));
        assert_eq!(registry.leave(ben, chat, 9), (true, Some(feed)));
        assert_eq!(registry.leave(ben, chat, 9), (false, None));
        assert_eq!(registry.disconnect(ben, second_id), [Feed::user(0, ben)]);
        assert_eq!(registry.connections(), 0);
    }

    #[test]
    fn a_full_queue_closes_its_connection_and_no_other() {
        let (connection, _frames) = connection();
        for _ in 0..2 {
            assert!(connection.outlet.send("x".into()));
        }
        assert!(!connection.outlet.send("x".into()));
        assert!(connection.outlet.closed());
    }
}
