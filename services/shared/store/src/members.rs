//! Who takes part in a chat: joining, leaving, and what a connection follows.

use natter_protocol::{
    feed::{OutboxChat, OutboxItem, OutboxUser, SystemEvent, SystemKind, UserChange},
    ids::{ChatId, Seq, Shard, UserId},
    server::{Participant, Role},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Conflict, Result, Store, StoreError, bans, deletion, outbox,
    rows::{self, seq},
    views,
};

/// Chats that a user's connections follow at most.
const FOLLOWED: i64 = 5_000;

/// What joining or leaving came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The shard of the chat's feed.
    pub shard: Shard,
    /// Whether anything changed; not when the user was a participant already.
    pub changed: bool,
    /// To relay, when it changed.
    pub lane: Option<Uuid>,
}

/// A participant's place in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The shard of the chat's feed.
    pub shard: Shard,
    /// What they may do.
    pub role: Role,
    /// A one-to-one of which one has blocked the other: nobody can write to it.
    pub shut: bool,
}

/// Where a page of participants ended. Times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParticipantCursor {
    /// When the last one joined.
    pub joined_at: OffsetDateTime,
    /// Who that is.
    pub id: UserId,
}

/// What a user's connections follow, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// The shard of the user's own feed.
    pub user_shard: Shard,
    /// The user's name.
    pub name: String,
    /// The user's chats: the 5,000 with the newest activity at most.
    pub chats: Vec<FollowedChat>,
    /// The last entry of the user's own feed that Postgres knows; 0 when it is empty.
    pub user_last_seq: Seq,
    /// Lanes of chats that the user has left without the user's feed having been told of it for
    /// sure: where the chat ended for the user is known only when they have been relayed.
    pub leaving: Vec<Uuid>,
    /// Up to where each shard is written here.
    pub persisted: Vec<(Shard, Seq)>,
    /// The chats among them to which nobody can write, since one has blocked the other.
    pub shut: Vec<ChatId>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowedChat {
    /// The chat.
    pub id: ChatId,
    /// The shard of its feed.
    pub shard: Shard,
    /// The entry that made the user a participant; none until the outbox has relayed it, and
    /// then the user's feed tells.
    pub from_seq: Option<Seq>,
    /// The last entry of the chat's feed that Postgres knows; 0 when it is empty.
    pub last_seq: Seq,
}

impl Store {
    /// Makes the user a participant of an open chat.
    ///
    /// # Errors
    /// `NotFound` for an unknown chat or user; `Forbidden` when the chat is not open;
    /// `Conflict::Banned` when the user may not come back.
    pub async fn join(&self, user: UserId, chat: ChatId) -> Result<Membership> {
        // Clients join whatever they open: most are in already, and nothing needs a lock.
        if let Some(member) = self.membership(user, chat).await? {
            return Ok(unchanged(member.shard));
        }
        self.transaction(async |tx| {
            let place = lock_chat(tx, chat).await?;
            // Of two joins at once the second waited for the lock; read by a statement of its own,
            // the membership that the first has made is seen.
            if current_role(tx, user, chat).await?.is_some() {
                return Ok(unchanged(place.shard));
            }
            if !place.open {
                return Err(StoreError::Forbidden);
            }
            enter(tx, user, chat, &place).await?;
            Ok(changed(place.shard, chat))
        })
        .await
    }

    /// Ends the user's participation in a group. When its last owner leaves, somebody else becomes
    /// one.
    ///
    /// # Errors
    /// `NotFound` when the user is no participant or the chat is unknown; `Forbidden` for a
    /// one-to-one.
    pub async fn leave(&self, user: UserId, chat: ChatId) -> Result<Membership> {
        self.transaction(async |tx| {
            let place = lock_chat(tx, chat).await?;
            // Leaving twice, or leaving and being removed at once: the second finds nothing here.
            let Some(role) = current_role(tx, user, chat).await? else {
                return Err(StoreError::NotFound);
            };
            if !place.is_group {
                return Err(StoreError::Forbidden);
            }
            let (name, user_shard) = name_and_shard(tx, user).await?;
            let version = end_part(tx, user, chat).await?;
            let msg = format!("{name} left");
            let event = SystemEvent::new(SystemKind::Left, user, version, msg).about(user);
            tell_end(tx, chat, place.shard, event, (user, user_shard)).await?;
            if role == Role::Owner {
                ensure_owner(tx, chat, place.shard, user).await?;
            }
            Ok(changed(place.shard, chat))
        })
        .await
    }

