//! Pages of a chat's messages: what Postgres holds, with the log's tail folded over it, so that a
//! message that was acknowledged is in the next answer even while the worker is stopped.

use std::collections::{HashMap, HashSet};

use natter_bus::{BusError, Stored, follow::Arrival};
use natter_protocol::{
    error::{ErrorCode, WireError},
    feed::Feed,
    ids::{ChatId, MessageId, Seq, UserId},
    limits,
    server::{Chat, HistoryPage, Joined, Message, Quote},
};
use natter_store::{HistorySlice, Page, Store, StoreError};
use tokio::join;

use crate::{
    app::App,
    auth::Caller,
    changes::Changes,
    chats::not_member,
    fault,
    hub::{Command, frames},
    send::any_feed,
    text::bad_request,
    written::quiet_since,
};

/// Entries of the tail that are looked through for one page. The worker is seconds behind at
/// most while it lives; when it has been away for longer than this, the newest page is refused.
const TAIL_MAX: usize = 10_000;
const TAIL_BATCH: usize = 500;
/// Bytes of the tail, likewise.
const TAIL_BYTES: usize = 32 * 1024 * 1024;
/// Bytes of content in one page, about. What a connection has written once, its buffer keeps.
const PAGE_BYTES: usize = 256 * 1024;
/// Without Postgres nobody knows where the tail begins: so many of the shard's last entries.
const TAIL_SPAN: Seq = 20_000;

/// A page of a chat's history: the newest messages before `before`, the oldest after `after`, or
/// the newest.
///
/// # Errors
/// `bad_request` for both bounds, `not_member`, `unavailable`.
pub async fn page(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: u32,
) -> Result<HistoryPage, WireError> {
    if before.is_some() && after.is_some() {
        return Err(bad_request("before and after exclude each other"));
    }
    let known = admitted(app, caller, chat, limit)?;
    read(app, caller.user_id, chat, known, Page { before, after, limit }, PAGE_BYTES).await
}

/// The same for whoever may read any chat.
///
/// # Errors
/// `bad_request`, `not_found`, `unavailable`.
pub async fn any_page(
    app: &App,
    chat: ChatId,
    before: Option<Seq>,
    after: Option<Seq>,
    limit: u32,
) -> Result<HistoryPage, WireError> {
    let known = Known::Follows(any_feed(app, chat).await?);
    read(app, UserId::SYSTEM, chat, known, Page { before, after, limit }, PAGE_BYTES).await
}

/// The message at a place, or the last one before it, and as many before it as after, with whether
/// there are more on either side.
///
/// # Errors
/// As [`page`]; `not_found` for a place up to which everything has expired.
pub async fn around(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    seq: Seq,
    limit: u32,
) -> Result<HistoryPage, WireError> {
    let known = admitted(app, caller, chat, limit)?;
    read_around(app, caller.user_id, chat, known, (seq, limit)).await
}

/// The same for whoever may read any chat.
///
/// # Errors
/// `bad_request`, `not_found`, `unavailable`.
pub async fn any_around(
    app: &App,
    chat: ChatId,
    seq: Seq,
    limit: u32,
) -> Result<HistoryPage, WireError> {
    let known = Known::Follows(any_feed(app, chat).await?);
    read_around(app, UserId::SYSTEM, chat, known, (seq, limit)).await
}

async fn read_around(
    app: &App,
    viewer: UserId,
    chat: ChatId,
    known: Known,
    (seq, limit): (Seq, u32),
) -> Result<HistoryPage, WireError> {
    let newer = limit / 2;
    // Both halves end where nothing is inserted any more: beyond, an entry only comes at the end.
    let before = Page { before: Some(seq.saturating_add(1)), after: None, limit: limit - newer };
    let after = Page { before: None, after: Some(seq), limit: newer.max(1) };
    let before = read(app, viewer, chat, known, before, PAGE_BYTES / 2).await?;
    // A page before a place only begins there, or after it, where the feed begins behind it.
    if !before.partial && before.from_seq >= seq.max(1) {
        return Err(WireError::new(ErrorCode::NotFound, "what was there has expired"));
    }
    let mut after = read(app, viewer, chat, known, after, PAGE_BYTES / 2).await?;
    if newer == 0 && !after.messages.is_empty() {
        after.messages.clear();
        (after.has_more, after.to_seq) = (true, after.from_seq);
    }
    Ok(joined_at(before, after))
}

