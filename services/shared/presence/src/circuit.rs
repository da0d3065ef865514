use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::node::millis;

/// Decides whether a call may touch the network.
///
/// After a failure every call is refused for `retry_after`; then one call at a time probes, and
/// the others stay refused until it has come back. So while Redis is away it costs one slow
/// call now and then, not one for every caller. Times are since an instant of the owner's choice.
#[derive(Debug)]
pub(crate) struct Circuit {
    /// 0 while closed; else calls are refused until so many ms.
    refused_until: AtomicU64,
    retry_after: Duration,
    /// How long a probe may take; a probe whose caller was cancelled is given up after it.
    probe_limit: Duration,
}

/// What a result did to the circuit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Opened,
    Closed,
    Stayed,
}

impl Circuit {
    pub(crate) fn new(retry_after: Duration, probe_limit: Duration) -> Self {
        Self { refused_until: AtomicU64::new(0), retry_after, probe_limit }
    }

    /// Whether a call may go ahead. While open, a `true` makes its caller the probe.
    pub(crate) fn admits(&self, now: Duration) -> bool {
        let until = self.refused_until.load(Ordering::Acquire);
        if until == 0 {
            return true;
        }
        if millis(now) < until {
            return false;
        }
        // Callers that see the refusal lapse race for the probe; one wins.
        let probe_until = millis(now + self.probe_limit);
        self.refused_until
            .compare_exchange(until, probe_until, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    pub(crate) fn succeeded(&self) -> Turn {
        // The common case must not write: every caller shares this cache line.
        if self.refused_until.load(Ordering::Acquire) == 0 {
            return Turn::Stayed;
        }
        match self.refused_until.swap(0, Ordering::AcqRel) {
            0 => Turn::Stayed,
            _ => Turn::Closed,
        }
    }

    pub(crate) fn failed(&self, now: Duration) -> Turn {
        let until = millis(now + self.retry_after);
        match self.refused_until.swap(until, Ordering::AcqRel) {
            0 => Turn::Opened,
            _ => Turn::Stayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_failure_refuses_for_a_while_then_one_probes() {
        let circuit = Circuit::new(ms(500), ms(1_000));
        assert!(circuit.admits(ms(0)));
        assert_eq!(circuit.failed(ms(0)), Turn::Opened);
        assert!(!circuit.admits(ms(499)));
        assert!(circuit.admits(ms(500)), "the probe");
        assert!(!circuit.admits(ms(500)), "only one");
        assert_eq!(circuit.failed(ms(600)), Turn::Stayed);
        assert!(!circuit.admits(ms(1_099)));
        assert!(circuit.admits(ms(1_100)));
        assert_eq!(circuit.succeeded(), Turn::Closed);
        assert!(circuit.admits(ms(1_100)) && circuit.admits(ms(1_100)));
        assert_eq!(circuit.succeeded(), Turn::Stayed);
    }

    #[test]
    fn a_probe_that_never_came_back_is_followed_by_another() {
        let circuit = Circuit::new(ms(500), ms(1_000));
        circuit.failed(ms(0));
        assert!(circuit.admits(ms(500)));
        assert!(!circuit.admits(ms(1_499)));
        assert!(circuit.admits(ms(1_500)));
    }
}
