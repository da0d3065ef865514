//! What is read and delivered, unread counts, and what one wants of a chat for oneself.

use axum::{Json, extract::State};
use natter_protocol::{
    client::Mark,
    ids::ChatId,
    rest::{Mute, ReceiptList, UnreadTotal, UpTo},
    server::{Chat, Empty},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Body, PathId},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, reads::Reads};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(unread))
        .routes(routes!(read))
        .routes(routes!(delivered))
        .routes(routes!(receipts))
        .routes(routes!(mute, unmute))
        .routes(routes!(hide))
}

/// What is unread in all chats that are listed: each chat tells its own in `me.unreadCount`.
#[utoipa::path(
    get, path = "/chats/unread", tag = "chats", operation_id = "get_unread",
    responses((status = 200, description = "Of messages, and of chats that have any.", body = UnreadTotal))
)]
async fn unread(State(reads): State<Reads>, caller: Caller) -> Result<Json<UnreadTotal>, Problem> {
    Ok(Json(reads.unread(&caller).await?))
}

/// The chat is read up to this place of its feed. It only goes up, on all devices.
#[utoipa::path(
    post, path = "/chats/{id}/read", tag = "chats", operation_id = "read",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = UpTo,
    responses(
        (status = 200, description = "Stored durably, or was before.", body = Empty),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn read(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat_id): PathId<ChatId>,
    Body(UpTo { seq }): Body<UpTo>,
) -> Result<Json<Empty>, Problem> {
    reads.read(&caller, Mark { chat_id, seq }, None).await?;
    Ok(Json(Empty {}))
}

/// This device has got the chat up to this place of its feed. It only goes up.
#[utoipa::path(
    post, path = "/chats/{id}/delivered", tag = "chats", operation_id = "delivered",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = UpTo,
    responses(
        (status = 200, description = "Stored, or will be within a second.", body = Empty),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delivered(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat_id): PathId<ChatId>,
    Body(UpTo { seq }): Body<UpTo>,
) -> Result<Json<Empty>, Problem> {
    reads.delivered(&caller, Mark { chat_id, seq }).await?;
    Ok(Json(Empty {}))
}

/// How far the participants of a chat have read it, and their devices have got it. Changes come as
/// `read` and `delivered` over the socket.
#[utoipa::path(
    get, path = "/chats/{id}/receipts", tag = "chats", operation_id = "list_receipts",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "Of all participants.", body = ReceiptList),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); the chat has too many participants (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn receipts(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<ReceiptList>, Problem> {
    Ok(Json(reads.receipts(&caller, chat).await?))
}

/// No notifications of the chat, for the caller alone: until a time, or for ever.
#[utoipa::path(
    put, path = "/chats/{id}/mute", tag = "chats", operation_id = "mute_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = Mute,
    responses(
        (status = 200, description = "The chat as the caller sees it now.", body = Chat),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn mute(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Body(mute): Body<Mute>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(reads.mute(&caller, chat, mute).await?))
}

/// Notifications of the chat again.
#[utoipa::path(
    delete, path = "/chats/{id}/mute", tag = "chats", operation_id = "unmute_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "The chat as the caller sees it now.", body = Chat),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn unmute(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(reads.unmute(&caller, chat).await?))
}

/// The one-to-one is not listed until its next message, for the caller alone.
#[utoipa::path(
    post, path = "/chats/{id}/hide", tag = "chats", operation_id = "hide_chat",
    params(("id" = ChatId, Path, description = "The chat.")),
    responses(
        (status = 200, description = "The chat as the caller sees it now.", body = Chat),
        (status = 403, description = "A group (`forbidden`), or not a participant (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn hide(
    State(reads): State<Reads>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
) -> Result<Json<Chat>, Problem> {
    Ok(Json(reads.hide(&caller, chat).await?))
}