/// Two pages, the second of which begins where the first was asked to end.
fn joined_at(before: HistoryPage, after: HistoryPage) -> HistoryPage {
    // Asked for a place beyond the feed's end, the second has no range of its own.
    let to_seq = if after.to_seq > after.from_seq { after.to_seq } else { before.to_seq };
    let mut messages = before.messages;
    messages.extend(after.messages);
    HistoryPage {
        messages,
        has_more: before.has_more || after.has_more,
        has_more_before: Some(before.has_more),
        has_more_after: Some(after.has_more),
        from_seq: before.from_seq,
        to_seq,
        partial: before.partial || after.partial,
    }
}

/// How far this node knows the caller to be a participant.
#[derive(Clone, Copy)]
enum Known {
    /// It follows the chat for the caller, and hears of removals; or the caller may read any chat.
    Follows(Feed),
    /// Postgres has to tell: it does not, or is out of touch and may not have heard of one.
    No,
}

fn admitted(app: &App, caller: &Caller, chat: ChatId, limit: u32) -> Result<Known, WireError> {
    if !(1..=limits::PAGE).contains(&limit) {
        return Err(bad_request("limit: not 1 to 200"));
    }
    Ok(match app.hub.registry().membership(caller.user_id, chat) {
        Some(feed) if app.hub.out_of_touch(feed.shard) => Known::No,
        Some(feed) => Known::Follows(feed),
        None => Known::No,
    })
}

/// A page, of so many bytes of content about.
async fn read(
    app: &App,
    viewer: UserId,
    chat: ChatId,
    known: Known,
    page: Page,
    bytes: usize,
) -> Result<HistoryPage, WireError> {
    let (slice, quiet) = match known {
        Known::Follows(feed) => join!(app.store.history(chat, page), quiet_since(app, feed)),
        Known::No => (app.store.history_for(viewer, chat, page).await, Ok(None)),
    };
    match slice {
        Ok(slice) => {
            app.written.note(slice.shard, slice.persisted_seq);
            merged(app, viewer, chat, page, (slice, quiet)).await
        }
        Err(StoreError::NotFound) if matches!(known, Known::No) => Err(not_member()),
        Err(error) => match known {
            Known::Follows(feed) if error.is_unavailable() => {
                tail_alone(app, viewer, feed, chat, page).await
            }
            _ => Err(fault::store(error)),
        },
    }
    .map(|whole| bounded(page, whole, bytes))
}

/// Bytes that a byte takes in JSON, at most.
const SPELLED: usize = 6;

/// Bytes of a text in JSON.
fn spelled(text: &str) -> usize {
    let bytes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => SPELLED,
        _ => 1,
    });
    bytes.sum()
}

/// As much of the page as fits: its beginning when it was asked for forward, else its end.
fn bounded(page: Page, mut whole: HistoryPage, bytes: usize) -> HistoryPage {
    let content: usize = whole.messages.iter().map(|message| message.content.len()).sum();
    if content < bytes / SPELLED {
        return whole;
    }
    let forward = page.after.is_some();
    let mut left = bytes;
    let fits = |message: &&Message| {
        let fits = left > 0;
        left = left.saturating_sub(spelled(&message.content));
        fits
    };
    let count = if forward {
        whole.messages.iter().take_while(fits).count()
    } else {
        whole.messages.iter().rev().take_while(fits).count()
    };
    if count == whole.messages.len() {
        return whole;
    }
    whole.has_more = true;
    if forward {
        whole.messages.truncate(count);
        whole.to_seq = whole.messages.last().map_or(whole.to_seq, |message| message.seq);
    } else {
        whole.messages.drain(..whole.messages.len() - count);
        whole.from_seq = whole.messages.first().map_or(whole.from_seq, |m| m.prev_seq);
    }
    whole
}

