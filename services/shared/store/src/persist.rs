//! A batch of feed entries, written in one transaction.

use std::collections::{BTreeMap, HashMap};

use natter_protocol::{
    client::Mark,
    feed::{
        Deleted, Edited, Expired, Feed, FeedKind, MessageSent, Reacted, SystemEvent, SystemKind,
    },
    ids::{Seq, Shard, UserId},
    server::SystemDetail,
    timestamp,
};
use serde_json::{Value, json};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError,
    edits::{Changes, array},
    reads::{Marks, move_marks},
    retention::{self, Cuts},
    rows::{sql_seq, sql_shard},
};

/// The kind that counts.
const MESSAGE: &str = "message";
/// Characters kept of a void entry's reason.
const REASON_CHARS: usize = 500;

/// An entry of the log, as it is written.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of which feed.
    pub feed: Feed,
    /// Its place.
    pub seq: Seq,
    /// When the broker stored it; whole milliseconds are kept.
    pub at: OffsetDateTime,
    /// What it is.
    pub kind: RowKind,
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum RowKind {
    /// On a chat's feed: a message.
    Message(MessageSent),
    /// On a chat's feed: something about the chat itself.
    System(SystemEvent),
    /// On a user's feed: anything else. Only its place is kept.
    UserEvent,
    /// On a user's feed: a chat is read up to a place.
    Read(Mark),
    /// On a user's feed: a device has got a chat up to a place.
    Delivered(Mark),
    /// An entry that could not be read or written: it keeps its place and is not shown.
    Void {
        /// Why, for the operator; never the content.
        reason: String,
    },
    /// On a chat's feed: a message has another content. Like a deletion and a reaction it is written
    /// as a place without content, and what it says is done to the message.
    Edit(Edited),
    /// On a chat's feed: a message is taken back.
    Delete(Deleted),
    /// On a chat's feed: somebody reacts to a message, or does not any more.
    Reaction(Reacted),
    /// On a chat's feed: what lies at or below a place is not there any more. Likewise.
    Expired(Expired),
}

impl Store {
    /// Writes what the log holds after `from` up to `to`, and moves the shard's position from
    /// `from` to `to`, in one transaction. Doing it again changes nothing but is `Fenced`, since
    /// the position has moved. With `from == to` and no rows only the time moves: a quiet shard
    /// is written up to now.
    ///
    /// # Errors
    /// `Fenced` when `owner` is not the owner any more or the position is not `from`;
    /// [`StoreError::is_data_error`](crate::StoreError::is_data_error) when one of the rows cannot
    /// be written: halve the batch until it is found, and write it as [`RowKind::Void`].
    pub async fn persist(
        &self,
        shard: Shard,
        owner: &str,
        from: Seq,
        to: Seq,
        to_at: OffsetDateTime,
        rows: &[Row],
    ) -> Result<()> {
        let batch = Batch::of(rows);
        self.transaction(async |tx| {
            // The fence comes first. Another owner that is writing holds this row until it commits,
            // and then the position is not `from` any more; a claim waits likewise for this write.
            // Whether the lease has run out does not matter as long as nobody else has claimed.
            let moved = sqlx::query(
                "UPDATE shards SET persisted_seq = $4, persisted_at = GREATEST(persisted_at, $5)
             WHERE shard = $1 AND owner = $2 AND persisted_seq = $3 AND $4 >= $3",
            )
            .bind(sql_shard(shard))
            .bind(owner)
            .bind(sql_seq(from))
            .bind(sql_seq(to))
            .bind(timestamp::truncate(to_at))
            .execute(&mut *tx)
            .await?;
            if moved.rows_affected() != 1 {
                return Err(StoreError::Fenced);
            }
            let numbers = batch.number(tx).await?;
            let written = batch.entries.insert(tx, &numbers).await?;
            if written.len() < batch.entries.chats.len() {
                batch.entries.fill_places(tx).await?;
                batch.entries.number_again(tx).await?;
            }
            retention::expire(tx, &batch.cuts).await?;
            batch.changes.apply(tx).await?;
            move_chats(tx, &batch, &written, Counting::Here).await?;
            batch.entries.send_media(tx).await?;
            move_marks(tx, &batch.marks, &written).await?;
            move_users(tx, &batch).await?;
            Ok(())
        })
        .await
    }
}

/// A batch in the columns that SQL takes.
#[derive(Default)]
pub(crate) struct Batch {
    /// The entries of chats' feeds.
    pub(crate) entries: Entries,
    /// What they do to messages.
    pub(crate) changes: Changes,
    /// Where feeds begin anew.
    pub(crate) cuts: Cuts,
    /// The last entry of each chat's feed.
    chat_heads: BTreeMap<Uuid, i64>,
    /// The last entry of each user's feed.
    user_heads: BTreeMap<Uuid, i64>,
    /// How far users are in chats, as their feeds tell.
    pub(crate) marks: Marks,
}

