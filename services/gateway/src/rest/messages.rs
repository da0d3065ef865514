//! A chat's messages: read in pages, and sent.

use axum::{Json, extract::State, http::StatusCode};
use natter_protocol::{
    client::Draft,
    error::WireError,
    ids::{ChatId, Seq},
    limits,
    server::{HistoryPage, Sent},
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{PathId, Query, Unchecked, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
};
use crate::{app::App, auth::Caller, history, send, text::bad_request};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(page, send))
}

#[derive(Clone, Copy, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageQuery {
    /// The newest messages before this `seq`.
    pub(super) before: Option<Seq>,
    /// The oldest messages after this `seq`; not together with `before`.
    pub(super) after: Option<Seq>,
    /// The message with this `seq`, and as many before it as after; alone.
    pub(super) around: Option<Seq>,
    /// 1 to 200; 50 by default.
    #[param(minimum = 1, maximum = 200)]
    pub(super) limit: Option<u32>,
}

impl PageQuery {
    /// The same, if no bound excludes another.
    pub(super) fn checked(&self) -> Result<Self, WireError> {
        if self.before.is_some() && self.after.is_some() {
            return Err(bad_request("before, after: not both"));
        }
        if self.around.is_some() && (self.before.is_some() || self.after.is_some()) {
            return Err(bad_request("around: not with before or after"));
        }
        Ok(*self)
    }
}

/// A page of a chat's messages, oldest first; without bounds the newest ones.
#[utoipa::path(
    get, path = "/chats/{id}/messages", tag = "messages", operation_id = "list_messages",
    params(("id" = ChatId, Path, description = "The chat."), PageQuery),
    responses(
        (status = 200, description = "A page of messages.", body = HistoryPage),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn page(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Query(query): Query<PageQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    let PageQuery { before, after, around, .. } = query.checked()?;
    let limit = limit(query.limit, limits::PAGE_DEFAULT, limits::PAGE)?;
    Ok(Json(match around {
        Some(around) => history::around(&app, &caller, chat, around, limit).await?,
        None => history::page(&app, &caller, chat, before, after, limit).await?,
    }))
}

/// Send a message. A repeated `clientMsgId` is the same message, told as a duplicate.
#[utoipa::path(
    post, path = "/chats/{id}/messages", tag = "messages", operation_id = "send_message",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = Draft,
    responses(
        (status = 201, description = "Stored durably.", body = Sent),
        (status = 200, description = "It was stored before.", body = Sent),
        (status = 404, description = "`mediaId`: no file that the sender has uploaded to this chat (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "`mediaId`: it was sent with another message (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); a one-to-one in which messages cannot be sent (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "`content`, or the body, is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 422, description = "The deployment's own check does not let it through (`refused`): see `reason`.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn send(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Unchecked(draft): Unchecked<Draft>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let sent = send::send_from_rest(&app, &caller, chat, draft).await?;
    Ok((if sent.duplicate { StatusCode::OK } else { StatusCode::CREATED }, Json(sent)))
}
