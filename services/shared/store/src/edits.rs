//! What becomes of messages after they were sent: edits, deletions and reactions as the worker writes
//! them, and what gateways read to show them and to decide on the next.
//!
//! The log decides: of two edits the later one counts, a deletion is final, and of what somebody does
//! with one emoji the last thing counts. So it does not matter how entries fall into batches.
//!
//! A message is found by its id. The place that an entry names beside it is where the message was when
//! the entry was published: what a new epoch salvages of the old one's log has got another since.

use std::collections::{BTreeMap, HashMap, HashSet};

use natter_protocol::{
    feed::Expired,
    ids::{ChatId, MessageId, Seq, UserId},
    media::Media,
    server::{
        Message, MessageDeleted, MessageEdited, MessagesExpired, Quote, Reaction, ReactionCount,
        SystemDetail,
    },
    timestamp,
};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Row, RowKind, Store,
    history::PageRow,
    rows::{MessageRow, seq, sql_seq},
};

/// What a batch does to messages: for each of them only what counts in the end.
#[derive(Default)]
pub(crate) struct Changes {
    /// By chat, message and who edits: the last one.
    edits: BTreeMap<(Uuid, Uuid, Uuid), Edit>,
    /// By chat and message: the first one.
    deletions: BTreeMap<(Uuid, Uuid), Deletion>,
    /// By chat, message, user and emoji: the last one.
    reactions: BTreeMap<(Uuid, Uuid, Uuid, String), Reacting>,
}

struct Edit {
    content: String,
    mentions: Option<String>,
    seq: i64,
    at: OffsetDateTime,
}

struct Deletion {
    actor: Uuid,
    seq: i64,
    at: OffsetDateTime,
}

struct Reacting {
    seq: i64,
    active: bool,
}

/// Users as an array of Postgres in text; none when there are none. (An array of arrays would have to
/// be rectangular.)
pub(crate) fn array(users: &[UserId]) -> Option<String> {
    let list = || users.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    (!users.is_empty()).then(|| format!("{{{}}}", list()))
}

impl Changes {
    pub(crate) fn push(&mut self, row: &Row) {
        let (chat, place, at) = (row.feed.id, sql_seq(row.seq), timestamp::truncate(row.at));
        match &row.kind {
            RowKind::Edit(edited) => {
                let edit = Edit {
                    content: edited.content.clone(),
                    mentions: array(&edited.mentions),
                    seq: place,
                    at,
                };
                let key = (chat, edited.target.message_id.0, edited.actor_id.0);
                if self.edits.get(&key).is_none_or(|known| known.seq < place) {
                    self.edits.insert(key, edit);
                }
            }
            RowKind::Delete(deleted) => {
                let deletion = Deletion { actor: deleted.actor_id.0, seq: place, at };
                let key = (chat, deleted.target.message_id.0);
                if self.deletions.get(&key).is_none_or(|known| known.seq > place) {
                    self.deletions.insert(key, deletion);
                }
            }
            RowKind::Reaction(reacted) => {
                let reacting = Reacting { seq: place, active: reacted.on };
                let message = reacted.target.message_id.0;
                let key = (chat, message, reacted.user_id.0, reacted.emoji.clone());
                if self.reactions.get(&key).is_none_or(|known| known.seq < place) {
                    self.reactions.insert(key, reacting);
                }
            }
            RowKind::Message(_)
            | RowKind::System(_)
            | RowKind::UserEvent
            | RowKind::Read(_)
            | RowKind::Delivered(_)
            | RowKind::Expired(_)
            | RowKind::Void { .. } => {}
        }
    }

    /// Does it all, once the batch's messages are there and what has expired is known. A message that is
    /// not there is passed over, and what comes too late changes nothing.
    pub(crate) async fn apply(&self, tx: &mut PgConnection) -> Result<()> {
        self.edit(tx).await?;
        self.delete(tx).await?;
        self.react(tx).await
    }

