//! Who is connected to this node, and which chats they take part in: what fan-out walks.
//!
//! The hub is the only writer; sessions read it to know whether their user may write to a chat.
//! Everything here can be rebuilt from Postgres and the feeds.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use natter_protocol::{
    feed::Feed,
    ids::{ChatId, ConnectionId, DeviceId, Seq, UserId},
};
use slab::Slab;
use uuid::Uuid;

use crate::outlet::Outlet;

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
    pub outlet: Arc<Outlet>,
    /// It wants its own messages as events too.
    pub echo: bool,
}

/// Up to where a feed has been delivered here; nothing until it is followed, since what lies before
/// that is delivered piece by piece.
#[derive(Debug)]
struct Reached(AtomicU64);

impl Reached {
    const NOTHING: Seq = Seq::MAX;

    fn get(&self) -> Option<Seq> {
        Some(self.0.load(Ordering::Relaxed)).filter(|seq| *seq != Self::NOTHING)
    }

    fn set(&self, seq: Seq) {
        self.0.store(seq, Ordering::Relaxed);
    }
}

impl Default for Reached {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NOTHING))
    }
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
    /// Chats that ended for the user with this entry of theirs; the user's own feed has not told
    /// so yet.
    left: Vec<(Feed, Seq)>,
    /// The user's own feed has not been read to its end yet: who takes part in what is as an
    /// earlier moment had it, and nothing of a chat may be delivered.
    arriving: bool,
    /// One-to-ones to which nobody can write, since one has blocked the other. Not part of what the
    /// user takes part in: the feeds that tell of the two are independent.
    shut: Vec<ChatId>,
    /// Who has blocked the user since the user came here.
    hidden: Vec<UserId>,
    reached: Reached,
}

/// A user's part in a chat.
#[derive(Debug)]
struct Participation {
    chat: u32,
    /// The entry of the chat's feed that made the user a participant. The user's feed and the
    /// chat's are independent: an earlier leaving may be heard of after a later joining.
    from: Seq,
    /// Up to where the user has read it, as the user's feed has told here.
    read: AtomicU64,
}

