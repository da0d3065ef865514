//! What messages are found by, kept up to date with what the worker has written.

use std::collections::{BTreeSet, HashSet};

use natter_protocol::ids::{ChatId, Seq, Shard};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Filter, words};
use crate::{
    Result, Store,
    rows::{seq, sql_seq, sql_shard},
};

/// Places looked up in one step of catching up.
const STEP: usize = 1_000;
/// Chats of one step, and chats looked through for them.
const CHATS: i64 = 200;
const LOOKED_THROUGH: i64 = 20_000;
/// Known words that a follower remembers; then it begins anew.
const REMEMBERED: usize = 100_000;

/// The place of an entry of a chat's feed.
pub type EntryPlace = (ChatId, Seq);

/// One who keeps the index of a shard up to date.
#[derive(Debug)]
pub struct Indexer {
    store: Store,
    shard: Shard,
    /// Words that are known to Postgres already.
    known: HashSet<String>,
}

/// A message as it is now.
#[derive(sqlx::FromRow)]
struct Current {
    chat_id: Uuid,
    seq: i64,
    kind: String,
    sender_id: Option<Uuid>,
    content: String,
    media_kind: Option<String>,
    mentions: Option<Vec<Uuid>>,
    /// Of a change: the place of the message that it changes.
    target: Option<i64>,
    gone: bool,
    created_at: OffsetDateTime,
}

impl Current {
    fn is_shown(&self) -> bool {
        self.kind == "message" && !self.gone
    }
}

/// The progress of a shard that is caught up with.
#[derive(sqlx::FromRow)]
struct Progress {
    indexed_seq: i64,
    target_seq: Option<i64>,
    chat_id: Option<Uuid>,
    chat_seq: Option<i64>,
}

impl Indexer {
    /// For one shard.
    #[must_use]
    pub fn new(store: &Store, shard: Shard) -> Self {
        Self { store: store.clone(), shard, known: HashSet::new() }
    }

    /// Follows what was written after `from` up to `to`, which is at these places. False when the
    /// index is not as far as `from`: then these places are looked up all the same, and what lies
    /// before is to be [caught up](Self::catch_up) with.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub async fn follow(&mut self, from: Seq, to: Seq, places: &[EntryPlace]) -> Result<bool> {
        let Self { store, shard, known } = self;
        let shard = sql_shard(*shard);
        let (continues, learnt) = store
            .transaction(async |tx| {
                // The row is locked until the end, so of two who follow the same shard for a moment
                // the second looks messages up after the first has written what it saw.
                let row = lock(tx, shard).await?;
                let continues = row.target_seq.is_none() && row.indexed_seq == sql_seq(from);
                if continues {
                    sqlx::query("UPDATE search_progress SET indexed_seq = $2 WHERE shard = $1")
                        .bind(shard)
                        .bind(sql_seq(to))
                        .execute(&mut *tx)
                        .await?;
                }
                Ok((continues, look_up(tx, places, &*known).await?))
            })
            .await?;
        self.remember(learnt);
        Ok(continues)
    }

    /// Does a bounded part of what is written and was not followed. Tells where the index is when
    /// nothing is left of that.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub async fn catch_up(&mut self) -> Result<CaughtUp> {
        let Self { store, shard, known } = self;
        let shard = sql_shard(*shard);
        let (caught_up, learnt) = store
            .transaction(async |tx| {
                let mut row = lock(tx, shard).await?;
                let target = if let Some(target) = row.target_seq {
                    target
                } else {
                    let written: Option<i64> =
                        sqlx::query_scalar("SELECT persisted_seq FROM shards WHERE shard = $1")
                            .bind(shard)
                            .fetch_optional(&mut *tx)
                            .await?;
                    let written = written.unwrap_or(row.indexed_seq);
                    if written <= row.indexed_seq {
                        return imported(tx, shard, seq(row.indexed_seq), &*known).await;
                    }
                    (row.chat_id, row.chat_seq) = (None, None);
                    written
                };
                let (places, next) = next_places(tx, shard, &row, target).await?;
                let learnt = look_up(tx, &places, &*known).await?;
                let indexed = if next.is_some() { row.indexed_seq } else { target };
                let (chat, chat_seq) = next.unzip();
                sqlx::query(
                    "UPDATE search_progress
                     SET indexed_seq = $2, target_seq = $3, chat_id = $4, chat_seq = $5
                     WHERE shard = $1",
                )
                .bind(shard)
                .bind(indexed)
                .bind(chat.map(|_| target))
                .bind(chat)
                .bind(chat_seq.flatten())
                .execute(&mut *tx)
                .await?;
                // When it is none, there may be more by now.
                Ok((CaughtUp::NotYet { left: seq(target - indexed) }, learnt))
            })
            .await?;
        self.remember(learnt);
        Ok(caught_up)
    }

    fn remember(&mut self, learnt: Vec<String>) {
        if self.known.len() + learnt.len() > REMEMBERED {
            self.known.clear();
        }
        self.known.extend(learnt);
    }
}

