//! Who types where, as this node has heard. Each node arms its own timer for every typist, so
//! the stop needs nobody alive but the node that shows it. Pure; time is passed in.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use natter_protocol::ids::{ChatId, DeviceId, UserId};
use tokio::time::Instant;

/// Devices typing in one chat at once that are kept track of; the others do not show.
const TYPISTS_MAX: usize = 200;
/// The longest that a signal may claim.
const TTL_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug)]
struct Typist {
    user: UserId,
    device: DeviceId,
    until: Instant,
    /// When its one timer fires; one that fires at another time is of an earlier start.
    armed: Instant,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Typing {
    chats: HashMap<ChatId, Vec<Typist>>,
    /// May name typists that have stopped or gone on since; they are skipped.
    timers: BinaryHeap<Reverse<(Instant, ChatId, UserId, DeviceId)>>,
}

impl Typing {
    /// A device types, for `ttl`. Answers whether its user had not been typing.
    pub fn start(
        &mut self,
        chat: ChatId,
        user: UserId,
        device: DeviceId,
        ttl: Duration,
        now: Instant,
    ) -> bool {
        let until = now + ttl.min(TTL_MAX);
        let typists = self.chats.entry(chat).or_default();
        let news = !typists.iter().any(|typist| typist.user == user);
        if let Some(typist) = typists.iter_mut().find(|t| t.user == user && t.device == device) {
            // Its timer is still armed, and arms itself again when it finds the later end.
            typist.until = until;
            return false;
        }
        if typists.len() >= TYPISTS_MAX {
            return false;
        }
        typists.push(Typist { user, device, until, armed: until });
        self.timers.push(Reverse((until, chat, user, device)));
        news
    }

    /// A device has stopped. Answers whether its user types no more: nowhere else either.
    pub fn stop(&mut self, chat: ChatId, user: UserId, device: DeviceId) -> bool {
        self.remove(chat, |typist| typist.user == user && typist.device == device).contains(&user)
    }

    /// The user left the chat.
    pub fn forget(&mut self, chat: ChatId, user: UserId) -> bool {
        self.remove(chat, |typist| typist.user == user).contains(&user)
    }

    /// Nobody here is in the chat any more.
    pub fn forget_chat(&mut self, chat: ChatId) {
        self.chats.remove(&chat);
    }

    /// When [`Typing::expire`] has something to do.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Instant> {
        self.timers.peek().map(|Reverse((until, ..))| *until)
    }

    /// Users who type no more because their time is over.
    pub fn expire(&mut self, now: Instant) -> Vec<(ChatId, UserId)> {
        let mut stopped = Vec::new();
        while let Some(Reverse((until, chat, user, device))) = self.timers.peek().copied() {
            if until > now {
                break;
            }
            self.timers.pop();
            let typists = self.chats.get_mut(&chat).map(|typists| &mut typists[..]);
            let typist = typists
                .unwrap_or_default()
                .iter_mut()
                .find(|t| t.user == user && t.device == device && t.armed == until);
            let Some(typist) = typist else { continue };
            if typist.until > now {
                typist.armed = typist.until;
                self.timers.push(Reverse((typist.until, chat, user, device)));
            } else if self.stop(chat, user, device) {
                stopped.push((chat, user));
            }
        }
        stopped
    }

    /// Users of whom nothing is left after removing.
    fn remove(&mut self, chat: ChatId, gone: impl Fn(&Typist) -> bool) -> Vec<UserId> {
        let Some(typists) = self.chats.get_mut(&chat) else { return Vec::new() };
        let removed: Vec<UserId> = typists.iter().filter(|t| gone(t)).map(|t| t.user).collect();
        typists.retain(|typist| !gone(typist));
        let over =
            removed.into_iter().filter(|user| !typists.iter().any(|t| t.user == *user)).collect();
        if typists.is_empty() {
            self.chats.remove(&chat);
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(5);

    #[test]
    fn two_devices_type_until_both_have_stopped() {
        let mut typing = Typing::default();
        let (chat, user) = (ChatId::generate(), UserId::generate());
        let (phone, laptop) = (DeviceId::generate(), DeviceId::generate());
        let now = Instant::now();
        assert!(typing.start(chat, user, phone, TTL, now));
        assert!(!typing.start(chat, user, laptop, TTL, now));
        assert!(!typing.stop(chat, user, phone));
        assert!(typing.stop(chat, user, laptop));
        assert!(!typing.stop(chat, user, laptop));
    }

    #[test]
    fn the_last_ping_counts() {
        let mut typing = Typing::default();
        let (chat, user, phone) = (ChatId::generate(), UserId::generate(), DeviceId::generate());
        let now = Instant::now();
        assert!(typing.start(chat, user, phone, TTL, now));
        assert!(!typing.start(chat, user, phone, TTL, now + Duration::from_secs(4)));
        assert!(typing.expire(now + Duration::from_secs(6)).is_empty());
        let due = typing.next_expiry();
        assert_eq!(due, Some(now + Duration::from_secs(9)));
        assert_eq!(typing.expire(now + Duration::from_secs(9)), [(chat, user)]);
        assert_eq!(typing.next_expiry(), None);
    }

    #[test]
    fn a_crowd_is_bounded() {
        let mut typing = Typing::default();
        let chat = ChatId::generate();
        let mut start =
            || typing.start(chat, UserId::generate(), DeviceId::generate(), TTL, Instant::now());
        let shown = (0..1000).filter(|_| start()).count();
        assert_eq!(shown, TYPISTS_MAX);
    }
}
