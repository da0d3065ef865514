//! Messages, in the order of their chats.

use std::collections::{HashMap, HashSet};

use natter_protocol::ids::Shard;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Brought, Import, Trouble, bounded, ensure_gone, people};
use crate::{Result, rows::sql_shard};

/// A message of a chat.
#[derive(Clone, Debug)]
pub struct ImportedMessage {
    /// The message's id here.
    pub id: Uuid,
    /// The chat's.
    pub chat: Uuid,
    /// Who sent it: somebody who is gone, when there is no such user.
    pub sender: Uuid,
    /// Where the feed of such a one lives.
    pub sender_shard: Shard,
    /// The device that it was sent on.
    pub device: Option<Uuid>,
    /// What names it besides, among its sender's in its chat: the old id.
    pub client_msg_id: String,
    /// What it says.
    pub content: String,
    /// What it answers.
    pub reply_to: Option<Uuid>,
    /// When it was sent.
    pub at: OffsetDateTime,
    /// When it was last edited.
    pub edited_at: Option<OffsetDateTime>,
    /// When it was deleted.
    pub deleted_at: Option<OffsetDateTime>,
    /// Its file.
    pub file: Option<NamedFile>,
}

/// A file that a message names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// The file's id here,
    pub id: Uuid,
    /// and that of this message's own, where another message has the file: each has one of its own here.
    pub own: Uuid,
    /// Where it was, if the message itself tells.
    pub url: Option<String>,
}

/// How far a chat is.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Progress {
    chat_id: Uuid,
    places: i64,
    last_at: Option<OffsetDateTime>,
    opened: bool,
    last_seq: i64,
    persisted_seq: i64,
    /// Some of its messages were removed here, since they are not kept for longer.
    cut: bool,
    /// Then the time of the oldest that is left, if one is.
    kept_from: Option<OffsetDateTime>,
}

impl Progress {
    /// Whether a message of this time may be there already: what an old system writes comes in the order
    /// of its times only mostly. To an open chat the old system has come back, and times may have changed.
    fn may_have(&self, at: OffsetDateTime) -> bool {
        self.last_at.is_some_and(|last| at <= last || self.opened)
    }

    /// Whether a message of this time that is not there was, or would be removed at once.
    fn has_removed(&self, at: OffsetDateTime) -> bool {
        let until = self.kept_from.or(self.last_at).filter(|_| self.cut);
        until.is_some_and(|until| at <= until)
    }
}

/// A message that is written, at its place.
struct Placed<'a> {
    message: &'a ImportedMessage,
    seq: i64,
    at: OffsetDateTime,
    reply_to: Option<Uuid>,
}

