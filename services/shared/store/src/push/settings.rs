use natter_protocol::{
    ids::UserId,
    notify::{ChangeNotifications, NotificationSettings, Preview, QuietHours},
};

use crate::{Result, Store};

#[derive(sqlx::FromRow)]
struct SettingsRow {
    preview: String,
    mentions_through_mute: bool,
    quiet_from: Option<String>,
    quiet_until: Option<String>,
    time_zone: Option<String>,
}

impl From<SettingsRow> for NotificationSettings {
    fn from(row: SettingsRow) -> Self {
        let hours = row.quiet_from.zip(row.quiet_until).zip(row.time_zone);
        Self {
            preview: Preview::parse(&row.preview).unwrap_or(Preview::None),
            mentions_through_mute: row.mentions_through_mute,
            quiet_hours: hours.map(|((from, until), time_zone)| QuietHours {
                from,
                until,
                time_zone,
            }),
        }
    }
}

macro_rules! settings {
    () => {
        "preview, mentions_through_mute, to_char(quiet_from, 'HH24:MI') AS quiet_from,
         to_char(quiet_until, 'HH24:MI') AS quiet_until, time_zone"
    };
}

/// What users want to be notified of.
impl Store {
    /// What the user wants to be notified of.
    pub async fn notification_settings(&self, user: UserId) -> Result<NotificationSettings> {
        let row: Option<SettingsRow> = self
            .call(async |db| {
                sqlx::query_as(concat!(
                    "SELECT ",
                    settings!(),
                    " FROM notification_settings WHERE user_id = $1"
                ))
                .bind(user.0)
                .fetch_optional(db)
                .await
            })
            .await?;
        Ok(row.map(Into::into).unwrap_or_default())
    }

    /// Changes that. None when the time zone is none that Postgres knows.
    pub async fn change_notifications(
        &self,
        user: UserId,
        change: &ChangeNotifications,
    ) -> Result<Option<NotificationSettings>> {
        let hours = change.quiet_hours.as_ref().and_then(Option::as_ref);
        self.transaction(async |tx| {
            if let Some(hours) = hours {
                // A name of the database of zones: Postgres itself takes much else for one.
                let known: bool = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT FROM pg_timezone_names WHERE name = $1)",
                )
                .bind(&hours.time_zone)
                .fetch_one(&mut *tx)
                .await?;
                if !known {
                    return Ok(None);
                }
            }
            let row: SettingsRow = sqlx::query_as(concat!(
                "INSERT INTO notification_settings AS n
                     (user_id, preview, mentions_through_mute, quiet_from, quiet_until, time_zone)
                 VALUES ($1, COALESCE($2, 'full'), COALESCE($3, true), $5::text::time,
                         $6::text::time, $7)
                 ON CONFLICT (user_id) DO UPDATE SET
                     preview = COALESCE($2, n.preview),
                     mentions_through_mute = COALESCE($3, n.mentions_through_mute),
                     quiet_from = CASE WHEN $4 THEN excluded.quiet_from ELSE n.quiet_from END,
                     quiet_until = CASE WHEN $4 THEN excluded.quiet_until ELSE n.quiet_until END,
                     time_zone = CASE WHEN $4 THEN excluded.time_zone ELSE n.time_zone END
                 RETURNING ",
                settings!()
            ))
            .bind(user.0)
            .bind(change.preview.map(Preview::as_str))
            .bind(change.mentions_through_mute)
            .bind(change.quiet_hours.is_some())
            .bind(hours.map(|hours| hours.from.as_str()))
            .bind(hours.map(|hours| hours.until.as_str()))
            .bind(hours.map(|hours| hours.time_zone.as_str()))
            .fetch_one(tx)
            .await?;
            Ok(Some(row.into()))
        })
        .await
    }
}