/// How far catching up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtUp {
    /// All that is written up to here can be found.
    Until(Seq),
    /// There may be more to do.
    NotYet {
        /// Entries of the log, of which some are to be found, at least.
        left: u64,
    },
}

/// A message that was written at its place after all.
pub(crate) async fn look_up_again(
    tx: &mut PgConnection,
    shard: Shard,
    place: EntryPlace,
) -> Result<()> {
    lock(tx, sql_shard(shard)).await?;
    look_up(tx, &[place], &HashSet::new()).await?;
    Ok(())
}

async fn lock(tx: &mut PgConnection, shard: i16) -> Result<Progress> {
    loop {
        let row = sqlx::query_as(
            "SELECT indexed_seq, target_seq, chat_id, chat_seq FROM search_progress
             WHERE shard = $1 FOR UPDATE",
        )
        .bind(shard)
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = row {
            return Ok(row);
        }
        sqlx::query("INSERT INTO search_progress (shard) VALUES ($1) ON CONFLICT DO NOTHING")
            .bind(shard)
            .execute(&mut *tx)
            .await?;
    }
}

/// The next places of a shard that were not followed, chat by chat, and where the ones after them
/// begin: after this place of this chat, or after all of the chat. None when there are no more.
async fn next_places(
    tx: &mut PgConnection,
    shard: i16,
    row: &Progress,
    target: i64,
) -> Result<(Vec<EntryPlace>, Option<(Uuid, Option<i64>)>)> {
    // Chats are looked through by a window at a time, since most may have nothing new.
    let window: Vec<(Uuid, bool)> = sqlx::query_as(
        "WITH near AS MATERIALIZED (
             SELECT id, shard, last_seq FROM chats
             WHERE id >= COALESCE($1::uuid, '00000000-0000-0000-0000-000000000000')
               AND ($1::uuid IS NULL OR id > $1 OR $2::bigint IS NOT NULL)
             ORDER BY id LIMIT $3
         )
         (SELECT id, true FROM near WHERE shard = $4 AND last_seq > $5 ORDER BY id LIMIT $6)
         UNION ALL
         (SELECT id, false FROM near ORDER BY id DESC LIMIT 1)",
    )
    .bind(row.chat_id)
    .bind(row.chat_seq)
    .bind(LOOKED_THROUGH)
    .bind(shard)
    .bind(row.indexed_seq)
    .bind(CHATS)
    .fetch_all(&mut *tx)
    .await?;
    let mut chats: Vec<Uuid> = window.iter().filter(|(_, due)| *due).map(|(id, _)| *id).collect();
    chats.sort_unstable();
    let end = window.iter().find(|(_, due)| !due).map(|(id, _)| *id);
    let Some(end) = end else { return Ok((Vec::new(), None)) };
    let end = if chats.len() as i64 == CHATS { chats.last().copied().unwrap_or(end) } else { end };
    let mut places = Vec::new();
    for chat in chats {
        let begun = row.chat_seq.filter(|_| row.chat_id == Some(chat));
        let found: Vec<i64> = sqlx::query_scalar(
            "SELECT seq FROM messages WHERE chat_id = $1 AND seq > $2 AND seq <= $3
             ORDER BY seq LIMIT $4",
        )
        .bind(chat)
        .bind(begun.unwrap_or(row.indexed_seq))
        .bind(target)
        .bind((STEP - places.len()) as i64)
        .fetch_all(&mut *tx)
        .await?;
        places.extend(found.iter().map(|place| (ChatId(chat), seq(*place))));
        if places.len() >= STEP {
            return Ok((places, Some((chat, found.last().copied()))));
        }
    }
    Ok((places, Some((end, None))))
}