/// Makes the caller a participant, where the chat allows it, and answers what one who opens a
/// chat wants to see.
///
/// # Errors
/// `not_found`, `forbidden`, `unavailable`.
pub async fn join(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    limit: u32,
) -> Result<Joined, WireError> {
    let joined = app.chats.join(caller, chat).await?;
    opened(app, caller, joined, limit).await
}

/// What one who opens a chat wants to see: its newest messages, and who types.
///
/// # Errors
/// `unavailable`.
pub async fn opened(
    app: &App,
    caller: &Caller,
    joined: Chat,
    limit: u32,
) -> Result<Joined, WireError> {
    let chat = joined.id;
    let page = page(app, caller, chat, None, None, limit).await?;
    // Typing may be lost: without Redis nobody is known to type.
    let typists = app.presence.typing_in(chat).await.unwrap_or_default();
    let mut typing = Vec::new();
    for typist in &typists {
        if typist.user != caller.user_id && !typing.contains(&typist.user) {
            typing.push(typist.user);
        }
    }
    if !typing.is_empty() {
        // Whoever is told of a start must be told of the stop, also where it was not heard.
        app.hub.tell(Command::Typists(chat, typists)).await;
    }
    Ok(Joined { chat: joined, messages: page.messages, has_more: page.has_more, typing })
}

/// The page of one moment of Postgres, continued by what the log holds beyond that moment, and changed
/// by it: the messages of an older page may have been edited just now. After `quiet` the log held nothing
/// when the page was asked for.
async fn merged(
    app: &App,
    viewer: UserId,
    chat: ChatId,
    page: Page,
    (slice, quiet): (HistorySlice, Result<Option<Seq>, BusError>),
) -> Result<HistoryPage, WireError> {
    let stops_before_tail = page.before.is_some_and(|before| before <= slice.persisted_seq + 1)
        || (page.after.is_some() && slice.has_more);
    if stops_before_tail && slice.messages.is_empty() {
        return Ok(of_slice(slice, false));
    }
    let feed = Feed::chat(slice.shard, chat);
    let from = page.after.unwrap_or(0).max(slice.persisted_seq);
    let read = match quiet {
        // What lies up to there is on the page.
        Ok(Some(quiet)) if quiet <= slice.persisted_seq => Ok(Some(Vec::new())),
        Ok(_) => read_tail(app, feed, from).await,
        Err(away) => Err(away),
    };
    let tail = match read {
        Ok(Some(tail)) => Some(Tail::new(chat, tail, page.before, slice.to_seq)),
        Ok(None) if !stops_before_tail => {
            return Err(fault::unavailable("history beyond what is written"));
        }
        // What is written is there to see; it just may not be all.
        Ok(None) | Err(_) => None,
    };
    let begin = tail.as_ref().map_or(0, |tail: &Tail| tail.changes.expired());
    if begin > slice.expired_seq && slice.has_more && page.after.is_some_and(|after| after < begin)
    {
        // What comes after what has expired is not among what was read.
        let page = Page { after: Some(begin), ..page };
        let slice = app.store.history(chat, page).await.map_err(fault::store)?;
        return Box::pin(merged(app, viewer, chat, page, (slice, Ok(None)))).await;
    }
    let tail = tail.map(|tail| if stops_before_tail { tail.changes_only() } else { tail });
    with_tail(&app.store, viewer, chat, page, slice, tail).await
}

