use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Whether this node may get traffic: a cloneable handle on named conditions.
///
/// Ready means: [`started`](Self::started) was called, every condition set is true, and
/// [`draining`](Self::draining) was not called. A node may well serve while it is not ready;
/// readiness only tells load balancers where to send what is new.
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

    /// Sets a condition; the node is ready only while all of them are true.
    ///
    /// Logs when the value changes. Names are the code's own and few (`"nats"`, `"postgres"`);
    /// they show in `/ready` while false.
    pub fn set(&self, name: impl Into<Cow<'static, str>>, ok: bool) {
        let name = name.into();
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
        state.started && !state.draining && state.conditions.values().all(|ok| *ok)
    }

    /// Why the node is not ready: `starting`, `draining`, names of failing conditions.
    /// Empty when it is ready.
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
    fn ready_needs_the_start_and_every_condition() {
        let health = Health::new();
        assert_eq!(health.reasons(), ["starting"]);
        health.set("nats", false);
        health.set("postgres", true);
        health.started();
        assert_eq!(health.reasons(), ["nats"]);
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
