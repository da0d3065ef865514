//! Messages on their way into the log: checked, recognised when they are retries, published.
//!
//! Chat, sender and `clientMsgId` name one message for ever. Within the log's window (5 min) the
//! broker recognises a retry; beyond it, only what may be older than that is looked up in
//! Postgres before it is published.

use std::time::Duration;

use natter_bus::{PublishError, Publishing};
use natter_protocol::{
    client::Draft,
    error::{ErrorCode, Outcome, WireError},
    feed::{Entry, Event, Feed, MessageSent, Origin},
    ids::{ChatId, DeviceId, MessageId, Seq, UserId, uuid_v7_millis},
    limits,
    server::{Sent, UserCard},
    timestamp,
};
use natter_runtime::{causes, context};
use time::OffsetDateTime;
use tokio::time::Instant;
use tracing::{Instrument, Span, field::Empty, info_span};
use uuid::Uuid;

use crate::{
    app::App,
    auth::Caller,
    chats::{self, not_member},
    edits, fault,
    hook::{Kind, Question},
};

/// A client id made this recently cannot have been published before the log's window.
const FRESH: Duration = Duration::from_mins(1);
/// A client id from further in the future than this is a clock to be put right: taken for fresh
/// later, it would escape the look-up.
const FUTURE: Duration = Duration::from_mins(3);
/// The broker's window is 5 min; what Postgres holds must reach back to within this.
const WINDOW: Duration = Duration::from_mins(4);
const RETRY_MS: u64 = 1_000;

/// Who sends.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The user, with the name that the message carries.
    pub card: UserCard,
    /// The device; none when a server sends.
    pub device: Option<DeviceId>,
}

impl From<&Caller> for Sender {
    fn from(caller: &Caller) -> Self {
        Self {
            card: UserCard { id: caller.user_id, name: caller.name.clone(), bot: caller.bot },
            device: Some(caller.device_id),
        }
    }
}

/// A message that may be published.
#[derive(Debug)]
pub struct Prepared {
    feed: Feed,
    chat: ChatId,
    message: MessageSent,
}

/// What preparing came to.
#[derive(Debug)]
pub enum Preparation {
    /// To be published.
    New(Box<Prepared>),
    /// It was sent long ago.
    Duplicate(Sent),
}

/// Handed to the broker, not acknowledged yet.
#[derive(Debug)]
pub struct InFlight {
    prepared: Prepared,
    publishing: Publishing,
    since: Instant,
    /// Until the broker has acknowledged it.
    span: Span,
}

/// What the broker said.
#[derive(Debug)]
pub enum Settled {
    /// Stored.
    Stored(Box<Stored>),
    /// It had been stored before.
    Duplicate(Sent),
}

/// Checks a draft and whether its sender may send it.
///
/// # Errors
/// `bad_request`, `too_large`, `not_member`, `forbidden` for a one-to-one in which one has blocked the
/// other, `refused` by the deployment's own check, `unavailable` (`not_sent`).
pub async fn prepare(
    app: &App,
    sender: Sender,
    chat: ChatId,
    mut draft: Draft,
) -> Result<Preparation, WireError> {
    let (client_msg_id, age) = check(&draft, OffsetDateTime::now_utc())?;
    edits::check_mentions(&draft.mentions)?;
    let feed = feed_of(app, sender.card.id, chat).await?;
    let id = MessageId::derive(chat, sender.card.id, &client_msg_id);
    let unheard = match age {
        Age::New => true,
        Age::Young => app.room.remembers(feed.shard),
        Age::Unknown => false,
    };
    if !unheard
        && let Some(sent) = sent_before(app, feed, chat, sender.card.id, &client_msg_id).await?
    {
        return Ok(Preparation::Duplicate(sent));
    }
    if app.room.full(feed.shard) {
        return Err(not_stored(PublishError::Full));
    }
    let mut replaced = false;
    if let Some(hook) = &app.hook
        && sender.card.id != UserId::SYSTEM
    {
        match hook.check(Kind::Sending, &question(&sender, chat, id, &draft)).await {
            Ok(None) => {}
            Ok(Some(content)) => (draft.content, replaced) = (content, true),
            // What was let through once stays said, whatever is thought of it now.
            Err(error) => {
                let sent = match age {
                    Age::New => None,
                    Age::Young | Age::Unknown => {
                        stored(app, feed, (chat, id), &sender, &client_msg_id).await?
                    }
                };
                return sent.map(Preparation::Duplicate).ok_or(error);
            }
        }
    }
    let quote = match draft.reply_to {
        Some(answered) => edits::quote(app, feed, chat, answered).await?,
        None => None,
    };
    let mentions = edits::mentioned(app, chat, &draft.content, draft.mentions).await;
    // Claimed before it is published: no other message has it then, and no sweep takes it.
    let media = match draft.media_id {
        Some(media) => Some(app.library.claim(media, chat, sender.card.id, id).await?),
        None => None,
    };
    let message = MessageSent {
        id,
        sender: sender.card,
        device_id: sender.device,
        content: draft.content,
        replaced,
        media,
        client_msg_id,
        reply_to: draft.reply_to,
        quote,
        mentions,
    };
    Ok(Preparation::New(Box::new(Prepared { feed, chat, message })))
}

