//! Groups managed: what they are called, who takes part in which role, who may not come back.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    ids::{ChatId, UserId},
    rest::{AddUsers, BanPage, ChangeChat, ChangeRole},
    server::{Chat, Empty},
};
use natter_store::BanCursor;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    cursor::Cursor,
    extract::{Body, PathId, PathIds, Query, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, groups::Groups};

const BANS_DEFAULT: u32 = 100;
const BANS_MOST: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(update, delete))
        .routes(routes!(add))
        .routes(routes!(remove, set_role))
        .routes(routes!(bans))
        .routes(routes!(lift_ban))
}

/// Rename, describe, open or close a group, or have messages removed after a time: what is missing
/// stays, `null` takes the description away, or the chat's own time. Owners and admins; `open` is for
/// owners. `retentionSecs` is also for both of a one-to-one.
#[utoipa::path(
    patch, path = "/chats/{id}", tag = "groups", operation_id = "update_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = ChangeChat,
    responses(
        (status = 200, description = "The chat, changed.", body = Chat),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn update(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Body(change): Body<ChangeChat>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(groups.update(&caller, chat, &change).await?))
}

/// Delete a group, for everybody. Owners.
#[utoipa::path(
    delete, path = "/chats/{id}", tag = "groups", operation_id = "delete_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 204, description = "Nobody takes part in it any more."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); no owner, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delete(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<StatusCode, Problem> {
    groups.delete(&caller, chat).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Add users to a group, all or none. Owners and admins.
#[utoipa::path(
    post, path = "/chats/{id}/participants", tag = "groups", operation_id = "add_participants",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = AddUsers,
    responses(
        (status = 200, description = "All of them take part.", body = Chat),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "A user does not exist (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "One of them is banned (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn add(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Body(request): Body<AddUsers>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(groups.add(&caller, chat, &request.user_ids).await?))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RemoveQuery {
    /// They may not come back either; they need not take part just now.
    #[serde(default)]
    ban: bool,
}

/// Remove somebody from a group. Owners, and admins where it is a member.
#[utoipa::path(
    delete, path = "/chats/{id}/participants/{userId}", tag = "groups",
    operation_id = "remove_participant",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("userId" = UserId, Path, description = "Whom."),
        RemoveQuery,
    ),
    responses(
        (status = 204, description = "No participant any more."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The user takes no part (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "It is the caller, who leaves instead (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn remove(
    State(groups): State<Groups>,
    caller: Caller,
    PathIds(chat, user): PathIds<ChatId, UserId>,
    Query(query): Query<RemoveQuery>,
) -> Result<StatusCode, Problem> {
    groups.remove(caller.user_id, chat, user, query.ban).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a participant a role. Owners; everybody may step down themselves.
#[utoipa::path(
    patch, path = "/chats/{id}/participants/{userId}", tag = "groups", operation_id = "set_role",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("userId" = UserId, Path, description = "Whose."),
    ),
    request_body = ChangeRole,
    responses(
        (status = 200, description = "It is the role from now on.", body = Empty),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); no owner, or a one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The user takes no part (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The group would have no owner (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn set_role(
    State(groups): State<Groups>,
    caller: Caller,
    PathIds(chat, user): PathIds<ChatId, UserId>,
    Body(request): Body<ChangeRole>,
) -> Result<Json<Empty>, Problem> {
    groups.set_role(caller.user_id, chat, user, request.role, request.transfer).await?;
    Ok(Json(Empty {}))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct BansQuery {
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// 1 to 1,000; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// Who may not come back to a group. Owners and admins.
#[utoipa::path(
    get, path = "/chats/{id}/bans", tag = "groups", operation_id = "list_bans",
    params(("id" = ChatId, Path, description = "The chat."), BansQuery),
    responses(
        (status = 200, description = "A page of them.", body = BanPage),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn bans(
    State(groups): State<Groups>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<BansQuery>,
) -> Result<Json<BanPage>, Problem> {
    let limit = limit(query.limit, BANS_DEFAULT, BANS_MOST)?;
    let cursor = BanCursor::decode_if_any(query.cursor.as_deref())?;
    Ok(Json(groups.bans(&caller, chat, cursor, limit).await?))
}

/// Let somebody come back. Owners and admins.
#[utoipa::path(
    delete, path = "/chats/{id}/bans/{userId}", tag = "groups", operation_id = "lift_ban",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("userId" = UserId, Path, description = "Whom."),
    ),
    responses(
        (status = 204, description = "Not banned, or not any more."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); not in a role for this (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn lift_ban(
    State(groups): State<Groups>,
    caller: Caller,
    PathIds(chat, user): PathIds<ChatId, UserId>,
) -> Result<StatusCode, Problem> {
    groups.lift_ban(&caller, chat, user).await?;
    Ok(StatusCode::NO_CONTENT)
}
