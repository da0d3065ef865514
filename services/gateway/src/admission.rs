//! Letting connections in: at a bounded pace, and for a while also without Postgres.
//!
//! While a device is connected its node keeps in Redis what another needs to let it in: the login,
//! the chats, and the place on the user's own feed up to which that is true. Whoever admits by it
//! reads that feed on from there, as with facts from Postgres, so memberships and revocations
//! since are applied. So does a chat whose own feed tells that the user has left, and the user's
//! does not yet: then nobody is let in. What has been committed and is on no feed yet is not seen.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use natter_protocol::{
    error::{ErrorCode, WireError},
    feed::{Entry, Event, Feed},
    ids::{ChatId, DeviceId, Seq, Shard, UserId},
};
use natter_runtime::causes;
use natter_store::{Followed, FollowedChat};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, SemaphorePermit, mpsc},
    time::{sleep, timeout},
};
use uuid::Uuid;

use crate::{
    app::App,
    auth::{Caller, Refusal, Verified, disabled, refused},
    fault,
    hub::{Ask, Standing},
    measures,
    replay::{self, Viewer},
};

/// How long Postgres may take before it counts as away. A server that hangs says nothing.
const POSTGRES: Duration = Duration::from_secs(4);
/// Entries of a user's own feed that are read at once, and how often, before it is too much.
const READ: usize = 256;
const READS: usize = 32;

/// Leavings are relayed so often before a handshake is given up, with pauses.
const RELAYS: usize = 20;
const RELAY_PAUSE: Duration = Duration::from_millis(100);
/// What is kept is renewed so often at least: whoever admits by it has to find in the log what the
/// user's feed has told since.
const KEEP_EVERY: Duration = Duration::from_mins(5);

/// Chats that are read at once for one admission.
const READING: usize = 8;

/// Devices whose facts wait to be kept; more are passed over until their next turn.
const QUEUE: usize = 16 * 1024;
/// Facts on their way to Redis at once.
const KEEPING: usize = 8;

/// The admissions of a node. Cloning shares them.
#[derive(Clone)]
pub struct Admissions {
    turn: Arc<Semaphore>,
    keep: mpsc::Sender<Viewer>,
    /// How old what is kept may be; zero for not keeping anything.
    bound: Duration,
}

/// What is kept of a connected device.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    user: UserId,
    device: DeviceId,
    name: String,
    #[serde(default)]
    bot: bool,
    shard: Shard,
    session: Option<Uuid>,
    /// True up to this place of the user's own feed.
    own: Seq,
    chats: Vec<KeptChat>,
    /// Those of them to which nobody can write, since one has blocked the other.
    #[serde(default)]
    shut: Vec<ChatId>,
}

/// A chat in which the user took part.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct KeptChat {
    id: ChatId,
    shard: Shard,
    /// Since this entry of its feed …
    from: Seq,
    /// … and still up to this one.
    at: Seq,
}

impl KeptChat {
    fn new(feed: Feed, from: Seq, at: Seq) -> Option<Self> {
        Some(Self { id: feed.chat_id()?, shard: feed.shard, from, at })
    }

    fn feed(&self) -> Feed {
        Feed::chat(self.shard, self.id)
    }
}

/// Somebody who may come in.
pub struct Admitted {
    /// Who.
    pub caller: Caller,
    /// What was kept, where Postgres was not asked.
    kept: Option<Facts>,
}

impl Admissions {
    /// So many at once, by what is kept for so long; and what is to be kept, for [`keep_all`].
    #[must_use]
    pub fn new(at_once: u32, bound: Duration) -> (Self, Keeping) {
        let (keep, keeping) = mpsc::channel(QUEUE);
        (Self { turn: Arc::new(Semaphore::new(at_once as usize)), keep, bound }, Keeping(keeping))
    }