/// What the deployment's own check is asked.
fn question<'a>(sender: &'a Sender, chat: ChatId, id: MessageId, draft: &'a Draft) -> Question<'a> {
    Question {
        chat_id: chat,
        message_id: id,
        sender: &sender.card,
        device_id: sender.device,
        content: &draft.content,
        media_id: draft.media_id,
        reply_to: draft.reply_to,
        mentions: &draft.mentions,
    }
}

/// Hands the message to the broker, at once and in the order of the calls.
///
/// # Errors
/// `unavailable` (`not_sent`).
pub fn publish(
    app: &App,
    prepared: Prepared,
    origin: Option<Origin>,
) -> Result<InFlight, WireError> {
    let id = prepared.message.id.to_string();
    let entry = Entry { origin, event: Event::Message(prepared.message.clone()) };
    let span = context::within(|| info_span!("publish", shard = prepared.feed.shard, seq = Empty));
    let publishing = span.in_scope(|| app.bus.publish(prepared.feed, &id, &entry));
    let publishing = publishing.map_err(not_stored)?;
    Ok(InFlight { prepared, publishing, since: Instant::now(), span })
}

/// A message that the broker has stored.
#[derive(Debug)]
pub struct Stored {
    prepared: Prepared,
    seq: Seq,
}

impl Stored {
    /// The feed.
    #[must_use]
    pub fn feed(&self) -> Feed {
        self.prepared.feed
    }

    /// Its place there.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The reply, for whom the hub had none: somebody who is no participant any more, for one.
    ///
    /// # Errors
    /// None that are known; the message is stored.
    pub async fn reply(&self, app: &App) -> Result<Sent, WireError> {
        sent(app, &self.prepared, self.seq, false).await
    }
}

impl InFlight {
    /// The chat.
    #[must_use]
    pub fn chat(&self) -> ChatId {
        self.prepared.chat
    }

    /// Waits for the broker, for 5 s at most.
    ///
    /// # Errors
    /// `unavailable`, with its outcome.
    pub async fn settle(self, app: &App) -> Result<Settled, WireError> {
        let Self { prepared, publishing, since, span } = self;
        // In its span, which ends where it was left last.
        let published = publishing.instrument(span.clone()).await.map_err(not_stored)?;
        app.measures.published(since.elapsed(), published.duplicate);
        span.record("seq", published.seq);
        drop(span);
        if published.duplicate {
            return Ok(Settled::Duplicate(sent(app, &prepared, published.seq, true).await?));
        }
        Ok(Settled::Stored(Box::new(Stored { prepared, seq: published.seq })))
    }
}

/// Sends a message that came by REST.
///
/// # Errors
/// `not_member`, `forbidden`, `bad_request`, `too_large`, `unavailable` with its outcome.
pub async fn send_from_rest(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    draft: Draft,
) -> Result<Sent, WireError> {
    send_as(app, caller.into(), chat, draft).await
}

/// The same for whoever a server speaks for.
///
/// # Errors
/// As there; `not_found` for a chat that there is not, when the deployment itself speaks.
pub async fn send_as(
    app: &App,
    sender: Sender,
    chat: ChatId,
    draft: Draft,
) -> Result<Sent, WireError> {
    let span = context::begin(|| info_span!("send_message", %chat));
    send_now(app, sender, chat, draft).instrument(span).await
}

