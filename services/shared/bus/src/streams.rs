//! The streams themselves: made, looked at, cut off. Only the migration and the shard's owner
//! create them; a gateway only asks how they are.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    stream::{
        Config, DeleteStatus, DiscardPolicy, Info, PurgeResponse, Republish, Source, StorageType,
        SubjectTransform,
    },
};
use natter_protocol::{
    feed::Digest,
    ids::{Seq, Shard},
};
use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    client::{Bus, REQUEST_TIMEOUT, insist},
    error::BusError,
    subjects::{self, DEAD_STREAM, DEAD_SUBJECTS},
};

/// Bytes of memory that a live mirror may take: the oldest entries go first.
const LIVE_BYTES: i64 = 64 * 1024 * 1024;
/// Bytes of dead letters kept: the oldest go first.
const DEAD_BYTES: i64 = 256 * 1024 * 1024;
/// Within it a dead letter is stored once.
const DEAD_WINDOW: Duration = Duration::from_mins(5);
/// A mirror this many entries behind the log is made anew: catching up would take longer than
/// the repair of what it skips.
const FAR_BEHIND: u64 = 20_000;
/// A mirror that is behind and has not moved for so many looks is stuck.
const STUCK_LOOKS: u32 = 4;
/// How long the mirror's server may take over an answer.
const LIVE_ANSWER: Duration = Duration::from_secs(1);
/// A mirror for which nobody answers so many times, while the log's leader does, is on a server
/// that is away.
const SILENT_LOOKS: u32 = 2;

/// For so long a node goes by what it saw of a log when it looked last.
pub const LOOK_COUNTS: Duration = Duration::from_secs(2);
/// A log that is made anew stays closed for so long: until no node goes by what it saw of the one
/// before, and what was published by then has arrived.
pub const CLOSED_FOR: Duration = Duration::from_secs(5);

/// How a shard's log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Servers that hold it, 1 to 5.
    pub replicas: usize,
    /// Bytes at which it refuses new entries.
    pub max_bytes: u64,
    /// Within it a message id is stored once.
    pub duplicate_window: Duration,
    /// Keeps it in memory, for tests that throw it away.
    pub in_memory: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_bytes: 1024 * 1024 * 1024,
            duplicate_window: Duration::from_mins(5),
            in_memory: false,
        }
    }
}

/// How a shard's log stands, as its leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// The first sequence it holds; one beyond `last_seq` when it is empty.
    pub first_seq: Seq,
    /// The last sequence given; `first_seq - 1` in a log that is empty.
    pub last_seq: Seq,
    /// Entries held.
    pub entries: u64,
    /// Bytes held.
    pub bytes: u64,
    /// Bytes at which it refuses new entries.
    pub max_bytes: u64,
    /// When it was made: one made anew is another log.
    pub made_at: OffsetDateTime,
    /// It takes nothing more, and is about to be made anew.
    pub sealed: bool,
    /// It has just been made anew, and takes only what is carried over from the one before.
    pub closed: bool,
}

impl LogState {
    /// How full it is, 0 to 1.
    #[must_use]
    pub fn fullness(&self) -> f64 {
        self.bytes as f64 / self.max_bytes.max(1) as f64
    }
}

/// What was seen of a live mirror, so that the next look can tell whether it moves.
#[derive(Clone, Debug, Default)]
pub struct LiveWatch {
    last_seq: Seq,
    looks_without_progress: u32,
    looks_without_answer: u32,
}

/// What [`Bus::ensure_live`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// It follows the log, this many entries behind.
    Following {
        /// Entries.
        lag: u64,
    },
    /// It was missing, stuck, far behind or on a server that is away, and now starts after this
    /// sequence. What went by before was not sent on.
    MadeAnew {
        /// The log's last sequence when it was made.
        after: Seq,
    },
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct PurgeBelow {
    seq: Seq,
}

impl Bus {
    /// How a shard's log stands; `None` when it does not exist.
    ///
    /// # Errors
    /// When its leader does not answer, in 5 s.
    pub async fn log_state(&self, shard: Shard) -> Result<Option<LogState>, BusError> {
        Ok(self.stream_info(&subjects::log_stream(shard)).await?.map(|info| log_state(&info)))
    }

