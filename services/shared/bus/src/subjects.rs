//! Names of subjects, streams and headers: the only place that spells them.
//!
//! | subject | holds |
//! |---|---|
//! | `in.<shard>.chat.<id>`, `in.<shard>.user.<id>` | entries of feeds, stored by `LOG_<shard>` |
//! | `out.<shard>.…` | the same, sent on live by `LIVE_<shard>` |
//! | `sig.<shard>.chat.<id>`, `sig.<shard>.user.<id>` | signals, not stored |
//! | `digest.<shard>` | where the shard's feeds stand |
//! | `dead.<shard>` | dead letters, stored by `DEAD` |
//! | `node.<id>`, `node.all` | what is asked of one node, and of every gateway |
//! | `kept.<shard>.…` | entries between a log and the one that takes its place, in `KEPT_<shard>` |
//! | `carried.<shard>.…` | the same on their way into that one while it is closed, which stores them as `in.<shard>.…` |
//! | `hook.<shard>.…` | entries that other people's servers are to be told of, in `HOOKS_<shard>` |
//! | `push.<shard>.<provider>` | notifications that are to be sent, in `PUSH_<shard>` |

use std::str::FromStr;

use natter_protocol::{
    feed::{Feed, FeedKind},
    ids::Shard,
    push::Provider,
};
use uuid::Uuid;

/// The publisher's id of a message; the log refuses a second one within its window.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// The broker stores a message only where this is the sequence before it.
pub const EXPECTED_LAST: &str = "Nats-Expected-Last-Sequence";
/// The log's sequence of a message.
pub const SEQUENCE: &str = "Nats-Sequence";
/// The sequence before it on the same subject; 0 when the live mirror no longer has it.
pub const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
/// When the log stored it, RFC 3339 with nanoseconds.
pub const TIME_STAMP: &str = "Nats-Time-Stamp";
/// W3C trace context; only sampled messages carry it.
pub const TRACEPARENT: &str = "traceparent";

/// The stream of dead letters.
pub const DEAD_STREAM: &str = "DEAD";
/// The subjects of dead letters.
pub const DEAD_SUBJECTS: &str = "dead.*";

/// The durable log of a shard.
#[must_use]
pub fn log_stream(shard: Shard) -> String {
    format!("LOG_{shard}")
}

/// The in-memory mirror of a shard's log that sends entries on.
#[must_use]
pub fn live_stream(shard: Shard) -> String {
    format!("LIVE_{shard}")
}

/// What a shard's log held that is yet to go into the log that takes its place.
#[must_use]
pub fn kept_stream(shard: Shard) -> String {
    format!("KEPT_{shard}")
}

/// All that is kept for a shard.
#[must_use]
pub fn kept_all(shard: Shard) -> String {
    format!("kept.{shard}.>")
}

/// Where what the log stores under `subject` is kept.
#[must_use]
pub fn kept(subject: &str) -> String {
    format!("kept{}", subject.strip_prefix("in").unwrap_or(subject))
}

/// Where the log stored what is kept under `subject`.
#[must_use]
pub fn unkept(subject: &str) -> String {
    format!("in{}", subject.strip_prefix("kept").unwrap_or(subject))
}

/// All that a shard's log takes while it is closed.
#[must_use]
pub fn carried_all(shard: Shard) -> String {
    format!("carried.{shard}.>")
}

/// Where what is to be stored under `subject` is published to while the log is closed.
#[must_use]
pub fn carried(subject: &str) -> String {
    format!("carried{}", subject.strip_prefix("in").unwrap_or(subject))
}

/// All that a shard's log stores.
#[must_use]
pub fn stored_all(shard: Shard) -> String {
    format!("in.{shard}.>")
}

/// All that a shard's log stores of chats.
#[must_use]
pub fn stored_chats(shard: Shard) -> String {
    format!("in.{shard}.chat.>")
}

/// The queue of a shard's notifications.
#[must_use]
pub fn push_stream(shard: Shard) -> String {
    format!("PUSH_{shard}")
}

/// All notifications of a shard.
#[must_use]
pub fn push_all(shard: Shard) -> String {
    format!("push.{shard}.>")
}

/// A shard's notifications by one push service.
#[must_use]
pub fn push(shard: Shard, provider: Provider) -> String {
    format!("push.{shard}.{provider}")
}

/// What other people's servers are to be told of a shard.
#[must_use]
pub fn hook_stream(shard: Shard) -> String {
    format!("HOOKS_{shard}")
}

/// All of it.
#[must_use]
pub fn hooks_all(shard: Shard) -> String {
    format!("hook.{shard}.>")
}

/// A feed's part of it.
#[must_use]
pub fn hook(feed: Feed) -> String {
    feed_subject("hook", feed)
}

/// All that a shard's live mirror sends on.
#[must_use]
pub fn live_all(shard: Shard) -> String {
    format!("out.{shard}.>")
}

/// Where a feed's entries are published to and stored under.
#[must_use]
pub fn stored(feed: Feed) -> String {
    feed_subject("in", feed)
}

