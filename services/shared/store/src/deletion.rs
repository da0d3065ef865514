//! Accounts deleted: at once nobody is let in any more, then the user's part in everything ends, bit by
//! bit.
//!
//! What is left to do is a row of `erasures`. Whoever deletes the account begins, and workers go on:
//! each bit is a transaction that also moves the row on, or can be done twice. The user's own row
//! stays without anything personal, since histories name it.

use std::time::Duration;

use natter_protocol::{
    feed::{Blocking, DELETED_USER, ProfileChanged, SystemEvent, SystemKind, UserChange},
    ids::{ChatId, MessageId, Seq, Shard, UserId},
    server::Role,
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError, blocks, chats,
    devices::signed_out,
    members, outbox,
    rows::{self, seq},
};

/// All but the first step are gone through so often: what was under way when the account was deleted
/// may have come after the first time.
const ROUNDS: i16 = 2;
/// Chats that are looked at in one call.
const CHATS_AT_ONCE: usize = 100;
/// By then nothing is under way any more: a call takes 10 s at most, and so does a publish.
const LATE: Duration = Duration::from_secs(20);

/// What comes next for an account that was deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its devices lose their right to be here; what belongs to nobody else goes.
    Devices,
    /// Its part in each chat ends.
    Chats,
    /// Its messages are taken back.
    Messages,
    /// Its reactions are taken back.
    Reactions,
    /// Nothing.
    Done,
}

impl Step {
    fn as_str(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Chats => "chats",
            Self::Messages => "messages",
            Self::Reactions => "reactions",
            Self::Done => "done",
        }
    }

    fn parse(text: &str) -> Self {
        match text {
            "devices" => Self::Devices,
            "chats" => Self::Chats,
            "messages" => Self::Messages,
            "reactions" => Self::Reactions,
            _ => Self::Done,
        }
    }
}

/// What is left to do for an account that was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whose.
    pub user: UserId,
    /// What comes next.
    pub step: Step,
    /// For the first time, or once more: counted from 1.
    pub round: i16,
    /// How far that is.
    position: Position,
}

/// How far a step is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Done with the chats before this one …
    chat: Option<Uuid>,
    /// … and with so much of this one.
    within: Option<String>,
}

/// Entries that are to be published on a chat's feed, and where the step is after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bit<T> {
    /// The entries.
    pub entries: Vec<T>,
    /// The erasure once they are published: with another step when there are no more.
    pub after: Erasure,
}

/// A message that is to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMessage {
    /// In which chat.
    pub chat: ChatId,
    /// The shard of its feed.
    pub shard: Shard,
    /// Which.
    pub id: MessageId,
    /// Its place.
    pub seq: Seq,
}

/// A reaction that is to be taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnReaction {
    /// To which message.
    pub message: OwnMessage,
    /// Which.
    pub emoji: String,
    /// The entry that set it.
    pub seq: Seq,
}

#[derive(sqlx::FromRow)]
struct ErasureRow {
    user_id: Uuid,
    step: String,
    round: i16,
    chat_id: Option<Uuid>,
    position: Option<String>,
}

#[derive(sqlx::FromRow)]
struct NamedRow {
    #[sqlx(flatten)]
    erasure: ErasureRow,
    name: Option<String>,
}

impl From<ErasureRow> for Erasure {
    fn from(row: ErasureRow) -> Self {
        let position = Position { chat: row.chat_id, within: row.position };
        let step = Step::parse(&row.step);
        Self { user: row.user_id.into(), step, round: row.round, position }
    }
}