/// A chat with at least one participant connected here.
#[derive(Debug)]
pub struct Chat {
    /// The chat.
    pub id: ChatId,
    /// Its feed.
    pub feed: Feed,
    /// Participants here.
    members: Vec<u32>,
    reached: Reached,
    /// The last entry of its feed that anybody here has seen.
    last: AtomicU64,
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
        Some(self.chat(chat)?.feed)
    }

    /// The chat's feed, when the user is connected here and takes part in it; not while the user
    /// arrives.
    #[must_use]
    pub fn membership(&self, user: UserId, chat: ChatId) -> Option<Feed> {
        let slot = *self.chats_by_id.get(&chat)?;
        let user = self.user(user).filter(|user| !user.arriving)?;
        let takes_part = user.chats.iter().any(|part| part.chat == slot);
        takes_part.then(|| self.chats[slot as usize].feed)
    }

    /// As [`Self::membership`], and whether the chat is shut.
    #[must_use]
    pub fn writable(&self, user: UserId, chat: ChatId) -> Option<(Feed, bool)> {
        Some((self.membership(user, chat)?, self.is_shut(user, chat)))
    }

    /// Whether nobody can write to this one-to-one of a user connected here.
    #[must_use]
    pub fn is_shut(&self, user: UserId, chat: ChatId) -> bool {
        self.user(user).is_some_and(|user| user.shut.contains(&chat))
    }

    /// The one-to-ones of a user connected here to which nobody can write.
    #[must_use]
    pub fn shut(&self, user: UserId) -> &[ChatId] {
        self.user(user).map(|user| &user.shut[..]).unwrap_or_default()
    }

    /// A one-to-one of the user is shut, or is no more.
    pub fn set_shut(&mut self, user: UserId, chat: ChatId, shut: bool) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            set(&mut self.users[slot as usize].shut, chat, shut);
        }
    }

    /// Whether the other has blocked the user, as far as has been heard here.
    #[must_use]
    pub fn is_hidden(&self, user: UserId, from: UserId) -> bool {
        self.user(user).is_some_and(|user| user.hidden.contains(&from))
    }

    /// The other has blocked the user, or does so no more.
    pub fn set_hidden(&mut self, user: UserId, from: UserId, hidden: bool) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            set(&mut self.users[slot as usize].hidden, from, hidden);
        }
    }

    /// Whether the user's device has a connection here.
    #[must_use]
    pub fn has_device(&self, user: UserId, device: DeviceId) -> bool {
        self.user(user).is_some_and(|user| user.connections.iter().any(|c| c.device == device))
    }

    /// How many frames wait for the connections of the users in these places, and for one of them
    /// at most; none when there are no such places.
    #[must_use]
    pub fn waiting(&self, places: Range<usize>) -> Option<(usize, usize)> {
        if places.start >= self.users.capacity() {
            return None;
        }
        let users = places.filter_map(|place| self.users.get(place));
        let waiting = users.flat_map(|user| &user.connections).map(|c| c.outlet.waiting());
        Some(waiting.fold((0, 0), |(sum, most), count| (sum + count, most.max(count))))
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

    /// Participants of the chat here whom its events go to: all but those who arrive.
    pub fn members(&self, chat: ChatId) -> impl Iterator<Item = &User> {
        self.participants(chat).filter(|user| !user.arriving)
    }

    /// All participants of the chat here.
    pub fn participants(&self, chat: ChatId) -> impl Iterator<Item = &User> {
        let members = self.chat(chat).map(|chat| &chat.members[..]);
        members.unwrap_or_default().iter().filter_map(|user| self.users.get(*user as usize))
    }

    /// Whether the user's own feed is still being read to its end.
    #[must_use]
    pub fn arriving(&self, user: UserId) -> bool {
        self.user(user).is_some_and(|user| user.arriving)
    }

    /// The user arrives, or has arrived.
    pub fn set_arriving(&mut self, user: UserId, arriving: bool) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            self.users[slot as usize].arriving = arriving;
        }
    }

    /// The chats of a user connected here, each with the entry that made the user a participant.
    pub fn chats_of(&self, user: UserId) -> impl Iterator<Item = (&Chat, Seq)> {
        self.user(user)
            .map(|user| &user.chats[..])
            .unwrap_or_default()
            .iter()
            .filter_map(|part| Some((self.chats.get(part.chat as usize)?, part.from)))
    }

    /// Adds a connection, and its user when it is the first one here. One that has moved takes the
    /// place that it had.
    pub fn connect(&mut self, user: UserId, name: &Arc<str>, feed: Feed, connection: Connection) {
        let slot = *self.users_by_id.entry(user).or_insert_with(|| {
            self.users.insert(User {
                id: user,
                name: Arc::clone(name),
                feed,
                connections: Vec::with_capacity(1),
                chats: Vec::new(),
                left: Vec::new(),
                arriving: false,
                shut: Vec::new(),
                hidden: Vec::new(),
                reached: Reached::default(),
            }) as u32
        });
        let connections = &mut self.users[slot as usize].connections;
        match connections.iter_mut().find(|other| other.id == connection.id) {
            Some(other) => *other = connection,
            None => connections.push(connection),
        }
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

    /// The user takes part in the chat since its entry `from`: may write to it, and is delivered
    /// to. Answers whether that is news.
    pub fn join(&mut self, user: UserId, chat: ChatId, feed: Feed, from: Seq) -> bool {
        let Some(&user_slot) = self.users_by_id.get(&user) else { return false };
        let chat_slot = *self.chats_by_id.entry(chat).or_insert_with(|| {
            self.chats.insert(Chat {
                id: chat,
                feed,
                members: Vec::with_capacity(1),
                reached: Reached::default(),
                last: AtomicU64::new(0),
            }) as u32
        });
        let chats = &mut self.users[user_slot as usize].chats;
        if let Some(part) = chats.iter_mut().find(|part| part.chat == chat_slot) {
            part.from = part.from.max(from);
            return false;
        }
        chats.push(Participation { chat: chat_slot, from, read: AtomicU64::new(0) });
        self.chats[chat_slot as usize].members.push(user_slot);
        true
    }

    /// Room for so many chats of a user who has none yet, and no more.
    pub fn expect_chats(&mut self, user: UserId, count: usize) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            self.users[slot as usize].chats.reserve_exact(count);
        }
    }

    /// How far the user has read a chat, as the user's feed has told here; none when it has not, or
    /// the user takes no part here.
    #[must_use]
    pub fn read_to(&self, user: UserId, chat: ChatId) -> Option<Seq> {
        let read = self.participation(user, chat)?.read.load(Ordering::Relaxed);
        (read > 0).then_some(read)
    }

    /// The user's feed tells up to where a chat is read. Answers whether that is news: not when it
    /// has told of more.
    #[must_use]
    pub fn reads(&self, user: UserId, chat: ChatId, seq: Seq) -> bool {
        let part = self.participation(user, chat);
        part.is_none_or(|part| part.read.fetch_max(seq, Ordering::Relaxed) < seq)
    }

    fn participation(&self, user: UserId, chat: ChatId) -> Option<&Participation> {
        let slot = *self.chats_by_id.get(&chat)?;
        self.user(user)?.chats.iter().find(|part| part.chat == slot)
    }

    /// The chat's feed has an entry at this place.
    pub fn saw(&self, feed: Feed, seq: Seq) {
        if let Some(chat) = feed.chat_id().and_then(|chat| self.chat(chat)) {
            chat.last.fetch_max(seq, Ordering::Relaxed);
        }
    }

    /// The last entry of the chat's feed that anybody here has seen.
    #[must_use]
    pub fn last_seen(&self, feed: Feed) -> Option<Seq> {
        Some(self.chat(feed.chat_id()?)?.last.load(Ordering::Relaxed))
    }

    /// The feed is followed, and has been delivered up to here.
    pub fn followed(&self, feed: Feed, seq: Seq) {
        if let Some(reached) = self.reached_of(feed) {
            reached.set(seq);
        }
    }

    /// A feed that is followed has been delivered up to here.
    pub fn reached(&self, feed: Feed, seq: Seq) {
        if let Some(reached) = self.reached_of(feed).filter(|reached| reached.get().is_some()) {
            reached.set(seq);
        }
    }

    /// How far a feed that is followed has been delivered here.
    #[must_use]
    pub fn reached_to(&self, feed: Feed) -> Option<Seq> {
        self.reached_of(feed)?.get()
    }

    fn reached_of(&self, feed: Feed) -> Option<&Reached> {
        match (feed.chat_id(), feed.user_id()) {
            (Some(chat), _) => self.chat(chat).map(|chat| &chat.reached),
            (_, Some(user)) => self.user(user).map(|user| &user.reached),
            (None, None) => None,
        }
    }

    /// The feeds of a user connected here that are followed, each with how far it has been
    /// delivered.
    pub fn positions(&self, user: UserId) -> impl Iterator<Item = (Feed, Seq)> {
        let own = self.user(user).and_then(|user| Some((user.feed, user.reached.get()?)));
        let chats = self.chats_of(user).map(|(chat, _)| chat);
        own.into_iter().chain(chats.filter_map(|chat| Some((chat.feed, chat.reached.get()?))))
    }

    fn chat(&self, chat: ChatId) -> Option<&Chat> {
        self.chats.get(*self.chats_by_id.get(&chat)? as usize)
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
        if news {
            let feed = self.chats[chat_slot as usize].feed;
            self.users[user_slot as usize].left.push((feed, at));
        }
        let orphan = if news { self.drop_member(chat_slot, user_slot) } else { None };
        (news, orphan)
    }

    /// Chats that the user has left, each with the entry that ended it, and that the user's own
    /// feed has not told of yet.
    pub fn left(&self, user: UserId) -> &[(Feed, Seq)] {
        self.user(user).map(|user| &user.left[..]).unwrap_or_default()
    }

    /// The user's own feed has told that the chat ended with its entry `at`.
    pub fn told_left(&mut self, user: UserId, chat: ChatId, at: Seq) {
        if let Some(&slot) = self.users_by_id.get(&user) {
            let left = &mut self.users[slot as usize].left;
            left.retain(|(feed, until)| feed.chat_id() != Some(chat) || *until > at);
        }
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
        if !chat.members.is_empty() {
            return None;
        }
        let chat = self.chats.remove(chat_slot as usize);
        self.chats_by_id.remove(&chat.id);
        Some(chat.feed)
    }
}

