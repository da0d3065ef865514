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
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

pub use self::words::{Words, WordsError};
use crate::{
    Result, Store,
    rows::{seq, sql_seq},
    views,
};

/// Up to so many chats are searched chat by chat, as far as the index is concerned; somebody in more
/// of them searches by words first, and what is in other chats is left out.
const FEW_CHATS: usize = 64;
/// The best are chosen among so many of the newest.
const RANKED: i64 = 1_000;
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
    Chat(Uuid),
    Sender(Uuid),
    Mentions(Uuid),
    Media(&'a str),
}

impl Filter<'_> {
    /// The end of an id suffices, and is random: whether a chat is the viewer's is asked of the
    /// chats themselves.
    pub(crate) fn word(self) -> String {
        let end = |id: Uuid| id.as_u64_pair().1;
        match self {
            Self::Chat(id) => format!("#{:016x}", end(id)),
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
    /// All that a message has to have, as Postgres reads it, in these chats if it is few.
    fn query(&self, chats: Option<&[Uuid]>) -> String {
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
        all.extend(
            chats.map(|chats| any(chats.iter().map(|chat| Filter::Chat(*chat).query()).collect())),
        );
        all.join(" & ")
    }
}

/// What fits, newest first. Of the viewer's chats, whatever the query says of chats; the statement is
/// planned for its values, since how often a word is used decides which way is the shorter one.
macro_rules! newest {
    ($columns:literal, $limit:literal) => {
        concat!(
            "SELECT s.chat_id, s.seq, s.at, ",
            $columns,
            " FROM message_search s
             JOIN chat_members m
               ON m.chat_id = s.chat_id AND m.user_id = $1 AND m.left_at IS NULL
             WHERE s.words @@ $2::tsquery
               AND ($3::timestamptz IS NULL OR s.at > $3)
               AND ($4::timestamptz IS NULL OR s.at < $4)
               AND ($5::timestamptz IS NULL OR (s.at, s.chat_id, s.seq) < ($5, $6, $7))
             ORDER BY s.at DESC, s.chat_id DESC, s.seq DESC LIMIT ",
            $limit
        )
    };
}
const NEWEST: &str = newest!("0::real AS rank, s.at AS until", "$8");

/// The best of the newest. Its bound of time is `until` once that is known.
const BEST: &str = concat!(
    "WITH newest AS MATERIALIZED (",
    newest!("ts_rank(s.words, $11::tsquery, 1) AS rank", "$9"),
    ")
     SELECT chat_id, seq, at, rank, (SELECT max(at) FROM newest) AS until FROM newest
     WHERE $10::real IS NULL OR (rank, at, chat_id, seq) < ($10, $12, $13, $14)
     ORDER BY rank DESC, at DESC, chat_id DESC, seq DESC LIMIT $8"
);

/// A message that fits.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Hit {
    chat_id: Uuid,
    seq: i64,
    at: OffsetDateTime,
    rank: f32,
    until: OffsetDateTime,
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
            let chats: Vec<Uuid> = sqlx::query_scalar(
                "SELECT chat_id FROM chat_members
                 WHERE user_id = $1 AND left_at IS NULL AND ($2::uuid IS NULL OR chat_id = $2)
                 LIMIT $3",
            )
            .bind(search.viewer.0)
            .bind(search.chat.map(|chat| chat.0))
            .bind(FEW_CHATS as i64 + 1)
            .fetch_all(&mut *db)
            .await?;
            if chats.is_empty() {
                return Result::<_>::Ok((Vec::new(), None));
            }
            if search.fuzzy
                && let Some(words) = &mut search.words
            {
                add_like(&mut *db, words).await?;
            }
            let few = (chats.len() <= FEW_CHATS).then_some(chats.as_slice());
            let mut hits = hits(&mut *db, &search, &search.query(few), limit as i64 + 1).await?;
            let more = hits.len() > limit;
            hits.truncate(limit);
            let next = hits.last().filter(|_| more).map(|last| (*last).into());
            let found = load(db, &search, &hits).await?;
            Result::Ok((found, next))
        })
        .await
    }
}

async fn hits(
    db: &mut PgConnection,
    search: &MessageSearch,
    query: &str,
    limit: i64,
) -> Result<Vec<Hit>> {
    let MessageSearch { viewer, after, before, cursor, .. } = search;
    let rank = search.words.as_ref().filter(|_| search.ranked).map(Words::query);
    // The newest ones go on after the last; the best begin at the same one each time.
    let ends = cursor.filter(|_| rank.is_none());
    let until = cursor.filter(|_| rank.is_some());
    let last = until.map(|cursor| cursor.until + time::Duration::milliseconds(1));
    let before = match (*before, last) {
        (Some(before), Some(last)) => Some(before.min(last)),
        (before, last) => before.or(last),
    };
    let statement = if rank.is_some() { BEST } else { NEWEST };
    let mut asked = sqlx::query_as(statement)
        .persistent(false)
        .bind(viewer.0)
        .bind(query)
        .bind(*after)
        .bind(before)
        .bind(ends.map(|end| end.at))
        .bind(ends.map(|end| end.chat.0))
        .bind(ends.map(|end| sql_seq(end.seq)))
        .bind(limit);
    if let Some(rank) = rank {
        asked = asked
            .bind(RANKED)
            .bind(until.map(|end| end.rank))
            .bind(rank)
            .bind(until.map(|end| end.at))
            .bind(until.map(|end| end.chat.0))
            .bind(until.map(|end| sql_seq(end.seq)));
    }
    Ok(asked.fetch_all(db).await?)
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
