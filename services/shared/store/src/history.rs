//! Pages of a chat's messages, and whether a message was sent before.

use natter_protocol::{
    ids::{ChatId, MessageId, Seq, Shard, UserId},
    limits,
    media::Media,
    server::{Message, SystemDetail},
};
use sqlx::{FromRow, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError,
    partitions::{PARTITIONS, of_partitions},
    rows::{self, Columns, MessageRow, seq, sql_seq},
};

/// Which messages. Values beyond what is stored are clamped. Neither bound: the newest ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The newest ones below this.
    pub before: Option<Seq>,
    /// The oldest ones above this. With both, the oldest ones in between.
    pub after: Option<Seq>,
    /// How many: 1 to [`natter_protocol::limits::PAGE`]; clamped.
    pub limit: u32,
}

/// A page of history, of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistorySlice {
    /// Oldest first. System entries are among them; void entries, and those that change messages, are
    /// not, but count for `prev_seq`.
    pub messages: Vec<Message>,
    /// Whether there are more in the direction that was asked for.
    pub has_more: bool,
    /// Whether anybody has ever reacted to one of the chat's messages.
    pub reacted: bool,
    /// The shard of the chat's feed.
    pub shard: Shard,
    /// All of the shard up to here is in Postgres at this moment; what lies beyond is the log's
    /// to tell.
    pub persisted_seq: Seq,
    /// The page holds everything of the feed after this place …
    ///
    /// - with `after`: `after` itself;
    /// - else: the entry before the first message of the page, or where the feed begins when there is
    ///   nothing older.
    ///
    /// Never below where the feed begins.
    pub from_seq: Seq,
    /// … up to this one, never below `from_seq`:
    ///
    /// - with `after` and more to come: the last message of the page;
    /// - else: the feed's last entry in the range that was asked for, as far as Postgres knows
    ///   (those not shown too), or `from_seq` when there is none.
    pub to_seq: Seq,
    /// Where the feed begins, since what lies up to there has expired; 0 when nothing has.
    pub expired_seq: Seq,
    /// With `has_more`: the first that is not on the page.
    pub next: Option<Seq>,
}

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentBefore {
    /// Its id.
    pub id: MessageId,
    /// Its place.
    pub seq: Seq,
    /// The entry before it; 0 when it was the first.
    pub prev_seq: Seq,
    /// When the broker stored it.
    pub created_at: OffsetDateTime,
}

