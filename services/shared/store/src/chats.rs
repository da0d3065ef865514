//! Chats made, and one chat as its viewer sees it.

use std::{collections::HashMap, iter::zip};

use natter_protocol::{
    feed::{OutboxChat, OutboxItem, OutboxUser, SystemEvent, SystemKind, UserChange},
    ids::{ChatId, Shard, UserId},
    server::{Chat, Role},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError, blocks, deletion, outbox,
    reads::unread,
    rows::{self, fold, sql_shard},
    views::{self, ChatRow, of_participant},
};

/// A chat that was made, or was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The chat.
    pub chat: ChatId,
    /// Where its feed lives: for one that was there, not the shard offered.
    pub shard: Shard,
    /// To relay; none when it was there.
    pub lane: Option<Uuid>,
    /// It was there already.
    pub existed: bool,
}

impl Store {
    /// Makes a group of the actor, its owner, and the participants (duplicates and the actor
    /// among them count once).
    ///
    /// # Errors
    /// `NotFound` when the actor or a participant does not exist.
    pub async fn create_group(
        &self,
        actor: UserId,
        title: Option<&str>,
        open: bool,
        participants: &[UserId],
        shard: Shard,
    ) -> Result<Created> {
        let mut users: Vec<Uuid> = participants.iter().map(|user| user.0).collect();
        users.push(actor.0);
        users.sort_unstable();
        users.dedup();
        let draft = Draft {
            id: ChatId::generate(),
            title,
            open,
            direct_key: None,
            created_by: actor,
            shard,
        };
        self.transaction(async |tx| {
            deletion::hold(tx, &users).await?;
            if !insert_chat(tx, &draft, users.len()).await? {
                return Err(StoreError::NotFound);
            }
            let roles: Vec<Role> = users
                .iter()
                .map(|user| if *user == actor.0 { Role::Owner } else { Role::Member })
                .collect();
            let created = announce(tx, &draft, &users, &roles).await?;
            Ok(created)
        })
        .await
    }

    /// The one-to-one of two users, made by `a` when there is none: the same pair always gets
    /// the same chat, also when both ask at once.
    ///
    /// # Errors
    /// `NotFound` when one does not exist; `Forbidden` with oneself, or when there is none yet and
    /// one has blocked the other.
    pub async fn open_direct(&self, a: UserId, b: UserId, shard: Shard) -> Result<Created> {
        if a == b {
            return Err(StoreError::Forbidden);
        }
        let key = direct_key(a, b);
        if let Some(there) = self.direct(a, b).await? {
            return Ok(there);
        }
        let draft = Draft {
            id: ChatId::generate(),
            title: None,
            open: false,
            direct_key: Some(&key),
            created_by: a,
            shard,
        };
        // When both open the chat at once, the second insert waits for the first to commit and
        // then does nothing: the chat that is there is the pair's, and only one is announced. If
        // the first rolls back instead, the second makes it.
        let created = self
            .transaction(async |tx| {
                // Whoever blocks takes it too, and shuts the chat that is there by then.
                blocks::lock_pair(tx, a, b).await?;
                deletion::hold(tx, &[a.0, b.0]).await?;
                if blocks::between(tx, a, b).await? {
                    return Err(StoreError::Forbidden);
                }
                if !insert_chat(tx, &draft, 2).await? {
                    return Ok(None);
                }
                announce(tx, &draft, &[a.0, b.0], &[Role::Member; 2]).await.map(Some)
            })
            .await?;
        if let Some(created) = created {
            return Ok(created);
        }
        self.direct(a, b).await?.ok_or(StoreError::NotFound)
    }

    /// A chat with its first participants, last message and the viewer's part; none when the
    /// viewer is no participant, whether or not the chat exists.
    pub async fn chat(&self, viewer: UserId, chat: ChatId) -> Result<Option<Chat>> {
        self.call(async |db| seen(db, viewer, chat).await).await
    }
}

/// [`Store::chat`], in a transaction too.
pub(crate) async fn seen(
    connection: &mut PgConnection,
    viewer: UserId,
    chat: ChatId,
) -> Result<Option<Chat>> {
    let row: Option<ChatRow> = sqlx::query_as(concat!(
        "SELECT v.*, ",
        unread!(),
        " AS unread FROM (
             SELECT c.id, c.is_group, c.title, c.description, c.open, c.created_by, c.created_at, c.members,
                    c.last_seq, c.last_message_seq, c.last_activity_at, ",
        of_participant!(),
        " FROM chats c JOIN chat_members m ON m.chat_id = c.id
             WHERE c.id = $1 AND m.user_id = $2 AND m.left_at IS NULL
         ) v"
    ))
    .bind(chat.0)
    .bind(viewer.0)
    .fetch_optional(&mut *connection)
    .await?;
    let rows = row.into_iter().collect();
    views::load(connection, Some(viewer), rows).await.map(|mut chats| chats.pop())
}

