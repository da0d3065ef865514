//! Users of an embedding product: made without a password, changed, disabled and enabled, their devices
//! logged in.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{DeviceId, UserId},
    rest::Session,
    service::{ChangeUser, CreateUser, LogDeviceIn, ServerUser, ServerUserList},
};
use natter_store::{Called, NewManagedUser, Store, StoreError, UserEdit};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        accounts,
        extract::{Body, OptionalBody, PathId, PathIds, Query},
        problem::{PROBLEM_JSON, Problem, ProblemBody},
    },
    By, Devices, Users,
};
use crate::{
    app::App,
    auth::{self, Auth},
    chats::shard_of,
    config::Config,
    relay::Relay,
    text,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, find))
        .routes(routes!(get, change))
        .routes(routes!(disable))
        .routes(routes!(enable))
        .routes(routes!(log_in))
        .routes(routes!(revoke))
}

fn no_user() -> WireError {
    WireError::new(ErrorCode::NotFound, "there is no such user")
}

/// What the store's errors mean where they are about one user.
fn about_user(error: StoreError) -> Problem {
    match error {
        StoreError::NotFound => no_user().into(),
        other => other.into(),
    }
}

/// Make a user without a password, or find the one with this `externalId`, who stays as they are. Scope
/// `users`.
#[utoipa::path(
    post, path = "/server/users", tag = "server", operation_id = "server_create_user",
    security(("service" = ["users"])),
    request_body = CreateUser,
    responses(
        (status = 201, description = "Made.", body = ServerUser),
        (status = 200, description = "The user with this `externalId`, who was there.", body = ServerUser),
        (status = 409, description = "Phone or e-mail is somebody else's (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn create(
    State(store): State<Store>,
    State(config): State<std::sync::Arc<Config>>,
    _: By<Users>,
    Body(request): Body<CreateUser>,
) -> Result<(StatusCode, Json<ServerUser>), Problem> {
    let name = text::line("name", &request.name)?;
    let id = UserId::generate();
    let new = NewManagedUser {
        id,
        external_id: request.external_id.as_deref(),
        name: &name,
        phone: request.phone.as_deref(),
        email: request.email.as_deref(),
        bot: request.bot,
        shard: shard_of(id.0, config.shards),
    };
    let (user, made) = store.ensure_managed(&new).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(user)))
}

#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct FindQuery {
    /// What the product calls the user.
    external_id: String,
}

/// Look a user up by what the product calls them. Scope `users`.
#[utoipa::path(
    get, path = "/server/users", tag = "server", operation_id = "server_find_user",
    security(("service" = ["users"])),
    params(FindQuery),
    responses((status = 200, description = "The one, or none.", body = ServerUserList))
)]
async fn find(
    State(store): State<Store>,
    _: By<Users>,
    Query(query): Query<FindQuery>,
) -> Result<Json<ServerUserList>, Problem> {
    let found = store.managed(Called::ExternalId(&query.external_id)).await?;
    Ok(Json(ServerUserList { items: found.into_iter().collect() }))
}

