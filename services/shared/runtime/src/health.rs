use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether this node may get traffic: a cloneable handle on named conditions.
///
/// Ready means: [`started`](Self::started) was called, and [`draining`](Self::draining) was not.
/// Conditions do not count: an outage of what all nodes rest on is seen by all at once, and would
/// empty the load balancer and send everybody away. They are told beside readiness, and measured
/// (`natter_condition`).
#[derive(Clone, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    started: bool,
    draining: bool,
    conditions: BTreeMap<Cow<'static, str>, bool>,
}

impl Health {
    /// A node that is starting: not ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a condition.
    ///
    /// Logs when the value changes. Names are the code's own and few (`"nats"`, `"postgres"`);
    /// they show in `/ready` while false.
    pub fn set(&self, name: impl Into<Cow<'static, str>>, ok: bool) {
        let name = name.into();
        ::metrics::gauge!("natter_condition", "name" => name.to_string())
            .set(f64::from(u8::from(ok)));
        let before = self.lock().conditions.insert(name.clone(), ok);
        match (before, ok) {
            (Some(false), true) => tracing::info!(condition = %name, "condition holds again"),
            (None | Some(true), false) => tracing::warn!(condition = %name, "condition fails"),
            _ => {}
        }
    }

    /// Declares the start complete. Until then `/ready` answers `starting`.
    pub fn started(&self) {
        self.lock().started = true;
    }

    /// Declares that the node is going away, for good: it is never ready again.
    pub fn draining(&self) {
        self.lock().draining = true;
    }

    /// Whether the node wants new traffic.
    pub fn is_ready(&self) -> bool {
        let state = self.lock();
        state.started && !state.draining
    }

    /// Whether the start is complete; for good.
    pub fn is_started(&self) -> bool {
        self.lock().started
    }

    /// What is to be known of the node: `starting`, `draining`, names of failing conditions.
    /// Empty when all is well.
    pub fn reasons(&self) -> Vec<String> {
        let state = self.lock();
        let mut reasons = Vec::new();
        if !state.started {
            reasons.push("starting".to_owned());
        }
        if state.draining {
            reasons.push("draining".to_owned());
        }
        let failing = state.conditions.iter().filter(|(_, ok)| !**ok);
        reasons.extend(failing.map(|(name, _)| name.to_string()));
        reasons
    }

    // Every write leaves the state whole, so a poisoned lock is as good as any other.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("reasons", &self.reasons()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_the_start_and_tells_what_fails() {
        let health = Health::new();
        assert_eq!(health.reasons(), ["starting"]);
        health.set("nats", false);
        health.set("postgres", true);
        health.started();
        assert_eq!(health.reasons(), ["nats"]);
        assert!(health.is_ready(), "an outage that all nodes see empties no load balancer");
        health.clone().set("nats", true);
        assert!(health.is_ready());
        assert!(health.reasons().is_empty());
    }

    #[test]
    fn a_draining_node_is_never_ready_again() {
        let health = Health::new();
        health.started();
        health.draining();
        health.started();
        assert_eq!(health.reasons(), ["draining"]);
        assert!(!health.is_ready());
    }
}
