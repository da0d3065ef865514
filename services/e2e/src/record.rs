//! Everything that one connection received.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use natter_protocol::{
    error::WireError,
    ids::{ChatId, Seq, UserId},
};
use serde_json::Value;
use tokio::time::Instant;

/// Frames that a connection's record holds at most; the connection is given up beyond.
const FRAMES: usize = 100_000;

/// Frames that a failure shows, the newest.
const SHOWN: usize = 60;

/// Characters that a failure shows of a frame.
const SHOWN_CHARS: usize = 400;

/// What came, in order.
#[derive(Debug)]
pub struct Record {
    began: Instant,
    frames: Vec<Frame>,
    closed: Option<Closed>,
}

/// One frame.
#[derive(Debug)]
struct Frame {
    after: Duration,
    /// A story has waited for it and got it.
    taken: bool,
    content: Content,
}

/// What a frame said.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Something happened.
    Event {
        /// What kind of thing.
        event: String,
        /// What exactly.
        data: Value,
        /// Where the connection stands with it, where it is on a feed.
        cursor: Option<String>,
    },
    /// The reply to a request.
    Reply {
        /// The request's number.
        id: u64,
        /// What it answers.
        answer: Result<Value, WireError>,
        /// Where the connection stands with it, where it is on a feed.
        cursor: Option<String>,
    },
}

/// An entry of a chat's feed, as a connection got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// The chat.
    pub chat: ChatId,
    /// Its place.
    pub seq: Seq,
    /// Where the connection stood then.
    pub cursor: String,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The close code; none when the connection was cut without a close frame.
    pub code: Option<u16>,
    /// The server's words, or what broke.
    pub reason: String,
    /// When this was seen here.
    pub at: Instant,
}

/// A point in a record, between two frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Record {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), frames: Vec::new(), closed: None }
    }

    /// Adds a text frame.
    ///
    /// # Errors
    /// When it is none that `wire.md` knows, or the record is full.
    pub(crate) fn push(&mut self, text: &str) -> Result<()> {
        self.add(Content::read(text).with_context(|| format!("not a frame: {text}"))?)
    }

    /// Adds what a frame said.
    ///
    /// # Errors
    /// When the record is full.
    pub(crate) fn add(&mut self, content: Content) -> Result<()> {
        ensure!(self.frames.len() < FRAMES, "more than {FRAMES} frames came");
        self.frames.push(Frame { after: self.began.elapsed(), taken: false, content });
        Ok(())
    }

    pub(crate) fn close(&mut self, closed: Closed) {
        self.closed.get_or_insert(closed);
    }

    /// How the connection ended, when it has.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Here and now.
    pub fn mark(&self) -> Mark {
        Mark(self.frames.len())
    }

    /// The data of the events of this name since `mark`, taken or not.
    pub fn since(&self, mark: Mark, name: &str) -> Vec<Value> {
        let frames = self.frames.get(mark.0..).unwrap_or_default();
        frames.iter().filter_map(|frame| frame.content.event(name).cloned()).collect()
    }

    /// The data of all events of this name, taken or not.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.since(Mark(0), name)
    }

    /// Whether the reply to request `id` has come, taken or not.
    pub fn replied(&self, id: u64) -> bool {
        self.frames.iter().any(|frame| frame.content.reply(id).is_some())
    }

    /// All entries of chats' feeds, events and replies, in order.
    ///
    /// # Errors
    /// When one is not whole.
    pub fn entries(&self, user: UserId) -> Result<Vec<Got>> {
        let mut got = Vec::new();
        for Frame { content, .. } in &self.frames {
            if let Some((chat, Step::Entry { seq, .. })) = step(content, user)? {
                let cursor = content.cursor().context("an entry without a cursor")?.to_owned();
                got.push(Got { chat, seq, cursor });
            }
        }
        Ok(got)
    }

    /// The newest cursor.
    pub fn cursor(&self) -> Option<String> {
        self.frames.iter().rev().find_map(|frame| {
            let told = |data: &Value| data["cursor"].as_str().map(str::to_owned);
            let content = &frame.content;
            let of_event = content.event("ready").or(content.event("resume_done"));
            content.cursor().map(str::to_owned).or_else(|| of_event.and_then(told))
        })
    }

    /// Takes the oldest frame that `pick` makes something of and that has not been taken before.
    pub(crate) fn take<T>(&mut self, pick: impl Fn(&Content) -> Option<T>) -> Option<T> {
        self.frames.iter_mut().filter(|frame| !frame.taken).find_map(|frame| {
            let picked = pick(&frame.content)?;
            frame.taken = true;
            Some(picked)
        })
    }

    /// That every chat's feed came in order, without a hole, and nothing of it twice. The
    /// replies to what this connection sent stand in the feed like everything else. A client
    /// that comes back or moves by itself is then told by a server that need not know what was
    /// before: there an entry may name none, as may the first one live after what was missed.
    ///
    /// # Errors
    /// When not, saying where.
    pub fn check_feeds(&self, user: UserId) -> Result<()> {
        let mut chains: HashMap<ChatId, Seq> = HashMap::new();
        let mut roams = false;
        let mut replayed: HashSet<ChatId> = HashSet::new();
        for Frame { after, content, .. } in &self.frames {
            roams |= content.event("connect").is_some();
            if content.event("resume_done").is_some() {
                replayed.extend(chains.keys());
            }
            let (chat, seq, prev) = match step(content, user)? {
                None => continue,
                Some((chat, Step::Anew)) => {
                    chains.remove(&chat);
                    continue;
                }
                Some((chat, Step::Entry { seq, prev })) => (chat, seq, prev),
            };
            ensure!(prev < seq, "chat {chat}: {seq} names {prev} before it ({after:?})");
            if let Some(last) = chains.insert(chat, seq) {
                ensure!(seq > last, "chat {chat}: {seq} after {last} ({after:?})");
                let unknown = prev == 0 && (roams || replayed.contains(&chat));
                let fits = prev == last || unknown;
                ensure!(fits, "chat {chat}: {seq} names {prev}, not {last} ({after:?})");
                replayed.remove(&chat);
            }
        }
        Ok(())
    }

    /// Why a story failed, with everything that came.
    pub(crate) fn failure(&self, label: &str, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{label}: {what}; it saw:\n{self}")
    }
}

