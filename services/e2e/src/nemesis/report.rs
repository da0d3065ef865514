//! What came of it.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Serialize;

use super::slow;

/// Violations told at most.
const TOLD: usize = 50;

/// What was done, and what was wrong.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// What chance followed.
    pub seed: u64,
    /// How long it took, from the first round's start on.
    pub seconds: f64,
    /// Rounds, each with its own verdict.
    pub rounds: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// What the checker's devices did, by outcome: `sends ok`; and what became of their connections.
    pub operations: BTreeMap<String, u64>,
    /// Entries of all histories.
    pub entries: usize,
    /// Entries that devices got.
    pub deliveries: usize,
    /// Slow clients that were closed with 4430.
    pub slow_closed: u64,
    /// Those that were cut without a code, as by a fault beside.
    pub slow_cut: u64,
    /// What was wrong: the first 50, as JSON where the checker found them.
    pub violations: Vec<String>,
    /// Where the logs are, when something was wrong.
    pub logs: Option<PathBuf>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            seconds: 0.0,
            rounds: 0,
            faults: BTreeMap::new(),
            operations: BTreeMap::new(),
            entries: 0,
            deliveries: 0,
            slow_closed: 0,
            slow_cut: 0,
            violations: Vec::new(),
            logs: None,
        }
    }

    /// Whether nothing was wrong.
    #[must_use]
    pub fn is_green(&self) -> bool {
        self.violations.is_empty()
    }

    /// One line.
    #[must_use]
    pub fn so_far(&self) -> String {
        let acked = self.operations.get("sends ok").unwrap_or(&0);
        let verdict = if self.is_green() { "GREEN" } else { "RED" };
        format!(
            "{verdict} after {} rounds, {:.0} s: {acked} messages, {} deliveries",
            self.rounds, self.seconds, self.deliveries
        )
    }

    pub(super) fn fault(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    pub(super) fn violated(&mut self, what: String) {
        if self.violations.len() < TOLD {
            self.violations.push(what);
        }
    }

    pub(super) fn slow(&mut self, outcome: slow::Outcome) {
        self.slow_closed += outcome.closed;
        self.slow_cut += outcome.cut;
        self.count("resumes invoked", outcome.resumed + outcome.not_resumed);
        self.count("resumes ok", outcome.resumed);
        self.count("resumes failed", outcome.not_resumed);
    }

    pub(super) fn take(&mut self, checked: &natter_check::Report) {
        if let Ok(serde_json::Value::Object(counts)) = serde_json::to_value(checked.counts) {
            for (name, count) in &counts {
                for (outcome, count) in count.as_object().into_iter().flatten() {
                    self.count(&format!("{name} {outcome}"), count.as_u64().unwrap_or(0));
                }
                if let Some(count) = count.as_u64() {
                    self.count(name, count);
                }
            }
        }
        self.entries += checked.verdict.entries;
        self.deliveries += checked.verdict.deliveries;
        for violation in &checked.verdict.listed {
            self.violated(serde_json::json!(violation).to_string());
        }
    }

    fn count(&mut self, name: &str, count: u64) {
        *self.operations.entry(name.to_owned()).or_default() += count;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            counts
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        writeln!(f, "seed {}, {:.0} s, {} rounds", self.seed, self.seconds, self.rounds)?;
        writeln!(f, "faults       {}", list(&self.faults))?;
        writeln!(f, "operations   {}", list(&self.operations))?;
        writeln!(f, "slow clients {} closed, {} cut", self.slow_closed, self.slow_cut)?;
        writeln!(f, "verified     {} entries, {} deliveries", self.entries, self.deliveries)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        if let Some(logs) = &self.logs {
            writeln!(f, "logs         {}", logs.display())?;
        }
        match self.violations.len() {
            0 => write!(f, "verdict      GREEN: nothing lost, nothing twice, all in order"),
            count => write!(f, "verdict      RED: {count} violations or more"),
        }
    }
}
