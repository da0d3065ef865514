//! Chats as their viewers see them: whatever the number of chats, three statements.

use std::collections::HashMap;

use natter_protocol::{
    ids::UserId,
    limits,
    server::{Chat, Me, Message, Participant, Role},
};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    Result,
    rows::{MessageRow, seq},
};

/// A chat's row, with the role of the viewer where there is one.
#[derive(sqlx::FromRow)]
pub(crate) struct ChatRow {
    pub id: Uuid,
    pub is_group: bool,
    pub title: Option<String>,
    pub description: Option<String>,
    pub open: bool,
    pub created_by: Uuid,
    pub created_at: OffsetDateTime,
    pub members: i64,
    pub last_seq: i64,
    pub last_message_seq: Option<i64>,
    pub retention_secs: Option<i32>,
    pub last_activity_at: OffsetDateTime,
    pub role: Option<String>,
    pub read_seq: i64,
    pub unread: i64,
    pub muted: bool,
    pub muted_until: Option<OffsetDateTime>,
    pub hidden: bool,
}

/// What a participant's row has of `m`, their membership, and `c`, the chat; all but what is unread.
macro_rules! of_participant {
    () => {
        concat!(
            "m.role, c.message_count, c.expired_seq, c.retention_secs, ",
            $crate::reads::read_seq!(),
            " AS read_seq, COALESCE(m.muted_until > now(), false) AS muted,
             CASE WHEN m.muted_until > now() AND m.muted_until < 'infinity'
                  THEN m.muted_until END AS muted_until, ",
            $crate::reads::hidden!(),
            " AS hidden"
        )
    };
}
pub(crate) use of_participant;

/// The chat as all see it, without anybody's own part.
pub(crate) async fn shared(connection: &mut PgConnection, chat: Uuid) -> Result<Chat> {
    let row: ChatRow = sqlx::query_as(
        "SELECT id, is_group, title, description, open, created_by, created_at, members, last_seq,
                last_message_seq, retention_secs, last_activity_at, NULL::text AS role, 0::bigint AS read_seq,
                0::bigint AS unread, false AS muted, NULL::timestamptz AS muted_until,
                false AS hidden
         FROM chats WHERE id = $1",
    )
    .bind(chat)
    .fetch_one(&mut *connection)
    .await?;
    let mut views = load(connection, None, vec![row]).await?;
    views.pop().ok_or(crate::StoreError::NotFound)
}

/// Adds participants, last messages and the viewer's part, in the order of the rows.
pub(crate) async fn load(
    connection: &mut PgConnection,
    viewer: Option<UserId>,
    rows: Vec<ChatRow>,
) -> Result<Vec<Chat>> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut participants = first_participants(&mut *connection, &ids).await?;
    let mut messages = last_messages(&mut *connection, &rows).await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let participants = participants.remove(&row.id).unwrap_or_default();
            let last_message = messages.remove(&row.id);
            assemble(row, participants, last_message, viewer)
        })
        .collect())
}

fn assemble(
    row: ChatRow,
    participants: Vec<Participant>,
    last_message: Option<Message>,
    viewer: Option<UserId>,
) -> Chat {
    let role = row.role.as_deref().and_then(Role::parse);
    let mut chat = Chat {
        id: row.id.into(),
        is_group: row.is_group,
        title: row.title,
        description: row.description,
        open: row.open,
        created_by: row.created_by.into(),
        created_at: row.created_at,
        participant_count: row.members,
        participants,
        last_message,
        last_seq: seq(row.last_seq),
        retention_secs: row.retention_secs.and_then(|secs| u32::try_from(secs).ok()),
        me: None,
    };
    if let (Some(viewer), Some(role)) = (viewer, role) {
        chat.me = Some(Me {
            read_seq: seq(row.read_seq),
            unread_count: u64::try_from(row.unread).unwrap_or(0),
            muted: row.muted,
            muted_until: row.muted_until,
            hidden: row.hidden,
            ..me(&chat, viewer, role)
        });
    }
    chat
}

/// The viewer's own part: a group goes by its title, or without one by some of the others' names;
/// a one-to-one by the other's.
pub(crate) fn me(chat: &Chat, viewer: UserId, role: Role) -> Me {
    let name = chat.title.clone().unwrap_or_else(|| {
        let others = chat.participants.iter().filter(|other| other.id != viewer);
        let names: Vec<&str> = others.take(3).map(|other| other.name.as_str()).collect();
        names.join(", ")
    });
    Me::new(name, role)
}

