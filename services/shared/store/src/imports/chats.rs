//! Chats, and who takes part in them.

use std::collections::{HashMap, HashSet};

use natter_protocol::{
    ids::{Seq, Shard, UserId},
    server::Role,
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Brought, Import, Trouble, bounded, ensure_gone};
use crate::{
    Result, Store, StoreError,
    chats::direct_key,
    rows::{self, fold, seq, sql_shard},
};

/// A chat.
#[derive(Clone, Debug)]
pub struct ImportedChat {
    /// The chat's id here.
    pub id: Uuid,
    /// Said to be of two.
    pub one_to_one: bool,
    /// What a group is called.
    pub title: Option<String>,
    /// What it is about.
    pub description: Option<String>,
    /// Who made it; somebody who is gone, when there is no such user.
    pub created_by: Uuid,
    /// Where the feed of such a one lives.
    pub creator_shard: Shard,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Where its feed lives.
    pub shard: Shard,
}

/// All who take part in a chat, or did.
#[derive(Clone, Debug)]
pub struct ImportedRoom {
    /// The chat.
    pub chat: Uuid,
    /// Who, those who came first before others.
    pub members: Vec<ImportedMember>,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct ImportedMember {
    /// Who.
    pub user: Uuid,
    /// In a group.
    pub role: Role,
    /// Since when.
    pub joined_at: OffsetDateTime,
    /// Until when.
    pub left_at: Option<OffsetDateTime>,
}

pub(super) async fn chats(
    tx: &mut PgConnection,
    import: &Import,
    chats: &[ImportedChat],
) -> Result<Brought> {
    let creators: HashMap<Uuid, i16> =
        chats.iter().map(|chat| (chat.created_by, sql_shard(chat.creator_shard))).collect();
    ensure_gone(tx, &creators.into_iter().collect::<Vec<_>>()).await?;
    let written: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO chats (id, is_group, title, title_lower, description, created_by, created_at,
                            shard, version, last_activity_at)
         SELECT id, true, title, title_lower, description, created_by, at, shard, 1, at
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::uuid[], $6::timestamptz[],
                     $7::smallint[])
              AS e (id, title, title_lower, description, created_by, at, shard)
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(chats.iter().map(|chat| chat.id).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| chat.title.clone()).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| chat.title.as_deref().map(fold)).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| chat.description.clone()).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| chat.created_by).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| bounded(chat.created_at)).collect::<Vec<_>>())
    .bind(chats.iter().map(|chat| sql_shard(chat.shard)).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    let written: HashSet<Uuid> = written.into_iter().collect();
    let new = chats.iter().filter(|chat| written.contains(&chat.id));
    let (ids, (shards, pairs)): (Vec<Uuid>, (Vec<i16>, Vec<bool>)) =
        new.map(|chat| (chat.id, (sql_shard(chat.shard), chat.one_to_one))).unzip();
    sqlx::query(
        "INSERT INTO imported_chats (chat_id, import, shard, one_to_one)
         SELECT id, $4, shard, one_to_one
         FROM unnest($1::uuid[], $2::smallint[], $3::boolean[]) AS e (id, shard, one_to_one)",
    )
    .bind(ids)
    .bind(shards)
    .bind(pairs)
    .bind(&import.name)
    .execute(tx)
    .await?;
    let written = written.len() as u64;
    Ok(Brought { written, there: chats.len() as u64 - written, troubles: Vec::new() })
}

/// A chat that is to be opened, or was.
#[derive(sqlx::FromRow)]
struct Closed {
    chat_id: Uuid,
    one_to_one: bool,
    opened: bool,
    /// What it is, once it is open.
    is_group: bool,
    places: i64,
    created_by: Uuid,
    persisted_seq: i64,
}

/// Participants, by column.
#[derive(Default)]
struct Columns {
    chats: Vec<Uuid>,
    users: Vec<Uuid>,
    roles: Vec<&'static str>,
    joined: Vec<OffsetDateTime>,
    left: Vec<Option<OffsetDateTime>>,
}

