//! Who has fetched the files of messages.

use natter_protocol::{
    ids::{DeviceId, MediaId, MessageId, UserId},
    media::Download,
    server::UserCard,
    timestamp,
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::files::sql_size;
use crate::{Result, Store};

/// An answer that sent a file, or a part of it.
#[derive(Clone, Debug)]
pub struct DownloadRecord {
    /// A UUIDv7 of when it began.
    pub id: Uuid,
    /// The file.
    pub media: MediaId,
    /// Of which message.
    pub message: MessageId,
    /// Who fetched it.
    pub user: UserId,
    /// On which device.
    pub device: DeviceId,
    /// When it began.
    pub at: OffsetDateTime,
    /// Where in the file.
    pub first_byte: u64,
    /// How many bytes were written, and whether the whole file was; none when the client was sent
    /// to the store.
    pub written: Option<(u64, bool)>,
}

/// Where a page of downloads ended: the record's id.
pub type DownloadCursor = Uuid;

/// Downloads.
impl Store {
    /// Keeps a batch of them; those that are kept already change nothing.
    pub async fn record_downloads(&self, records: &[DownloadRecord]) -> Result<()> {
        let uuids = |of: fn(&DownloadRecord) -> Uuid| records.iter().map(of).collect::<Vec<_>>();
        let times: Vec<_> = records.iter().map(|record| timestamp::truncate(record.at)).collect();
        let firsts: Vec<_> = records.iter().map(|record| sql_size(record.first_byte)).collect();
        let bytes: Vec<_> =
            records.iter().map(|record| record.written.map(|(bytes, _)| sql_size(bytes))).collect();
        let complete: Vec<_> =
            records.iter().map(|record| record.written.map(|(_, complete)| complete)).collect();
        self.call(async |db| {
            sqlx::query(
                "INSERT INTO media_downloads
                     (id, media_id, message_id, user_id, device_id, at, first_byte, bytes, complete)
                 SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[],
                                      $6::timestamptz[], $7::bigint[], $8::bigint[], $9::boolean[])
                 ON CONFLICT DO NOTHING",
            )
            .bind(uuids(|record| record.id))
            .bind(uuids(|record| record.media.0))
            .bind(uuids(|record| record.message.0))
            .bind(uuids(|record| record.user.0))
            .bind(uuids(|record| record.device.0))
            .bind(&times)
            .bind(&firsts)
            .bind(&bytes)
            .bind(&complete)
            .execute(db)
            .await
        })
        .await?;
        Ok(())
    }

    /// A page of a message's downloads, the newest first, and where the next begins.
    pub async fn downloads(
        &self,
        message: MessageId,
        cursor: Option<DownloadCursor>,
        limit: u32,
    ) -> Result<(Vec<Download>, Option<DownloadCursor>)> {
        #[derive(sqlx::FromRow)]
        struct Row {
            id: Uuid,
            user_id: Uuid,
            name: Option<String>,
            bot: Option<bool>,
            device_id: Uuid,
            at: OffsetDateTime,
            first_byte: i64,
            bytes: Option<i64>,
            complete: Option<bool>,
        }
        let limit = limit.clamp(1, 200) as usize;
        let mut rows: Vec<Row> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT d.id, d.user_id, u.name, u.bot, d.device_id, d.at, d.first_byte, d.bytes,
                            d.complete
                     FROM media_downloads d LEFT JOIN users u ON u.id = d.user_id
                     WHERE d.message_id = $1 AND ($2::uuid IS NULL OR d.id < $2)
                     ORDER BY d.id DESC LIMIT $3",
                )
                .bind(message.0)
                .bind(cursor)
                .bind(limit as i64 + 1)
                .fetch_all(db)
                .await
            })
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| row.id);
        let bytes = |number: i64| u64::try_from(number).unwrap_or(0);
        let items = rows.into_iter().map(|row| Download {
            user: UserCard {
                id: row.user_id.into(),
                name: row.name.unwrap_or_default(),
                bot: row.bot.unwrap_or_default(),
            },
            device_id: row.device_id.into(),
            at: row.at,
            first_byte: bytes(row.first_byte),
            bytes: row.bytes.map(bytes),
            complete: row.complete,
        });
        Ok((items.collect(), next))
    }
}