impl Batch {
    pub(crate) fn of(rows: &[Row]) -> Self {
        let mut batch = Self::default();
        // One chat after another, each in its feed's order: what a page of history shows then lies side
        // by side, and so do the places in the indexes that it goes to.
        let mut rows: Vec<&Row> = rows.iter().collect();
        rows.sort_by_key(|row| row.feed.id);
        for row in rows {
            let place = sql_seq(row.seq);
            let heads = match row.feed.kind {
                FeedKind::Chat => {
                    batch.entries.push(row);
                    batch.changes.push(row);
                    batch.cuts.push(row);
                    &mut batch.chat_heads
                }
                FeedKind::User => {
                    batch.marks.push(row);
                    &mut batch.user_heads
                }
            };
            let head = heads.entry(row.feed.id).or_insert(place);
            *head = place.max(*head);
        }
        batch
    }

    /// The number of each entry: the count of its chat's messages up to and with it, taking none to
    /// repeat another. Nobody else counts meanwhile: whoever does holds the shard's row.
    async fn number(&self, tx: &mut PgConnection) -> Result<Vec<Option<i64>>> {
        if self.chat_heads.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = self.chat_heads.keys().copied().collect();
        let counts: Vec<(Uuid, i64)> =
            sqlx::query_as("SELECT id, message_count FROM chats WHERE id = ANY($1)")
                .bind(ids)
                .fetch_all(tx)
                .await?;
        let mut counts: HashMap<Uuid, i64> = counts.into_iter().collect();
        let entries = self.entries.chats.iter().zip(&self.entries.kinds);
        let numbers = entries.map(|(chat, kind)| {
            let count = counts.entry(*chat).or_default();
            *count += i64::from(*kind == MESSAGE);
            Some(*count)
        });
        Ok(numbers.collect())
    }
}

/// Rows of `messages`, by column.
#[derive(Default)]
pub(crate) struct Entries {
    pub(crate) chats: Vec<Uuid>,
    seqs: Vec<i64>,
    kinds: Vec<&'static str>,
    ids: Vec<Option<Uuid>>,
    senders: Vec<Option<Uuid>>,
    devices: Vec<Option<Uuid>>,
    client_msg_ids: Vec<Option<String>>,
    contents: Vec<String>,
    media: Vec<Option<Value>>,
    reply_tos: Vec<Option<Uuid>>,
    details: Vec<Option<Value>>,
    times: Vec<OffsetDateTime>,
    mentions: Vec<Option<String>>,
}

/// An entry that was inserted.
#[derive(sqlx::FromRow)]
pub(crate) struct Written {
    pub(crate) chat_id: Uuid,
    pub(crate) seq: i64,
    /// Of a message: who sent it.
    pub(crate) sender_id: Option<Uuid>,
    pub(crate) is_message: bool,
    created_at: OffsetDateTime,
}

impl Entries {
    fn push(&mut self, row: &Row) {
        self.chats.push(row.feed.id);
        self.seqs.push(sql_seq(row.seq));
        self.times.push(timestamp::truncate(row.at));
        match &row.kind {
            RowKind::Message(message) => self.push_message(message),
            RowKind::System(event) => self.push_system(event),
            RowKind::UserEvent | RowKind::Read(_) | RowKind::Delivered(_) => {
                self.push_void("an event of a user's feed on a chat's");
            }
            RowKind::Void { reason } => self.push_void(reason),
            RowKind::Edit(edited) => {
                self.push_change("edit", edited.actor_id, json!(edited.target));
            }
            RowKind::Delete(deleted) => {
                self.push_change("delete", deleted.actor_id, json!(deleted.target));
            }
            RowKind::Reaction(reacted) => {
                let mut detail = json!(reacted.target);
                detail["emoji"] = json!(reacted.emoji);
                detail["on"] = json!(reacted.on);
                self.push_change("reaction", reacted.user_id, detail);
            }
            RowKind::Expired(expired) => {
                let up_to = expired.at(row.seq);
                self.push_other("expired", String::new(), json!(Expired { up_to }));
            }
        }
    }

    fn push_message(&mut self, message: &MessageSent) {
        self.kinds.push(MESSAGE);
        self.ids.push(Some(message.id.0));
        self.senders.push(Some(message.sender.id.0));
        self.devices.push(message.device_id.map(Into::into));
        self.client_msg_ids.push(Some(message.client_msg_id.clone()));
        self.contents.push(message.content.clone());
        self.media.push(message.media.as_ref().map(|media| json!(media)));
        self.reply_tos.push(message.reply_to.map(Into::into));
        self.details.push(None);
        self.mentions.push(array(&message.mentions));
    }