async fn send_now(
    app: &App,
    sender: Sender,
    chat: ChatId,
    draft: Draft,
) -> Result<Sent, WireError> {
    let prepared = match prepare(app, sender, chat, draft).await? {
        Preparation::Duplicate(sent) => return Ok(sent),
        Preparation::New(prepared) => *prepared,
    };
    let InFlight { prepared, publishing, since, span } = publish(app, prepared, None)?;
    let published = publishing.instrument(span.clone()).await.map_err(not_stored)?;
    app.measures.published(since.elapsed(), published.duplicate);
    span.record("seq", published.seq);
    drop(span);
    sent(app, &prepared, published.seq, published.duplicate).await
}

/// Publishes what becomes of a message, and waits for the broker; answers its place.
///
/// # Errors
/// `unavailable`, with its outcome.
pub async fn publish_event(
    app: &App,
    feed: Feed,
    id: &str,
    event: Event,
) -> Result<Seq, WireError> {
    if app.room.full(feed.shard) {
        return Err(not_stored(PublishError::Full));
    }
    let entry = Entry { origin: None, event };
    let span = context::within(|| info_span!("publish", shard = feed.shard, seq = Empty));
    let since = Instant::now();
    let publishing = span.in_scope(|| app.bus.publish(feed, id, &entry)).map_err(not_stored)?;
    let published = publishing.instrument(span.clone()).await.map_err(not_stored)?;
    app.measures.published(since.elapsed(), published.duplicate);
    span.record("seq", published.seq);
    Ok(published.seq)
}

/// What is known of a client id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Age {
    /// Made here just now: nobody can have sent it before.
    New,
    /// Certainly younger than the broker's window.
    Young,
    /// Nothing.
    Unknown,
}

fn bad(what: &str) -> WireError {
    WireError::new(ErrorCode::BadRequest, what)
}

/// Whether a message may say this, which may be nothing beside a file.
///
/// # Errors
/// `bad_request`, `too_large`.
pub fn check_content(content: &str, beside_media: bool) -> Result<(), WireError> {
    if content.is_empty() && !beside_media {
        return Err(bad("content: is empty"));
    }
    if content.len() > limits::CONTENT_BYTES {
        let message = format!("content: more than {} bytes", limits::CONTENT_BYTES);
        return Err(WireError::new(ErrorCode::TooLarge, message));
    }
    // Postgres has no such text, and there is no such character to show.
    if content.contains('\0') {
        return Err(bad("content: has a NUL character"));
    }
    Ok(())
}

/// The client's id for the message, and how old it is.
fn check(draft: &Draft, now: OffsetDateTime) -> Result<(String, Age), WireError> {
    check_content(&draft.content, draft.media_id.is_some())?;
    let Some(id) = &draft.client_msg_id else {
        return Ok((Uuid::now_v7().to_string(), Age::New));
    };
    if id.is_empty() || id.chars().count() > limits::CLIENT_MSG_ID_CHARS {
        return Err(bad("clientMsgId: not 1 to 64 characters"));
    }
    if id.chars().any(char::is_control) {
        return Err(bad("clientMsgId: has a control character"));
    }
    let now_ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
    let made = uuid_v7_millis(id);
    if made.is_some_and(|made| made > now_ms + FUTURE.as_millis() as u64) {
        return Err(bad("clientMsgId: made more than 3 minutes in the future"));
    }
    let young = made.is_some_and(|made| made + FRESH.as_millis() as u64 >= now_ms);
    Ok((id.clone(), if young { Age::Young } else { Age::Unknown }))
}

/// The feed of a chat that the sender may write to: the deployment itself to any.
async fn feed_of(app: &App, sender: UserId, chat: ChatId) -> Result<Feed, WireError> {
    if sender != UserId::SYSTEM {
        return writable_feed(app, sender, chat).await;
    }
    any_feed(app, chat).await.map_err(|error| match error.code {
        ErrorCode::Unavailable => error.outcome(Outcome::NotSent),
        _ => error,
    })
}

