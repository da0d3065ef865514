//! Messages found by their words and by what else is known of them, the same over sockets and REST.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use natter_protocol::{
    client::{SearchMessages, SearchSort},
    error::WireError,
    limits,
    rest::SearchPage,
    timestamp,
};
use natter_store::{MessageSearch, SearchCursor, Store, Words};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::{auth::Caller, chats::not_member, fault, text::bad_request};

/// A page of what is found in the caller's chats.
///
/// # Errors
/// `bad_request` for a search for nothing, or too much; `not_member`, `unavailable`.
pub async fn page(
    store: &Store,
    caller: &Caller,
    asked: &SearchMessages,
) -> Result<SearchPage, WireError> {
    let chat = asked.chat_id;
    let search = search(caller, asked)?;
    if let Some(chat) = chat {
        let member = store.membership(caller.user_id, chat).await.map_err(fault::store)?;
        member.ok_or_else(not_member)?;
    }
    let (items, next) = store.search_messages(search).await.map_err(fault::store)?;
    Ok(SearchPage { items, next_cursor: next.map(encode) })
}

fn search(caller: &Caller, asked: &SearchMessages) -> Result<MessageSearch, WireError> {
    let text = asked.q.as_deref().map(str::trim).filter(|text| !text.is_empty());
    let words = text.map(Words::parse).transpose();
    let words = words.map_err(|error| bad_request(format!("q: {error}")))?;
    let mentions_viewer = asked.mentions_me.unwrap_or(false);
    let filtered = asked.sender_id.is_some()
        || asked.has_media.is_some()
        || asked.media_type.is_some()
        || mentions_viewer;
    if words.is_none() && !filtered {
        return Err(bad_request("q, senderId, hasMedia, mediaType or mentionsMe: one is needed"));
    }
    let limit = asked.limit.unwrap_or(limits::SEARCH_PAGE_DEFAULT);
    if !(1..=limits::SEARCH_PAGE).contains(&limit) {
        return Err(bad_request(format!("limit: is not 1 to {}", limits::SEARCH_PAGE)));
    }
    let time = |field: &str, at: Option<OffsetDateTime>| match at {
        Some(at) if !comparable(at) => Err(bad_request(format!("{field}: is out of range"))),
        // Messages' times are whole milliseconds.
        at => Ok(at.map(timestamp::truncate)),
    };
    let cursor = asked.cursor.as_deref().map(decode).transpose()?;
    Ok(MessageSearch {
        viewer: caller.user_id,
        // Without words nothing fits better than something else.
        ranked: asked.sort == Some(SearchSort::Rank) && words.is_some(),
        words,
        fuzzy: asked.fuzzy.unwrap_or(false),
        chat: asked.chat_id,
        sender: asked.sender_id,
        after: time("after", asked.after)?,
        before: time("before", asked.before)?,
        has_media: asked.has_media,
        media_kind: asked.media_type,
        mentions_viewer,
        cursor,
        limit,
    })
}

/// Whether Postgres can compare with it.
fn comparable(at: OffsetDateTime) -> bool {
    (1970..=9999).contains(&at.year())
}

/// Where a page ended, in a form that clients only hand back.
fn encode(cursor: SearchCursor) -> String {
    let SearchCursor { rank, at, chat, seq, until } = cursor;
    let ms = |at: OffsetDateTime| {
        ((at - OffsetDateTime::UNIX_EPOCH).whole_milliseconds() as i64).to_be_bytes()
    };
    let mut bytes = Vec::with_capacity(44);
    bytes.extend(rank.to_be_bytes());
    bytes.extend(ms(at));
    bytes.extend(ms(until));
    bytes.extend(seq.to_be_bytes());
    bytes.extend(chat.0.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Result<SearchCursor, WireError> {
    let malformed = || bad_request("cursor: is not one that was given out");
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed())?;
    let (rank, rest) = bytes.split_first_chunk::<4>().ok_or_else(malformed)?;
    let (at, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (until, rest) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let (seq, chat) = rest.split_first_chunk::<8>().ok_or_else(malformed)?;
    let time = |ms: &[u8; 8]| {
        OffsetDateTime::UNIX_EPOCH
            .checked_add(Duration::milliseconds(i64::from_be_bytes(*ms)))
            .filter(|at| comparable(*at))
            .ok_or_else(malformed)
    };
    let rank = f32::from_be_bytes(*rank);
    if !rank.is_finite() {
        return Err(malformed());
    }
    Ok(SearchCursor {
        rank,
        at: time(at)?,
        chat: Uuid::from_slice(chat).map_err(|_| malformed())?.into(),
        seq: u64::from_be_bytes(*seq),
        until: time(until)?,
    })
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::ChatId;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_given_out_is_taken_back(
            rank in 0_f32..9.0, at in 0_i64..253_402_300_799_000, until in 0_i64..253_402_300_799_000,
            seq: u64, chat: u128,
        ) {
            let time = |ms| OffsetDateTime::UNIX_EPOCH + Duration::milliseconds(ms);
            let chat = ChatId(Uuid::from_u128(chat));
            let cursor = SearchCursor { rank, at: time(at), chat, seq, until: time(until) };
            prop_assert_eq!(decode(&encode(cursor)), Ok(cursor));
        }

        #[test]
        fn anything_else_is_refused(text in "\\PC{0,60}", bytes: Vec<u8>) {
            let _ = decode(&text);
            let encoded = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(bytes.len() == 44 || decode(&encoded).is_err());
        }
    }

    #[test]
    fn numbers_that_nothing_is_compared_with_are_refused() {
        for rank in [f32::NAN, f32::INFINITY] {
            let mut bytes = [0; 44];
            bytes[..4].copy_from_slice(&rank.to_be_bytes());
            assert!(decode(&URL_SAFE_NO_PAD.encode(bytes)).is_err(), "{rank}");
        }
        let mut bytes = [0; 44];
        bytes[4..12].copy_from_slice(&i64::MAX.to_be_bytes());
        assert!(decode(&URL_SAFE_NO_PAD.encode(bytes)).is_err());
    }
}
