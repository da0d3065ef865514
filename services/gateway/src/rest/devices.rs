//! The caller's devices.

use axum::{Json, extract::State, http::StatusCode};
use natter_presence::PresenceClient;
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::DeviceId,
    rest::{Device, DeviceList},
};
use natter_store::Store;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::PathId,
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, relay::Relay};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(revoke))
}

/// The caller's devices, but those revoked, last seen first.
#[utoipa::path(
    get, path = "/devices", tag = "devices", operation_id = "list_devices",
    responses((status = 200, description = "The devices.", body = DeviceList))
)]
async fn list(
    State(store): State<Store>,
    State(presence): State<PresenceClient>,
    caller: Caller,
) -> Result<Json<DeviceList>, Problem> {
    let devices = store.devices(caller.user_id).await?;
    // Without Redis nobody is known to be online; the list is worth having all the same.
    let online = presence.online_devices(caller.user_id).await.unwrap_or_default();
    let items = devices.into_iter().map(|device| Device {
        online: online.contains(&device.id),
        current: device.id == caller.device_id,
        ..device
    });
    Ok(Json(DeviceList { items: items.collect() }))
}

/// Revoke a device: its tokens are void and its sockets close, on every node.
#[utoipa::path(
    delete, path = "/devices/{id}", tag = "devices", operation_id = "revoke_device",
    params(("id" = DeviceId, Path, description = "The device.")),
    responses(
        (status = 204, description = "Revoked."),
        (status = 404, description = "The caller has no such device (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn revoke(
    State(store): State<Store>,
    State(relay): State<Relay>,
    caller: Caller,
    PathId(device): PathId<DeviceId>,
) -> Result<StatusCode, Problem> {
    let lane = store.revoke_device(caller.user_id, device).await?;
    let lane =
        lane.ok_or_else(|| WireError::new(ErrorCode::NotFound, "there is no such device"))?;
    relay.lane(lane).await;
    Ok(StatusCode::NO_CONTENT)
}