/// The page with the tail folded over it, and with what is shown around its messages.
async fn with_tail(
    store: &Store,
    viewer: UserId,
    chat: ChatId,
    page: Page,
    slice: HistorySlice,
    tail: Option<Tail>,
) -> Result<HistoryPage, WireError> {
    let reacted = slice.reacted;
    let (mut whole, changes, sent) = match tail {
        None => (of_slice(slice, true), Changes::default(), HashMap::new()),
        Some(mut tail) => {
            let changes = std::mem::take(&mut tail.changes);
            let slice = beginning(page, slice, changes.expired());
            tail.take_current_names(store).await;
            let sent = tail.quotes();
            (fold(page, slice, tail), changes, sent)
        }
    };
    changes.apply(&mut whole.messages);
    match changes.surround(store, chat, viewer, &mut whole.messages, reacted, &sent).await {
        Ok(()) => Ok(whole),
        Err(error) if error.is_unavailable() => Ok(HistoryPage { partial: true, ..whole }),
        Err(error) => Err(fault::store(error)),
    }
}

fn of_slice(slice: HistorySlice, partial: bool) -> HistoryPage {
    HistoryPage {
        messages: slice.messages,
        has_more: slice.has_more,
        has_more_before: None,
        has_more_after: None,
        from_seq: slice.from_seq,
        to_seq: slice.to_seq,
        partial,
    }
}

/// The log's tail of one chat, as messages.
#[derive(Debug, Default)]
struct Tail {
    messages: Vec<Message>,
    /// What it does to messages, also to older ones.
    changes: Changes,
    /// The last entry, shown or not.
    last: Option<Seq>,
}

impl Tail {
    /// The entries below `before`, the first of which follows the entry `prev`; and the changes, also
    /// those from there on.
    fn new(chat: ChatId, entries: Vec<Stored>, before: Option<Seq>, mut prev: Seq) -> Self {
        let mut tail = Self::default();
        for stored in entries {
            let arrival = Arrival { prev, ..Arrival::from(stored) };
            prev = arrival.seq;
            let entry = frames::parse(&arrival);
            if before.is_none_or(|before| arrival.seq < before) {
                tail.last = Some(prev);
                let shown = entry.as_ref().and_then(|e| frames::history_message(chat, e, &arrival));
                tail.messages.extend(shown);
            }
            if let Some(entry) = entry {
                tail.changes.push(entry.event, &arrival);
            }
        }
        let begin = tail.changes.expired();
        tail.messages.retain(|message| message.seq > begin);
        tail
    }

    /// Of a page that ends before it: only what it does to older messages.
    fn changes_only(self) -> Self {
        Self { changes: self.changes, ..Self::default() }
    }

    /// What a quote shows of those of its messages that others of it answer.
    fn quotes(&self) -> HashMap<MessageId, Quote> {
        let answered: HashSet<MessageId> =
            self.messages.iter().filter_map(|m| m.reply_to).collect();
        let answered = self.messages.iter().filter(|message| answered.contains(&message.id));
        answered.map(|message| (message.id, Quote::of(message))).collect()
    }

    /// History shows people as they are called now. Without Postgres, as they were called then.
    async fn take_current_names(&mut self, store: &Store) {
        let mut senders: Vec<UserId> = self.messages.iter().map(|m| m.sender_id).collect();
        senders.sort_unstable();
        senders.dedup();
        if senders.is_empty() {
            return;
        }
        let Ok(names) = store.names(&senders).await else { return };
        for message in &mut self.messages {
            if let Some(name) = names.get(&message.sender_id) {
                message.sender.name.clone_from(name);
            }
        }
    }
}

/// What of it lies behind `begin`, where the feed begins anew.
fn beginning(page: Page, slice: HistorySlice, begin: Seq) -> HistorySlice {
    if begin <= slice.expired_seq {
        return slice;
    }
    let HistorySlice { mut messages, mut has_more, mut from_seq, to_seq, next, .. } = slice;
    messages.retain(|message| message.seq > begin);
    if page.after.is_some() {
        from_seq = from_seq.max(begin);
    } else {
        has_more &= next.is_some_and(|next| next > begin);
        if !has_more {
            from_seq = begin;
        }
    }
    let to_seq = to_seq.max(from_seq);
    HistorySlice { messages, has_more, from_seq, to_seq, expired_seq: begin, ..slice }
}