/// Where a feed's entries are heard live.
#[must_use]
pub fn live(feed: Feed) -> String {
    feed_subject("out", feed)
}

/// Where a feed's signals are published and heard.
#[must_use]
pub fn signal(feed: Feed) -> String {
    feed_subject("sig", feed)
}

/// Where a shard's digests are published and heard.
#[must_use]
pub fn digest(shard: Shard) -> String {
    format!("digest.{shard}")
}

/// Where a node hears what others ask of it.
#[must_use]
pub fn node(node: Uuid) -> String {
    format!("node.{}", node.simple())
}

/// Where every gateway hears what an operator asks of all.
pub const NODES: &str = "node.all";

/// Where a shard's dead letters are stored.
#[must_use]
pub fn dead(shard: Shard) -> String {
    format!("dead.{shard}")
}

/// The feed of an `in.…` subject; `None` for any other.
#[must_use]
pub fn parse_stored(subject: &str) -> Option<Feed> {
    parse_feed("in", subject)
}

/// The feed of an `out.…` subject; `None` for any other.
#[must_use]
pub fn parse_live(subject: &str) -> Option<Feed> {
    parse_feed("out", subject)
}

/// The feed of a `sig.…` subject; `None` for any other.
#[must_use]
pub fn parse_signal(subject: &str) -> Option<Feed> {
    parse_feed("sig", subject)
}

/// The feed of a `hook.…` subject; `None` for any other.
#[must_use]
pub fn parse_hook(subject: &str) -> Option<Feed> {
    parse_feed("hook", subject)
}

/// The shard of a `dead.…` subject; `None` for any other.
#[must_use]
pub fn parse_dead(subject: &str) -> Option<Shard> {
    parse_number(subject.strip_prefix("dead.")?)
}

/// The shard of a `digest.…` subject; `None` for any other.
#[must_use]
pub fn parse_digest(subject: &str) -> Option<Shard> {
    parse_number(subject.strip_prefix("digest.")?)
}

fn feed_subject(prefix: &str, feed: Feed) -> String {
    let kind = match feed.kind {
        FeedKind::Chat => "chat",
        FeedKind::User => "user",
    };
    format!("{prefix}.{}.{kind}.{}", feed.shard, feed.id.as_hyphenated())
}

fn parse_feed(prefix: &str, subject: &str) -> Option<Feed> {
    let rest = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    let mut tokens = rest.split('.');
    let shard = parse_number(tokens.next()?)?;
    let kind = match tokens.next()? {
        "chat" => FeedKind::Chat,
        "user" => FeedKind::User,
        _ => return None,
    };
    let text = tokens.next()?;
    let id = Uuid::try_parse(text).ok()?;
    // Another spelling of the same id is another subject, so it is no feed's.
    let canonical = id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text;
    (canonical && tokens.next().is_none()).then_some(Feed { shard, kind, id })
}

/// Only the canonical spelling: `+1` and `01` name other subjects.
fn parse_number<T: FromStr + ToString>(text: &str) -> Option<T> {
    let number: T = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::{ChatId, UserId};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn feeds_survive_the_way_over_their_subjects() {
        let chat = Feed::chat(3, ChatId::generate());
        let user = Feed::user(12, UserId::generate());
        for feed in [chat, user] {
            assert_eq!(parse_stored(&stored(feed)), Some(feed));
            assert_eq!(parse_live(&live(feed)), Some(feed));
            assert_eq!(parse_signal(&signal(feed)), Some(feed));
            assert_eq!(parse_hook(&hook(feed)), Some(feed));
            assert_eq!(parse_live(&stored(feed)), None);
        }
        assert_eq!(stored(chat), format!("in.3.chat.{}", chat.id));
        assert_eq!(kept(&stored(chat)), format!("kept.3.chat.{}", chat.id));
        assert_eq!(unkept(&kept(&stored(chat))), stored(chat));
        assert_eq!(parse_digest(&digest(7)), Some(7));
    }

    #[test]
    fn other_spellings_are_no_feeds() {
        let id = Uuid::now_v7();
        for bad in [
            String::new(),
            "in.".into(),
            format!("in.01.chat.{id}"),
            format!("in.+1.chat.{id}"),
            format!("in.1.room.{id}"),
            format!("in.1.chat.{}", id.simple()),
            format!("in.1.chat.{}", id.to_string().to_uppercase()),
            format!("in.1.chat.{id}.more"),
            format!("in.70000.chat.{id}"),
            format!("inn.1.chat.{id}"),
            "in.1.chat".into(),
        ] {
            assert_eq!(parse_stored(&bad), None, "{bad}");
        }
        assert_eq!(parse_digest("digest.x"), None);
        assert_eq!(parse_digest("digest.00"), None);
    }

    proptest! {
        #[test]
        fn whatever_parses_is_spelled_as_it_was_read(subject in "(in|out)\\.[0-9+]{1,6}\\.(chat|user)\\.[0-9a-fA-F-]{30,40}(\\.x)?") {
            if let Some(feed) = parse_stored(&subject) {
                prop_assert_eq!(stored(feed), subject);
            }
        }
    }
}
