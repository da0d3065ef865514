//! Media files: uploaded to a chat, fetched from its messages.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Json,
    body::Body as Bytes,
    extract::{DefaultBodyLimit, Multipart, Request, State, multipart::Field},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use axum_extra::headers::{self, HeaderMapExt};
use futures::{Stream, StreamExt, stream};
use natter_media::{disposition, shows_inline};
use natter_protocol::{
    client::Draft,
    error::{ErrorCode, WireError},
    ids::{ChatId, MediaId, MessageId},
    limits,
    media::{DownloadPage, Media, UploadDraft, UploadTicket, Uploaded},
    server::Role,
};
use natter_store::Member;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    extract::{OptionalBody, PathId, PathIds, Query, Unchecked, drain, limit},
    problem::{PROBLEM_JSON, Problem, ProblemBody},
    ranges::{Asked, asked_range},
};
use crate::{
    app::App,
    auth::Caller,
    chats::not_member,
    media::{Incoming, Place, Wanted, in_time},
    send,
    text::bad_request,
};

const DOWNLOADS_DEFAULT: u32 = 50;
const DOWNLOADS_MOST: u32 = 200;

/// A browser asks each time whether it may still show what it has.
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
/// Whatever a file holds, it runs nothing and loads nothing here.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; sandbox; frame-ancestors 'none'");

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .layer(DefaultBodyLimit::disable())
        .routes(routes!(ticket))
        .routes(routes!(complete))
        .routes(routes!(fetch))
        .routes(routes!(thumbnail))
        .routes(routes!(downloads))
}

