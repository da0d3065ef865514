//! Which connections want to hear of whose presence. Pure.

use std::collections::{HashMap, HashSet};

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

    /// Who watches the user, who has these connections, or is watched by the user: each watcher
    /// with those that they watch.
    #[must_use]
    pub fn around(
        &self,
        user: UserId,
        connections: impl Iterator<Item = ConnectionId>,
    ) -> Vec<(UserId, Vec<UserId>)> {
        let watched = self.watched.get(&user).map(|watched| &watched.watchers[..]);
        let watchers = watched.unwrap_or_default().iter().map(|(other, _)| (*other, user));
        let watching = connections.filter_map(|connection| self.by_connection.get(&connection));
        let watching = watching.flatten().map(|other| (user, *other));
        let mut around: HashMap<UserId, HashSet<UserId>> = HashMap::new();
        for (watcher, other) in watchers.chain(watching) {
            around.entry(watcher).or_default().insert(other);
        }
        around.into_iter().map(|(watcher, users)| (watcher, users.into_iter().collect())).collect()
    }

    /// None of the user's connections hears of these any more.
    pub fn forget(&mut self, watcher: UserId, users: &[UserId]) -> Change {
        let mut change = Change::default();
        for user in users {
            let watched = self.watched.get(user).map(|watched| &watched.watchers[..]);
            let of = watched.unwrap_or_default().iter().filter(|(other, _)| *other == watcher);
            for connection in of.copied().collect::<Vec<_>>() {
                if let Some(watching) = self.by_connection.get_mut(&connection.1) {
                    watching.retain(|other| other != user);
                }
                change.unwatch.extend(self.remove(connection, *user));
            }
        }
        change
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

    #[test]
    fn whoever_shares_nothing_any_more_hears_nothing_any_more() {
        let mut watchers = Watchers::default();
        let [ana, ben, cleo] = [0; 3].map(|_| UserId::generate());
        let of = |user| (user, Feed::user(0, user));
        let (phone, tablet) = ((ana, ConnectionId::generate()), (ana, ConnectionId::generate()));
        watchers.subscribe(phone, &[of(ben), of(cleo)]);
        watchers.subscribe(tablet, &[of(ben)]);
        let bens = (ben, ConnectionId::generate());
        watchers.subscribe(bens, &[of(ana)]);
        let mut around = watchers.around(ben, [bens.1].into_iter());
        around.sort_by_key(|(watcher, _)| *watcher != ana);
        assert_eq!(around, [(ana, vec![ben]), (ben, vec![ana])]);
        assert_eq!(watchers.forget(ana, &[ben]).unwatch, [Feed::user(0, ben)]);
        assert!(watchers.changed(ben, true).is_empty());
        assert_eq!(watchers.changed(cleo, true), [phone]);
        assert_eq!(watchers.unsubscribe(phone).unwatch, [Feed::user(0, cleo)]);
        assert_eq!(watchers.unsubscribe(tablet), Change::default());
    }
}
