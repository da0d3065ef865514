//! Which connections want to hear of whose presence. Pure.

use std::collections::HashMap;

use natter_protocol::{
    feed::Feed,
    ids::{ConnectionId, UserId},
};

/// A connection, by its user and id.
pub type Watcher = (UserId, ConnectionId);

#[derive(Debug)]
struct Watched {
    feed: Feed,
    watchers: Vec<Watcher>,
    /// What they were told last; the answer to the subscription does not count, since a change
    /// may have come in between.
    online: Option<bool>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Watchers {
    watched: HashMap<UserId, Watched>,
    by_connection: HashMap<ConnectionId, Vec<UserId>>,
}

/// What to listen to from now on, and what no more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Feeds whose signals are wanted.
    pub watch: Vec<Feed>,
    /// Feeds whose signals are wanted no more.
    pub unwatch: Vec<Feed>,
}

impl Watchers {
    /// The connection wants to hear of these users, instead of those before.
    pub fn subscribe(&mut self, watcher: Watcher, users: &[(UserId, Feed)]) -> Change {
        let mut change = Change::default();
        let before = self.by_connection.remove(&watcher.1).unwrap_or_default();
        for &(user, feed) in users {
            let watched = self.watched.entry(user).or_insert_with(|| {
                change.watch.push(feed);
                Watched { feed, watchers: Vec::new(), online: None }
            });
            if !watched.watchers.contains(&watcher) {
                watched.watchers.push(watcher);
            }
        }
        let now: Vec<UserId> = users.iter().map(|(user, _)| *user).collect();
        for user in before.iter().filter(|user| !now.contains(user)) {
            change.unwatch.extend(self.remove(watcher, *user));
        }
        if !now.is_empty() {
            self.by_connection.insert(watcher.1, now);
        }
        change
    }

    /// The connection is gone.
    pub fn unsubscribe(&mut self, watcher: Watcher) -> Change {
        self.subscribe(watcher, &[])
    }

    /// Takes in that the user is online, or is not. Answers who must be told.
    pub fn changed(&mut self, user: UserId, online: bool) -> Vec<Watcher> {
        match self.watched.get_mut(&user) {
            Some(watched) if watched.online != Some(online) => {
                watched.online = Some(online);
                watched.watchers.clone()
            }
            _ => Vec::new(),
        }
    }

    /// All users that somebody watches.
    #[must_use]
    pub fn users(&self) -> Vec<UserId> {
        self.watched.keys().copied().collect()
    }

    fn remove(&mut self, watcher: Watcher, user: UserId) -> Option<Feed> {
        let watched = self.watched.get_mut(&user)?;
        watched.watchers.retain(|other| *other != watcher);
        if !watched.watchers.is_empty() {
            return None;
        }
        self.watched.remove(&user).map(|watched| watched.feed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_watched_while_anybody_wants_it_and_only_changes_are_told() {
        let mut watchers = Watchers::default();
        let ben = UserId::generate();
        let feed = Feed::user(0, ben);
        let one = (UserId::generate(), ConnectionId::generate());
        let two = (UserId::generate(), ConnectionId::generate());
        assert_eq!(watchers.subscribe(one, &[(ben, feed)]).watch, [feed]);
        assert_eq!(watchers.subscribe(two, &[(ben, feed)]), Change::default());
        assert_eq!(watchers.changed(ben, true), [one, two]);
        assert!(watchers.changed(ben, true).is_empty());
        assert_eq!(watchers.changed(ben, false), [one, two]);
        assert_eq!(watchers.unsubscribe(one), Change::default());
        assert_eq!(watchers.unsubscribe(two).unwatch, [feed]);
        assert!(watchers.users().is_empty());
    }
}
