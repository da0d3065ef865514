//! Old ids, for whoever holds them.

use natter_protocol::{
    ids::{ChatId, UserId},
    imported::{Imported, ImportedKind},
};
use uuid::Uuid;

use crate::{Result, Store, rows::seq};

/// Imports that are looked through; nobody has moved over from more systems.
const IMPORTS: i64 = 16;

/// Where something is, in a chat or not.
#[derive(sqlx::FromRow)]
struct Found {
    id: Uuid,
    #[sqlx(default)]
    chat_id: Option<Uuid>,
    #[sqlx(default)]
    message_id: Option<Uuid>,
    #[sqlx(default)]
    seq: Option<i64>,
    #[sqlx(default)]
    url: Option<String>,
}

/// Whether the viewer `$2` takes part in the chat of `$chat`.
macro_rules! takes_part {
    ($chat:literal) => {
        concat!(
            "EXISTS (SELECT FROM chat_members v WHERE v.chat_id = ",
            $chat,
            " AND v.user_id = $2 AND v.left_at IS NULL)"
        )
    };
}

/// By kind. `$1` are the ids that it may have here.
const USER: &str = "SELECT u.id FROM users u
    WHERE u.id = ANY($1) AND u.deleted_at IS NULL AND (u.id = $2 OR EXISTS (
        SELECT FROM chat_members mine JOIN chat_members theirs USING (chat_id)
        WHERE mine.user_id = $2 AND mine.left_at IS NULL
          AND theirs.user_id = u.id AND theirs.left_at IS NULL)) LIMIT 1";
const DEVICE: &str = "SELECT d.id FROM devices d WHERE d.id = ANY($1) AND d.user_id = $2 AND d.revoked_at IS NULL LIMIT 1";
const CHAT: &str =
    concat!("SELECT c.id FROM chats c WHERE c.id = ANY($1) AND ", takes_part!("c.id"), " LIMIT 1");
const MESSAGE: &str = concat!(
    "SELECT m.id, m.chat_id, m.seq FROM messages m JOIN chats c ON c.id = m.chat_id
     WHERE m.id = ANY($1) AND m.seq > c.expired_seq AND ",
    takes_part!("m.chat_id"),
    " LIMIT 1"
);
const MEDIA: &str = concat!(
    "SELECT f.id, f.chat_id, f.message_id, m.seq,
            CASE WHEN f.state <> 'copied' THEN f.url END AS url
     FROM imported_files f JOIN messages m ON m.chat_id = f.chat_id AND m.id = f.message_id
     JOIN chats c ON c.id = f.chat_id
     WHERE (f.id = ANY($1) OR f.same_as = ANY($1))
       AND m.deleted_at IS NULL AND m.seq > c.expired_seq AND ",
    takes_part!("f.chat_id"),
    " ORDER BY f.same_as IS NOT NULL LIMIT 1"
);

impl Store {
    /// What another system called `old`, if the viewer may see it: oneself, and whom one shares a chat
    /// with; one's own devices; chats that one takes part in, their messages and files.
    pub async fn imported(
        &self,
        viewer: UserId,
        kind: ImportedKind,
        old: &str,
    ) -> Result<Option<Imported>> {
        let statement = match kind {
            ImportedKind::User => USER,
            ImportedKind::Device => DEVICE,
            ImportedKind::Chat => CHAT,
            ImportedKind::Message => MESSAGE,
            ImportedKind::Media => MEDIA,
        };
        let found: Option<Found> = self
            .call(async |db| {
                let imports: Vec<String> =
                    sqlx::query_scalar("SELECT name FROM imports ORDER BY name LIMIT $1")
                        .bind(IMPORTS)
                        .fetch_all(&mut *db)
                        .await?;
                let mut ids: Vec<Uuid> =
                    imports.iter().map(|import| kind.id(import, old)).collect();
                ids.dedup();
                sqlx::query_as(statement).bind(ids).bind(viewer.0).fetch_optional(db).await
            })
            .await?;
        Ok(found.map(|found| Imported {
            kind,
            old_id: old.to_owned(),
            id: found.id,
            chat_id: found.chat_id.map(ChatId),
            message_id: found.message_id,
            seq: found.seq.map(seq),
            url: found.url,
        }))
    }
}
