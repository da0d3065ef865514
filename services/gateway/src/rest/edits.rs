//! What becomes of messages: edits, deletions, reactions.

use axum::{Json, extract::State};
use natter_protocol::{
    client::Edit,
    ids::{ChatId, MessageId},
    server::Changed,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{PathIds, PathTail, Unchecked},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, edits};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(edit, delete)).routes(routes!(react, take_back))
}

/// Give a message of one's own another content.
#[utoipa::path(
    patch, path = "/chats/{id}/messages/{messageId}", tag = "messages", operation_id = "edit_message",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
    ),
    request_body = Edit,
    responses(
        (status = 200, description = "Stored durably.", body = Changed),
        (status = 403, description = "Somebody else's, or sent too long ago (`forbidden`); not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The chat has no such message (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The message is deleted (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "`content`, or the body, is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 422, description = "The deployment's own check does not let it through (`refused`): see `reason`.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn edit(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
    Unchecked(edit): Unchecked<Edit>,
) -> Result<Json<Changed>, Problem> {
    Ok(Json(edits::edit(&app, &caller, chat, message, edit).await?))
}

/// Take a message back: one of one's own, or anybody's where one manages the chat. Its content, its
/// file and its reactions go; that it was there stays.
#[utoipa::path(
    delete, path = "/chats/{id}/messages/{messageId}", tag = "messages",
    operation_id = "delete_message",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
    ),
    responses(
        (status = 200, description = "Stored durably, now or before.", body = Changed),
        (status = 403, description = "Neither its sender nor one who manages the chat (`forbidden`); not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The chat has no such message (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
) -> Result<Json<Changed>, Problem> {
    Ok(Json(edits::delete(&app, &caller, chat, message).await?))
}

/// React to a message.
#[utoipa::path(
    put, path = "/chats/{id}/messages/{messageId}/reactions/{emoji}", tag = "messages",
    operation_id = "react",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
        ("emoji" = String, Path, description = "One emoji."),
    ),
    responses(
        (status = 200, description = "Stored durably, now or before.", body = Changed),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The chat has no such message (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The message is deleted, or has as many reactions as may be (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn react(
    State(app): State<App>,
    caller: Caller,
    PathTail(chat, message, emoji): PathTail<ChatId, MessageId>,
) -> Result<Json<Changed>, Problem> {
    Ok(Json(edits::react(&app, &caller, chat, message, &emoji, true).await?))
}

/// Take a reaction back.
#[utoipa::path(
    delete, path = "/chats/{id}/messages/{messageId}/reactions/{emoji}", tag = "messages",
    operation_id = "take_back_reaction",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
        ("emoji" = String, Path, description = "One emoji."),
    ),
    responses(
        (status = 200, description = "Stored durably, now or before.", body = Changed),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The chat has no such message (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "The message is deleted (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn take_back(
    State(app): State<App>,
    caller: Caller,
    PathTail(chat, message, emoji): PathTail<ChatId, MessageId>,
) -> Result<Json<Changed>, Problem> {
    Ok(Json(edits::react(&app, &caller, chat, message, &emoji, false).await?))
}
