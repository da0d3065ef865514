//! The chain of one feed: what has been delivered, and whether the next entry continues it.
//!
//! Live entries come at most once and may be lost, repeated or late. Each names its predecessor
//! on the feed, so that a hole shows; a hole is filled by reading the log, and what arrives
//! meanwhile is held back. Pure: the caller does the reading.

use bytes::Bytes;
use natter_protocol::ids::Seq;
use time::OffsetDateTime;

/// Live entries held back for one feed while its log is read. What does not fit is dropped and
/// read again, so this bounds memory and costs nothing but a second look.
const HELD_MAX: usize = 256;

/// An entry of a feed as it arrived, live or read from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Its place.
    pub seq: Seq,
    /// The entry before it on the feed; 0 when it is not known.
    pub prev: Seq,
    /// When the broker stored it.
    pub at: OffsetDateTime,
    /// The entry's JSON.
    pub body: Bytes,
    /// W3C trace context, when the message is sampled.
    pub traceparent: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It is not known yet where the chain starts.
    Starting,
    /// Each entry must continue the chain.
    Live,
    /// The log is being read.
    Repairing,
}

/// See the module.
#[derive(Debug)]
pub struct Chain {
    last: Seq,
    /// `last` is an entry of this feed; not when the chain started at a place of the whole log.
    at_entry: bool,
    phase: Phase,
    /// Something was dropped while the log was read: it has to be read again.
    again: bool,
    /// Boxed, since most feeds hold nothing most of the time and there are many of them.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 24, a hundred thousand times")]
    held: Option<Box<Vec<Arrival>>>,
}

/// Whether the log must be read after [`Chain::last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Need {
    /// No.
    Nothing,
    /// Yes, and the chain now waits for [`Chain::repaired`].
    Repair,
}

impl Chain {
    /// A chain that holds everything back until [`Chain::start`].
    #[must_use]
    pub fn starting() -> Self {
        Self { last: 0, at_entry: false, phase: Phase::Starting, again: false, held: None }
    }

    /// The last entry delivered, or the place where the chain started.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Whether the chain has started.
    #[must_use]
    pub fn started(&self) -> bool {
        self.phase != Phase::Starting
    }

    /// Whether it has started, and nothing before its place is missing.
    #[must_use]
    pub fn live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// The chain stands at `last`: everything after it is delivered. `complete` tells that the
    /// log holds nothing after `last` but what arrives live.
    pub fn start(&mut self, last: Seq, complete: bool, out: &mut Vec<Arrival>) -> Need {
        self.last = last;
        if complete {
            self.phase = Phase::Live;
            self.release(out)
        } else {
            self.repair()
        }
    }

    /// A live entry. `dense` tells that everything on the feeds of this shard has been accounted
    /// for lately, so that an entry whose predecessor is not known continues the chain.
    pub fn offer(&mut self, arrival: Arrival, dense: bool, out: &mut Vec<Arrival>) -> Need {
        match self.phase {
            Phase::Live => {}
            Phase::Starting | Phase::Repairing => {
                self.hold(arrival);
                return Need::Nothing;
            }
        }
        if arrival.seq <= self.last {
            return Need::Nothing;
        }
        // A predecessor below our place is one from before the chain started.
        let continues = if arrival.prev == 0 { dense } else { arrival.prev <= self.last };
        if continues {
            self.deliver(arrival, out);
            return Need::Nothing;
        }
        self.hold(arrival);
        self.repair()
    }

    /// Somebody knows that the feed has reached `head`.
    pub fn expect(&mut self, head: Seq) -> Need {
        if self.last >= head {
            return Need::Nothing;
        }
        if self.phase == Phase::Live {
            return self.repair();
        }
        // What is being read may have been asked for before that.
        self.again = true;
        Need::Nothing
    }

    /// The log after [`Chain::last`], oldest first; `complete` when there was no more of it.
    pub fn repaired(
        &mut self,
        entries: Vec<Arrival>,
        complete: bool,
        out: &mut Vec<Arrival>,
    ) -> Need {
        if self.phase != Phase::Repairing {
            return Need::Nothing;
        }
        for mut entry in entries {
            if entry.seq > self.last {
                entry.prev = 0;
                self.deliver(entry, out);
            }
        }
        if !complete {
            return Need::Repair;
        }
        self.phase = Phase::Live;
        self.release(out)
    }

    fn repair(&mut self) -> Need {
        self.phase = Phase::Repairing;
        Need::Repair
    }

    fn deliver(&mut self, mut arrival: Arrival, out: &mut Vec<Arrival>) {
        if arrival.prev == 0 && self.at_entry {
            arrival.prev = self.last;
        }
        self.last = arrival.seq;
        self.at_entry = true;
        out.push(arrival);
    }

    fn hold(&mut self, arrival: Arrival) {
        let held = self.held.get_or_insert_default();
        if held.len() < HELD_MAX {
            held.push(arrival);
        } else {
            self.again = true;
        }
    }

