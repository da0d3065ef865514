//! The connection to NATS that everything but following shares.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client, ConnectOptions, Event, ServerAddr, Subscriber,
    connection::State,
    jetstream::{self, response::Response},
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{interval, timeout};

use crate::{
    BusConfig,
    access::{self, Credentials, Login},
    config::{Setting, wrong},
    error::BusError,
    follow, measures,
    publish::{Acks, ack_inbox},
};

/// Bounds a request to the server.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// When a question that nobody has answered is asked again beside the first.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two looks whether the connection stands.
const LOOK: Duration = Duration::from_millis(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose server is silent for about three of these is given up.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Commands that may wait for the socket; beyond it publishes are refused.
const QUEUED_COMMANDS: usize = 16 * 1024;
/// Longest pause between two attempts to connect.
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// A handle on the connection; cheap to clone, closed when the last clone is gone.
#[derive(Clone)]
pub struct Bus {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) acks: Arc<Acks>,
    reader: tokio::task::AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("connected", &self.connected()).finish_non_exhaustive()
    }
}

impl Bus {
    /// Opens the connection in the background: returns at once, also while NATS is away, and
    /// reconnects for ever.
    ///
    /// # Errors
    /// [`BusError::Config`] when the settings cannot work.
    pub async fn connect(config: &BusConfig) -> Result<Self, BusError> {
        measures::register_connection();
        let servers = config.servers()?;
        let acks = Arc::new(Acks::default());
        let options = options(config, &servers, Arc::downgrade(&acks)).await?;
        let connecting = options.connect(servers).await;
        let client = connecting.map_err(|error| wrong(Setting::Url, &error))?;
        let inbox = ack_inbox(&client);
        let subscriber =
            client.subscribe(format!("{inbox}*")).await.map_err(|_| BusError::Closed)?;
        acks.set_inbox(inbox);
        let reader = tokio::spawn(Arc::clone(&acks).read(subscriber)).abort_handle();
        let jetstream = jetstream::new(client.clone());
        Ok(Self { inner: Arc::new(Inner { client, jetstream, acks, reader }) })
    }

    /// Whether the connection stands, as far as this side knows.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.inner.client.connection_state() == State::Connected
    }

    /// Publishes whose acks are awaited.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inner.acks.waiting()
    }

    /// Waits until the connection stands, for this long at most.
    ///
    /// # Errors
    /// [`BusError::Disconnected`] when it does not.
    pub async fn connected_within(&self, limit: Duration) -> Result<(), BusError> {
        let stands = async {
            let mut look = interval(LOOK);
            while !self.connected() {
                look.tick().await;
            }
        };
        timeout(limit, stands).await.map_err(|_| BusError::Disconnected)
    }

    /// A round trip to the server.
    ///
    /// # Errors
    /// When there is no connection, or no answer within 5 s.
    pub async fn ping(&self) -> Result<(), BusError> {
        let inbox = self.inner.client.new_inbox();
        let mut subscriber = self.subscribe(inbox.clone()).await?;
        self.hand_over(inbox, Bytes::new())?;
        timeout(REQUEST_TIMEOUT, subscriber.next())
            .await
            .map_err(|_| BusError::Timeout)?
            .map(drop)
            .ok_or(BusError::Closed)
    }

    pub(crate) fn require_connection(&self) -> Result<(), BusError> {
        if self.connected() { Ok(()) } else { Err(BusError::Disconnected) }
    }

    /// Publishes what may be lost, at once or not at all: refused while disconnected or
    /// congested, so that nothing stale is kept.
    pub(crate) fn hand_over(&self, subject: String, body: Bytes) -> Result<(), BusError> {
        self.require_connection()?;
        let sending = self.inner.client.publish(subject, body);
        match tokio::task::unconstrained(sending).now_or_never() {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(BusError::Closed),
            None => Err(BusError::Congested),
        }
    }

    pub(crate) async fn subscribe(&self, subject: String) -> Result<Subscriber, BusError> {
        self.require_connection()?;
        self.inner.client.subscribe(subject).await.map_err(|_| BusError::Closed)
    }

    /// One request of the JetStream API, its errors told apart from its answer.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        operation: String,
        body: &impl Serialize,
    ) -> Result<T, BusError> {
        self.api_within(REQUEST_TIMEOUT, operation, body).await
    }

    /// As [`Bus::api`], in less time.
    pub(crate) async fn api_within<T: DeserializeOwned>(
        &self,
        limit: Duration,
        operation: String,
        body: &impl Serialize,
    ) -> Result<T, BusError> {
        self.require_connection()?;
        let request = async_nats::Request::new()
            .payload(serde_json::to_vec(body)?.into())
            .timeout(Some(limit));
        let answer =
            self.inner.client.send_request(format!("$JS.API.{operation}"), request).await?;
        match serde_json::from_slice(&answer.payload) {
            Ok(Response::Ok(answer)) => Ok(answer),
            Ok(Response::Err { error }) => Err(BusError::Refused(error)),
            Err(error) => Err(BusError::Unreadable(error.to_string())),
        }
    }
}