fn fold(page: Page, slice: HistorySlice, tail: Tail) -> HistoryPage {
    let limit = page.limit as usize;
    let HistorySlice { mut messages, mut has_more, mut from_seq, mut to_seq, .. } = slice;
    to_seq = tail.last.unwrap_or(to_seq);
    messages.extend(tail.messages);
    if messages.len() > limit {
        has_more = true;
        if page.after.is_some() {
            messages.truncate(limit);
            to_seq = messages.last().map_or(to_seq, |message| message.seq);
        } else {
            messages.drain(..messages.len() - limit);
            from_seq = messages.first().map_or(from_seq, |message| message.prev_seq);
        }
    }
    HistoryPage {
        messages,
        has_more,
        has_more_before: None,
        has_more_after: None,
        from_seq,
        to_seq,
        partial: false,
    }
}

/// With Postgres away: what the log's tail holds, and no more.
async fn tail_alone(
    app: &App,
    viewer: UserId,
    feed: Feed,
    chat: ChatId,
    page: Page,
) -> Result<HistoryPage, WireError> {
    let away = |_| fault::unavailable("history");
    let log = app.bus.log_state(feed.shard).await.map_err(away)?;
    let log = log.ok_or_else(|| fault::unavailable("history"))?;
    let first = log.first_seq.max(log.last_seq.saturating_sub(TAIL_SPAN));
    let from = page.after.unwrap_or(0).max(first.saturating_sub(1));
    let entries = read_tail(app, feed, from).await.map_err(away)?;
    let mut tail =
        Tail::new(chat, entries.ok_or_else(|| fault::unavailable("history"))?, page.before, 0);
    let (changes, sent) = (std::mem::take(&mut tail.changes), tail.quotes());
    let nothing = HistorySlice {
        messages: Vec::new(),
        has_more: false,
        reacted: false,
        shard: feed.shard,
        persisted_seq: from,
        from_seq: from,
        to_seq: from,
        expired_seq: from,
        next: None,
    };
    let nothing = beginning(page, nothing, changes.expired());
    let mut whole = HistoryPage { partial: true, ..fold(page, nothing, tail) };
    changes.apply(&mut whole.messages);
    changes.surround_alone(viewer, &mut whole.messages, &sent);
    Ok(whole)
}