    fn push_system(&mut self, event: &SystemEvent) {
        let detail = SystemDetail::from(event);
        self.push_other("system", event.msg.clone(), json!(detail));
        if let Some(sender) = self.senders.last_mut() {
            *sender = Some(event.actor_id.0);
        }
    }

    fn push_change(&mut self, kind: &'static str, actor: UserId, mut detail: Value) {
        // To a gateway of the version before what is not void is a system entry, and it fails to read
        // one without these. So it shows an empty line, while the upgrade lasts.
        detail["kind"] = json!(SystemKind::Role);
        detail["actorId"] = json!(Uuid::nil());
        self.push_other(kind, String::new(), detail);
        if let Some(sender) = self.senders.last_mut() {
            *sender = Some(actor.0);
        }
    }

    /// A void entry is the last resort for one that cannot be written: nothing in it may fail.
    fn push_void(&mut self, reason: &str) {
        let reason: String = reason.chars().filter(|c| *c != '\0').take(REASON_CHARS).collect();
        self.push_other("void", String::new(), json!({ "reason": reason }));
    }

    fn push_other(&mut self, kind: &'static str, content: String, detail: Value) {
        self.kinds.push(kind);
        self.ids.push(None);
        self.senders.push(None);
        self.devices.push(None);
        self.client_msg_ids.push(None);
        self.contents.push(content);
        self.media.push(None);
        self.reply_tos.push(None);
        self.details.push(Some(detail));
        self.mentions.push(None);
    }