async fn first_participants(
    connection: &mut PgConnection,
    chats: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Participant>>> {
    let rows: Vec<(Uuid, Uuid, String, String, bool)> = sqlx::query_as(
        "SELECT m.chat_id, m.user_id, u.name, m.role, u.bot
         FROM unnest($1::uuid[]) AS c (id)
         CROSS JOIN LATERAL (
             SELECT chat_id, user_id, role, joined_at FROM chat_members
             WHERE chat_id = c.id AND left_at IS NULL
             ORDER BY joined_at, user_id LIMIT $2
         ) m
         JOIN users u ON u.id = m.user_id
         ORDER BY m.chat_id, m.joined_at, m.user_id",
    )
    .bind(chats)
    .bind(limits::PARTICIPANTS_SHOWN)
    .fetch_all(connection)
    .await?;
    let mut found: HashMap<Uuid, Vec<Participant>> = HashMap::with_capacity(chats.len());
    for (chat, id, name, role, bot) in rows {
        found.entry(chat).or_default().push(Participant {
            id: id.into(),
            name,
            role: Role::parse(&role).unwrap_or(Role::Member),
            bot,
        });
    }
    Ok(found)
}

async fn last_messages(
    connection: &mut PgConnection,
    chats: &[ChatRow],
) -> Result<HashMap<Uuid, Message>> {
    let (ids, places): (Vec<Uuid>, Vec<i64>) =
        chats.iter().filter_map(|chat| Some((chat.id, chat.last_message_seq?))).unzip();
    let rows = messages_at(connection, &ids, &places, false).await?;
    Ok(rows.into_iter().map(|row| (row.chat_id, row.into())).collect())
}

/// The messages at these places that have not expired, in no order; without those that are deleted,
/// where only others are asked for. Looked up one by one: see [`partitions`](crate::partitions).
pub(crate) async fn messages_at(
    connection: &mut PgConnection,
    ids: &[Uuid],
    places: &[i64],
    not_deleted: bool,
) -> Result<Vec<MessageRow>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<MessageRow> = sqlx::query_as(
        "SELECT m.chat_id, m.seq, m.id, m.sender_id, m.device_id, m.client_msg_id, m.content,
                m.media, m.reply_to, NULL::jsonb AS detail, m.created_at, u.name AS sender_name, u.bot AS sender_bot,
                m.mentions, m.edited_at, m.deleted_at, COALESCE(p.seq, 0) AS prev_seq
         FROM unnest($1::uuid[], $2::bigint[]) AS c (id, seq)
         CROSS JOIN LATERAL (
             SELECT * FROM messages WHERE chat_id = c.id AND seq = c.seq
               AND NOT ($3 AND deleted_at IS NOT NULL)
               AND seq > COALESCE((SELECT x.expired_seq FROM chats x WHERE x.id = c.id), 0)
             LIMIT 1
         ) m
         LEFT JOIN LATERAL (
             SELECT seq FROM messages WHERE chat_id = c.id AND seq < c.seq
             ORDER BY seq DESC LIMIT 1
         ) p ON true
         LEFT JOIN users u ON u.id = m.sender_id",
    )
    .bind(ids)
    .bind(places)
    .bind(not_deleted)
    .fetch_all(connection)
    .await?;
    Ok(rows)
}

/// What these chats are called, for this viewer; see [`me`].
pub(crate) async fn names(
    connection: &mut PgConnection,
    viewer: UserId,
    chats: &[Uuid],
) -> Result<HashMap<Uuid, String>> {
    let rows: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT c.id, COALESCE(c.title, (
             SELECT string_agg(o.name, ', ' ORDER BY o.joined_at, o.user_id)
             FROM (
                 SELECT u.name, m.joined_at, m.user_id
                 FROM chat_members m JOIN users u ON u.id = m.user_id
                 WHERE m.chat_id = c.id AND m.left_at IS NULL AND m.user_id <> $2
                 ORDER BY m.joined_at, m.user_id LIMIT 3
             ) o
         ), '')
         FROM chats c WHERE c.id = ANY($1)",
    )
    .bind(chats)
    .bind(viewer.0)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}
