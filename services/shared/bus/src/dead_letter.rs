//! Dead letters: what the log holds and Postgres cannot take, kept with the reason.

use async_nats::HeaderMap;
use natter_protocol::ids::Shard;

use crate::{
    client::Bus,
    publish::{PublishError, Published},
    stored::Raw,
    subjects::{self, MSG_ID},
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
