//! Receipts: how far participants have read their chats and their devices have got them; and what
//! each wants of a chat for themselves.
//!
//! Both go on the user's own feed, where the worker takes them from and the user's other devices
//! hear of reading, and to the other participants by a signal, which may be lost: the state is there
//! to ask for. In large chats nobody but the user themselves hears of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use natter_bus::{Bus, PublishError};
use natter_protocol::{
    client::Mark,
    error::{ErrorCode, WireError},
    feed::{Entry, Event, Feed, Origin, Signal},
    ids::{ChatId, Seq, UserId},
    rest::{Mute, ReceiptList, UnreadTotal},
    server::Chat,
    timestamp,
};
use natter_runtime::causes;
use natter_store::{Muting, OwnChange, Store, StoreError};
use time::{OffsetDateTime, UtcOffset};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    auth::Caller, chats::not_member, fault, hub::Hub, relay::Relay, room::Room, send::not_stored,
    text::bad_request,
};

/// What is known of a chat is asked for anew after this long.
const KNOWN: Duration = Duration::from_secs(30);
/// Chats that something is known of; beyond it all is forgotten.
const KNOWN_MOST: usize = 50_000;
/// Of one user and chat deliveries are published this often at most: the first at once.
const DELIVERIES_EVERY: Duration = Duration::from_secs(1);
/// Users and chats whose deliveries are gathered; beyond it each is published.
const DELIVERIES_MOST: usize = 100_000;

/// What Postgres knew of a chat a moment ago.
#[derive(Clone, Copy, Debug)]
struct Known {
    participants: u64,
    /// Its feed's last entry then.
    last: Seq,
    at: Instant,
}

/// How far the devices of a user have got a chat, of late.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    /// The user's own feed.
    own: Feed,
    chat: Feed,
    published: Seq,
    /// Beyond `published`: waits for its turn.
    furthest: Seq,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Reads {
    store: Store,
    bus: Bus,
    hub: Hub,
    relay: Relay,
    room: Room,
    /// Participants of the largest chats whose receipts are shown.
    most: u32,
    known: Arc<Mutex<HashMap<ChatId, Known>>>,
    deliveries: Arc<Mutex<HashMap<(UserId, ChatId), Delivery>>>,
}

impl Reads {
    /// `most` is how many participants a chat has at most whose receipts are shown.
    pub fn new(store: Store, bus: Bus, hub: Hub, relay: Relay, room: Room, most: u32) -> Self {
        let (known, deliveries) = (Arc::default(), Arc::default());
        Self { store, bus, hub, relay, room, most, known, deliveries }
    }

    /// The caller has read a chat up to a place: stored durably when this returns.
    ///
    /// # Errors
    /// `not_member`; `bad_request` for a place that the feed does not have; `unavailable`.
    pub async fn read(
        &self,
        caller: &Caller,
        mark: Mark,
        origin: Option<Origin>,
    ) -> Result<(), WireError> {
        let chat = self.feed_of(caller, mark.chat_id).await?;
        self.refuse_beyond(chat, mark).await?;
        // Reading goes forward: what the user's feed has told covers it.
        let read = self.hub.registry().read_to(caller.user_id, mark.chat_id);
        if read.is_some_and(|read| mark.seq <= read) {
            return Ok(());
        }
        let own = Feed::user(caller.user_shard, caller.user_id);
        let id = format!("read.{}.{}.{}", caller.user_id, mark.chat_id, mark.seq);
        self.publish(own, &id, Event::Read(mark), origin).await.map_err(not_stored)?;
        let signal = Signal::Read { user_id: caller.user_id, seq: mark.seq };
        self.show(chat, mark.chat_id, &signal).await;
        Ok(())
    }

    /// A device of the caller has got a chat up to a place. Of one user and chat the first is stored
    /// when this returns, those that follow within a second of its end.
    ///
    /// # Errors
    /// As [`Reads::read`].
    pub async fn delivered(&self, caller: &Caller, mark: Mark) -> Result<(), WireError> {
        let chat = self.feed_of(caller, mark.chat_id).await?;
        self.refuse_beyond(chat, mark).await?;
        let read = self.hub.registry().read_to(caller.user_id, mark.chat_id);
        if read.is_some_and(|read| mark.seq <= read) {
            return Ok(());
        }
        let own = Feed::user(caller.user_shard, caller.user_id);
        {
            let mut deliveries = self.deliveries();
            let whose = (caller.user_id, mark.chat_id);
            if let Some(delivery) = deliveries.get_mut(&whose) {
                delivery.furthest = delivery.furthest.max(mark.seq);
                return Ok(());
            }
            if deliveries.len() < DELIVERIES_MOST {
                let (published, furthest) = (mark.seq, mark.seq);
                deliveries.insert(whose, Delivery { own, chat, published, furthest });
            }
        }
        let published = self.publish_delivered(own, caller.user_id, mark).await;
        if published.is_err()
            && let Some(delivery) = self.deliveries().get_mut(&(caller.user_id, mark.chat_id))
        {
            // With those that have come meanwhile it is tried again.
            delivery.published = 0;
        }
        published.map_err(not_stored)?;
        let signal = Signal::Delivered { user_id: caller.user_id, seq: mark.seq };
        self.show(chat, mark.chat_id, &signal).await;
        Ok(())
    }

