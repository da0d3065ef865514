//! Groups managed: participants added and removed, roles, what a group is called, its end.
//!
//! Each change locks the chat first, so what the actor may do is looked up after every change before
//! it: of two owners who take the role from each other at once, one comes too late. A group has an
//! owner as long as it has participants.

use std::collections::HashMap;

use natter_protocol::{
    feed::{OutboxChat, OutboxItem, OutboxUser, SystemEvent, SystemKind, UserChange},
    ids::{ChatId, Shard, UserId},
    server::{Role, SYSTEM_NAME},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    Conflict, Result, Store, StoreError, bans,
    members::{self, Place},
    outbox, retention,
    rows::{self, fold},
    views,
};

/// Users of whom one row of the outbox tells at most: of a large group that is deleted there are
/// several.
const TOLD: usize = 500;

/// What is to change about a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChatEdit<'a> {
    /// The title from now on.
    pub title: Option<&'a str>,
    /// The description from now on, or none any more.
    pub description: Option<Option<&'a str>>,
    /// Whether anybody may join from now on.
    pub open: Option<bool>,
    /// Seconds after which messages are removed from now on, or what the deployment says.
    pub retention_secs: Option<Option<u32>>,
}

impl Store {
    /// Makes users participants, all or none; those who take part already stay so. Gives the lane to
    /// relay, if anything changed.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one, or an actor who is no
    /// owner or admin; `NotFound` for a user who does not exist; `Conflict::Banned`.
    pub async fn add_participants(
        &self,
        actor: impl Into<Actor>,
        chat: ChatId,
        users: &[UserId],
    ) -> Result<Option<Uuid>> {
        let mut ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
        ids.sort_unstable();
        ids.dedup();
        let actor = actor.into();
        self.transaction(async |tx| {
            let acting = Acting::of(tx, actor, chat).await?;
            let actor = actor.id();
            acting.needs(Role::Admin)?;
            if bans::any(tx, chat, &ids).await? {
                return Err(StoreError::Conflict(Conflict::Banned));
            }
            let there: Vec<Uuid> = sqlx::query_scalar(
                "SELECT user_id FROM chat_members
                 WHERE chat_id = $1 AND user_id = ANY($2) AND left_at IS NULL",
            )
            .bind(chat.0)
            .bind(&ids)
            .fetch_all(&mut *tx)
            .await?;
            let ids: Vec<Uuid> = ids.iter().copied().filter(|id| !there.contains(id)).collect();
            if ids.is_empty() {
                return Ok(None);
            }
            let last = add_versions(tx, chat, ids.len() as i64).await?;
            let first = last - ids.len() as i64 + 1;
            let versions: Vec<i64> = (first..=last).collect();
            members::put_in(tx, chat, &ids, &versions, Role::Member).await?;
            let known = cards(tx, &ids).await?;
            let view = views::shared(tx, chat.0).await?;
            for (id, version) in ids.iter().zip(versions) {
                let Some((name, shard)) = known.get(id) else { return Err(StoreError::NotFound) };
                let user = UserId(*id);
                let msg = format!("{} added {name}", acting.name);
                let event = SystemEvent::new(SystemKind::Added, actor, version, msg).about(user);
                let change = UserChange::Added { me: views::me(&view, user, Role::Member) };
                let item = OutboxItem {
                    chat: Some(OutboxChat {
                        chat_id: chat,
                        shard: acting.place.shard,
                        event,
                        view: Some(view.clone()),
                    }),
                    users: vec![OutboxUser { user_id: user, shard: *shard, change }],
                };
                outbox::add(tx, chat.0, item).await?;
            }
            Ok(Some(chat.0))
        })
        .await
    }

