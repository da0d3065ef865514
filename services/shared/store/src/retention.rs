//! Messages that are removed after a time, and what is left of groups that were deleted.
//!
//! A chat's feed begins anew behind a place, `expired_seq`: what lies up to there is not shown to
//! anybody from the moment that it is set, and its rows are removed afterwards, some at a time. An entry
//! of the feed sets it, so that devices and the log's readers know; nobody is left to read the feed of a
//! group that was deleted, so there it is set here.
//!
//! The last row of what has expired stays, without a content: it is the entry before the first one that
//! is left, and its number is how many messages came before that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use natter_protocol::ids::{ChatId, Seq, Shard};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Row, RowKind, Store,
    rows::{self, seq, sql_seq},
    search,
};

/// Entries read at once to find where those that are kept begin. Where more have expired, halving finds
/// it.
const WINDOW: i64 = 1_000;
/// Of the locks that a transaction takes by two numbers: those of purges.
const PURGES: i32 = 12;
/// Rows of the search removed at once, at most: which of their words are nowhere else takes longer than
/// removing them does.
const FORGOTTEN: i64 = 200;

/// Where the feeds of a batch begin anew.
#[derive(Debug, Default)]
pub(crate) struct Cuts(BTreeMap<Uuid, i64>);

impl Cuts {
    pub(crate) fn push(&mut self, row: &Row) {
        if let RowKind::Expired(expired) = &row.kind {
            let cut = self.0.entry(row.feed.id).or_default();
            *cut = sql_seq(expired.at(row.seq)).max(*cut);
        }
    }
}

/// Has feeds begin anew, once the batch's entries are there.
pub(crate) async fn expire(tx: &mut PgConnection, cuts: &Cuts) -> Result<()> {
    if cuts.0.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "UPDATE chats c SET expired_seq = b.cut, to_purge = true, oldest_at = (
             SELECT m.created_at FROM messages m
             WHERE m.chat_id = c.id AND m.seq > b.cut AND m.kind = 'message'
             ORDER BY m.seq LIMIT 1
         )
         FROM unnest($1::uuid[], $2::bigint[]) AS b (id, cut)
         WHERE c.id = b.id AND c.expired_seq < b.cut",
    )
    .bind(cuts.0.keys().copied().collect::<Vec<_>>())
    .bind(cuts.0.values().copied().collect::<Vec<_>>())
    .execute(tx)
    .await?;
    Ok(())
}

/// Where a chat's feed begins; 0 also for one that is not there.
pub(crate) async fn expired_seq(tx: &mut PgConnection, chat: ChatId) -> Result<Seq> {
    let begin: Option<i64> = sqlx::query_scalar("SELECT expired_seq FROM chats WHERE id = $1")
        .bind(chat.0)
        .fetch_optional(tx)
        .await?;
    Ok(seq(begin.unwrap_or(0)))
}

/// Keeps the messages of a chat for so long from now on. The caller has locked it.
pub(crate) async fn keep_for(tx: &mut PgConnection, chat: ChatId, secs: Option<u32>) -> Result<()> {
    sqlx::query("UPDATE chats SET retention_secs = $2, expiry_asked_at = NULL WHERE id = $1")
        .bind(chat.0)
        .bind(secs.map(|secs| i32::try_from(secs).unwrap_or(i32::MAX)))
        .execute(tx)
        .await?;
    Ok(())
}

/// What is said of that.
pub(crate) fn told(name: &str, secs: Option<u32>) -> String {
    const UNITS: [(u32, &str); 4] =
        [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let Some(secs) = secs else {
        return format!("{name} let messages be kept as everywhere");
    };
    let fits = UNITS.into_iter().find(|(unit, _)| secs.is_multiple_of(*unit));
    let (unit, word) = fits.unwrap_or((1, "second"));
    let count = secs / unit;
    let plural = if count == 1 { "" } else { "s" };
    format!("{name} had messages removed after {count} {word}{plural}")
}

/// A chat of which messages may have expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aging {
    /// The chat.
    pub chat: ChatId,
    /// Where its feed lives.
    pub shard: Shard,
    /// For how long its messages are kept.
    pub kept: Duration,
    /// Where its feed begins,
    expired: i64,
    /// and where it ended when this was read.
    last: i64,
}

