//! What may be lost: signals, and the digests that gateways check their feeds against.

use natter_protocol::{
    feed::{Digest, Feed, Signal},
    ids::Shard,
};

use crate::{client::Bus, error::BusError, subjects};

impl Bus {
    /// Sends a signal to whoever follows the feed now. At most once; never stored.
    ///
    /// # Errors
    /// When it cannot be handed to the connection at once.
    pub fn signal(&self, feed: Feed, signal: &Signal) -> Result<(), BusError> {
        self.hand_over(subjects::signal(feed), serde_json::to_vec(signal)?.into())
    }

    /// Sends a shard's digest; for the shard's owner alone.
    ///
    /// # Errors
    /// When it cannot be handed to the connection at once.
    pub fn publish_digest(&self, shard: Shard, digest: &Digest) -> Result<(), BusError> {
        self.hand_over(subjects::digest(shard), serde_json::to_vec(digest)?.into())
    }
}
