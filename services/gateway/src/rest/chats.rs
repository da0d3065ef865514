//! Chats: made, listed, joined, left.

use axum::{Json, extract::State, http::StatusCode};
use garde::Validate;
use natter_protocol::{
    error::WireError,
    ids::ChatId,
    limits,
    rest::{ChatPage, CreateChat, ParticipantPage},
    server::{Chat, Empty, Joined},
};
use natter_store::{ChatCursor, ParticipantCursor, Store};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    cursor::Cursor,
    extract::{Body, OptionalBody, PathId, Query, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{
    app::App,
    auth::Caller,
    chats::{Chats, not_member},
    history, text,
};

const CHATS_DEFAULT: u32 = 50;
const CHATS_MOST: u32 = 200;
pub(super) const PARTICIPANTS_DEFAULT: u32 = 100;
pub(super) const PARTICIPANTS_MOST: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get))
        .routes(routes!(join))
        .routes(routes!(leave))
        .routes(routes!(participants))
}

/// Make a group, or open the one-to-one with a user: the same two always get the same chat.
#[utoipa::path(
    post, path = "/chats", tag = "chats", operation_id = "create_chat",
    request_body = CreateChat,
    responses(
        (status = 201, description = "Made.", body = Chat),
        (status = 200, description = "The one-to-one that was there.", body = Chat),
        (status = 403, description = "A one-to-one with this user cannot be opened (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "A participant does not exist (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn create(
    State(chats): State<Chats>,
    caller: Caller,
    Body(request): Body<CreateChat>,
) -> Result<(StatusCode, Json<Chat>), Problem> {
    let (chat, made) = chats.create(&caller, request).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(chat)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// A part of a title or of a participant's name, in any case.
    search: Option<String>,
}

/// The caller's chats, newest activity first over the whole list.
#[utoipa::path(
    get, path = "/chats", tag = "chats", operation_id = "list_chats",
    params(ListQuery),
    responses((status = 200, description = "A page of chats.", body = ChatPage))
)]
async fn list(
    State(chats): State<Chats>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<ChatPage>, Problem> {
    let limit = limit(query.limit, CHATS_DEFAULT, CHATS_MOST)?;
    let cursor = ChatCursor::decode_if_any(query.cursor.as_deref())?;
    let search = query.search.as_deref().map(str::trim).filter(|search| !search.is_empty());
    if search.is_some_and(|search| search.chars().count() > limits::NAME_CHARS) {
        return Err(text::bad_request("search: is longer than a name can be").into());
    }
    let (items, next) = chats.list(&caller, cursor, limit, search).await?;
    Ok(Json(ChatPage { items, next_cursor: next.map(|next| next.encode()) }))
}

/// One chat.
#[utoipa::path(
    get, path = "/chats/{id}", tag = "chats", operation_id = "get_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "The chat.", body = Chat),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn get(
    State(chats): State<Chats>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(chats.get(&caller, chat).await?))
}

/// How much of the history a join answers with.
#[derive(Default, Deserialize, ToSchema, Validate)]
pub(super) struct JoinRequest {
    /// Of the history.
    #[garde(skip)]
    history: Option<JoinWindow>,
}

impl JoinRequest {
    /// How much that is.
    ///
    /// # Errors
    /// `bad_request` when it is out of bounds.
    pub(super) fn limit(self) -> Result<u32, WireError> {
        let asked = self.history.and_then(|history| history.limit);
        limit(asked, limits::PAGE_DEFAULT, limits::PAGE)
    }
}

#[derive(Default, Deserialize, ToSchema)]
struct JoinWindow {
    /// 1 to 200; 50 by default.
    limit: Option<u32>,
}

/// Become a participant of an open chat, and get its newest messages.
#[utoipa::path(
    post, path = "/chats/{id}/join", tag = "chats", operation_id = "join_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body(content = Option<JoinRequest>, content_type = "application/json"),
    responses(
        (status = 200, description = "A participant now, or as before.", body = Joined),
        (status = 403, description = "The chat is not open, or the caller is banned from it (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such chat (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn join(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    OptionalBody(request): OptionalBody<JoinRequest>,
) -> Result<Json<Joined>, Problem> {
    Ok(Json(history::join(&app, &caller, chat, request.limit()?).await?))
}

/// Stop being a participant of a group.
#[utoipa::path(
    post, path = "/chats/{id}/leave", tag = "chats", operation_id = "leave_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "No participant any more.", body = Empty),
        (status = 403, description = "A one-to-one (`forbidden`), or not a participant (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn leave(
    State(chats): State<Chats>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<Empty>, Problem> {
    chats.leave(&caller, chat).await?;
    Ok(Json(Empty {}))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ParticipantsQuery {
    /// `nextCursor` of the page before.
    pub(super) cursor: Option<String>,
    /// 1 to 1,000; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    pub(super) limit: Option<u32>,
}

/// The participants of a chat, by the time they joined.
#[utoipa::path(
    get, path = "/chats/{id}/participants", tag = "chats", operation_id = "list_participants",
    params(("id" = ChatId, Path, description = "The chat."), ParticipantsQuery),
    responses(
        (status = 200, description = "A page of participants.", body = ParticipantPage),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn participants(
    State(store): State<Store>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<ParticipantsQuery>,
) -> Result<Json<ParticipantPage>, Problem> {
    let limit = limit(query.limit, PARTICIPANTS_DEFAULT, PARTICIPANTS_MOST)?;
    let cursor = ParticipantCursor::decode_if_any(query.cursor.as_deref())?;
    store.membership(caller.user_id, chat).await?.ok_or_else(not_member)?;
    let (items, next) = store.participants(chat, cursor, limit).await?;
    Ok(Json(ParticipantPage { items, next_cursor: next.map(|next| next.encode()) }))
}
