//! Reply codes and close codes: what went wrong, in words that a client can act on.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::words::words;

words! {
    /// The stable code of an error, the same on every transport.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum ErrorCode {
        /// The request does not have the documented form.
        BadRequest,
        /// No valid token, or its device is revoked.
        Unauthenticated,
        /// The caller may not do this.
        Forbidden,
        /// The account is disabled: no log-in helps until it is enabled again.
        AccountDisabled,
        /// The caller is no participant of the chat (or the chat does not exist: the two look alike).
        NotMember,
        /// What was asked for does not exist, for this caller.
        NotFound,
        /// It clashes with what is there already.
        Conflict,
        /// Over a limit of size.
        TooLarge,
        /// The media type is not taken.
        UnsupportedMedia,
        /// The deployment's own check does not let the message through: see `reason`, if it gives one.
        /// The same again is refused again.
        Refused,
        /// Too many requests: see `retryAfterMs`.
        RateLimited,
        /// A dependency is down; retry with the same `clientMsgId`. See `outcome`.
        Unavailable,
        /// A fault of the server.
        Internal,
    }
}

impl ErrorCode {
    /// The code as it is written on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::AccountDisabled => "account_disabled",
            Self::NotMember => "not_member",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media",
            Self::Refused => "refused",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that REST answers with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden | Self::AccountDisabled | Self::NotMember => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::Refused => 422,
            Self::RateLimited => 429,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

words! {
    /// Whether a send that was refused as `unavailable` may have happened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Outcome {
        /// It did not happen.
        NotSent,
        /// It may have happened: only a retry with the same `clientMsgId` tells.
        Unknown,
    }
}

/// An error as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{}: {message}", code.as_str())]
pub struct WireError {
    /// What kind of error.
    pub code: ErrorCode,
    /// For the developer who reads it; never a secret, never a message body.
    pub message: String,
    /// Milliseconds after which a retry makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry_after_ms: Option<u64>,
    /// For a send refused as `unavailable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub outcome: Option<Outcome>,
    /// With `refused`: the deployment's own word for why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub reason: Option<String>,
}

impl WireError {
    /// An error with a message for the developer.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after_ms: None, outcome: None, reason: None }
    }

    /// The same, retried no earlier than after `ms` milliseconds.
    #[must_use]
    pub fn retry_after_ms(mut self, ms: u64) -> Self {
        self.retry_after_ms = Some(ms);
        self
    }

    /// The same, telling whether the send may have happened.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }
}

/// WebSocket close codes (RFC 6455 section 7.4; 4000–4999 are private use).
pub mod close {
    /// A close code, for those who describe them.
    #[derive(Clone, Copy, Debug)]
    pub struct Close {
        /// The code.
        pub code: u16,
        /// What is told beside it.
        pub reason: &'static str,
        /// What it means.
        pub meaning: &'static str,
    }

    macro_rules! codes {
        ($($(#[doc = $meaning:literal])+ $name:ident = $code:literal, $reason:literal;)+) => {
            $($(#[doc = $meaning])+ pub const $name: u16 = $code;)+

            /// All of them.
            pub const ALL: &[Close] = &[$(Close {
                code: $code,
                reason: $reason,
                meaning: concat!($($meaning),+),
            }),+];
        };
    }

    codes! {
        /// The node drains: come back, to another.
        DRAINING = 1012, "draining";
        /// A dependency is down, so the handshake could not be finished: come back later.
        TRY_AGAIN = 1013, "try again later";
        /// A frame that is no JSON object with an `event`, or is binary: a fault of the client.
        MALFORMED = 4400, "malformed";
        /// Not authenticated, or the token has expired: come back with a fresh one.
        UNAUTHENTICATED = 4401, "unauthenticated";
        /// The device was revoked or signed out: log in again.
        DEVICE_REVOKED = 4403, "device revoked";
        /// Handshake or heartbeat timeout: come back.
        TIMEOUT = 4408, "timeout";
        /// Too many connections of this device: the oldest goes, and stays away.
        TOO_MANY_CONNECTIONS = 4409, "too many connections of this device";
        /// A frame over `limits.frameBytes` of `ready`: come back, and do not send it again.
        FRAME_TOO_LARGE = 4413, "frame too large";
        /// The account is disabled: stay away until it is enabled again.
        ACCOUNT_DISABLED = 4423, "account disabled";
        /// Far beyond the rate limit: come back later, and send less.
        RATE_LIMITED = 4429, "rate limited";
        /// The client reads too slowly, or its node has fallen behind: come back with the cursor.
        SLOW_CONSUMER = 4430, "slow consumer";
    }
}
