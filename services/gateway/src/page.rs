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

const FILES: [(&str, &str, &str); 29] = [
    file!("/", "index.html", HTML),
    file!("/style.css", "style.css", STYLE),
    file!("/app.js", "app.js", SCRIPT),
    file!("/conversation.js", "conversation.js", SCRIPT),
    file!("/details.js", "details.js", SCRIPT),
    file!("/keeping.js", "keeping.js", SCRIPT),
    file!("/exports.js", "exports.js", SCRIPT),
    file!("/account.js", "account.js", SCRIPT),
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
    file!("/rights.js", "rights.js", SCRIPT),
    file!("/notifications.js", "notifications.js", SCRIPT),
    file!("/alerts.js", "alerts.js", SCRIPT),
    // At the root: its scope is the page.
    file!("/sw.js", "sw.js", SCRIPT),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> &'static str {
        let found = FILES.into_iter().find(|(path, ..)| *path == name);
        found.map_or_else(|| panic!("{name} is not served"), |(.., text)| text)
    }

    /// What stands between `before` and `after`, everywhere.
    fn between<'a>(text: &'a str, before: &str, after: char) -> Vec<&'a str> {
        let found = text.split(before).skip(1).filter_map(|rest| rest.split_once(after));
        found.map(|(inside, _)| inside).collect()
    }

    #[test]
    fn what_a_file_of_it_names_is_there() {
        let html = text("/");
        let mut ids = between(html, " id=\"", '"');
        for named in between(html, "href=\"#", '"').into_iter().filter(|id| !id.is_empty()) {
            assert!(ids.contains(&named), "#{named}");
        }
        for file in ["href=\"/", "src=\"/"].into_iter().flat_map(|part| between(html, part, '"')) {
            assert!(file.starts_with("v1/") || !text(&format!("/{file}")).is_empty());
        }
        for labels in [" for=\"", "aria-labelledby=\"", "aria-describedby=\"", "aria-controls=\""] {
            for named in between(html, labels, '"') {
                assert!(ids.contains(&named), "{labels}{named}");
            }
        }
        for (path, kind, script) in FILES {
            if kind != SCRIPT {
                continue;
            }
            for imported in between(script, "from './", '\'') {
                text(&format!("/{imported}"));
            }
            for named in between(script, "$('", '\'') {
                assert!(ids.contains(&named), "{path}: #{named}");
            }
        }
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "an id stands twice");
    }

    #[test]
    fn what_is_said_is_text_and_nothing_is_inline() {
        for (path, kind, text) in FILES {
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "DOMParser",
                "createContextualFragment",
                "srcdoc",
                "eval(",
                "new Function",
                "javascript:",
            ] {
                assert!(!text.contains(markup), "{path}: {markup}");
            }
            if kind == HTML {
                assert!(!text.contains(" style=") && !text.contains("<style"), "{path}");
                assert_eq!(
                    text.matches("<script").count(),
                    text.matches("<script type=\"module\" src=").count()
                );
                assert!(!text.contains(" onclick=") && !text.contains(" onload="), "{path}");
            }
        }
    }

    #[test]
    fn whoever_listens_is_told_what_buttons_and_inputs_are() {
        let html = text("/");
        for button in html.split("<button").skip(1) {
            let (tag, rest) = button.split_once('>').unwrap_or((button, ""));
            let words = rest.split("</button>").next().unwrap_or_default();
            // What is set later has an id to be found by.
            let told = tag.contains("aria-label=") || !words.trim_start().starts_with('<');
            assert!(told || tag.contains("id=\"about-remove\""), "<button{tag}>");
            assert!(tag.contains("type=\""), "<button{tag}>");
        }
        for dialog in html.split("<dialog").skip(1) {
            let tag = dialog.split('>').next().unwrap_or_default();
            assert!(tag.contains("aria-labelledby="), "<dialog{tag}>");
        }
    }
}