/// Asks what changes nothing, and every second asks again beside that, for 5 s: what reached a
/// cluster while it had no leader for a stream is never answered, not even once it has one.
pub(crate) async fn insist<T, F>(ask: impl Fn() -> F) -> Result<T, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut asked = FuturesUnordered::new();
    let mut again = interval(AGAIN);
    let answered = async {
        loop {
            tokio::select! {
                Some(answer) = asked.next() => return answer,
                _ = again.tick() => asked.push(ask()),
            }
        }
    };
    timeout(REQUEST_TIMEOUT, answered).await.map_err(|_| BusError::Timeout)?
}

async fn options(
    config: &BusConfig,
    servers: &[ServerAddr],
    acks: Weak<Acks>,
) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_TIMEOUT)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .client_capacity(QUEUED_COMMANDS)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback({
            let watch = Arc::new(Watch { config: config.clone(), acks, told: false.into() });
            move |event| {
                let watch = Arc::clone(&watch);
                async move { watch.on_event(&event) }
            }
        });
    options = match Login::of(servers) {
        Login::User(user, password) => options.user_and_password(user, password),
        Login::Token(token) => options.token(token),
        Login::Nobody => options,
    };
    if let Some(path) = &config.credentials {
        if Login::of(servers) != Login::Nobody {
            let reason = "contradicts the login in NATTER_NATS_URL";
            return Err(wrong(Setting::Credentials, &reason));
        }
        let credentials = Credentials::read(path).await?;
        options = options.jwt(credentials.jwt.clone(), move |nonce| {
            let signed = credentials.sign(&nonce);
            async move { signed.map_err(async_nats::AuthError::new) }
        });
    }
    if config.wants_tls(servers) {
        // What it would find out when it connects, and try for ever.
        access::tls(config).await?;
        options = options.require_tls(true);
    }
    if let Some(path) = &config.root_certificates {
        options = options.add_root_certificates(path.clone());
    }
    if let (Some(certificate), Some(key)) = (&config.client_certificate, &config.client_key) {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// Quick at first, since a cluster has other servers; spread, so that nodes do not come in step.
fn reconnect_delay(attempts: usize) -> Duration {
    let steps = u32::try_from(attempts.min(6)).unwrap_or(6);
    let delay = (Duration::from_millis(20) * 2u32.pow(steps)).min(RECONNECT_MAX);
    delay.mul_f64(rand::random_range(0.5..1.0))
}

/// Follows what becomes of the connection.
struct Watch {
    config: BusConfig,
    acks: Weak<Acks>,
    /// Whether it has been told since the last connection why there is none.
    told: AtomicBool,
}

impl Watch {
    fn on_event(&self, event: &Event) {
        match event {
            Event::Disconnected => {
                tracing::warn!("the connection to NATS is lost");
                measures::disconnects().increment(1);
                // Acks on their way are gone with the connection: whoever waits learns it now.
                if let Some(acks) = self.acks.upgrade() {
                    acks.lose_all();
                }
            }
            Event::Connected => {
                self.told.store(false, Ordering::Relaxed);
                tracing::info!("connected to NATS");
            }
            Event::ServerError(error) => tracing::error!(%error, "NATS reports an error"),
            Event::ClientError(error) => {
                tracing::warn!(%error, "cannot connect to NATS");
                if !self.told.swap(true, Ordering::Relaxed) {
                    tokio::spawn(explain(self.config.clone()));
                }
            }
            Event::SlowConsumer(_) => {
                measures::slow_consumers().increment(1);
            }
            Event::LameDuckMode | Event::Draining | Event::Closed => {
                tracing::info!(%event, "NATS connection");
            }
        }
    }
}

/// Says why there is no connection: the event's own error says no more than "IO error", be it a
/// certificate, a password or a cable. So it is tried once more in a way that tells.
async fn explain(config: BusConfig) {
    for (server, reason) in follow::why_not(&config).await {
        tracing::warn!(server, reason, "cannot connect to NATS");
    }
}
