//! Tells gateways which feeds the shard's log touched, range by range, without a hole.
//!
//! A range is what was read, written or not: a gateway compares it with what it heard live, and
//! reading goes on for a while when Postgres does not take anything (see `ahead`). Each range goes
//! out once; a gateway that misses one, or hears none, looks up its feeds' heads.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use natter_bus::{Bus, BusError, Raw};
use natter_protocol::{
    feed::{Digest, FeedKind},
    ids::{Seq, Shard},
};
use uuid::Uuid;

/// While there is traffic, the time from one digest to the next.
const PACE: Duration = Duration::from_millis(200);
/// Without traffic, an empty one comes this often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Feeds in one digest, which keeps it well below the broker's limit of 1 MB.
const HEADS: usize = 5_000;

/// Collects what is read until it is time to tell.
#[derive(Debug)]
pub(crate) struct DigestWriter {
    shard: Shard,
    epoch: i32,
    from: Seq,
    to: Seq,
    heads: HashMap<(FeedKind, Uuid), Seq>,
    last: Option<Instant>,
}

impl DigestWriter {
    /// Starts after `from`.
    pub(crate) fn new(shard: Shard, epoch: i32, from: Seq) -> Self {
        Self { shard, epoch, from, to: from, heads: HashMap::new(), last: None }
    }

    /// Takes in what was read, in order; publishes first when it would not fit.
    ///
    /// # Errors
    /// When that publish fails: what was read is then not taken in.
    pub(crate) fn note(&mut self, bus: &Bus, read: &[Raw], now: Instant) -> Result<(), BusError> {
        if self.heads.len() + read.len() > HEADS {
            self.publish(bus, now)?;
        }
        for raw in read {
            if raw.seq != self.to + 1 {
                // The log has cut off what lies between, so nobody can say what it touched.
                self.publish(bus, now)?;
                (self.from, self.to) = (raw.seq - 1, raw.seq - 1);
            }
            self.to = raw.seq;
            if let Some(feed) = raw.feed {
                self.heads.insert((feed.kind, feed.id), raw.seq);
            }
        }
        Ok(())
    }

    /// How long until a digest is due, given that nothing more is read.
    pub(crate) fn due_in(&self, now: Instant) -> Duration {
        let pause = if self.to > self.from { PACE } else { HEARTBEAT };
        self.last.map_or(Duration::ZERO, |last| (last + pause).saturating_duration_since(now))
    }

    /// Publishes when it is time.
    ///
    /// # Errors
    /// When the connection does not take it: the range stays, and grows.
    pub(crate) fn publish_when_due(&mut self, bus: &Bus, now: Instant) -> Result<(), BusError> {
        if self.due_in(now).is_zero() { self.publish(bus, now) } else { Ok(()) }
    }

    fn publish(&mut self, bus: &Bus, now: Instant) -> Result<(), BusError> {
        bus.publish_digest(self.shard, &self.digest())?;
        self.from = self.to;
        self.heads.clear();
        self.last = Some(now);
        Ok(())
    }

    fn digest(&self) -> Digest {
        let heads = self.heads.iter().map(|((kind, id), seq)| (*kind, *id, *seq)).collect();
        Digest { epoch: self.epoch, from: self.from, to: self.to, heads }
    }
}
