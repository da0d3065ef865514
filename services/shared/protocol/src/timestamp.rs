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

/// `at` as the wire writes it.
///
/// # Errors
/// When the year does not fit in four digits.
pub fn format(at: OffsetDateTime) -> Result<String, time::error::Format> {
    at.to_offset(UtcOffset::UTC).format(MILLIS)
}

/// `at` without what the wire does not show, so that what was stored and what was sent agree.
#[must_use]
pub fn truncate(at: OffsetDateTime) -> OffsetDateTime {
    let nanos = at.nanosecond() / 1_000_000 * 1_000_000;
    at.replace_nanosecond(nanos).unwrap_or(at)
}

/// Serialises as the wire writes it.
pub fn serialize<S: Serializer>(at: &OffsetDateTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*at).map_err(S::Error::custom)?)
}

/// Reads any RFC 3339 time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)
}

/// The same for a time that may be missing; together with `#[serde(default)]`.
pub mod option {
    use super::{Deserialize, Deserializer, OffsetDateTime, Rfc3339, Serializer, format};
    use serde::{de::Error as _, ser::Error as _};

    /// Serialises as the wire writes it, `null` for none.
    pub fn serialize<S: Serializer>(
        at: &Option<OffsetDateTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_str(&format(*at).map_err(S::Error::custom)?),
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
    use time::macros::datetime;

    #[test]
    fn milliseconds_in_utc() {
        let at = datetime!(2026-01-02 03:04:05.678_9 +2);
        assert_eq!(super::format(at).ok().as_deref(), Some("2026-01-02T01:04:05.678Z"));
        assert_eq!(super::truncate(at), datetime!(2026-01-02 03:04:05.678 +2));
    }
}