/// A page out of the entries on one side of a place, in one statement, so that the page, the feed's
/// last entry, the shard's position and whether the viewer takes part are of one moment. The chat's
/// row is there also when the page is empty.
///
/// Made to be planned once for all values (see [`partitions`](crate::partitions)): there is a limit
/// that does not depend on these, and one bound only where one is enough, since of a range whose ends it
/// does not know the planner thinks that it holds next to nothing, and sorts all of it.
///
/// The entry before a message is the message before it where nothing that is not shown lies within the
/// page, which counting tells; looking it up for each takes as long as the rest. (A window over all
/// entries would have to sort all of the chat's.)
macro_rules! page {
    ($range:literal, $kept:literal, $order:literal, $before:literal, $partition:literal) => {
        concat!(
            "SELECT c.shard, c.expired_seq, COALESCE(s.persisted_seq, 0) AS persisted_seq,
                    COALESCE(h.head, 0) AS head,
                    (SELECT min(message_seq) FROM reaction_counts_",
            $partition,
            " WHERE chat_id = $1) IS NOT NULL AS reacted,
                    $1 AS chat_id, m.seq, m.id, m.sender_id, m.device_id, m.client_msg_id,
                    m.content, m.media, m.reply_to, m.detail, m.created_at, u.name AS sender_name, u.bot AS sender_bot,
                    m.mentions, m.edited_at, m.deleted_at,
                    COALESCE(m.before, (
                        SELECT p.seq FROM messages_",
            $partition,
            " p WHERE p.chat_id = $1 AND p.seq < m.seq
                        ORDER BY p.seq DESC LIMIT 1
                    ), 0) AS prev_seq
             FROM chats c
             LEFT JOIN shards s ON s.shard = c.shard
             CROSS JOIN LATERAL (
                 SELECT max(seq) AS head FROM messages_",
            $partition,
            " WHERE chat_id = $1 AND ",
            $range,
            "
             ) h
             LEFT JOIN LATERAL (
                 WITH page AS MATERIALIZED (
                     SELECT * FROM (
                         SELECT * FROM messages_",
            $partition,
            " WHERE chat_id = $1 AND ",
            $range,
            " AND kind IN ('message', 'system')
                         ORDER BY seq ",
            $order,
            " LIMIT 201
                     ) most WHERE ",
            $kept,
            " LIMIT $3
                 ), whole AS MATERIALIZED (
                     SELECT count(*) = (SELECT count(*) FROM page) AS shown FROM (
                         SELECT 1 FROM messages_",
            $partition,
            " WHERE chat_id = $1
                           AND seq BETWEEN (SELECT min(seq) FROM page) AND (SELECT max(seq) FROM page)
                         LIMIT 202
                     ) entries
                 )
                 SELECT page.*, CASE WHEN (SELECT shown FROM whole) THEN ",
            $before,
            "(seq) OVER (ORDER BY seq ",
            $order,
            ") END AS before FROM page
             ) m ON true
             LEFT JOIN LATERAL (SELECT name, bot FROM users WHERE id = m.sender_id LIMIT 1) u ON true
             WHERE c.id = $1 AND ($4::uuid IS NULL OR EXISTS (
                 SELECT 1 FROM chat_members v
                 WHERE v.chat_id = $1 AND v.user_id = $4 AND v.left_at IS NULL
             ))
             ORDER BY m.seq ",
            $order
        )
    };
}
/// The limit in the statements.
const _: () = assert!(limits::PAGE == 200, "a page and one more");
const AFTER: [&str; PARTITIONS] =
    of_partitions!(page, "seq > GREATEST($2, c.expired_seq)", "true", "ASC", "lag");
/// What has expired is left out last: in the order from the newest on it comes at the end.
const BEFORE: [&str; PARTITIONS] =
    of_partitions!(page, "seq < $2", "most.seq > c.expired_seq", "DESC", "lead");
const BETWEEN: [&str; PARTITIONS] =
    of_partitions!(page, "seq > GREATEST($2, c.expired_seq) AND seq < $5", "true", "ASC", "lag");

/// In the order of the statements' columns.
pub(crate) struct PageRow {
    shard: i16,
    expired_seq: i64,
    pub(crate) persisted_seq: i64,
    head: i64,
    reacted: bool,
    chat_id: Uuid,
    seq: Option<i64>,
    id: Option<Uuid>,
    sender_id: Option<Uuid>,
    device_id: Option<Uuid>,
    client_msg_id: Option<String>,
    content: Option<String>,
    media: Option<Json<Box<Media>>>,
    reply_to: Option<Uuid>,
    detail: Option<Json<SystemDetail>>,
    created_at: Option<OffsetDateTime>,
    sender_name: Option<String>,
    sender_bot: Option<bool>,
    mentions: Option<Vec<Uuid>>,
    edited_at: Option<OffsetDateTime>,
    deleted_at: Option<OffsetDateTime>,
    prev_seq: i64,
}

impl FromRow<'_, PgRow> for PageRow {
    fn from_row(row: &PgRow) -> sqlx::Result<Self> {
        let mut columns = Columns::of(row);
        Ok(Self {
            shard: columns.next()?,
            expired_seq: columns.next()?,
            persisted_seq: columns.next()?,
            head: columns.next()?,
            reacted: columns.next()?,
            chat_id: columns.next()?,
            seq: columns.next()?,
            id: columns.next()?,
            sender_id: columns.next()?,
            device_id: columns.next()?,
            client_msg_id: columns.next()?,
            content: columns.next()?,
            media: columns.next()?,
            reply_to: columns.next()?,
            detail: columns.next()?,
            created_at: columns.next()?,
            sender_name: columns.next()?,
            sender_bot: columns.next()?,
            mentions: columns.next()?,
            edited_at: columns.next()?,
            deleted_at: columns.next()?,
            prev_seq: columns.next()?,
        })
    }
}