/// What a frame does to the chain of a chat's feed.
enum Step {
    /// An entry of the feed.
    Entry { seq: Seq, prev: Seq },
    /// The user's membership starts again: what went by meanwhile is not theirs.
    Anew,
}

fn step(content: &Content, user: UserId) -> Result<Option<(ChatId, Step)>> {
    let (chat, entry) = match content {
        Content::Event { event, data, .. } => match event.as_str() {
            "message" | "system" | "message_edited" | "message_deleted" | "reaction"
            | "messages_expired" => (&data["chatId"], data),
            "chat_added" | "chat_removed" => {
                return Ok(Some((serde_json::from_value(data["id"].clone())?, Step::Anew)));
            }
            _ => return Ok(None),
        },
        Content::Reply { answer: Ok(data), .. } => {
            if data.get("clientMsgId").is_none() || data["duplicate"] == true {
                return Ok(None);
            }
            (&data["chatId"], data)
        }
        Content::Reply { .. } => return Ok(None),
    };
    let number = |name: &str| {
        entry[name].as_u64().with_context(|| format!("{user} got an entry without {name}: {entry}"))
    };
    let step = Step::Entry { seq: number("seq")?, prev: number("prevSeq")? };
    Ok(Some((serde_json::from_value(chat.clone())?, step)))
}

impl Content {
    fn read(text: &str) -> Result<Self> {
        let mut frame: Value = serde_json::from_str(text)?;
        let data = frame.get_mut("data").map(Value::take);
        let cursor = frame.get("cursor").and_then(Value::as_str).map(str::to_owned);
        if let Some(event) = frame.get("event") {
            let event = event.as_str().context("the event is no string")?.to_owned();
            return Ok(Self::Event { event, data: data.unwrap_or_default(), cursor });
        }
        let id = frame.get("reply").and_then(Value::as_u64).context("neither event nor reply")?;
        let answer = match (data, frame.get_mut("error").map(Value::take)) {
            (Some(data), None) => Ok(data),
            (None, Some(error)) => Err(serde_json::from_value(error).context("the error")?),
            _ => bail!("a reply has either data or an error"),
        };
        Ok(Self::Reply { id, answer, cursor })
    }