    /// Makes sure that a shard's log exists and is kept as `config` says. A new one starts at
    /// `first_seq` (1 by default); one that exists keeps its place, and its storage.
    ///
    /// # Errors
    /// When the server does not answer or refuses, e.g. more replicas than it has servers.
    pub async fn ensure_log(
        &self,
        shard: Shard,
        config: &LogConfig,
        first_seq: Option<Seq>,
    ) -> Result<LogState, BusError> {
        if let Some(log) = self.update_log(shard, config).await? {
            return Ok(log);
        }
        let config = log_config(shard, config, first_seq.unwrap_or(1));
        Ok(log_state(&self.create_stream(&config).await?))
    }

    /// The same, but one that does not exist is left so: `None`. A log that its owner is about to
    /// make anew, and that another process would make in between, would begin where it must not.
    ///
    /// # Errors
    /// As [`Bus::ensure_log`].
    pub async fn update_log(
        &self,
        shard: Shard,
        config: &LogConfig,
    ) -> Result<Option<LogState>, BusError> {
        let name = subjects::log_stream(shard);
        let Some(info) = self.stream_info(&name).await? else { return Ok(None) };
        let mut wanted = info.config.clone();
        wanted.num_replicas = config.replicas;
        wanted.max_bytes = limit(config.max_bytes);
        wanted.duplicate_window = config.duplicate_window;
        // The server lets nobody change one that is sealed.
        if wanted == info.config || info.config.sealed {
            return Ok(Some(log_state(&info)));
        }
        let info = self.api(format!("STREAM.UPDATE.{name}"), &wanted).await?;
        Ok(Some(log_state(&info)))
    }

    /// Closes a shard's log for good, if it is still the one that was made at `made_at`: whoever
    /// publishes is refused (`NotSent`) until there is another. What it returns is all that it
    /// will ever hold. For a log that is to be made anew.
    ///
    /// # Errors
    /// [`BusError::NoStream`] or [`BusError::MadeAnew`] when it is not there; when the server does
    /// not answer or refuses.
    pub async fn seal_log(
        &self,
        shard: Shard,
        made_at: OffsetDateTime,
    ) -> Result<LogState, BusError> {
        let name = subjects::log_stream(shard);
        let info = self.stream_info(&name).await?.ok_or(BusError::NoStream)?;
        if info.created != made_at {
            return Err(BusError::MadeAnew);
        }
        if !info.config.sealed {
            let wanted = Config { sealed: true, ..info.config };
            let _: Info = self.api(format!("STREAM.UPDATE.{name}"), &wanted).await?;
        }
        // Asked again: it may have stored what was on its way when the server answered.
        let log = self.log_state(shard).await?.ok_or(BusError::NoStream)?;
        if log.made_at == made_at { Ok(log) } else { Err(BusError::MadeAnew) }
    }

    /// Throws a shard's log away and makes it anew from `first_seq` on, closed; if it is still the
    /// one that was made at `made_at`. (The server has no such condition: between the last look and the
    /// deletion another could come. It takes two owners, one of whom has stood still for just as
    /// long as its lease allows.)
    ///
    /// # Errors
    /// [`BusError::MadeAnew`] when it is another; when the server does not answer or refuses, and
    /// then the log may be missing.
    pub async fn replace_log(
        &self,
        shard: Shard,
        config: &LogConfig,
        first_seq: Seq,
        made_at: OffsetDateTime,
    ) -> Result<LogState, BusError> {
        if let Some(log) = self.log_state(shard).await?
            && log.made_at != made_at
        {
            return Err(BusError::MadeAnew);
        }
        // Created, not ensured: should another log be there by now, this one is refused.
        self.delete_stream(&subjects::log_stream(shard)).await?;
        self.create_closed_log(shard, config, first_seq).await
    }

    /// Makes a shard's log that takes the place of another. Until [`Bus::open_log`] whoever
    /// publishes is refused (`NotSent`); only [`Bus::carry`] reaches it.
    ///
    /// # Errors
    /// When there is one, or the server does not answer or refuses.
    pub async fn create_closed_log(
        &self,
        shard: Shard,
        config: &LogConfig,
        first_seq: Seq,
    ) -> Result<LogState, BusError> {
        let closed = Config {
            subjects: vec![subjects::carried_all(shard)],
            subject_transform: Some(SubjectTransform {
                source: subjects::carried_all(shard),
                destination: subjects::stored_all(shard),
            }),
            ..log_config(shard, config, first_seq)
        };
        Ok(log_state(&self.create_stream(&closed).await?))
    }