    async fn edit(&self, tx: &mut PgConnection) -> Result<()> {
        if self.edits.is_empty() {
            return Ok(());
        }
        let edits = || self.edits.values();
        sqlx::query(
            "UPDATE messages m SET
                 content = e.content, mentions = e.mentions::uuid[],
                 edited_at = e.at, edit_seq = e.seq
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[],
                         $7::timestamptz[])
                  AS e (chat_id, message_id, actor, content, mentions, seq, at)
             WHERE m.chat_id = e.chat_id AND m.id = e.message_id AND m.kind = 'message'
               AND m.sender_id = e.actor
               AND m.deleted_at IS NULL AND COALESCE(m.edit_seq, 0) < e.seq",
        )
        .bind(self.edits.keys().map(|key| key.0).collect::<Vec<_>>())
        .bind(self.edits.keys().map(|key| key.1).collect::<Vec<_>>())
        .bind(self.edits.keys().map(|key| key.2).collect::<Vec<_>>())
        .bind(edits().map(|edit| edit.content.as_str()).collect::<Vec<_>>())
        .bind(edits().map(|edit| edit.mentions.as_deref()).collect::<Vec<_>>())
        .bind(edits().map(|edit| edit.seq).collect::<Vec<_>>())
        .bind(edits().map(|edit| edit.at).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }

    /// A message that loses its media loses the file too: a trigger sees to that.
    async fn delete(&self, tx: &mut PgConnection) -> Result<()> {
        if self.deletions.is_empty() {
            return Ok(());
        }
        let deletions = || self.deletions.values();
        let gone: Vec<(Uuid, i64)> = sqlx::query_as(
            "UPDATE messages m SET
                 content = '', media = NULL, mentions = NULL, edited_at = NULL,
                 deleted_at = e.at, deleted_by = e.actor, edit_seq = e.seq
             FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::timestamptz[])
                  AS e (chat_id, message_id, actor, seq, at)
             WHERE m.chat_id = e.chat_id AND m.id = e.message_id AND m.kind = 'message'
               AND m.deleted_at IS NULL
             RETURNING m.chat_id, m.seq",
        )
        .bind(self.deletions.keys().map(|key| key.0).collect::<Vec<_>>())
        .bind(self.deletions.keys().map(|key| key.1).collect::<Vec<_>>())
        .bind(deletions().map(|deletion| deletion.actor).collect::<Vec<_>>())
        .bind(deletions().map(|deletion| deletion.seq).collect::<Vec<_>>())
        .bind(deletions().map(|deletion| deletion.at).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
        if gone.is_empty() {
            return Ok(());
        }
        let (chats, places): (Vec<Uuid>, Vec<i64>) = gone.into_iter().unzip();
        sqlx::query(
            "WITH gone AS (
                 SELECT * FROM unnest($1::uuid[], $2::bigint[]) AS g (chat_id, message_seq)
             ), taken AS (
                 DELETE FROM reactions r USING gone g
                 WHERE r.chat_id = g.chat_id AND r.message_seq = g.message_seq
             )
             DELETE FROM reaction_counts c USING gone g
             WHERE c.chat_id = g.chat_id AND c.message_seq = g.message_seq",
        )
        .bind(chats)
        .bind(places)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// One statement counts what it really changes: it sees how things were before it.
    async fn react(&self, tx: &mut PgConnection) -> Result<()> {
        if self.reactions.is_empty() {
            return Ok(());
        }
        let reactions = || self.reactions.values();
        sqlx::query(
            "WITH news AS (
                 SELECT e.*, m.seq AS message_seq, COALESCE(r.active, false) AS was
                 FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[],
                             $6::boolean[])
                      AS e (chat_id, message_id, user_id, emoji, seq, active)
                 -- With their limits these are a look-up for each, however many a batch has: of partitions
                 -- Postgres may think that reading all of them is cheaper.
                 CROSS JOIN LATERAL (
                     SELECT seq FROM messages
                     WHERE chat_id = e.chat_id AND id = e.message_id
                       AND kind = 'message' AND deleted_at IS NULL LIMIT 1
                 ) m
                 LEFT JOIN LATERAL (
                     SELECT seq, active FROM reactions
                     WHERE chat_id = e.chat_id AND message_seq = m.seq
                       AND user_id = e.user_id AND emoji = e.emoji LIMIT 1
                 ) r ON true
                 -- Whoever removes what has expired does not come back for more.
                 WHERE (r.seq IS NULL OR r.seq < e.seq) AND m.seq > COALESCE((
                     SELECT c.expired_seq FROM chats c WHERE c.id = e.chat_id
                 ), 0)
             ), kept AS (
                 INSERT INTO reactions (chat_id, message_seq, user_id, emoji, seq, active)
                 SELECT chat_id, message_seq, user_id, emoji, seq, active FROM news
                 ON CONFLICT (chat_id, message_seq, user_id, emoji)
                 DO UPDATE SET seq = excluded.seq, active = excluded.active
             ), moved AS (
                 SELECT chat_id, message_seq, emoji, sum(active::int - was::int) AS more
                 FROM news GROUP BY chat_id, message_seq, emoji
             )
             INSERT INTO reaction_counts AS c (chat_id, message_seq, emoji, count)
             SELECT chat_id, message_seq, emoji, more FROM moved WHERE more <> 0
             ON CONFLICT (chat_id, message_seq, emoji) DO UPDATE SET count = c.count + excluded.count",
        )
        .bind(self.reactions.keys().map(|key| key.0).collect::<Vec<_>>())
        .bind(self.reactions.keys().map(|key| key.1).collect::<Vec<_>>())
        .bind(self.reactions.keys().map(|key| key.2).collect::<Vec<_>>())
        .bind(self.reactions.keys().map(|key| key.3.as_str()).collect::<Vec<_>>())
        .bind(reactions().map(|reacting| reacting.seq).collect::<Vec<_>>())
        .bind(reactions().map(|reacting| reacting.active).collect::<Vec<_>>())
        .execute(tx)
        .await?;
        Ok(())
    }
}

