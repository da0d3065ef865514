//! Faults put into what was seen, each of which must turn the verdict red: a checker that passes
//! everything is worth nothing.

use std::{collections::HashMap, str::FromStr};

use natter_protocol::ids::{ChatId, MessageId, Seq};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use crate::observations::{Attempt, Observations, Outcome, Seen};

/// A fault of the observer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeededFault {
    /// One entry that a device got is forgotten.
    Drop,
    /// One is counted twice.
    Duplicate,
    /// Two neighbours of a chat change places.
    Swap,
    /// A message counts as acked that was not stored.
    EarlyAck,
}

impl FromStr for SeededFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "drop" => Self::Drop,
            "duplicate" => Self::Duplicate,
            "swap" => Self::Swap,
            "early-ack" => Self::EarlyAck,
            _ => return Err("drop, duplicate, swap or early-ack".to_owned()),
        })
    }
}

/// Puts a fault in, at a place that `seed` decides. False when there is nothing to spoil.
pub fn spoil(seen: &mut Observations, fault: SeededFault, seed: u64) -> bool {
    let mut rng = StdRng::seed_from_u64(seed);
    match fault {
        SeededFault::EarlyAck => {
            let Some(attempt) = seen.attempts.iter().choose(&mut rng) else { return false };
            let mut attempt: Attempt = attempt.clone();
            attempt.text.client_msg_id = format!("never stored {}", rng.random::<u32>());
            let (id, at) = (MessageId::generate(), attempt.invoked + 1);
            attempt.outcome = Outcome::Acked { id, seq: 1, duplicate: false, at };
            attempt.turn = None;
            seen.attempts.push(attempt);
            true
        }
        SeededFault::Drop | SeededFault::Duplicate | SeededFault::Swap => {
            let sound = seen.devices.iter_mut().filter(|device| device.revoked.is_none());
            let Some(device) = sound.filter(|d| pairs(&d.seen).next().is_some()).choose(&mut rng)
            else {
                return false;
            };
            let Some((first, second)) = pairs(&device.seen).choose(&mut rng) else { return false };
            match fault {
                SeededFault::Drop => drop(device.seen.remove(first)),
                SeededFault::Duplicate => {
                    let again = device.seen[first].clone();
                    device.seen.insert(second, again);
                }
                SeededFault::Swap | SeededFault::EarlyAck => device.seen.swap(first, second),
            }
            true
        }
    }
}

/// Neighbouring entries of one chat on one connection, by their places. None of those that the
/// device has also fetched, or may lack: there a fault would be none.
fn pairs(seen: &[(u64, Seen)]) -> impl Iterator<Item = (usize, usize)> {
    let mut fetched: HashMap<ChatId, Seq> = HashMap::new();
    for (_, seen) in seen {
        let (chat, end) = match seen {
            Seen::Fetched(chat, entries) => (chat, entries.last().map_or(0, |entry| entry.seq)),
            Seen::Lost(chat) => (chat, Seq::MAX),
            Seen::Connected | Seen::Entry(..) | Seen::Added(_) => continue,
        };
        let known = fetched.entry(*chat).or_default();
        *known = (*known).max(end);
    }
    let neighbours = seen.windows(2).enumerate();
    neighbours.filter_map(move |(place, pair)| match (&pair[0].1, &pair[1].1) {
        (Seen::Entry(chat, one), Seen::Entry(other, two)) if chat == other => {
            let end = fetched.get(chat).copied().unwrap_or(0);
            (one.seq.min(two.seq) > end).then_some((place, place + 1))
        }
        _ => None,
    })
}
