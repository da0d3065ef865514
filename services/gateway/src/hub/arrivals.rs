//! Connections that come and go: what a user's first one here needs is followed before it begins.

use std::sync::Arc;

use natter_bus::follow::Start;
use natter_protocol::{
    cursor::Cursor,
    error::close,
    feed::Feed,
    ids::{ConnectionId, DeviceId, Seq, UserId},
};
use natter_store::Followed;
use tokio::sync::oneshot;

use super::{Attach, FanOut, Standing, send_elsewhere};
use crate::outlet::Outlet;

/// A user's connections that wait until everything is followed.
pub(super) struct Admission {
    user: UserId,
    left: usize,
    waiting: Vec<oneshot::Sender<Option<Standing>>>,
}

impl FanOut {
    pub(super) fn attach(&mut self, attach: Attach) {
        let Attach { user, name, feed, connection, snapshot, admitted } = attach;
        let known = self.read().user(user).is_some();
        if !known && snapshot.is_none() {
            let _ = admitted.send(None);
            return;
        }
        self.make_room(user, connection.device);
        if let Some(spread) = self.draining {
            send_elsewhere(&connection.outlet, spread);
        }
        let device = connection.device;
        if !self.read().has_device(user, device) {
            self.online.connected(user, device, feed.shard);
        }
        self.write().connect(user, &name, feed, connection);
        if let (false, Some(snapshot)) = (known, snapshot) {
            self.admit(user, feed, &snapshot);
        }
        match self.admitting.get(&user).and_then(|id| self.admissions.get_mut(id)) {
            Some(admission) => admission.waiting.push(admitted),
            None => drop(admitted.send(Some(self.standing(user)))),
        }
    }

    /// Closes the oldest connections of a device that has too many.
    fn make_room(&self, user: UserId, device: DeviceId) {
        let registry = self.read();
        let Some(user) = registry.user(user) else { return };
        let open: Vec<_> = user
            .connections
            .iter()
            .filter(|other| other.device == device && !other.outlet.closed())
            .collect();
        let excess = (open.len() + 1).saturating_sub(self.settings.connections_per_device);
        for connection in open.into_iter().take(excess) {
            connection.outlet.close(close::TOO_MANY_CONNECTIONS);
        }
    }

    /// Follows what the snapshot tells. The snapshot was taken before the feeds are followed:
    /// what the user's feed told in between is delivered after it, and is idempotent. It is read
    /// to its end, so that a chat that the snapshot has is one that the user has been told of: on
    /// this a cursor relies. A chat is followed from the log's end: its past is history.
    ///
    /// Until then the user arrives: somebody who has been removed from a chat since the snapshot
    /// gets nothing of it, and what the others get lies before where the connection begins.
    fn admit(&mut self, user: UserId, feed: Feed, snapshot: &Followed) {
        // Nothing of it lies between its last entry and the end of what Postgres has.
        let persisted = snapshot.persisted.iter().find(|(shard, _)| *shard == feed.shard);
        let own = snapshot.user_last_seq.max(persisted.map_or(0, |(_, seq)| *seq));
        let mut follow = vec![(feed, Start::After(own))];
        {
            let mut registry = self.write();
            registry.expect_chats(user, snapshot.chats.len());
            for chat in &snapshot.chats {
                // Without it the outbox has not relayed it yet, and the user's feed will tell.
                let Some(from) = chat.from_seq else { continue };
                let chat_feed = Feed::chat(chat.shard, chat.id);
                registry.join(user, chat.id, chat_feed, from);
                follow.push((chat_feed, Start::Now));
            }
            for chat in &snapshot.shut {
                registry.set_shut(user, *chat, true);
            }
        }
        let id = self.next_admission;
        self.next_admission += 1;
        let mut left = 0;
        for (feed, start) in follow {
            if !self.follower.following(feed) {
                self.follower.follow(feed, start);
                self.starting.entry(feed).or_default().push(id);
                left += 1;
            }
        }
        if left > 0 {
            self.write().set_arriving(user, true);
            self.admissions.insert(id, Admission { user, left, waiting: Vec::new() });
            self.admitting.insert(user, id);
        }
    }

    pub(super) fn on_following(&mut self, feed: Feed, at: Seq) {
        self.read().followed(feed, at);
        self.admitted_to(feed);
    }

    pub(super) fn standing(&self, user: UserId) -> Standing {
        let registry = self.read();
        let places: Vec<_> = registry.positions(user).collect();
        let chats = registry.chats_of(user).map(|(chat, from)| (chat.feed, from));
        Standing {
            at: Cursor::standing(&self.bases, &places),
            chats: chats.collect(),
            left: registry.left(user).to_vec(),
        }
    }

    /// Admissions that wait for the feed wait for one less.
    pub(super) fn admitted_to(&mut self, feed: Feed) {
        for id in self.starting.remove(&feed).unwrap_or_default() {
            let Some(admission) = self.admissions.get_mut(&id) else { continue };
            admission.left -= 1;
            if admission.left == 0
                && let Some(admission) = self.admissions.remove(&id)
            {
                self.admitting.remove(&admission.user);
                self.write().set_arriving(admission.user, false);
                let standing = self.standing(admission.user);
                for admitted in admission.waiting {
                    let _ = admitted.send(Some(standing.clone()));
                }
            }
        }
    }

    pub(super) fn detach(&mut self, user: UserId, connection: ConnectionId, outlet: &Arc<Outlet>) {
        let going = {
            let registry = self.read();
            let going = registry.connection(user, connection);
            // One that has moved is there still, with another outlet.
            going.filter(|going| Arc::ptr_eq(&going.outlet, outlet)).map(|going| going.device)
        };
        if going.is_none() {
            return;
        }
        let shard = self.read().user(user).map(|user| user.feed.shard);
        let orphans = self.write().disconnect(user, connection);
        if let (Some(device), Some(shard)) = (going, shard)
            && !self.read().has_device(user, device)
        {
            self.online.disconnected(user, device, shard);
        }
        let change = self.watchers.unsubscribe((user, connection));
        self.watch(change);
        if !orphans.is_empty() {
            if let Some(id) = self.admitting.remove(&user) {
                self.admissions.remove(&id);
            }
            self.unfollow(orphans);
        }
    }
}
