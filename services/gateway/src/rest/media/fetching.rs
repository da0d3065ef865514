//! The files of messages, as those who take part in the chat fetch them.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use axum_extra::headers::{self, HeaderMapExt};
use natter_media::{disposition, shows_inline};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MessageId},
    media::Media,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::member;
use crate::{
    app::App,
    auth::Caller,
    media::Wanted,
    rest::{
        extract::{PathIds, Query},
        problem::{PROBLEM_JSON, Problem, ProblemBody},
        ranges::{Asked, asked_range},
    },
    text::bad_request,
};

/// A browser asks each time whether it may still show what it has.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// Whatever a file holds, it runs nothing and loads nothing here.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch)).routes(routes!(thumbnail))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct FetchQuery {
    /// `true`: to be saved, though it could be shown.
    #[serde(default)]
    download: bool,
}

/// The file of a message, or a part of it (`Range`). Who fetches it is recorded.
#[utoipa::path(
    method(get, head), path = "/chats/{id}/messages/{messageId}/media", tag = "media",
    operation_id = "get_media",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
        FetchQuery,
    ),
    responses(
        (status = 200, description = "The file.", content_type = "*/*"),
        (status = 206, description = "The part that was asked for.", content_type = "*/*"),
        (status = 304, description = "It is what the client has (`If-None-Match`)."),
        (status = 307, description = "The store gives it out, for a short while, at `Location`."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The message has no file (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 416, description = "The file has no such part (`bad_request`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn fetch(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
    Query(query): Query<FetchQuery>,
    method: Method,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    member(&app, &caller, chat).await?;
    let wanted = app.library.wanted(&caller, chat, message).await?;
    let headers = headers_of(&wanted, query.download)?;
    let tag = tag(&wanted.file.media);
    if let Some(known) = asked.typed_get::<headers::IfNoneMatch>()
        && let Some(tag) = &tag
        && !known.precondition_passes(tag)
    {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let size = wanted.file.media.size;
    let part = match asked_range(&asked, tag.as_ref(), size) {
        // Of `GET` alone (RFC 9110, 14.2).
        _ if method == Method::HEAD => None,
        Asked::Whole => None,
        Asked::Part(range) => Some(range),
        Asked::Nowhere => {
            let nowhere = HeaderValue::try_from(format!("bytes */{size}"));
            let error = WireError::new(ErrorCode::BadRequest, "the file has no such part");
            let problem = Problem::with_status(StatusCode::RANGE_NOT_SATISFIABLE, error);
            let mut response = problem.into_response();
            if let Ok(nowhere) = nowhere {
                response.headers_mut().insert(header::CONTENT_RANGE, nowhere);
            }
            return Ok(response);
        }
    };
    let range = part.clone().unwrap_or(0..size);
    let mut head = headers;
    head.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let status = match part {
        None => StatusCode::OK,
        Some(part) => {
            let told = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            if let Ok(told) = HeaderValue::try_from(told) {
                head.insert(header::CONTENT_RANGE, told);
            }
            StatusCode::PARTIAL_CONTENT
        }
    };
    if method == Method::HEAD {
        return Ok((status, head).into_response());
    }
    // The store would show what is to be saved.
    if !query.download
        && let Some(url) = wanted.elsewhere().await?
    {
        let location = HeaderValue::try_from(url.as_str());
        let location = location.map_err(|_| bad_request("the file cannot be told where it is"))?;
        let no_store = HeaderValue::from_static("no-store");
        let headers = [(header::LOCATION, location), (header::CACHE_CONTROL, no_store)];
        return Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response());
    }
    Ok((status, head, Body::from_stream(wanted.part(range).await?)).into_response())
}

/// A small picture of an image, once it has been made: shortly after it was uploaded.
#[utoipa::path(
    get, path = "/chats/{id}/messages/{messageId}/media/thumbnail", tag = "media",
    operation_id = "get_thumbnail",
    params(
        ("id" = ChatId, Path, description = "The chat."),
        ("messageId" = MessageId, Path, description = "The message."),
    ),
    responses(
        (status = 200, description = "At most 320 by 320 pixels.", content_type = "image/*"),
        (status = 304, description = "It is what the client has (`If-None-Match`)."),
        (status = 403, description = "Not a participant, or no such chat (`not_member`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is none, or not yet (`not_found`).",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn thumbnail(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, message): PathIds<ChatId, MessageId>,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    member(&app, &caller, chat).await?;
    let wanted = app.library.wanted(&caller, chat, message).await?;
    let tag = tag(&wanted.file.media);
    let mut headers = HeaderMap::from_iter([
        (header::CACHE_CONTROL, PRIVATE),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ]);
    if let Some(tag) = &tag {
        headers.typed_insert(tag.clone());
        let known = asked.typed_get::<headers::IfNoneMatch>();
        if wanted.file.thumbnail && known.is_some_and(|known| !known.precondition_passes(tag)) {
            return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
        }
    }
    let bytes = wanted.thumbnail().await?;
    let kind = natter_media::sniff(&bytes).media_type;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok((headers, bytes).into_response())
}

/// A file never changes: its id tells it apart.
fn tag(media: &Media) -> Option<headers::ETag> {
    format!("\"{}\"", media.id).parse().ok()
}

fn headers_of(wanted: &Wanted, download: bool) -> Result<HeaderMap, WireError> {
    let media = &wanted.file.media;
    let inline = !download && shows_inline(&media.media_type);
    let odd = |_| bad_request("the file has an odd name");
    let shown = HeaderValue::try_from(disposition(&media.name, inline)).map_err(odd)?;
    let kind = HeaderValue::try_from(media.media_type.as_str()).map_err(odd)?;
    let known: [(HeaderName, HeaderValue); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_DISPOSITION, shown),
        (header::ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (header::CACHE_CONTROL, PRIVATE),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    let mut headers = HeaderMap::from_iter(known);
    if let Some(tag) = tag(media) {
        headers.typed_insert(tag);
    }
    Ok(headers)
}
