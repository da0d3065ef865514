//! Messages found by their words, and by who sent them, what they carry, whom they mention.
//!
//! What is found is at most as old as the [index]: the worker keeps that a fraction of a second
//! behind what it has written. What is shown of it is as it is now, and what has been deleted since
//! is left out.

pub mod index;
pub mod words;

use std::collections::HashMap;

use natter_protocol::{
    ids::{ChatId, Seq, UserId},
    limits,
    media::MediaKind,
    rest::{ChatName, FoundMessage},
    server::Message,
};
use sqlx::{PgConnection, Postgres, postgres::PgArguments};
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::words::{Words, WordsError};
use crate::{
    Result, Store,
    rows::{seq, sql_seq},
    views,
};

/// Chats with so many messages in all are looked through: that takes some milliseconds, whatever the
/// words are.
const LOOKED_THROUGH: i64 = 5_000;
/// Who can read more than that has said, or been told, something of late that has the words, if they
/// are frequent: among so many of the newest messages of all, for each that is asked for, it is looked
/// before the index is asked.
const LOOKED_AT: i64 = 40;
const LOOKED_AT_LEAST: i64 = 5_000;
/// So many chats are named in a statement.
const NAMED_CHATS: usize = 1_000;
/// The best are chosen among so many of the newest.
const RANKED: i64 = 500;
/// Known words that are like a mistyped one: looked at, and taken.
const LIKE_LOOKED_AT: i64 = 50;
const LIKE_TAKEN: usize = 16;

/// What is searched for.
#[derive(Clone, Debug)]
pub struct MessageSearch {
    /// Whose chats.
    pub viewer: UserId,
    /// Words that messages have, all of them.
    pub words: Option<Words>,
    /// Words may be mistyped.
    pub fuzzy: bool,
    /// Of this chat only.
    pub chat: Option<ChatId>,
    /// From this sender only.
    pub sender: Option<UserId>,
    /// Sent after this.
    pub after: Option<OffsetDateTime>,
    /// Sent before this.
    pub before: Option<OffsetDateTime>,
    /// With a file, or without one.
    pub has_media: Option<bool>,
    /// With a file of this kind.
    pub media_kind: Option<MediaKind>,
    /// Only what mentions the viewer.
    pub mentions_viewer: bool,
    /// The best of the newest first, instead of the newest.
    pub ranked: bool,
    /// Where the page before has ended.
    pub cursor: Option<SearchCursor>,
    /// How many: 1 to [`natter_protocol::limits::SEARCH_PAGE`]; clamped.
    pub limit: u32,
}

/// Where a page of what was found ended. Times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchCursor {
    /// How well the last one fits; 0 for the newest first.
    pub rank: f32,
    /// When it was sent.
    pub at: OffsetDateTime,
    /// In which chat.
    pub chat: ChatId,
    /// Its place.
    pub seq: Seq,
    /// The newest of those that the best are chosen among: what comes later is not among them, so
    /// that pages fit together.
    pub until: OffsetDateTime,
}

/// What messages are filtered by, as a word of theirs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Filter<'a> {
    Sender(Uuid),
    Mentions(Uuid),
    Media(&'a str),
}

impl Filter<'_> {
    /// The end of an id suffices: it is random.
    pub(crate) fn word(self) -> String {
        let end = |id: Uuid| id.as_u64_pair().1;
        match self {
            Self::Sender(id) => format!("@{:016x}", end(id)),
            Self::Mentions(id) => format!("^{:016x}", end(id)),
            Self::Media(kind) => format!("!{kind}"),
        }
    }

    fn query(self) -> String {
        words::quoted(&self.word())
    }
}

const KINDS: [MediaKind; 4] =
    [MediaKind::Image, MediaKind::Video, MediaKind::Audio, MediaKind::Document];

fn kind_word(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Image => "image",
        MediaKind::Video => "video",
        MediaKind::Audio => "audio",
        MediaKind::Document => "document",
    }
}

impl MessageSearch {
    /// All that a message has to have, as Postgres reads it.
    fn query(&self) -> String {
        let any = |filters: Vec<String>| format!("({})", filters.join(" | "));
        let with_media =
            || any(KINDS.iter().map(|kind| Filter::Media(kind_word(*kind)).query()).collect());
        let mut all = Vec::new();
        all.extend(self.words.as_ref().map(Words::query));
        all.extend(self.sender.map(|sender| Filter::Sender(sender.0).query()));
        all.extend(self.media_kind.map(|kind| Filter::Media(kind_word(kind)).query()));
        all.extend(
            self.has_media.map(|has| if has { with_media() } else { format!("!{}", with_media()) }),
        );
        if self.mentions_viewer {
            all.push(Filter::Mentions(self.viewer.0).query());
        }
        all.join(" & ")
    }
}

/// What fits. The statements are planned for their values, since how often a word is used decides
/// which way is the shortest.
macro_rules! fitting {
    ($messages:literal, $order:literal) => {
        concat!(
            "SELECT s.chat_id, s.seq, s.at, CASE WHEN $9::text IS NOT NULL THEN s.words END AS words
             FROM ",
            $messages,
            " AND s.words @@ $2::tsquery
              AND ($3::timestamptz IS NULL OR s.at > $3)
              AND ($4::timestamptz IS NULL OR s.at < $4)
              AND ($5::timestamptz IS NULL OR (s.at, s.chat_id, s.seq) < ($5, $6, $7)) ",
            $order
        )
    };
}

