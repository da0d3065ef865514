//! What was seen of a cluster from outside: what was asked of it, what it delivered to each
//! device, and what it says happened.

use natter_protocol::ids::{ChatId, MessageId, Seq, UserId};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A message as far as it matters here: its content only by a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Text {
    /// Who sent it.
    pub sender: UserId,
    /// The sender's own id for it.
    pub client_msg_id: String,
    /// Of its content.
    pub digest: u64,
}

/// A digest of a content.
#[must_use]
pub fn digest(content: &str) -> u64 {
    let hash = Sha256::digest(content.as_bytes());
    hash.iter().take(8).fold(0, |digest, byte| digest << 8 | u64::from(*byte))
}

/// One attempt to send a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// To which chat.
    pub chat: ChatId,
    /// What.
    pub text: Text,
    /// When it was asked for, in microseconds of the run.
    pub invoked: u64,
    /// Its turn on a connection; none for one by REST.
    pub turn: Option<Turn>,
    /// What came of it.
    pub outcome: Outcome,
}

/// A place among the requests of one connection, which go out one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Which connection of the run.
    pub connection: u64,
    /// The request's number there; they grow.
    pub number: u64,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The cluster said that it is stored.
    Acked {
        /// Under this id,
        id: MessageId,
        /// at this place;
        seq: Seq,
        /// that it had been before.
        duplicate: bool,
        /// When that was said, in microseconds of the run.
        at: u64,
    },
    /// The cluster said that it is not.
    Failed,
    /// Nobody knows: the connection went, or no answer has come.
    Unknown,
}

/// Something that was asked for, and is no sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What.
    pub kind: Kind,
    /// By whom.
    pub user: UserId,
    /// Where, if in a chat.
    pub chat: Option<ChatId>,
    /// When, in microseconds of the run.
    pub invoked: u64,
    /// What came of it. A join, a leave or a revocation is tried again while it gets no answer;
    /// this is what came of it in the end.
    pub told: Told,
}

/// What an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A user joins a chat.
    Join,
    /// A user leaves a chat.
    Leave,
    /// A device starts or stops to type.
    Typing,
    /// A device comes back with a cursor.
    Resume,
    /// A device loses its right to be here.
    Revoke,
}

/// What came of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was done.
    Ok,
    /// It was refused, with this code.
    Failed(String),
    /// Nobody knows: the connection went, or no answer has come.
    Unknown,
}

/// An entry of a chat's feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub seq: Seq,
    /// The place of the one before, as the server said; 0 when it did not.
    pub prev: Seq,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A message; as a device's own reply without its content, which it knows.
    Message {
        /// Its id.
        id: MessageId,
        /// The sender's id for it, …
        text: Text,
    },
    /// The chat was made, with these participants, by its maker's account.
    Created,
    /// From here on the user is a participant.
    Joined(UserId),
    /// Up to here the user was one.
    Left(UserId),
    /// Anything else.
    Other,
}

/// What a device went through, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It connected anew; what follows is another connection's.
    Connected,
    /// It came live, or was replayed.
    Entry(ChatId, Entry),
    /// What it had missed was fetched from the history, since it could not be replayed.
    Fetched(ChatId, Vec<Entry>),
    /// It is a participant of a chat from here on.
    Added(ChatId),
    /// What it had missed of a chat can neither be replayed nor, since its user has left meanwhile,
    /// fetched; the server has said so.
    Lost(ChatId),
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its user.
    pub user: UserId,
    /// What it is called in the report.
    pub name: String,
    /// What it went through, each with its time in microseconds of the run.
    pub seen: Vec<(u64, Seen)>,
    /// When its revocation was confirmed, in microseconds of the run; none for one that was not
    /// revoked.
    pub revoked: Option<u64>,
    /// In the end, with the cluster left alone, it could not come back, or not send.
    pub shut_out: bool,
}

/// A chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Its id.
    pub id: ChatId,
    /// Who was in it from the start.
    pub founders: Vec<UserId>,
    /// Its whole history, once as each gateway tells it.
    pub histories: Vec<Vec<Entry>>,
}

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// What was to be sent.
    pub attempts: Vec<Attempt>,
    /// What else was asked for.
    pub operations: Vec<Operation>,
    /// Who was told what.
    pub devices: Vec<Device>,
    /// What there is.
    pub chats: Vec<Chat>,
}
