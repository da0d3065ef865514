//! What was read from the log, as rows for Postgres; poison is told apart here.

use natter_bus::Raw;
use natter_protocol::feed::{Entry, Event, FeedKind};
use natter_store::{Row, RowKind};

/// An entry on its way from the log to Postgres.
#[derive(Debug)]
pub(crate) struct Item {
    /// As the log holds it.
    pub(crate) raw: Raw,
    /// What to write; none when its subject names no feed.
    pub(crate) row: Option<Row>,
    /// Why it cannot be written as it is; then it must be a dead letter before its row, a void
    /// one, is written.
    pub(crate) poison: Option<String>,
}

impl Item {
    /// Reads an entry; what cannot be read is poison.
    pub(crate) fn new(raw: Raw) -> Self {
        let mut item = Self { raw, row: None, poison: None };
        match kind(&item.raw) {
            Ok(kind) => item.set(kind),
            Err(reason) => item.condemn(reason),
        }
        item
    }

    /// Makes it poison: a void row keeps its place in the feed.
    pub(crate) fn condemn(&mut self, reason: String) {
        self.set(RowKind::Void { reason: reason.clone() });
        self.poison = Some(reason);
    }

    /// Whether all that is left of it is its place.
    pub(crate) fn is_void(&self) -> bool {
        !matches!(&self.row, Some(row) if !matches!(row.kind, RowKind::Void { .. }))
    }

    /// Gives up its row: not even a void one can be written.
    pub(crate) fn drop_row(&mut self) {
        self.row = None;
    }

    fn set(&mut self, kind: RowKind) {
        let Raw { feed, seq, at, .. } = self.raw;
        self.row = feed.map(|feed| Row { feed, seq, at, kind });
    }
}

/// The row of an entry that this version can read.
///
/// # Errors
/// Why it cannot, without a word of the entry.
pub fn row(raw: &Raw) -> Result<Row, String> {
    let kind = kind(raw)?;
    let Raw { feed, seq, at, .. } = *raw;
    let feed = feed.ok_or_else(|| NO_FEED.to_owned())?;
    Ok(Row { feed, seq, at, kind })
}

const NO_FEED: &str = "the subject names no feed";

/// Reasons never quote the entry: they are logged.
fn kind(raw: &Raw) -> Result<RowKind, String> {
    let Some(feed) = raw.feed else { return Err(NO_FEED.to_owned()) };
    // An event that only a newer version knows ends here too: nothing of it is lost, since its
    // dead letter can be replayed by that version.
    let entry: Entry = serde_json::from_slice(&raw.body).map_err(|error| {
        format!("no entry: {:?} at {}:{}", error.classify(), error.line(), error.column())
    })?;
    match (feed.kind, entry.event) {
        (FeedKind::Chat, Event::Message(message)) => Ok(RowKind::Message(message)),
        (FeedKind::Chat, Event::System(event)) => Ok(RowKind::System(event)),
        (FeedKind::Chat, Event::Edited(edited)) => Ok(RowKind::Edit(edited)),
        (FeedKind::Chat, Event::Deleted(deleted)) => Ok(RowKind::Delete(deleted)),
        (FeedKind::Chat, Event::Reacted(reacted)) => Ok(RowKind::Reaction(reacted)),
        (FeedKind::Chat, Event::Expired(expired)) => Ok(RowKind::Expired(expired)),
        (FeedKind::User, Event::Read(mark)) => Ok(RowKind::Read(mark)),
        (FeedKind::User, Event::Delivered(mark)) => Ok(RowKind::Delivered(mark)),
        (
            FeedKind::User,
            Event::ChatAdded(_)
            | Event::ChatRemoved(_)
            | Event::DeviceRevoked(_)
            | Event::DeviceAdded(_)
            | Event::ProfileChanged(_)
            | Event::ChatUpdated(_)
            | Event::Blocking(_)
            | Event::Disabled,
        ) => Ok(RowKind::UserEvent),
        (FeedKind::Chat, _) => Err("an event of users on a chat's feed".to_owned()),
        (FeedKind::User, _) => Err("an event of chats on a user's feed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::{
        feed::{Feed, ProfileChanged},
        ids::{ChatId, UserId},
    };
    use time::OffsetDateTime;

    use super::*;

    fn raw(feed: Option<Feed>, body: &[u8]) -> Raw {
        Raw {
            subject: String::new(),
            feed,
            seq: 1,
            at: OffsetDateTime::UNIX_EPOCH,
            body: body.to_vec().into(),
            traceparent: None,
            msg_id: None,
        }
    }

    #[test]
    fn only_entries_where_they_belong_become_rows() -> anyhow::Result<()> {
        let renamed = Event::ProfileChanged(ProfileChanged { name: "Grace".to_owned() });
        let body = serde_json::to_vec(&Entry { origin: None, event: renamed })?;
        let (user, chat) = (Feed::user(0, UserId::generate()), Feed::chat(0, ChatId::generate()));
        let item = Item::new(raw(Some(user), &body));
        assert!(item.poison.is_none());
        assert!(matches!(item.row, Some(Row { kind: RowKind::UserEvent, .. })));

        for (feed, body) in [
            (Some(chat), body.as_slice()),
            (Some(chat), b"{{ secret".as_slice()),
            (Some(chat), br#"{"event":{"of_the_future":{"text":"secret"}}}"#.as_slice()),
            (Some(chat), b"".as_slice()),
            (None, body.as_slice()),
        ] {
            let item = Item::new(raw(feed, body));
            let reason = item.poison.unwrap_or_default();
            assert!(!reason.is_empty() && !reason.contains("secret"), "{reason}");
            assert!(!reason.contains("future"), "{reason}");
            assert_eq!(item.row.is_some(), feed.is_some());
        }
        Ok(())
    }
}