    /// Ends somebody's participation; with `ban`, they may not come back either, and need take no
    /// part at this moment.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one, or an actor who is no
    /// owner, nor an admin where a member is to go; `NotFound` for a user who takes no part;
    /// `Conflict::Oneself`.
    pub async fn remove_participant(
        &self,
        actor: impl Into<Actor>,
        chat: ChatId,
        user: UserId,
        ban: bool,
    ) -> Result<Option<Uuid>> {
        let actor = actor.into();
        self.transaction(async |tx| {
            let acting = Acting::of(tx, actor, chat).await?;
            let actor = actor.id();
            acting.needs(Role::Admin)?;
            if user == actor {
                return Err(StoreError::Conflict(Conflict::Oneself));
            }
            let role = members::current_role(tx, user, chat).await?;
            if role.is_some_and(|role| role != Role::Member) {
                acting.needs(Role::Owner)?;
            }
            if ban {
                bans::add(tx, chat, user, actor).await?;
            } else if role.is_none() {
                return Err(StoreError::NotFound);
            }
            if role.is_none() {
                return Ok(None);
            }
            let (name, user_shard) = members::name_and_shard(tx, user).await?;
            let version = members::end_part(tx, user, chat).await?;
            let msg = format!("{} removed {name}", acting.name);
            let event = SystemEvent::new(SystemKind::Removed, actor, version, msg).about(user);
            let event = SystemEvent { banned: ban, ..event };
            members::tell_end(tx, chat, acting.place.shard, event, (user, user_shard)).await?;
            // An owner who removes another stays; the deployment itself may have removed the last.
            if role == Some(Role::Owner) {
                members::ensure_owner(tx, chat, acting.place.shard, actor).await?;
            }
            Ok(Some(chat.0))
        })
        .await
    }

    /// Gives a participant a role. With `transfer` the actor becomes an admin in the same change.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one, or an actor who is no
    /// owner (everybody may step down themselves); `NotFound` for a user who takes no part;
    /// `Conflict::LastOwner`.
    pub async fn set_role(
        &self,
        actor: impl Into<Actor>,
        chat: ChatId,
        user: UserId,
        role: Role,
        transfer: bool,
    ) -> Result<Option<Uuid>> {
        let actor = actor.into();
        self.transaction(async |tx| {
            let acting = Acting::of(tx, actor, chat).await?;
            let actor = actor.id();
            let steps_down = user == actor && acting.role.at_least(role) && !transfer;
            if !steps_down {
                acting.needs(Role::Owner)?;
            }
            if transfer && (role != Role::Owner || user == actor) {
                return Err(StoreError::Conflict(Conflict::LastOwner));
            }
            let before = members::current_role(tx, user, chat).await?;
            let before = before.ok_or(StoreError::NotFound)?;
            let place = (chat, acting.place.shard);
            let mut changed = false;
            if before != role {
                if before == Role::Owner && !other_owner(tx, chat, user).await? {
                    return Err(StoreError::Conflict(Conflict::LastOwner));
                }
                let (name, _) = members::name_and_shard(tx, user).await?;
                members::give_role(tx, place, actor, (user, &name), role).await?;
                changed = true;
            }
            if transfer {
                members::give_role(tx, place, actor, (actor, &acting.name), Role::Admin).await?;
                changed = true;
            }
            Ok(changed.then_some(chat.0))
        })
        .await
    }