impl Store {
    /// The one-to-one of two users, if there is one.
    pub async fn direct(&self, a: UserId, b: UserId) -> Result<Option<Created>> {
        let key = direct_key(a, b);
        let row: Option<(Uuid, i16)> = self
            .call(async |db| {
                sqlx::query_as("SELECT id, shard FROM chats WHERE direct_key = $1")
                    .bind(&key)
                    .fetch_optional(db)
                    .await
            })
            .await?;
        Ok(row.map(|(chat, shard)| Created {
            chat: chat.into(),
            shard: rows::shard(shard),
            lane: None,
            existed: true,
        }))
    }
}

/// The same for both orders.
pub(crate) fn direct_key(a: UserId, b: UserId) -> String {
    format!("{}:{}", a.min(b), a.max(b))
}

/// A chat about to be made.
struct Draft<'a> {
    id: ChatId,
    title: Option<&'a str>,
    open: bool,
    /// Of a one-to-one.
    direct_key: Option<&'a str>,
    created_by: UserId,
    shard: Shard,
}

/// Whether the chat was made: not when there is one with its key.
async fn insert_chat(tx: &mut PgConnection, draft: &Draft<'_>, members: usize) -> Result<bool> {
    let done = sqlx::query(
        "INSERT INTO chats (id, is_group, title, title_lower, open, direct_key, created_by,
                            created_at, shard, version, members, last_activity_at)
         SELECT $1, $2, $3, $4, $5, $6, $7, at, $8, 1, $9, at
         FROM date_trunc('milliseconds', now()) AS at
         ON CONFLICT ON CONSTRAINT chats_direct_key DO NOTHING",
    )
    .bind(draft.id.0)
    .bind(draft.direct_key.is_none())
    .bind(draft.title)
    .bind(draft.title.map(fold))
    .bind(draft.open)
    .bind(draft.direct_key)
    .bind(draft.created_by.0)
    .bind(sql_shard(draft.shard))
    .bind(i64::try_from(members).unwrap_or(i64::MAX))
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Adds the first participants of a chat just made, and tells all of them.
async fn announce(
    tx: &mut PgConnection,
    draft: &Draft<'_>,
    users: &[Uuid],
    user_roles: &[Role],
) -> Result<Created> {
    let roles: Vec<&str> = user_roles.iter().map(|role| role.as_str()).collect();
    // Fails on its foreign key when one of them does not exist.
    sqlx::query(
        "INSERT INTO chat_members (chat_id, user_id, role, joined_at, version)
         SELECT $1, user_id, role, date_trunc('milliseconds', now()), 1
         FROM unnest($2::uuid[], $3::text[]) AS m (user_id, role)",
    )
    .bind(draft.id.0)
    .bind(users)
    .bind(roles)
    .execute(&mut *tx)
    .await?;
    let view = views::shared(&mut *tx, draft.id.0).await?;
    let known: Vec<(Uuid, String, i16)> =
        sqlx::query_as("SELECT id, name, shard FROM users WHERE id = ANY($1)")
            .bind(users)
            .fetch_all(&mut *tx)
            .await?;
    let actor_name = known
        .iter()
        .find(|(id, ..)| *id == draft.created_by.0)
        .map_or("", |(_, name, _)| name.as_str());
    let role_of: HashMap<Uuid, Role> =
        zip(users, user_roles).map(|(user, role)| (*user, *role)).collect();
    let added = known
        .iter()
        .map(|(id, _, shard)| OutboxUser {
            user_id: UserId(*id),
            shard: rows::shard(*shard),
            change: UserChange::Added {
                me: views::me(&view, UserId(*id), role_of.get(id).copied().unwrap_or(Role::Member)),
            },
        })
        .collect();
    let msg = format!("{actor_name} created the chat");
    let event = SystemEvent::new(SystemKind::Created, draft.created_by, 1, msg);
    let item = OutboxItem {
        chat: Some(OutboxChat { chat_id: draft.id, shard: draft.shard, event, view: Some(view) }),
        users: added,
    };
    outbox::add(tx, draft.id.0, item).await?;
    Ok(Created { chat: draft.id, shard: draft.shard, lane: Some(draft.id.0), existed: false })
}