/// A message that is written long after its place may have been deleted meanwhile. (What an edit said
/// is kept nowhere but in the message, so an edit that was passed over then is lost.)
pub(crate) async fn take_back_late(tx: &mut PgConnection, row: &Row) -> Result<()> {
    let RowKind::Message(message) = &row.kind else { return Ok(()) };
    sqlx::query(
        "UPDATE messages m SET
             content = '', media = NULL, mentions = NULL, edited_at = NULL,
             deleted_at = d.created_at, deleted_by = d.sender_id, edit_seq = d.seq
         FROM (
             SELECT seq, sender_id, created_at FROM messages
             WHERE chat_id = $1 AND seq > $2 AND kind = 'delete' AND detail ->> 'messageId' = $4
             ORDER BY seq LIMIT 1
         ) d
         WHERE m.chat_id = $1 AND m.seq = $2 AND m.id = $3",
    )
    .bind(row.feed.id)
    .bind(sql_seq(row.seq))
    .bind(message.id.0)
    .bind(message.id.to_string())
    .execute(tx)
    .await?;
    Ok(())
}

/// What surrounds messages that are shown, all of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Around {
    /// All of the shard up to here is in Postgres at this moment.
    pub persisted_seq: Seq,
    /// By the message's place: how people have reacted.
    pub reactions: HashMap<Seq, Vec<ReactionCount>>,
    /// Of the reactions that were asked about: those that are set.
    pub set: HashSet<(Seq, UserId, String)>,
    /// Of the messages that were asked about: what a quote shows of them.
    pub quotes: HashMap<MessageId, Quote>,
}

#[derive(sqlx::FromRow)]
struct AroundRow {
    persisted_seq: i64,
    counts: Json<Vec<CountRow>>,
    reacted: Json<Vec<(Seq, UserId, String)>>,
    quotes: Json<Vec<Quote>>,
}

#[derive(Deserialize)]
struct CountRow {
    seq: Seq,
    #[serde(flatten)]
    count: ReactionCount,
}

/// An entry of a chat's feed, as a connection is told that has missed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedEntry {
    /// A message, as it is now; or a system entry.
    Message(Box<Message>),
    /// An edit, with the content that the message has now.
    Edited(MessageEdited),
    /// A deletion; also in place of an edit of a message that is deleted now, or not there.
    Deleted(MessageDeleted),
    /// A reaction.
    Reaction(Reaction),
    /// What lies up to a place is not there any more.
    Expired(MessagesExpired),
}