/// What of a chat was removed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    /// So many rows; there may be more.
    Some(u64),
    /// All that there was.
    All,
    /// Somebody else is about it.
    Busy,
}

impl Store {
    /// Some chats whose oldest message is older than it is kept, that nobody has looked at for `again`.
    /// Those that say nothing themselves keep theirs for `default`, or for ever.
    pub async fn take_aging(
        &self,
        default: Option<Duration>,
        again: Duration,
        limit: u32,
    ) -> Result<Vec<Aging>> {
        let rows: Vec<(Uuid, i16, Option<i32>, i64, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "WITH own AS (
                         SELECT id FROM chats
                         WHERE retention_secs IS NOT NULL AND oldest_at IS NOT NULL
                           AND oldest_at - '1970-01-01 00:00:00+00'::timestamptz
                               + make_interval(secs => retention_secs)
                               < now() - '1970-01-01 00:00:00+00'::timestamptz
                           AND (expiry_asked_at IS NULL OR expiry_asked_at <= now() - $2)
                         ORDER BY oldest_at - '1970-01-01 00:00:00+00'::timestamptz
                                  + make_interval(secs => retention_secs)
                         LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
                     ), others AS (
                         SELECT id FROM chats
                         WHERE retention_secs IS NULL AND oldest_at < now() - $1
                           AND (expiry_asked_at IS NULL OR expiry_asked_at <= now() - $2)
                         ORDER BY oldest_at LIMIT $3 FOR NO KEY UPDATE SKIP LOCKED
                     )
                     UPDATE chats SET expiry_asked_at = now()
                     WHERE id IN (SELECT id FROM own UNION ALL SELECT id FROM others)
                     RETURNING id, shard, retention_secs, expired_seq, last_seq",
                )
                .bind(default)
                .bind(again)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        let aging = rows.into_iter().filter_map(|(chat, shard, secs, expired, last)| {
            let own = secs.and_then(|secs| u64::try_from(secs).ok()).map(Duration::from_secs);
            let kept = own.or(default)?;
            Some(Aging { chat: chat.into(), shard: rows::shard(shard), kept, expired, last })
        });
        Ok(aging.collect())
    }

    /// The last entry of the chat before the first that is younger than what is kept; none when no
    /// message lies before that, and then it is noted how old the oldest is.
    pub async fn find_cut(&self, aging: &Aging, now: OffsetDateTime) -> Result<Option<Seq>> {
        let until = now - aging.kept;
        self.call(async |db| {
            let oldest: Option<OffsetDateTime> = sqlx::query_scalar(
                "SELECT created_at FROM messages
                 WHERE chat_id = $1 AND seq > $2 AND kind = 'message' ORDER BY seq LIMIT 1",
            )
            .bind(aging.chat.0)
            .bind(aging.expired)
            .fetch_optional(&mut *db)
            .await?;
            if oldest.is_none_or(|oldest| oldest > until) {
                note_oldest(db, aging, oldest).await?;
                return Result::<_>::Ok(None);
            }
            last_until(db, aging, until).await.map(|place| place.map(seq))
        })
        .await
    }

    /// Has all of some groups expired that were deleted longer than `kept` ago, as far as their feeds are
    /// written. Answers how many.
    pub async fn empty_deleted(&self, kept: Duration, limit: u32) -> Result<u64> {
        let done = self
            .call(async |db| {
                sqlx::query(
                    "UPDATE chats SET expired_seq = GREATEST(expired_seq, last_seq), to_purge = true,
                         emptied = true, oldest_at = NULL, title = NULL, title_lower = NULL,
                         description = NULL
                     WHERE id IN (
                         SELECT id FROM chats
                         WHERE deleted_at IS NOT NULL AND NOT emptied AND deleted_at <= now() - $1
                         ORDER BY deleted_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
                     )",
                )
                .bind(kept)
                .bind(i64::from(limit))
                .execute(db)
                .await
            })
            .await?;
        Ok(done.rows_affected())
    }

    /// Some chats with rows that are to be removed, those after `after`.
    pub async fn chats_to_purge(&self, after: Option<ChatId>, limit: u32) -> Result<Vec<ChatId>> {
        let ids: Vec<Uuid> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT id FROM chats
                     WHERE to_purge AND id > COALESCE($1, '00000000-0000-0000-0000-000000000000')
                     ORDER BY id LIMIT $2",
                )
                .bind(after.map(|chat| chat.0))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(ids.into_iter().map(ChatId).collect())
    }

    /// Removes some of what has expired of a chat, `limit` rows at most, without locking the chat: the
    /// worker goes on writing to it.
    pub async fn purge(&self, chat: ChatId, limit: u32) -> Result<Purged> {
        self.transaction(async |tx| {
            if !take(tx, chat).await? {
                return Ok(Purged::Busy);
            }
            let found: Option<(i64, bool)> =
                sqlx::query_as("SELECT expired_seq, emptied FROM chats WHERE id = $1 AND to_purge")
                    .bind(chat.0)
                    .fetch_optional(&mut *tx)
                    .await?;
            let Some((expired, emptied)) = found else { return Ok(Purged::All) };
            let last: Option<i64> = sqlx::query_scalar(
                "SELECT seq FROM messages WHERE chat_id = $1 AND seq <= $2
                 ORDER BY seq DESC LIMIT 1",
            )
            .bind(chat.0)
            .bind(expired)
            .fetch_optional(&mut *tx)
            .await?;
            let most = i64::from(limit);
            let mut gone = remove_messages(tx, chat, last.unwrap_or(0), most).await?;
            if gone < most {
                gone += remove_found(tx, chat, expired, most - gone).await?;
            }
            for statement in [REACTIONS, REACTION_COUNTS] {
                if gone < most {
                    gone += remove(tx, statement, chat, expired, most - gone).await?;
                }
            }
            if gone > 0 {
                return Ok(Purged::Some(u64::try_from(gone).unwrap_or(0)));
            }
            if let Some(last) = last {
                void(tx, chat, last).await?;
            }
            if emptied {
                forget_participants(tx, chat).await?;
            }
            // Not when the feed begins further on by now.
            sqlx::query("UPDATE chats SET to_purge = false WHERE id = $1 AND expired_seq = $2")
                .bind(chat.0)
                .bind(expired)
                .execute(&mut *tx)
                .await?;
            Ok(Purged::All)
        })
        .await
    }

    /// Where the feeds of these chats begin, of those of which something has expired.
    pub async fn begins(&self, chats: &[ChatId]) -> Result<BTreeMap<ChatId, Seq>> {
        let ids: Vec<Uuid> = chats.iter().map(|chat| chat.0).collect();
        let begins: Vec<(Uuid, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT id, expired_seq FROM chats WHERE id = ANY($1) AND expired_seq > 0",
                )
                .bind(ids)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(begins.into_iter().map(|(chat, begin)| (ChatId(chat), seq(begin))).collect())
    }
}