/// Puts something among others, once, or takes it out.
fn set<T: PartialEq>(among: &mut Vec<T>, what: T, wanted: bool) {
    let there = among.contains(&what);
    if wanted && !there {
        among.push(what);
    } else if there && !wanted {
        among.retain(|other| *other != what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shut_does_not_depend_on_when_the_chat_is_heard_of() {
        let mut registry = Registry::default();
        let (ana, ben, chat) = (UserId::generate(), UserId::generate(), ChatId::generate());
        let feed = Feed::chat(0, chat);
        registry.set_shut(ana, chat, true);
        assert!(!registry.is_shut(ana, chat), "nobody is here");
        registry.connect(ana, &"Ana".into(), Feed::user(0, ana), connection());
        registry.set_shut(ana, chat, true);
        registry.set_shut(ana, chat, true);
        assert_eq!(registry.writable(ana, chat), None);
        registry.join(ana, chat, feed, 1);
        assert_eq!(registry.writable(ana, chat), Some((feed, true)));
        assert_eq!(registry.membership(ana, chat), Some(feed), "it can be read");
        registry.set_shut(ana, chat, false);
        assert_eq!(
            (registry.writable(ana, chat), registry.shut(ana)),
            (Some((feed, false)), &[][..])
        );
        registry.set_hidden(ana, ben, true);
        assert!(registry.is_hidden(ana, ben) && !registry.is_hidden(ben, ana));
        registry.set_hidden(ana, ben, false);
        assert!(!registry.is_hidden(ana, ben));
    }

    fn connection() -> Connection {
        let (id, device) = (ConnectionId::generate(), DeviceId::generate());
        Connection { id, device, session: None, outlet: Outlet::new(2), echo: false }
    }

    #[test]
    fn the_last_one_to_go_orphans_the_feeds() {
        let mut registry = Registry::default();
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let chat = ChatId::generate();
        let feed = Feed::chat(0, chat);
        let name: Arc<str> = "x".into();
        let (first, second) = (connection(), connection());
        let (first_id, second_id) = (first.id, second.id);
        registry.connect(ana, &name, Feed::user(0, ana), first);
        registry.connect(ben, &name, Feed::user(0, ben), second);
        assert!(registry.join(ana, chat, feed, 1));
        assert!(!registry.join(ana, chat, feed, 1));
        assert!(registry.join(ben, chat, feed, 5));
        assert_eq!(registry.members(chat).count(), 2);
        assert_eq!(registry.membership(ben, chat), Some(feed));
        assert_eq!(registry.positions(ben).count(), 0);
        registry.set_arriving(ben, true);
        assert_eq!(registry.members(chat).map(|user| user.id).collect::<Vec<_>>(), [ana]);
        assert_eq!(
            (registry.participants(chat).count(), registry.membership(ben, chat)),
            (2, None)
        );
        registry.set_arriving(ben, false);
        registry.reached(feed, 6);
        assert_eq!(registry.positions(ben).count(), 0, "not followed yet");
        registry.followed(feed, 6);
        registry.reached(feed, 7);
        registry.followed(Feed::user(0, ana), 3);
        assert_eq!(
            registry.positions(ana).collect::<Vec<_>>(),
            [(Feed::user(0, ana), 3), (feed, 7)]
        );
        assert_eq!(registry.disconnect(ana, first_id), [Feed::user(0, ana)]);
        assert_eq!(registry.members(chat).map(|user| user.id).collect::<Vec<_>>(), [ben]);
        // An older leaving, heard of late.
        assert_eq!(registry.leave(ben, chat, 3), (false, None));
        assert_eq!(registry.leave(ben, chat, 9), (true, Some(feed)));
        assert_eq!(registry.left(ben), [(feed, 9)]);
        registry.told_left(ben, chat, 9);
        assert_eq!(registry.left(ben), []);
        assert_eq!(registry.leave(ben, chat, 9), (false, None));
        assert_eq!(registry.disconnect(ben, second_id), [Feed::user(0, ben)]);
        assert_eq!(registry.connections(), 0);
    }
}
