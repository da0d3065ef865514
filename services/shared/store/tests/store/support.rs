//! What the stories need: a database, people, chats, a broker that only counts.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use natter_cluster::testing;
use natter_protocol::{
    feed::{Entry, Feed, MessageSent, SystemEvent, SystemKind},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    rest::{Device, User},
    server::UserCard,
};
use natter_store::{NewDevice, NewRefresh, NewUser, Row, RowKind, Store, StoreConfig};
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

pub const OWNER: &str = "worker-1";
pub const LEASE: Duration = Duration::from_mins(1);

/// A migrated database with one shard, owned by [`OWNER`].
pub async fn store() -> Result<Store> {
    store_at(&migrated().await?).await
}

/// A database that is migrated, for which this process migrates one, and copies it.
pub async fn migrated() -> Result<String> {
    testing::postgres_made(async |url| {
        Ok(Store::connect(&StoreConfig::new(url))?.migrate().await?)
    })
    .await
}

/// The same in this database.
pub async fn store_at(database: &str) -> Result<Store> {
    let store = Store::connect(&StoreConfig {
        // On a busy machine a new connection may take its time.
        acquire_timeout: Duration::from_secs(30),
        ..StoreConfig::new(database)
    })?;
    store.migrate().await?;
    store.ensure_shards(1).await?;
    store.start_epoch(0, 1, 1, None).await?;
    store.claim_shard(0, OWNER, LEASE).await?.context("free")?;
    Ok(store)
}

pub fn device(id: DeviceId) -> NewDevice {
    NewDevice { id, name: Some("phone".into()), platform: None, session: Uuid::now_v7() }
}

pub fn token(byte: u8) -> NewRefresh {
    NewRefresh { hash: [byte; 32], expires_at: OffsetDateTime::now_utc() + Duration::from_hours(1) }
}

/// Any token: a random hash.
pub fn some_token() -> NewRefresh {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    NewRefresh { hash, ..token(0) }
}

pub fn new_user(name: &str, email: Option<&str>, phone: Option<&str>) -> NewUser {
    NewUser {
        id: UserId::generate(),
        name: name.into(),
        phone: phone.map(Into::into),
        email: email.map(Into::into),
        password_hash: "$argon2id$".into(),
        shard: 0,
        device: device(DeviceId::generate()),
        refresh: some_token(),
    }
}

/// A user without phone and e-mail.
pub async fn person(store: &Store, name: &str) -> Result<UserId> {
    let (user, _) = registered(store, name).await?;
    Ok(user.id)
}

pub async fn registered(store: &Store, name: &str) -> Result<(User, Device)> {
    Ok(store.create_user(&new_user(name, None, None)).await?)
}

pub fn at(seq: Seq) -> OffsetDateTime {
    datetime!(2030-01-01 00:00 UTC) + Duration::from_secs(seq)
}

pub fn message(chat: ChatId, sender: UserId, seq: Seq, client: &str, content: &str) -> Row {
    Row {
        feed: Feed::chat(0, chat),
        seq,
        at: at(seq),
        kind: RowKind::Message(MessageSent {
            id: MessageId::derive(chat, sender, client),
            sender: UserCard { id: sender, name: "as it was then".into(), bot: false },
            device_id: None,
            content: content.into(),
            replaced: false,
            media: None,
            client_msg_id: client.into(),
            reply_to: None,
            quote: None,
            mentions: Vec::new(),
        }),
    }
}

pub fn system(chat: ChatId, actor: UserId, seq: Seq, msg: &str) -> Row {
    Row {
        feed: Feed::chat(0, chat),
        seq,
        at: at(seq),
        kind: RowKind::System(
            SystemEvent::new(SystemKind::Joined, actor, 2, msg.into()).about(actor),
        ),
    }
}

pub fn void(chat: ChatId, seq: Seq) -> Row {
    Row {
        feed: Feed::chat(0, chat),
        seq,
        at: at(seq),
        kind: RowKind::Void { reason: "not\0JSON".into() },
    }
}

/// Writes rows as the next batch.
pub async fn persist(store: &Store, rows: &[Row]) -> Result<()> {
    let (from, _) = store.persisted_until(0).await?;
    let to = rows.iter().map(|row| row.seq).max().unwrap_or(from);
    store.persist(0, OWNER, from, to, at(to), rows).await?;
    Ok(())
}

/// Numbers what it is given, the same message id always the same: what a relay needs of a
/// broker. Fails at a call that the test names.
#[derive(Default)]
pub struct Broker {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    calls: usize,
    fail_at: Option<usize>,
    log: Vec<(Feed, String, Entry)>,
    places: HashMap<String, Seq>,
}

#[derive(Debug, thiserror::Error)]
#[error("the broker is away")]
pub struct Away;

impl Broker {
    /// Fails once, at this call from now on, counted from 0.
    pub fn fail_at(&self, call: usize) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.fail_at = Some(state.calls + call);
    }

    pub fn publish(&self, feed: Feed, id: String, entry: Entry) -> Result<Seq, Away> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let call = state.calls;
        state.calls += 1;
        if state.fail_at == Some(call) {
            state.fail_at = None;
            return Err(Away);
        }
        if let Some(place) = state.places.get(&id) {
            return Ok(*place);
        }
        let place = 100 + state.log.len() as Seq;
        state.places.insert(id.clone(), place);
        state.log.push((feed, id, entry));
        Ok(place)
    }

    /// What is stored, in order, each with its place.
    pub fn stored(&self) -> Vec<(Seq, Feed, Entry)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let places = state.log.iter().map(|(feed, id, entry)| {
            let place = state.places.get(id).copied().unwrap_or(0);
            (place, *feed, entry.clone())
        });
        places.collect()
    }
}

/// Relays a lane through the broker.
pub async fn relay(
    store: &Store,
    broker: &Broker,
    lane: Uuid,
) -> Result<natter_store::Relayed, natter_store::RelayError<Away>> {
    store.relay(lane, async |feed, id, entry| broker.publish(feed, id, entry)).await
}