    /// Lets everybody publish into a shard's log that is closed; does nothing to another.
    ///
    /// # Errors
    /// [`BusError::NoStream`] when it is not there; when the server does not answer or refuses.
    pub async fn open_log(&self, shard: Shard) -> Result<(), BusError> {
        let name = subjects::log_stream(shard);
        let info = self.stream_info(&name).await?.ok_or(BusError::NoStream)?;
        if !is_closed(&info) {
            return Ok(());
        }
        let wanted = Config {
            subjects: vec![subjects::stored_all(shard)],
            subject_transform: None,
            ..info.config
        };
        let _: Info = self.api(format!("STREAM.UPDATE.{name}"), &wanted).await?;
        Ok(())
    }

    /// Makes sure that a shard's live mirror follows its log. One that is missing (memory goes
    /// with its server), stuck, far behind or on a server that is away is made anew from the
    /// log's head: what it skips, gateways repair. Look about twice a second.
    ///
    /// # Errors
    /// When the log does not exist, or the server does not answer or refuses; `Timeout` also when
    /// the mirror is silent, but not yet for long enough to say that its server is away.
    pub async fn ensure_live(&self, shard: Shard, watch: &mut LiveWatch) -> Result<Live, BusError> {
        let name = subjects::live_stream(shard);
        let mirror = self.stream_info_within(LIVE_ANSWER, &name).await;
        // The log is asked second, so that entries stored in between count as lag, never as
        // being ahead.
        let log = self.log_state(shard).await?.ok_or(BusError::NoStream)?;
        if matches!(mirror, Err(BusError::Timeout)) {
            watch.looks_without_answer += 1;
            if watch.looks_without_answer < SILENT_LOOKS {
                return Err(BusError::Timeout);
            }
            // The deletion counts at once, though the one that would confirm it is away. When it
            // comes back it learns of it, and what it still sends on is known already.
            match self.delete_stream_within(LIVE_ANSWER, &name).await {
                Ok(()) | Err(BusError::Timeout) => {}
                Err(error) => return Err(error),
            }
        } else if let Some(mirror) = mirror? {
            watch.looks_without_answer = 0;
            let position = mirror.state.last_sequence.max(live_start(&mirror).saturating_sub(1));
            let lag = log.last_seq.saturating_sub(position);
            let moved = position != watch.last_seq || lag == 0;
            watch.looks_without_progress = if moved { 0 } else { watch.looks_without_progress + 1 };
            watch.last_seq = position;
            // Ahead of the log: a mirror of the log's life before.
            let stale = position > log.last_seq;
            if !stale && lag <= FAR_BEHIND && watch.looks_without_progress < STUCK_LOOKS {
                return Ok(Live::Following { lag });
            }
            self.delete_stream(&name).await?;
        }
        // Before anything comes through it. Gateways that do not hear this have lost their
        // connection, and trust nothing either.
        self.publish_digest(shard, &Digest::MIRROR_ANEW)?;
        // Again: the older the head, the more the new mirror has to catch up on.
        let log = self.log_state(shard).await?.ok_or(BusError::NoStream)?;
        self.create_stream(&live_config(shard, log.last_seq + 1)).await?;
        *watch = LiveWatch { last_seq: log.last_seq, ..LiveWatch::default() };
        Ok(Live::MadeAnew { after: log.last_seq })
    }

    /// Makes sure that there is a stream for dead letters, and that this many servers hold it.
    ///
    /// # Errors
    /// When the server does not answer or refuses, e.g. more replicas than it has servers.
    pub async fn ensure_dead_letters(&self, replicas: usize) -> Result<(), BusError> {
        let Some(info) = self.stream_info(DEAD_STREAM).await? else {
            self.create_stream(&dead_config(replicas)).await?;
            return Ok(());
        };
        if info.config.num_replicas != replicas {
            let wanted = Config { num_replicas: replicas, ..info.config };
            let _: Info = self.api(format!("STREAM.UPDATE.{DEAD_STREAM}"), &wanted).await?;
        }
        Ok(())
    }