pub(super) async fn messages(
    tx: &mut PgConnection,
    import: &Import,
    messages: &[ImportedMessage],
) -> Result<Brought> {
    let mut brought = Brought::default();
    let mut chats = progress(tx, messages).await?;
    let known = written_before(tx, messages, &chats).await?;
    let mut placed: Vec<(usize, Placed<'_>)> = Vec::with_capacity(messages.len());
    for (nth, message) in messages.iter().enumerate() {
        let Some(chat) = chats.get_mut(&message.chat) else {
            brought.troubles.push((nth, Trouble::NoChat));
            continue;
        };
        let at = bounded(message.at);
        if known.contains(&message.id) || chat.has_removed(at) {
            brought.there += 1;
            continue;
        }
        // Of an opened chat whoever holds the shard's row (as this does) counts alone.
        if chat.opened && (chat.last_seq > chat.places || chat.places >= chat.persisted_seq) {
            brought.troubles.push((nth, Trouble::GoesOn));
            continue;
        }
        // Times go up with places: a feed is cut where they say.
        let at = match chat.last_at.filter(|last| at < *last) {
            Some(last) => {
                brought.troubles.push((nth, Trouble::Late));
                last
            }
            None => at,
        };
        chat.places += 1;
        chat.last_seq = chat.places;
        chat.last_at = Some(at);
        placed.push((nth, Placed { message, seq: chat.places, at, reply_to: message.reply_to }));
    }
    if placed.is_empty() {
        return Ok(brought);
    }
    without_false_replies(tx, &mut placed, &mut brought).await?;
    with_senders(tx, &placed, &mut brought).await?;
    brought.written = placed.len() as u64;
    let placed: Vec<Placed<'_>> = placed.into_iter().map(|(_, placed)| placed).collect();
    insert(tx, &placed).await?;
    note_files(tx, import, &placed).await?;
    move_chats(tx, &placed).await?;
    Ok(brought)
}

/// The chats' rows, which are locked. The shard's is too, where a chat can be written to.
async fn progress(
    tx: &mut PgConnection,
    messages: &[ImportedMessage],
) -> Result<HashMap<Uuid, Progress>> {
    let chats: HashSet<Uuid> = messages.iter().map(|message| message.chat).collect();
    let chats: Vec<Uuid> = chats.into_iter().collect();
    sqlx::query(
        "SELECT FROM shards WHERE shard IN (
             SELECT shard FROM imported_chats WHERE chat_id = ANY($1) AND opened
         ) ORDER BY shard FOR NO KEY UPDATE",
    )
    .bind(&chats)
    .execute(&mut *tx)
    .await?;
    let rows: Vec<Progress> = sqlx::query_as(
        "SELECT i.chat_id, i.places, i.last_at, i.opened, c.last_seq, s.persisted_seq,
                c.expired_seq > 0 AS cut,
                CASE WHEN c.expired_seq > 0 THEN (
                    SELECT m.created_at FROM messages m
                    WHERE m.chat_id = c.id AND m.seq > c.expired_seq AND m.seq <= i.places
                    ORDER BY m.seq LIMIT 1
                ) END AS kept_from
         FROM imported_chats i JOIN chats c ON c.id = i.chat_id JOIN shards s ON s.shard = c.shard
         WHERE i.chat_id = ANY($1) ORDER BY i.chat_id FOR NO KEY UPDATE OF i",
    )
    .bind(&chats)
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.chat_id, row)).collect())
}

/// Those that are there already. By their ids: an old system's clocks differ, and a transaction that took
/// long shows what is older than what was seen before it.
async fn written_before(
    tx: &mut PgConnection,
    messages: &[ImportedMessage],
    chats: &HashMap<Uuid, Progress>,
) -> Result<HashSet<Uuid>> {
    let asked = messages.iter().filter(|message| {
        chats.get(&message.chat).is_some_and(|chat| chat.may_have(bounded(message.at)))
    });
    let (chats, ids): (Vec<Uuid>, Vec<Uuid>) = asked.map(|asked| (asked.chat, asked.id)).unzip();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let there: Vec<Uuid> = sqlx::query_scalar(
        "SELECT m.id FROM unnest($1::uuid[], $2::uuid[]) AS e (chat_id, id)
         JOIN messages m ON m.id = e.id AND m.chat_id = e.chat_id",
    )
    .bind(chats)
    .bind(ids)
    .fetch_all(tx)
    .await?;
    Ok(there.into_iter().collect())
}

