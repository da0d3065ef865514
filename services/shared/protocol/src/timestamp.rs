//! RFC 3339 UTC with milliseconds: the one time format of the wire, e.g. `2026-01-02T03:04:05.678Z`.
//!
//! Use as `#[serde(with = "natter_protocol::timestamp")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error as _, ser::Error as _};
use time::{
    OffsetDateTime, UtcOffset,
    format_description::{StaticFormatDescription, well_known::Rfc3339},
    macros::format_description,
};

const MILLIS: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What is written into: a time of the wire.
type Text = [u8; 24];

/// `at` as the wire writes it.
///
/// # Errors
/// When the year does not fit in four digits.
pub fn format(at: OffsetDateTime) -> Result<String, time::error::Format> {
    match write(at, &mut Text::default()) {
        Some(text) => Ok(text.to_owned()),
        None => at.to_offset(UtcOffset::UTC).format(MILLIS),
    }
}

/// The same without the formatter, which reads its description each time, and without memory of its own:
/// each message of a page of history has a time.
/// None where the year does not fit in four digits.
fn write(at: OffsetDateTime, text: &mut Text) -> Option<&str> {
    let at = at.to_offset(UtcOffset::UTC);
    let year = u16::try_from(at.year()).ok().filter(|year| *year <= 9_999)?;
    *text = *b"0000-00-00T00:00:00.000Z";
    let numbers = [
        (0..4, year),
        (5..7, u8::from(at.month()).into()),
        (8..10, at.day().into()),
        (11..13, at.hour().into()),
        (14..16, at.minute().into()),
        (17..19, at.second().into()),
        (20..23, at.millisecond()),
    ];
    for (digits, mut number) in numbers {
        for digit in text[digits].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }
    std::str::from_utf8(text).ok()
}

/// `at` without what the wire does not show, so that what was stored and what was sent agree.
#[must_use]
pub fn truncate(at: OffsetDateTime) -> OffsetDateTime {
    let nanos = at.nanosecond() / 1_000_000 * 1_000_000;
    at.replace_nanosecond(nanos).unwrap_or(at)
}

/// Serialises as the wire writes it.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    match write(*at, &mut Text::default()) {
        Some(text) => serializer.serialize_str(text),
        None => serializer.serialize_str(&format(*at).map_err(S::Error::custom)?),
    }
}

/// Reads any RFC 3339 time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
}

/// The same for a time that may be missing; together with `#[serde(default)]`.
pub mod option {
    use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer};
    use serde::de::Error as _;

    /// Serialises as the wire writes it, `null` for none.
    pub fn serialize<S: Serializer>(
        at: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => super::serialize(at, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads any RFC 3339 time, or `null`.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<OffsetDateTime>, D::Error> {
        Option::<String>::deserialize(deserializer)?
            .map(|text| OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::{OffsetDateTime, macros::datetime};

    proptest! {
        #[test]
        fn all_times_are_written_as_by_the_library(
            seconds in -70_000_000_000_i64..260_000_000_000,
            nanos in 0..1_000_000_000_i64,
        ) {
            let at = OffsetDateTime::from_unix_timestamp(seconds).ok();
            let Some(at) = at.and_then(|at| at.checked_add(time::Duration::nanoseconds(nanos))) else {
                return Ok(());
            };
            let expected = at.format(super::MILLIS).ok();
            prop_assert_eq!(super::format(at).ok(), expected.clone());
            if let Some(text) = super::write(at, &mut super::Text::default()) {
                prop_assert_eq!(Some(text), expected.as_deref());
                prop_assert!((0..=9_999).contains(&at.year()));
            } else {
                prop_assert!(!(0..=9_999).contains(&at.year()));
            }
        }
    }

    #[test]
    fn milliseconds_in_utc() {
        let at = datetime!(2026-01-02 03:04:05.678_9 +2);
        assert_eq!(super::format(at).ok().as_deref(), Some("2026-01-02T01:04:05.678Z"));
        assert_eq!(super::truncate(at), datetime!(2026-01-02 03:04:05.678 +2));
    }
}
