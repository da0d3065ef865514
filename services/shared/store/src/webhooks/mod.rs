//! Webhooks: the endpoints, how far each has been told, and what could not be told.
//!
//! - `endpoints`: made, changed, removed, tested
//! - `lanes`: who tells an endpoint of a shard, and how far that is; who fills a shard's stream
//! - `letters`: what was given up

mod endpoints;
mod lanes;
mod letters;

pub use endpoints::{EndpointChange, LaneReport, NewEndpoint, WebhookEndpoint};
pub use lanes::{Behind, FillRow, LaneKey, LanePlace, LaneSave, WebhookShare};
pub use letters::{NewHookLetter, WebhookLetter};

use natter_protocol::feed::{DeviceAdded, Feed, FeedKind, UserChange};
use natter_protocol::ids::{DeviceId, Shard, UserId};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{Result, outbox, rows};

/// A feed by its columns.
fn feed(shard: Shard, kind: &str, id: Uuid) -> Feed {
    let kind = if kind == "user" { FeedKind::User } else { FeedKind::Chat };
    Feed { shard, kind, id }
}

/// The column for it.
fn kind(feed: Feed) -> &'static str {
    match feed.kind {
        FeedKind::Chat => "chat",
        FeedKind::User => "user",
    }
}

/// Tells a user's feed that a device has come, if any endpoint wants to be told, now or once it is enabled again.
/// The caller holds the device.
/// Nobody waits for it to be relayed: no connection depends on it.
pub(crate) async fn device_added(
    tx: &mut PgConnection,
    user: UserId,
    device: DeviceId,
) -> Result<()> {
    let shard: Option<i16> = sqlx::query_scalar(
        "SELECT shard FROM users WHERE id = $1 AND EXISTS (
             SELECT FROM webhook_endpoints
             WHERE chats IS NULL AND (kinds IS NULL OR 'device' = ANY(kinds))
         )",
    )
    .bind(user.0)
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(shard) = shard {
        let change = UserChange::DeviceAdded(DeviceAdded { device_id: device });
        outbox::add_for_user(tx, user, rows::shard(shard), change).await?;
    }
    Ok(())
}
