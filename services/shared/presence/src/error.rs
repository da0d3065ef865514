use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why presence could not be told or kept. Callers go on without it; nothing here is worth
/// failing a message or a connection for.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// The URL is not one of Redis. It is not shown: it may hold a password.
    #[error("NATTER_REDIS_URL (--redis-url): not redis://user:password@host:port/database")]
    Url,
    /// The authorities cannot be used.
    #[error("NATTER_REDIS_CA (--redis-ca): {0}")]
    Authorities(String),
    /// Redis failed a moment ago; refused without asking it again.
    #[error("Redis is away")]
    Away,
    /// No answer within the call limit. What was asked for may or may not have happened.
    #[error("Redis did not answer in time")]
    Timeout,
    /// More than one call may ask for, or look at.
    #[error("more than the {limit} of one call")]
    TooMany {
        /// The most allowed.
        limit: usize,
    },
    /// Redis, or the way to it, failed.
    #[error("Redis failed")]
    Redis(#[from] RedisError),
}

impl PresenceError {
    /// Whether Redis as a whole is in trouble, as opposed to this one call.
    pub(crate) fn means_away(&self) -> bool {
        match self {
            Self::Url | Self::Authorities(_) | Self::Away | Self::TooMany { .. } => false,
            Self::Timeout => true,
            Self::Redis(error) => !matches!(
                error.kind(),
                ErrorKind::UnexpectedReturnType
                    | ErrorKind::Extension
                    | ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoScript)
            ),
        }
    }
}
