//! The part of a file that a request asks for.

use std::ops::Range;

use axum::http::{HeaderMap, header};
use axum_extra::headers::{self, HeaderMapExt};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it.
    Whole,
    /// These bytes, at least one.
    Part(Range<u64>),
    /// None that the file has.
    Nowhere,
}

/// The part that was asked for. What is malformed, or names several parts, is answered with the
/// whole (RFC 9110, 14.2).
pub(super) fn asked_range(asked: &HeaderMap, tag: Option<&headers::ETag>, size: u64) -> Asked {
    if let Some(only_if) = asked.typed_get::<headers::IfRange>()
        && only_if.is_modified(tag, None)
    {
        return Asked::Whole;
    }
    let range = asked.get(header::RANGE).and_then(|range| range.to_str().ok());
    let Some((first, last)) = range.and_then(one_range) else { return Asked::Whole };
    match (first, last) {
        (Some(first), Some(last)) if last < first => Asked::Whole,
        (Some(first), _) if first >= size => Asked::Nowhere,
        (Some(first), last) => {
            let end = last.map_or(size, |last| last.saturating_add(1).min(size));
            Asked::Part(first..end)
        }
        (None, Some(0)) => Asked::Nowhere,
        (None, Some(count)) => Asked::Part(size.saturating_sub(count)..size),
        (None, None) => Asked::Whole,
    }
}

/// `bytes=first-last`, either of which may be missing.
fn one_range(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (unit, range) = range.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim().split_once('-')?;
    let number = |text: &str| match text {
        "" => Some(None),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            // More digits than a number has lie beyond every file.
            Some(Some(digits.parse().unwrap_or(u64::MAX)))
        }
        _ => None,
    };
    Some((number(first)?, number(last)?))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn asked(range: &str, size: u64) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::try_from(range).expect("it is a header"));
        asked_range(&headers, None, size)
    }

    #[test]
    fn one_part_is_given_and_anything_odd_is_the_whole() {
        assert_eq!(asked("bytes=0-0", 10), Asked::Part(0..1));
        assert_eq!(asked("bytes=2-", 10), Asked::Part(2..10));
        assert_eq!(asked("bytes=-3", 10), Asked::Part(7..10));
        assert_eq!(asked("bytes=4-99", 10), Asked::Part(4..10));
        assert_eq!(asked("bytes=10-", 10), Asked::Nowhere);
        assert_eq!(asked("bytes=0-1,4-5", 10), Asked::Whole);
        assert_eq!(asked("lines=1-2", 10), Asked::Whole);
        assert_eq!(asked("bytes=b-a", 10), Asked::Whole);
        assert_eq!(asked("bytes=5-2", 10), Asked::Whole);
        assert_eq!(asked("bytes=-99", 10), Asked::Part(0..10));
        assert_eq!(asked("bytes=-0", 10), Asked::Nowhere);
        assert_eq!(asked("bytes=99999999999999999999-", 10), Asked::Nowhere);
        assert_eq!(asked("bytes=-", 10), Asked::Whole);
    }
}