    /// Whether the user takes part.
    pub async fn membership(&self, user: UserId, chat: ChatId) -> Result<Option<Member>> {
        let row: Option<(i16, String, bool)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT c.shard, m.role, c.shut FROM chat_members m JOIN chats c ON c.id = m.chat_id
             WHERE m.chat_id = $1 AND m.user_id = $2 AND m.left_at IS NULL",
                )
                .bind(chat.0)
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(|(shard, role, shut)| Member {
            shard: rows::shard(shard),
            role: Role::parse(&role).unwrap_or(Role::Member),
            shut,
        }))
    }

    /// A page of participants, by the time they joined, and the cursor of the next page. At most
    /// 1,000 a page. Whether the caller may see them is the caller's to check.
    pub async fn participants(
        &self,
        chat: ChatId,
        cursor: Option<ParticipantCursor>,
        limit: u32,
    ) -> Result<(Vec<Participant>, Option<ParticipantCursor>)> {
        let limit = limit.clamp(1, 1_000) as usize;
        let mut found: Vec<(Uuid, String, String, bool, OffsetDateTime)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT m.user_id, u.name, m.role, u.bot, m.joined_at
             FROM chat_members m JOIN users u ON u.id = m.user_id
             WHERE m.chat_id = $1 AND m.left_at IS NULL
               AND ($2::timestamptz IS NULL OR (m.joined_at, m.user_id) > ($2, $3))
             ORDER BY m.joined_at, m.user_id LIMIT $4",
                )
                .bind(chat.0)
                .bind(cursor.map(|cursor| cursor.joined_at))
                .bind(cursor.map(|cursor| cursor.id.0))
                // One more tells whether there is a next page.
                .bind(limit as i64 + 1)
                .fetch_all(db)
                .await
            })
            .await?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| more);
        let next = next.map(|(id, .., joined_at)| ParticipantCursor {
            joined_at: *joined_at,
            id: (*id).into(),
        });
        let participants = found
            .into_iter()
            .map(|(id, name, role, bot, _)| Participant {
                id: id.into(),
                name,
                role: Role::parse(&role).unwrap_or(Role::Member),
                bot,
            })
            .collect();
        Ok((participants, next))
    }

    /// What the user's connections follow.
    ///
    /// # Errors
    /// `NotFound` when there is no such user.
    pub async fn followed(&self, user: UserId) -> Result<Followed> {
        // One statement is one snapshot. A joining whose relay is not finished has not surely been
        // put on the user's feed, which will tell it: it counts as none. So whoever reads the feed
        // to its end knows that what the snapshot has was told.
        let row: FollowedRow = self
            .call(async |db| {
                sqlx::query_as(
                    r#"SELECT u.name, u.shard AS user_shard, u.last_seq AS user_last_seq,
                    COALESCE(f.ids, '{}') AS ids, COALESCE(f.shards, '{}') AS shards,
                    COALESCE(f.from_seqs, '{}') AS from_seqs,
                    COALESCE(f.last_seqs, '{}') AS last_seqs, COALESCE(f.shut, '{}') AS shut,
                    COALESCE(l.lanes, '{}') AS leaving,
                    COALESCE(s.numbers, '{}') AS numbers, COALESCE(s.persisted, '{}') AS persisted
             FROM users u
             CROSS JOIN (
                 SELECT array_agg(id) AS ids, array_agg(shard) AS shards,
                        array_agg(from_seq) AS from_seqs, array_agg(last_seq) AS last_seqs,
                        array_agg(id) FILTER (WHERE shut) AS shut
                 FROM (
                     SELECT c.id, c.shard, c.last_seq, c.shut,
                            CASE WHEN EXISTS (
                                SELECT FROM outbox o
                                WHERE o.lane = m.chat_id AND o.payload->'users'
                                      @> jsonb_build_array(jsonb_build_object(
                                          'userId', $1::uuid::text))
                            ) THEN NULL ELSE m.from_seq END AS from_seq
                     FROM chat_members m JOIN chats c ON c.id = m.chat_id
                     WHERE m.user_id = $1 AND m.left_at IS NULL
                     ORDER BY c.last_activity_at DESC, c.id DESC LIMIT $2
                 ) newest
             ) f
             CROSS JOIN (
                 SELECT array_agg(DISTINCT lane) AS lanes FROM outbox
                 -- The first condition is the index's own.
                 WHERE payload->'users' @> '[{"change": "removed"}]'
                   AND payload->'users' @> jsonb_build_array(jsonb_build_object(
                       'userId', $1::uuid::text, 'change', 'removed'))
             ) l
             CROSS JOIN (
                 SELECT array_agg(shard ORDER BY shard) AS numbers,
                        array_agg(persisted_seq ORDER BY shard) AS persisted
                 FROM shards
             ) s
             WHERE u.id = $1"#,
                )
                .bind(user.0)
                .bind(FOLLOWED)
                .fetch_one(db)
                .await
            })
            .await?;
        Ok(row.into())
    }

    /// Of these users (the first 1,000), those with whom the viewer shares a chat and who have not
    /// blocked the viewer, or who are the viewer, with the shards of their feeds.
    pub async fn shares_chat(
        &self,
        viewer: UserId,
        users: &[UserId],
    ) -> Result<Vec<(UserId, Shard)>> {
        let ids: Vec<Uuid> = users.iter().take(1_000).map(|user| user.0).collect();
        let found: Vec<(Uuid, i16)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT u.id, u.shard FROM users u
             WHERE u.id = ANY($2) AND (u.id = $1 OR EXISTS (
                 SELECT FROM chat_members mine JOIN chat_members theirs USING (chat_id)
                 WHERE mine.user_id = $1 AND mine.left_at IS NULL
                   AND theirs.user_id = u.id AND theirs.left_at IS NULL
             )) AND NOT EXISTS (
                 SELECT FROM blocks b WHERE b.user_id = u.id AND b.blocked_id = $1
             )",
                )
                .bind(viewer.0)
                .bind(ids)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(found.into_iter().map(|(id, shard)| (id.into(), rows::shard(shard))).collect())
    }
}

