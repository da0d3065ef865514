//! What a notification says, as much of it as its user wants to be shown.

use std::time::Duration;

use natter_protocol::{
    media::{Media, MediaKind},
    notify::Preview,
};
use natter_store::{About, ToSend};

use crate::providers::{Kind, Notice};

/// Characters of a text that are shown.
const CHARS: usize = 240;

/// The notice, which is shown for `max_age` after the message was sent.
#[must_use]
pub fn notice(push: &ToSend, max_age: Duration) -> Notice {
    let sent_at = push.about.as_ref().map_or(push.queued_at, |about| about.sent_at);
    let mut notice = Notice {
        message_id: push.message,
        chat_id: None,
        device_id: push.device,
        kind: Kind::Test,
        title: "Natter".to_owned(),
        body: Some("Notifications reach this device.".to_owned()),
        sender: None,
        unread: 0,
        sent_at,
        expires_at: sent_at + max_age,
    };
    if let Some(about) = &push.about {
        notice.kind = Kind::Message;
        notice.chat_id = Some(about.chat);
        notice.unread = about.unread;
        (notice.title, notice.body) = lines(about);
        notice.sender = (about.preview != Preview::None).then_some(about.sender);
    }
    notice
}

/// The first line, and what is below it.
fn lines(about: &About) -> (String, Option<String>) {
    let About { sender_name: name, .. } = about;
    let group = about.title.as_ref().filter(|_| about.is_group);
    match (about.preview, group) {
        (Preview::None, _) => ("New message".to_owned(), None),
        (Preview::Sender, None) => (name.clone(), None),
        (Preview::Sender, Some(title)) => (format!("{name} in {title}"), None),
        (Preview::Full, None) => (name.clone(), Some(text(about))),
        (Preview::Full, Some(title)) => (title.clone(), Some(format!("{name}: {}", text(about)))),
    }
}

fn text(about: &About) -> String {
    if about.content.is_empty() {
        return about.media.as_ref().map_or_else(String::new, of_file);
    }
    let mut text: String = about.content.chars().take(CHARS).collect();
    if text.len() < about.content.len() {
        text.push('…');
    }
    text
}

fn of_file(media: &Media) -> String {
    match media.kind {
        MediaKind::Image => "Picture".to_owned(),
        MediaKind::Video => "Video".to_owned(),
        MediaKind::Audio => "Sound".to_owned(),
        MediaKind::Document => media.name.chars().take(CHARS).collect(),
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::{ChatId, UserId};
    use time::OffsetDateTime;

    use super::*;

    fn about(preview: Preview, title: Option<&str>) -> About {
        About {
            chat: ChatId::generate(),
            title: title.map(ToOwned::to_owned),
            is_group: title.is_some(),
            sender: UserId::generate(),
            sender_name: "Ada".to_owned(),
            content: "Hello".to_owned(),
            media: None,
            sent_at: OffsetDateTime::UNIX_EPOCH,
            preview,
            unread: 3,
        }
    }

    #[test]
    fn nothing_is_shown_that_the_user_does_not_want_shown() {
        let said = |preview, title| lines(&about(preview, title));
        let line =
            |title: &str, body: Option<&str>| (title.to_owned(), body.map(ToOwned::to_owned));
        assert_eq!(said(Preview::Full, None), line("Ada", Some("Hello")));
        assert_eq!(said(Preview::Full, Some("Sailing")), line("Sailing", Some("Ada: Hello")));
        assert_eq!(said(Preview::Sender, None), line("Ada", None));
        assert_eq!(said(Preview::Sender, Some("Sailing")), line("Ada in Sailing", None));
        assert_eq!(said(Preview::None, Some("Sailing")), line("New message", None));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let long = About { content: "é".repeat(CHARS + 1), ..about(Preview::Full, None) };
        let (_, body) = lines(&long);
        assert_eq!(body.map(|body| body.chars().count()), Some(CHARS + 1));
    }
}