/// A message answers an earlier one of its own chat, or none: so answers never go round in a circle.
async fn without_false_replies(
    tx: &mut PgConnection,
    placed: &mut [(usize, Placed<'_>)],
    brought: &mut Brought,
) -> Result<()> {
    let mut here: HashSet<(Uuid, Uuid)> = HashSet::new();
    let mut elsewhere: Vec<usize> = Vec::new();
    for (index, (_, one)) in placed.iter().enumerate() {
        if let Some(answered) = one.reply_to
            && !here.contains(&(one.message.chat, answered))
        {
            elsewhere.push(index);
        }
        here.insert((one.message.chat, one.message.id));
    }
    if elsewhere.is_empty() {
        return Ok(());
    }
    let asked = elsewhere.iter().map(|index| &placed[*index].1);
    let (chats, ids): (Vec<Uuid>, Vec<Uuid>) =
        asked.filter_map(|one| Some((one.message.chat, one.reply_to?))).unzip();
    // Whatever is written already is earlier.
    let there: Vec<(Uuid, Uuid)> = sqlx::query_as(
        "SELECT DISTINCT m.chat_id, m.id FROM unnest($1::uuid[], $2::uuid[]) AS e (chat_id, id)
         JOIN messages m ON m.id = e.id AND m.chat_id = e.chat_id",
    )
    .bind(chats)
    .bind(ids)
    .fetch_all(tx)
    .await?;
    let there: HashSet<(Uuid, Uuid)> = there.into_iter().collect();
    for index in elsewhere {
        let (nth, one) = &mut placed[index];
        if one.reply_to.is_some_and(|answered| !there.contains(&(one.message.chat, answered))) {
            one.reply_to = None;
            brought.troubles.push((*nth, Trouble::NoAnswered));
        }
    }
    Ok(())
}

/// Somebody stands for each sender who is gone.
async fn with_senders(
    tx: &mut PgConnection,
    placed: &[(usize, Placed<'_>)],
    brought: &mut Brought,
) -> Result<()> {
    let senders: HashMap<Uuid, i16> = placed
        .iter()
        .map(|(_, one)| (one.message.sender, sql_shard(one.message.sender_shard)))
        .collect();
    let ids: Vec<Uuid> = senders.keys().copied().collect();
    let there = people::existing(tx, &ids).await?;
    let gone: Vec<(Uuid, i16)> =
        senders.into_iter().filter(|(sender, _)| !there.contains(sender)).collect();
    if gone.is_empty() {
        return Ok(());
    }
    ensure_gone(tx, &gone).await?;
    let gone: HashSet<Uuid> = gone.into_iter().map(|(sender, _)| sender).collect();
    let theirs = placed.iter().filter(|(_, one)| gone.contains(&one.message.sender));
    brought.troubles.extend(theirs.map(|(nth, _)| (*nth, Trouble::SenderGone)));
    Ok(())
}

/// All places of these chats so far are messages, so a message's number is its place.
async fn insert(tx: &mut PgConnection, placed: &[Placed<'_>]) -> Result<()> {
    let uuids = |of: fn(&ImportedMessage) -> Uuid| -> Vec<Uuid> {
        placed.iter().map(|one| of(one.message)).collect()
    };
    let times = |of: fn(&ImportedMessage) -> Option<OffsetDateTime>| -> Vec<_> {
        placed.iter().map(|one| of(one.message).map(bounded)).collect()
    };
    sqlx::query(
        "INSERT INTO messages (chat_id, seq, kind, id, sender_id, device_id, client_msg_id, content,
                               reply_to, created_at, edited_at, deleted_at, deleted_by, nth)
         SELECT chat_id, seq, 'message', id, sender_id, device_id, client_msg_id, content, reply_to,
                created_at, edited_at, deleted_at,
                CASE WHEN deleted_at IS NOT NULL THEN sender_id END, seq
         FROM unnest($1::uuid[], $2::bigint[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[],
                     $7::text[], $8::uuid[], $9::timestamptz[], $10::timestamptz[],
                     $11::timestamptz[])
              AS e (chat_id, seq, id, sender_id, device_id, client_msg_id, content, reply_to,
                    created_at, edited_at, deleted_at)",
    )
    .bind(uuids(|message| message.chat))
    .bind(placed.iter().map(|one| one.seq).collect::<Vec<_>>())
    .bind(uuids(|message| message.id))
    .bind(uuids(|message| message.sender))
    .bind(placed.iter().map(|one| one.message.device).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.message.client_msg_id.as_str()).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.message.content.as_str()).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.reply_to).collect::<Vec<_>>())
    .bind(placed.iter().map(|one| one.at).collect::<Vec<_>>())
    .bind(times(|message| message.edited_at))
    .bind(times(|message| message.deleted_at))
    .execute(tx)
    .await?;
    Ok(())
}

/// The files that messages name; more may be told of them later. A file is one message's: another one that
/// names it has the same as a file of its own.
async fn note_files(tx: &mut PgConnection, import: &Import, placed: &[Placed<'_>]) -> Result<()> {
    let with = placed.iter().filter_map(|one| Some((one, one.message.file.as_ref()?)));
    let with: Vec<_> = with.filter(|(one, _)| one.message.deleted_at.is_none()).collect();
    if with.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO imported_files AS f (id, import, message_id, chat_id, uploader_id, url, created_at)
         SELECT DISTINCT ON (id) id, $7, message_id, chat_id, uploader_id, url, created_at
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::timestamptz[])
              WITH ORDINALITY AS e (id, message_id, chat_id, uploader_id, url, created_at, n)
         ORDER BY id, n
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(with.iter().map(|(_, file)| file.id).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.id).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.chat).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.sender).collect::<Vec<_>>())
    .bind(with.iter().map(|(_, file)| file.url.clone()).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.at).collect::<Vec<_>>())
    .bind(&import.name)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "INSERT INTO imported_files (id, import, message_id, chat_id, uploader_id, url, name,
                                     media_type, size, created_at, same_as)
         SELECT e.own, $8, e.message_id, e.chat_id, e.uploader_id, COALESCE(e.url, f.url), f.name,
                f.media_type, f.size, e.created_at, f.id
         FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[],
                     $7::timestamptz[])
              AS e (id, own, message_id, chat_id, uploader_id, url, created_at)
         JOIN imported_files f ON f.id = e.id AND f.message_id IS DISTINCT FROM e.message_id
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(with.iter().map(|(_, file)| file.id).collect::<Vec<_>>())
    .bind(with.iter().map(|(_, file)| file.own).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.id).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.chat).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.message.sender).collect::<Vec<_>>())
    .bind(with.iter().map(|(_, file)| file.url.clone()).collect::<Vec<_>>())
    .bind(with.iter().map(|(one, _)| one.at).collect::<Vec<_>>())
    .bind(&import.name)
    .execute(tx)
    .await?;
    Ok(())
}

