use std::{collections::HashMap, time::Duration};

use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, UserId},
    media::Media,
    notify::{Preview, PushReason, PushState},
    push::{Provider, Target},
};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::provider;
use crate::{Result, Store, reads::unread};

/// A notification of a message for a device.
pub type PushKey = (MessageId, DeviceId);

/// What came of taking a notification.
#[derive(Debug)]
pub enum Claimed {
    /// It is to be sent, by whoever has taken it and nobody else.
    Send(Box<ToSend>),
    /// It was not wanted any more, and has come to its end.
    Ended(Ended),
    /// It has come to its end before, or there is none.
    Over,
    /// Another has it, or it is not due: look again then.
    Later(Duration),
}

/// How a notification has ended that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// `Cancelled`, or `GivenUp`.
    pub state: PushState,
    /// Why.
    pub reason: PushReason,
    /// Who would have carried it.
    pub provider: Provider,
}

/// A notification that is to be sent, with what it says of this moment.
pub struct ToSend {
    /// Which message; of a test an id of its own.
    pub message: MessageId,
    /// For which device.
    pub device: DeviceId,
    /// Where that is notified.
    pub target: Target,
    /// How often it was taken, this time included.
    pub attempt: u16,
    /// When it was queued.
    pub queued_at: OffsetDateTime,
    /// What it is about; none for a test.
    pub about: Option<About>,
}

/// The message that a notification is about, as it is now.
pub struct About {
    /// The chat.
    pub chat: ChatId,
    /// What the chat is called; none for a one-to-one, or where nobody has named it.
    pub title: Option<String>,
    /// Whether it is a group.
    pub is_group: bool,
    /// Who sent it.
    pub sender: UserId,
    /// What they are called.
    pub sender_name: String,
    /// The text.
    pub content: String,
    /// The file.
    pub media: Option<Media>,
    /// When it was sent.
    pub sent_at: OffsetDateTime,
    /// How much of that the user wants to be shown.
    pub preview: Preview,
    /// Unread messages of the chat, as the chat list has it.
    pub unread: u64,
}

/// Without what was said, and without the target.
impl std::fmt::Debug for ToSend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToSend")
            .field("message", &self.message)
            .field("device", &self.device)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct Attempted {
    /// Which notification.
    pub key: PushKey,
    /// Which attempt: one that was taken over meanwhile tells nothing any more.
    pub attempt: u16,
    /// What became of it.
    pub state: PushState,
    /// Why it was given up.
    pub reason: Option<PushReason>,
    /// When it is tried again.
    pub again: Option<Duration>,
    /// The push service was asked. Otherwise it was no attempt, and counts for none.
    pub sent: bool,
    /// What the push service said.
    pub answer: String,
}

#[derive(sqlx::FromRow)]
struct ClaimedRow {
    message_id: Uuid,
    device_id: Uuid,
    provider: String,
    state: String,
    reason: Option<String>,
    attempts: i16,
    queued_at: OffsetDateTime,
    target: Option<Json<Target>>,
    chat_id: Option<Uuid>,
    title: Option<String>,
    is_group: Option<bool>,
    sender_id: Option<Uuid>,
    sender_name: Option<String>,
    content: Option<String>,
    media: Option<Json<Media>>,
    created_at: Option<OffsetDateTime>,
    preview: String,
    unread: Option<i64>,
}

impl ClaimedRow {
    fn into_claimed(self) -> Claimed {
        if self.state != PushState::Sending.as_str() {
            let reason = self.reason.as_deref().and_then(PushReason::parse);
            let state = PushState::parse(&self.state);
            return match (state, reason, provider(&self.provider)) {
                (Some(state), Some(reason), Some(provider)) => {
                    Claimed::Ended(Ended { state, reason, provider })
                }
                _ => Claimed::Over,
            };
        }
        let Some(Json(target)) = self.target else { return Claimed::Over };
        let about = self.chat_id.map(|chat| About {
            chat: chat.into(),
            title: self.title,
            is_group: self.is_group.unwrap_or_default(),
            sender: self.sender_id.unwrap_or_default().into(),
            sender_name: self.sender_name.unwrap_or_default(),
            content: self.content.unwrap_or_default(),
            media: self.media.map(|Json(media)| media),
            sent_at: self.created_at.unwrap_or(self.queued_at),
            preview: Preview::parse(&self.preview).unwrap_or(Preview::None),
            unread: u64::try_from(self.unread.unwrap_or(0)).unwrap_or(0),
        });
        Claimed::Send(Box::new(ToSend {
            message: self.message_id.into(),
            device: self.device_id.into(),
            target,
            attempt: self.attempts.unsigned_abs(),
            queued_at: self.queued_at,
            about,
        }))
    }
}