/// The feed's entries after `after`; none when there are too many to look through.
///
/// # Errors
/// When the log cannot be read.
pub(crate) async fn read_tail(
    app: &App,
    feed: Feed,
    mut after: Seq,
) -> Result<Option<Vec<Stored>>, BusError> {
    let (mut tail, mut bytes) = (Vec::new(), 0);
    loop {
        let batch = app.bus.read(feed, after, TAIL_BATCH).await?;
        // A short batch may have been cut off for its bytes.
        let complete = batch.is_empty();
        after = batch.last().map_or(after, |last| last.seq);
        bytes += batch.iter().map(|stored| stored.body.len()).sum::<usize>();
        tail.extend(batch);
        if complete {
            return Ok(Some(tail));
        }
        if tail.len() >= TAIL_MAX || bytes >= TAIL_BYTES {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod agreement;

#[cfg(test)]
mod tests {
    use natter_protocol::server::{ContentType, UserCard};
    use time::OffsetDateTime;

    use super::*;

    fn message(seq: Seq, prev: Seq) -> Message {
        let user = UserId::from(uuid::Uuid::nil());
        Message {
            id: MessageId::from(uuid::Uuid::nil()),
            chat_id: ChatId::from(uuid::Uuid::nil()),
            seq,
            prev_seq: prev,
            sender_id: user,
            sender: UserCard { id: user, name: String::new(), bot: false },
            device_id: None,
            content_type: ContentType::Text,
            content: String::new(),
            media: None,
            media_url: None,
            media_type: None,
            reply_to: None,
            client_msg_id: String::new(),
            created_at: OffsetDateTime::UNIX_EPOCH,
            system: None,
            quote: None,
            mentions: Vec::new(),
            edited_at: None,
            deleted: false,
            reactions: Vec::new(),
        }
    }

    fn slice(messages: &[(Seq, Seq)], has_more: bool, from_seq: Seq, to_seq: Seq) -> HistorySlice {
        let messages = messages.iter().map(|(seq, prev)| message(*seq, *prev)).collect();
        HistorySlice {
            messages,
            has_more,
            reacted: false,
            shard: 0,
            persisted_seq: 10,
            from_seq,
            to_seq,
            expired_seq: 0,
            next: None,
        }
    }

    fn tail(seqs: &[(Seq, Seq)]) -> Tail {
        let messages: Vec<_> = seqs.iter().map(|(seq, prev)| message(*seq, *prev)).collect();
        let last = messages.last().map(|m| m.seq);
        Tail { messages, last, ..Tail::default() }
    }

    fn whole(messages: Vec<Message>, has_more: bool, from_seq: Seq, to_seq: Seq) -> HistoryPage {
        let (has_more_before, has_more_after) = (None, None);
        HistoryPage {
            messages,
            has_more,
            has_more_before,
            has_more_after,
            from_seq,
            to_seq,
            partial: false,
        }
    }

    fn seqs(page: &HistoryPage) -> Vec<Seq> {
        page.messages.iter().map(|message| message.seq).collect()
    }

    #[test]
    fn the_newest_page_ends_in_the_tail() {
        let page = Page { before: None, after: None, limit: 3 };
        let folded = fold(page, slice(&[(3, 1), (7, 3)], false, 0, 7), tail(&[(12, 7), (15, 12)]));
        assert_eq!(seqs(&folded), [7, 12, 15]);
        assert_eq!((folded.from_seq, folded.to_seq, folded.has_more), (3, 15, true));
        let whole = fold(Page { limit: 9, ..page }, slice(&[(7, 0)], false, 0, 7), tail(&[]));
        assert_eq!((whole.from_seq, whole.to_seq, whole.has_more), (0, 7, false));
    }

    #[test]
    fn a_page_of_long_messages_is_shorter() {
        let mut long = message(5, 3);
        long.content = "x".repeat(PAGE_BYTES / 2);
        let messages = vec![
            Message { seq: 3, ..long.clone() },
            long.clone(),
            Message { seq: 7, prev_seq: 5, ..long },
        ];
        let whole = whole(messages, false, 0, 9);
        let back = bounded(Page { limit: 3, ..Page::default() }, whole.clone(), PAGE_BYTES);
        assert_eq!(seqs(&back), [5, 7]);
        assert_eq!((back.from_seq, back.to_seq, back.has_more), (3, 9, true));
        let forward = bounded(Page { after: Some(0), limit: 3, before: None }, whole, PAGE_BYTES);
        assert_eq!(seqs(&forward), [3, 5]);
        assert_eq!((forward.from_seq, forward.to_seq, forward.has_more), (0, 5, true));
    }

    #[test]
    fn both_sides_of_a_place_are_one_page() {
        let before = whole(vec![message(3, 2), message(5, 3)], true, 2, 5);
        let after = whole(vec![message(8, 5)], false, 6, 8);
        let page = joined_at(before.clone(), after);
        assert_eq!(seqs(&page), [3, 5, 8]);
        assert_eq!((page.from_seq, page.to_seq, page.has_more), (2, 8, true));
        assert_eq!((page.has_more_before, page.has_more_after), (Some(true), Some(false)));
        // Around a place beyond the end.
        let page = joined_at(before, whole(vec![], false, 99, 99));
        assert_eq!((page.from_seq, page.to_seq), (2, 5));
    }

    #[test]
    fn a_page_forward_stops_where_it_is_full() {
        let page = Page { before: None, after: Some(2), limit: 2 };
        let folded = fold(page, slice(&[(7, 3)], false, 2, 7), tail(&[(12, 7), (15, 12)]));
        assert_eq!(seqs(&folded), [7, 12]);
        assert_eq!((folded.from_seq, folded.to_seq, folded.has_more), (2, 12, true));
    }
}
