//! Where the caller's devices are notified while they are offline.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use natter_bus::{Bus, Queued};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::DeviceId,
    notify::{PushKey, PushTarget},
    push::Target,
    server::Empty,
};
use natter_runtime::causes;
use natter_store::{PushTest, Store};
use time::OffsetDateTime;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, OptionalBody, PathId},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, config::Config, fault, text::bad_request};

/// Milliseconds after which a device may be tested again.
const NEXT_TEST_MS: u64 = 2_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, set, unset))
        .routes(routes!(test))
        .routes(routes!(key))
}

fn nowhere() -> Problem {
    WireError::new(ErrorCode::NotFound, "the device is notified nowhere").into()
}

/// Where a device of the caller is notified, and what the last attempt came to.
#[utoipa::path(
    get, path = "/devices/{id}/push", tag = "notifications", operation_id = "get_push_target",
    params(("id" = DeviceId, Path, description = "The device.")),
    responses(
        (status = 200, description = "Without keys and tokens.", body = PushTarget),
        (status = 404, description = "The caller has no such device, or it has not registered (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn show(
    State(store): State<Store>,
    caller: Caller,
    PathId(device): PathId<DeviceId>,
) -> Result<Json<PushTarget>, Problem> {
    Ok(Json(store.push_target(caller.user_id, device).await?.ok_or_else(nowhere)?))
}

/// This device is notified there from now on, while it is offline; also to renew that. The device is the
/// one that calls. It ends with the device's login.
#[utoipa::path(
    put, path = "/devices/{id}/push", tag = "notifications", operation_id = "set_push_target",
    params(("id" = DeviceId, Path, description = "The device.")),
    request_body = Target,
    responses(
        (status = 200, description = "Kept.", body = PushTarget),
        (status = 403, description = "Not the device that calls (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn set(
    State(store): State<Store>,
    State(config): State<Arc<Config>>,
    caller: Caller,
    PathId(device): PathId<DeviceId>,
    Body(target): Body<Target>,
) -> Result<Json<PushTarget>, Problem> {
    if device != caller.device_id {
        let message = "a device registers itself";
        return Err(WireError::new(ErrorCode::Forbidden, message).into());
    }
    let provider = target.provider();
    if !store.push_providers().await?.providers.contains(&provider) {
        return Err(bad_request(format!("provider: {provider} is not set up here")).into());
    }
    let mut expires_at = None;
    if let Target::WebPush(subscription) = &target {
        if config.push_hosts.allowed(&subscription.endpoint).is_none() {
            return Err(bad_request("endpoint: is at no push service that is known here").into());
        }
        expires_at = subscription.expiration_time.and_then(moment);
    }
    store.set_push_target(caller.user_id, device, caller.session, &target, expires_at).await?;
    Ok(Json(store.push_target(caller.user_id, device).await?.ok_or_else(nowhere)?))
}

fn moment(millis: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

/// A device of the caller is notified no more.
#[utoipa::path(
    delete, path = "/devices/{id}/push", tag = "notifications", operation_id = "drop_push_target",
    params(("id" = DeviceId, Path, description = "The device.")),
    responses(
        (status = 204, description = "Forgotten."),
        (status = 404, description = "The caller has no such device, or it has not registered (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn unset(
    State(store): State<Store>,
    caller: Caller,
    PathId(device): PathId<DeviceId>,
) -> Result<StatusCode, Problem> {
    if store.drop_push_target(caller.user_id, device).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(nowhere())
    }
}

/// Notify a device of the caller of nothing, to see whether that works: what came of it shows in
/// `GET /v1/devices/{id}/push`.
#[utoipa::path(
    post, path = "/devices/{id}/push/test", tag = "notifications", operation_id = "test_push_target",
    params(("id" = DeviceId, Path, description = "The device.")),
    request_body = Option<Empty>,
    responses(
        (status = 202, description = "On its way.", body = Empty),
        (status = 404, description = "The caller has no such device, or it has not registered (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn test(
    State(store): State<Store>,
    State(bus): State<Bus>,
    caller: Caller,
    PathId(device): PathId<DeviceId>,
    OptionalBody(Nothing {}): OptionalBody<Nothing>,
) -> Result<(StatusCode, Json<Empty>), Problem> {
    let (id, provider) = match store.begin_push_test(caller.user_id, device).await? {
        PushTest::NoTarget => return Err(nowhere()),
        PushTest::TooSoon => {
            let refused = WireError::new(ErrorCode::RateLimited, "it was tested a moment ago");
            return Err(refused.retry_after_ms(NEXT_TEST_MS).into());
        }
        PushTest::Ready { id, provider } => (id, provider),
    };
    let queued = Queued { message_id: id, device_id: device };
    let queueing = bus.queue_push(caller.user_shard, provider, queued, None, None);
    let stored = match queueing {
        Ok(queueing) => queueing.await.map(drop),
        Err(error) => Err(error),
    };
    stored.map_err(|error| {
        tracing::warn!(error = %causes(&error), "a test cannot be queued");
        fault::unavailable("the queue of notifications")
    })?;
    Ok((StatusCode::ACCEPTED, Json(Empty {})))
}

/// A body that says nothing.
#[derive(Default, serde::Deserialize, garde::Validate)]
struct Nothing {}

/// What devices register with: the key that browsers subscribe with, and what is set up.
#[utoipa::path(
    get, path = "/push/key", tag = "notifications", operation_id = "get_push_key",
    responses((status = 200, description = "What is set up.", body = PushKey))
)]
async fn key(State(store): State<Store>, _: Caller) -> Result<Json<PushKey>, Problem> {
    Ok(Json(store.push_providers().await?))
}