    /// Changes what a group is called, what it says of itself, whether anybody may join, and for how
    /// long messages are kept; the last also of a one-to-one. What is so already is no change.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one that is shut, or of which
    /// something else is to change, or an actor who is no owner, nor an admin who does not open it.
    pub async fn update_chat(
        &self,
        actor: UserId,
        chat: ChatId,
        edit: &ChatEdit<'_>,
    ) -> Result<Option<Uuid>> {
        self.transaction(async |tx| {
            let of_any_chat = ChatEdit { retention_secs: None, ..*edit } == ChatEdit::default();
            let acting = Acting::within(tx, actor.into(), chat, of_any_chat).await?;
            if acting.place.is_group {
                acting.needs(Role::Admin)?;
            }
            if edit.open.is_some() {
                acting.needs(Role::Owner)?;
            }
            let (title, description, retention, shut): (
                Option<String>,
                Option<String>,
                Option<i32>,
                bool,
            ) = sqlx::query_as(
                "SELECT title, description, retention_secs, shut FROM chats WHERE id = $1",
            )
            .bind(chat.0)
            .fetch_one(&mut *tx)
            .await?;
            if shut {
                return Err(StoreError::Forbidden);
            }
            let mut events = Vec::new();
            let event = |kind, msg: String| SystemEvent::new(kind, actor, 0, msg);
            if let Some(new) = edit.title.filter(|new| title.as_deref() != Some(*new)) {
                let msg = format!("{} named the chat \u{201c}{new}\u{201d}", acting.name);
                let title = Some(new.to_owned());
                events.push(SystemEvent { title, ..event(SystemKind::Renamed, msg) });
            }
            if let Some(new) = edit.description.filter(|new| description.as_deref() != *new) {
                let msg = format!("{} changed the description", acting.name);
                let description = new.map(str::to_owned);
                events.push(SystemEvent { description, ..event(SystemKind::Described, msg) });
            }
            if let Some(new) = edit.open.filter(|new| acting.place.open != *new) {
                let (kind, word) = if new {
                    (SystemKind::Opened, "opened")
                } else {
                    (SystemKind::Closed, "closed")
                };
                events.push(event(kind, format!("{} {word} the chat", acting.name)));
            }
            let retention = retention.and_then(|secs| u32::try_from(secs).ok());
            if let Some(new) = edit.retention_secs.filter(|new| retention != *new) {
                retention::keep_for(tx, chat, new).await?;
                let msg = retention::told(&acting.name, new);
                let retained = event(SystemKind::Retention, msg);
                events.push(SystemEvent { retention_secs: new, ..retained });
            }
            if events.is_empty() {
                return Ok(None);
            }
            sqlx::query(
                "UPDATE chats SET title = COALESCE($2, title),
                     title_lower = COALESCE($3, title_lower),
                     description = CASE WHEN $4 THEN $5 ELSE description END,
                     open = COALESCE($6, open)
                 WHERE id = $1",
            )
            .bind(chat.0)
            .bind(edit.title)
            .bind(edit.title.map(fold))
            .bind(edit.description.is_some())
            .bind(edit.description.flatten())
            .bind(edit.open)
            .execute(&mut *tx)
            .await?;
            for event in events {
                let version = members::next_version(tx, chat, 0).await?;
                let event = SystemEvent { version, ..event };
                members::tell(tx, chat, acting.place.shard, event).await?;
            }
            Ok(Some(chat.0))
        })
        .await
    }

    /// Deletes a group: everybody's part ends with one entry of its feed.
    ///
    /// # Errors
    /// `NotMember` when the actor takes no part; `Forbidden` for a one-to-one, or an actor who is no
    /// owner.
    pub async fn delete_chat(&self, actor: UserId, chat: ChatId) -> Result<Uuid> {
        self.transaction(async |tx| {
            let acting = Acting::of(tx, actor.into(), chat).await?;
            acting.needs(Role::Owner)?;
            let version = members::next_version(tx, chat, -acting.place.members).await?;
            sqlx::query("UPDATE chats SET deleted_at = now(), open = false WHERE id = $1")
                .bind(chat.0)
                .execute(&mut *tx)
                .await?;
            sqlx::query("DELETE FROM chat_invites WHERE chat_id = $1")
                .bind(chat.0)
                .execute(&mut *tx)
                .await?;
            let users: Vec<(Uuid, i16)> = sqlx::query_as(
                "UPDATE chat_members m
                 SET left_at = date_trunc('milliseconds', now()), version = $2
                 FROM users u
                 WHERE m.chat_id = $1 AND m.left_at IS NULL AND u.id = m.user_id
                 RETURNING u.id, u.shard",
            )
            .bind(chat.0)
            .bind(version)
            .fetch_all(&mut *tx)
            .await?;
            let msg = format!("{} deleted the chat", acting.name);
            let event = SystemEvent::new(SystemKind::Deleted, actor, version, msg);
            for some in users.chunks(TOLD) {
                let users = some.iter().map(|(id, shard)| OutboxUser {
                    user_id: UserId(*id),
                    shard: rows::shard(*shard),
                    change: UserChange::Removed,
                });
                let item = OutboxItem {
                    chat: Some(OutboxChat {
                        chat_id: chat,
                        shard: acting.place.shard,
                        event: event.clone(),
                        view: None,
                    }),
                    users: users.collect(),
                };
                outbox::add(tx, chat.0, item).await?;
            }
            Ok(chat.0)
        })
        .await
    }

