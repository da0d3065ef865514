//! Who is blocked: neither can write in a one-to-one of theirs, and the one who is blocked does not see
//! whether the other is there.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::UserId,
    rest::BlockPage,
};
use natter_store::{BlockCursor, Store, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    cursor::Cursor,
    extract::{PathId, Query, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, fault, relay::Relay, text::bad_request};

const BLOCKS_DEFAULT: u32 = 100;
const BLOCKS_MOST: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(block, unblock)).routes(routes!(list))
}

/// Block a user: a one-to-one of the two takes no messages, and they do not see whether the caller is
/// online. They are not told.
#[utoipa::path(
    put, path = "/users/{id}/block", tag = "users", operation_id = "block_user",
    params(("id" = UserId, Path, description = "Whom.")),
    responses(
        (status = 204, description = "Blocked, or as before."),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn block(
    State(store): State<Store>,
    State(relay): State<Relay>,
    caller: Caller,
    PathId(user): PathId<UserId>,
) -> Result<StatusCode, Problem> {
    let lane = store.block(caller.user_id, user).await.map_err(refusal)?;
    relay.lane_if_any(lane).await;
    Ok(StatusCode::NO_CONTENT)
}

/// Block a user no more.
#[utoipa::path(
    delete, path = "/users/{id}/block", tag = "users", operation_id = "unblock_user",
    params(("id" = UserId, Path, description = "Whom.")),
    responses(
        (status = 204, description = "Not blocked, or not any more."),
        (status = 404, description = "There is no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn unblock(
    State(store): State<Store>,
    State(relay): State<Relay>,
    caller: Caller,
    PathId(user): PathId<UserId>,
) -> Result<StatusCode, Problem> {
    let lane = store.unblock(caller.user_id, user).await.map_err(refusal)?;
    relay.lane_if_any(lane).await;
    Ok(StatusCode::NO_CONTENT)
}

fn refusal(error: StoreError) -> WireError {
    match error {
        StoreError::NotFound => WireError::new(ErrorCode::NotFound, "there is no such user"),
        StoreError::Forbidden => bad_request("nobody blocks themselves"),
        other => fault::store(other),
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BlocksQuery {
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Whom the caller has blocked.
#[utoipa::path(
    get, path = "/blocks", tag = "users", operation_id = "list_blocks",
    params(BlocksQuery),
    responses((status = 200, description = "A page of them.", body = BlockPage))
)]
async fn list(
    State(store): State<Store>,
    caller: Caller,
    Query(query): Query<BlocksQuery>,
) -> Result<Json<BlockPage>, Problem> {
    let limit = limit(query.limit, BLOCKS_DEFAULT, BLOCKS_MOST)?;
    let cursor = BlockCursor::decode_if_any(query.cursor.as_deref())?;
    let (items, next) = store.blocks(caller.user_id, cursor, limit).await?;
    Ok(Json(BlockPage { items, next_cursor: next.map(|next| next.encode()) }))
}
