//! How far participants are in their chats, what is unread, and what each wants of a chat for
//! themselves.
//!
//! Every entry of a chat's feed has a number, the count of the chat's messages up to and with it
//! ([`persist`](crate::persist)), and every participant a place up to which they have read. What is
//! unread follows from the two when it is asked for: nothing is counted up or down, so nothing can
//! be counted wrongly.

use std::collections::BTreeMap;

use natter_protocol::{
    feed::UserChange,
    ids::{ChatId, Seq, Shard, UserId},
    rest::{ParticipantReceipt, UnreadTotal},
    server::Chat,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Row, RowKind, Store, StoreError, chats, outbox,
    persist::Written,
    rows::{self, seq, sql_seq},
};

/// Up to where the participant `m` has read. What came before they joined counts as read, whatever
/// their row says: it may be of an earlier time in the chat.
macro_rules! read_seq {
    () => {
        "GREATEST(m.read_seq, COALESCE(m.from_seq, 0))"
    };
}
pub(crate) use read_seq;

/// Whether the chat `c` is hidden from its participant `m`.
macro_rules! hidden {
    () => {
        "(m.hidden_seq IS NOT NULL AND COALESCE(c.last_message_seq, 0) <= m.hidden_seq)"
    };
}
pub(crate) use hidden;

/// What is unread in `v`, which has a chat's `id`, `message_count` and `expired_seq` and a participant's
/// `read_seq`, whatever the number of messages: two look-ups, and a row for each message that was
/// deleted before it was read. What has expired is not unread; the last row of it stays, for its number.
macro_rules! unread {
    () => {
        "GREATEST(v.message_count - COALESCE((
             SELECT p.nth FROM messages p
             WHERE p.chat_id = v.id AND p.seq <= GREATEST(v.read_seq, v.expired_seq)
             ORDER BY p.seq DESC LIMIT 1
         ), 0) - (
             SELECT count(*) FROM messages d
             WHERE d.chat_id = v.id AND d.seq > GREATEST(v.read_seq, v.expired_seq)
               AND d.deleted_at IS NOT NULL
               AND d.kind = 'message' AND d.nth IS NOT NULL
         ), 0)"
    };
}
pub(crate) use unread;

/// How far a batch moves participants: by chat and user, the furthest place that is read and the
/// furthest that is delivered.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeMap<(Uuid, Uuid), (i64, i64)>);

impl Marks {
    /// What an entry of a user's feed tells.
    pub(crate) fn push(&mut self, row: &Row) {
        let user = row.feed.id;
        match &row.kind {
            RowKind::Read(mark) => self.read(mark.chat_id.0, user, sql_seq(mark.seq)),
            RowKind::Delivered(mark) => {
                let (_, delivered) = self.0.entry((mark.chat_id.0, user)).or_default();
                *delivered = sql_seq(mark.seq).max(*delivered);
            }
            _ => {}
        }
    }

    fn read(&mut self, chat: Uuid, user: Uuid, place: i64) {
        let (read, _) = self.0.entry((chat, user)).or_default();
        *read = place.max(*read);
    }
}

/// Moves participants forward, senders to their own messages. Whoever is none is passed over.
pub(crate) async fn move_marks(
    tx: &mut PgConnection,
    told: &Marks,
    written: &[Written],
) -> Result<()> {
    let mut marks = Marks(told.0.clone());
    for message in written.iter().filter(|written| written.is_message) {
        if let Some(sender) = message.sender_id {
            marks.read(message.chat_id, sender, message.seq);
        }
    }
    if marks.0.is_empty() {
        return Ok(());
    }
    let (mut chats, mut users) = (Vec::new(), Vec::new());
    let (mut reads, mut deliveries) = (Vec::new(), Vec::new());
    for ((chat, user), (read, delivered)) in marks.0 {
        chats.push(chat);
        users.push(user);
        reads.push(read);
        deliveries.push(delivered);
    }
    // Locked in one order by all workers: a user's feed and a chat's may be in different shards, and tell
    // of the same participants. An update alone would lock in the order that its plan comes to them.
    sqlx::query(
        "WITH b AS (
             SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[])
                  AS b (chat_id, user_id, read_seq, delivered_seq)
         ), locked AS (
             SELECT b.* FROM b JOIN chat_members m USING (chat_id, user_id)
             WHERE m.read_seq < b.read_seq OR m.delivered_seq < b.delivered_seq
             ORDER BY m.chat_id, m.user_id
             FOR NO KEY UPDATE OF m
         )
         UPDATE chat_members m SET
             read_seq = GREATEST(m.read_seq, b.read_seq),
             delivered_seq = GREATEST(m.delivered_seq, b.delivered_seq)
         FROM locked b
         WHERE m.chat_id = b.chat_id AND m.user_id = b.user_id",
    )
    .bind(chats)
    .bind(users)
    .bind(reads)
    .bind(deliveries)
    .execute(tx)
    .await?;
    Ok(())
}

/// For how long a chat is muted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Muting {
    /// Until then.
    Until(OffsetDateTime),
    /// For ever.
    Forever,
    /// Not at all.
    Ended,
}

/// What a participant has changed for themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnChange {
    /// The chat as they see it now.
    pub chat: Chat,
    /// To relay.
    pub lane: Uuid,
}