/// The feed of a chat, whoever asks.
///
/// # Errors
/// `not_found`, `unavailable`.
pub async fn any_feed(app: &App, chat: ChatId) -> Result<Feed, WireError> {
    let shard = app.store.chat_shard(chat).await.map_err(fault::store)?;
    let shard =
        shard.ok_or_else(|| WireError::new(ErrorCode::NotFound, "there is no such chat"))?;
    Ok(Feed::chat(shard, chat))
}

/// The feed of a chat that the user may write to.
///
/// # Errors
/// `not_member`, `forbidden` in a one-to-one where one has blocked the other, `unavailable`
/// (`not_sent`).
pub async fn writable_feed(app: &App, user: UserId, chat: ChatId) -> Result<Feed, WireError> {
    let known = app.hub.registry().writable(user, chat);
    if let Some((feed, shut)) = known {
        if app.hub.out_of_touch(feed.shard) {
            return Err(not_sent("the chat's feed is out of reach"));
        }
        return if shut { Err(chats::shut()) } else { Ok(feed) };
    }
    // Not connected here, or the feed that tells of a new chat is a moment behind.
    let member = app.store.membership(user, chat).await.map_err(|error| {
        let error = fault::store(error);
        if error.code == ErrorCode::Unavailable { error.outcome(Outcome::NotSent) } else { error }
    })?;
    let member = member.ok_or_else(not_member)?;
    if member.shut { Err(chats::shut()) } else { Ok(Feed::chat(member.shard, chat)) }
}

/// The message, when Postgres has it; none when it certainly was never sent before the window.
async fn sent_before(
    app: &App,
    feed: Feed,
    chat: ChatId,
    sender: UserId,
    client_msg_id: &str,
) -> Result<Option<Sent>, WireError> {
    let unsure = |_| not_sent("whether this was sent before cannot be told now");
    // The log's end and how far Postgres has come are asked first: what is found missing after
    // that is missing from all that they cover.
    let log = app.bus.log_state(feed.shard).await;
    let (persisted, at) = app.store.persisted_until(feed.shard).await.map_err(unsure)?;
    let found = app.store.sent_before(chat, sender, client_msg_id).await.map_err(unsure)?;
    if let Some(found) = found {
        return Ok(Some(Sent {
            id: found.id,
            chat_id: chat,
            seq: found.seq,
            prev_seq: found.prev_seq,
            created_at: found.created_at,
            client_msg_id: client_msg_id.to_owned(),
            duplicate: true,
            content: None,
        }));
    }
    let recent = at > OffsetDateTime::now_utc() - WINDOW;
    // Either nothing older than the window is unwritten, or nothing at all is.
    let complete = recent || matches!(log, Ok(Some(log)) if persisted >= log.last_seq);
    if complete { Ok(None) } else { Err(unsure(natter_store::StoreError::Fenced)) }
}

/// The message, when it is stored: in Postgres, or in the log beyond that.
async fn stored(
    app: &App,
    feed: Feed,
    (chat, id): (ChatId, MessageId),
    sender: &Sender,
    client_msg_id: &str,
) -> Result<Option<Sent>, WireError> {
    if let Some(sent) = sent_before(app, feed, chat, sender.card.id, client_msg_id).await? {
        return Ok(Some(sent));
    }
    let found = edits::find(app, feed, chat, id).await;
    let found = found.map_err(|error| error.outcome(Outcome::NotSent))?;
    Ok(found.map(|(message, _)| Sent {
        id,
        chat_id: chat,
        seq: message.seq,
        prev_seq: message.prev_seq,
        created_at: message.created_at,
        client_msg_id: client_msg_id.to_owned(),
        duplicate: true,
        content: None,
    }))
}

