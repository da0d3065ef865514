//! The Prometheus recorder behind the `metrics` macros.
//!
//! Histograms are real Prometheus histograms, so that they can be added up over nodes. Their
//! buckets follow the name: `*_seconds`, `*_bytes`, anything else counts things.
//!
//! Names begin with `natter_`, end with a base unit, those of counters with `_total`; labels have
//! few values, which the code knows. What a program counts is there from its start, with 0, so that
//! the first step is one that `increase` sees.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// From half a millisecond (a delivery on the same node) to ten seconds (every timeout).
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const BYTES: &[f64] = &[64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0];
const COUNTS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];

/// Histogram samples wait in memory until upkeep or a scrape folds them into the buckets, so
/// this bounds what a process that nobody scrapes keeps.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
static INSTALLING: Mutex<()> = Mutex::new(());

/// Installs the recorder for this process and starts its upkeep. Calling it again does nothing,
/// so that several services may run in one process (as tests do).
///
/// # Errors
/// When something else has installed a recorder before.
pub fn install() -> Result<(), BuildError> {
    // Of two first calls one waits for the other.
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    if RECORDER.get().is_some() {
        return Ok(());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES)?
        .set_buckets(COUNTS)?
        .install_recorder()?;
    let upkeep = handle.clone();
    // A thread rather than a task: it must outlive whichever runtime came first.
    thread::spawn(move || {
        loop {
            thread::sleep(UPKEEP);
            upkeep.run_upkeep();
        }
    });
    RECORDER.get_or_init(|| handle);
    metrics::gauge!("natter_build_info", "version" => crate::VERSION).set(1.0);
    Ok(())
}

/// All metrics in Prometheus' text format; empty before [`install`].
pub fn render() -> String {
    RECORDER.get().map(PrometheusHandle::render).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_get_buckets_and_installing_twice_is_fine() -> anyhow::Result<()> {
        install()?;
        install()?;
        metrics::histogram!("test_latency_seconds").record(0.003);
        metrics::histogram!("test_batch_size").record(42.0);
        let text = render();
        assert!(text.contains(r#"test_latency_seconds_bucket{le="0.005"} 1"#), "{text}");
        assert!(text.contains(r#"test_batch_size_bucket{le="50"} 1"#), "{text}");
        assert!(text.contains("natter_build_info{version="), "{text}");
        Ok(())
    }
}
