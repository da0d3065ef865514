//! What devices, and the webhook, are told: one shape of JSON, within a bound.
//!
//! ```json
//! {
//!   "kind": "message",
//!   "messageId": "0198…", "chatId": "0198…", "deviceId": "0198…",
//!   "title": "Ada", "body": "Hello", "sender": "0198…",
//!   "unread": 3, "sentAt": "2026-01-02T03:04:05.678Z"
//! }
//! ```
//!
//! `kind` is `message` or `test`, which has no `chatId`. `body` and `sender` are missing where the user
//! wants them hidden. A long `body` is cut, and ends with `…` then. Web Push encrypts exactly this; the
//! webhook has it as `notice`, beside the device's `token`; FCM has it as text in `data.notice`; APNs as
//! `notice`, where title and body are in `aps.alert` instead.

use std::borrow::Cow;

use natter_protocol::ids::{ChatId, DeviceId, MessageId, UserId};
use serde::Serialize;
use time::OffsetDateTime;

use super::{Kind, Notice};

/// Bytes of a title, as JSON writes them.
const TITLE: usize = 256;
/// Bytes of a body, at first.
const BODY: usize = 4096;

/// See the module's documentation.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shape<'a> {
    kind: Kind,
    message_id: MessageId,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_id: Option<ChatId>,
    device_id: DeviceId,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<UserId>,
    unread: u64,
    #[serde(with = "natter_protocol::timestamp")]
    sent_at: OffsetDateTime,
}

/// The lines that a notice shows, cut to what fits.
pub struct Lines<'a> {
    /// The first.
    pub title: &'a str,
    /// The rest.
    pub body: Option<&'a str>,
}

impl<'a> Shape<'a> {
    /// With the lines.
    pub fn with(notice: &Notice, lines: &Lines<'a>) -> Self {
        Self { title: Some(lines.title), body: lines.body, ..Self::without(notice) }
    }

    /// Where the lines are said elsewhere.
    pub fn without(notice: &Notice) -> Self {
        Self {
            kind: notice.kind,
            message_id: notice.message_id,
            chat_id: notice.chat_id,
            device_id: notice.device_id,
            title: None,
            body: None,
            sender: notice.sender,
            unread: notice.unread,
            sent_at: notice.sent_at,
        }
    }
}

/// A notice that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It has a time that the wire cannot write.
    #[error("cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It does not even fit without a body.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
}

/// The JSON that `write` makes of the notice's lines, of at most `bound` bytes: the body is cut until it
/// fits.
///
/// # Errors
/// When it does not even fit without one.
pub fn fit(
    notice: &Notice,
    bound: usize,
    write: impl Fn(&Lines<'_>) -> Result<Vec<u8>, serde_json::Error>,
) -> Result<Vec<u8>, PayloadError> {
    let title = cut(&notice.title, TITLE);
    let mut allowed = BODY;
    loop {
        let body = notice.body.as_deref().map(|body| cut(body, allowed));
        let lines = Lines { title: &title, body: body.as_deref() };
        let json = write(&lines)?;
        let excess = json.len().saturating_sub(bound);
        if excess == 0 {
            return Ok(json);
        }
        let written = body.as_deref().map_or(0, weight);
        if written == 0 {
            return Err(PayloadError::TooLong(bound));
        }
        // Each byte less of the body is at least one less in all.
        allowed = written.saturating_sub(excess);
    }
}

/// The beginning of `text` that takes at most `most` bytes in JSON, with an ellipsis where it was cut.
fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if weight(text) <= most {
        return Cow::Borrowed(text);
    }
    let Some(room) = most.checked_sub('…'.len_utf8()) else { return Cow::Borrowed("") };
    let mut taken = 0;
    let mut end = 0;
    for (at, c) in text.char_indices() {
        taken += weight_of(c);
        if taken > room {
            break;
        }
        end = at + c.len_utf8();
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// Bytes of a text as JSON writes it.
fn weight(text: &str) -> usize {
    text.chars().map(weight_of).sum()
}

fn weight_of(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        _ => c.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_weighs_what_json_makes_of_it() {
        for c in ['a', '"', '\\', '\n', '\u{7f}', '\0', '\u{1f}', 'ä', '…', '🎉', '\u{2028}'] {
            let json = serde_json::to_string(&c.to_string()).expect("a text is JSON");
            assert_eq!(weight_of(c), json.len() - 2, "{c:?}");
        }
    }

    #[test]
    fn what_is_cut_says_so_and_fits() {
        assert_eq!(cut("hello", 5), "hello");
        assert_eq!(cut("hello you", 8), "hello…");
        assert_eq!(cut("🎉🎉🎉", 8), "🎉…");
        assert_eq!(cut("🎉🎉🎉", 4), "…");
        assert_eq!(cut("hello", 2), "");
    }
}
