//! The form that a file comes in.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Multipart, Request, multipart::Field},
    http::header,
};
use futures::{Stream, StreamExt, stream};
use natter_protocol::{
    error::{ErrorCode, WireError},
    ids::{ChatId, MessageId},
    limits,
};

use super::writer;
use crate::{
    app::App,
    auth::Caller,
    media::{Incoming, Place, in_time},
    rest::problem::Problem,
    text::bad_request,
};

/// The texts of a form.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) caption: Option<String>,
    pub(super) send: bool,
    pub(super) client_msg_id: Option<String>,
    pub(super) reply_to: Option<MessageId>,
}

/// The form, and a place for its file; else why not, and what is to be read before that is said.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    chat: ChatId,
    request: Request,
) -> Result<(Multipart, Place), (Problem, Body)> {
    let place = async {
        writer(app, caller, chat).await?;
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
    form.map(|form| (form, place)).map_err(|_| (no_form(), Body::empty()))
}

fn no_form() -> Problem {
    let message = "the body must be Content-Type: multipart/form-data";
    WireError::new(ErrorCode::UnsupportedMedia, message).into()
}

/// Bytes of a form that may come without anything coming of them: its parser gathers them.
const GATHERED: usize = 1024 * 1024;

/// How much of a form has come since something came of it.
#[derive(Clone, Default)]
pub(super) struct Pace(Arc<AtomicUsize>);

impl Pace {
    fn goes_on(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Lets a reader that takes all that there is at once have one chunk at a time. The form's parser is
/// such a one: of a sender that is faster than the store, it would gather without end.
struct OneByOne<S> {
    stream: S,
    given: bool,
}

impl<S> OneByOne<S> {
    fn new(stream: S) -> Self {
        Self { stream, given: false }
    }
}

impl<S: Stream + Unpin> Stream for OneByOne<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if std::mem::take(&mut self.given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let next = self.stream.poll_next_unpin(context);
        self.given = matches!(next, Poll::Ready(Some(_)));
        next
    }
}

/// Ends a body of which too much comes without anything coming of it.
pub(super) fn paced(request: Request) -> (Request, Pace) {
    let pace = Pace::default();
    let gathered = pace.clone();
    let request = request.map(|body| {
        Body::from_stream(OneByOne::new(body.into_data_stream()).map(move |chunk| {
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

pub(super) fn lengths<E>(
    body: impl Stream<Item = Result<axum::body::Bytes, E>>,
) -> impl Stream<Item = usize> {
    body.map(|chunk| chunk.map_or(GATHERED, |chunk| chunk.len()))
}

/// What is left of a form.
pub(super) fn rest(form: Multipart, pace: Pace) -> impl Stream<Item = usize> {
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
pub(super) async fn read(
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

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, Result};
    use axum::extract::FromRequest;

    use super::*;

    const PIECE: usize = 64 * 1024;
    /// More than may be gathered, less than axum takes of a body by default.
    const PIECES: usize = 24;

    #[tokio::test]
    async fn a_sender_who_never_pauses_is_read_as_it_comes() -> Result<()> {
        let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
        let pieces = std::iter::once(head.as_bytes().to_vec())
            .chain(std::iter::repeat_n(vec![0; PIECE], PIECES))
            .chain(std::iter::once(b"\r\n--b--\r\n".to_vec()));
        let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, io::Error>)));
        let request = Request::builder().header("content-type", "multipart/form-data; boundary=b");
        let (request, pace) = paced(request.body(body)?);
        let mut form = Multipart::from_request(request, &()).await?;
        let mut field = form.next_field().await?.context("no field")?;
        let mut came = 0;
        while let Some(chunk) = field.chunk().await? {
            pace.goes_on();
            came += chunk.len();
        }
        assert_eq!(came, PIECE * PIECES);
        Ok(())
    }
}
