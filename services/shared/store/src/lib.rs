//! Every SQL statement of Natter, and the only user of sqlx: accounts, devices, sessions, chats,
//! members, history, and what the worker needs.
//!
//! | module | holds |
//! |---|---|
//! | [`accounts`] | users: registration, credentials, profile, search, an outside issuer's users |
//! | [`devices`] | a user's devices: their state, revocation, sign-out |
//! | [`deletion`] | accounts deleted, bit by bit |
//! | [`managed`] | users as the servers of an embedding product manage them |
//! | [`service_tokens`] | what those servers show |
//! | [`sessions`] | logging in, refresh tokens that rotate, replay detection |
//! | [`chats`] | groups and one-to-ones made, one chat as its viewer sees it |
//! | [`members`] | joining, leaving, who takes part, what a connection follows |
//! | [`roles`] | groups managed: participants, roles, what a group is called, its end |
//! | [`bans`] | who may not come back to a group |
//! | [`imports`] | what is brought in from another system |
//! | [`invites`] | links into a group |
//! | [`blocks`] | who wants nothing from whom |
//! | [`chat_list`] | all chats of a user, newest activity first, and the search over them |
//! | [`export`] | what a user has, for whoever wants it all |
//! | [`history`] | pages of messages, and whether a message was sent before |
//! | [`edits`] | what becomes of messages: edits, deletions, reactions, and what is read for them |
//! | [`search`] | messages found by their words, and the index of these |
//! | [`media`] | what is known of files, who has fetched them, what is to be removed |
//! | [`shards`] | who owns a shard, and up to where it is written |
//! | [`persist`] | a batch of feed entries written in one transaction |
//! | [`reads`] | how far participants are, what is unread, muting and hiding |
//! | [`retention`] | messages that are removed after a time, and what is left of deleted groups |
//! | [`push`] | where devices are notified, of what, and what became of that |
//! | [`webhooks`] | other people's servers: how far each has been told of what happens |
//! | [`replay`] | a dead letter written after all |
//! | [`outbox`] | changes committed here that feeds must hear of |
//! | [`address`] | Postgres' URL, checked before anything connects |
//! | [`inspection`] | what an operator looks up |
//! | [`error`] | what can go wrong, in terms of what the caller can do |
//!
//! Rows stay in this crate (`rows`, `views`); what it gives back are `natter-protocol`'s types.
//! `calls` lends connections to all of the above, for a bounded time; `partitions` knows where a
//! chat's messages are.
//!
//! Isolation is read committed unless a function says otherwise. A statement sees one snapshot,
//! so what must be consistent with itself is read by one statement.

pub mod accounts;
pub mod address;
pub mod bans;
pub mod blocks;
pub mod chat_list;
pub mod chats;
pub mod deletion;
pub mod devices;
pub mod edits;
pub mod error;
pub mod export;
pub mod history;
pub mod imports;
pub mod inspection;
pub mod invites;
pub mod managed;
pub mod media;
pub mod members;
pub mod outbox;
pub mod persist;
pub mod push;
pub mod reads;
pub mod replay;
pub mod retention;
pub mod roles;
pub mod search;
pub mod service_tokens;
pub mod sessions;
pub mod shards;
pub mod webhooks;

mod calls;
mod partitions;
mod rows;
mod views;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use deadpool::managed::Pool;
use sqlx::{Connection as _, PgConnection, migrate::Migrator, postgres::PgConnectOptions};
use tokio::{sync::Semaphore, time::timeout};

pub use accounts::{Credentials, Login, NewUser, UserSearch};
pub use address::{UrlError, parse_url};
pub use bans::BanCursor;
pub use blocks::BlockCursor;
pub use chat_list::ChatCursor;
pub use chats::Created;
pub use deletion::{Bit, Erasure, OwnMessage, OwnReaction, Step};
pub use devices::DeviceState;
pub use edits::{Around, FeedEntry};
pub use error::{Conflict, Result, StoreError};
pub use export::{OwnPart, ReactionKey, SetReaction};
pub use history::{HistorySlice, Page, SentBefore};
pub use imports::{
    Brought, IMPORT_DONE, Import, ImportBatch, ImportPlace, ImportedChat, ImportedDevice,
    ImportedDownload, ImportedFile, ImportedMember, ImportedMessage, ImportedRoom, ImportedUser,
    LeftFile, NamedFile, Trouble,
};
pub use inspection::{
    DeviceRecord, FileRecord, Outbox, Place, PlaceKind, Reached, Versions, schema_known,
};
pub use invites::NewInvite;
pub use managed::{Called, NewManagedUser, Speaker, UserEdit};
pub use media::{
    Claim, DownloadCursor, DownloadRecord, Measures, MediaFile, NewMedia, Sweep, Taken,
    UnmadeThumbnail,
};
pub use members::{Followed, FollowedChat, Member, Membership, ParticipantCursor};
pub use outbox::{OutboxBacklog, RelayError, Relayed, WaitingLane};
pub use persist::{Row, RowKind};
pub use push::{
    About, Attempted, Claimed, Decided, DeliveryCursor, Ended, NewPush, OpenPush, PUSH_PAGE,
    PushKey, PushProgress, PushTest, Recipient, RecipientTarget, ToSend,
};
pub use reads::{Muting, OwnChange};
pub use replay::Replayed;
pub use retention::{Aging, Purged};
pub use roles::{Actor, ChatEdit};
pub use search::{
    MessageSearch, SearchCursor, Words, WordsError,
    index::{CaughtUp, EntryPlace, Indexer},
};
pub use service_tokens::{NewServiceToken, ServiceToken, ServiceTokenRecord};
pub use sessions::{NewDevice, NewRefresh, Rotation};
pub use shards::ShardRow;
pub use webhooks::{
    Behind, EndpointChange, FillRow, LaneKey, LanePlace, LaneReport, LaneSave, NewEndpoint,
    NewHookLetter, WebhookEndpoint, WebhookLetter, WebhookShare,
};

