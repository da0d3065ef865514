//! What an operator looks up: versions, the outbox, one message, all devices of a user. Nothing here
//! is asked while people wait for it.

use std::time::Duration;

use natter_protocol::ids::{ChatId, DeviceId, MediaId, MessageId, Seq, Shard, UserId};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    MIGRATIONS, Result, Store,
    rows::{self, seq, sql_seq},
};

/// How much longer than the server's own bound a search may take here.
const GRACE: Duration = Duration::from_secs(5);

/// What runs, and which schema it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Of Postgres.
    pub server: String,
    /// The last migration that was applied; none in an empty database.
    pub applied: Option<i64>,
    /// The last migration that this program knows.
    pub known: i64,
    /// The time there, which leases count from.
    pub now: OffsetDateTime,
}

/// Changes that feeds have not heard of yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outbox {
    /// How many.
    pub depth: u64,
    /// How long the oldest has waited.
    pub oldest: Option<Duration>,
}

/// An entry of a chat's feed, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of which chat.
    pub chat_id: ChatId,
    /// The shard of the chat's feed; none when there is no such chat.
    pub shard: Option<Shard>,
    /// Where.
    pub seq: Seq,
    /// When the log stored it, in whole milliseconds.
    pub at: OffsetDateTime,
    /// What it is.
    pub kind: PlaceKind,
}

/// What stands at a place of a chat's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceKind {
    /// A message.
    Message {
        /// Its id.
        id: MessageId,
        /// Who sent it.
        sender: UserId,
        /// From which device; none when a server did.
        device: Option<DeviceId>,
    },
    /// Something about the chat itself.
    System,
    /// What became of a message: it was edited, deleted or reacted to.
    Change {
        /// Which message.
        message: MessageId,
    },
    /// Nothing that is shown.
    Void {
        /// Why.
        reason: String,
    },
}

/// The file that a message is sent with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRecord {
    /// Its id.
    pub id: MediaId,
    /// The chat that it is for; none once that is gone.
    pub chat_id: Option<ChatId>,
    /// As it was called.
    pub name: String,
    /// By its content.
    pub media_type: String,
    /// Bytes; none while it comes.
    pub size: Option<u64>,
    /// `uploading`, `ready` or `gone`.
    pub state: String,
    /// Whether its message is written.
    pub sent: bool,
    /// How many answers have carried it, or a part of it.
    pub downloads: u64,
}

/// A device, whatever has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRecord {
    /// Which.
    pub id: DeviceId,
    /// As it calls itself.
    pub name: Option<String>,
    /// As it calls itself.
    pub platform: Option<String>,
    /// When it first logged in.
    pub created_at: OffsetDateTime,
    /// When it was last connected.
    pub last_seen_at: Option<OffsetDateTime>,
    /// It has a login.
    pub logged_in: bool,
    /// An outside issuer's, which has no logins here.
    pub outside: bool,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

#[derive(sqlx::FromRow)]
struct PlaceRow {
    chat_id: Uuid,
    shard: Option<i16>,
    seq: i64,
    created_at: OffsetDateTime,
    kind: String,
    id: Option<Uuid>,
    sender_id: Option<Uuid>,
    device_id: Option<Uuid>,
    reason: Option<String>,
    message_id: Option<Uuid>,
}

impl From<PlaceRow> for Place {
    fn from(row: PlaceRow) -> Self {
        let kind = match (row.kind.as_str(), row.id, row.sender_id) {
            ("message", Some(id), Some(sender)) => PlaceKind::Message {
                id: id.into(),
                sender: sender.into(),
                device: row.device_id.map(Into::into),
            },
            ("edit" | "delete" | "reaction", ..) => {
                PlaceKind::Change { message: row.message_id.unwrap_or_default().into() }
            }
            ("void", ..) => PlaceKind::Void { reason: row.reason.unwrap_or_default() },
            _ => PlaceKind::System,
        };
        Self {
            chat_id: row.chat_id.into(),
            shard: row.shard.map(rows::shard),
            seq: seq(row.seq),
            at: row.created_at,
            kind,
        }
    }
}

/// The last migration that this program knows.
#[must_use]
pub fn schema_known() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// How far a participant of a chat is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Who.
    pub user: UserId,
    /// The place that their part in the chat begins with.
    pub from_seq: Seq,
    /// All up to here is delivered to a device of theirs, …
    pub delivered_seq: Seq,
    /// … and up to here it is read.
    pub read_seq: Seq,
}

macro_rules! places {
    ($where:literal) => {
        concat!(
            "SELECT m.chat_id, c.shard, m.seq, m.created_at, m.kind, m.id, m.sender_id, m.device_id,
                    m.detail ->> 'reason' AS reason,
                    (m.detail ->> 'messageId')::uuid AS message_id
             FROM messages m LEFT JOIN chats c ON c.id = m.chat_id WHERE ",
            $where
        )
    };
}

impl Store {
    /// Versions of Postgres and of the schema.
    pub async fn versions(&self) -> Result<Versions> {
        let known = schema_known();
        self.call(async |db| {
            let (server, now, made): (String, OffsetDateTime, bool) = sqlx::query_as(
                "SELECT current_setting('server_version'), now(),
                        to_regclass('_sqlx_migrations') IS NOT NULL",
            )
            .fetch_one(&mut *db)
            .await?;
            let applied = if made {
                sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success")
                    .fetch_one(db)
                    .await?
            } else {
                None
            };
            Ok::<_, sqlx::Error>(Versions { server, applied, known, now })
        })
        .await
    }

