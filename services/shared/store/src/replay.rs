//! A dead letter written after all: the entry takes its own place in the feed, which a void row has
//! kept for it.
//!
//! It is written as the worker would have written it, so that doing it again changes nothing, and a
//! message that its sender has sent again since stays one message.

use natter_protocol::ids::{ChatId, MessageId, Shard};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Result, Row, RowKind, Store, StoreError, edits,
    persist::{Batch, Counting, move_chats, move_users},
    reads::move_marks,
    retention,
    rows::{seq, sql_seq, sql_shard},
    search,
};

/// What became of an entry that was written after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It stands at its place now.
    Written,
    /// It was there already: it has been replayed before.
    AlreadyThere,
    /// The message stands at another place of the chat: its sender has sent it again meanwhile. This
    /// place stays void.
    Repeats,
    /// Something else stands at its place; nothing is changed.
    Taken,
    /// The worker has not come to its place yet; nothing is changed.
    NotYet,
    /// What lies at its place is not kept any longer; nothing is changed.
    Expired,
}

impl Store {
    /// Writes an entry at its place, if the worker has passed that and found it void or left it
    /// empty. Of a user's feed only its place is kept, and what it tells of reading.
    ///
    /// # Errors
    /// [`StoreError::is_data_error`] when it still cannot be written, and nothing is changed.
    pub async fn replay(&self, shard: Shard, row: &Row) -> Result<Replayed> {
        let batch = Batch::of(std::slice::from_ref(row));
        self.transaction(async |tx| {
            // The worker moves this in the transaction that writes the rows: from here on it does
            // not come back to the place. And it counts messages only while it holds this row.
            let persisted: i64 =
                sqlx::query_scalar("SELECT persisted_seq FROM shards WHERE shard = $1 FOR SHARE")
                    .bind(sql_shard(shard))
                    .fetch_one(&mut *tx)
                    .await?;
            if seq(persisted) < row.seq {
                return Ok(Replayed::NotYet);
            }
            if batch.entries.chats.is_empty() {
                move_marks(tx, &batch.marks, &[]).await?;
                move_users(tx, &batch).await?;
                return Ok(Replayed::Written);
            }
            if retention::expired_seq(tx, ChatId(row.feed.id)).await? >= row.seq {
                return Ok(Replayed::Expired);
            }
            // Two that replay it at once: the second waits here.
            let freed = sqlx::query(
                "DELETE FROM messages WHERE chat_id = $1 AND seq = $2 AND kind = 'void'",
            )
            .bind(row.feed.id)
            .bind(sql_seq(row.seq))
            .execute(&mut *tx)
            .await?;
            let written = batch.entries.insert(tx, &[None]).await?;
            if written.is_empty() {
                // Does nothing where the place is taken.
                batch.entries.fill_places(tx).await?;
                return if freed.rows_affected() > 0 {
                    Ok(Replayed::Repeats)
                } else {
                    found(tx, row).await
                };
            }
            edits::take_back_late(tx, row).await?;
            retention::expire(tx, &batch.cuts).await?;
            batch.changes.apply(tx).await?;
            move_chats(tx, &batch, &written, Counting::Done).await?;
            batch.entries.send_media(tx).await?;
            move_marks(tx, &batch.marks, &written).await?;
            // Whoever follows the log has been there.
            search::index::look_up_again(tx, shard, (ChatId(row.feed.id), row.seq)).await?;
            Ok(Replayed::Written)
        })
        .await
    }
}

/// What is at the place of an entry that could not be put there.
async fn found(tx: &mut PgConnection, row: &Row) -> Result<Replayed> {
    let there: Option<(String, Option<Uuid>)> =
        sqlx::query_as("SELECT kind, id FROM messages WHERE chat_id = $1 AND seq = $2")
            .bind(row.feed.id)
            .bind(sql_seq(row.seq))
            .fetch_optional(tx)
            .await?;
    let Some((kind, id)) = there else { return Err(StoreError::NotFound) };
    let same = match &row.kind {
        RowKind::Message(message) => id.map(MessageId) == Some(message.id),
        RowKind::System(_) => kind == "system",
        RowKind::Edit(_) => kind == "edit",
        RowKind::Delete(_) => kind == "delete",
        RowKind::Reaction(_) => kind == "reaction",
        RowKind::Expired(_) => kind == "expired",
        RowKind::UserEvent | RowKind::Read(_) | RowKind::Delivered(_) | RowKind::Void { .. } => {
            false
        }
    };
    Ok(match kind.as_str() {
        _ if same => Replayed::AlreadyThere,
        // It was filled in just now: the message is elsewhere.
        "void" => Replayed::Repeats,
        _ => Replayed::Taken,
    })
}