/// Writes who takes part in chats whose messages are there, which opens these.
pub(super) async fn open(tx: &mut PgConnection, rooms: &[ImportedRoom]) -> Result<Brought> {
    let ids: Vec<Uuid> = rooms.iter().map(|room| room.chat).collect();
    let closed: Vec<Closed> = sqlx::query_as(
        "SELECT i.chat_id, i.one_to_one, i.opened, c.is_group, i.places, c.created_by,
                s.persisted_seq
         FROM imported_chats i JOIN chats c ON c.id = i.chat_id JOIN shards s ON s.shard = c.shard
         WHERE i.chat_id = ANY($1) ORDER BY i.chat_id FOR NO KEY UPDATE OF i",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await?;
    // The log must be beyond what is here before anybody can send.
    if closed.iter().any(|chat| !chat.opened && chat.places > chat.persisted_seq) {
        return Err(StoreError::Fenced);
    }
    let closed: HashMap<Uuid, Closed> =
        closed.into_iter().map(|chat| (chat.chat_id, chat)).collect();
    let users = alive(tx, rooms).await?;
    let mut taken = pairs(tx, rooms, &closed, &users).await?;
    let here = Here::of(tx, closed.values().filter(|chat| chat.opened)).await?;
    let mut brought = Brought::default();
    let mut columns = Columns::default();
    let mut opening = Opening::default();
    for (nth, room) in rooms.iter().enumerate() {
        let Some(chat) = closed.get(&room.chat) else {
            brought.troubles.push((nth, Trouble::NoChat));
            continue;
        };
        let (members, strangers) = known(room, &users);
        brought.troubles.extend((0..strangers).map(|_| (nth, Trouble::NoUser)));
        if chat.opened {
            let new = here.newcomers(room.chat, &members);
            brought.there += (members.len() - new.len()) as u64;
            if chat.is_group {
                let ownerless = !here.owned.contains(&room.chat);
                columns.push_group(room.chat, &new, &users, ownerless.then_some(chat.created_by));
            } else {
                brought.troubles.extend(new.iter().map(|_| (nth, Trouble::Third)));
            }
            continue;
        }
        if members.is_empty() {
            brought.troubles.push((nth, Trouble::Nobody));
            continue;
        }
        let key = chat.one_to_one.then(|| pair(&members)).flatten();
        let key = key.filter(|key| taken.insert(key.clone()));
        if chat.one_to_one && key.is_none() {
            brought.troubles.push((nth, Trouble::NotOfTwo));
        }
        let shut = key.is_some() && members.iter().any(|member| !users[&member.user]);
        if key.is_none() {
            columns.push_group(room.chat, &members, &users, Some(chat.created_by));
        } else {
            columns.push_pair(room.chat, &members);
        }
        opening.push(room.chat, key, shut);
    }
    let all = columns.users.len() as u64;
    brought.written = columns.insert(tx).await?;
    brought.there += all - brought.written;
    opening.finish(tx).await?;
    count_members(tx, &ids).await?;
    Ok(brought)
}

/// Who takes part in chats that are open already, or did.
#[derive(Default)]
struct Here {
    members: HashSet<(Uuid, Uuid)>,
    /// Chats that have an owner.
    owned: HashSet<Uuid>,
}

impl Here {
    async fn of(tx: &mut PgConnection, chats: impl Iterator<Item = &Closed>) -> Result<Self> {
        let chats: Vec<Uuid> = chats.map(|chat| chat.chat_id).collect();
        let mut here = Self::default();
        if chats.is_empty() {
            return Ok(here);
        }
        let rows: Vec<(Uuid, Uuid, bool)> = sqlx::query_as(
            "SELECT chat_id, user_id, role = 'owner' AND left_at IS NULL FROM chat_members
             WHERE chat_id = ANY($1)",
        )
        .bind(chats)
        .fetch_all(tx)
        .await?;
        for (chat, user, owns) in rows {
            here.members.insert((chat, user));
            if owns {
                here.owned.insert(chat);
            }
        }
        Ok(here)
    }

    /// Those of a room who never took part here.
    fn newcomers<'a>(&self, chat: Uuid, members: &[&'a ImportedMember]) -> Vec<&'a ImportedMember> {
        let new = |member: &&&ImportedMember| !self.members.contains(&(chat, member.user));
        members.iter().filter(new).copied().collect()
    }
}