    /// How far the participants of a chat are.
    ///
    /// # Errors
    /// `not_member`; `forbidden` in chats that are too large; `unavailable`.
    pub async fn receipts(&self, caller: &Caller, chat: ChatId) -> Result<ReceiptList, WireError> {
        self.feed_of(caller, chat).await?;
        let (participants, _) = self.ask(chat).await.map_err(fault::store)?;
        if participants > u64::from(self.most) {
            let message = format!("receipts are shown in chats of at most {} people", self.most);
            return Err(WireError::new(ErrorCode::Forbidden, message));
        }
        let items = self.store.receipts(chat, self.most).await.map_err(fault::store)?;
        Ok(ReceiptList { items })
    }

    /// What is unread in all of the caller's chats.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn unread(&self, caller: &Caller) -> Result<UnreadTotal, WireError> {
        self.store.unread_total(caller.user_id).await.map_err(fault::store)
    }

    /// Mutes a chat for the caller.
    ///
    /// # Errors
    /// `bad_request` unless it is for ever or until a time to come; `not_member`; `unavailable`.
    pub async fn mute(&self, caller: &Caller, chat: ChatId, mute: Mute) -> Result<Chat, WireError> {
        let muting = muting(mute, OffsetDateTime::now_utc())?;
        let changed = self.store.mute(caller.user_id, chat, muting).await;
        self.changed(changed).await
    }

    /// Ends that.
    ///
    /// # Errors
    /// `not_member`; `unavailable`.
    pub async fn unmute(&self, caller: &Caller, chat: ChatId) -> Result<Chat, WireError> {
        let changed = self.store.mute(caller.user_id, chat, Muting::Ended).await;
        self.changed(changed).await
    }

    /// Hides a one-to-one from the caller until its next message.
    ///
    /// # Errors
    /// `forbidden` for a group; `not_member`; `unavailable`.
    pub async fn hide(&self, caller: &Caller, chat: ChatId) -> Result<Chat, WireError> {
        let feed = self.feed_of(caller, chat).await?;
        // What has been sent and is not written yet is no message to come.
        let reached = self.hub.registry().reached_to(feed).unwrap_or(0);
        let head = self.head(feed).await?;
        let changed = self.store.hide(caller.user_id, chat, head.max(reached)).await;
        self.changed(changed).await
    }

    /// Publishes deliveries that wait, every second, until dropped.
    pub async fn gather(self) {
        let mut tick = interval(DELIVERIES_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.publish_gathered().await;
        }
    }

    /// Publishes the deliveries that wait. Those that cannot be published wait on.
    pub async fn publish_gathered(&self) {
        let waiting: Vec<((UserId, ChatId), Delivery)> = {
            let mut deliveries = self.deliveries();
            // Quiet for a second: the next one is published at once.
            deliveries.retain(|_, delivery| delivery.published < delivery.furthest);
            deliveries.iter().map(|(whose, delivery)| (*whose, *delivery)).collect()
        };
        let mut publishing: FuturesUnordered<_> = waiting
            .into_iter()
            .map(async |((user, chat_id), delivery)| {
                let mark = Mark { chat_id, seq: delivery.furthest };
                let published = self.publish_delivered(delivery.own, user, mark).await;
                (user, mark, delivery.chat, published)
            })
            .collect();
        while let Some((user_id, mark, chat, published)) = publishing.next().await {
            let Mark { chat_id, seq } = mark;
            if let Err(error) = published {
                tracing::debug!(error = %causes(&error), "a delivery was not published");
                continue;
            }
            if let Some(delivery) = self.deliveries().get_mut(&(user_id, chat_id)) {
                delivery.published = delivery.published.max(seq);
            }
            self.show(chat, chat_id, &Signal::Delivered { user_id, seq }).await;
        }
    }

    async fn changed(&self, changed: Result<OwnChange, StoreError>) -> Result<Chat, WireError> {
        let OwnChange { chat, lane } = changed.map_err(|error| match error {
            StoreError::NotFound => not_member(),
            StoreError::Forbidden => {
                WireError::new(ErrorCode::Forbidden, "a group cannot be hidden, only left")
            }
            other => fault::store(other),
        })?;
        self.relay.lane(lane).await;
        Ok(chat)
    }

    /// The feed of a chat that the caller takes part in.
    async fn feed_of(&self, caller: &Caller, chat: ChatId) -> Result<Feed, WireError> {
        let known = self.hub.registry().membership(caller.user_id, chat);
        // Out of touch, a removal may not have been heard of.
        if let Some(feed) = known.filter(|feed| !self.hub.out_of_touch(feed.shard)) {
            return Ok(feed);
        }
        let member = self.store.membership(caller.user_id, chat).await.map_err(fault::store)?;
        member.map(|member| Feed::chat(member.shard, chat)).ok_or_else(not_member)
    }

    /// What came by here and what Postgres has tells for nearly all places that they are there; for
    /// the newest ones the log does.
    async fn refuse_beyond(&self, feed: Feed, mark: Mark) -> Result<(), WireError> {
        let Mark { chat_id, seq } = mark;
        if seq == 0 {
            return Err(bad_request("seq: the first place is 1"));
        }
        let seen = self.hub.registry().last_seen(feed).unwrap_or(0);
        let known = self.known().get(&chat_id).map_or(0, |known| known.last);
        if seq <= seen.max(known) {
            return Ok(());
        }
        // Without Postgres the log alone is asked.
        let written = self.ask(chat_id).await.map_or(0, |(_, last)| last);
        if seq <= written || seq <= self.head(feed).await? {
            return Ok(());
        }
        Err(bad_request("seq: beyond the chat's last entry"))
    }

    /// The feed's last entry in the log, by its leader; 0 where it has none.
    async fn head(&self, feed: Feed) -> Result<Seq, WireError> {
        let heads = self.bus.heads(&[feed]).await.map_err(|error| {
            tracing::debug!(error = %causes(&error), "where a feed ends");
            fault::unavailable("the log")
        })?;
        let head = heads.first().map_or(0, |(_, head)| *head);
        self.hub.registry().saw(feed, head);
        Ok(head)
    }

    async fn publish(
        &self,
        own: Feed,
        id: &str,
        event: Event,
        origin: Option<Origin>,
    ) -> Result<(), PublishError> {
        if self.room.full(own.shard) {
            return Err(PublishError::Full);
        }
        self.bus.publish(own, id, &Entry { origin, event })?.await.map(drop)
    }

    async fn publish_delivered(
        &self,
        own: Feed,
        user: UserId,
        mark: Mark,
    ) -> Result<(), PublishError> {
        let id = format!("delivered.{user}.{}.{}", mark.chat_id, mark.seq);
        self.publish(own, &id, Event::Delivered(mark), None).await
    }

    /// Shows it to the other participants, where the chat is not too large. It may be lost.
    async fn show(&self, feed: Feed, chat: ChatId, signal: &Signal) {
        let known = self.known().get(&chat).filter(|known| known.at.elapsed() < KNOWN).copied();
        let participants = match known {
            Some(known) => Ok(known.participants),
            None => self.ask(chat).await.map(|(participants, _)| participants),
        };
        // With Postgres away nobody knows, and it is not shown.
        if participants.is_ok_and(|participants| participants <= u64::from(self.most)) {
            let _ = self.bus.signal(feed, signal);
        }
    }

    /// What Postgres knows of a chat: how many take part, and its last entry.
    async fn ask(&self, chat: ChatId) -> Result<(u64, Seq), StoreError> {
        let (participants, last) = self.store.size(chat).await?.ok_or(StoreError::NotFound)?;
        let mut known = self.known();
        if known.len() >= KNOWN_MOST {
            known.clear();
        }
        known.insert(chat, Known { participants, last, at: Instant::now() });
        Ok((participants, last))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ChatId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliveries(&self) -> MutexGuard<'_, HashMap<(UserId, ChatId), Delivery>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn muting(mute: Mute, now: OffsetDateTime) -> Result<Muting, WireError> {
    match mute {
        Mute { until: None, forever: true } => Ok(Muting::Forever),
        Mute { until: Some(until), forever: false } => {
            let until = until.checked_to_offset(UtcOffset::UTC).map(timestamp::truncate);
            let until = until.ok_or_else(|| bad_request("until: beyond the year 9999"))?;
            if until <= now {
                return Err(bad_request("until: is over"));
            }
            Ok(Muting::Until(until))
        }
        Mute { .. } => Err(bad_request("until, forever: one of the two")),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_chat_is_muted_for_a_time_or_for_ever() -> anyhow::Result<()> {
        let now = datetime!(2030-01-01 00:00 UTC);
        let later = datetime!(2030-01-01 01:00:00.123456 UTC);
        let mute = |until, forever| muting(Mute { until, forever }, now);
        assert_eq!(mute(None, true)?, Muting::Forever);
        assert_eq!(
            mute(Some(later), false)?,
            Muting::Until(datetime!(2030-01-01 01:00:00.123 UTC))
        );
        let far = datetime!(9999-12-31 23:59:59 -01);
        for (until, forever) in
            [(None, false), (Some(later), true), (Some(now), false), (Some(far), false)]
        {
            let refused = mute(until, forever).map_err(|error| error.code);
            assert_eq!(refused, Err(ErrorCode::BadRequest), "{until:?} {forever}");
        }
        Ok(())
    }
}
