//! Who has fetched the files of messages.

use axum::{Json, extract::State};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MessageId},
    media::DownloadPage,
    server::Role,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::member;
use crate::{
    app::App,
    auth::Caller,
    rest::{
        extract::{PathIds, Query, limit},
        problem::{PROBLEM_JSON, Problem, ProblemBody},
    },
};

const DOWNLOADS_DEFAULT: u32 = 50;
const DOWNLOADS_MOST: u32 = 200;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(downloads))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct DownloadsQuery {
    /// `nextCursor` of the page before.
    cursor: Option<Uuid>,
    /// 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// Who has fetched the file of a message, the newest first: for its sender, and for those who
/// manage the chat.
#[utoipa::path(
    get, path = "/chats/{id}/messages/{messageId}/downloads", tag = "media",
    operation_id = "list_downloads",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
        DownloadsQuery,
    ),
    responses(
        (status = 200, description = "A page of downloads.", body = DownloadPage),
        (status = 403, description = "Neither its sender nor one who manages the chat (`forbidden`), or not a participant (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The message has had no file (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn downloads(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
    Query(query): Query<DownloadsQuery>,
) -> Result<Json<DownloadPage>, Problem> {
    let limit = limit(query.limit, DOWNLOADS_DEFAULT, DOWNLOADS_MOST)?;
    let member = member(&app, &caller, chat).await?;
    let sender = app.store.media_sender(chat, message).await?;
    let missing = || WireError::new(ErrorCode::NotFound, "the message has had no file");
    let sender = sender.ok_or_else(missing)?;
    if sender != caller.user_id && !matches!(member.role, Role::Owner | Role::Admin) {
        let message = "only for its sender, and for those who manage the chat";
        return Err(WireError::new(ErrorCode::Forbidden, message).into());
    }
    let (items, next) = app.store.downloads(message, query.cursor, limit).await?;
    Ok(Json(DownloadPage { items, next_cursor: next.map(|next| next.to_string()) }))
}