/// Chats that become open, by column.
#[derive(Default)]
struct Opening {
    chats: Vec<Uuid>,
    keys: Vec<Option<String>>,
    shut: Vec<bool>,
}

impl Opening {
    fn push(&mut self, chat: Uuid, key: Option<String>, shut: bool) {
        self.chats.push(chat);
        self.keys.push(key);
        self.shut.push(shut);
    }

    async fn finish(&self, tx: &mut PgConnection) -> Result<()> {
        sqlx::query(
            "UPDATE chats c SET is_group = e.key IS NULL, direct_key = e.key, shut = e.shut,
                 oldest_at = (SELECT min(m.created_at) FROM messages m
                              WHERE m.chat_id = c.id AND m.seq = 1),
                 title = CASE WHEN e.key IS NULL THEN c.title END,
                 title_lower = CASE WHEN e.key IS NULL THEN c.title_lower END,
                 description = CASE WHEN e.key IS NULL THEN c.description END
             FROM unnest($1::uuid[], $2::text[], $3::boolean[]) AS e (id, key, shut)
             WHERE c.id = e.id",
        )
        .bind(&self.chats)
        .bind(&self.keys)
        .bind(&self.shut)
        .execute(&mut *tx)
        .await?;
        sqlx::query("UPDATE imported_chats SET opened = true WHERE chat_id = ANY($1)")
            .bind(&self.chats)
            .execute(tx)
            .await?;
        Ok(())
    }
}

impl Columns {
    /// Members of a group. `creator`: of one that has no owner, who made it. It gets one: its creator, or
    /// the first of its admins, or of all. Who is deleted takes part in a one-to-one only.
    fn push_group(
        &mut self,
        chat: Uuid,
        members: &[&ImportedMember],
        users: &HashMap<Uuid, bool>,
        creator: Option<Uuid>,
    ) {
        let stays = |member: &&&ImportedMember| member.left_at.is_none() && users[&member.user];
        let owner = creator.and_then(|creator| {
            let staying = || members.iter().filter(stays);
            staying()
                .find(|member| member.role == Role::Owner)
                .or_else(|| staying().find(|member| member.user == creator))
                .or_else(|| staying().find(|member| member.role == Role::Admin))
                .or_else(|| staying().next())
                .map(|member| member.user)
        });
        for member in members {
            let role = if owner == Some(member.user) { Role::Owner } else { member.role };
            let gone = (!users[&member.user]).then_some(member.joined_at);
            self.push(chat, member, role, member.left_at.or(gone));
        }
    }

    /// The two of a one-to-one.
    fn push_pair(&mut self, chat: Uuid, members: &[&ImportedMember]) {
        for member in members {
            self.push(chat, member, Role::Member, member.left_at);
        }
    }

    fn push(
        &mut self,
        chat: Uuid,
        member: &ImportedMember,
        role: Role,
        left_at: Option<OffsetDateTime>,
    ) {
        self.chats.push(chat);
        self.users.push(member.user);
        self.roles.push(role.as_str());
        self.joined.push(bounded(member.joined_at));
        self.left.push(left_at.map(bounded));
    }

    async fn insert(&self, tx: &mut PgConnection) -> Result<u64> {
        let done = sqlx::query(
            "INSERT INTO chat_members (chat_id, user_id, role, joined_at, left_at, version, from_seq,
                                       until_seq, read_seq, delivered_seq)
             SELECT e.chat_id, e.user_id, e.role, e.joined_at, e.left_at, 1, 1,
                    CASE WHEN e.left_at IS NOT NULL THEN c.last_seq END, c.last_seq, c.last_seq
             FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::timestamptz[])
                  AS e (chat_id, user_id, role, joined_at, left_at)
             JOIN chats c ON c.id = e.chat_id
             ON CONFLICT DO NOTHING",
        )
        .bind(&self.chats)
        .bind(&self.users)
        .bind(&self.roles)
        .bind(&self.joined)
        .bind(&self.left)
        .execute(tx)
        .await?;
        Ok(done.rows_affected())
    }
}