/// Notes the time of the oldest message, unless something has been written since: then whoever wrote
/// it knows more.
async fn note_oldest(
    db: &mut PgConnection,
    aging: &Aging,
    oldest: Option<OffsetDateTime>,
) -> Result<()> {
    sqlx::query(
        "UPDATE chats SET oldest_at = $2
         WHERE id = $1 AND expired_seq = $3 AND last_seq = $4 AND oldest_at IS DISTINCT FROM $2",
    )
    .bind(aging.chat.0)
    .bind(oldest)
    .bind(aging.expired)
    .bind(aging.last)
    .execute(db)
    .await?;
    Ok(())
}

/// The last entry before the first that was stored after `until`, of those that have not expired yet.
async fn last_until(
    db: &mut PgConnection,
    aging: &Aging,
    until: OffsetDateTime,
) -> Result<Option<i64>> {
    let first: Vec<(i64, OffsetDateTime)> = sqlx::query_as(
        "SELECT seq, created_at FROM messages WHERE chat_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
    )
    .bind(aging.chat.0)
    .bind(aging.expired)
    .bind(WINDOW)
    .fetch_all(&mut *db)
    .await?;
    let old = first.iter().take_while(|(_, at)| *at <= until);
    let Some((mut last, _)) = old.last().copied() else { return Ok(None) };
    if first.last().is_none_or(|(end, _)| *end != last) || (first.len() as i64) < WINDOW {
        return Ok(Some(last));
    }
    // Times go up with places. All up to `low` is old, and nothing from `high` on is known to be.
    let (mut low, mut high) = (last, aging.last.saturating_add(1));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        let there: Option<(i64, OffsetDateTime)> = sqlx::query_as(
            "SELECT seq, created_at FROM messages WHERE chat_id = $1 AND seq > $2 AND seq <= $3
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(aging.chat.0)
        .bind(low)
        .bind(middle)
        .fetch_optional(&mut *db)
        .await?;
        match there {
            Some((place, at)) if at <= until => (last, low) = (place, middle),
            Some((place, _)) => high = place,
            None => low = middle,
        }
    }
    Ok(Some(last))
}

