//! What is brought in from another system: written batch by batch, each in a transaction with how far
//! the import is.
//!
//! | module | holds |
//! |---|---|
//! | `people` | users and their devices |
//! | `chats` | chats, and who takes part in them: that opens a chat |
//! | `messages` | messages, in their chats' order |
//! | `files` | files, downloads, and files that are copied |
//! | `resolve` | old ids, for whoever holds them |
//!
//! Rows meet their own when a batch is written twice. A chat's messages take its first places, and count
//! as read; nobody takes part in the chat before they are there, so nothing is ever sent between them.

mod chats;
mod files;
mod messages;
mod people;
mod resolve;

use std::time::Duration;

use natter_protocol::{feed::DELETED_USER, timestamp};
use serde_json::Value;
use sqlx::PgConnection;
use time::{OffsetDateTime, macros::datetime};
use uuid::Uuid;

pub use self::{
    chats::{ImportedChat, ImportedMember, ImportedRoom},
    files::{ImportedDownload, ImportedFile, LeftFile},
    messages::{ImportedMessage, NamedFile},
    people::{ImportedDevice, ImportedUser},
};
use crate::{Result, Store, StoreError, rows::fold};

/// How long a batch may take: it is far longer than a request's.
const BATCH: Duration = Duration::from_mins(2);
/// The server's bound of one of its statements.
const STATEMENT: &str = "SET LOCAL statement_timeout = '60s'";

/// A run of an import: where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Import {
    /// What the import is called: a part of every id that it makes.
    pub name: String,
    /// This run, and no other.
    pub run: Uuid,
    /// The stage that is under way.
    pub stage: String,
    /// The old id up to which it is done.
    pub after: Option<String>,
    /// What has been counted so far.
    pub report: Value,
    /// It goes on from where a run before was ended.
    pub resumed: bool,
}

/// How far an import is after a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ImportPlace {
    /// The stage; [`IMPORT_DONE`] after the last.
    pub stage: String,
    /// The old id up to which it is done.
    pub after: Option<String>,
    /// What has been counted, this batch included.
    pub report: Value,
}

/// The stage of an import that is over.
pub const IMPORT_DONE: &str = "done";

/// Rows of one kind.
#[derive(Debug)]
pub enum ImportBatch {
    /// Users.
    Users(Vec<ImportedUser>),
    /// Their devices.
    Devices(Vec<ImportedDevice>),
    /// Chats, without anybody.
    Chats(Vec<ImportedChat>),
    /// Messages, by chat, oldest first.
    Messages(Vec<ImportedMessage>),
    /// Who takes part: all participants of each chat.
    Rooms(Vec<ImportedRoom>),
    /// Files.
    Files(Vec<ImportedFile>),
    /// Who has fetched files.
    Downloads(Vec<ImportedDownload>),
}

/// What has become of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brought {
    /// Rows that were written: of rooms, participants.
    pub written: u64,
    /// Rows that were there.
    pub there: u64,
    /// What was wrong, by the row's number in the batch.
    pub troubles: Vec<(usize, Trouble)>,
}

/// What is wrong with a row that cannot be seen by the row alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Trouble {
    /// Kept without it.
    #[error("the phone number is somebody else's; kept without it")]
    PhoneTaken,
    /// Kept without it.
    #[error("the e-mail address is somebody else's; kept without it")]
    EmailTaken,
    /// Left out.
    #[error("there is no such user")]
    NoUser,
    /// Left out.
    #[error("there is no such chat")]
    NoChat,
    /// Left out.
    #[error("the chat has gone on here: what is older cannot be put between")]
    GoesOn,
    /// Kept at the end of what is there, since nothing is put between.
    #[error("older than what was here before it; kept, behind that and with its time")]
    Late,
    /// Kept without the reference.
    #[error("what it answers is not an earlier message of its chat; kept without that")]
    NoAnswered,
    /// Kept, of a deleted user.
    #[error("its sender is gone; kept, of a deleted user")]
    SenderGone,
    /// Left out.
    #[error("no message has this file")]
    NoMessage,
    /// Left out.
    #[error("there is no such file")]
    NoFile,
    /// The chat is a group of those that there are.
    #[error("a one-to-one that is not of two, or the second of the same two; made a group")]
    NotOfTwo,
    /// Left out.
    #[error("a one-to-one has its two already")]
    Third,
    /// The chat stays closed.
    #[error("nobody takes part in the chat; nobody sees it")]
    Nobody,
}

impl Trouble {
    /// Whether the row was left out for it.
    #[must_use]
    pub fn left_out(self) -> bool {
        matches!(
            self,
            Self::NoUser
                | Self::NoChat
                | Self::GoesOn
                | Self::NoMessage
                | Self::NoFile
                | Self::Third
        )
    }
}

