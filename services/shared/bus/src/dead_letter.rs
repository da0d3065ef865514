//! Dead letters: what the log holds and Postgres cannot take, kept with the reason.

use async_nats::{HeaderMap, jetstream::message::StreamMessage};
use bytes::Bytes;
use natter_protocol::ids::{Seq, Shard};
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    client::{Bus, insist},
    error::BusError,
    publish::{PublishError, Published},
    read::found_message,
    stored::Raw,
    subjects::{self, DEAD_STREAM, DEAD_SUBJECTS, MSG_ID},
};

/// Header of a dead letter: why it is one.
pub const REASON: &str = "Natter-Reason";
/// Header of a dead letter: the subject that it was stored under.
pub const ORIGIN_SUBJECT: &str = "Natter-Subject";
/// Header of a dead letter: its place in the shard's log.
pub const ORIGIN_SEQ: &str = "Natter-Seq";
/// Header of a dead letter whose body was cut to fit: how long it was.
pub const ORIGIN_BYTES: &str = "Natter-Bytes";
/// Room for the headers beside the body, which may have been as large as the broker takes.
const HEADER_ROOM: usize = 8 * 1024;
/// Bytes of a reason that are kept.
const REASON_BYTES: usize = 512;

impl Bus {
    /// Stores an entry of a shard's log as a dead letter and waits for that. Repeating it within
    /// 5 minutes stores it once.
    ///
    /// # Errors
    /// When it is not known to be stored: repeat it.
    pub async fn dead_letter(
        &self,
        shard: Shard,
        raw: &Raw,
        reason: &str,
    ) -> Result<Published, PublishError> {
        let Raw { subject, seq, at, body, .. } = raw;
        let mut headers = HeaderMap::new();
        // With its time: a log that lost its end gives a sequence again, to another entry.
        headers.insert(MSG_ID, format!("dead.{shard}.{seq}.{}", at.unix_timestamp_nanos()));
        headers.insert(REASON, one_line(reason));
        headers.insert(ORIGIN_SUBJECT, subject.as_str());
        headers.insert(ORIGIN_SEQ, seq.to_string());
        // It must fit, or the shard would stand still for it.
        let room = self.inner.client.max_payload().saturating_sub(HEADER_ROOM);
        let kept = body.slice(..body.len().min(room));
        if kept.len() < body.len() {
            headers.insert(ORIGIN_BYTES, body.len().to_string());
        }
        self.publish_raw(subjects::dead(shard), headers, kept)?.await
    }
}

/// A dead letter, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it among the dead letters; they are in its order.
    pub id: u64,
    /// When it became one.
    pub died_at: OffsetDateTime,
    /// Why, without a word of the entry.
    pub reason: String,
    /// The shard whose log held the entry.
    pub shard: Shard,
    /// The entry; without its message id and trace.
    pub raw: Raw,
    /// Bytes that the entry's body had. With more than `raw` has, the letter's was cut to fit.
    pub bytes: usize,
}

impl DeadLetter {
    /// Whether the letter holds only the beginning of the entry.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.raw.body.len() < self.bytes
    }

    fn read(message: StreamMessage) -> Result<Self, BusError> {
        let unreadable = |what: &str| BusError::Unreadable(format!("a dead letter: {what}"));
        let StreamMessage { subject, sequence, headers, payload, time } = message;
        let header = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let shard = subjects::parse_dead(&subject).ok_or_else(|| unreadable("its subject"))?;
        let seq: Seq = header(ORIGIN_SEQ)
            .and_then(|seq| seq.parse().ok())
            .ok_or_else(|| unreadable("its sequence"))?;
        let moment = |nanos| {
            OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|_| unreadable("a time"))
        };
        // The id under which it was stored ends with the time of the entry.
        let nanos = header(MSG_ID)
            .and_then(|id| id.rsplit('.').next()?.parse().ok())
            .ok_or_else(|| unreadable("the entry's time"))?;
        let body: Bytes = payload;
        let bytes = header(ORIGIN_BYTES).and_then(|bytes| bytes.parse().ok());
        Ok(Self {
            id: sequence,
            died_at: moment(time.unix_timestamp_nanos())?,
            reason: header(REASON).unwrap_or_default(),
            shard,
            bytes: bytes.unwrap_or(body.len()),
            raw: Raw::new(
                header(ORIGIN_SUBJECT).unwrap_or_default(),
                seq,
                moment(nanos)?,
                None,
                body,
            ),
        })
    }
}

impl Bus {
    /// The first dead letter whose id is `from` or more.
    ///
    /// # Errors
    /// When the stream's leader does not answer, in 5 s.
    pub async fn next_dead_letter(&self, from: u64) -> Result<Option<DeadLetter>, BusError> {
        let stream = self.stream(DEAD_STREAM).await?;
        let mut from = from.max(1);
        loop {
            let ask = async || {
                let first = stream.get_first_raw_message_by_subject(DEAD_SUBJECTS, from);
                match found_message(first.await) {
                    // No worker has been here yet.
                    Err(BusError::NoStream) => Ok(None),
                    other => other,
                }
            };
            let Some(message) = insist(ask).await? else { return Ok(None) };
            from = message.sequence + 1;
            match DeadLetter::read(message) {
                Ok(letter) => return Ok(Some(letter)),
                // No worker wrote it: it must not hide those after it.
                Err(error) => tracing::warn!(id = from - 1, %error, "passed over"),
            }
        }
    }

    /// How many dead letters there are.
    ///
    /// # Errors
    /// When the stream's leader does not answer, in 5 s.
    pub async fn dead_letters(&self) -> Result<u64, BusError> {
        Ok(self.stream_info(DEAD_STREAM).await?.map_or(0, |info| info.state.messages))
    }

    /// Removes a dead letter.
    ///
    /// # Errors
    /// When the server does not answer or refuses: there is none with this id, say.
    pub async fn forget_dead_letter(&self, id: u64) -> Result<(), BusError> {
        let operation = format!("STREAM.MSG.DELETE.{DEAD_STREAM}");
        let deletion = json!({"seq": id, "no_erase": true});
        self.api::<serde_json::Value>(operation, &deletion).await.map(drop)
    }
}

/// A header ends with its line, and a reason may quote anything.
fn one_line(reason: &str) -> String {
    let end = reason.floor_char_boundary(REASON_BYTES);
    reason[..end].replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_reason_is_one_short_line() {
        assert_eq!(super::one_line("bad\r\nthing"), "bad  thing");
        assert!(super::one_line(&"ü".repeat(1000)).len() <= super::REASON_BYTES);
    }
}
