//! Which fault comes when: everything follows from a seed. Pure.

use std::{fmt, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// A gateway.
    Gateway,
    /// A persistence worker.
    Worker,
    /// A push worker.
    Push,
    /// A NATS server.
    Broker,
    /// Redis.
    Redis,
    /// Postgres.
    Postgres,
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it is.
    pub role: Role,
    /// Which of them, counted from 0.
    pub index: usize,
}

/// What is done to the cluster or its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Killed by `SIGKILL`; started again after a while.
    Kill(Target),
    /// Stopped where it stands; goes on after a while.
    Pause(Target),
    /// Ended in good order and started at once.
    Restart(Target),
    /// Postgres is killed, and away for longer than anybody waits for an answer.
    Outage,
    /// Every process ended in good order and started in turn, each once the one before is ready.
    RollingRestart,
    /// Redis forgets everything.
    FlushRedis,
    /// Clients stop reading, while much is sent to them.
    SlowSockets,
}

impl Fault {
    /// Its kind, for counting: `kill gateway`.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Kill(target) => format!("kill {}", target.role),
            Self::Pause(target) => format!("pause {}", target.role),
            Self::Restart(target) => format!("restart {}", target.role),
            Self::Outage => "long outage of postgres".to_owned(),
            Self::RollingRestart => "rolling restart".to_owned(),
            Self::FlushRedis => "flush redis".to_owned(),
            Self::SlowSockets => "slow sockets".to_owned(),
        }
    }
}

/// A fault with its place in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What happens.
    pub fault: Fault,
    /// So long after the window's begin.
    pub after: Duration,
    /// For so long, where it lasts.
    pub lasts: Duration,
}

/// One fault or two, then quiet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// What happens.
    pub faults: Vec<Planned>,
    /// How long all is well after it.
    pub calm: Duration,
}

/// How many there are of what comes in several.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Gateways.
    pub gateways: usize,
    /// Workers.
    pub workers: usize,
    /// NATS servers.
    pub brokers: usize,
}

const ROLES: [Role; 6] =
    [Role::Gateway, Role::Worker, Role::Push, Role::Broker, Role::Redis, Role::Postgres];

/// Longest that something is away or stands still: beyond a worker's lease, a publish's patience
/// and the time that a cluster of brokers takes over another leader.
const LONGEST: Duration = Duration::from_secs(9);

/// How long Postgres is away in an outage, and how many windows have one of them. Shorter than
/// clients insist, which is 2 minutes.
const OUTAGE: [Duration; 2] = [Duration::from_mins(1), Duration::from_secs(75)];
const OUTAGE_EVERY: usize = 30;

/// Windows without end.
#[derive(Debug)]
pub struct Schedule {
    rng: StdRng,
    size: Size,
    /// What has not had its turn since the last shuffle.
    deck: Vec<Fault>,
    pair: bool,
    given: usize,
}

impl Schedule {
    /// The same seed and size give the same windows.
    #[must_use]
    pub fn new(seed: u64, size: Size) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), size, deck: Vec::new(), pair: true, given: 0 }
    }

    /// Every kind once before any comes again.
    fn deal(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = vec![Fault::RollingRestart, Fault::FlushRedis, Fault::SlowSockets];
            for role in ROLES {
                for fault in [Fault::Kill, Fault::Pause, Fault::Restart] {
                    let target = self.target(role);
                    self.deck.push(fault(target));
                }
            }
            self.deck.shuffle(&mut self.rng);
        }
        self.deck.pop().unwrap_or(Fault::FlushRedis)
    }

    /// Alone: nothing else heals while Postgres is away.
    fn outage(&mut self) -> Window {
        let lasts = self.span(OUTAGE[0], OUTAGE[1]);
        let planned = Planned { fault: Fault::Outage, after: Duration::ZERO, lasts };
        Window { faults: vec![planned], calm: Duration::from_secs(3) }
    }

    fn target(&mut self, role: Role) -> Target {
        let count = match role {
            Role::Gateway => self.size.gateways,
            Role::Worker => self.size.workers,
            Role::Broker => self.size.brokers,
            Role::Push | Role::Redis | Role::Postgres => 1,
        };
        Target { role, index: self.rng.random_range(0..count.max(1)) }
    }

    fn span(&mut self, from: Duration, to: Duration) -> Duration {
        Duration::from_millis(
            self.rng.random_range(from.as_millis() as u64..=to.as_millis() as u64),
        )
    }
}

impl Iterator for Schedule {
    type Item = Window;

    fn next(&mut self) -> Option<Window> {
        self.given += 1;
        if self.given.is_multiple_of(OUTAGE_EVERY) {
            return Some(self.outage());
        }
        self.pair = !self.pair;
        let count = if self.pair { 2 } else { 1 };
        let mut faults = Vec::with_capacity(count);
        for n in 0..count {
            let fault = self.deal();
            // A short one is as likely as a long one: they meet different things half done.
            let longest = if self.rng.random_bool(0.5) { LONGEST / 4 } else { LONGEST };
            let lasts = self.span(Duration::from_millis(100), longest);
            let after = self.span(Duration::ZERO, Duration::from_secs(2 * n as u64));
            faults.push(Planned { fault, after, lasts });
        }
        let calm = self.span(Duration::from_millis(200), Duration::from_secs(3));
        Some(Window { faults, calm })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "gateway",
            Self::Worker => "worker",
            Self::Push => "push",
            Self::Broker => "broker",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        })
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fault.kind())?;
        match self.fault {
            Fault::Kill(target) | Fault::Pause(target) | Fault::Restart(target) => {
                write!(f, " {}", target.index + 1)?;
            }
            Fault::Outage | Fault::RollingRestart | Fault::FlushRedis | Fault::SlowSockets => {}
        }
        match self.fault {
            Fault::Kill(_) | Fault::Pause(_) | Fault::Outage => {
                write!(f, " for {:.1} s", self.lasts.as_secs_f32())
            }
            Fault::Restart(_) | Fault::RollingRestart | Fault::FlushRedis | Fault::SlowSockets => {
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SIZE: Size = Size { gateways: 3, workers: 2, brokers: 3 };

    #[test]
    fn a_seed_gives_the_same_windows_again_and_another_gives_others() {
        let windows = |seed| Schedule::new(seed, SIZE).take(50).collect::<Vec<_>>();
        assert_eq!(windows(7), windows(7));
        assert_ne!(windows(7), windows(8));
    }

    #[test]
    fn every_kind_has_its_turn_alone_and_in_pairs() {
        let windows: Vec<_> = Schedule::new(7, SIZE).take(600).collect();
        for count in [1, 2] {
            let some = windows.iter().filter(|window| window.faults.len() == count);
            let kinds: HashSet<_> =
                some.flat_map(|window| window.faults.iter().map(|p| p.fault.kind())).collect();
            // A long outage comes alone.
            assert_eq!(kinds.len(), if count == 1 { 22 } else { 21 }, "{kinds:?}");
        }
        // Also early on: fourteen windows are a deck of twenty-one.
        let early = windows.iter().take(14).flat_map(|window| &window.faults);
        assert_eq!(early.map(|p| p.fault.kind()).collect::<HashSet<_>>().len(), 21);
    }
}