    /// That somebody is an owner or admin of a group, at this moment.
    ///
    /// # Errors
    /// `NotMember`, `Forbidden`.
    pub(crate) async fn manages(&self, user: UserId, chat: ChatId) -> Result<()> {
        let member = self.membership(user, chat).await?.ok_or(StoreError::NotMember)?;
        if member.role.at_least(Role::Admin) { Ok(()) } else { Err(StoreError::Forbidden) }
    }
}

/// Who changes a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A participant, within their role.
    User(UserId),
    /// The deployment itself, which may do what an owner may.
    System,
}

impl Actor {
    /// As feeds name who did it.
    fn id(self) -> UserId {
        match self {
            Self::User(user) => user,
            Self::System => UserId::SYSTEM,
        }
    }
}

impl From<UserId> for Actor {
    fn from(user: UserId) -> Self {
        Self::User(user)
    }
}

/// Who changes a group, once that is locked.
pub(crate) struct Acting {
    pub(crate) place: Place,
    role: Role,
    name: String,
}

impl Acting {
    /// # Errors
    /// `NotMember`, also when there is no such chat; `Forbidden` for a one-to-one.
    pub(crate) async fn of(tx: &mut PgConnection, actor: Actor, chat: ChatId) -> Result<Self> {
        Self::within(tx, actor, chat, false).await
    }

    /// The same, in a one-to-one too where `any` chat will do.
    async fn within(tx: &mut PgConnection, actor: Actor, chat: ChatId, any: bool) -> Result<Self> {
        let place = members::lock_chat(tx, chat).await.map_err(|error| match error {
            StoreError::NotFound => StoreError::NotMember,
            other => other,
        })?;
        let actor = match actor {
            Actor::User(user) => user,
            Actor::System if place.is_group || any => {
                members::ensure_owner(tx, chat, place.shard, UserId::SYSTEM).await?;
                return Ok(Self { place, role: Role::Owner, name: SYSTEM_NAME.to_owned() });
            }
            Actor::System => return Err(StoreError::Forbidden),
        };
        let taking_part = members::current_role(tx, actor, chat).await?;
        taking_part.ok_or(StoreError::NotMember)?;
        if place.is_group {
            // An earlier version let the last owner leave without another.
            members::ensure_owner(tx, chat, place.shard, actor).await?;
        } else if !any {
            return Err(StoreError::Forbidden);
        }
        let role = members::current_role(tx, actor, chat).await?.ok_or(StoreError::NotMember)?;
        let (name, _) = members::name_and_shard(tx, actor).await?;
        Ok(Self { place, role, name })
    }

    /// # Errors
    /// `Forbidden` when the actor's role is below this one.
    pub(crate) fn needs(&self, role: Role) -> Result<()> {
        if self.role.at_least(role) { Ok(()) } else { Err(StoreError::Forbidden) }
    }
}

/// Counts so many changes, each of which adds a participant; gives the version after the last.
async fn add_versions(tx: &mut PgConnection, chat: ChatId, count: i64) -> Result<i64> {
    let version = sqlx::query_scalar(
        "UPDATE chats SET version = version + $2, members = members + $2 WHERE id = $1
         RETURNING version",
    )
    .bind(chat.0)
    .bind(count)
    .fetch_one(tx)
    .await?;
    Ok(version)
}

async fn cards(tx: &mut PgConnection, users: &[Uuid]) -> Result<HashMap<Uuid, (String, Shard)>> {
    let known: Vec<(Uuid, String, i16)> =
        sqlx::query_as("SELECT id, name, shard FROM users WHERE id = ANY($1)")
            .bind(users)
            .fetch_all(tx)
            .await?;
    Ok(known.into_iter().map(|(id, name, shard)| (id, (name, rows::shard(shard)))).collect())
}

/// Whether somebody else owns the group too.
async fn other_owner(tx: &mut PgConnection, chat: ChatId, user: UserId) -> Result<bool> {
    let other = sqlx::query_scalar(
        "SELECT EXISTS (
             SELECT FROM chat_members
             WHERE chat_id = $1 AND user_id <> $2 AND left_at IS NULL AND role = 'owner'
         )",
    )
    .bind(chat.0)
    .bind(user.0)
    .fetch_one(tx)
    .await?;
    Ok(other)
}
