//! How many files may be under way at once, in all and of one user.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use natter_protocol::{error::WireError, ids::UserId};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{fault, measures::Limit};

/// How long to wait for a place.
const WAIT: Duration = Duration::from_secs(5);
/// When one that got none should come back, in milliseconds.
const RETRY_MS: u64 = 1_000;
/// One user may have this share of all places, but no fewer than [`LEAST`].
const SHARE: usize = 8;
const LEAST: usize = 4;

/// Places for what is under way. Cloning shares them.
#[derive(Clone)]
pub struct Places {
    all: Arc<Semaphore>,
    users: Arc<Mutex<HashMap<UserId, usize>>>,
    each: usize,
    what: Limit,
}

/// A place, until this is dropped.
pub struct Taken {
    _place: OwnedSemaphorePermit,
    of: UserId,
    users: Arc<Mutex<HashMap<UserId, usize>>>,
}

impl Places {
    /// So many, for what of each is there.
    pub fn new(count: u32, what: Limit) -> Self {
        let count = count as usize;
        let each = (count / SHARE).max(LEAST).min(count);
        Self { all: Arc::new(Semaphore::new(count)), users: Arc::default(), each, what }
    }

    /// One for this user.
    ///
    /// # Errors
    /// `rate_limited` when the user has too many, or there is none for a while.
    pub async fn take(&self, user: UserId) -> Result<Taken, WireError> {
        let busy = |message| fault::limited(self.what, message, RETRY_MS);
        {
            let mut users = lock(&self.users);
            let count = users.entry(user).or_default();
            if *count >= self.each {
                return Err(busy("too many files of one user at once"));
            }
            *count += 1;
        }
        // Counted from here on, also while it waits.
        let counted = Counted { of: user, users: &self.users, done: false };
        let place = timeout(WAIT, Arc::clone(&self.all).acquire_owned()).await;
        let Ok(Ok(place)) = place else { return Err(busy("too many files at once")) };
        Ok(counted.with(place))
    }
}

struct Counted<'a> {
    of: UserId,
    users: &'a Arc<Mutex<HashMap<UserId, usize>>>,
    done: bool,
}

impl Counted<'_> {
    fn with(mut self, place: OwnedSemaphorePermit) -> Taken {
        self.done = true;
        Taken { _place: place, of: self.of, users: Arc::clone(self.users) }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if !self.done {
            leave(self.users, self.of);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        leave(&self.users, self.of);
    }
}

fn leave(users: &Mutex<HashMap<UserId, usize>>, user: UserId) {
    let mut users = lock(users);
    if let Some(count) = users.get_mut(&user) {
        *count -= 1;
        if *count == 0 {
            users.remove(&user);
        }
    }
}

fn lock(users: &Mutex<HashMap<UserId, usize>>) -> MutexGuard<'_, HashMap<UserId, usize>> {
    users.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use natter_protocol::error::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn one_user_does_not_take_all_places() -> Result<(), WireError> {
        let places = Places::new(8, Limit::Uploads);
        let (ana, ben) = (UserId::generate(), UserId::generate());
        let mut taken = Vec::new();
        for _ in 0..LEAST {
            taken.push(places.take(ana).await?);
        }
        let refused = places.take(ana).await.err().map(|error| error.code);
        assert_eq!(refused, Some(ErrorCode::RateLimited));
        taken.push(places.take(ben).await?);
        taken.remove(0);
        taken.push(places.take(ana).await?);
        taken.clear();
        assert!(lock(&places.users).is_empty());
        Ok(())
    }
}