    /// How much waits in the outbox.
    pub async fn outbox(&self) -> Result<Outbox> {
        let (depth, oldest): (i64, Option<f64>) = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT count(*), extract(epoch FROM now() - min(created_at))::float8
                     FROM outbox",
                )
                .fetch_one(db)
                .await
            })
            .await?;
        let oldest = oldest.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
        Ok(Outbox { depth: depth.unsigned_abs(), oldest })
    }

    /// Where a message is written: in the chat that is named, else in whichever has it; for `bound` at
    /// most.
    ///
    /// # Errors
    /// `Unavailable` also when it takes longer than `bound`.
    pub async fn find_message(
        &self,
        message: MessageId,
        chat: Option<ChatId>,
        bound: Duration,
    ) -> Result<Option<Place>> {
        let found: Option<PlaceRow> = self
            .transaction_of::<_, crate::StoreError>(bound + GRACE, async |tx: &mut PgConnection| {
                sqlx::query("SELECT set_config('statement_timeout', $1, true)")
                    .bind(bound.as_millis().to_string())
                    .execute(&mut *tx)
                    .await?;
                let found = if let Some(chat) = chat {
                    sqlx::query_as(places!("m.chat_id = $2 AND m.id = $1 LIMIT 1"))
                        .bind(message.0)
                        .bind(chat.0)
                        .fetch_optional(tx)
                        .await?
                } else {
                    sqlx::query_as(places!("m.id = $1 LIMIT 1"))
                        .bind(message.0)
                        .fetch_optional(tx)
                        .await?
                };
                Ok(found)
            })
            .await?;
        Ok(found.map(Into::into))
    }

    /// What is written at a place of a chat's feed.
    pub async fn place(&self, chat: ChatId, place: Seq) -> Result<Option<Place>> {
        let found: Option<PlaceRow> = self
            .call(async |db| {
                sqlx::query_as(places!("m.chat_id = $1 AND m.seq = $2"))
                    .bind(chat.0)
                    .bind(sql_seq(place))
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(found.map(Into::into))
    }

    /// How far the participants of a chat are, by the time they joined: `most` of them at most.
    pub async fn reached(&self, chat: ChatId, most: u32) -> Result<Vec<Reached>> {
        let found: Vec<(Uuid, Option<i64>, i64, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT user_id, from_seq, delivered_seq, read_seq FROM chat_members
                     WHERE chat_id = $1 AND left_at IS NULL
                     ORDER BY joined_at, user_id LIMIT $2",
                )
                .bind(chat.0)
                .bind(i64::from(most))
                .fetch_all(db)
                .await
            })
            .await?;
        let reached = |(user, from, delivered, read): (Uuid, Option<i64>, i64, i64)| Reached {
            user: user.into(),
            from_seq: seq(from.unwrap_or_default()),
            // What is read need not have been told to be delivered.
            delivered_seq: seq(delivered.max(read)),
            read_seq: seq(read),
        };
        Ok(found.into_iter().map(reached).collect())
    }

    /// The file that a message was promised, or is sent with.
    pub async fn file_of(&self, message: MessageId) -> Result<Option<FileRecord>> {
        #[derive(sqlx::FromRow)]
        struct FileRow {
            id: Uuid,
            chat_id: Option<Uuid>,
            name: String,
            media_type: String,
            size: Option<i64>,
            state: String,
            sent: bool,
            downloads: i64,
        }
        let row: Option<FileRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, chat_id, name, media_type, size, state, sent,
                            (SELECT count(*) FROM media_downloads d
                             WHERE d.message_id = m.message_id) AS downloads
                     FROM media m WHERE message_id = $1",
                )
                .bind(message.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|row| FileRecord {
            id: row.id.into(),
            chat_id: row.chat_id.map(Into::into),
            name: row.name,
            media_type: row.media_type,
            size: row.size.map(i64::unsigned_abs),
            state: row.state,
            sent: row.sent,
            downloads: row.downloads.unsigned_abs(),
        }))
    }

    /// All devices of a user, revoked ones too: last seen first, at most 500.
    pub async fn device_records(&self, user: UserId) -> Result<Vec<DeviceRecord>> {
        #[derive(sqlx::FromRow)]
        struct Record {
            id: Uuid,
            name: Option<String>,
            platform: Option<String>,
            created_at: OffsetDateTime,
            last_seen_at: Option<OffsetDateTime>,
            logged_in: bool,
            outside: bool,
            revoked_at: Option<OffsetDateTime>,
        }
        let rows: Vec<Record> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, name, platform, created_at, last_seen_at,
                            session IS NOT NULL AS logged_in, external_id IS NOT NULL AS outside,
                            revoked_at
                     FROM devices WHERE user_id = $1
                     ORDER BY last_seen_at DESC NULLS LAST, id LIMIT 500",
                )
                .bind(user.0)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows
            .into_iter()
            .map(|row| DeviceRecord {
                id: row.id.into(),
                name: row.name,
                platform: row.platform,
                created_at: row.created_at,
                last_seen_at: row.last_seen_at,
                logged_in: row.logged_in,
                outside: row.outside,
                revoked_at: row.revoked_at,
            })
            .collect())
    }
}