/// Notifications on their way.
impl Store {
    /// Takes notifications to be sent within `lease`; what came of each. Those whose message was read or
    /// taken back meanwhile, whose device has logged out, whose user is disabled, or that are older than `max_age` end here.
    pub async fn claim_pushes(
        &self,
        keys: &[PushKey],
        lease: Duration,
        max_age: Duration,
    ) -> Result<HashMap<PushKey, Claimed>> {
        let messages: Vec<Uuid> = keys.iter().map(|(message, _)| message.0).collect();
        let devices: Vec<Uuid> = keys.iter().map(|(_, device)| device.0).collect();
        let (rows, others) = self
            .transaction(async |tx| {
                let rows: Vec<ClaimedRow> = sqlx::query_as(CLAIM)
                    .bind(&messages)
                    .bind(&devices)
                    .bind(lease.as_secs_f64())
                    .bind(max_age.as_secs_f64())
                    .fetch_all(&mut *tx)
                    .await?;
                let others: Vec<(Uuid, Uuid, f64)> = if rows.len() == keys.len() {
                    Vec::new()
                } else {
                    // What this has taken is among them, and is told apart below.
                    sqlx::query_as(
                        "SELECT p.message_id, p.device_id,
                                GREATEST(extract(epoch FROM p.due_at - now()), 0)::float8
                         FROM pushes p
                         JOIN unnest($1::uuid[], $2::uuid[]) AS a (message_id, device_id)
                              USING (message_id, device_id)
                         WHERE p.state IN ('queued', 'sending', 'retrying')",
                    )
                    .bind(&messages)
                    .bind(&devices)
                    .fetch_all(tx)
                    .await?
                };
                Ok((rows, others))
            })
            .await?;
        let mut claimed: HashMap<PushKey, Claimed> =
            keys.iter().map(|key| (*key, Claimed::Over)).collect();
        for (message, device, seconds) in others {
            let wait = Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0));
            claimed.insert((message.into(), device.into()), Claimed::Later(wait));
        }
        for row in rows {
            let key = (row.message_id.into(), row.device_id.into());
            claimed.insert(key, row.into_claimed());
        }
        Ok(claimed)
    }

    /// Writes what came of attempts. A target that is gone is forgotten, unless the device has another by
    /// now.
    pub async fn keep_attempts(&self, attempts: &[Attempted]) -> Result<()> {
        let messages: Vec<Uuid> = attempts.iter().map(|attempted| attempted.key.0.0).collect();
        let devices: Vec<Uuid> = attempts.iter().map(|attempted| attempted.key.1.0).collect();
        let numbers: Vec<i16> =
            attempts.iter().map(|attempted| sql_attempt(attempted.attempt)).collect();
        let states: Vec<&str> = attempts.iter().map(|attempted| attempted.state.as_str()).collect();
        let reasons: Vec<Option<&str>> =
            attempts.iter().map(|attempted| attempted.reason.map(PushReason::as_str)).collect();
        let again: Vec<Option<f64>> = attempts
            .iter()
            .map(|attempted| attempted.again.map(|again| again.as_secs_f64()))
            .collect();
        let sent: Vec<bool> = attempts.iter().map(|attempted| attempted.sent).collect();
        let answers: Vec<&str> =
            attempts.iter().map(|attempted| attempted.answer.as_str()).collect();
        self.call(async |db| {
            sqlx::query(KEEP)
                .bind(messages)
                .bind(devices)
                .bind(numbers)
                .bind(states)
                .bind(reasons)
                .bind(again)
                .bind(answers)
                .bind(sent)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }
}

fn sql_attempt(attempt: u16) -> i16 {
    i16::try_from(attempt).unwrap_or(i16::MAX)
}

/// Takes those that wait, and those whose owner has not said in time what came of them. Another that
/// takes the same at this moment has it. What is shown is of this snapshot, so that the number of unread
/// messages is that of the chat list.
const CLAIM: &str = concat!(
    "WITH locked AS MATERIALIZED (
         SELECT p.* FROM pushes p
         JOIN unnest($1::uuid[], $2::uuid[]) AS a (message_id, device_id)
              USING (message_id, device_id)
         WHERE p.state = 'queued'
            OR p.state IN ('sending', 'retrying') AND p.due_at <= now() + interval '250 milliseconds'
         ORDER BY p.message_id, p.device_id FOR NO KEY UPDATE OF p SKIP LOCKED
     ), seen AS MATERIALIZED (
         SELECT l.message_id, l.device_id, t.target, c.title, c.is_group, m.sender_id,
                s.name AS sender_name, m.content, m.media, m.created_at,
                COALESCE(n.preview, 'full') AS preview,
                CASE
                    WHEN t.target IS NULL OR t.id <> l.target_id THEN 'unregistered'
                    WHEN l.queued_at < now() - make_interval(secs => $4) THEN 'too_old'
                    -- Disabled since it was decided: as it is for those who were by then.
                    WHEN u.disabled_at IS NOT NULL THEN 'no_target'
                    WHEN l.chat_id IS NULL THEN NULL
                    WHEN m.seq IS NULL OR m.deleted_at IS NOT NULL OR m.seq <= c.expired_seq
                         OR m.kind <> 'message' THEN 'deleted'
                    WHEN r.user_id IS NULL OR r.left_at IS NOT NULL THEN 'left'
                    WHEN GREATEST(r.read_seq, COALESCE(r.from_seq, 0)) >= l.seq THEN 'read'
                    WHEN r.muted_until > now()
                         AND NOT (l.mentioned AND COALESCE(n.mentions_through_mute, true)) THEN 'muted'
                    -- A newer one of the chat waits for the same device, and will show more: of a
                    -- backlog only the last is sent.
                    WHEN EXISTS (
                        SELECT FROM pushes o JOIN messages n ON n.chat_id = o.chat_id AND n.seq = o.seq
                        WHERE o.device_id = l.device_id AND o.chat_id = l.chat_id AND o.seq > l.seq
                          AND o.state IN ('queued', 'retrying') AND n.deleted_at IS NULL
                    ) THEN 'collapsed'
                END AS reason,
                (SELECT ",
    unread!(),
    " FROM (SELECT c.id, c.message_count, c.expired_seq,
                        GREATEST(r.read_seq, COALESCE(r.from_seq, 0)) AS read_seq) v) AS unread
         FROM locked l
         LEFT JOIN users u ON u.id = l.user_id
         LEFT JOIN push_targets t ON t.device_id = l.device_id
         LEFT JOIN chats c ON c.id = l.chat_id
         LEFT JOIN messages m ON m.chat_id = l.chat_id AND m.seq = l.seq
         LEFT JOIN users s ON s.id = m.sender_id
         LEFT JOIN chat_members r ON r.chat_id = l.chat_id AND r.user_id = l.user_id
         LEFT JOIN notification_settings n ON n.user_id = l.user_id
     )
     UPDATE pushes p SET
         state = CASE WHEN s.reason IS NULL THEN 'sending'
                      WHEN s.reason = 'too_old' THEN 'given_up' ELSE 'cancelled' END,
         reason = s.reason,
         attempts = p.attempts + CASE WHEN s.reason IS NULL THEN 1 ELSE 0 END,
         attempted_at = CASE WHEN s.reason IS NULL THEN date_trunc('milliseconds', now())
                             ELSE p.attempted_at END,
         due_at = CASE WHEN s.reason IS NULL THEN now() + make_interval(secs => $3) ELSE p.due_at END,
         ended_at = CASE WHEN s.reason IS NOT NULL THEN date_trunc('milliseconds', now()) END
     FROM seen s WHERE p.message_id = s.message_id AND p.device_id = s.device_id
     RETURNING p.message_id, p.device_id, p.provider, p.state, p.reason, p.attempts, p.queued_at,
               p.chat_id, s.target, s.title, s.is_group, s.sender_id, s.sender_name, s.content,
               s.media, s.created_at, s.preview, s.unread"
);