    /// Inserts what is not there, by place and by triple, and returns what was. An entry without a
    /// number takes its place among the others, which count on.
    pub(crate) async fn insert(
        &self,
        tx: &mut PgConnection,
        numbers: &[Option<i64>],
    ) -> Result<Vec<Written>> {
        let written = sqlx::query_as(
            "INSERT INTO messages (chat_id, seq, kind, id, sender_id, device_id, client_msg_id,
                                   content, media, reply_to, detail, created_at, mentions, nth)
             SELECT chat_id, seq, kind, id, sender_id, device_id, client_msg_id,
                    content, media, reply_to, detail, created_at, mentions::uuid[], nth
             FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::uuid[], $5::uuid[],
                         $6::uuid[], $7::text[], $8::text[], $9::jsonb[], $10::uuid[],
                         $11::jsonb[], $12::timestamptz[], $13::text[], $14::bigint[])
                  AS e (chat_id, seq, kind, id, sender_id, device_id, client_msg_id,
                        content, media, reply_to, detail, created_at, mentions, nth)
             ON CONFLICT DO NOTHING
             RETURNING chat_id, seq, sender_id, kind = 'message' AS is_message, created_at",
        )
        .bind(&self.chats)
        .bind(&self.seqs)
        .bind(&self.kinds)
        .bind(&self.ids)
        .bind(&self.senders)
        .bind(&self.devices)
        .bind(&self.client_msg_ids)
        .bind(&self.contents)
        .bind(&self.media)
        .bind(&self.reply_tos)
        .bind(&self.details)
        .bind(&self.times)
        .bind(&self.mentions)
        .bind(numbers)
        .fetch_all(tx)
        .await?;
        Ok(written)
    }

    /// Numbers the entries by what is there: some were not inserted as they are.
    async fn number_again(&self, tx: &mut PgConnection) -> Result<()> {
        let mut firsts: BTreeMap<Uuid, i64> = BTreeMap::new();
        for (chat, seq) in self.chats.iter().zip(&self.seqs) {
            let first = firsts.entry(*chat).or_insert(*seq);
            *first = (*first).min(*seq);
        }
        let (chats, firsts): (Vec<Uuid>, Vec<i64>) = firsts.into_iter().unzip();
        sqlx::query(
            "UPDATE messages m SET nth = counted.nth
             FROM (
                 SELECT e.chat_id, e.seq, b.count + count(*) FILTER (WHERE e.kind = 'message')
                            OVER (PARTITION BY e.chat_id ORDER BY e.seq) AS nth
                 FROM unnest($1::uuid[], $2::bigint[]) AS f (chat_id, seq)
                 CROSS JOIN LATERAL (
                     SELECT COALESCE((
                         SELECT nth FROM messages p
                         WHERE p.chat_id = f.chat_id AND p.seq < f.seq
                         ORDER BY p.seq DESC LIMIT 1
                     ), 0) AS count
                 ) b
                 CROSS JOIN LATERAL (
                     SELECT chat_id, seq, kind FROM messages
                     WHERE chat_id = f.chat_id AND seq >= f.seq
                 ) e
             ) counted
             WHERE m.chat_id = counted.chat_id AND m.seq = counted.seq
               AND m.nth IS DISTINCT FROM counted.nth",
        )
        .bind(chats)
        .bind(firsts)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// The files of these messages are theirs for good.
    pub(crate) async fn send_media(&self, tx: &mut PgConnection) -> Result<()> {
        let messages: Vec<Uuid> = self
            .ids
            .iter()
            .zip(&self.media)
            .filter_map(|(id, media)| media.as_ref().and(*id))
            .collect();
        if messages.is_empty() {
            return Ok(());
        }
        sqlx::query("UPDATE media SET sent = true WHERE message_id = ANY($1) AND NOT sent")
            .bind(&messages)
            .execute(tx)
            .await?;
        Ok(())
    }

    /// A message whose triple is stored at an earlier place repeats it (its retry came after the
    /// broker's window). Its own place stays an entry of the feed, as connections saw it go by.
    pub(crate) async fn fill_places(&self, tx: &mut PgConnection) -> Result<()> {
        sqlx::query(
            "INSERT INTO messages (chat_id, seq, kind, detail, created_at)
             SELECT chat_id, seq, 'void', jsonb_build_object('reason', 'repeats a message'), at
             FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS e (chat_id, seq, at)
             ON CONFLICT DO NOTHING",
        )
        .bind(&self.chats)
        .bind(&self.seqs)
        .bind(&self.times)
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// Who counts a chat's messages that were inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counting {
    /// They came with their numbers.
    Here,
    /// They came without, and have been counted as they were inserted.
    Done,
}

/// Moves each chat's last entry, last message and activity forward, and counts its messages. A chat
/// that is not there is passed over. No deadlock: only one writer of a shard gets here at a time, and whoever else
/// locks chats locks one.
pub(crate) async fn move_chats(
    tx: &mut PgConnection,
    batch: &Batch,
    written: &[Written],
    counting: Counting,
) -> Result<()> {
    let mut last_message: BTreeMap<Uuid, (i64, OffsetDateTime)> = BTreeMap::new();
    let mut first_times: HashMap<Uuid, OffsetDateTime> = HashMap::new();
    let mut counts: HashMap<Uuid, i64> = HashMap::new();
    for message in written.iter().filter(|written| written.is_message) {
        let this = (message.seq, message.created_at);
        let last = last_message.entry(message.chat_id).or_insert(this);
        *last = this.max(*last);
        let first = first_times.entry(message.chat_id).or_insert(message.created_at);
        *first = message.created_at.min(*first);
        *counts.entry(message.chat_id).or_default() += i64::from(counting == Counting::Here);
    }
    let (ids, heads): (Vec<Uuid>, Vec<i64>) = batch.chat_heads.iter().unzip();
    let messages: Vec<_> = ids.iter().map(|id| last_message.get(id).copied()).collect();
    let places: Vec<Option<i64>> = messages.iter().map(|last| last.map(|(seq, _)| seq)).collect();
    let times: Vec<Option<OffsetDateTime>> =
        messages.iter().map(|last| last.map(|(_, at)| at)).collect();
    let firsts: Vec<Option<OffsetDateTime>> =
        ids.iter().map(|id| first_times.get(id).copied()).collect();
    let counts: Vec<i64> = ids.iter().map(|id| counts.get(id).copied().unwrap_or(0)).collect();
    sqlx::query(
        "UPDATE chats c SET
             last_seq = GREATEST(c.last_seq, b.last_seq),
             last_message_seq = GREATEST(c.last_message_seq, b.message_seq),
             last_activity_at = GREATEST(c.last_activity_at, b.at),
             message_count = c.message_count + b.messages,
             oldest_at = COALESCE(c.oldest_at, b.oldest_at),
             emptied = false
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::bigint[],
                     $6::timestamptz[])
              AS b (id, last_seq, message_seq, at, messages, oldest_at)
         WHERE c.id = b.id",
    )
    .bind(ids)
    .bind(heads)
    .bind(places)
    .bind(times)
    .bind(counts)
    .bind(firsts)
    .execute(tx)
    .await?;
    Ok(())
}

pub(crate) async fn move_users(tx: &mut PgConnection, batch: &Batch) -> Result<()> {
    if batch.user_heads.is_empty() {
        return Ok(());
    }
    let (ids, heads): (Vec<Uuid>, Vec<i64>) = batch.user_heads.iter().unzip();
    sqlx::query(
        "UPDATE users u SET last_seq = GREATEST(u.last_seq, b.last_seq)
         FROM unnest($1::uuid[], $2::bigint[]) AS b (id, last_seq)
         WHERE u.id = b.id",
    )
    .bind(ids)
    .bind(heads)
    .execute(tx)
    .await?;
    Ok(())
}
