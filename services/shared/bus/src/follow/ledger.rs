//! Up to where everything on the followed feeds of one shard has been delivered: the verified
//! position, which cursors rest on.
//!
//! Each digest claims a range of the log and names the feeds that it touches; the claim holds once
//! those that are followed have got there. Claims count only in a row without a hole: after a
//! hole the gate is shut until a check of all heads vouches for what no digest has told. Pure.

use std::collections::VecDeque;

use natter_protocol::{feed::Feed, ids::Seq};

/// Claims that wait; beyond it the newest two become one.
const CLAIMS: usize = 32;
/// Feeds that claims wait for; beyond it a check of heads is cheaper.
const BEHIND: usize = 100_000;

/// Everything up to `to` is delivered once these feeds have got so far.
#[derive(Debug)]
struct Claim {
    to: Seq,
    behind: Vec<(Feed, Seq)>,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// Everything up to here has been delivered; 0 until that is known.
    verified: Seq,
    shut: bool,
    claims: VecDeque<Claim>,
    waiting: usize,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { verified: 0, shut: true, claims: VecDeque::new(), waiting: 0 }
    }
}

impl Ledger {
    /// A digest that continues the one before reaches `to`, and `behind` have not got there yet.
    /// Answers whether there is room for it; without, only a check of heads helps.
    #[must_use]
    pub fn claim(&mut self, to: Seq, behind: Vec<(Feed, Seq)>) -> bool {
        if self.waiting + behind.len() > BEHIND {
            self.shut();
            return false;
        }
        self.waiting += behind.len();
        let full = self.claims.len() >= CLAIMS;
        match self.claims.back_mut() {
            Some(last) if last.behind.is_empty() => *last = Claim { to, behind },
            Some(last) if full => {
                last.to = to;
                last.behind.extend(behind);
            }
            _ => self.claims.push_back(Claim { to, behind }),
        }
        true
    }

    /// Everything up to here has been delivered; 0 until that is known.
    #[must_use]
    pub fn verified(&self) -> Seq {
        self.verified
    }

    /// Something may have happened that no digest told.
    pub fn shut(&mut self) {
        self.shut = true;
        self.claims.clear();
        self.waiting = 0;
    }

    /// A check that began when the log ended at `to` found the heads of all followed feeds;
    /// `behind` have not got there yet.
    pub fn vouch(&mut self, to: Seq, behind: Vec<(Feed, Seq)>) {
        self.shut = false;
        self.waiting += behind.len();
        self.claims.push_front(Claim { to, behind });
    }

    /// Looks again at what claims wait for. Answers the new verified position, if it has moved.
    pub fn advance(&mut self, reached: impl Fn(Feed, Seq) -> bool) -> Option<Seq> {
        let before = self.verified;
        while !self.shut
            && let Some(first) = self.claims.front_mut()
        {
            let waited = first.behind.len();
            first.behind.retain(|(feed, seq)| !reached(*feed, *seq));
            self.waiting -= waited - first.behind.len();
            if !first.behind.is_empty() {
                break;
            }
            self.verified = self.verified.max(first.to);
            self.claims.pop_front();
        }
        (self.verified > before).then_some(self.verified)
    }
}

#[cfg(test)]
mod tests {
    use natter_protocol::ids::ChatId;

    use super::*;

    #[test]
    fn claims_hold_in_a_row_once_their_feeds_are_there() {
        let (a, b) = (Feed::chat(0, ChatId::generate()), Feed::chat(0, ChatId::generate()));
        let mut ledger = Ledger::default();
        assert!(ledger.claim(10, vec![]));
        assert_eq!(ledger.advance(|_, _| true), None, "nobody has vouched for what was before");
        ledger.vouch(7, vec![(a, 5)]);
        assert_eq!(ledger.advance(|_, _| false), None);
        assert_eq!(ledger.advance(|_, seq| seq <= 5), Some(10));
        assert!(ledger.claim(20, vec![(a, 15), (b, 18)]));
        assert!(ledger.claim(30, vec![(a, 25)]));
        assert_eq!(ledger.advance(|feed, _| feed == a), None);
        assert_eq!(ledger.advance(|feed, seq| feed == b && seq <= 18), Some(20));
        ledger.shut();
        assert!(ledger.claim(40, vec![]));
        assert_eq!(ledger.advance(|_, _| true), None);
        ledger.vouch(50, vec![]);
        assert_eq!(ledger.advance(|_, _| true), Some(50), "and it never goes back");
        assert_eq!(ledger.verified, 50);
    }

    #[test]
    fn what_waits_is_bounded_and_loses_nothing() {
        let feed = Feed::chat(0, ChatId::generate());
        let mut ledger = Ledger::default();
        ledger.vouch(0, vec![]);
        for to in 1..=1_000 {
            assert!(ledger.claim(to, vec![(feed, to)]));
        }
        assert!(ledger.claims.len() <= CLAIMS + 1);
        assert_eq!(ledger.advance(|_, seq| seq < 1_000), Some(CLAIMS as Seq - 1));
        assert_eq!(ledger.advance(|_, _| true), Some(1_000));
        assert_eq!(ledger.waiting, 0);
        assert!(!ledger.claim(2_000, vec![(feed, 2_000); BEHIND + 1]));
        assert_eq!(ledger.advance(|_, _| true), None);
    }
}
