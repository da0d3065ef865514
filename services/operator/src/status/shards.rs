//! Each shard's owner, log, mirror, and how far it is written.

use natter_bus::{Bus, BusError, LogReport};
use natter_protocol::ids::{Seq, Shard};
use natter_store::ShardRow;
use serde::Serialize;
use time::OffsetDateTime;

use super::{Findings, exists};
use crate::text::since;

/// A log is written within a second. Seconds that make it wrong.
const BEHIND: u64 = 30;
/// A mirror that is so many entries behind is made anew by the shard's owner.
const MIRROR_BEHIND: u64 = 20_000;
/// Gateways refuse users' messages from here on.
const FULL: f64 = 0.9;
/// Shards that a deployment has at most.
const SHARDS: Shard = 16;

/// How a shard stands; what is missing could not be told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShardStatus {
    pub(super) shard: Shard,
    /// The worker that writes it.
    pub(super) owner: Option<String>,
    /// What is left of its lease.
    pub(super) lease_seconds: Option<i64>,
    pub(super) epoch: Option<i32>,
    /// All up to here is written to Postgres.
    pub(super) written_seq: Option<Seq>,
    pub(super) log: Option<LogStatus>,
    pub(super) lag_entries: Option<u64>,
    /// How long the oldest entry that is not written has waited.
    pub(super) lag_seconds: Option<u64>,
    /// Whether there is a live mirror.
    pub(super) mirror: Option<bool>,
    pub(super) mirror_lag_entries: Option<u64>,
}

/// How a shard's log stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LogStatus {
    pub(super) last_seq: Seq,
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) leader: Option<String>,
    pub(super) replicas: usize,
    pub(super) current_replicas: usize,
}

/// All shards: those that Postgres knows, or else those that have a log.
pub(super) async fn all(
    bus: Option<&Bus>,
    rows: Option<Vec<ShardRow>>,
    now: Option<OffsetDateTime>,
    findings: &mut Findings,
) -> Vec<ShardStatus> {
    let mut shards = Vec::new();
    if let Some(rows) = rows {
        for row in rows {
            let mut shard = ShardStatus::new(row.shard);
            shard.owned(&row, now, findings);
            if let Some(bus) = bus {
                shard.look(bus, Some(row.persisted_seq), findings).await;
            }
            shards.push(shard);
        }
    } else if let Some(bus) = bus {
        for number in 0..SHARDS {
            if !exists(bus, number).await {
                break;
            }
            let mut shard = ShardStatus::new(number);
            shard.look(bus, None, findings).await;
            shards.push(shard);
        }
    }
    shards
}

impl ShardStatus {
    fn new(shard: Shard) -> Self {
        Self {
            shard,
            owner: None,
            lease_seconds: None,
            epoch: None,
            written_seq: None,
            log: None,
            lag_entries: None,
            lag_seconds: None,
            mirror: None,
            mirror_lag_entries: None,
        }
    }

    /// `now` is the database's, which gives the leases.
    fn owned(&mut self, row: &ShardRow, now: Option<OffsetDateTime>, findings: &mut Findings) {
        let shard = self.shard;
        self.owner.clone_from(&row.owner);
        self.epoch = Some(row.epoch);
        self.written_seq = Some(row.persisted_seq);
        let left = row.owner_until.zip(now).map(|(until, now)| (until - now).whole_seconds());
        self.lease_seconds = left;
        match (&row.owner, left) {
            (Some(owner), Some(left)) if left < 0 => {
                findings
                    .wrong(format!("shard {shard} has no owner: the lease of {owner} has run out"));
            }
            (None, _) => findings.wrong(format!("shard {shard} has no owner")),
            _ => {}
        }
    }

    async fn look(&mut self, bus: &Bus, written: Option<Seq>, findings: &mut Findings) {
        let shard = self.shard;
        // The mirror is asked first: what is stored in between counts as lag.
        let mirrored = findings.told(bus.mirrored_to(shard).await);
        let Some(log) = findings.told(bus.log_report(shard).await) else { return };
        let Some(log) = log else {
            return findings.wrong(format!("shard {shard} has no log"));
        };
        let last = log.state.last_seq;
        self.judge_log(&log, findings);
        if let Some(mirrored) = mirrored {
            self.mirror = Some(mirrored.is_some());
            let lag = mirrored.map(|seq| last.saturating_sub(seq));
            self.mirror_lag_entries = lag;
            match lag {
                None => findings.wrong(format!("shard {shard} has no live mirror")),
                Some(lag) if lag > MIRROR_BEHIND => {
                    findings.wrong(format!("shard {shard}'s live mirror is {lag} entries behind"));
                }
                Some(_) => {}
            }
        }
        if let Some(written) = written {
            let waited = self.measure(bus, written, last).await;
            if let Some(Some(seconds @ BEHIND..)) = findings.told(waited) {
                let lag = self.lag_entries.unwrap_or_default();
                findings.wrong(format!(
                    "shard {shard} is {lag} entries and {seconds} s behind in Postgres"
                ));
            }
        }
    }

    fn judge_log(&mut self, log: &LogReport, findings: &mut Findings) {
        let (shard, state) = (self.shard, &log.state);
        if state.sealed {
            findings.wrong(format!("shard {shard}'s log is sealed: it is about to be made anew"));
        }
        if state.closed {
            findings.wrong(format!("shard {shard}'s log was made anew, and is not open yet"));
        }
        if state.fullness() >= FULL {
            let full = state.fullness() * 100.0;
            findings.wrong(format!("shard {shard}'s log is {full:.0} % full: sending is refused"));
        }
        if log.current < log.replicas {
            let (current, replicas) = (log.current, log.replicas);
            findings
                .wrong(format!("shard {shard}'s log is whole on {current} of {replicas} servers"));
        }
        self.log = Some(LogStatus {
            last_seq: state.last_seq,
            entries: state.entries,
            bytes: state.bytes,
            max_bytes: state.max_bytes,
            leader: log.leader.clone(),
            replicas: log.replicas,
            current_replicas: log.current,
        });
    }

    /// How far Postgres is behind; returns the seconds.
    async fn measure(
        &mut self,
        bus: &Bus,
        written: Seq,
        last: Seq,
    ) -> Result<Option<u64>, BusError> {
        let lag = last.saturating_sub(written);
        self.lag_entries = Some(lag);
        let oldest = if lag == 0 { None } else { bus.stored_after(self.shard, written).await? };
        self.lag_seconds = Some(oldest.map_or(0, |at| since(at).as_secs()));
        Ok(self.lag_seconds)
    }
}