/// The chats as the worker leaves them after such messages; those who take part have read them. What is
/// too old to be kept is removed only from a chat that is open: until then nothing comes between.
async fn move_chats(tx: &mut PgConnection, placed: &[Placed<'_>]) -> Result<()> {
    let mut ends: HashMap<Uuid, (i64, OffsetDateTime, OffsetDateTime)> = HashMap::new();
    for one in placed {
        let (seq, first, last) = ends.entry(one.message.chat).or_insert((one.seq, one.at, one.at));
        (*seq, *last) = (one.seq, one.at);
        *first = one.at.min(*first);
    }
    let chats: Vec<Uuid> = ends.keys().copied().collect();
    let places: Vec<i64> = chats.iter().map(|chat| ends[chat].0).collect();
    let firsts: Vec<OffsetDateTime> = chats.iter().map(|chat| ends[chat].1).collect();
    let lasts: Vec<OffsetDateTime> = chats.iter().map(|chat| ends[chat].2).collect();
    sqlx::query(
        "UPDATE imported_chats i SET places = b.places, last_at = b.last_at
         FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS b (id, places, last_at)
         WHERE i.chat_id = b.id",
    )
    .bind(&chats)
    .bind(&places)
    .bind(&lasts)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE chats c SET last_seq = b.places, last_message_seq = b.places,
             message_count = b.places,
             last_activity_at = CASE WHEN c.last_message_seq IS NULL THEN b.last_at
                                     ELSE GREATEST(c.last_activity_at, b.last_at) END,
             oldest_at = CASE WHEN i.opened THEN LEAST(c.oldest_at, b.first_at) END
         FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])
              AS b (id, places, first_at, last_at)
         JOIN imported_chats i ON i.chat_id = b.id
         WHERE c.id = b.id",
    )
    .bind(&chats)
    .bind(&places)
    .bind(&firsts)
    .bind(&lasts)
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE chat_members m SET read_seq = GREATEST(m.read_seq, b.places),
             delivered_seq = GREATEST(m.delivered_seq, b.places)
         FROM unnest($1::uuid[], $2::bigint[]) AS b (id, places)
         JOIN imported_chats i ON i.chat_id = b.id AND i.opened
         WHERE m.chat_id = b.id",
    )
    .bind(&chats)
    .bind(&places)
    .execute(tx)
    .await?;
    Ok(())
}
