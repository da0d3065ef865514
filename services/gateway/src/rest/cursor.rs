//! Where a page ended, in a form that clients only hand back: base64url of a time in
//! milliseconds and an id.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_protocol::{
    error::WireError,
    ids::{ChatId, UserId},
};
use natter_store::{BanCursor, BlockCursor, ChatCursor, ParticipantCursor};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::text::bad_request;

/// A page's end as its client sees it.
pub trait Cursor: Sized {
    /// From its parts.
    fn new(at: OffsetDateTime, id: Uuid) -> Self;

    /// Its parts: a time of whole milliseconds, and an id.
    fn parts(&self) -> (OffsetDateTime, Uuid);

    /// For the client.
    fn encode(&self) -> String {
        let (at, id) = self.parts();
        let ms = (at - OffsetDateTime::UNIX_EPOCH).whole_milliseconds() as i64;
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&ms.to_be_bytes());
        bytes[8..].copy_from_slice(id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// From the client.
    ///
    /// # Errors
    /// `bad_request` for one that was not made here.
    fn decode(text: &str) -> Result<Self, WireError> {
        let malformed = || bad_request("cursor: is not one that was given out");
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
        let (ms, id) = bytes.split_first_chunk::<8>().ok_or_else(malformed)?;
        let at = OffsetDateTime::UNIX_EPOCH
            .checked_add(Duration::milliseconds(i64::from_be_bytes(*ms)))
            // What Postgres can compare with.
            .filter(|at| (1970..=9999).contains(&at.year()))
            .ok_or_else(malformed)?;
        Ok(Self::new(at, Uuid::from_slice(id).map_err(|_| malformed())?))
    }

    /// The same for one that may be missing.
    ///
    /// # Errors
    /// As [`Self::decode`].
    fn decode_if_any(text: Option<&str>) -> Result<Option<Self>, WireError> {
        text.map(Self::decode).transpose()
    }
}

impl Cursor for ChatCursor {
    fn new(at: OffsetDateTime, id: Uuid) -> Self {
        Self { at, id: ChatId(id) }
    }

    fn parts(&self) -> (OffsetDateTime, Uuid) {
        (self.at, self.id.0)
    }
}

impl Cursor for ParticipantCursor {
    fn new(at: OffsetDateTime, id: Uuid) -> Self {
        Self { joined_at: at, id: UserId(id) }
    }

    fn parts(&self) -> (OffsetDateTime, Uuid) {
        (self.joined_at, self.id.0)
    }
}

impl Cursor for BanCursor {
    fn new(at: OffsetDateTime, id: Uuid) -> Self {
        Self { banned_at: at, id: UserId(id) }
    }

    fn parts(&self) -> (OffsetDateTime, Uuid) {
        (self.banned_at, self.id.0)
    }
}

impl Cursor for BlockCursor {
    fn new(at: OffsetDateTime, id: Uuid) -> Self {
        Self { blocked_at: at, id: UserId(id) }
    }

    fn parts(&self) -> (OffsetDateTime, Uuid) {
        (self.blocked_at, self.id.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_given_out_is_taken_back(ms in 0_i64..253_402_300_799_000, id: u128) {
            let at = OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms);
            let cursor = ChatCursor::new(at, Uuid::from_u128(id));
            prop_assert_eq!(ChatCursor::decode(&cursor.encode()), Ok(cursor));
            let cursor = ParticipantCursor::new(at, Uuid::from_u128(id));
            prop_assert_eq!(ParticipantCursor::decode(&cursor.encode()), Ok(cursor));
            let cursor = BanCursor::new(at, Uuid::from_u128(id));
            prop_assert_eq!(BanCursor::decode(&cursor.encode()), Ok(cursor));
            let cursor = BlockCursor::new(at, Uuid::from_u128(id));
            prop_assert_eq!(BlockCursor::decode(&cursor.encode()), Ok(cursor));
        }

        #[test]
        fn anything_else_is_refused(text in "\\PC{0,40}", bytes: Vec<u8>) {
            let _ = ChatCursor::decode(&text);
            let encoded = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(bytes.len() == 24 || ChatCursor::decode(&encoded).is_err());
        }
    }

    #[test]
    fn a_time_out_of_range_is_refused() {
        for ms in [i64::MIN, i64::MAX, -1, 253_402_300_800_000] {
            let mut bytes = [0; 24];
            bytes[..8].copy_from_slice(&ms.to_be_bytes());
            assert!(ChatCursor::decode(&URL_SAFE_NO_PAD.encode(bytes)).is_err(), "{ms}");
        }
    }
}