impl Store {
    /// Deletes an account, if its password still is the one that was checked (none for one without):
    /// from here on nobody is let in, finds it, or makes it take part in anything. What is left to do
    /// is [`Store::part`]'s. False when the password is another.
    ///
    /// # Errors
    /// `NotFound` when there is no such user, or not any more.
    pub async fn delete_user(
        &self,
        user: UserId,
        password_hash: Option<&str>,
        messages: bool,
    ) -> Result<bool> {
        self.transaction(async |tx| {
            // Whoever makes somebody take part holds their row until that is committed, which this
            // waits for; and finds it deleted afterwards. Nothing else is locked here, so that
            // nobody who waits for this is waited for.
            let (name, hash): (String, Option<String>) = sqlx::query_as(
                "SELECT name, password_hash FROM users
                 WHERE id = $1 AND deleted_at IS NULL FOR UPDATE",
            )
            .bind(user.0)
            .fetch_one(&mut *tx)
            .await?;
            if hash.as_deref() != password_hash {
                return Ok(false);
            }
            // Found by no name: '' begins with nothing that can be searched for.
            sqlx::query(
                "UPDATE users SET deleted_at = date_trunc('milliseconds', now()),
                     name = $2, name_lower = '', phone = NULL, email = NULL, email_lower = NULL,
                     password_hash = NULL, external_id = NULL, external_subject =
                         'deleted:' || encode(sha256(convert_to(external_subject, 'UTF8')), 'hex')
                 WHERE id = $1",
            )
            .bind(user.0)
            .bind(DELETED_USER)
            .execute(&mut *tx)
            .await?;
            sqlx::query("INSERT INTO erasures (user_id, messages, name) VALUES ($1, $2, $3)")
                .bind(user.0)
                .bind(messages)
                .bind(name)
                .execute(tx)
                .await?;
            Ok(true)
        })
        .await
    }

    /// Does the next bit of what a deletion does here, and gives the lanes to relay: the devices, or
    /// one chat. None once that is over for this round, counted from 1.
    pub async fn part(&self, user: UserId, round: i16) -> Result<Option<Vec<Uuid>>> {
        let Some((erasure, name)) = self.erasure_of(user).await? else { return Ok(None) };
        if erasure.round != round {
            return Ok(None);
        }
        match erasure.step {
            Step::Devices => self.part_from_devices(&erasure).await.map(Some),
            Step::Chats => self.part_from_next_chat(&erasure, name.as_deref()).await,
            Step::Messages | Step::Reactions | Step::Done => Ok(None),
        }
    }