/// The reply that names the message's place, with the broker's time.
async fn sent(
    app: &App,
    prepared: &Prepared,
    seq: Seq,
    duplicate: bool,
) -> Result<Sent, WireError> {
    let MessageSent { id, sender, client_msg_id, replaced, content, .. } = &prepared.message;
    let mut sent = Sent {
        id: *id,
        chat_id: prepared.chat,
        seq,
        prev_seq: 0,
        created_at: timestamp::truncate(OffsetDateTime::now_utc()),
        client_msg_id: client_msg_id.clone(),
        duplicate,
        content: (*replaced && !duplicate).then(|| content.clone()),
    };
    if let Ok(Some(stored)) = app.bus.entry(prepared.feed.shard, seq).await {
        sent.created_at = timestamp::truncate(stored.at);
        // Of a retry: what stands there is what was let through then.
        if duplicate
            && let Ok(Entry { event: Event::Message(first), .. }) =
                serde_json::from_slice(&stored.body)
            && first.replaced
        {
            sent.content = Some(first.content);
        }
        return Ok(sent);
    }
    // Purged since, so it is in Postgres; or out of reach, and the message is stored all the same:
    // its time then is this server's.
    let found = app.store.sent_before(prepared.chat, sender.id, client_msg_id).await;
    if let Ok(Some(found)) = found {
        sent.created_at = found.created_at;
        sent.prev_seq = found.prev_seq;
    }
    Ok(sent)
}

fn not_sent(message: &str) -> WireError {
    WireError::new(ErrorCode::Unavailable, message)
        .retry_after_ms(RETRY_MS)
        .outcome(Outcome::NotSent)
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` calls")]
pub(crate) fn not_stored(error: PublishError) -> WireError {
    tracing::debug!(error = %causes(&error), "a publish failed");
    let (message, outcome) = match error {
        PublishError::NotSent(_) => ("the log does not answer", Outcome::NotSent),
        PublishError::Full => ("the log is full", Outcome::NotSent),
        PublishError::Unknown(_) => ("the log has not answered in time", Outcome::Unknown),
    };
    WireError::new(ErrorCode::Unavailable, message).retry_after_ms(RETRY_MS).outcome(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(content: &str, client_msg_id: Option<&str>) -> Draft {
        let client_msg_id = client_msg_id.map(str::to_owned);
        Draft {
            content: content.to_owned(),
            media_id: None,
            reply_to: None,
            client_msg_id,
            mentions: Vec::new(),
        }
    }

    fn uuid_v7_at(at: OffsetDateTime) -> String {
        let millis = (at.unix_timestamp_nanos() / 1_000_000) as u64;
        uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]).into_uuid().to_string()
    }

    #[test]
    fn only_ids_that_cannot_be_older_than_the_window_skip_the_look_up() {
        let now = OffsetDateTime::now_utc();
        let age = |id: &str| check(&draft("x", Some(id)), now).map(|(_, age)| age);
        assert_eq!(age(&uuid_v7_at(now)), Ok(Age::Young));
        assert_eq!(age(&uuid_v7_at(now - Duration::from_secs(59))), Ok(Age::Young));
        assert_eq!(age(&uuid_v7_at(now - Duration::from_secs(61))), Ok(Age::Unknown));
        assert_eq!(age(&uuid_v7_at(now + Duration::from_secs(170))), Ok(Age::Young));
        assert_eq!(age("my own"), Ok(Age::Unknown));
        let future = age(&uuid_v7_at(now + Duration::from_mins(5)));
        assert_eq!(future.map_err(|error| error.code), Err(ErrorCode::BadRequest));
        assert_eq!(check(&draft("x", None), now).map(|(_, age)| age), Ok(Age::New));
    }

    #[test]
    fn what_cannot_be_stored_or_shown_is_refused() {
        let now = OffsetDateTime::now_utc();
        let code = |draft: Draft| check(&draft, now).map(drop).map_err(|error| error.code);
        assert_eq!(code(draft("", None)), Err(ErrorCode::BadRequest));
        assert_eq!(code(draft("a\0b", None)), Err(ErrorCode::BadRequest));
        let most = "x".repeat(limits::CONTENT_BYTES);
        assert_eq!(code(draft(&most, None)), Ok(()));
        assert_eq!(code(draft(&(most + "x"), None)), Err(ErrorCode::TooLarge));
        assert_eq!(code(draft("x", Some(""))), Err(ErrorCode::BadRequest));
        assert_eq!(code(draft("x", Some("a\r\nb"))), Err(ErrorCode::BadRequest));
        assert_eq!(code(draft("x", Some(&"é".repeat(64)))), Ok(()));
        assert_eq!(code(draft("x", Some(&"é".repeat(65)))), Err(ErrorCode::BadRequest));
    }
}