    /// The data, where it is an event of this name.
    pub fn event(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Event { event, data, .. } if event == name => Some(data),
            _ => None,
        }
    }

    /// The cursor beside what it carries.
    pub fn cursor(&self) -> Option<&str> {
        match self {
            Self::Event { cursor, .. } | Self::Reply { cursor, .. } => cursor.as_deref(),
        }
    }

    /// The answer, where it is the reply to request `id`.
    pub fn reply(&self, id: u64) -> Option<&Result<Value, WireError>> {
        match self {
            Self::Reply { id: replied, answer, .. } if *replied == id => Some(answer),
            _ => None,
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.frames.len().saturating_sub(SHOWN);
        if skipped > 0 {
            writeln!(formatter, "  … {skipped} frames before …")?;
        }
        for Frame { after, content, .. } in &self.frames[skipped..] {
            let text = match content {
                Content::Event { event, data, .. } => format!("{event} {data}"),
                Content::Reply { id, answer: Ok(data), .. } => format!("reply {id}: {data}"),
                Content::Reply { id, answer: Err(error), .. } => format!("reply {id}: {error:?}"),
            };
            let text: String = text.chars().take(SHOWN_CHARS).collect();
            writeln!(formatter, "  {:>7.3} s {text}", after.as_secs_f32())?;
        }
        match &self.closed {
            Some(closed) => write!(formatter, "  and was closed: {closed}"),
            None => write!(formatter, "  and is open"),
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(formatter, "{code} {}", self.reason),
            None => write!(formatter, "cut ({})", self.reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "01890000-0000-7000-8000-000000000001";

    fn record(entries: &[(&str, Seq, Seq)]) -> Result<Record> {
        let mut record = Record::new();
        for (kind, seq, prev) in entries {
            let data =
                format!(r#"{{"chatId":"{CHAT}","id":"{CHAT}","seq":{seq},"prevSeq":{prev}}}"#);
            record.push(&match *kind {
                "reply" => {
                    let data = data.replace("{\"chatId", "{\"clientMsgId\":\"x\",\"chatId");
                    format!(r#"{{"reply":1,"data":{data}}}"#)
                }
                event => format!(r#"{{"event":"{event}","data":{data}}}"#),
            })?;
        }
        Ok(record)
    }

    fn whole(entries: &[(&str, Seq, Seq)]) -> Result<bool> {
        Ok(record(entries)?.check_feeds(UserId::generate()).is_ok())
    }

    #[test]
    fn a_feed_is_whole_or_not() -> Result<()> {
        assert!(whole(&[
            ("system", 4, 1),
            ("message", 7, 4),
            ("reply", 9, 7),
            ("message", 10, 9)
        ])?);
        assert!(whole(&[("message", 7, 4), ("chat_added", 0, 0), ("message", 12, 11)])?);
        assert!(!whole(&[("message", 7, 4), ("message", 9, 8)])?, "a hole");
        assert!(!whole(&[("message", 7, 4), ("message", 7, 4)])?, "twice");
        assert!(!whole(&[("message", 7, 4), ("message", 9, 0)])?, "not known");
        assert!(whole(&[("connect", 0, 0), ("message", 7, 4), ("message", 9, 0)])?);
        assert!(!whole(&[("connect", 0, 0), ("message", 7, 4), ("message", 9, 8)])?, "a hole");
        assert!(!whole(&[("reply", 7, 4), ("message", 7, 4)])?, "its own as well");
        assert!(!whole(&[("message", 7, 4), ("message", 5, 4)])?, "backwards");
        Ok(())
    }

    #[test]
    fn what_was_taken_is_not_taken_again() -> Result<()> {
        let mut record = record(&[("message", 1, 0), ("message", 2, 1)])?;
        let next = |content: &Content| content.event("message").map(|data| data["seq"].as_u64());
        assert_eq!(record.take(next), Some(Some(1)));
        assert_eq!(record.take(next), Some(Some(2)));
        assert_eq!(record.take(next), None);
        assert_eq!(record.events("message").len(), 2);
        Ok(())
    }
}