impl Store {
    /// How many take part in a chat, and where its feed ends as far as it is written; none for an
    /// unknown chat.
    pub async fn size(&self, chat: ChatId) -> Result<Option<(u64, Seq)>> {
        let found: Option<(i64, i64)> = self
            .call(async |db| {
                sqlx::query_as("SELECT members, last_seq FROM chats WHERE id = $1")
                    .bind(chat.0)
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(found.map(|(members, last)| (u64::try_from(members).unwrap_or(0), seq(last))))
    }

    /// How far the participants of a chat are, by the time they joined: `most` of them at most.
    /// Whether the caller may see it is the caller's to check.
    pub async fn receipts(&self, chat: ChatId, most: u32) -> Result<Vec<ParticipantReceipt>> {
        let found: Vec<(Uuid, i64, i64)> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT m.user_id, ",
                    read_seq!(),
                    ", GREATEST(m.delivered_seq, ",
                    read_seq!(),
                    ") FROM chat_members m WHERE m.chat_id = $1 AND m.left_at IS NULL
                     ORDER BY m.joined_at, m.user_id LIMIT $2"
                ))
                .bind(chat.0)
                .bind(i64::from(most))
                .fetch_all(db)
                .await
            })
            .await?;
        let receipt = |(user, read, delivered): (Uuid, i64, i64)| ParticipantReceipt {
            user_id: user.into(),
            read_seq: seq(read),
            delivered_seq: seq(delivered),
        };
        Ok(found.into_iter().map(receipt).collect())
    }

    /// What is unread in all chats of the user that are listed.
    pub async fn unread_total(&self, user: UserId) -> Result<UnreadTotal> {
        let (total, chats): (i64, i64) = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT COALESCE(sum(u.unread), 0)::bigint, count(*) FILTER (WHERE u.unread > 0)
                     FROM (SELECT ",
                    unread!(),
                    " AS unread FROM (SELECT c.id, c.message_count, c.expired_seq, ",
                    read_seq!(),
                    " AS read_seq
                         FROM chat_members m JOIN chats c ON c.id = m.chat_id
                         WHERE m.user_id = $1 AND m.left_at IS NULL AND NOT ",
                    hidden!(),
                    ") v) u"
                ))
                .bind(user.0)
                .fetch_one(db)
                .await
            })
            .await?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(UnreadTotal { total: count(total), chats: count(chats) })
    }

    /// Mutes a chat for one of its participants, or ends that.
    ///
    /// # Errors
    /// `NotFound` for whoever is none.
    pub async fn mute(&self, user: UserId, chat: ChatId, muting: Muting) -> Result<OwnChange> {
        let (until, forever) = match muting {
            Muting::Until(at) => (Some(at), false),
            Muting::Forever => (None, true),
            Muting::Ended => (None, false),
        };
        self.transaction(async |tx| {
            let done = sqlx::query(
                "UPDATE chat_members SET muted_until = CASE WHEN $4 THEN 'infinity'::timestamptz ELSE $3::timestamptz END
                 WHERE chat_id = $1 AND user_id = $2 AND left_at IS NULL",
            )
            .bind(chat.0)
            .bind(user.0)
            .bind(until)
            .bind(forever)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::NotFound);
            }
            tell(tx, user, chat).await
        })
        .await
    }

    /// Hides a one-to-one from one of the two until there is a message beyond `end`, and beyond what
    /// is written.
    ///
    /// # Errors
    /// `NotFound` for whoever takes no part; `Forbidden` for a group.
    pub async fn hide(&self, user: UserId, chat: ChatId, end: Seq) -> Result<OwnChange> {
        self.transaction(async |tx| {
            let is_group: Option<bool> = sqlx::query_scalar(
                "UPDATE chat_members m SET
                     hidden_seq = CASE WHEN c.is_group THEN m.hidden_seq
                                       ELSE GREATEST(c.last_seq, $3) END
                 FROM chats c
                 WHERE c.id = m.chat_id AND m.chat_id = $1 AND m.user_id = $2
                   AND m.left_at IS NULL
                 RETURNING c.is_group",
            )
            .bind(chat.0)
            .bind(user.0)
            .bind(sql_seq(end))
            .fetch_optional(&mut *tx)
            .await?;
            match is_group {
                None => Err(StoreError::NotFound),
                Some(true) => Err(StoreError::Forbidden),
                Some(false) => tell(tx, user, chat).await,
            }
        })
        .await
    }
}

/// Has the user's other devices told of the chat. The participant's row is locked, so what is told
/// of one chat is told in its order.
async fn tell(tx: &mut PgConnection, user: UserId, chat: ChatId) -> Result<OwnChange> {
    let shard: i16 = sqlx::query_scalar("SELECT shard FROM users WHERE id = $1")
        .bind(user.0)
        .fetch_one(&mut *tx)
        .await?;
    let seen = chats::seen(tx, user, chat).await?.ok_or(StoreError::NotFound)?;
    let shard: Shard = rows::shard(shard);
    let change = UserChange::ChatUpdated(Box::new(seen.clone()));
    let lane = outbox::add_for_user(tx, user, shard, change).await?;
    Ok(OwnChange { chat: seen, lane })
}