#[derive(sqlx::FromRow)]
struct FollowedRow {
    name: String,
    user_shard: i16,
    user_last_seq: i64,
    ids: Vec<Uuid>,
    shards: Vec<i16>,
    from_seqs: Vec<Option<i64>>,
    last_seqs: Vec<i64>,
    shut: Vec<Uuid>,
    leaving: Vec<Uuid>,
    numbers: Vec<i16>,
    persisted: Vec<i64>,
}

impl From<FollowedRow> for Followed {
    fn from(row: FollowedRow) -> Self {
        let places = row.shards.into_iter().zip(row.from_seqs).zip(row.last_seqs);
        let chats = row
            .ids
            .into_iter()
            .zip(places)
            .map(|(id, ((shard, from), last))| FollowedChat {
                id: id.into(),
                shard: rows::shard(shard),
                from_seq: from.map(seq),
                last_seq: seq(last),
            })
            .collect();
        let numbers = row.numbers.into_iter().map(rows::shard);
        Self {
            user_shard: rows::shard(row.user_shard),
            name: row.name,
            chats,
            user_last_seq: seq(row.user_last_seq),
            leaving: row.leaving,
            persisted: numbers.zip(row.persisted.into_iter().map(seq)).collect(),
            shut: row.shut.into_iter().map(ChatId).collect(),
        }
    }
}

/// What of a chat decides who may come and go.
pub(crate) struct Place {
    pub(crate) shard: Shard,
    pub(crate) is_group: bool,
    pub(crate) open: bool,
    pub(crate) members: i64,
}

