//! What the caller wants to be notified of, and what became of a message's notifications.

use axum::{Json, extract::State};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::MessageId,
    notify::{ChangeNotifications, DeliveryPage, NotificationSettings, PushReason},
};
use natter_store::{DeliveryCursor, Store};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, PathId, Query, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, text::bad_request};

const DELIVERIES_DEFAULT: u32 = 50;
const DELIVERIES_MOST: u32 = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(settings, change)).routes(routes!(delivery))
}

/// What the caller wants to be notified of, on all devices.
#[utoipa::path(
    get, path = "/users/me/notifications", tag = "notifications", operation_id = "get_notifications",
    responses((status = 200, description = "The caller's settings.", body = NotificationSettings))
)]
async fn settings(
    State(store): State<Store>,
    caller: Caller,
) -> Result<Json<NotificationSettings>, Problem> {
    Ok(Json(store.notification_settings(caller.user_id).await?))
}

/// Change what the caller wants to be notified of: what is missing stays, `null` ends quiet hours.
#[utoipa::path(
    patch, path = "/users/me/notifications", tag = "notifications",
    operation_id = "change_notifications",
    request_body = ChangeNotifications,
    responses((status = 200, description = "The caller's settings, changed.", body = NotificationSettings))
)]
async fn change(
    State(store): State<Store>,
    caller: Caller,
    Body(change): Body<ChangeNotifications>,
) -> Result<Json<NotificationSettings>, Problem> {
    let changed = store.change_notifications(caller.user_id, &change).await?;
    Ok(Json(changed.ok_or_else(|| bad_request("quietHours.timeZone: is not known"))?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DeliveryQuery {
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Why each recipient of a message was or was not notified, when, and what the push services said: for
/// its sender, and for those who manage the chat. It is kept for a time.
#[utoipa::path(
    get, path = "/messages/{id}/delivery", tag = "notifications", operation_id = "get_delivery",
    params(("id" = MessageId, Path, description = "The message."), DeliveryQuery),
    responses(
        (status = 200, description = "A page of recipients and their devices.", body = DeliveryPage),
        (status = 404, description = "No such message, or it is not the caller's to ask about (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delivery(
    State(store): State<Store>,
    caller: Caller,
    PathId(message): PathId<MessageId>,
    Query(query): Query<DeliveryQuery>,
) -> Result<Json<DeliveryPage>, Problem> {
    let limit = limit(query.limit, DELIVERIES_DEFAULT, DELIVERIES_MOST)?;
    let after: DeliveryCursor = match query.cursor {
        None => DeliveryCursor::default(),
        Some(cursor) => cursor.parse().map_err(|_| bad_request("cursor: is not one of a page"))?,
    };
    let missing = || WireError::new(ErrorCode::NotFound, "there is no such message");
    store.explainable(caller.user_id, message).await?.ok_or_else(missing)?;
    let mut page = store.deliveries(message, after, limit).await?;
    for item in &mut page.items {
        // Nobody is told by whom they are blocked.
        if item.reason == Some(PushReason::Blocked) {
            item.reason = Some(PushReason::Muted);
        }
    }
    Ok(Json(page))
}