    /// With what the user was called.
    async fn erasure_of(&self, user: UserId) -> Result<Option<(Erasure, Option<String>)>> {
        let row: Option<NamedRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT user_id, step, round, chat_id, position, name FROM erasures
                     WHERE user_id = $1",
                )
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|row| (row.erasure.into(), row.name)))
    }

    async fn part_from_devices(&self, erasure: &Erasure) -> Result<Vec<Uuid>> {
        let user = erasure.user;
        self.transaction(async |tx| {
            if !still(tx, erasure).await? {
                return Ok(Vec::new());
            }
            let shard: i16 = sqlx::query_scalar("SELECT shard FROM users WHERE id = $1")
                .bind(user.0)
                .fetch_one(&mut *tx)
                .await?;
            let shard = rows::shard(shard);
            let change = ProfileChanged { name: DELETED_USER.to_owned() };
            outbox::add_for_user(tx, user, shard, UserChange::ProfileChanged(change)).await?;
            let logins: Vec<(Uuid, Option<Uuid>, bool)> = sqlx::query_as(
                "SELECT id, session, external_id IS NOT NULL FROM devices
                 WHERE user_id = $1 AND revoked_at IS NULL
                 ORDER BY id FOR NO KEY UPDATE",
            )
            .bind(user.0)
            .fetch_all(&mut *tx)
            .await?;
            sqlx::query(
                "UPDATE devices SET revoked_at = COALESCE(revoked_at, now()), session = NULL,
                     name = NULL, platform = NULL, external_id = NULL, last_seen_at = NULL
                 WHERE user_id = $1",
            )
            .bind(user.0)
            .execute(&mut *tx)
            .await?;
            let logins: Vec<(Uuid, Option<Uuid>)> = logins
                .into_iter()
                .filter(|(_, session, outside)| session.is_some() || *outside)
                .map(|(device, session, _)| (device, session))
                .collect();
            signed_out(tx, user, shard, &logins).await?;
            sqlx::query("DELETE FROM notification_settings WHERE user_id = $1")
                .bind(user.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM blocks WHERE user_id = $1")
                .bind(user.0)
                .execute(&mut *tx)
                .await?;
            // What is promised to a message stays with that.
            sqlx::query(
                "UPDATE media SET state = 'gone', tries = 0, touched_at = now()
                 WHERE uploader_id = $1 AND NOT sent AND state <> 'gone' AND message_id IS NULL",
            )
            .bind(user.0)
            .execute(&mut *tx)
            .await?;
            advance(tx, &erasure.followed_by(Step::Chats)).await?;
            Ok(vec![user.0])
        })
        .await
    }

    async fn part_from_next_chat(
        &self,
        erasure: &Erasure,
        name: Option<&str>,
    ) -> Result<Option<Vec<Uuid>>> {
        let user = erasure.user;
        let next: Option<(Uuid, bool)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT m.chat_id, c.is_group
                     FROM chat_members m JOIN chats c ON c.id = m.chat_id
                     WHERE m.user_id = $1 AND ($2::uuid IS NULL OR m.chat_id > $2)
                     ORDER BY m.chat_id LIMIT 1",
                )
                .bind(user.0)
                .bind(erasure.position.chat)
                .fetch_optional(db)
                .await
            })
            .await?;
        let Some((chat, is_group)) = next else {
            self.end_chats(erasure).await?;
            return Ok(None);
        };
        let chat = ChatId(chat);
        if let Some(name) = name.filter(|name| *name != DELETED_USER) {
            // By itself: a worker locks messages before chats.
            self.unname(user, chat, name).await?;
        }
        self.transaction(async |tx| {
            if !still(tx, erasure).await? {
                return Ok(Some(Vec::new()));
            }
            let lanes = if is_group {
                leave(tx, user, chat).await?
            } else {
                shut(tx, user, chat, erasure.round == 1).await?
            };
            let position = Position { chat: Some(chat.0), within: None };
            advance(tx, &Erasure { position, ..erasure.clone() }).await?;
            Ok(Some(lanes))
        })
        .await
    }

    /// The texts of system entries that tell of the user, with the name that the user has now: those
    /// of what the user did, and of how the user's part began and ended.
    async fn unname(&self, user: UserId, chat: ChatId, name: &str) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE messages e SET content =
                     CASE WHEN e.sender_id = $2::uuid AND left(e.content, length($3::text) + 1) = $3::text || ' '
                          THEN $4::text || substr(e.content, length($3::text) + 1)
                          ELSE left(e.content, -length($3::text)) || $4::text END
                 FROM (
                     SELECT seq FROM messages
                     WHERE chat_id = $1 AND sender_id = $2::uuid AND client_msg_id IS NULL
                     UNION
                     SELECT unnest(ARRAY[from_seq, until_seq]) FROM chat_members
                     WHERE chat_id = $1 AND user_id = $2::uuid
                 ) of_user
                 WHERE e.chat_id = $1 AND e.seq = of_user.seq AND e.kind = 'system'
                   AND (e.sender_id = $2::uuid AND left(e.content, length($3::text) + 1) = $3::text || ' '
                        OR right(e.content, length($3::text) + 1) = ' ' || $3::text
                           AND e.detail ->> 'userId' = $2::uuid::text)",
            )
            .bind(chat.0)
            .bind(user.0)
            .bind(name)
            .bind(DELETED_USER)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// What comes after the last chat: messages that are to be taken back, another round, or the end.
    async fn end_chats(&self, erasure: &Erasure) -> Result<()> {
        self.call(async |db| {
            sqlx::query(
                "UPDATE erasures SET chat_id = NULL, position = NULL,
                     step = CASE WHEN messages THEN 'messages'
                                 WHEN round < $2 THEN 'chats' ELSE 'done' END,
                     round = CASE WHEN messages OR round >= $2 THEN round ELSE round + 1 END,
                     due_at = CASE WHEN messages OR round >= $2 THEN now() ELSE now() + $3 END,
                     name = CASE WHEN round >= $2 THEN NULL ELSE name END,
                     done_at = CASE WHEN NOT messages AND round >= $2
                                    THEN date_trunc('milliseconds', now()) END
                 WHERE user_id = $1 AND step = 'chats' AND chat_id IS NOT DISTINCT FROM $4",
            )
            .bind(erasure.user.0)
            .bind(ROUNDS)
            .bind(LATE)
            .bind(erasure.position.chat)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// Takes an erasure in hand that is due, for so long; none when there is none that nobody else has.
    pub async fn take_erasure(&self, lease: Duration) -> Result<Option<Erasure>> {
        let row: Option<ErasureRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "UPDATE erasures SET due_at = now() + $1
                     WHERE user_id = (
                         SELECT user_id FROM erasures WHERE step <> 'done' AND due_at <= now()
                         ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
                     )
                     RETURNING user_id, step, round, chat_id, position",
                )
                .bind(lease)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into))
    }

    /// It goes on no sooner than in so long; meanwhile another may have its turn.
    pub async fn put_off(&self, erasure: &Erasure, pause: Duration) -> Result<()> {
        self.call(async |db| {
            sqlx::query("UPDATE erasures SET due_at = now() + $2 WHERE user_id = $1")
                .bind(erasure.user.0)
                .bind(pause)
                .execute(db)
                .await
        })
        .await?;
        Ok(())
    }

    /// The next messages that are to be taken back, all of one chat; of a few chats' none, perhaps.
    pub async fn messages_to_erase(
        &self,
        erasure: &Erasure,
        limit: u32,
    ) -> Result<Bit<OwnMessage>> {
        let Position { chat, within } = erasure.position.clone();
        let (rows, looked_at) = self
            .call(async |db| {
                let (mut chat, mut within) = (chat, within);
                for _ in 0..CHATS_AT_ONCE {
                    if let Some(chat) = chat {
                        let after = within.as_deref();
                        let rows = own_messages(db, erasure.user, chat, after, limit).await?;
                        if !rows.is_empty() {
                            return Ok((rows, Some(chat)));
                        }
                    }
                    let next: Option<Uuid> = sqlx::query_scalar(
                        "SELECT chat_id FROM chat_members
                         WHERE user_id = $1 AND ($2::uuid IS NULL OR chat_id > $2)
                         ORDER BY chat_id LIMIT 1",
                    )
                    .bind(erasure.user.0)
                    .bind(chat)
                    .fetch_optional(&mut *db)
                    .await?;
                    if next.is_none() {
                        return Ok((Vec::new(), None));
                    }
                    (chat, within) = (next, None);
                }
                Ok::<_, StoreError>((Vec::new(), chat))
            })
            .await?;
        let position = looked_at.map(|chat| Position {
            chat: Some(chat),
            within: rows.last().map(|row| row.client_msg_id.clone()),
        });
        let after = erasure.at(position, Step::Reactions);
        Ok(Bit { entries: rows.into_iter().map(Into::into).collect(), after })
    }

    /// The next reactions that are to be taken back.
    pub async fn reactions_to_erase(
        &self,
        erasure: &Erasure,
        limit: u32,
    ) -> Result<Bit<OwnReaction>> {
        let Position { chat, within } = &erasure.position;
        let after = within.as_deref().and_then(|within| within.split_once(' '));
        let (place, emoji) = after.unwrap_or(("0", ""));
        let rows: Vec<ReactionRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT r.chat_id, c.shard, (
                         SELECT m.id FROM messages m
                         WHERE m.chat_id = r.chat_id AND m.seq = r.message_seq
                     ) AS id, r.message_seq, r.emoji, r.seq
                     FROM (
                         SELECT chat_id, message_seq, emoji, seq FROM reactions
                         WHERE user_id = $1 AND active
                           AND ($2::uuid IS NULL OR (chat_id, message_seq, emoji) > ($2, $3, $4))
                         ORDER BY chat_id, message_seq, emoji LIMIT $5
                     ) r
                     JOIN chats c ON c.id = r.chat_id
                     ORDER BY r.chat_id, r.message_seq, r.emoji",
                )
                .bind(erasure.user.0)
                .bind(chat)
                .bind(place.parse::<i64>().unwrap_or(0))
                .bind(emoji)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        let position = rows.last().map(|row| Position {
            chat: Some(row.chat_id),
            within: Some(format!("{} {}", row.message_seq, row.emoji)),
        });
        let after = erasure.at(position, Step::Done);
        Ok(Bit { entries: rows.into_iter().filter_map(ReactionRow::reaction).collect(), after })
    }

    /// Notes how far an erasure is; it stays in hand for so long.
    pub async fn erased(&self, after: &Erasure, lease: Duration) -> Result<()> {
        self.call(async |db| {
            if after.step == Step::Done {
                sqlx::query(
                    "UPDATE erasures SET chat_id = NULL, position = NULL,
                         step = CASE WHEN round < $2 THEN 'chats' ELSE 'done' END,
                         round = CASE WHEN round < $2 THEN round + 1 ELSE round END,
                         due_at = now() + $3,
                         done_at = CASE WHEN round >= $2
                                        THEN date_trunc('milliseconds', now()) END
                     WHERE user_id = $1 AND step = 'reactions'",
                )
                .bind(after.user.0)
                .bind(ROUNDS)
                .bind(LATE)
                .execute(db)
                .await
            } else {
                sqlx::query(
                    "UPDATE erasures SET step = $2, chat_id = $3, position = $4,
                         due_at = now() + $5
                     WHERE user_id = $1 AND step IN ('messages', 'reactions')",
                )
                .bind(after.user.0)
                .bind(after.step.as_str())
                .bind(after.position.chat)
                .bind(&after.position.within)
                .bind(lease)
                .execute(db)
                .await
            }
        })
        .await?;
        Ok(())
    }

    /// Erasures that are not done: how many, and how long ago the oldest was asked for.
    pub async fn erasures_waiting(&self) -> Result<(u64, Duration)> {
        let (count, seconds): (i64, f64) = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT count(*),
                            COALESCE(EXTRACT(EPOCH FROM now() - min(requested_at)), 0)::float8
                     FROM erasures WHERE step <> 'done'",
                )
                .fetch_one(db)
                .await
            })
            .await?;
        let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok((u64::try_from(count).unwrap_or(0), age))
    }
}

