//! An error with everything that led to it, on one line of a log: `Display` of an error tells its
//! own part only.

use std::{error::Error, fmt};

/// Shows an error followed by its sources, each after `: `.
#[derive(Clone, Copy)]
pub struct Causes<'a>(&'a (dyn Error + 'static));

/// For a field of a log line: `error = %causes(&error)`.
#[must_use]
pub fn causes<'a>(error: &'a (dyn Error + 'static)) -> Causes<'a> {
    Causes(error)
}

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io, str::FromStr};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the setting cannot be read")]
    struct Unreadable(#[source] std::num::ParseIntError);

    #[test]
    fn every_source_is_told_once() {
        let plain = io::Error::other("away");
        assert_eq!(causes(&plain).to_string(), "away");
        let Err(inner) = u8::from_str("no") else { panic!("a number") };
        assert_eq!(
            causes(&Unreadable(inner)).to_string(),
            "the setting cannot be read: invalid digit found in string"
        );
    }
}