/// Takes the chat until the transaction ends, unless somebody has it. Of two chats that share a number
/// one waits for another round.
async fn take(tx: &mut PgConnection, chat: ChatId) -> Result<bool> {
    let taken = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1, hashtext($2))")
        .bind(PURGES)
        .bind(chat.to_string())
        .fetch_one(tx)
        .await?;
    Ok(taken)
}

/// Removes entries before `last`, oldest first, and who has fetched their files. (A trigger has the files
/// removed.)
async fn remove_messages(
    tx: &mut PgConnection,
    chat: ChatId,
    last: i64,
    limit: i64,
) -> Result<i64> {
    let gone: Vec<Option<Uuid>> = sqlx::query_scalar(
        "WITH old AS (
             SELECT seq FROM messages WHERE chat_id = $1 AND seq < $2 ORDER BY seq LIMIT $3
         )
         DELETE FROM messages m USING old
         WHERE m.chat_id = $1 AND m.seq = old.seq
         RETURNING CASE WHEN m.media IS NOT NULL THEN m.id END",
    )
    .bind(chat.0)
    .bind(last)
    .bind(limit)
    .fetch_all(&mut *tx)
    .await?;
    let with_files: Vec<Uuid> = gone.iter().copied().flatten().collect();
    forget_downloads(tx, with_files).await?;
    Ok(gone.len() as i64)
}

/// Forgets who has fetched the files of these messages.
async fn forget_downloads(tx: &mut PgConnection, messages: Vec<Uuid>) -> Result<()> {
    if !messages.is_empty() {
        sqlx::query("DELETE FROM media_downloads WHERE message_id = ANY($1)")
            .bind(messages)
            .execute(tx)
            .await?;
    }
    Ok(())
}

/// Removes what messages were found by, and the words that no message has any more.
async fn remove_found(
    tx: &mut PgConnection,
    chat: ChatId,
    expired: i64,
    limit: i64,
) -> Result<i64> {
    let gone: Vec<Vec<String>> = sqlx::query_scalar(
        "WITH old AS (
             SELECT seq FROM message_search WHERE chat_id = $1 AND seq <= $2 ORDER BY seq LIMIT $3
         )
         DELETE FROM message_search s USING old
         WHERE s.chat_id = $1 AND s.seq = old.seq
         RETURNING tsvector_to_array(s.words)",
    )
    .bind(chat.0)
    .bind(expired)
    .bind(limit.min(FORGOTTEN))
    .fetch_all(&mut *tx)
    .await?;
    let count = gone.len() as i64;
    // Those by which messages are filtered are none.
    let words: BTreeSet<String> =
        gone.into_iter().flatten().filter(|word| !word.starts_with(['@', '^', '!'])).collect();
    search::index::forget(tx, words).await?;
    Ok(count)
}