/// A user. Scope `users`.
#[utoipa::path(
    get, path = "/server/users/{id}", tag = "server", operation_id = "server_get_user",
    security(("service" = ["users"])),
    params(("id" = UserId, Path, description = "The user.")),
    responses(
        (status = 200, description = "The user.", body = ServerUser),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn get(
    State(store): State<Store>,
    _: By<Users>,
    PathId(user): PathId<UserId>,
) -> Result<Json<ServerUser>, Problem> {
    let found = store.managed(Called::Id(user)).await?;
    Ok(Json(found.ok_or_else(no_user)?))
}

/// Change a user: what is missing stays, `null` takes away. Scope `users`.
#[utoipa::path(
    patch, path = "/server/users/{id}", tag = "server", operation_id = "server_change_user",
    security(("service" = ["users"])),
    params(("id" = UserId, Path, description = "The user.")),
    request_body = ChangeUser,
    responses(
        (status = 200, description = "The user, changed.", body = ServerUser),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "Phone, e-mail or external id is another's, or a user with a password would have nothing to log in with (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn change(
    State(store): State<Store>,
    State(relay): State<Relay>,
    _: By<Users>,
    PathId(user): PathId<UserId>,
    Body(change): Body<ChangeUser>,
) -> Result<Json<ServerUser>, Problem> {
    let name = text::optional_line("name", change.name.as_deref())?;
    let edit = UserEdit {
        name: name.as_deref(),
        phone: change.phone.as_ref().map(Option::as_deref),
        email: change.email.as_ref().map(Option::as_deref),
        external_id: change.external_id.as_ref().map(Option::as_deref),
    };
    let (user, lane) = store.change_managed(user, &edit).await.map_err(about_user)?;
    relay.lane_if_any(lane).await;
    Ok(Json(user))
}

/// Let nobody in as this user any more. Connections close on every node (4423); log-in, refresh and
/// tokens are refused (403, `account_disabled`), an outside issuer's too. Scope `users`.
#[utoipa::path(
    post, path = "/server/users/{id}/disable", tag = "server", operation_id = "server_disable_user",
    security(("service" = ["users"])),
    params(("id" = UserId, Path, description = "The user.")),
    responses(
        (status = 200, description = "Disabled, now or before.", body = ServerUser),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn disable(
    State(store): State<Store>,
    State(relay): State<Relay>,
    by: By<Users>,
    PathId(user): PathId<UserId>,
) -> Result<Json<ServerUser>, Problem> {
    let (found, lane) = store.set_disabled(user, true).await.map_err(about_user)?;
    tracing::info!(token = %by.service.token, %user, "a user is disabled");
    relay.lane_if_any(lane).await;
    Ok(Json(found))
}

/// Let a disabled user in again: what their devices have is as good as before. Scope `users`.
#[utoipa::path(
    post, path = "/server/users/{id}/enable", tag = "server", operation_id = "server_enable_user",
    security(("service" = ["users"])),
    params(("id" = UserId, Path, description = "The user.")),
    responses(
        (status = 200, description = "Enabled, now or before.", body = ServerUser),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn enable(
    State(store): State<Store>,
    by: By<Users>,
    PathId(user): PathId<UserId>,
) -> Result<Json<ServerUser>, Problem> {
    let (found, _) = store.set_disabled(user, false).await.map_err(about_user)?;
    tracing::info!(token = %by.service.token, %user, "a user is enabled");
    Ok(Json(found))
}

/// Log a device of a user in, without a password: the answer is for that device. Scope `devices`.
///
/// With the id of a device that the user has, that one is logged in anew; its tokens from before are
/// void, and its connections close.
#[utoipa::path(
    post, path = "/server/users/{id}/devices", tag = "server", operation_id = "server_log_in",
    security(("service" = ["devices"])),
    params(("id" = UserId, Path, description = "The user.")),
    request_body(content = Option<LogDeviceIn>, content_type = "application/json"),
    responses(
        (status = 201, description = "Logged in.", body = Session),
        (status = 403, description = "The user is disabled (`account_disabled`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The device is somebody else's (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn log_in(
    State(store): State<Store>,
    State(auth): State<Auth>,
    State(relay): State<Relay>,
    by: By<Devices>,
    PathId(user): PathId<UserId>,
    OptionalBody(request): OptionalBody<LogDeviceIn>,
) -> Result<(StatusCode, Json<Session>), Problem> {
    let known = request.device.as_ref().is_some_and(|device| device.id.is_some());
    let device = accounts::device(request.device)?;
    let refresh = auth.new_refresh();
    let logged_in = store.log_device_in(user, &device, &refresh.stored).await;
    let (found, logged_in) = logged_in.map_err(|error| match error {
        StoreError::Forbidden => auth::disabled().into(),
        other => about_user(other),
    })?;
    tracing::info!(token = %by.service.token, %user, device = %device.id, "a device is logged in");
    // The login before, if there was one, has ended.
    if known {
        relay.lane(user.0).await;
    }
    let session = accounts::session_of(&auth, found, logged_in, device.session, refresh.text)?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// Revoke a device of a user: its tokens are void and its sockets close, on every node. Scope `devices`.
#[utoipa::path(
    delete, path = "/server/users/{id}/devices/{deviceId}", tag = "server",
    operation_id = "server_revoke_device",
    security(("service" = ["devices"])),
    params(
        ("id" = UserId, Path, description = "The user."),
        ("deviceId" = DeviceId, Path, description = "The device."),
    ),
    responses(
        (status = 204, description = "Revoked."),
        (status = 404, description = "The user has no such device, or not any more (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn revoke(
    State(store): State<Store>,
    State(relay): State<Relay>,
    by: By<Devices>,
    PathIds(user, device): PathIds<UserId, DeviceId>,
) -> Result<StatusCode, Problem> {
    let lane = store.revoke_device(user, device).await?;
    let none = || WireError::new(ErrorCode::NotFound, "the user has no such device");
    relay.lane(lane.ok_or_else(none)?).await;
    tracing::info!(token = %by.service.token, %user, %device, "a device is revoked");
    Ok(StatusCode::NO_CONTENT)
}