/// The newest of what fits, or the best of these, and among how many.
macro_rules! ranked {
    ($found:expr) => {
        concat!(
            "WITH found AS MATERIALIZED (",
            $found,
            "), newest AS MATERIALIZED (
                 SELECT chat_id, seq, at,
                        COALESCE(ts_rank(words, $9::tsquery, 1), 0) AS rank
                 FROM (SELECT * FROM found ORDER BY at DESC, chat_id DESC, seq DESC LIMIT $8) f
             )
             SELECT chat_id, seq, at, rank, (SELECT max(at) FROM newest) AS until,
                    (SELECT count(*) FROM newest) AS among
             FROM newest
             WHERE $10::real IS NULL OR (rank, at, chat_id, seq) < ($10, $11, $12, $13)
             ORDER BY rank DESC, at DESC, chat_id DESC, seq DESC"
        )
    };
}

/// In these chats, of which all messages are looked at. (The planner thinks that the index of words
/// costs next to nothing, also where it has a third of all messages for a word.)
const ALL_OF_CHATS: &str = ranked!(fitting!(
    "(SELECT * FROM message_search WHERE chat_id = ANY($1::uuid[]) OFFSET 0) s WHERE true",
    ""
));

/// In these chats, by what seems to be the least: the messages with such words, or those of the chats.
/// Never by looking from the newest on until there are enough, which has no end for somebody whose
/// chats are quiet. Not by a join: the index of words would be read once for each chat.
const OF_CHATS: &str = ranked!(fitting!("message_search s WHERE s.chat_id = ANY($1::uuid[])", ""));

/// In one chat: the order is that of its feed, so the newest are at one end of the key.
const OF_CHAT: &str = ranked!(fitting!(
    "message_search s WHERE s.chat_id = ($1::uuid[])[1]",
    "ORDER BY s.seq DESC LIMIT $8"
));

/// As [`OF_CHATS`], in all of somebody's.
const OF_ALL: &str = ranked!(fitting!(
    "chat_members m JOIN message_search s ON s.chat_id = m.chat_id
     WHERE m.user_id = $1 AND m.left_at IS NULL",
    ""
));

/// In all of somebody's chats, among the newest messages of all only.
const NEWEST: &str = ranked!(fitting!(
    "chat_members m JOIN (
         SELECT * FROM message_search
         WHERE ($4::timestamptz IS NULL OR at < $4) AND ($5::timestamptz IS NULL OR at <= $5)
         ORDER BY at DESC, chat_id DESC, seq DESC LIMIT $14
     ) s ON s.chat_id = m.chat_id
     WHERE m.user_id = $1 AND m.left_at IS NULL",
    ""
));

/// A message that fits.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Hit {
    chat_id: Uuid,
    seq: i64,
    at: OffsetDateTime,
    rank: f32,
    until: OffsetDateTime,
    among: i64,
}

impl From<Hit> for SearchCursor {
    fn from(hit: Hit) -> Self {
        let Hit { chat_id, at, rank, until, .. } = hit;
        Self { rank, at, chat: chat_id.into(), seq: seq(hit.seq), until }
    }
}

impl Store {
    /// A page of the messages that fit, in chats that the viewer is a participant of, and the cursor
    /// of the next page (none at the end). A page may hold fewer messages than the limit although
    /// there are more: of those that were deleted a moment ago.
    pub async fn search_messages(
        &self,
        mut search: MessageSearch,
    ) -> Result<(Vec<FoundMessage>, Option<SearchCursor>)> {
        let limit = search.limit.clamp(1, limits::SEARCH_PAGE) as usize;
        self.call(async |db| {
            if search.fuzzy
                && let Some(words) = &mut search.words
            {
                add_like(&mut *db, words).await?;
            }
            let mut hits = hits(&mut *db, &search, limit).await?;
            let more = hits.len() > limit;
            hits.truncate(limit);
            let next = hits.last().filter(|_| more).map(|last| (*last).into());
            let found = load(db, &search, &hits).await?;
            Result::<_>::Ok((found, next))
        })
        .await
    }
}

/// So many hits, and one more, if there are.
async fn hits(db: &mut PgConnection, search: &MessageSearch, limit: usize) -> Result<Vec<Hit>> {
    let ranked = search.ranked && search.words.is_some();
    let wanted = if ranked { RANKED } else { limit as i64 + 1 };
    let chats: Vec<Uuid> = sqlx::query_scalar(
        "SELECT chat_id FROM chat_members
         WHERE user_id = $1 AND left_at IS NULL AND ($2::uuid IS NULL OR chat_id = $2) LIMIT $3",
    )
    .bind(search.viewer.0)
    .bind(search.chat.map(|chat| chat.0))
    .bind(NAMED_CHATS as i64 + 1)
    .fetch_all(&mut *db)
    .await?;
    if chats.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Asked { search, wanted };
    let mut hits = if chats.len() <= NAMED_CHATS && few_messages(&mut *db, &chats).await? {
        asked.of(db, ALL_OF_CHATS, &chats).await?
    } else if search.chat.is_some() {
        asked.of(db, OF_CHAT, &chats).await?
    } else {
        let newest = asked.of_all(&mut *db, NEWEST).await?;
        let among = newest.first().map_or(0, |hit| hit.among);
        if among >= wanted {
            newest
        } else if chats.len() <= NAMED_CHATS {
            asked.of(db, OF_CHATS, &chats).await?
        } else {
            asked.of_all(db, OF_ALL).await?
        }
    };
    hits.truncate(limit + 1);
    Ok(hits)
}