    /// What was held back is offered again, and an unknown predecessor trusted by nobody: it came
    /// while the log was read, and something between the end of that and it may be missing.
    fn release(&mut self, out: &mut Vec<Arrival>) -> Need {
        for arrival in self.held.take().map(|held| *held).unwrap_or_default() {
            // Once one starts a repair, the rest is held again.
            let _ = self.offer(arrival, false, out);
        }
        if self.phase == Phase::Repairing || std::mem::take(&mut self.again) {
            self.repair()
        } else {
            Need::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(seq: Seq, prev: Seq) -> Arrival {
        Arrival { seq, prev, at: OffsetDateTime::UNIX_EPOCH, body: Bytes::new(), traceparent: None }
    }

    fn seqs(out: &[Arrival]) -> Vec<Seq> {
        out.iter().map(|arrival| arrival.seq).collect()
    }

    #[test]
    fn a_hole_is_filled_before_what_follows_it() {
        let (mut chain, mut out) = (Chain::starting(), Vec::new());
        assert_eq!(chain.start(5, true, &mut out), Need::Nothing);
        assert_eq!(chain.offer(entry(7, 5), true, &mut out), Need::Nothing);
        assert_eq!(chain.offer(entry(12, 9), true, &mut out), Need::Repair);
        assert_eq!(chain.offer(entry(15, 12), true, &mut out), Need::Nothing);
        assert_eq!(seqs(&out), [7]);
        assert_eq!(chain.repaired(vec![entry(9, 0), entry(12, 0)], true, &mut out), Need::Nothing);
        assert_eq!(seqs(&out), [7, 9, 12, 15]);
        assert_eq!(out[2].prev, 9);
    }

    #[test]
    fn an_unknown_predecessor_is_trusted_only_where_all_is_accounted_for() {
        let (mut chain, mut out) = (Chain::starting(), Vec::new());
        assert_eq!(chain.start(5, true, &mut out), Need::Nothing);
        assert_eq!(chain.offer(entry(8, 0), true, &mut out), Need::Nothing);
        assert_eq!(chain.offer(entry(11, 0), false, &mut out), Need::Repair);
    }

    proptest! {
        /// Against the whole truth: whatever is lost, repeated or of unknown predecessor, and
        /// whenever the log is read, every entry after the start is delivered once, in order.
        #[test]
        fn every_entry_is_delivered_once_in_order(
            gaps in prop::collection::vec(1u64..4, 1..80),
            fates in prop::collection::vec(0u8..10, 80),
            start in 0usize..20,
            delay in 0usize..12,
        ) {
            let mut log: Vec<Arrival> = Vec::new();
            let (mut chain, mut out) = (Chain::starting(), Vec::new());
            let (mut seq, mut prev) = (0, 0);
            let mut from = 0;
            let mut reading: Option<usize> = None;
            for (i, gap) in gaps.iter().enumerate() {
                seq += gap;
                let arrival = entry(seq, prev);
                log.push(arrival.clone());
                if i == start.min(gaps.len() - 1) {
                    from = prev;
                    prop_assert_eq!(chain.start(prev, false, &mut out), Need::Repair);
                    reading = Some(0);
                }
                prev = seq;
                let mut need = Need::Nothing;
                match fates[i] {
                    0 | 1 => {} // lost
                    2 => { // twice
                        need = chain.offer(arrival.clone(), false, &mut out);
                        if need == Need::Nothing { need = chain.offer(arrival, false, &mut out); }
                    }
                    3 => need = chain.offer(Arrival { prev: 0, ..arrival }, false, &mut out),
                    _ => need = chain.offer(arrival, false, &mut out),
                }
                if need == Need::Repair { prop_assert!(reading.is_none()); reading = Some(0); }
                if let Some(waited) = reading.as_mut() {
                    *waited += 1;
                    if *waited > delay {
                        let last = chain.last();
                        let read: Vec<_> = log.iter().filter(|e| e.seq > last).take(5).cloned().collect();
                        let complete = read.len() < 5;
                        reading = (chain.repaired(read, complete, &mut out) == Need::Repair).then_some(0);
                    }
                }
            }
            // The digest tells of a tail that was lost.
            if chain.expect(seq) == Need::Repair { reading = Some(0); }
            while reading.is_some() {
                let last = chain.last();
                let read: Vec<_> = log.iter().filter(|e| e.seq > last).cloned().collect();
                reading = (chain.repaired(read, true, &mut out) == Need::Repair).then_some(0);
            }
            let want: Vec<_> = log.iter().map(|e| e.seq).filter(|s| *s > from).collect();
            prop_assert_eq!(seqs(&out), want);
            for pair in out.windows(2) { prop_assert_eq!(pair[1].prev, pair[0].seq); }
        }
    }
}