async fn member(app: &App, caller: &Caller, chat: ChatId) -> Result<Member, Problem> {
    Ok(app.store.membership(caller.user_id, chat).await?.ok_or_else(not_member)?)
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

/// The texts of a form.
#[derive(Default)]
struct Texts {
    caption: Option<String>,
    send: bool,
    client_msg_id: Option<String>,
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
        (status = 403, description = "Not a participant, or no such chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file, or the caption, is larger than may be.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 415, description = "The body is no form, or the file of a type that is not taken.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn upload(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    request: Request,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let (body, pace) = paced(request);
    let begun = begin(&app, &caller, chat, body).await;
    let (mut form, place) = match begun {
        Ok(begun) => begun,
        Err((error, body)) => {
            drain(lengths(body.into_data_stream())).await;
            return Err(error);
        }
    };
    let read = read(&app, &caller, chat, &mut form, place, &pace).await;
    let (file, texts) = match read {
        Ok(read) => read,
        Err(error) => {
            drain(form_rest(form, pace)).await;
            return Err(error.into());
        }
    };
    let media = file.finish().await?;
    Ok((StatusCode::CREATED, Json(sent(&app, &caller, chat, media, texts, false).await?)))
}

/// The form, and a place for its file; else why not, and what is to be read before that is said.
async fn begin(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    request: Request,
) -> Result<(Multipart, Place), (Problem, Bytes)> {
    let place = async {
        member(app, caller, chat).await?;
        Ok(app.library.place(caller.user_id).await?)
    };
    let place = match place.await {
        Ok(place) => place,
        Err(error) => return Err((error, request.into_body())),
    };
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !kind.is_some_and(|kind| kind.starts_with("multipart/form-data")) {
        return Err((no_form(), request.into_body()));
    }
    let form = <Multipart as axum::extract::FromRequest<()>>::from_request(request, &()).await;
    form.map(|form| (form, place)).map_err(|_| (no_form(), Bytes::empty()))
}

fn no_form() -> Problem {
    let message = "the body must be Content-Type: multipart/form-data";
    WireError::new(ErrorCode::UnsupportedMedia, message).into()
}

/// Bytes of a form that come without anything coming of them: its parser gathers them.
const GATHERED: usize = 1024 * 1024;

/// How much of a form has come since something came of it.
#[derive(Clone, Default)]
struct Pace(Arc<AtomicUsize>);

impl Pace {
    fn goes_on(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Ends a body of which too much comes without anything coming of it.
fn paced(request: Request) -> (Request, Pace) {
    let pace = Pace::default();
    let gathered = pace.clone();
    let request = request.map(|body| {
        Bytes::from_stream(body.into_data_stream().map(move |chunk| {
            let chunk = chunk.map_err(io::Error::other)?;
            let before = gathered.0.fetch_add(chunk.len(), Ordering::Relaxed);
            if before + chunk.len() > GATHERED {
                return Err(io::Error::other("a part of the form has no end"));
            }
            Ok(chunk)
        }))
    });
    (request, pace)
}

fn lengths<E>(body: impl Stream<Item = Result<axum::body::Bytes, E>>) -> impl Stream<Item = usize> {
    body.map(|chunk| chunk.map_or(GATHERED, |chunk| chunk.len()))
}

/// What is left of a form.
fn form_rest(form: Multipart, pace: Pace) -> impl Stream<Item = usize> {
    stream::unfold((form, pace), async |(mut form, pace)| {
        let mut left = 0;
        let mut field = form.next_field().await.ok()??;
        while let Ok(Some(chunk)) = field.chunk().await {
            pace.goes_on();
            left += chunk.len();
            if left > GATHERED {
                break;
            }
        }
        drop(field);
        Some((left, (form, pace)))
    })
}

/// The file, as it is stored meanwhile, and what else the form says.
async fn read(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    form: &mut Multipart,
    place: Place,
    pace: &Pace,
) -> Result<(Incoming, Texts), WireError> {
    let broken = |_| bad_request("the form is malformed, or not complete");
    let (mut place, mut file, mut texts) = (Some(place), None, Texts::default());
    let mut said = Vec::new();
    while let Some(mut field) = in_time(form.next_field()).await?.map_err(broken)? {
        pace.goes_on();
        let Some(name) = field.name().and_then(|name| FIELDS.iter().find(|known| **known == name))
        else {
            return Err(bad_request("the form has a field that is not known"));
        };
        if said.contains(name) {
            return Err(bad_request(format!("{name}: one at a time")));
        }
        said.push(*name);
        match *name {
            "file" => {
                let Some(place) = place.take() else { continue };
                let name = field.file_name().unwrap_or_default();
                let mut incoming = Incoming::new(&app.library, place, chat, caller.user_id, name);
                while let Some(bytes) = in_time(field.chunk()).await?.map_err(broken)? {
                    pace.goes_on();
                    incoming.take(bytes).await?;
                }
                file = Some(incoming);
            }
            "caption" => texts.caption = Some(text(field, limits::CONTENT_BYTES).await?),
            "send" => texts.send = text(field, 5).await? == "true",
            "clientMsgId" => {
                let most = limits::CLIENT_MSG_ID_CHARS * 4;
                texts.client_msg_id = Some(text(field, most).await?);
            }
            _ => {
                let id = text(field, 64).await?;
                let id = id.parse().map_err(|_| bad_request("replyTo: is not a UUID"))?;
                texts.reply_to = Some(id);
            }
        }
        pace.goes_on();
    }
    let file = file.ok_or_else(|| bad_request("file: is missing"))?;
    Ok((file, texts))
}

/// What a form may have, once each.
const FIELDS: [&str; 5] = ["file", "caption", "send", "clientMsgId", "replyTo"];

/// A field of a form that is text.
async fn text(mut field: Field<'_>, most: usize) -> Result<String, WireError> {
    let mut bytes = Vec::new();
    let broken = |_| bad_request("the form is malformed, or not complete");
    while let Some(chunk) = in_time(field.chunk()).await?.map_err(broken)? {
        if bytes.len() + chunk.len() > most {
            let message = format!("a field of the form has more than {most} bytes");
            return Err(WireError::new(ErrorCode::TooLarge, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|_| bad_request("a field of the form is not UTF-8"))
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
    let draft = Draft { content, media_id: Some(id), reply_to, client_msg_id };
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
        (status = 403, description = "Not a participant, or no such chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "Files are uploaded by multipart/form-data here.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file is larger than may be.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn ticket(
    State(app): State<App>,
    caller: Caller,
    PathId(chat): PathId<ChatId>,
    Unchecked(draft): Unchecked<UploadDraft>,
) -> Result<(StatusCode, Json<UploadTicket>), Problem> {
    member(&app, &caller, chat).await?;
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
        (status = 403, description = "Not a participant, or no such chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is no such upload of yours, or nothing has come yet.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 409, description = "Another call is about it, or it has just changed.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 413, description = "The file is larger than may be.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 415, description = "The file is of a type that is not taken.",
            body = ProblemBody, content_type = PROBLEM_JSON),
    )
)]
async fn complete(
    State(app): State<App>,
    caller: Caller,
    PathIds(chat, media): PathIds<ChatId, MediaId>,
    OptionalBody(request): OptionalBody<CompleteRequest>,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    member(&app, &caller, chat).await?;
    let media = app.library.complete(chat, caller.user_id, media).await?;
    let CompleteRequest { caption, send, client_msg_id, reply_to } = request;
    let texts = Texts { caption, send, client_msg_id, reply_to };
    Ok((StatusCode::CREATED, Json(sent(&app, &caller, chat, media, texts, true).await?)))
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
        (status = 403, description = "Not a participant, or no such chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The message has no file.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 416, description = "The file has no such part.",
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
    Ok((status, head, Bytes::from_stream(wanted.part(range).await?)).into_response())
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
        (status = 403, description = "Not a participant, or no such chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "There is none, or not yet.",
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
        (status = 403, description = "Neither its sender nor one who manages the chat.",
            body = ProblemBody, content_type = PROBLEM_JSON),
        (status = 404, description = "The message has had no file.",
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
