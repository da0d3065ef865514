//! Chats of others: made, and who takes part in them.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, UserId},
    rest::{AddUsers, ParticipantPage},
    server::{Chat, Empty},
    service::{CreateServerChat, ServerRole},
};
use natter_store::{Actor, ParticipantCursor, Store};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        chats::{PARTICIPANTS_DEFAULT, PARTICIPANTS_MOST, ParticipantsQuery},
        cursor::Cursor,
        extract::{Body, PathId, PathIds, Query, limit},
        problem::{PROBLEM_JSON, Problem, ProblemBody},
    },
    By, Chats as NeedsChats,
};
use crate::{app::App, chats::Chats, groups::Groups};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get))
        .routes(routes!(participants, add))
        .routes(routes!(remove, set_role))
}

/// What managing a group comes to for one who takes no part in it.
fn not_managed(error: WireError) -> WireError {
    match error.code {
        ErrorCode::NotMember => WireError::new(ErrorCode::NotFound, "there is no such chat"),
        ErrorCode::Forbidden => {
            WireError::new(ErrorCode::Forbidden, "a one-to-one keeps its two participants")
        }
        _ => error,
    }
}

/// Make a group with its owner, or open the one-to-one of two users: the same two always get the same
/// chat. Scope `chats`.
#[utoipa::path(
    post, path = "/server/chats", tag = "server", operation_id = "server_create_chat",
    security(("service" = ["chats"])),
    request_body = CreateServerChat,
    responses(
        (status = 201, description = "Made.", body = Chat),
        (status = 200, description = "The one-to-one that was there.", body = Chat),
        (status = 403, description = "One of the two has blocked the other (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "A participant does not exist (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn create(
    State(chats): State<Chats>,
    _: By<NeedsChats>,
    Body(request): Body<CreateServerChat>,
) -> Result<(StatusCode, Json<Chat>), Problem> {
    let (chat, made) = chats.create_between(request).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(chat)))
}

/// A chat, as nobody in particular sees it. Scope `chats`.
#[utoipa::path(
    get, path = "/server/chats/{id}", tag = "server", operation_id = "server_get_chat",
    security(("service" = ["chats"])),
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "The chat.", body = Chat),
        (status = 404, description = "There is no such chat (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn get(
    State(chats): State<Chats>,
    _: By<NeedsChats>,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(chats.for_all(chat).await?))
}

/// The participants of a chat, by the time they joined. Scope `chats`.
#[utoipa::path(
    get, path = "/server/chats/{id}/participants", tag = "server",
    operation_id = "server_list_participants",
    security(("service" = ["chats"])),
    params(("id" = ChatId, Path, description = "The chat."), ParticipantsQuery),
    responses(
        (status = 200, description = "A page of participants.", body = ParticipantPage),
        (status = 404, description = "There is no such chat (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn participants(
    State(store): State<Store>,
    _: By<NeedsChats>,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<ParticipantsQuery>,
) -> Result<Json<ParticipantPage>, Problem> {
    let limit = limit(query.limit, PARTICIPANTS_DEFAULT, PARTICIPANTS_MOST)?;
    let cursor = ParticipantCursor::decode_if_any(query.cursor.as_deref())?;
    let none = || WireError::new(ErrorCode::NotFound, "there is no such chat");
    store.chat_shard(chat).await?.ok_or_else(none)?;
    let (items, next) = store.participants(chat, cursor, limit).await?;
    Ok(Json(ParticipantPage { items, next_cursor: next.map(|next| next.encode()) }))
}

/// Add users to a group, all or none. Scope `chats`.
#[utoipa::path(
    post, path = "/server/chats/{id}/participants", tag = "server",
    operation_id = "server_add_participants",
    security(("service" = ["chats"])),
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = AddUsers,
    responses(
        (status = 200, description = "All of them take part.", body = Chat),
        (status = 403, description = "A one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such chat, or no such user (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "One of them is banned (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn add(
    State(groups): State<Groups>,
    State(chats): State<Chats>,
    _: By<NeedsChats>,
    PathId(chat): PathId<ChatId>,
    Body(request): Body<AddUsers>,
) -> Result<Json<Chat>, Problem> {
    groups.put_in(Actor::System, chat, &request.user_ids).await.map_err(not_managed)?;
    Ok(Json(chats.for_all(chat).await?))
}

/// Remove somebody from a group. When its last owner goes, somebody else becomes one. Scope `chats`.
#[utoipa::path(
    delete, path = "/server/chats/{id}/participants/{userId}", tag = "server",
    operation_id = "server_remove_participant",
    security(("service" = ["chats"])),
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("userId" = UserId, Path, description = "Whom."),
    ),
    responses(
        (status = 204, description = "No participant any more."),
        (status = 403, description = "A one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such chat, or the user takes no part (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn remove(
    State(groups): State<Groups>,
    _: By<NeedsChats>,
    PathIds(chat, user): PathIds<ChatId, UserId>,
) -> Result<StatusCode, Problem> {
    groups.remove(Actor::System, chat, user, false).await.map_err(not_managed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Give a participant of a group a role. Scope `chats`.
#[utoipa::path(
    patch, path = "/server/chats/{id}/participants/{userId}", tag = "server",
    operation_id = "server_set_role",
    security(("service" = ["chats"])),
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("userId" = UserId, Path, description = "Whose."),
    ),
    request_body = ServerRole,
    responses(
        (status = 200, description = "It is the role from now on.", body = Empty),
        (status = 403, description = "A one-to-one (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such chat, or the user takes no part (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The group would have no owner (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn set_role(
    State(groups): State<Groups>,
    _: By<NeedsChats>,
    PathIds(chat, user): PathIds<ChatId, UserId>,
    Body(request): Body<ServerRole>,
) -> Result<Json<Empty>, Problem> {
    let set = groups.set_role(Actor::System, chat, user, request.role, false).await;
    set.map_err(not_managed)?;
    Ok(Json(Empty {}))
}