const REACTIONS: &str = "WITH old AS (
        SELECT message_seq, user_id, emoji FROM reactions
        WHERE chat_id = $1 AND message_seq <= $2
        ORDER BY message_seq, user_id, emoji LIMIT $3
    )
    DELETE FROM reactions r USING old s
    WHERE r.chat_id = $1 AND r.message_seq = s.message_seq AND r.user_id = s.user_id
      AND r.emoji = s.emoji";

const REACTION_COUNTS: &str = "WITH old AS (
        SELECT message_seq, emoji FROM reaction_counts
        WHERE chat_id = $1 AND message_seq <= $2 ORDER BY message_seq, emoji LIMIT $3
    )
    DELETE FROM reaction_counts c USING old s
    WHERE c.chat_id = $1 AND c.message_seq = s.message_seq AND c.emoji = s.emoji";

async fn remove(
    tx: &mut PgConnection,
    statement: &'static str,
    chat: ChatId,
    expired: i64,
    limit: i64,
) -> Result<i64> {
    let done = sqlx::query(statement).bind(chat.0).bind(expired).bind(limit).execute(tx).await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

/// Leaves nothing of an entry but its place and its number.
async fn void(tx: &mut PgConnection, chat: ChatId, place: i64) -> Result<()> {
    let with_file: Option<Uuid> = sqlx::query_scalar(
        "SELECT id FROM messages WHERE chat_id = $1 AND seq = $2 AND media IS NOT NULL",
    )
    .bind(chat.0)
    .bind(place)
    .fetch_optional(&mut *tx)
    .await?
    .flatten();
    forget_downloads(tx, with_file.into_iter().collect()).await?;
    // The trigger that has a file removed looks for the message's id as it was before.
    sqlx::query(
        "UPDATE messages SET kind = 'void', id = NULL, sender_id = NULL, device_id = NULL,
             client_msg_id = NULL, content = '', media = NULL, reply_to = NULL, mentions = NULL,
             detail = jsonb_build_object('reason', 'it has expired'),
             edited_at = NULL, edit_seq = NULL, deleted_at = NULL, deleted_by = NULL
         WHERE chat_id = $1 AND seq = $2 AND kind <> 'void'",
    )
    .bind(chat.0)
    .bind(place)
    .execute(tx)
    .await?;
    Ok(())
}

/// Of a group that was deleted: how far its participants were, what they wanted of it, and who was
/// banned.
async fn forget_participants(tx: &mut PgConnection, chat: ChatId) -> Result<()> {
    sqlx::query(
        "UPDATE chat_members
         SET read_seq = 0, delivered_seq = 0, muted_until = NULL, hidden_seq = NULL
         WHERE chat_id = $1
           AND (read_seq > 0 OR delivered_seq > 0 OR muted_until IS NOT NULL
                OR hidden_seq IS NOT NULL)",
    )
    .bind(chat.0)
    .execute(&mut *tx)
    .await?;
    sqlx::query("DELETE FROM chat_bans WHERE chat_id = $1").bind(chat.0).execute(tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_the_largest_unit_that_it_is_a_multiple_of() {
        for (secs, said) in [
            (Some(86_400), "1 day"),
            (Some(7_200), "2 hours"),
            (Some(5_400), "90 minutes"),
            (Some(86_401), "86401 seconds"),
        ] {
            let msg = told("Ada", secs);
            assert!(msg.ends_with(&format!("after {said}")), "{msg}");
        }
        assert!(told("Ada", None).ends_with("as everywhere"));
    }
}