    /// Removes a shard's entries up to `up_to`, inclusive. Returns how many there were.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn purge(&self, shard: Shard, up_to: Seq) -> Result<u64, BusError> {
        self.purge_stream(&subjects::log_stream(shard), up_to).await
    }

    pub(crate) async fn purge_stream(&self, name: &str, up_to: Seq) -> Result<u64, BusError> {
        let operation = format!("STREAM.PURGE.{name}");
        let answer: PurgeResponse = self.api(operation, &PurgeBelow { seq: up_to + 1 }).await?;
        Ok(answer.purged)
    }

    pub(crate) async fn stream_info(&self, name: &str) -> Result<Option<Info>, BusError> {
        insist(|| self.stream_info_within(REQUEST_TIMEOUT, name)).await
    }

    async fn stream_info_within(
        &self,
        limit: Duration,
        name: &str,
    ) -> Result<Option<Info>, BusError> {
        match self.api_within(limit, format!("STREAM.INFO.{name}"), &Empty {}).await {
            Ok(info) => Ok(Some(info)),
            Err(BusError::Refused(error)) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn create_stream(&self, config: &Config) -> Result<Info, BusError> {
        self.api(format!("STREAM.CREATE.{}", config.name), config).await
    }

    pub(crate) async fn delete_stream(&self, name: &str) -> Result<(), BusError> {
        self.delete_stream_within(REQUEST_TIMEOUT, name).await
    }

    async fn delete_stream_within(&self, limit: Duration, name: &str) -> Result<(), BusError> {
        let deleted: Result<DeleteStatus, _> =
            self.api_within(limit, format!("STREAM.DELETE.{name}"), &Empty {}).await;
        match deleted {
            Err(BusError::Refused(error)) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(())
            }
            other => other.map(drop),
        }
    }
}

fn log_config(shard: Shard, config: &LogConfig, first_seq: Seq) -> Config {
    Config {
        name: subjects::log_stream(shard),
        subjects: vec![subjects::stored_all(shard)],
        storage: if config.in_memory { StorageType::Memory } else { StorageType::File },
        num_replicas: config.replicas,
        max_bytes: limit(config.max_bytes),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        // Full means refused: what is not persisted yet is never dropped for what is new.
        discard: DiscardPolicy::New,
        duplicate_window: config.duplicate_window,
        // Or else the server lets the live mirror answer them too, which holds only the log's end:
        // see `read`.
        allow_direct: false,
        // A hole would look like a lost entry.
        deny_delete: true,
        first_sequence: Some(first_seq),
        ..Config::default()
    }
}

fn live_config(shard: Shard, start: Seq) -> Config {
    Config {
        name: subjects::live_stream(shard),
        storage: StorageType::Memory,
        // A second copy would not send on what the first one has not: it is made anew instead.
        num_replicas: 1,
        max_bytes: LIVE_BYTES,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        discard: DiscardPolicy::Old,
        mirror: Some(Source {
            name: subjects::log_stream(shard),
            start_sequence: Some(start),
            ..Source::default()
        }),
        republish: Some(Republish {
            source: subjects::stored_all(shard),
            destination: subjects::live_all(shard),
            headers_only: false,
        }),
        ..Config::default()
    }
}

fn dead_config(replicas: usize) -> Config {
    Config {
        name: DEAD_STREAM.to_owned(),
        subjects: vec![DEAD_SUBJECTS.to_owned()],
        storage: StorageType::File,
        num_replicas: replicas,
        max_bytes: DEAD_BYTES,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        discard: DiscardPolicy::Old,
        duplicate_window: DEAD_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

pub(crate) fn live_start(mirror: &Info) -> Seq {
    mirror.config.mirror.as_ref().and_then(|source| source.start_sequence).unwrap_or(1)
}

pub(crate) fn log_state(info: &Info) -> LogState {
    let state = &info.state;
    LogState {
        first_seq: state.first_sequence.max(1),
        last_seq: state.last_sequence,
        entries: state.messages,
        bytes: state.bytes,
        max_bytes: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
        made_at: info.created,
        sealed: info.config.sealed,
        closed: is_closed(info),
    }
}

fn is_closed(log: &Info) -> bool {
    log.config.subject_transform.is_some()
}

fn limit(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