/// A part of what was imported, which the log has never held. It waits until all else is done.
async fn imported(
    tx: &mut PgConnection,
    shard: i16,
    until: Seq,
    known: &HashSet<String>,
) -> Result<(CaughtUp, Vec<String>)> {
    let chats: Vec<(Uuid, i64, i64)> = sqlx::query_as(
        "SELECT chat_id, indexed_seq, places FROM imported_chats
         WHERE shard = $1 AND opened AND indexed_seq < places
         ORDER BY chat_id LIMIT $2 FOR NO KEY UPDATE",
    )
    .bind(shard)
    .bind(CHATS)
    .fetch_all(&mut *tx)
    .await?;
    let (mut ids, mut ends, mut places) = (Vec::new(), Vec::new(), Vec::new());
    let mut left = 0;
    for (chat, begun, end) in chats {
        // All places up to the last one are messages.
        let room = (STEP - places.len()) as i64;
        let upto = end.min(begun + room);
        places.extend((begun + 1..=upto).map(|place| (ChatId(chat), seq(place))));
        left += end - upto;
        if upto > begun {
            ids.push(chat);
            ends.push(upto);
        }
    }
    if ids.is_empty() {
        return Ok((CaughtUp::Until(until), Vec::new()));
    }
    sqlx::query(
        "UPDATE imported_chats i SET indexed_seq = b.upto
         FROM unnest($1::uuid[], $2::bigint[]) AS b (id, upto) WHERE i.chat_id = b.id",
    )
    .bind(ids)
    .bind(ends)
    .execute(&mut *tx)
    .await?;
    let learnt = look_up(tx, &places, known).await?;
    Ok((CaughtUp::NotYet { left: seq(left) }, learnt))
}

/// Looks messages up at these places, and those that entries at these places change, and notes what
/// each is found by as it is now. Returns the words that were not known.
async fn look_up(
    tx: &mut PgConnection,
    places: &[EntryPlace],
    known: &HashSet<String>,
) -> Result<Vec<String>> {
    let mut found = current(tx, places).await?;
    let mut lost = BTreeSet::new();
    let changed: BTreeSet<EntryPlace> = found
        .iter()
        .filter_map(|entry| Some((ChatId(entry.chat_id), seq(entry.target?))))
        .collect();
    if !changed.is_empty() {
        let changed: Vec<EntryPlace> = changed.into_iter().collect();
        let there: HashSet<(Uuid, i64)> = found.iter().map(|m| (m.chat_id, m.seq)).collect();
        let targets = current(tx, &changed).await?;
        lost = words_at(tx, &changed).await?;
        found.extend(targets.into_iter().filter(|m| !there.contains(&(m.chat_id, m.seq))));
    }
    let (shown, others): (Vec<Current>, Vec<Current>) =
        found.into_iter().partition(Current::is_shown);
    remove(tx, &others).await?;
    let (mut chats, mut seqs, mut times, mut vectors) = (vec![], vec![], vec![], vec![]);
    let mut learnt = BTreeSet::new();
    for message in shown {
        let tokens = words::tokens(&message.content);
        vectors.push(words::vector(&tokens, besides(&message)));
        for token in &tokens {
            if words::may_be_like(token) && !known.contains(&token.word) {
                learnt.insert(token.word.clone());
            }
        }
        chats.push(message.chat_id);
        seqs.push(message.seq);
        times.push(message.created_at);
    }
    if !chats.is_empty() {
        sqlx::query(
            "INSERT INTO message_search AS s (chat_id, seq, at, words)
         SELECT chat_id, seq, at, words::tsvector
         FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::text[])
              AS m (chat_id, seq, at, words)
         ON CONFLICT (chat_id, seq) DO UPDATE SET words = EXCLUDED.words, at = EXCLUDED.at
         WHERE (s.words, s.at) IS DISTINCT FROM (EXCLUDED.words, EXCLUDED.at)",
        )
        .bind(chats)
        .bind(seqs)
        .bind(times)
        .bind(vectors)
        .execute(&mut *tx)
        .await?;
    }
    let learnt: Vec<String> = learnt.into_iter().collect();
    if !learnt.is_empty() {
        // In the order of the words, as everybody does: two who learn the same ones wait for each
        // other, never in a circle.
        sqlx::query(
            "INSERT INTO search_words (word) SELECT word FROM unnest($1::text[]) AS w (word)
             ORDER BY word COLLATE \"C\" ON CONFLICT DO NOTHING",
        )
        .bind(&learnt)
        .execute(&mut *tx)
        .await?;
    }
    forget(tx, lost).await?;
    Ok(learnt)
}

/// What a message is filtered by.
fn besides(message: &Current) -> impl Iterator<Item = String> {
    let mentions = message.mentions.iter().flatten().map(|user| Filter::Mentions(*user));
    let filters =
        [message.sender_id.map(Filter::Sender), message.media_kind.as_deref().map(Filter::Media)];
    filters.into_iter().flatten().chain(mentions).map(Filter::word)
}