    /// Waits for a turn. A storm of clients meets Postgres and the broker at this width.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turn.acquire().await.ok()
    }

    /// How often a connected device's facts are kept anew; `None` for never.
    #[must_use]
    pub fn keep_every(&self) -> Option<Duration> {
        (!self.bound.is_zero()).then(|| (self.bound / 3).min(KEEP_EVERY))
    }

    /// Who shows this token. While Postgres is away, by what was kept of the device.
    ///
    /// # Errors
    /// As [`crate::auth::Auth::authenticate`].
    pub async fn authenticate(&self, app: &App, token: &str) -> Result<Admitted, WireError> {
        let verified = app.auth.verify(token).await?;
        match within(app.auth.admit(verified.clone())).await {
            Ok(caller) => Ok(Admitted { caller, kept: None }),
            Err(error) if error.code == ErrorCode::Unavailable => {
                self.by_what_is_kept(app, &verified).await.ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    async fn by_what_is_kept(&self, app: &App, verified: &Verified) -> Option<Admitted> {
        let key = verified.device_key();
        let facts = self.kept(app, key).await?;
        let Facts { user: user_id, device: device_id, session, shard: user_shard, .. } = facts;
        // One of another login may be newer than what was kept: Postgres would know.
        verified.may_be(user_id, device_id, session).then(|| {
            measures::admissions_kept().increment(1);
            let (name, expires_at) = (facts.name.clone(), verified.expires_at());
            let bot = facts.bot;
            let caller =
                Caller { user_id, device_id, key, name, bot, user_shard, session, expires_at };
            Admitted { caller, kept: Some(facts) }
        })
    }

    async fn kept(&self, app: &App, key: Uuid) -> Option<Facts> {
        if self.bound.is_zero() {
            return None;
        }
        match app.presence.kept_admission(key).await {
            Ok(kept) => serde_json::from_slice(&kept?).ok(),
            Err(error) => {
                tracing::debug!(error = %causes(&error), "nothing is known of a device");
                None
            }
        }
    }

    /// What the user follows. A chat that the user has left is relayed first, if it has not been:
    /// until the user's feed tells where it ended, it can neither be followed (what is said after
    /// the end would be told) nor be left out (what was said before would not).
    ///
    /// # Errors
    /// `unavailable` when neither Postgres nor what was kept can tell, or a leaving cannot be
    /// relayed.
    pub async fn followed(&self, app: &App, admitted: &Admitted) -> Result<Followed, WireError> {
        let user = admitted.caller.user_id;
        let Some(kept) = &admitted.kept else {
            for _ in 0..RELAYS {
                let asked = async { app.store.followed(user).await.map_err(fault::store) };
                let followed = within(asked).await?;
                if followed.leaving.is_empty() {
                    return Ok(followed);
                }
                for lane in followed.leaving {
                    app.relay.lane(lane).await;
                }
                // Somebody else may have it in hand.
                sleep(RELAY_PAUSE).await;
            }
            return Err(fault::unavailable("the log"));
        };
        let chat = |chat: &KeptChat| FollowedChat {
            id: chat.id,
            shard: chat.shard,
            from_seq: Some(chat.from),
            last_seq: 0,
        };
        Ok(Followed {
            user_shard: kept.shard,
            name: kept.name.clone(),
            chats: kept.chats.iter().map(chat).collect(),
            user_last_seq: kept.own,
            leaving: Vec::new(),
            persisted: Vec::new(),
            shut: kept.shut.clone(),
        })
    }

    /// That the device is still what the token says, now that its user's feeds are followed, and
    /// stand like this: it may have been revoked or signed out between the look at it and that.
    /// Whatever is revoked from here on comes by the feed. The same for the chats, where Postgres
    /// was not asked.
    ///
    /// # Errors
    /// `unauthenticated` when it is not; `account_disabled`; `unavailable` when nobody can tell.
    pub async fn confirm(
        &self,
        app: &App,
        admitted: &Admitted,
        standing: &Standing,
    ) -> Result<(), WireError> {
        let Caller { user_id, device_id, session, .. } = admitted.caller;
        let sound = if let Some(kept) = &admitted.kept {
            if parted_since(app, user_id, kept, standing).await? {
                return Err(fault::unavailable("the database"));
            }
            !revoked_since(app, &admitted.caller, kept).await?
        } else {
            let state = app.store.device_state(user_id, device_id);
            let state = within(async { state.await.map_err(fault::store) }).await?;
            if state.as_ref().is_some_and(|state| state.disabled) {
                return Err(disabled());
            }
            state.is_some_and(|state| {
                !state.revoked && (session.is_none() || session == state.session)
            })
        };
        if sound { Ok(()) } else { Err(refused(Refusal::Device, "the device was revoked")) }
    }

    /// Keeps, soon, what lets the device in elsewhere. It may fail: then what was kept before
    /// stays, and the device may have to wait for Postgres.
    pub fn keep(&self, viewer: Viewer) {
        if self.keep.try_send(viewer).is_err() {
            measures::admissions_not_kept().increment(1);
        }
    }
}

/// Devices whose facts are to be kept.
pub struct Keeping(mpsc::Receiver<Viewer>);

/// Keeps what is to be kept. Runs until dropped.
pub async fn keep_all(app: App, keeping: Keeping) {
    let viewers = stream::unfold(keeping, async |mut keeping| {
        let viewer = keeping.0.recv().await?;
        Some((viewer, keeping))
    });
    viewers.for_each_concurrent(KEEPING, |viewer| keep(&app, viewer)).await;
}

/// As this node knows it now.
async fn keep(app: &App, viewer: Viewer) {
    let Ok(standing) = replay::standing(app, viewer.user).await else { return };
    // A chat that has ended, as its feed tells, must not be missing where the user's own does not tell
    // so yet: what was said before the end would never be told.
    if !standing.left.is_empty() {
        return;
    }
    let facts = {
        let registry = app.hub.registry();
        // One that has just been revoked or disabled, say, must not be let in by what is kept.
        let here = registry.connection(viewer.user, viewer.connection);
        let Some(user) = registry.user(viewer.user) else { return };
        if !here.is_some_and(|connection| connection.outlet.vouches()) {
            return;
        }
        Facts {
            user: viewer.user,
            device: viewer.device,
            name: user.name.to_string(),
            bot: viewer.bot,
            shard: viewer.feed.shard,
            session: viewer.session,
            own: standing.at.position(viewer.feed),
            chats: standing
                .chats
                .iter()
                .filter_map(|(feed, from)| KeptChat::new(*feed, *from, standing.at.position(*feed)))
                .collect(),
            // What the user's feed has told beyond the standing is applied again, which does no harm.
            shut: registry.shut(viewer.user).to_vec(),
        }
    };
    let Ok(facts) = serde_json::to_vec(&facts) else { return };
    let bound = app.admissions.bound;
    if let Err(error) = app.presence.keep_admission(viewer.key, &facts, bound).await {
        tracing::debug!(error = %causes(&error), "what lets a device in is not kept");
    }
}

async fn within<T>(asking: impl Future<Output = Result<T, WireError>>) -> Result<T, WireError> {
    timeout(POSTGRES, asking).await.unwrap_or_else(|_| Err(fault::unavailable("the database")))
}

/// Whether the user's feed tells, beyond what was kept, that the device was revoked or the account
/// disabled (and maybe enabled since, which only Postgres knows). A node that
/// follows the feed for another device has passed that by.
async fn revoked_since(app: &App, caller: &Caller, kept: &Facts) -> Result<bool, WireError> {
    let feed = Feed::user(kept.shard, caller.user_id);
    any_since(app, feed, kept.own, |event| match event {
        Event::DeviceRevoked(revoked) => {
            (revoked.device_id, revoked.session) == (caller.device_id, caller.session)
        }
        Event::Disabled => true,
        _ => false,
    })
    .await
}

/// Whether one of the chats tells, beyond what was kept, that the user's part in it has ended, and
/// the user's own feed may not do so yet: the end is relayed to the chat first, and without
/// Postgres that may be all for a while. To be asked when the chats are followed: an end that comes
/// later is heard of.
async fn parted_since(
    app: &App,
    user: UserId,
    kept: &Facts,
    standing: &Standing,
) -> Result<bool, WireError> {
    // Heard of here already: then the standing does not go along with that feed any more, and is
    // no answer to how far it is.
    if !standing.left.is_empty() {
        return Ok(true);
    }
    let ask = |chat: &KeptChat| {
        let (feed, since) = (chat.feed(), chat.at);
        let until = standing.at.position(feed);
        (since < until).then_some(Ask { feed, since, until, known: None })
    };
    let moved_feeds = replay::moved(app, kept.chats.iter().filter_map(ask).collect()).await?;
    let chats = kept.chats.iter().map(|chat| (chat.feed(), chat.at));
    let asked: Vec<BoxFuture<'_, Result<bool, WireError>>> = chats
        .filter(|(feed, _)| moved_feeds.contains(feed))
        .map(|(feed, at)| any_since(app, feed, at, move |event| event.ends_part_of(user)).boxed())
        .collect();
    let mut answers = stream::iter(asked).buffer_unordered(READING);
    while let Some(ended) = answers.try_next().await? {
        if ended {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the feed has such an event after this entry.
async fn any_since(
    app: &App,
    feed: Feed,
    kept: Seq,
    such: impl Fn(&Event) -> bool + Send,
) -> Result<bool, WireError> {
    let away = |error: natter_bus::BusError| {
        tracing::debug!(error = %causes(&error), "what happened since a device was kept");
        fault::unavailable("the log")
    };
    let mut after = kept;
    for _ in 0..READS {
        let entries = app.bus.read(feed, after, READ).await.map_err(away)?;
        let more = entries.len() >= READ;
        for stored in entries {
            after = stored.seq;
            if let Ok(Entry { event, .. }) = stored.entry()
                && such(&event)
            {
                return Ok(true);
            }
        }
        if !more {
            // Looked at last: a cut may come while the log is read.
            let log = app.bus.log_state(feed.shard).await.map_err(away)?;
            return match log {
                Some(log) if log.first_seq <= kept + 1 => Ok(false),
                Some(_) | None => Err(fault::unavailable("the database")),
            };
        }
    }
    Err(fault::unavailable("the database"))
}