/// Only what this attempt has in hand. A device's last outcome is that of its last notification here.
const KEEP: &str = "WITH told AS (
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::text[], $5::text[],
                              $6::float8[], $7::text[], $8::boolean[])
              AS t (message_id, device_id, attempt, state, reason, again, answer, sent)
     ), kept AS (
         UPDATE pushes p SET
             state = t.state, reason = t.reason, answer = t.answer,
             attempts = p.attempts - CASE WHEN t.sent THEN 0 ELSE 1 END,
             due_at = now() + make_interval(secs => COALESCE(t.again, 0)),
             ended_at = CASE WHEN t.again IS NULL THEN date_trunc('milliseconds', now()) END
         FROM told t
         WHERE p.message_id = t.message_id AND p.device_id = t.device_id
           AND p.state = 'sending' AND p.attempts = t.attempt
         RETURNING p.device_id, p.target_id, p.state, p.answer, p.queued_at
     ), last AS (
         SELECT DISTINCT ON (device_id) * FROM kept
         ORDER BY device_id, (state = 'gone') DESC, queued_at DESC
     ), locked AS MATERIALIZED (
         SELECT t.device_id FROM push_targets t JOIN last USING (device_id)
         WHERE t.id = last.target_id ORDER BY t.device_id FOR NO KEY UPDATE OF t
     )
     UPDATE push_targets t SET
         target = CASE WHEN l.state = 'gone' THEN NULL ELSE t.target END,
         hash = CASE WHEN l.state = 'gone' THEN NULL ELSE t.hash END,
         last_state = l.state, last_answer = l.answer,
         last_at = date_trunc('milliseconds', now())
     FROM last l JOIN locked USING (device_id)
     WHERE t.device_id = l.device_id AND t.id = l.target_id";
