//! What became of a request.

use std::{fmt, time::Duration};

/// Characters of an [`Answer`].
const CHARS: usize = 200;

/// A short line of what a server answered, for those who ask why: one line of at most 200
/// characters, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(String);

impl Answer {
    /// What `said` is in one short line.
    #[must_use]
    pub fn new(said: impl fmt::Display) -> Self {
        let said = said.to_string();
        let line = said.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self(line.take(CHARS).collect::<String>().trim().to_owned())
    }

    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has it.
    Accepted {
        /// What it answered.
        answer: Answer,
    },
    /// The target is none any more, and never will be again.
    Gone {
        /// What it answered.
        answer: Answer,
    },
    /// The server does not take it, and would not later.
    Refused {
        /// What it answered.
        answer: Answer,
    },
    /// It may go another time.
    Retry {
        /// Not before, as the server says.
        after: Option<Duration>,
        /// What it answered, or why nothing came.
        answer: Answer,
        /// It was asked. Otherwise it was left alone, since it has failed too often just now, and this was no
        /// attempt.
        sent: bool,
    },
}

impl Outcome {
    /// The line that goes with it.
    #[must_use]
    pub const fn answer(&self) -> &Answer {
        match self {
            Self::Accepted { answer }
            | Self::Gone { answer }
            | Self::Refused { answer }
            | Self::Retry { answer, .. } => answer,
        }
    }

    /// The word for it, as metrics have it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted { .. } => "accepted",
            Self::Gone { .. } => "gone",
            Self::Refused { .. } => "refused",
            Self::Retry { .. } => "retry",
        }
    }
}
