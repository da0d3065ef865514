//! The connection to Redis: one, shared, with bounds on everything.

use std::{fmt, fs, sync::Arc, time::Duration};

use redis::{
    Client, Cmd, ConnectionAddr, FromRedisValue, ScriptInvocation, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use crate::{
    PresenceConfig, PresenceError,
    circuit::{Circuit, Turn},
    config,
};

/// Presence and typing, as this node sees and tells them. Cheap to clone; all clones share one
/// pipelined connection.
#[derive(Clone)]
pub struct PresenceClient {
    link: Arc<Link>,
}

struct Link {
    connection: ConnectionManager,
    circuit: Circuit,
    /// What the circuit's times count from.
    start: Instant,
    config: PresenceConfig,
    /// The node's name and the life that this process is, as in its Redis key.
    life: String,
}

impl PresenceClient {
    /// A client that connects when first used, so that a node starts without Redis too.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`PresenceError::Url`], [`PresenceError::Authorities`]; nothing else: an absent Redis shows in the calls.
    pub fn new(config: PresenceConfig) -> Result<Self, PresenceError> {
        let client = client(&config)?;
        let bounds = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.call_limit))
            .set_response_timeout(Some(config.call_limit))
            // Who calls tries again, and the circuit paces that: see `Circuit`.
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, bounds)?;
        let circuit = Circuit::new(config.retry_after, config.call_limit);
        let mut life = Uuid::new_v4().simple().to_string();
        life.truncate(12);
        let life = format!("{}.{life}", config.node);
        Ok(Self {
            link: Arc::new(Link { connection, circuit, start: Instant::now(), config, life }),
        })
    }

    pub(crate) fn config(&self) -> &PresenceConfig {
        &self.link.config
    }

    pub(crate) fn life(&self) -> &str {
        &self.link.life
    }

    /// Runs one command, within the call limit. `name` is for the metrics.
    pub(crate) async fn command<T: FromRedisValue>(
        &self,
        name: &'static str,
        command: &Cmd,
    ) -> Result<T, PresenceError> {
        let mut connection = self.link.connection.clone();
        self.bounded(name, command.query_async(&mut connection)).await
    }

    /// Runs one script, within the call limit. `name` is for the metrics.
    pub(crate) async fn script<T: FromRedisValue>(
        &self,
        name: &'static str,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, PresenceError> {
        let mut connection = self.link.connection.clone();
        self.bounded(name, script.invoke_async(&mut connection)).await
    }

    async fn bounded<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = redis::RedisResult<T>>,
    ) -> Result<T, PresenceError> {
        if !self.link.circuit.admits(self.link.start.elapsed()) {
            metrics::counter!(REFUSED, "call" => name).increment(1);
            return Err(PresenceError::Away);
        }
        let started = Instant::now();
        // Around the connection's own limits: connecting and asking count together.
        let result = match timeout(self.config().call_limit, call).await {
            Ok(answer) => answer.map_err(PresenceError::from),
            Err(_) => Err(PresenceError::Timeout),
        };
        metrics::histogram!(SECONDS, "call" => name).record(started.elapsed());
        if result.is_err() {
            metrics::counter!(FAILED, "call" => name).increment(1);
        }
        self.learn(result.as_ref().err());
        result
    }

    /// Moves the circuit by an outcome, and logs only when that turns it.
    fn learn(&self, error: Option<&PresenceError>) {
        match error {
            Some(error) if error.means_away() => {
                if self.link.circuit.failed(self.link.start.elapsed()) == Turn::Opened {
                    let cause = std::error::Error::source(error).map(ToString::to_string);
                    tracing::warn!(%error, cause, "presence goes blank: Redis is away");
                }
            }
            // An answer, if only that this call was wrong: Redis is there.
            _ => {
                if self.link.circuit.succeeded() == Turn::Closed {
                    tracing::info!("Redis is back");
                }
            }
        }
    }
}

/// Calls by how long they took, failed or not.
const SECONDS: &str = "natter_presence_call_seconds";
/// Calls that failed.
const FAILED: &str = "natter_presence_calls_failed_total";
/// Calls refused since Redis had failed a moment before.
const REFUSED: &str = "natter_presence_calls_refused_total";

impl fmt::Debug for PresenceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresenceClient").field("life", &self.link.life).finish_non_exhaustive()
    }
}

fn client(config: &PresenceConfig) -> Result<Client, PresenceError> {
    let info = config::info(&config.url)?.set_tcp_settings(tcp_settings());
    let Some(path) = &config.authorities else {
        return Client::open(info).map_err(|_| PresenceError::Url);
    };
    let wrong = |reason: String| PresenceError::Authorities(reason);
    if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        return Err(wrong("needs NATTER_REDIS_URL to be rediss://…".to_owned()));
    }
    let pem = fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
    if !pem.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) {
        return Err(wrong(format!("{}: no certificate in PEM", path.display())));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    Client::build_with_tls(info, certificates)
        .map_err(|error| wrong(format!("{}: {error}", path.display())))
}

/// How a certificate begins in a PEM file. Without one nothing would be trusted, nor would that
/// be an error.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// A peer that has vanished without closing would else hold the connection for the kernel's
/// quarter of an hour: timeouts alone do not make it connect anew.
#[cfg(target_os = "linux")]
fn tcp_settings() -> TcpSettings {
    const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
    TcpSettings::default().set_nodelay(true).set_user_timeout(UNACKNOWLEDGED)
}

#[cfg(not(target_os = "linux"))]
fn tcp_settings() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}
