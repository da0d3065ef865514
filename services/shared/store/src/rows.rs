//! Rows as sqlx reads them, and the numbers that differ between Rust and SQL.

use natter_protocol::{
    ids::{ChatId, MessageId, Seq, Shard},
    media::Media,
    rest::{Device, User},
    server::{ContentType, Message, SystemDetail, UserCard, system_entry_id},
};
use sqlx::{Decode, Postgres, Row, Type, postgres::PgRow, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

/// A place as SQL holds it. No log comes near the bound, but a client may name any number:
/// beyond it lies nothing, as at it.
pub(crate) fn sql_seq(seq: Seq) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// A place read from SQL, where none is negative.
pub(crate) fn seq(seq: i64) -> Seq {
    Seq::try_from(seq).unwrap_or(0)
}

/// A shard as SQL holds it. A number that does not fit is one that a constraint refuses.
pub(crate) fn sql_shard(shard: Shard) -> i16 {
    i16::try_from(shard).unwrap_or(-1)
}

/// A shard read from SQL, where none is negative.
pub(crate) fn shard(shard: i16) -> Shard {
    Shard::try_from(shard).unwrap_or(0)
}

/// What names, titles and e-mail addresses are compared by.
pub(crate) fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// A pattern for `LIKE … ESCAPE '\'` that finds `text` anywhere.
pub(crate) fn containing(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in fold(text).chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

/// A row's columns in turn. To look each up by its name takes a page of history longer than to read
/// them.
pub(crate) struct Columns<'r> {
    row: &'r PgRow,
    at: usize,
}

impl<'r> Columns<'r> {
    pub(crate) fn of(row: &'r PgRow) -> Self {
        Self { row, at: 0 }
    }

    /// The next one.
    pub(crate) fn next<T>(&mut self) -> sqlx::Result<T>
    where
        T: Decode<'r, Postgres> + Type<Postgres>,
    {
        let at = self.at;
        self.at += 1;
        self.row.try_get(at)
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct UserRow {
    pub id: Uuid,
    pub name: String,
    pub phone: Option<String>,
    pub email: Option<String>,
    pub bot: bool,
}

impl From<UserRow> for User {
    fn from(row: UserRow) -> Self {
        let UserRow { id, name, phone, email, bot } = row;
        Self { id: id.into(), name, phone, email, bot }
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct DeviceRow {
    pub id: Uuid,
    pub name: Option<String>,
    pub platform: Option<String>,
    pub created_at: OffsetDateTime,
    pub last_seen_at: Option<OffsetDateTime>,
}

impl From<DeviceRow> for Device {
    fn from(row: DeviceRow) -> Self {
        Self {
            id: row.id.into(),
            name: row.name,
            platform: row.platform,
            created_at: row.created_at,
            last_seen_at: row.last_seen_at,
            online: false,
            current: false,
        }
    }
}

/// A shown entry of a chat's feed.
#[derive(sqlx::FromRow)]
pub(crate) struct MessageRow {
    pub chat_id: Uuid,
    pub seq: i64,
    pub prev_seq: i64,
    pub id: Option<Uuid>,
    pub sender_id: Option<Uuid>,
    pub sender_name: Option<String>,
    pub sender_bot: Option<bool>,
    pub device_id: Option<Uuid>,
    pub client_msg_id: Option<String>,
    pub content: String,
    pub media: Option<Json<Box<Media>>>,
    pub reply_to: Option<Uuid>,
    pub detail: Option<Json<SystemDetail>>,
    pub created_at: OffsetDateTime,
    pub mentions: Option<Vec<Uuid>>,
    pub edited_at: Option<OffsetDateTime>,
    pub deleted_at: Option<OffsetDateTime>,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        let chat_id = ChatId(row.chat_id);
        let place = seq(row.seq);
        let sender_id = row.sender_id.unwrap_or_default().into();
        let message = Self {
            id: row.id.map_or_else(|| system_entry_id(chat_id, place), MessageId),
            chat_id,
            seq: place,
            prev_seq: seq(row.prev_seq),
            sender_id,
            sender: UserCard {
                id: sender_id,
                name: row.sender_name.unwrap_or_default(),
                bot: row.sender_bot.unwrap_or_default(),
            },
            device_id: row.device_id.map(Into::into),
            content_type: if row.detail.is_some() {
                ContentType::System
            } else {
                ContentType::Text
            },
            content: row.content,
            media: None,
            media_url: None,
            media_type: None,
            reply_to: row.reply_to.map(Into::into),
            client_msg_id: row.client_msg_id.unwrap_or_default(),
            created_at: row.created_at,
            system: row.detail.map(|Json(detail)| detail),
            quote: None,
            mentions: row.mentions.unwrap_or_default().into_iter().map(Into::into).collect(),
            edited_at: row.edited_at,
            deleted: row.deleted_at.is_some(),
            reactions: Vec::new(),
        };
        message.with_media(row.media.map(|Json(media)| media))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_of_a_search_are_taken_literally() {
        assert_eq!(containing(r"50%_\Off"), r"%50\%\_\\off%");
    }

    #[test]
    fn numbers_beyond_sql_are_clamped() {
        assert_eq!(sql_seq(u64::MAX), i64::MAX);
        assert_eq!(seq(-1), 0);
        assert_eq!(sql_shard(u16::MAX), -1);
    }
}
