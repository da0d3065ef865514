//! A shard with a chat of two, and what a test needs to follow it.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use async_nats::Subscriber;
use futures::StreamExt;
use natter_bus::{Bus, BusConfig, LogConfig, Raw, subjects};
use natter_cluster::testing::{self, Fresh};
use natter_persistence::{
    ahead::Horizon,
    config::WorkerConfig,
    migrate,
    outbox::Sweeper,
    owner::{Owner, Stepped},
};
use natter_protocol::{
    feed::{Digest, Entry, Event, Feed, MessageSent},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    server::{Message, UserCard},
};
use natter_runtime::{LogFormat, TelemetryArgs, telemetry};
use natter_store::{NewDevice, NewRefresh, NewUser, Page, ShardRow, Store, StoreConfig};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct World {
    pub nats: Fresh,
    pub store: Store,
    pub bus: Bus,
    pub raw_nats: async_nats::Client,
    pub ada: UserCard,
    pub grace: UserCard,
    pub chat: Feed,
}

impl World {
    /// Migrated, with a chat of Ada and Grace whose first entries wait in the outbox.
    pub async fn new() -> Result<Self> {
        let migrate = async |url| Ok(Store::connect(&StoreConfig::new(url))?.migrate().await?);
        let database = testing::postgres_made(migrate).await?;
        Self::on(&database).await
    }

    pub async fn on(database: &str) -> Result<Self> {
        show_logs();
        let nats = testing::nats_fresh().await?;
        let store = Store::connect(&StoreConfig::new(database))?;
        let bus = Bus::connect(&BusConfig::new(nats.url(), "test")).await?;
        migrate::migrate(&store, &bus, 1, &log_config(), PATIENCE).await?;
        // Again: it changes nothing.
        migrate::migrate(&store, &bus, 1, &log_config(), PATIENCE).await?;
        let raw_nats = async_nats::connect(nats.url()).await?;
        let ada = register(&store, "Ada").await?;
        let grace = register(&store, "Grace").await?;
        let made = store.create_group(ada.id, Some("Engines"), false, &[grace.id], 0).await?;
        let chat = Feed::chat(made.shard, made.chat);
        Ok(Self { nats, store, bus, raw_nats, ada, grace, chat })
    }

    pub async fn row(&self) -> Result<ShardRow> {
        let mut rows = self.store.shards().await?;
        rows.pop().context("no shard")
    }

    pub async fn owner(&self) -> Result<Owner> {
        self.owner_who_saw(&Horizon::default()).await
    }

    /// One of a worker that has read so far already.
    pub async fn owner_who_saw(&self, horizon: &Horizon) -> Result<Owner> {
        let taken = Owner::take(&self.store, &self.bus, &config("worker"), 0, horizon).await?;
        taken.context("it is another's")
    }

    pub async fn relay_outbox(&self) -> usize {
        self.sweep(&mut Sweeper::default(), 256).await
    }

    /// The next lanes of the outbox, however short they have waited.
    pub async fn sweep(&self, sweeper: &mut Sweeper, lanes: u32) -> usize {
        let stop = CancellationToken::new();
        sweeper.sweep(&self.store, &self.bus, Duration::ZERO, lanes, &stop).await
    }

    pub async fn send(&self, text: &str) -> Result<Seq> {
        let (msg_id, entry) = self.message(self.chat, text);
        Ok(self.bus.publish(self.chat, &msg_id, &entry)?.await?.seq)
    }

    pub fn message(&self, chat: Feed, text: &str) -> (String, Entry) {
        let client_msg_id = Uuid::now_v7().to_string();
        let sender = self.ada.clone();
        let msg_id = format!("{}.{}.{client_msg_id}", chat.id, sender.id);
        let event = Event::Message(MessageSent {
            id: MessageId::derive(ChatId(chat.id), sender.id, &client_msg_id),
            sender,
            device_id: None,
            content: text.to_owned(),
            replaced: false,
            media: None,
            client_msg_id,
            reply_to: None,
            quote: None,
            mentions: Vec::new(),
        });
        (msg_id, Entry { origin: None, event })
    }

    /// Whatever, wherever.
    pub async fn publish_raw(&self, subject: String, body: impl Into<Vec<u8>>) -> Result<Seq> {
        let raw = Raw {
            feed: None,
            subject,
            seq: 0,
            at: OffsetDateTime::UNIX_EPOCH,
            body: body.into().into(),
            traceparent: None,
            msg_id: None,
        };
        Ok(self.bus.publish_again(&raw)?.await?.seq)
    }

