//! How the streams and the server are, for an operator: nothing here changes anything.

use natter_protocol::ids::{Seq, Shard};
use time::OffsetDateTime;

use crate::{
    client::Bus,
    error::BusError,
    streams::{LogState, live_start, log_state},
    subjects,
};

/// How a shard's log stands, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// As its leader says.
    pub state: LogState,
    /// The server that leads it; none while there is no leader, and where NATS is no cluster.
    pub leader: Option<String>,
    /// Servers that are to hold it.
    pub replicas: usize,
    /// Servers that hold all of it, the leader included.
    pub current: usize,
}

impl Bus {
    /// The server's version; none without a connection.
    #[must_use]
    pub fn server_version(&self) -> Option<String> {
        let version = self.connected().then(|| self.inner.client.server_info().version)?;
        (!version.is_empty()).then_some(version)
    }

    /// How a shard's log stands; `None` when it does not exist.
    ///
    /// # Errors
    /// When its leader does not answer, in 5 s.
    pub async fn log_report(&self, shard: Shard) -> Result<Option<LogReport>, BusError> {
        let Some(info) = self.stream_info(&subjects::log_stream(shard)).await? else {
            return Ok(None);
        };
        let state = log_state(&info);
        let (leader, followers) = info.cluster.map_or((None, 0), |cluster| {
            let current = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline);
            (cluster.leader, current.count())
        });
        let replicas = info.config.num_replicas.max(1);
        Ok(Some(LogReport { state, leader, replicas, current: followers + 1 }))
    }

    /// Up to where a shard's live mirror has come; `None` when there is none.
    ///
    /// # Errors
    /// When nobody answers for it, in 5 s.
    pub async fn mirrored_to(&self, shard: Shard) -> Result<Option<Seq>, BusError> {
        let info = self.stream_info(&subjects::live_stream(shard)).await?;
        Ok(info.map(|info| info.state.last_sequence.max(live_start(&info).saturating_sub(1))))
    }

    /// When a shard's log stored the first entry that it holds after `after`.
    ///
    /// # Errors
    /// When the log's leader does not answer, in 5 s.
    pub async fn stored_after(
        &self,
        shard: Shard,
        after: Seq,
    ) -> Result<Option<OffsetDateTime>, BusError> {
        let all = subjects::stored_all(shard);
        Ok(self.next_of(shard, &all, after.saturating_add(1)).await?.map(|raw| raw.at))
    }
}