impl Erasure {
    /// Whether its step is at the beginning.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.position == Position::default()
    }

    fn followed_by(&self, step: Step) -> Self {
        Self { step, position: Position::default(), ..self.clone() }
    }

    /// Further on in this step; at the beginning of the next when there is no more of it.
    fn at(&self, position: Option<Position>, next: Step) -> Self {
        match position {
            Some(position) => Self { position, ..self.clone() },
            None => self.followed_by(next),
        }
    }
}

#[derive(sqlx::FromRow)]
struct OwnRow {
    chat_id: Uuid,
    shard: i16,
    id: Uuid,
    seq: i64,
    client_msg_id: String,
}

impl From<OwnRow> for OwnMessage {
    fn from(row: OwnRow) -> Self {
        let shard = rows::shard(row.shard);
        Self { chat: row.chat_id.into(), shard, id: row.id.into(), seq: seq(row.seq) }
    }
}

#[derive(sqlx::FromRow)]
struct ReactionRow {
    chat_id: Uuid,
    shard: i16,
    id: Option<Uuid>,
    message_seq: i64,
    emoji: String,
    seq: i64,
}

impl ReactionRow {
    /// None where its message is gone.
    fn reaction(self) -> Option<OwnReaction> {
        let message = OwnMessage {
            chat: self.chat_id.into(),
            shard: rows::shard(self.shard),
            id: self.id?.into(),
            seq: seq(self.message_seq),
        };
        Some(OwnReaction { message, emoji: self.emoji, seq: seq(self.seq) })
    }
}