impl Store {
    /// Begins an import, or goes on with one of this name that was not ended. Whoever is at it is
    /// refused from here on. `first` is the first stage, `report` an empty one.
    pub async fn begin_import(&self, name: &str, first: &str, report: &Value) -> Result<Import> {
        let run = Uuid::now_v7();
        let (stage, after, report, resumed): (String, Option<String>, Value, bool) = self
            .call(async |db| {
                sqlx::query_as(
                    "INSERT INTO imports AS i (name, run, stage, report) VALUES ($1, $2, $3, $4)
                     ON CONFLICT (name) DO UPDATE SET
                         run = $2,
                         stage = CASE WHEN i.ended_at IS NULL THEN i.stage ELSE $3 END,
                         after = CASE WHEN i.ended_at IS NULL THEN i.after END,
                         report = CASE WHEN i.ended_at IS NULL THEN i.report ELSE $4 END,
                         began_at = CASE WHEN i.ended_at IS NULL THEN i.began_at
                                         ELSE date_trunc('milliseconds', now()) END,
                         ended_at = NULL
                     RETURNING stage, after, report, (stage, after) IS DISTINCT FROM ($3, NULL)",
                )
                .bind(name)
                .bind(run)
                .bind(first)
                .bind(report)
                .fetch_one(db)
                .await
            })
            .await?;
        Ok(Import { name: name.to_owned(), run, stage, after, report, resumed })
    }

    /// Writes a batch, and how far the import is with it, which `place` tells by what has become of it;
    /// both or neither. Again after an answer that was lost, it changes nothing.
    ///
    /// # Errors
    /// `Fenced` when another run has begun.
    pub async fn bring(
        &self,
        import: &Import,
        batch: &ImportBatch,
        place: impl Fn(&Brought) -> ImportPlace,
    ) -> Result<Brought> {
        self.transaction_of(BATCH, async |tx| {
            sqlx::query(STATEMENT).execute(&mut *tx).await?;
            let brought = match batch {
                ImportBatch::Users(users) => people::users(tx, users).await?,
                ImportBatch::Devices(devices) => people::devices(tx, devices).await?,
                ImportBatch::Chats(chats) => chats::chats(tx, import, chats).await?,
                ImportBatch::Messages(messages) => messages::messages(tx, import, messages).await?,
                ImportBatch::Rooms(rooms) => chats::open(tx, rooms).await?,
                ImportBatch::Files(files) => files::files(tx, import, files).await?,
                ImportBatch::Downloads(downloads) => files::downloads(tx, downloads).await?,
            };
            move_on(tx, import, &place(&brought)).await?;
            Ok::<_, StoreError>(brought)
        })
        .await
    }

    /// The same without a batch: a stage is over.
    ///
    /// # Errors
    /// `Fenced` when another run has begun.
    pub async fn import_goes_on(&self, import: &Import, place: &ImportPlace) -> Result<()> {
        self.transaction(async |tx| move_on(tx, import, place).await).await
    }
}

/// The row is locked until the transaction ends: of two runs at once one is refused.
async fn move_on(tx: &mut PgConnection, import: &Import, place: &ImportPlace) -> Result<()> {
    let moved = sqlx::query(
        "UPDATE imports SET stage = $3, after = $4, report = $5,
             moved_at = date_trunc('milliseconds', now()),
             ended_at = CASE WHEN $3 = $6 THEN date_trunc('milliseconds', now()) END
         WHERE name = $1 AND run = $2",
    )
    .bind(&import.name)
    .bind(import.run)
    .bind(&place.stage)
    .bind(&place.after)
    .bind(&place.report)
    .bind(IMPORT_DONE)
    .execute(tx)
    .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Fenced) }
}

/// The run is at it, and is until the transaction ends: whoever begins another one waits for that.
async fn still_at_it(tx: &mut PgConnection, import: &Import) -> Result<()> {
    let at_it: Option<Uuid> =
        sqlx::query_scalar("SELECT run FROM imports WHERE name = $1 AND run = $2 FOR SHARE")
            .bind(&import.name)
            .bind(import.run)
            .fetch_optional(tx)
            .await?;
    at_it.map(drop).ok_or(StoreError::Fenced)
}

/// Users who stand for those who are gone: like an account that was deleted.
async fn ensure_gone(tx: &mut PgConnection, users: &[(Uuid, i16)]) -> Result<()> {
    let (ids, shards): (Vec<Uuid>, Vec<i16>) = users.iter().copied().unzip();
    sqlx::query(
        "INSERT INTO users (id, name, name_lower, shard, deleted_at)
         SELECT id, $3, $4, shard, date_trunc('milliseconds', now())
         FROM unnest($1::uuid[], $2::smallint[]) AS u (id, shard)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(ids)
    .bind(shards)
    .bind(DELETED_USER)
    .bind(fold(DELETED_USER))
    .execute(tx)
    .await?;
    Ok(())
}

/// The last moment that the wire can tell.
const LATEST: OffsetDateTime = datetime!(9999-12-31 0:00 UTC);

/// A time by another server's clock: in whole milliseconds, and such as the wire can tell. The same for
/// the same time whenever it is asked, since what is done again is known by it.
fn bounded(at: OffsetDateTime) -> OffsetDateTime {
    timestamp::truncate(at.clamp(OffsetDateTime::UNIX_EPOCH, LATEST))
}