impl FeedEntry {
    /// Its place.
    #[must_use]
    pub fn seq(&self) -> Seq {
        match self {
            Self::Message(message) => message.seq,
            Self::Edited(edited) => edited.seq,
            Self::Deleted(deleted) => deleted.seq,
            Self::Reaction(reaction) => reaction.seq,
            Self::Expired(expired) => expired.seq,
        }
    }
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    kind: String,
    chat_id: Uuid,
    seq: i64,
    prev_seq: i64,
    id: Option<Uuid>,
    sender_id: Option<Uuid>,
    sender_name: Option<String>,
    sender_bot: Option<bool>,
    device_id: Option<Uuid>,
    client_msg_id: Option<String>,
    content: String,
    media: Option<Json<Box<Media>>>,
    reply_to: Option<Uuid>,
    detail: Option<Json<Value>>,
    created_at: OffsetDateTime,
    mentions: Option<Vec<Uuid>>,
    edited_at: Option<OffsetDateTime>,
    deleted_at: Option<OffsetDateTime>,
    /// What the message that it changes is now.
    now_seq: Option<i64>,
    now_content: Option<String>,
    now_mentions: Option<Vec<Uuid>>,
    now_deleted_by: Option<Uuid>,
}

/// The `detail` of an entry that changes a message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeDetail {
    message_id: MessageId,
    message_seq: Seq,
    #[serde(default)]
    emoji: String,
    #[serde(default)]
    on: bool,
}

impl EntryRow {
    /// None for one that cannot be read.
    fn entry(self) -> Option<FeedEntry> {
        let (place, prev_seq, chat_id) = (seq(self.seq), seq(self.prev_seq), ChatId(self.chat_id));
        let detail = self.detail.map(|Json(detail)| detail);
        if matches!(self.kind.as_str(), "message" | "system") {
            let detail: Option<SystemDetail> = match detail {
                Some(detail) => Some(serde_json::from_value(detail).ok()?),
                None => None,
            };
            let row = MessageRow {
                chat_id: self.chat_id,
                seq: self.seq,
                prev_seq: self.prev_seq,
                id: self.id,
                sender_id: self.sender_id,
                sender_name: self.sender_name,
                sender_bot: self.sender_bot,
                device_id: self.device_id,
                client_msg_id: self.client_msg_id,
                content: self.content,
                media: self.media,
                reply_to: self.reply_to,
                detail: detail.map(Json),
                created_at: self.created_at,
                mentions: self.mentions,
                edited_at: self.edited_at,
                deleted_at: self.deleted_at,
            };
            return Some(FeedEntry::Message(Box::new(row.into())));
        }
        if self.kind == "expired" {
            let Expired { up_to } = serde_json::from_value(detail?).ok()?;
            let created_at = self.created_at;
            return Some(FeedEntry::Expired(MessagesExpired {
                chat_id,
                seq: place,
                prev_seq,
                up_to,
                created_at,
            }));
        }
        let ChangeDetail { message_id, message_seq, emoji, on } =
            serde_json::from_value(detail?).ok()?;
        let message_seq = self.now_seq.map_or(message_seq, seq);
        let actor_id = UserId(self.sender_id?);
        let deleted = |actor_id| {
            FeedEntry::Deleted(MessageDeleted {
                chat_id,
                seq: place,
                prev_seq,
                message_id,
                message_seq,
                actor_id,
                deleted_at: self.created_at,
            })
        };
        Some(match self.kind.as_str() {
            "edit" => match self.now_deleted_by {
                Some(actor) => deleted(UserId(actor)),
                // The message has expired; the edit keeps its place.
                None if self.now_seq.is_none() => deleted(actor_id),
                None => FeedEntry::Edited(MessageEdited {
                    chat_id,
                    seq: place,
                    prev_seq,
                    message_id,
                    message_seq,
                    actor_id,
                    content: self.now_content?,
                    mentions: self
                        .now_mentions
                        .unwrap_or_default()
                        .into_iter()
                        .map(UserId)
                        .collect(),
                    edited_at: self.created_at,
                }),
            },
            "delete" => deleted(actor_id),
            "reaction" => FeedEntry::Reaction(Reaction {
                chat_id,
                seq: place,
                prev_seq,
                message_id,
                message_seq,
                user_id: actor_id,
                emoji,
                on,
                created_at: self.created_at,
            }),
            _ => return None,
        })
    }
}

