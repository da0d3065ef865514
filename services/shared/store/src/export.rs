//! What a user has, for whoever wants it all: their chats, also those they have left, what they have
//! sent there, and how they have reacted. Each a page at a time.

use std::collections::HashMap;

use natter_protocol::{
    ids::{ChatId, MessageId, Seq, UserId},
    server::{Chat, Message, Role},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result, Store, StoreError,
    reads::unread,
    rows::{MessageRow, seq, sql_seq},
    views::{self, ChatRow, of_participant},
};

/// A user's part in a chat.
#[derive(Clone, Debug, PartialEq)]
pub struct OwnPart {
    /// Which.
    pub chat_id: ChatId,
    /// Whether it is a group.
    pub is_group: bool,
    /// What the user is there, or was.
    pub role: Role,
    /// Since when.
    pub joined_at: OffsetDateTime,
    /// Until when, if that is over.
    pub left_at: Option<OffsetDateTime>,
    /// The chat as the user sees it, while it is not.
    pub chat: Option<Chat>,
}

/// Where a page of reactions ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReactionKey {
    /// In this chat,
    pub chat_id: ChatId,
    /// to the message at this place,
    pub message_seq: Seq,
    /// with this.
    pub emoji: String,
}

/// A reaction that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetReaction {
    /// Which.
    pub key: ReactionKey,
    /// The message's id.
    pub message_id: Option<MessageId>,
}

impl Store {
    /// A page of a user's chats by their ids, those they have left too; hidden ones are among them.
    pub async fn own_parts(
        &self,
        user: UserId,
        after: Option<ChatId>,
        limit: u32,
    ) -> Result<Vec<OwnPart>> {
        self.call(async |db| {
            let parts: Vec<PartRow> = sqlx::query_as(
                "SELECT m.chat_id, c.is_group, m.role, m.joined_at, m.left_at
                 FROM chat_members m JOIN chats c ON c.id = m.chat_id
                 WHERE m.user_id = $1 AND ($2::uuid IS NULL OR m.chat_id > $2)
                 ORDER BY m.chat_id LIMIT $3",
            )
            .bind(user.0)
            .bind(after.map(|chat| chat.0))
            .bind(i64::from(limit))
            .fetch_all(&mut *db)
            .await?;
            let there: Vec<Uuid> = parts
                .iter()
                .filter(|part| part.left_at.is_none())
                .map(|part| part.chat_id)
                .collect();
            let rows: Vec<ChatRow> = sqlx::query_as(concat!(
                "SELECT v.*, ",
                unread!(),
                " AS unread FROM (
                     SELECT c.id, c.is_group, c.title, c.description, c.open, c.created_by,
                            c.created_at, c.members, c.last_seq, c.last_message_seq,
                            c.last_activity_at, ",
                of_participant!(),
                " FROM chats c JOIN chat_members m ON m.chat_id = c.id
                     WHERE c.id = ANY($1) AND m.user_id = $2 AND m.left_at IS NULL
                 ) v"
            ))
            .bind(there)
            .bind(user.0)
            .fetch_all(&mut *db)
            .await?;
            let seen = views::load(db, Some(user), rows).await?;
            let mut seen: HashMap<ChatId, Chat> =
                seen.into_iter().map(|chat| (chat.id, chat)).collect();
            let parts = parts.into_iter().map(|part| {
                let chat_id = ChatId(part.chat_id);
                OwnPart {
                    chat_id,
                    is_group: part.is_group,
                    role: Role::parse(&part.role).unwrap_or(Role::Member),
                    joined_at: part.joined_at,
                    left_at: part.left_at,
                    chat: seen.remove(&chat_id),
                }
            });
            Ok::<_, StoreError>(parts.collect())
        })
        .await
    }

    /// A page of what a user has sent to a chat, by the user's own ids for it: what is beyond `after`.
    /// With `media`, only what has a file.
    pub async fn own_messages(
        &self,
        user: UserId,
        chat: ChatId,
        after: Option<&str>,
        limit: u32,
        media: bool,
    ) -> Result<Vec<Message>> {
        // Along the key of idempotency.
        let rows: Vec<MessageRow> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT m.chat_id, m.seq, m.id, m.sender_id, m.device_id, m.client_msg_id,
                            m.content, m.media, m.reply_to, NULL::jsonb AS detail, m.created_at,
                            u.name AS sender_name, u.bot AS sender_bot, m.mentions, m.edited_at, m.deleted_at,
                            COALESCE((
                                SELECT p.seq FROM messages p
                                WHERE p.chat_id = $1 AND p.seq < m.seq
                                ORDER BY p.seq DESC LIMIT 1
                            ), 0) AS prev_seq
                     FROM (
                         SELECT * FROM messages
                         WHERE chat_id = $1 AND sender_id = $2 AND client_msg_id > $3
                           AND kind = 'message' AND (media IS NOT NULL OR NOT $5)
                         ORDER BY client_msg_id LIMIT $4
                     ) m
                     LEFT JOIN users u ON u.id = m.sender_id
                     ORDER BY m.client_msg_id",
                )
                .bind(chat.0)
                .bind(user.0)
                .bind(after.unwrap_or(""))
                .bind(i64::from(limit))
                .bind(media)
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(Into::into).collect())
    }

    /// A page of the reactions that a user has set.
    pub async fn own_reactions(
        &self,
        user: UserId,
        after: Option<&ReactionKey>,
        limit: u32,
    ) -> Result<Vec<SetReaction>> {
        let rows: Vec<(Uuid, i64, String, Option<Uuid>)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT r.chat_id, r.message_seq, r.emoji, (
                         SELECT m.id FROM messages m
                         WHERE m.chat_id = r.chat_id AND m.seq = r.message_seq
                     )
                     FROM (
                         SELECT chat_id, message_seq, emoji FROM reactions
                         WHERE user_id = $1 AND active
                           AND ($2::uuid IS NULL OR (chat_id, message_seq, emoji) > ($2, $3, $4))
                         ORDER BY chat_id, message_seq, emoji LIMIT $5
                     ) r
                     ORDER BY r.chat_id, r.message_seq, r.emoji",
                )
                .bind(user.0)
                .bind(after.map(|key| key.chat_id.0))
                .bind(after.map(|key| sql_seq(key.message_seq)))
                .bind(after.map(|key| key.emoji.as_str()))
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        let reaction = |(chat, place, emoji, message): (Uuid, i64, String, Option<Uuid>)| {
            let key = ReactionKey { chat_id: chat.into(), message_seq: seq(place), emoji };
            SetReaction { key, message_id: message.map(Into::into) }
        };
        Ok(rows.into_iter().map(reaction).collect())
    }
}

#[derive(sqlx::FromRow)]
struct PartRow {
    chat_id: Uuid,
    is_group: bool,
    role: String,
    joined_at: OffsetDateTime,
    left_at: Option<OffsetDateTime>,
}