/// Those of the rooms' users that there are, and whether their account is alive.
async fn alive(tx: &mut PgConnection, rooms: &[ImportedRoom]) -> Result<HashMap<Uuid, bool>> {
    let users: HashSet<Uuid> =
        rooms.iter().flat_map(|room| &room.members).map(|member| member.user).collect();
    let rows: Vec<(Uuid, bool)> =
        sqlx::query_as("SELECT id, deleted_at IS NULL FROM users WHERE id = ANY($1)")
            .bind(users.into_iter().collect::<Vec<_>>())
            .fetch_all(tx)
            .await?;
    Ok(rows.into_iter().collect())
}

/// The members that are users, each once, and how many are none.
fn known<'a>(
    room: &'a ImportedRoom,
    users: &HashMap<Uuid, bool>,
) -> (Vec<&'a ImportedMember>, usize) {
    let mut seen = HashSet::new();
    let members: Vec<&ImportedMember> = room
        .members
        .iter()
        .filter(|member| users.contains_key(&member.user) && seen.insert(member.user))
        .collect();
    let strangers = room.members.iter().filter(|member| !users.contains_key(&member.user));
    (members, strangers.count())
}

/// The key of a one-to-one of these, if they are two who are both there.
fn pair(members: &[&ImportedMember]) -> Option<String> {
    match members {
        [one, other] if one.left_at.is_none() && other.left_at.is_none() => {
            Some(direct_key(UserId(one.user), UserId(other.user)))
        }
        _ => None,
    }
}

/// The one-to-ones that there are already of the same two as these rooms are.
async fn pairs(
    tx: &mut PgConnection,
    rooms: &[ImportedRoom],
    closed: &HashMap<Uuid, Closed>,
    users: &HashMap<Uuid, bool>,
) -> Result<HashSet<String>> {
    let rooms = rooms.iter().filter(|room| closed.get(&room.chat).is_some_and(|c| c.one_to_one));
    let keys: Vec<String> = rooms.filter_map(|room| pair(&known(room, users).0)).collect();
    let taken: Vec<String> =
        sqlx::query_scalar("SELECT direct_key FROM chats WHERE direct_key = ANY($1)")
            .bind(keys)
            .fetch_all(tx)
            .await?;
    Ok(taken.into_iter().collect())
}

pub(super) async fn count_members(tx: &mut PgConnection, chats: &[Uuid]) -> Result<()> {
    sqlx::query(
        "UPDATE chats c SET members = counted.members
         FROM (
             SELECT chat_id, count(*) AS members FROM chat_members
             WHERE chat_id = ANY($1) AND left_at IS NULL GROUP BY chat_id
         ) counted
         WHERE c.id = counted.chat_id AND c.members <> counted.members",
    )
    .bind(chats)
    .execute(tx)
    .await?;
    Ok(())
}

/// How long an import's chats are.
impl Store {
    /// The shards whose logs are not beyond the messages of chats that are not open: how far they have
    /// to be.
    pub async fn import_needs(&self, import: &str) -> Result<Vec<(Shard, Seq)>> {
        let rows: Vec<(i16, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT i.shard, max(i.places) FROM imported_chats i
                     JOIN shards s ON s.shard = i.shard
                     WHERE i.import = $1 AND NOT i.opened AND i.places > s.persisted_seq
                     GROUP BY i.shard ORDER BY i.shard",
                )
                .bind(import)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(|(shard, places)| (rows::shard(shard), seq(places))).collect())
    }

    /// How many of an import's chats nobody takes part in.
    pub async fn import_closed(&self, import: &str) -> Result<u64> {
        let count: i64 = self
            .call(async |db| {
                sqlx::query_scalar(
                    "SELECT count(*) FROM imported_chats WHERE import = $1 AND NOT opened",
                )
                .bind(import)
                .fetch_one(db)
                .await
            })
            .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
