use std::{sync::LazyLock, time::Duration};

use redis::Script;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::{PresenceClient, PresenceError, online::script};

static HEARTBEAT: LazyLock<Script> = script!("lua/heartbeat.lua");

/// Wait before a heartbeat that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What Redis knew of this node before a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// It lived already.
    Renewed,
    /// It did not: it is new, was silent for too long, or Redis has lost its memory. The node
    /// should refresh its devices now.
    Begun,
}

impl PresenceClient {
    /// Tells that this node lives, for another `node_ttl`. Its devices count only while it does,
    /// so beat before the first device connects.
    pub async fn heartbeat(&self) -> Result<Heartbeat, PresenceError> {
        let mut beat = HEARTBEAT.key(self.node_key());
        beat.arg(millis(self.config().node_ttl));
        let before: bool = self.script("heartbeat", &beat).await?;
        Ok(if before { Heartbeat::Renewed } else { Heartbeat::Begun })
    }

    /// Beats until it is dropped, every three tenths of a `node_ttl`: two beats in a row may fail. A
    /// beat that failed is soon repeated.
    /// Calls `begun` whenever the node's life begins anew, the first time included. Drop the
    /// future to stop, then [`leave`](Self::leave).
    pub async fn keep_alive(&self, mut begun: impl FnMut()) {
        let mut beats = interval(self.config().node_ttl * 3 / 10);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let beat = loop {
                match self.heartbeat().await {
                    Ok(beat) => break beat,
                    // Logged once, where the circuit opens.
                    Err(_) => sleep(RETRY.min(beats.period())).await,
                }
            };
            if beat == Heartbeat::Begun {
                begun();
            }
        }
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), PresenceError> {
        let _: String = self.command("ping", &redis::cmd("PING")).await?;
        Ok(())
    }

    /// Ends this node's life at once: what devices it still has are offline.
    pub async fn leave(&self) -> Result<(), PresenceError> {
        self.command("leave", redis::cmd("DEL").arg(self.node_key())).await
    }

    fn node_key(&self) -> String {
        format!("node:{}", self.life())
    }
}

/// For Redis, which wants at least 1.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1)
}
