//! Files on their way into a chat.

use axum::{
    Json,
    extract::{DefaultBodyLimit, Request, State},
    http::StatusCode,
};
use natter_protocol::{
    client::Draft,
    ids::{ChatId, MediaId, MessageId},
    media::{Media, UploadDraft, UploadTicket, Uploaded},
};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    form::{self, Texts},
    writer,
};
use crate::{
    app::App,
    auth::Caller,
    rest::{
        extract::{OptionalBody, PathId, PathIds, Unchecked, drain},
        problem::{PROBLEM_JSON, Problem, ProblemBody},
    },
    send,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(ticket))
        .routes(routes!(complete))
}

/// What a form may say beside its file.
#[derive(Default, ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes the form")]
struct UploadForm {
    /// The file.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Send it at once, with this text.
    caption: Option<String>,
    /// `true`: send it at once, without a text.
    send: Option<bool>,
    /// As in `send_message`.
    client_msg_id: Option<String>,
    /// As in `send_message`.
    reply_to: Option<MessageId>,
}

/// Upload a file to a chat, to be sent by `send_message {mediaId}`; or send it in one step. Within a
/// day it has to be sent.
#[utoipa::path(
    post, path = "/chats/{id}/media", tag = "media", operation_id = "upload_media",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body(content = UploadForm, content_type = "multipart/form-data"),
    responses(
        (status = 201, description = "The file is stored, and sent if that was asked for.", body = Uploaded),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); a one-to-one in which messages cannot be sent (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file, or the caption, is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 415, description = "The body is no form, or the file of a type that is not taken (`unsupported_media`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 422, description = "The deployment's own check does not let the message through (`refused`): see `reason`.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let (body, pace) = form::paced(request);
    let begun = form::begin(&app, &caller, chat, body).await;
    let (mut form, place) = match begun {
        Ok(begun) => begun,
        Err((error, body)) => {
            drain(form::lengths(body.into_data_stream())).await;
            return Err(error);
        }
    };
    let read = form::read(&app, &caller, chat, &mut form, place, &pace).await;
    let (file, texts) = match read {
        Ok(read) => read,
        Err(error) => {
            drain(form::rest(form, pace)).await;
            return Err(error.into());
        }
    };
    let media = file.finish().await?;
    Ok((StatusCode::CREATED, Json(sent(&app, &caller, chat, media, texts, false).await?)))
}

/// Sends the file, if that was asked for. `again`: the same file can be sent by another call.
async fn sent(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    media: Media,
    texts: Texts,
    again: bool,
) -> Result<Uploaded, Problem> {
    let Texts { caption, send, client_msg_id, reply_to } = texts;
    if caption.is_none() && !send {
        return Ok(Uploaded { media, message: None });
    }
    let (id, content) = (media.id, caption.unwrap_or_default());
    let mentions = Vec::new();
    let draft = Draft { content, media_id: Some(id), reply_to, client_msg_id, mentions };
    let sent = send::send_from_rest(app, caller, chat, draft).await;
    // What a message has claimed stays: of a retry that is the first file, and this one goes. One
    // that is in the store already is kept for a retry.
    if !again || sent.is_ok() {
        app.store.give_up_media(id).await.ok();
    }
    let message = sent?;
    let first = app.store.media_of(chat, message.id).await.ok().flatten();
    let media = first.map_or(media, |first| first.media);
    Ok(Uploaded { media, message: Some(message) })
}

/// Where a large file can be put directly, past the gateways: only with a store that has URLs for
/// that, where it is switched on.
#[utoipa::path(
    post, path = "/chats/{id}/media/uploads", tag = "media", operation_id = "begin_upload",
    params(("id" = ChatId, Path, description = "The chat.")),
    request_body = UploadDraft,
    responses(
        (status = 201, description = "Put the file there, then complete the upload.", body = UploadTicket),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); a one-to-one in which messages cannot be sent (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "Files are uploaded by multipart/form-data here (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn ticket(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Unchecked(draft): Unchecked<UploadDraft>,
) -> Result<(StatusCode, Json<UploadTicket>), Problem> {
    writer(&app, &caller, chat).await?;
    let ticket = app.library.ticket(chat, caller.user_id, &draft).await?;
    Ok((StatusCode::CREATED, Json(ticket)))
}

/// What a completed upload may be sent with.
#[derive(Default, Deserialize, ToSchema, garde::Validate)]
#[serde(rename_all = "camelCase")]
struct CompleteRequest {
    /// Send it at once, with this text.
    #[serde(default)]
    #[garde(skip)]
    caption: Option<String>,
    /// Send it at once.
    #[serde(default)]
    #[garde(skip)]
    send: bool,
    /// As in `send_message`.
    #[serde(default)]
    #[garde(skip)]
    client_msg_id: Option<String>,
    /// As in `send_message`.
    #[serde(default)]
    #[garde(skip)]
    reply_to: Option<MessageId>,
}

/// The file has been put where it was to be.
#[utoipa::path(
    post, path = "/chats/{id}/media/{mediaId}/complete", tag = "media",
    operation_id = "complete_upload",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("mediaId" = MediaId, Path, description = "The file."),
    ),
    request_body(content = Option<CompleteRequest>, content_type = "application/json"),
    responses(
        (status = 201, description = "The file can be sent, or has been.", body = Uploaded),
        (status = 403, description = "Not a participant, or no such chat (`not_member`); a one-to-one in which messages cannot be sent (`forbidden`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such upload of yours, or nothing has come yet (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "Another call is about it, or it has just changed (`conflict`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file is larger than may be (`too_large`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 415, description = "The file is of a type that is not taken (`unsupported_media`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 422, description = "The deployment's own check does not let the message through (`refused`): see `reason`.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn complete(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, media): PathIds<ChatId, MediaId>,
    OptionalBody(request): OptionalBody<CompleteRequest>,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    writer(&app, &caller, chat).await?;
    let media = app.library.complete(chat, caller.user_id, media).await?;
    let CompleteRequest { caption, send, client_msg_id, reply_to } = request;
    let texts = Texts { caption, send, client_msg_id, reply_to };
    Ok((StatusCode::CREATED, Json(sent(&app, &caller, chat, media, texts, true).await?)))
}