impl Store {
    /// The message, and up to where the shard of its chat is written: all of one moment.
    ///
    /// # Errors
    /// `NotFound` when there is no such chat.
    pub async fn message(
        &self,
        chat: ChatId,
        message: MessageId,
    ) -> Result<(Seq, Option<Message>)> {
        let row: PageRow = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT c.shard, c.expired_seq, COALESCE(s.persisted_seq, 0) AS persisted_seq,
                    0::bigint AS head, false AS reacted, $1 AS chat_id, m.seq, m.id, m.sender_id, m.device_id, m.client_msg_id,
                    m.content, m.media, m.reply_to, NULL::jsonb AS detail, m.created_at,
                    u.name AS sender_name, u.bot AS sender_bot, m.mentions, m.edited_at, m.deleted_at,
                    0::bigint AS prev_seq
             FROM chats c
             LEFT JOIN shards s ON s.shard = c.shard
             LEFT JOIN LATERAL (
                 SELECT * FROM messages
                 WHERE chat_id = $1 AND id = $2 AND kind = 'message' AND seq > c.expired_seq LIMIT 1
             ) m ON true
             LEFT JOIN users u ON u.id = m.sender_id
             WHERE c.id = $1",
                )
                .bind(chat.0)
                .bind(message.0)
                .fetch_one(db)
                .await
            })
            .await?;
        Ok((seq(row.persisted_seq), row.message()))
    }

    /// How people have reacted to the messages at `places`, as `viewer` sees it; which of the reactions
    /// `asked` about are set; and what a quote shows of the messages that are `answered`, of those beyond
    /// `begin`.
    ///
    /// # Errors
    /// `NotFound` when there is no such chat.
    pub async fn around(
        &self,
        chat: ChatId,
        viewer: UserId,
        places: &[Seq],
        asked: &[(Seq, UserId, &str)],
        answered: &[MessageId],
        begin: Seq,
    ) -> Result<Around> {
        let row: AroundRow = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT COALESCE(s.persisted_seq, 0) AS persisted_seq,
                    COALESCE((
                        SELECT jsonb_agg(jsonb_build_object(
                            'seq', n.message_seq, 'emoji', n.emoji, 'count', n.count,
                            'mine', COALESCE(r.active, false)
                        ))
                        FROM reaction_counts n
                        LEFT JOIN reactions r
                          ON r.chat_id = $1 AND r.message_seq = n.message_seq
                         AND r.user_id = $2 AND r.emoji = n.emoji
                        WHERE n.chat_id = $1 AND n.message_seq = ANY($3) AND n.count > 0
                    ), '[]') AS counts,
                    COALESCE((
                        SELECT jsonb_agg(jsonb_build_array(r.message_seq, r.user_id, r.emoji))
                        FROM unnest($4::bigint[], $5::uuid[], $6::text[])
                             AS a (message_seq, user_id, emoji)
                        JOIN reactions r
                          ON r.chat_id = $1 AND r.message_seq = a.message_seq
                         AND r.user_id = a.user_id AND r.emoji = a.emoji AND r.active
                    ), '[]') AS reacted,
                    COALESCE((
                        SELECT jsonb_agg(jsonb_build_object(
                            'id', m.id, 'senderId', m.sender_id, 'senderName', COALESCE(u.name, ''),
                            'content', left(m.content, $8),
                            'contentType', CASE WHEN m.media IS NULL THEN 'text' ELSE 'media' END,
                            'deleted', m.deleted_at IS NOT NULL
                        ))
                        FROM messages m LEFT JOIN users u ON u.id = m.sender_id
                        WHERE m.chat_id = $1 AND m.id = ANY($7) AND m.kind = 'message'
                          AND m.seq > GREATEST(c.expired_seq, $9)
                    ), '[]') AS quotes
             FROM chats c
             LEFT JOIN shards s ON s.shard = c.shard
             WHERE c.id = $1",
                )
                .bind(chat.0)
                .bind(viewer.0)
                .bind(places.iter().copied().map(sql_seq).collect::<Vec<_>>())
                .bind(asked.iter().map(|asked| sql_seq(asked.0)).collect::<Vec<_>>())
                .bind(asked.iter().map(|asked| asked.1.0).collect::<Vec<_>>())
                .bind(asked.iter().map(|asked| asked.2).collect::<Vec<_>>())
                .bind(answered.iter().map(|id| id.0).collect::<Vec<_>>())
                .bind(i32::try_from(natter_protocol::limits::QUOTE_CHARS).unwrap_or(i32::MAX))
                .bind(sql_seq(begin))
                .fetch_one(db)
                .await
            })
            .await?;
        let mut around = Around {
            persisted_seq: seq(row.persisted_seq),
            set: row.reacted.0.into_iter().collect(),
            quotes: row.quotes.0.into_iter().map(|quote| (quote.id, quote)).collect(),
            ..Around::default()
        };
        for CountRow { seq, count } in row.counts.0 {
            around.reactions.entry(seq).or_default().push(count);
        }
        Ok(around)
    }

    /// The entries of a chat's feed between two places that have not expired, oldest first, at most
    /// `limit` of them; and up to where that is all of it, `before` excluded. The first one names none
    /// before it where that has expired.
    pub async fn feed(
        &self,
        chat: ChatId,
        after: Seq,
        before: Seq,
        limit: u32,
    ) -> Result<(Vec<FeedEntry>, Option<Seq>)> {
        let mut rows: Vec<EntryRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT m.kind, m.chat_id, m.seq, m.id, m.sender_id, m.device_id, m.client_msg_id,
                    m.content, m.media, m.reply_to, m.detail, m.created_at, u.name AS sender_name, u.bot AS sender_bot,
                    m.mentions, m.edited_at, m.deleted_at,
                    now.seq AS now_seq, now.content AS now_content, now.mentions AS now_mentions,
                    now.deleted_by AS now_deleted_by,
                    COALESCE((
                        SELECT p.seq FROM messages p
                        WHERE p.chat_id = $1 AND p.seq < m.seq AND p.seq > c.expired_seq
                        ORDER BY p.seq DESC LIMIT 1
                    ), 0) AS prev_seq
             FROM chats c
             CROSS JOIN LATERAL (
                 SELECT * FROM messages
                 WHERE chat_id = $1 AND seq > GREATEST($2, c.expired_seq) AND seq < $3
                   AND kind <> 'void'
                 ORDER BY seq LIMIT $4
             ) m
             LEFT JOIN users u ON u.id = m.sender_id
             LEFT JOIN LATERAL (
                 SELECT t.seq, t.content, t.mentions, t.deleted_by FROM messages t
                 WHERE m.kind IN ('edit', 'delete', 'reaction') AND t.chat_id = $1
                   AND t.id = (m.detail ->> 'messageId')::uuid AND t.kind = 'message'
                   AND t.seq > c.expired_seq
             ) now ON true
             WHERE c.id = $1
             ORDER BY m.seq",
                )
                .bind(chat.0)
                .bind(sql_seq(after))
                .bind(sql_seq(before))
                // One more tells whether there is more.
                .bind(i64::from(limit) + 1)
                .fetch_all(db)
                .await
            })
            .await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let up_to = rows.last().filter(|_| more).map(|row| seq(row.seq));
        Ok((rows.into_iter().filter_map(EntryRow::entry).collect(), up_to))
    }

    /// Of these users, those who take part.
    pub async fn take_part(&self, chat: ChatId, users: &[UserId]) -> Result<Vec<UserId>> {
        let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
        let found: Vec<Uuid> = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT user_id FROM chat_members
             WHERE chat_id = $1 AND user_id = ANY($2) AND left_at IS NULL",
                )
                .bind(chat.0)
                .bind(ids)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(found.into_iter().map(UserId).collect())
    }
}