/// A statement that runs longer is cancelled by the server and answered by
/// [`StoreError::Unavailable`].
const STATEMENT_TIMEOUT: &str = "5s";
/// A transaction whose process was stopped in the middle lets go of its locks after this time.
const IDLE_IN_TRANSACTION_TIMEOUT: &str = "30s";

/// Statements that a connection keeps prepared: all there are.
const STATEMENTS: usize = 400;

/// The schema, as this program knows it.
static MIGRATIONS: Migrator = sqlx::migrate!("../../../migrations");

/// Where Postgres is, and how much of it one process takes.
#[derive(Clone)]
pub struct StoreConfig {
    /// As [`parse_url`] takes it.
    pub url: String,
    /// Connections of this process at most. 10 by default.
    pub max_connections: u32,
    /// How long a call waits for one of them before it is refused as unavailable. 2 s by default.
    pub acquire_timeout: Duration,
    /// How long a call may then take before it is given up as unavailable and its connection is
    /// closed. 15 s by default: above the server's own bound of a statement, 5 s, so that this
    /// one decides only when the server does not answer at all.
    pub call_timeout: Duration,
}

impl StoreConfig {
    /// The defaults, for a URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            max_connections: 10,
            acquire_timeout: Duration::from_secs(2),
            call_timeout: Duration::from_secs(15),
        }
    }
}

/// Without the URL, which holds a password.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreConfig")
            .field("max_connections", &self.max_connections)
            .field("acquire_timeout", &self.acquire_timeout)
            .field("call_timeout", &self.call_timeout)
            .finish_non_exhaustive()
    }
}

/// Postgres. Cloning shares the connections.
///
/// A call is bounded by the wait for a connection, the server's statement timeout, and a bound of
/// its own for when the server is frozen or has vanished; see [`StoreConfig`]. One that is dropped
/// before its end gives its connection back, or closes it, in bounded time.
#[derive(Clone)]
pub struct Store {
    pool: Pool<calls::Opener>,
    acquire_timeout: Duration,
    call_timeout: Duration,
    /// A relay holds a connection while it waits for the broker: with the broker slow, relays
    /// must not take every connection from those who only want to read.
    relays: Arc<Semaphore>,
    partitions: partitions::Partitions,
}

impl Store {
    /// Connects when first used, so a process starts while Postgres is away. Must be called
    /// inside a Tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the URL cannot be read.
    pub fn connect(config: &StoreConfig) -> Result<Self> {
        let options = PgConnectOptions::from_str(&config.url)?.options([
            ("statement_timeout", STATEMENT_TIMEOUT),
            // Compiling takes longer than any statement here may run.
            ("jit", "off"),
            ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
        ]);
        // A statement for each partition counts as one.
        let options = options.statement_cache_capacity(STATEMENTS);
        let pool = calls::pool(options, config.max_connections)?;
        let relays = (config.max_connections as usize / 2).max(1);
        Ok(Self {
            pool,
            acquire_timeout: config.acquire_timeout,
            call_timeout: config.call_timeout,
            relays: Arc::new(Semaphore::new(relays)),
            partitions: partitions::Partitions::default(),
        })
    }

    /// Brings the schema up to date. Safe to run by several processes at once: they take turns.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Encoding`], or [`StoreError::Migrate`] when the schema
    /// is newer than this program or was changed by hand.
    pub async fn migrate(&self) -> Result<()> {
        let opening = PgConnection::connect_with(self.pool.manager().options());
        let opened = timeout(self.acquire_timeout, opening).await;
        let mut connection = opened.map_err(|_| StoreError::late())??;
        let encoding: String =
            sqlx::query_scalar("SHOW server_encoding").fetch_one(&mut connection).await?;
        if encoding != "UTF8" {
            return Err(StoreError::Encoding(encoding));
        }
        // A migration may well take longer than a request, and waits for others to finish theirs.
        sqlx::query("SET statement_timeout = 0").execute(&mut connection).await?;
        MIGRATIONS.run(&mut connection).await?;
        Ok(())
    }

    /// One round trip: whether Postgres answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<()> {
        self.call(async |db| sqlx::query("SELECT 1").execute(db).await).await?;
        Ok(())
    }

    /// Connections that are open, and those of them that nobody uses.
    #[must_use]
    pub fn connections(&self) -> (u32, u32) {
        let status = self.pool.status();
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        (count(status.size), count(status.available))
    }

    /// Closes every connection: those in use when they are given back. What is called from here on is
    /// refused as unavailable.
    pub fn close(&self) {
        self.pool.close();
    }
}

/// Without the way to the server, which holds a password.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}