pub(crate) fn unchanged(shard: Shard) -> Membership {
    Membership { shard, changed: false, lane: None }
}

pub(crate) fn changed(shard: Shard, chat: ChatId) -> Membership {
    Membership { shard, changed: true, lane: Some(chat.0) }
}

/// Locks the chat: what changes its members takes turns. `NotFound` also for one that was deleted.
pub(crate) async fn lock_chat(tx: &mut PgConnection, chat: ChatId) -> Result<Place> {
    let (shard, is_group, open, members): (i16, bool, bool, i64) = sqlx::query_as(
        "SELECT shard, is_group, open, members FROM chats
         WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE",
    )
    .bind(chat.0)
    .fetch_one(tx)
    .await?;
    Ok(Place { shard: rows::shard(shard), is_group, open, members })
}

pub(crate) async fn current_role(
    tx: &mut PgConnection,
    user: UserId,
    chat: ChatId,
) -> Result<Option<Role>> {
    let role: Option<String> = sqlx::query_scalar(
        "SELECT role FROM chat_members WHERE chat_id = $1 AND user_id = $2 AND left_at IS NULL",
    )
    .bind(chat.0)
    .bind(user.0)
    .fetch_optional(tx)
    .await?;
    Ok(role.map(|role| Role::parse(&role).unwrap_or(Role::Member)))
}

pub(crate) async fn name_and_shard(tx: &mut PgConnection, user: UserId) -> Result<(String, Shard)> {
    let (name, shard): (String, i16) =
        sqlx::query_as("SELECT name, shard FROM users WHERE id = $1")
            .bind(user.0)
            .fetch_one(tx)
            .await?;
    Ok((name, rows::shard(shard)))
}

/// Counts the change, and the members after it.
pub(crate) async fn next_version(tx: &mut PgConnection, chat: ChatId, members: i64) -> Result<i64> {
    let version = sqlx::query_scalar(
        "UPDATE chats SET version = version + 1, members = members + $2 WHERE id = $1
         RETURNING version",
    )
    .bind(chat.0)
    .bind(members)
    .fetch_one(tx)
    .await?;
    Ok(version)
}

/// Makes somebody a participant who comes by themselves. The caller has locked the chat, and knows
/// that they take no part yet and may come. Whoever comes to an empty group owns it.
///
/// # Errors
/// `Conflict::Banned` for one who may not come back; `NotFound` when there is no such user.
pub(crate) async fn enter(
    tx: &mut PgConnection,
    user: UserId,
    chat: ChatId,
    place: &Place,
) -> Result<()> {
    if bans::any(tx, chat, &[user.0]).await? {
        return Err(StoreError::Conflict(Conflict::Banned));
    }
    let (name, user_shard) = name_and_shard(tx, user).await?;
    let version = next_version(tx, chat, 1).await?;
    let role = if place.members == 0 { Role::Owner } else { Role::Member };
    put_in(tx, chat, &[user.0], &[version], role).await?;
    let view = views::shared(tx, chat.0).await?;
    let change = UserChange::Added { me: views::me(&view, user, role) };
    let msg = format!("{name} joined");
    let event = SystemEvent::new(SystemKind::Joined, user, version, msg).about(user);
    let item = OutboxItem {
        chat: Some(OutboxChat { chat_id: chat, shard: place.shard, event, view: Some(view) }),
        users: vec![OutboxUser { user_id: user, shard: user_shard, change }],
    };
    outbox::add(tx, chat.0, item).await
}

