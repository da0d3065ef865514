//! What an import has done, and what it had to leave out.

use std::{collections::BTreeMap, fmt::Write as _};

use natter_store::{Brought, Trouble};
use serde::{Deserialize, Serialize};

use super::tables::Kind;
use crate::text::{Table, harmless};

/// Old ids shown for each thing that was wrong.
const EXAMPLES: usize = 5;

/// By kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) kinds: BTreeMap<String, Tally>,
    /// Files that were copied, and those that were not.
    #[serde(default)]
    pub(crate) copied: u64,
    #[serde(default)]
    pub(crate) not_copied: u64,
}

/// Of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tally {
    /// Rows that the old system has.
    pub(crate) read: u64,
    /// Rows that are here now, and were not.
    pub(crate) written: u64,
    /// Rows that were here.
    pub(crate) there: u64,
    /// Rows that are not.
    pub(crate) left_out: u64,
    /// All that was wrong, rows that were kept all the same included.
    pub(crate) notes: BTreeMap<String, Note>,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Of messages and participants: rows read of the last chat, which a run that goes on there reads again
    /// and does not count again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) open: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes what it serialises by reference"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One thing that was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub(crate) count: u64,
    /// The first old ids.
    pub(crate) examples: Vec<String>,
}

/// What is wrong with a row by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flaw {
    #[error("the phone number is not + and 6 to 15 digits; kept without it")]
    Phone,
    #[error("the e-mail address is none; kept without it")]
    Email,
    #[error("neither a phone number nor an e-mail address; kept, and cannot log in")]
    NoLogin,
    #[error("no password, or a hash of an unknown kind; kept without, and cannot log in")]
    NoPassword,
    #[error("a password hash that costs too much; kept without, and cannot log in")]
    DearPassword,
    #[error("no id")]
    NoId,
    #[error("names nobody, or no chat")]
    Incomplete,
    #[error("no time")]
    NoTime,
    #[error("no text")]
    NoText,
    #[error("longer than 64 KiB; kept, cut off there")]
    TooLong,
    #[error("a kind that is not known")]
    UnknownKind,
    #[error("a kind that the mapping leaves out")]
    Skipped,
    #[error("a line that the old system wrote itself")]
    System,
    #[error("a role that is not known; kept, as a member")]
    UnknownRole,
    #[error("deleted there")]
    Deleted,
}

impl Flaw {
    pub(crate) fn left_out(self) -> bool {
        matches!(
            self,
            Self::NoId
                | Self::Incomplete
                | Self::NoTime
                | Self::NoText
                | Self::UnknownKind
                | Self::Skipped
                | Self::System
                | Self::Deleted
        )
    }
}

impl Tally {
    pub(crate) fn flaw(&mut self, flaw: Flaw, id: &str) {
        self.left_out += u64::from(flaw.left_out());
        self.note(&flaw.to_string(), id);
    }

    pub(crate) fn trouble(&mut self, trouble: Trouble, id: &str) {
        self.left_out += u64::from(trouble.left_out());
        self.note(&trouble.to_string(), id);
    }

    /// The same of so many rows that are not known one by one.
    pub(crate) fn troubles(&mut self, trouble: Trouble, count: u64) {
        if count > 0 {
            self.left_out += count * u64::from(trouble.left_out());
            self.notes.entry(trouble.to_string()).or_default().count += count;
        }
    }

    pub(crate) fn note(&mut self, what: &str, id: &str) {
        let note = self.notes.entry(what.to_owned()).or_default();
        note.count += 1;
        if note.examples.len() < EXAMPLES {
            note.examples.push(harmless(id));
        }
    }

    /// What has become of a batch whose rows have these ids. So many of the first rows are `again` there: a
    /// run before has counted them.
    pub(crate) fn add(&mut self, brought: &Brought, ids: &[String], again: usize) {
        self.written += brought.written;
        self.there += brought.there.saturating_sub(again as u64);
        for (nth, trouble) in brought.troubles.iter().filter(|(nth, _)| *nth >= again) {
            self.trouble(*trouble, ids.get(*nth).map_or("", String::as_str));
        }
    }

    fn rate(&self) -> f64 {
        (self.written + self.there) as f64 / self.seconds.max(0.001)
    }
}

impl Report {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut Tally {
        self.kinds.entry(kind.name().to_owned()).or_default()
    }

    /// For people.
    pub(crate) fn shown(&self, dry: bool) -> String {
        let mut table = if dry {
            Table::new(&["", "READ", "LEFT OUT"])
        } else {
            Table::new(&["", "READ", "WRITTEN", "THERE BEFORE", "LEFT OUT", "ROWS/S"])
        };
        let known = Kind::ALL.into_iter().map(Kind::name);
        let tallies = known.filter_map(|name| Some((name, self.kinds.get(name)?)));
        for (name, tally) in tallies.clone() {
            let mut cells = vec![name.to_owned(), grouped(tally.read)];
            if !dry {
                cells.extend([grouped(tally.written), grouped(tally.there)]);
            }
            cells.push(grouped(tally.left_out));
            if !dry {
                cells.push(grouped(tally.rate() as u64));
            }
            table.row(cells);
        }
        let mut text = table.to_string();
        for (name, tally) in tallies {
            for (what, note) in &tally.notes {
                let _ = write!(text, "{name}: {} × {what}", grouped(note.count));
                if !note.examples.is_empty() {
                    let _ = write!(text, " ({})", note.examples.join(", "));
                }
                text.push('\n');
            }
        }
        if self.copied + self.not_copied > 0 {
            let (copied, not) = (grouped(self.copied), grouped(self.not_copied));
            let _ = writeln!(text, "files: {copied} copied, {not} not found or refused");
        }
        text
    }
}

/// With commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_wrong_is_counted_with_a_few_examples() {
        let mut report = Report::default();
        let tally = report.of(Kind::Messages);
        tally.read = 1_234_567;
        for id in 0..7 {
            tally.flaw(Flaw::NoText, &id.to_string());
        }
        tally.flaw(Flaw::TooLong, "a\u{1b}b");
        let brought = Brought { written: 3, there: 1, troubles: vec![(1, Trouble::NoAnswered)] };
        tally.add(&brought, &["x".to_owned(), "y".to_owned()], 0);
        assert_eq!((tally.left_out, tally.written, tally.there), (7, 3, 1));
        let shown = report.shown(false);
        for line in [
            "1,234,567",
            "messages: 7 × no text (0, 1, 2, 3, 4)",
            "messages: 1 × longer than 64 KiB; kept, cut off there (a\u{fffd}b)",
            "kept without that (y)",
        ] {
            assert!(shown.contains(line), "no {line} in {shown}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
