//! What a worker counts and times, by its names.

use metrics::{Counter, Gauge, Histogram};
use natter_protocol::ids::Shard;

/// What a shard is measured by. Its owner's numbers count; everybody else shows 0.
pub(crate) struct ShardGauges {
    owner: Gauge,
    /// Entries read and not written.
    pub(crate) lag_entries: Gauge,
    /// How long ago the last entry that is written was stored, while others wait.
    pub(crate) lag_seconds: Gauge,
    /// Entries written whose messages are not found yet, about.
    pub(crate) search_lag: Gauge,
    /// Entries by which the live mirror is behind the log.
    pub(crate) live_lag: Gauge,
    /// Bytes of the log.
    pub(crate) log_bytes: Gauge,
    /// The same as a part of its limit.
    pub(crate) log_fullness: Gauge,
}

impl ShardGauges {
    pub(crate) fn of(shard: Shard) -> Self {
        let shard = shard.to_string();
        Self {
            owner: metrics::gauge!("natter_persistence_owner", "shard" => shard.clone()),
            lag_entries: metrics::gauge!("natter_persistence_lag_entries", "shard" => shard.clone()),
            lag_seconds: metrics::gauge!("natter_persistence_lag_seconds", "shard" => shard.clone()),
            search_lag: metrics::gauge!("natter_search_lag_entries", "shard" => shard.clone()),
            live_lag: metrics::gauge!("natter_live_lag_entries", "shard" => shard.clone()),
            log_bytes: metrics::gauge!("natter_log_bytes", "shard" => shard.clone()),
            log_fullness: metrics::gauge!("natter_log_fullness", "shard" => shard),
        }
    }

    /// This worker is the owner, for as long as it keeps what this returns.
    pub(crate) fn own(self) -> Owned {
        self.owner.set(1.0);
        Owned(self)
    }
}

/// See [`ShardGauges::own`]. Whoever sets a gauge has to end before this does.
pub(crate) struct Owned(ShardGauges);

impl Drop for Owned {
    fn drop(&mut self) {
        let ShardGauges {
            owner,
            lag_entries,
            lag_seconds,
            search_lag,
            live_lag,
            log_bytes,
            log_fullness,
        } = &self.0;
        let gauges =
            [owner, lag_entries, lag_seconds, search_lag, live_lag, log_bytes, log_fullness];
        for gauge in gauges {
            gauge.set(0.0);
        }
    }
}

/// Everything that a worker of so many shards shows, from now on.
pub(crate) fn register(shards: Shard) {
    for shard in 0..shards {
        drop(ShardGauges::of(shard));
    }
    drop([
        failures(),
        entries(),
        dead_letters(),
        epochs(),
        lost_to_webhooks(),
        mirrors_made_anew(),
        outbox_relayed(),
        orphans(),
        files_removed(),
        thumbnails(),
        erased(),
        expired(),
        purged_rows(),
    ]);
    drop([commit_seconds(), batch_entries()]);
}

/// Steps that failed.
pub(crate) fn failures() -> Counter {
    metrics::counter!("natter_persistence_failures_total")
}

/// Entries written.
pub(crate) fn entries() -> Counter {
    metrics::counter!("natter_persistence_entries_total")
}

/// Entries that could not be written, and were put aside.
pub(crate) fn dead_letters() -> Counter {
    metrics::counter!("natter_dead_letters_total")
}

/// Logs made anew.
pub(crate) fn epochs() -> Counter {
    metrics::counter!("natter_persistence_epochs_total")
}

/// Entries of a log that was made anew that webhooks had not looked at, and that nobody has any more.
pub(crate) fn lost_to_webhooks() -> Counter {
    metrics::counter!("natter_webhook_lost_total", "where" => "epoch")
}

/// How long writing a batch took.
pub(crate) fn commit_seconds() -> Histogram {
    metrics::histogram!("natter_persistence_commit_seconds")
}

/// How many entries one had.
pub(crate) fn batch_entries() -> Histogram {
    metrics::histogram!("natter_persistence_batch_entries")
}

/// Live mirrors made anew.
pub(crate) fn mirrors_made_anew() -> Counter {
    metrics::counter!("natter_live_made_anew_total")
}

/// Changes relayed that a handler had left.
pub(crate) fn outbox_relayed() -> Counter {
    metrics::counter!("natter_outbox_relayed_total")
}

/// Changes that wait in the outbox, counted up to a bound.
pub(crate) fn outbox_changes() -> Gauge {
    metrics::gauge!("natter_outbox_changes")
}

/// How long the oldest of them has waited.
pub(crate) fn outbox_age_seconds() -> Gauge {
    metrics::gauge!("natter_outbox_age_seconds")
}

/// Files given up, since nobody sent them.
pub(crate) fn orphans() -> Counter {
    metrics::counter!("natter_media_orphans_total")
}

/// Files removed.
pub(crate) fn files_removed() -> Counter {
    metrics::counter!("natter_media_removed_total")
}

/// Messages and reactions of deleted accounts taken back.
pub(crate) fn erased() -> Counter {
    metrics::counter!("natter_erased_total")
}

/// Deleted accounts for which something is left to do.
pub(crate) fn erasures() -> Gauge {
    metrics::gauge!("natter_erasures")
}

/// How long ago the first of them was deleted.
pub(crate) fn erasures_age_seconds() -> Gauge {
    metrics::gauge!("natter_erasures_age_seconds")
}

/// Entries that tell what of a chat has expired.
pub(crate) fn expired() -> Counter {
    metrics::counter!("natter_retention_expired_total")
}

/// Rows removed of what has expired.
pub(crate) fn purged_rows() -> Counter {
    metrics::counter!("natter_retention_purged_rows_total")
}

/// Thumbnails made.
pub(crate) fn thumbnails() -> Counter {
    metrics::counter!("natter_thumbnails_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_does_not_own_a_shard_shows_nothing_of_it() -> anyhow::Result<()> {
        natter_runtime::metrics::install()?;
        let shows = |line: &str| natter_runtime::metrics::render().lines().any(|said| said == line);
        register(8);
        assert!(shows(r#"natter_persistence_owner{shard="7"} 0"#));
        assert!(shows("natter_dead_letters_total 0"));
        let owned = ShardGauges::of(7).own();
        ShardGauges::of(7).lag_seconds.set(12.5);
        assert!(shows(r#"natter_persistence_owner{shard="7"} 1"#));
        assert!(shows(r#"natter_persistence_lag_seconds{shard="7"} 12.5"#));
        drop(owned);
        assert!(shows(r#"natter_persistence_owner{shard="7"} 0"#));
        assert!(shows(r#"natter_persistence_lag_seconds{shard="7"} 0"#));
        Ok(())
    }
}
