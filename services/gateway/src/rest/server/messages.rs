//! Messages of any chat: sent as a person, as a bot or as the system, read, deleted.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MessageId, UserId},
    limits,
    server::{Changed, HistoryPage, Sent, UserCard},
    service::{Scope, SendAs, ServerDraft},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    super::{
        extract::{PathId, PathIds, Query, Unchecked, limit},
        messages::PageQuery,
        problem::{PROBLEM_JSON, Problem, ProblemBody},
    },
    By, History, Moderates, Sends,
};
use crate::{
    app::App,
    auth::{self, service::Service},
    edits, fault, history,
    send::{self, Sender},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(page, send)).routes(routes!(delete))
}

/// A page of any chat's messages, oldest first; without bounds the newest ones. Scope `history`.
#[utoipa::path(
    get, path = "/server/chats/{id}/messages", tag = "server", operation_id = "server_list_messages",
    security(("service" = ["history"])),
    params(("id" = ChatId, Path, description = "The chat."), PageQuery),
    responses(
        (status = 200, description = "A page of messages.", body = HistoryPage),
        (status = 404, description = "There is no such chat (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn page(
    State(app): State<App>,
    _: By<History>,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    let PageQuery { before, after, around, .. } = query.checked()?;
    let limit = limit(query.limit, limits::PAGE_DEFAULT, limits::PAGE)?;
    Ok(Json(match around {
        Some(around) => history::any_around(&app, chat, around, limit).await?,
        None => history::any_page(&app, chat, before, after, limit).await?,
    }))
}

/// Send a message as a bot or as `system` (scope `send`), or as anybody (scope `impersonate`), with the
/// same order, delivery and `clientMsgId` as anybody's. Users send only where they take part.
#[utoipa::path(
    post, path = "/server/chats/{id}/messages", tag = "server", operation_id = "server_send_message",
    security(("service" = ["send"]), ("service" = ["impersonate"])),
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = ServerDraft,
    responses(
        (status = 201, description = "Stored durably.", body = Sent),
        (status = 200, description = "It was stored before.", body = Sent),
        (status = 403, description = "The user takes no part in the chat, or there is none (`not_member`); the user is disabled (`account_disabled`); a person without the scope `impersonate`, or a one-to-one in which messages cannot be sent (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such user, or for `system` no such chat; `mediaId`, `replyTo`: no such file or message (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "`mediaId`: it was sent with another message (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "`content`, or the body, is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 422, description = "The deployment's own check does not let it through (`refused`): see `reason`.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn send(
    State(app): State<App>,
    by: By<Sends>,
    PathId(chat): PathId<ChatId>,
    Unchecked(ServerDraft { send_as, draft }): Unchecked<ServerDraft>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let card = match send_as {
        SendAs::System => {
            by.service.may(&[Scope::Send])?;
            UserCard::system()
        }
        SendAs::User(user) => speaker(&app, &by.service, user).await?,
    };
    let sent = send::send_as(&app, Sender { card, device: None }, chat, draft).await?;
    Ok((if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED }, Json(sent)))
}

/// The user as whom the server may send.
async fn speaker(app: &App, service: &Service, user: UserId) -> Result<UserCard, WireError> {
    let found = app.store.speaker(user).await.map_err(fault::store)?;
    let found = found.ok_or_else(|| WireError::new(ErrorCode::NotFound, "sendAs: no such user"))?;
    service.may(if found.card.bot {
        &[Scope::Send, Scope::Impersonate]
    } else {
        &[Scope::Impersonate]
    })?;
    if found.disabled { Err(auth::disabled()) } else { Ok(found.card) }
}

/// Take anybody's message back. Scope `moderate`.
#[utoipa::path(
    delete, path = "/server/chats/{id}/messages/{messageId}", tag = "server",
    operation_id = "server_delete_message",
    security(("service" = ["moderate"])),
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
    ),
    responses(
        (status = 200, description = "Stored durably, now or before.", body = Changed),
        (status = 404, description = "There is no such chat, or no such message in it (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn delete(
    State(app): State<App>,
    by: By<Moderates>,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
) -> Result<Json<Changed>, Problem> {
    let changed = edits::moderate(&app, chat, message).await?;
    tracing::info!(token = %by.service.token, %chat, %message, "a message is taken back");
    Ok(Json(changed))
}
