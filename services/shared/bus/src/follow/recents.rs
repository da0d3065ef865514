//! The feeds of one shard touched recently, each with its last entry: so that a feed's head
//! costs no read of the log, which would load a block from disk.

use std::collections::{HashMap, VecDeque};

use natter_protocol::{
    feed::{Digest, FeedKind},
    ids::Seq,
};
use uuid::Uuid;

/// Feeds remembered for one shard; beyond it the oldest are forgotten. About 60 bytes each.
const FEEDS_MAX: usize = 200_000;

type Key = (FeedKind, Uuid);

/// Complete for the part of the log in (`from`, `to`].
#[derive(Debug, Default)]
pub struct Recents {
    epoch: i32,
    from: Seq,
    to: Seq,
    heads: HashMap<Key, Seq>,
    /// By age, for forgetting; a feed touched again leaves a stale pair behind.
    order: VecDeque<(Seq, Key)>,
}

impl Recents {
    /// Takes a digest in. Answers whether it continues the one before: if not, something may
    /// have happened that no digest told, and what was remembered is forgotten.
    pub fn extend(&mut self, digest: &Digest) -> bool {
        // Real epochs count from 1.
        let continues = digest.epoch == self.epoch && digest.from <= self.to;
        if !continues {
            *self =
                Self { epoch: digest.epoch, from: digest.from, to: digest.from, ..Self::default() };
        }
        for &(kind, id, seq) in &digest.heads {
            let head = self.heads.entry((kind, id)).or_default();
            if seq > *head {
                *head = seq;
                self.order.push_back((seq, (kind, id)));
            }
        }
        self.to = self.to.max(digest.to);
        self.forget();
        continues
    }

    /// The feed's last entry, given that it was `known` when the log up to `covered` had been
    /// looked through; `None` when what is remembered does not reach back that far.
    #[must_use]
    pub fn head(&self, kind: FeedKind, id: Uuid, known: Seq, covered: Seq) -> Option<Seq> {
        if self.epoch == 0 || covered < self.from {
            return None;
        }
        Some(self.heads.get(&(kind, id)).map_or(known, |head| known.max(*head)))
    }

    /// Whether digests have told of everything up to `seq`.
    #[must_use]
    pub fn reaches(&self, seq: Seq) -> bool {
        self.epoch != 0 && self.to >= seq
    }

    fn forget(&mut self) {
        while self.order.len() > FEEDS_MAX {
            let Some((seq, key)) = self.order.pop_front() else { return };
            if self.heads.get(&key) == Some(&seq) {
                self.heads.remove(&key);
            }
            // From here on only what lies after it is complete.
            self.from = self.from.max(seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(from: Seq, to: Seq, heads: Vec<(FeedKind, Uuid, Seq)>) -> Digest {
        Digest { epoch: 1, from, to, heads }
    }

    #[test]
    fn heads_are_known_where_digests_have_no_hole() {
        let (a, b) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let mut recents = Recents::default();
        assert_eq!(recents.head(FeedKind::Chat, a, 3, 100), None);
        assert!(!recents.extend(&digest(10, 20, vec![(FeedKind::Chat, a, 15)])));
        assert!(recents.extend(&digest(20, 30, vec![(FeedKind::Chat, a, 22)])));
        assert_eq!(recents.head(FeedKind::Chat, a, 3, 12), Some(22));
        assert_eq!(recents.head(FeedKind::Chat, b, 3, 12), Some(3));
        assert_eq!(recents.head(FeedKind::Chat, b, 3, 9), None);
        assert!(!recents.extend(&digest(40, 50, vec![])));
        assert_eq!(recents.head(FeedKind::Chat, a, 3, 12), None);
        assert_eq!(recents.head(FeedKind::Chat, a, 22, 45), Some(22));
    }
}
