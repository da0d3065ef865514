//! The page at `/`: a small client to see Natter with, and the reference for others. No build
//! step; it is part of the binary.

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    response::IntoResponse,
    routing::get,
};

/// Everything from this origin, nothing inline, nothing framed: markup that slipped in could do
/// nothing. Files of messages need a token, so the page fetches them and shows what it has: `blob:`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data: blob:; media-src blob:; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'";

pub(crate) const HTML: &str = "text/html; charset=utf-8";
pub(crate) const SCRIPT: &str = "text/javascript; charset=utf-8";
pub(crate) const STYLE: &str = "text/css; charset=utf-8";

macro_rules! file {
    ($path:literal, $name:literal, $kind:expr) => {
        ($path, $kind, include_str!(concat!("../page/", $name)))
    };
}

const FILES: [(&str, &str, &str); 22] = [
    file!("/", "index.html", HTML),
    file!("/style.css", "style.css", STYLE),
    file!("/app.js", "app.js", SCRIPT),
    file!("/conversation.js", "conversation.js", SCRIPT),
    file!("/details.js", "details.js", SCRIPT),
    file!("/message.js", "message.js", SCRIPT),
    file!("/mentions.js", "mentions.js", SCRIPT),
    file!("/menu.js", "menu.js", SCRIPT),
    file!("/found.js", "found.js", SCRIPT),
    file!("/composer.js", "composer.js", SCRIPT),
    file!("/attachments.js", "attachments.js", SCRIPT),
    file!("/pictures.js", "pictures.js", SCRIPT),
    file!("/view.js", "view.js", SCRIPT),
    file!("/media.js", "media.js", SCRIPT),
    file!("/natter.js", "natter.js", SCRIPT),
    file!("/session.js", "session.js", SCRIPT),
    file!("/connection.js", "connection.js", SCRIPT),
    file!("/timeline.js", "timeline.js", SCRIPT),
    file!("/groups.js", "groups.js", SCRIPT),
    file!("/receipts.js", "receipts.js", SCRIPT),
    file!("/outbox.js", "outbox.js", SCRIPT),
    file!("/transfer.js", "transfer.js", SCRIPT),
];

/// The page's routes.
pub fn router() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        router.route(path, get(move || async move { (headers(kind), text).into_response() }))
    })
}

/// What a file of a page is served with.
pub(crate) fn headers(kind: &'static str) -> [(HeaderName, HeaderValue); 5] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // A node of the next version may answer the next request: ask each time.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ]
}