async fn own_messages(
    db: &mut PgConnection,
    user: UserId,
    chat: Uuid,
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<OwnRow>> {
    // Along the key of idempotency, which begins with chat and sender.
    let rows = sqlx::query_as(
        "SELECT m.chat_id, c.shard, m.id, m.seq, m.client_msg_id
         FROM messages m JOIN chats c ON c.id = m.chat_id
         WHERE m.chat_id = $1 AND m.sender_id = $2 AND m.client_msg_id > $3
           AND m.kind = 'message' AND m.deleted_at IS NULL
         ORDER BY m.client_msg_id LIMIT $4",
    )
    .bind(chat)
    .bind(user.0)
    .bind(after.unwrap_or(""))
    .bind(i64::from(limit))
    .fetch_all(db)
    .await?;
    Ok(rows)
}

/// Locks the erasure. False when somebody else has gone on with it.
async fn still(tx: &mut PgConnection, erasure: &Erasure) -> Result<bool> {
    let there: Option<Uuid> = sqlx::query_scalar(
        "SELECT user_id FROM erasures
         WHERE user_id = $1 AND step = $2 AND chat_id IS NOT DISTINCT FROM $3 FOR UPDATE",
    )
    .bind(erasure.user.0)
    .bind(erasure.step.as_str())
    .bind(erasure.position.chat)
    .fetch_optional(tx)
    .await?;
    Ok(there.is_some())
}

async fn advance(tx: &mut PgConnection, erasure: &Erasure) -> Result<()> {
    sqlx::query("UPDATE erasures SET step = $2, chat_id = $3, position = $4 WHERE user_id = $1")
        .bind(erasure.user.0)
        .bind(erasure.step.as_str())
        .bind(erasure.position.chat)
        .bind(&erasure.position.within)
        .execute(tx)
        .await?;
    Ok(())
}

/// The user leaves a group, if the user is in it: by the rules of leaving. Invites that the user has
/// made are no good any more, also where the user has left before.
async fn leave(tx: &mut PgConnection, user: UserId, chat: ChatId) -> Result<Vec<Uuid>> {
    let place = match members::lock_chat(tx, chat).await {
        // It was deleted, and its invites with it.
        Err(StoreError::NotFound) => return Ok(Vec::new()),
        place => place?,
    };
    sqlx::query("DELETE FROM chat_invites WHERE chat_id = $1 AND created_by = $2")
        .bind(chat.0)
        .bind(user.0)
        .execute(&mut *tx)
        .await?;
    let Some(role) = members::current_role(tx, user, chat).await? else { return Ok(Vec::new()) };
    let (name, user_shard) = members::name_and_shard(tx, user).await?;
    let version = members::end_part(tx, user, chat).await?;
    let msg = format!("{name} left");
    let event = SystemEvent::new(SystemKind::Left, user, version, msg).about(user);
    members::tell_end(tx, chat, place.shard, event, (user, user_shard)).await?;
    if role == Role::Owner {
        members::ensure_owner(tx, chat, place.shard, user).await?;
    }
    Ok(vec![chat.0])
}

/// A one-to-one stays for the other, who cannot write to it any more, as if blocked, and is told what
/// it is called now.
async fn shut(tx: &mut PgConnection, user: UserId, chat: ChatId, tell: bool) -> Result<Vec<Uuid>> {
    let other: Option<(Uuid, i16)> = sqlx::query_as(
        "SELECT u.id, u.shard FROM chat_members m JOIN users u ON u.id = m.user_id
         WHERE m.chat_id = $1 AND m.user_id <> $2 AND m.left_at IS NULL
           AND u.deleted_at IS NULL",
    )
    .bind(chat.0)
    .bind(user.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some((other, _)) = other {
        blocks::lock_pair(tx, user, other.into()).await?;
    }
    sqlx::query("UPDATE chats SET shut = true WHERE id = $1 AND NOT shut")
        .bind(chat.0)
        .execute(&mut *tx)
        .await?;
    let Some((other, shard)) = other.filter(|_| tell) else { return Ok(Vec::new()) };
    let (other, shard) = (UserId(other), rows::shard(shard));
    let blocking =
        Blocking { by: user, user_id: other, blocked: true, chat_id: Some(chat), shut: true };
    let mut lanes = vec![blocks::tell(tx, blocking, other, shard).await?];
    // What is told of one chat is told in its order.
    sqlx::query("SELECT FROM chat_members WHERE chat_id = $1 AND user_id = $2 FOR NO KEY UPDATE")
        .bind(chat.0)
        .bind(other.0)
        .execute(&mut *tx)
        .await?;
    if let Some(seen) = chats::seen(tx, other, chat).await? {
        let change = UserChange::ChatUpdated(Box::new(seen));
        lanes.push(outbox::add_for_user(tx, other, shard, change).await?);
    }
    Ok(lanes)
}

/// Waits until nobody deletes one of these users, and keeps it so until the transaction ends.
///
/// # Errors
/// `NotFound` when one of them does not exist, or not any more.
pub(crate) async fn hold(tx: &mut PgConnection, users: &[Uuid]) -> Result<()> {
    let held: Vec<Uuid> = sqlx::query_scalar(
        "SELECT id FROM users WHERE id = ANY($1) AND deleted_at IS NULL ORDER BY id FOR KEY SHARE",
    )
    .bind(users)
    .fetch_all(tx)
    .await?;
    if held.len() == users.len() { Ok(()) } else { Err(StoreError::NotFound) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_read_as_it_is_written() {
        for step in [Step::Devices, Step::Chats, Step::Messages, Step::Reactions, Step::Done] {
            assert_eq!(Step::parse(step.as_str()), step);
        }
    }
}
