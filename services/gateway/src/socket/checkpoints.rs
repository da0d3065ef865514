//! Checkpoints of a Socket.IO client that wants to be asked, after what it was sent, whether it has
//! dealt with it: it acknowledges at its own pace, and is sent no more than it keeps up with.

use serde::{Deserialize, Serialize};

/// Checkpoints that may be unacknowledged before what is live waits. Each stands for at most as many
/// events as are written at once.
const UNACKNOWLEDGED: u64 = 4;

/// What was asked, and what has been answered.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Checkpoints {
    /// The number of the next.
    next: u64,
    /// All before it are acknowledged.
    acknowledged: u64,
}

impl Checkpoints {
    /// The number to ask with.
    pub fn ask(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Whoever has dealt with what came before this one has dealt with what came before that.
    pub fn acknowledged(&mut self, number: u64) {
        if number < self.next {
            self.acknowledged = self.acknowledged.max(number + 1);
        }
    }

    /// The client has to catch up first.
    #[must_use]
    pub fn full(&self) -> bool {
        self.next - self.acknowledged >= UNACKNOWLEDGED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_acknowledges_nothing_is_waited_for() {
        let mut checkpoints = Checkpoints::default();
        for number in 0..UNACKNOWLEDGED {
            assert!(!checkpoints.full());
            assert_eq!(checkpoints.ask(), number);
        }
        assert!(checkpoints.full());
        checkpoints.acknowledged(7);
        assert!(checkpoints.full(), "nobody asked with that");
        checkpoints.acknowledged(2);
        assert_eq!(checkpoints.ask(), 4);
        checkpoints.acknowledged(0);
        assert_eq!(checkpoints.ask(), 5);
        assert!(!checkpoints.full(), "an answer stands for those before, and is not taken back");
    }
}
