use async_nats::{RequestErrorKind, client::RequestError, jetstream};

use crate::config::Setting;

/// Why the bus could not do what it was asked.
///
/// All but `Config` and `Encoding` may pass by themselves: retry, after a pause.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// A setting cannot work: a URL that does not parse, a credentials file that is missing.
    #[error("{setting}: {reason}")]
    Config {
        /// Which.
        setting: Setting,
        /// What is wrong with it; never its value.
        reason: String,
    },
    /// There is no connection just now.
    #[error("not connected to NATS")]
    Disconnected,
    /// Too much waits for the socket.
    #[error("the connection to NATS is congested")]
    Congested,
    /// Nothing answered within the bound.
    #[error("NATS did not answer in time")]
    Timeout,
    /// Nobody serves the stream: it does not exist, or has no leader just now.
    #[error("nobody serves the stream")]
    NoStream,
    /// The stream is not the one that was looked at: somebody has made it anew since.
    #[error("the stream has been made anew")]
    MadeAnew,
    /// The server said no.
    #[error("NATS refused it")]
    Refused(#[source] jetstream::Error),
    /// The server's answer has not the documented form.
    #[error("NATS answered with something unreadable: {0}")]
    Unreadable(String),
    /// A value cannot be written as JSON.
    #[error("cannot be encoded")]
    Encoding(#[from] serde_json::Error),
    /// The connection has ended for good.
    #[error("the connection to NATS is closed")]
    Closed,
}

impl From<RequestError> for BusError {
    fn from(error: RequestError) -> Self {
        match error.kind() {
            RequestErrorKind::TimedOut => Self::Timeout,
            RequestErrorKind::NoResponders => Self::NoStream,
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                Self::Unreadable(error.to_string())
            }
            RequestErrorKind::Other => Self::Closed,
        }
    }
}
