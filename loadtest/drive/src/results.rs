//! What the suite finds: figures by name, each measured several times, with what it is to be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::figures::Figures;

/// What a figure is to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Goal {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Goal {
    /// Whether it is reached.
    pub fn reached(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// A figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// In what.
    pub unit: String,
    /// What it is to be, if anything is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<Goal>,
    /// As measured, in the order of measuring.
    pub values: Vec<f64>,
}

impl Row {
    /// The median.
    pub fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => values[odd / 2],
            even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
        }
    }
}

/// The figures of one scenario.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sheet {
    /// What was done, in a sentence or two.
    pub about: String,
    /// When, RFC 3339.
    pub at: String,
    /// In the order in which they came up first.
    pub rows: Vec<Row>,
}

/// All scenarios, by name.
pub type Book = BTreeMap<String, Sheet>;

impl Sheet {
    /// A sheet without figures yet.
    pub fn new(about: impl Into<String>) -> Self {
        let at = time::OffsetDateTime::now_utc();
        let at = at.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        Self { about: about.into(), at, rows: Vec::new() }
    }

    /// Notes a figure that nothing is promised of.
    pub fn note(&mut self, name: impl Into<String>, unit: &str, value: f64) {
        self.add(name.into(), unit, None, value);
    }

    /// Notes a figure that is to be so.
    pub fn promise(&mut self, name: impl Into<String>, unit: &str, goal: Goal, value: f64) {
        self.add(name.into(), unit, Some(goal), value);
    }

    fn add(&mut self, name: String, unit: &str, goal: Option<Goal>, value: f64) {
        eprintln!("  {name}: {} {unit}", shown(value));
        match self.rows.iter_mut().find(|row| row.name == name) {
            Some(row) => row.values.push(value),
            None => self.rows.push(Row { name, unit: unit.to_owned(), goal, values: vec![value] }),
        }
    }

    /// Notes what every run tells: how fast, how late, who used what, and what went wrong.
    pub fn run(&mut self, what: &str, run: &Figures) {
        self.note(format!("{what}: deliveries"), "1/s", run.rate());
        self.note(format!("{what}: send to deliver, p50"), "ms", run.latency.p50);
        self.note(format!("{what}: send to deliver, p99"), "ms", run.latency.p99);
        self.note(format!("{what}: send to reply, p99"), "ms", run.acks.p99);
        let of = |seconds: f64| seconds / run.messages as f64 * 1e6;
        self.note(format!("{what}: CPU of gateways"), "µs/message", of(run.used.gateways));
        self.note(format!("{what}: CPU of NATS"), "µs/message", of(run.used.nats));
        self.note(format!("{what}: CPU of the worker"), "µs/message", of(run.used.workers));
        self.note(format!("{what}: CPU of Postgres"), "µs/message", of(run.used.postgres));
        self.note(format!("{what}: the driver's share of the CPU"), "%", run.driver_share());
        self.faults(what, run);
    }

    /// Notes what went wrong: nothing may.
    pub fn faults(&mut self, what: &str, run: &Figures) {
        let name = format!("{what}: lost, twice or out of order");
        self.promise(name, "deliveries", Goal::AtMost(0.0), run.faults() as f64);
    }
}

/// A number as people read it.
pub fn shown(value: f64) -> String {
    let digits = match value.abs() {
        at if at >= 100.0 || at == 0.0 => 0,
        at if at >= 10.0 => 1,
        _ => 2,
    };
    let plain = format!("{value:.digits$}");
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let mut grouped = String::new();
    for (n, digit) in whole.chars().enumerate() {
        let left = whole.len() - n;
        if n > 0 && left.is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if fraction.is_empty() { grouped } else { format!("{grouped}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let row = |values: &[f64]| {
            let (name, unit) = (String::new(), String::new());
            Row { name, unit, goal: None, values: values.to_vec() }.median()
        };
        assert!((row(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((row(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(row(&[]).is_nan() && !Goal::AtLeast(1.0).reached(row(&[])));
    }

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [
            (0.0, "0"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1_234_567.8, "1,234,568"),
            (-1234.0, "-1,234"),
        ] {
            assert_eq!(shown(value), text);
        }
    }
}