async fn few_messages(db: &mut PgConnection, chats: &[Uuid]) -> Result<bool> {
    let few = sqlx::query_scalar(
        "SELECT count(*) <= $2 FROM (
             SELECT FROM message_search WHERE chat_id = ANY($1) LIMIT $2 + 1
         ) m",
    )
    .bind(chats)
    .bind(LOOKED_THROUGH)
    .fetch_one(db)
    .await?;
    Ok(few)
}

type Query<'q> = sqlx::query::QueryAs<'q, Postgres, Hit, PgArguments>;

/// A search by one of the statements: the newest `wanted` hits, or those of them that are on the
/// page.
struct Asked<'a> {
    search: &'a MessageSearch,
    wanted: i64,
}

impl Asked<'_> {
    async fn of(
        &self,
        db: &mut PgConnection,
        statement: &'static str,
        chats: &[Uuid],
    ) -> Result<Vec<Hit>> {
        Ok(self.bind(sqlx::query_as(statement).bind(chats.to_vec())).fetch_all(db).await?)
    }

    async fn of_all(&self, db: &mut PgConnection, statement: &'static str) -> Result<Vec<Hit>> {
        let asked = sqlx::query_as(statement).bind(self.search.viewer.0);
        Ok(self.bind(asked).fetch_all(db).await?)
    }

    fn bind<'q>(&self, asked: Query<'q>) -> Query<'q> {
        let Self { search, wanted } = self;
        let rank = search.words.as_ref().filter(|_| search.ranked).map(Words::query);
        // The newest ones go on after the last; the best are chosen among the same ones each time.
        let ends = search.cursor.filter(|_| rank.is_none());
        let ranked = search.cursor.filter(|_| rank.is_some());
        let until = ranked.map(|cursor| cursor.until + time::Duration::milliseconds(1));
        asked
            .persistent(false)
            .bind(search.query())
            .bind(search.after)
            .bind(search.before.into_iter().chain(until).min())
            .bind(ends.map(|end| end.at))
            .bind(ends.map(|end| end.chat.0))
            .bind(ends.map(|end| sql_seq(end.seq)))
            .bind(*wanted)
            .bind(rank)
            .bind(ranked.map(|last| last.rank))
            .bind(ranked.map(|last| last.at))
            .bind(ranked.map(|last| last.chat.0))
            .bind(ranked.map(|last| sql_seq(last.seq)))
            .bind((wanted * LOOKED_AT).max(LOOKED_AT_LEAST))
    }
}

/// Adds the known words that are like those that somebody may have mistyped.
async fn add_like(db: &mut PgConnection, words: &mut Words) -> Result<()> {
    for term in words.terms_mut().filter(|term| term.may_be_like) {
        let known: Vec<String> = sqlx::query_scalar(
            "SELECT word FROM search_words WHERE word % $1 AND word <> $1
             ORDER BY similarity(word, $1) DESC, word LIMIT $2",
        )
        .bind(&term.word)
        .bind(LIKE_LOOKED_AT)
        .fetch_all(&mut *db)
        .await?;
        let most = if term.word.chars().count() < 6 { 1 } else { 2 };
        let near = |word: &String| strsim::osa_distance(word, &term.word) <= most;
        term.like = known.into_iter().filter(near).take(LIKE_TAKEN).collect();
    }
    Ok(())
}

/// The messages as they are now, with their chats, in the order of the hits.
async fn load(
    db: &mut PgConnection,
    search: &MessageSearch,
    hits: &[Hit],
) -> Result<Vec<FoundMessage>> {
    let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
        hits.iter().map(|hit| (hit.chat_id, hit.seq)).unzip();
    let messages = views::messages_at(&mut *db, &chats, &seqs, true).await?;
    let mut messages: HashMap<(Uuid, i64), Message> =
        messages.into_iter().map(|row| ((row.chat_id, row.seq), row.into())).collect();
    let names = views::names(db, search.viewer, &chats).await?;
    let found = hits.iter().filter_map(|hit| {
        let message = messages.remove(&(hit.chat_id, hit.seq))?;
        let words = search.words.as_ref();
        let highlights = words.map(|words| words.highlights(&message.content)).unwrap_or_default();
        let name = names.get(&hit.chat_id).cloned().unwrap_or_default();
        let chat = ChatName { id: hit.chat_id.into(), name };
        Some(FoundMessage { message, highlights, chat })
    });
    Ok(found.collect())
}