impl PageRow {
    /// The entry; none in the one row of an empty page.
    pub(crate) fn message(self) -> Option<Message> {
        let row = MessageRow {
            chat_id: self.chat_id,
            seq: self.seq?,
            prev_seq: self.prev_seq,
            id: self.id,
            sender_id: self.sender_id,
            sender_name: self.sender_name,
            sender_bot: self.sender_bot,
            device_id: self.device_id,
            client_msg_id: self.client_msg_id,
            content: self.content?,
            media: self.media,
            reply_to: self.reply_to,
            detail: self.detail,
            created_at: self.created_at?,
            mentions: self.mentions,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
        };
        Some(row.into())
    }
}

impl Store {
    /// A page of a chat's history. Whether the caller may see it is the caller's to check.
    ///
    /// # Errors
    /// `NotFound` when there is no such chat.
    pub async fn history(&self, chat: ChatId, page: Page) -> Result<HistorySlice> {
        self.slice(None, chat, page).await
    }

    /// The same for one of the chat's participants.
    ///
    /// # Errors
    /// `NotFound` also when the viewer takes no part in it.
    pub async fn history_for(
        &self,
        viewer: UserId,
        chat: ChatId,
        page: Page,
    ) -> Result<HistorySlice> {
        self.slice(Some(viewer), chat, page).await
    }

    async fn slice(
        &self,
        viewer: Option<UserId>,
        chat: ChatId,
        page: Page,
    ) -> Result<HistorySlice> {
        let limit = page.limit.clamp(1, limits::PAGE) as usize;
        let after = sql_seq(page.after.unwrap_or(0));
        let (statements, bound, end) = match (page.after, page.before) {
            (None, before) => (&BEFORE, before.map_or(i64::MAX, sql_seq), None),
            (Some(_), None) => (&AFTER, after, None),
            (Some(_), Some(before)) => (&BETWEEN, after, Some(sql_seq(before))),
        };
        let rows: Vec<PageRow> = self
            .call(async |db| {
                let partition = self.partitions.of(db, chat.0).await?;
                let asked = sqlx::query_as(statements[partition])
                    .bind(chat.0)
                    .bind(bound)
                    // One more tells whether there is more.
                    .bind(limit as i64 + 1)
                    .bind(viewer.map(|viewer| viewer.0));
                let asked = match end {
                    Some(end) => asked.bind(end),
                    None => asked,
                };
                asked.fetch_all(db).await
            })
            .await?;
        let Some(first) = rows.first() else {
            return Err(StoreError::NotFound);
        };
        let (shard, persisted_seq) = (rows::shard(first.shard), seq(first.persisted_seq));
        let (head, reacted) = (seq(first.head), first.reacted);
        let expired_seq = seq(first.expired_seq);
        // The entries come in the direction that was asked for, the extra one last.
        let mut messages: Vec<Message> = rows.into_iter().filter_map(PageRow::message).collect();
        let next = messages.get(limit).map(|message| message.seq);
        let has_more = next.is_some();
        messages.truncate(limit);
        let (from_seq, to_seq) = if page.after.is_some() {
            let from = seq(after).max(expired_seq);
            let end = messages.last().filter(|_| has_more);
            (from, end.map_or(head.max(from), |last| last.seq))
        } else {
            messages.reverse();
            let start = messages.first().filter(|_| has_more);
            let from = start.map_or(expired_seq, |first| first.prev_seq);
            (from, head.max(from))
        };
        Ok(HistorySlice {
            messages,
            has_more,
            reacted,
            shard,
            persisted_seq,
            from_seq,
            to_seq,
            expired_seq,
            next,
        })
    }

    /// The message that was stored for this triple, the key of idempotency.
    pub async fn sent_before(
        &self,
        chat: ChatId,
        sender: UserId,
        client_msg_id: &str,
    ) -> Result<Option<SentBefore>> {
        let row: Option<(Uuid, i64, i64, OffsetDateTime)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT m.id, m.seq, COALESCE((
                 SELECT p.seq FROM messages p WHERE p.chat_id = $1 AND p.seq < m.seq
                 ORDER BY p.seq DESC LIMIT 1
             ), 0), m.created_at
             FROM messages m
             WHERE m.chat_id = $1 AND m.sender_id = $2 AND m.client_msg_id = $3",
                )
                .bind(chat.0)
                .bind(sender.0)
                .bind(client_msg_id)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|(id, place, prev, created_at)| SentBefore {
            id: id.into(),
            seq: seq(place),
            prev_seq: seq(prev),
            created_at,
        }))
    }
}