async fn current(tx: &mut PgConnection, places: &[EntryPlace]) -> Result<Vec<Current>> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        places.iter().map(|(chat, place)| (chat.0, sql_seq(*place))).unzip();
    let rows = sqlx::query_as(
        "SELECT m.chat_id, m.seq, m.kind, m.sender_id, m.content, m.media ->> 'kind' AS media_kind,
                m.mentions, m.created_at,
                m.deleted_at IS NOT NULL OR m.seq <= COALESCE(
                    (SELECT c.expired_seq FROM chats c WHERE c.id = m.chat_id), 0) AS gone,
                CASE WHEN m.kind IN ('edit', 'delete') THEN (m.detail ->> 'messageSeq')::bigint END AS target
         FROM unnest($1::uuid[], $2::bigint[]) AS p (chat_id, seq)
         CROSS JOIN LATERAL (
             -- The limit keeps it a look-up for each: of a join Postgres may think that reading all
             -- messages side by side is cheaper, which for a backlog's batch it is not.
             SELECT * FROM messages WHERE chat_id = p.chat_id AND seq = p.seq LIMIT 1
         ) m",
    )
    .bind(chats)
    .bind(seqs)
    .fetch_all(tx)
    .await?;
    Ok(rows)
}

/// What is deleted is not found.
async fn remove(tx: &mut PgConnection, others: &[Current]) -> Result<()> {
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        others.iter().filter(|entry| entry.gone).map(|entry| (entry.chat_id, entry.seq)).unzip();
    if chats.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "DELETE FROM message_search s
         USING unnest($1::uuid[], $2::bigint[]) AS m (chat_id, seq)
         WHERE s.chat_id = m.chat_id AND s.seq = m.seq",
    )
    .bind(chats)
    .bind(seqs)
    .execute(tx)
    .await?;
    Ok(())
}

/// The words by which messages are found so far, looked up one by one like the messages.
async fn words_at(tx: &mut PgConnection, places: &[EntryPlace]) -> Result<BTreeSet<String>> {
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        places.iter().map(|(chat, place)| (chat.0, sql_seq(*place))).unzip();
    let words: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT word
         FROM unnest($1::uuid[], $2::bigint[]) AS m (chat_id, seq)
         CROSS JOIN LATERAL (
             SELECT words FROM message_search WHERE chat_id = m.chat_id AND seq = m.seq LIMIT 1
         ) s
         CROSS JOIN LATERAL unnest(tsvector_to_array(s.words)) AS word
         WHERE word !~ '^[@^!]'",
    )
    .bind(chats)
    .bind(seqs)
    .fetch_all(tx)
    .await?;
    Ok(words.into_iter().collect())
}

/// Of these words, those that no message has any more are not known any more either: what is deleted
/// is nowhere.
pub(crate) async fn forget(tx: &mut PgConnection, words: BTreeSet<String>) -> Result<()> {
    if words.is_empty() {
        return Ok(());
    }
    let queries: Vec<String> = words.iter().map(|word| words::quoted(word)).collect();
    let words: Vec<String> = words.into_iter().collect();
    // Those in frequent use are found among the newest messages: asking the index for all that have
    // such a word takes long.
    let rare: Vec<(String, String)> = sqlx::query_as(
        "WITH frequent AS MATERIALIZED (
             SELECT DISTINCT word FROM (
                 SELECT words FROM message_search ORDER BY at DESC, chat_id DESC, seq DESC LIMIT 2000
             ) newest CROSS JOIN LATERAL unnest(tsvector_to_array(newest.words)) AS word
         )
         SELECT w.word, gone.query
         FROM unnest($1::text[], $2::text[]) AS gone (word, query)
         JOIN search_words w ON w.word = gone.word
         LEFT JOIN frequent ON frequent.word = gone.word
         WHERE frequent.word IS NULL",
    )
    .bind(words)
    .bind(queries)
    .fetch_all(&mut *tx)
    .await?;
    let (words, queries): (Vec<String>, Vec<String>) = rare.into_iter().unzip();
    sqlx::query(
        "DELETE FROM search_words w USING unnest($1::text[], $2::text[]) AS gone (word, query)
         WHERE w.word = gone.word AND NOT EXISTS (
             SELECT FROM message_search s WHERE s.words @@ gone.query::tsquery
         )",
    )
    .bind(words)
    .bind(queries)
    .execute(tx)
    .await?;
    Ok(())
}
