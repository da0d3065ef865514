//! All chats of a user, newest activity first over the whole list, and the search over them.

use natter_protocol::{
    ids::{ChatId, UserId},
    server::Chat,
};
use time::OffsetDateTime;

use crate::{
    Result, Store,
    reads::{hidden, unread},
    rows::containing,
    views::{self, ChatRow, of_participant},
};

/// Where a page of chats ended. Times are whole milliseconds, so a cursor that is written with
/// milliseconds is exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatCursor {
    /// The last chat's newest activity.
    pub at: OffsetDateTime,
    /// The last chat.
    pub id: ChatId,
}

impl Store {
    /// A page of the viewer's chats, hidden ones left out, and the cursor of the next page (none at
    /// the end). `search` is a part of a title or of another participant's name, in any case. At most
    /// 200 a page.
    pub async fn chats(
        &self,
        viewer: UserId,
        cursor: Option<ChatCursor>,
        limit: u32,
        search: Option<&str>,
    ) -> Result<(Vec<Chat>, Option<ChatCursor>)> {
        let limit = limit.clamp(1, 200) as usize;
        self.call(async |db| {
            // The viewer's chats are few enough (those of one person) to be sorted for a page, and so
            // their rows can move with every message without an index that moves too. The viewer's
            // own name is no reason to find a chat: it would find them all.
            // What is unread is asked for those of the page alone.
            let mut rows: Vec<ChatRow> = sqlx::query_as(concat!(
                "SELECT v.*, ",
                unread!(),
                " AS unread FROM (
                 SELECT c.id, c.is_group, c.title, c.description, c.open, c.created_by, c.created_at, c.members,
                    c.last_seq, c.last_message_seq, c.last_activity_at, ",
                of_participant!(),
                r" FROM chat_members m JOIN chats c ON c.id = m.chat_id
             WHERE m.user_id = $1 AND m.left_at IS NULL AND NOT ",
                hidden!(),
                r" AND ($2::timestamptz IS NULL OR (c.last_activity_at, c.id) < ($2, $3))
               AND ($4::text IS NULL OR c.title_lower LIKE $4 ESCAPE '\' OR EXISTS (
                   SELECT FROM chat_members o JOIN users u ON u.id = o.user_id
                   WHERE o.chat_id = c.id AND o.left_at IS NULL AND o.user_id <> $1
                     AND u.name_lower LIKE $4 ESCAPE '\'
               ))
             ORDER BY c.last_activity_at DESC, c.id DESC LIMIT $5
             ) v ORDER BY v.last_activity_at DESC, v.id DESC",
            ))
            .bind(viewer.0)
            .bind(cursor.map(|cursor| cursor.at))
            .bind(cursor.map(|cursor| cursor.id.0))
            .bind(search.map(containing))
            // One more tells whether there is a next page.
            .bind(limit as i64 + 1)
            .fetch_all(&mut *db)
            .await?;
            let more = rows.len() > limit;
            rows.truncate(limit);
            let next = rows
                .last()
                .filter(|_| more)
                .map(|last| ChatCursor { at: last.last_activity_at, id: last.id.into() });
            views::load(db, Some(viewer), rows).await.map(|chats| (chats, next))
        })
        .await
    }
}