    /// The chat's messages that Postgres has, without system entries.
    pub async fn history(&self) -> Result<Vec<Message>> {
        let page = Page { before: None, after: None, limit: 200 };
        let slice = self.store.history(ChatId(self.chat.id), page).await?;
        Ok(slice.messages.into_iter().filter(|message| message.system.is_none()).collect())
    }

    pub async fn texts(&self) -> Result<Vec<String>> {
        Ok(self.history().await?.into_iter().map(|message| message.content).collect())
    }

    /// The same, however many.
    pub async fn all_texts(&self) -> Result<Vec<String>> {
        let (mut texts, mut after) = (Vec::new(), 0);
        loop {
            let page = Page { before: None, after: Some(after), limit: 200 };
            let slice = self.store.history(ChatId(self.chat.id), page).await?;
            let messages = slice.messages.into_iter().filter(|message| message.system.is_none());
            texts.extend(messages.map(|message| message.content));
            if !slice.has_more {
                return Ok(texts);
            }
            after = slice.to_seq;
        }
    }

    pub async fn written_to(&self, seq: Seq) -> Result<()> {
        eventually(async || {
            let persisted = self.row().await?.persisted_seq;
            anyhow::ensure!(persisted >= seq, "{persisted} of {seq}");
            Ok(())
        })
        .await
    }

    pub async fn dead_letters(&self) -> Result<u64> {
        let jetstream = async_nats::jetstream::new(self.raw_nats.clone());
        let stream = jetstream.get_stream(subjects::DEAD_STREAM).await?;
        Ok(stream.cached_info().state.messages)
    }

    pub async fn delete_stream(&self, name: &str) -> Result<()> {
        async_nats::jetstream::new(self.raw_nats.clone()).delete_stream(name).await?;
        Ok(())
    }

    pub async fn digests(&self) -> Result<Subscriber> {
        let digests = self.raw_nats.subscribe(subjects::digest(0)).await?;
        // Only a round trip tells that the subscription is active.
        self.raw_nats.flush().await?;
        let _ = async_nats::jetstream::new(self.raw_nats.clone()).query_account().await?;
        Ok(digests)
    }
}

pub fn config(owner: &str) -> WorkerConfig {
    WorkerConfig {
        lease: Duration::from_secs(2),
        // No gateway is there that would have to look away from the one before.
        log_closed_for: Duration::ZERO,
        ..WorkerConfig::new(owner, 1, log_config())
    }
}

pub fn log_config() -> LogConfig {
    LogConfig { max_bytes: 64 * 1024 * 1024, ..LogConfig::default() }
}

/// Steps until all of the log up to `seq` is written.
pub async fn step_to(owner: &mut Owner, seq: Seq) -> Result<Stepped> {
    let position = owner.position();
    let mut sum = Stepped::default();
    let deadline = Instant::now() + PATIENCE;
    while position.load(std::sync::atomic::Ordering::Acquire) < seq {
        anyhow::ensure!(Instant::now() < deadline, "not written in time");
        let stepped = owner.step().await?;
        sum.written += stepped.written;
        sum.poison += stepped.poison;
    }
    Ok(sum)
}

/// The next digest, stepping until it comes.
pub async fn digest_of(owner: &mut Owner, digests: &mut Subscriber) -> Result<Digest> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        anyhow::ensure!(Instant::now() < deadline, "no digest in time");
        if let Ok(message) = timeout(Duration::from_millis(20), digests.next()).await {
            return Ok(serde_json::from_slice(&message.context("ended")?.payload)?);
        }
        owner.step().await?;
    }
}

/// Until it succeeds; the last error when it does not.
pub async fn eventually<T, F: Future<Output = Result<T>>>(
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// With `NATTER_LOG` set, on stderr.
fn show_logs() {
    if let Ok(log) = std::env::var("NATTER_LOG") {
        let args = TelemetryArgs { log, log_format: LogFormat::Text };
        // An error says that another test was first. The guard would flush traces: there are none.
        let _ = telemetry::init(&args, "test", "test").map(std::mem::forget);
    }
}

async fn register(store: &Store, name: &str) -> Result<UserCard> {
    let id = UserId::generate();
    let device =
        NewDevice { id: DeviceId::generate(), name: None, platform: None, session: Uuid::new_v4() };
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(id.0.as_bytes());
    let expires_at = OffsetDateTime::now_utc() + time::Duration::days(1);
    let new = NewUser {
        id,
        name: name.to_owned(),
        phone: None,
        email: Some(format!("{id}@example.org")),
        password_hash: "$argon2id$".to_owned(),
        shard: 0,
        device,
        refresh: NewRefresh { hash, expires_at },
    };
    store.create_user(&new).await?;
    Ok(UserCard { id, name: name.to_owned(), bot: false })
}
