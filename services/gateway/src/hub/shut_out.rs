//! Users who were disabled, as their feeds tell. An entry may come late, once the user is enabled again: so
//! Postgres is asked whether somebody still is disabled, and only then do the connections end that were there
//! when the entry came. Whoever comes later asks by themselves.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use natter_protocol::{error::close, ids::UserId, server::ServerEvent};
use natter_runtime::causes;
use natter_store::Store;
use tokio::{sync::mpsc, time::timeout};

use super::frames::Shared;
use crate::{auth::disabled, outlet::Outlet};

/// Users who wait to be asked about; the connections of more end unasked.
const QUEUE: usize = 1024;
/// Questions under way at once.
const AT_ONCE: usize = 4;
/// How long Postgres may take.
const POSTGRES: Duration = Duration::from_secs(4);

/// Somebody who may be disabled, with the connections that end then.
struct Suspect {
    user: UserId,
    outlets: Vec<Arc<Outlet>>,
}

/// The way to the task that asks, which ends with it.
pub(super) struct ShutOut(mpsc::Sender<Suspect>);

impl ShutOut {
    pub(super) fn start(store: Store) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let suspects = stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Suspect>| {
            let suspect = receiver.recv().await?;
            Some((suspect, receiver))
        });
        tokio::spawn(async move {
            suspects.for_each_concurrent(AT_ONCE, |suspect| ask(&store, suspect)).await;
        });
        Self(sender)
    }

    /// The user's feed tells that they were disabled; these connections are theirs.
    pub(super) fn told(&self, user: UserId, outlets: Vec<Arc<Outlet>>) {
        if outlets.is_empty() {
            return;
        }
        // What the feed told is behind the node from here on: nobody else would find it there.
        for outlet in &outlets {
            outlet.doubt(true);
        }
        if let Err(error) = self.0.try_send(Suspect { user, outlets }) {
            end(&error.into_inner().outlets);
        }
    }
}

/// Where nobody can tell they end: whoever may come in comes back.
async fn ask(store: &Store, suspect: Suspect) {
    let Suspect { user, outlets } = suspect;
    match timeout(POSTGRES, store.is_shut_out(user)).await {
        Ok(Ok(false)) => outlets.iter().for_each(|outlet| outlet.doubt(false)),
        Ok(Ok(true)) => end(&outlets),
        Ok(Err(error)) => {
            tracing::warn!(%user, error = %causes(&error), "taken for disabled: nobody can tell");
            end(&outlets);
        }
        Err(_) => {
            tracing::warn!(%user, "taken for disabled: Postgres does not tell in time");
            end(&outlets);
        }
    }
}

fn end(outlets: &[Arc<Outlet>]) {
    let frame = Shared::new(&ServerEvent::Exception(&disabled()));
    for outlet in outlets {
        outlet.send(frame.clone());
        outlet.close(close::ACCOUNT_DISABLED);
    }
}

#[cfg(test)]
mod tests {
    use natter_store::StoreConfig;

    use super::*;

    #[tokio::test]
    async fn the_connections_of_somebody_whom_nobody_can_tell_of_end() {
        let nowhere = StoreConfig {
            acquire_timeout: Duration::from_millis(10),
            ..StoreConfig::new("postgres://natter@127.0.0.1:9/natter")
        };
        let shut_out = ShutOut::start(Store::connect(&nowhere).expect("a URL"));
        let outlets = [Outlet::new(8), Outlet::new(8)];
        shut_out.told(UserId::generate(), outlets.to_vec());
        for outlet in outlets {
            assert_eq!(outlet.ended().await, close::ACCOUNT_DISABLED);
            assert_eq!(outlet.waiting(), 1, "why it ends");
        }
    }
}