/// The rows of new participants, each with the version of its own change.
///
/// # Errors
/// `NotFound` when one of them does not exist, or not any more.
pub(crate) async fn put_in(
    tx: &mut PgConnection,
    chat: ChatId,
    users: &[Uuid],
    versions: &[i64],
    role: Role,
) -> Result<()> {
    deletion::hold(tx, users).await?;
    sqlx::query(
        "INSERT INTO chat_members (chat_id, user_id, role, joined_at, version)
         SELECT $1, user_id, $4, date_trunc('milliseconds', now()), version
         FROM unnest($2::uuid[], $3::bigint[]) AS m (user_id, version)
         ON CONFLICT (chat_id, user_id) DO UPDATE SET
             role = excluded.role, joined_at = excluded.joined_at, version = excluded.version,
             left_at = NULL, from_seq = NULL, until_seq = NULL",
    )
    .bind(chat.0)
    .bind(users)
    .bind(versions)
    .bind(role.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends a participant's part, and counts that. The caller has locked the chat.
pub(crate) async fn end_part(tx: &mut PgConnection, user: UserId, chat: ChatId) -> Result<i64> {
    let version = next_version(tx, chat, -1).await?;
    sqlx::query(
        "UPDATE chat_members SET left_at = date_trunc('milliseconds', now()), version = $3
         WHERE chat_id = $1 AND user_id = $2",
    )
    .bind(chat.0)
    .bind(user.0)
    .bind(version)
    .execute(tx)
    .await?;
    Ok(version)
}

/// Has the feeds told of an end.
pub(crate) async fn tell_end(
    tx: &mut PgConnection,
    chat_id: ChatId,
    shard: Shard,
    event: SystemEvent,
    (user_id, user_shard): (UserId, Shard),
) -> Result<()> {
    let item = OutboxItem {
        chat: Some(OutboxChat { chat_id, shard, event, view: None }),
        users: vec![OutboxUser { user_id, shard: user_shard, change: UserChange::Removed }],
    };
    outbox::add(tx, chat_id.0, item).await
}

/// Has the chat's feed told of something that no user's feed need hear of.
pub(crate) async fn tell(
    tx: &mut PgConnection,
    chat_id: ChatId,
    shard: Shard,
    event: SystemEvent,
) -> Result<()> {
    let chat = Some(OutboxChat { chat_id, shard, event, view: None });
    outbox::add(tx, chat_id.0, OutboxItem { chat, users: Vec::new() }).await
}

/// Where a group has participants and no owner, its longest-standing admin becomes one, or else
/// whoever has been in it for longest. The caller has locked the chat.
pub(crate) async fn ensure_owner(
    tx: &mut PgConnection,
    chat: ChatId,
    shard: Shard,
    actor: UserId,
) -> Result<()> {
    let heir: Option<(Uuid, String)> = sqlx::query_as(
        "SELECT m.user_id, u.name FROM chat_members m JOIN users u ON u.id = m.user_id
         WHERE m.chat_id = $1 AND m.left_at IS NULL AND NOT EXISTS (
             SELECT FROM chat_members o
             WHERE o.chat_id = $1 AND o.left_at IS NULL AND o.role = 'owner'
         )
         ORDER BY m.role <> 'admin', m.joined_at, m.user_id LIMIT 1",
    )
    .bind(chat.0)
    .fetch_optional(&mut *tx)
    .await?;
    match heir {
        Some((heir, name)) => {
            give_role(tx, (chat, shard), actor, (heir.into(), &name), Role::Owner).await
        }
        None => Ok(()),
    }
}

/// Gives a participant a role, and has the chat's feed told. The row keeps its version, which is that
/// of the change that made the user a participant: its relay may still be under way.
pub(crate) async fn give_role(
    tx: &mut PgConnection,
    (chat, shard): (ChatId, Shard),
    actor: UserId,
    (user, name): (UserId, &str),
    role: Role,
) -> Result<()> {
    let version = next_version(tx, chat, 0).await?;
    sqlx::query(
        "UPDATE chat_members SET role = $3
         WHERE chat_id = $1 AND user_id = $2 AND left_at IS NULL",
    )
    .bind(chat.0)
    .bind(user.0)
    .bind(role.as_str())
    .execute(&mut *tx)
    .await?;
    let article = if role == Role::Member { "a" } else { "an" };
    let msg = format!("{name} is {article} {} now", role.as_str());
    let event = SystemEvent::new(SystemKind::Role, actor, version, msg).about(user);
    tell(tx, chat, shard, SystemEvent { role: Some(role), ..event }).await
}
