//! Errors as REST answers them: RFC 9457 problems with the wire's stable `code`.

use std::{
    any::Any,
    net::{IpAddr, Ipv4Addr},
};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use natter_protocol::error::{ErrorCode, Outcome, WireError};
use natter_store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::fault;

/// The media type.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What every call answers when it fails.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Problem, example = json!({
    "type": "about:blank",
    "title": "Too Many Requests",
    "status": 429,
    "detail": "too many requests",
    "code": "rate_limited",
    "retryAfterMs": 250,
}))]
pub struct ProblemBody {
    /// `about:blank`: `code` tells the kind.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// For the developer who reads it.
    detail: String,
    /// Stable: what to act on.
    code: ErrorCode,
    /// Milliseconds after which a retry makes sense; also in `Retry-After`, in whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_after_ms: Option<u64>,
    /// Whether a send that was refused may have happened.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<Outcome>,
    /// With `refused`: the deployment's own word for why.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<String>,
}

/// An error on its way to a REST client.
#[derive(Debug)]
pub struct Problem {
    error: WireError,
    status: StatusCode,
}

impl Problem {
    /// With another status than the code's own.
    pub fn with_status(status: StatusCode, error: WireError) -> Self {
        Self { error, status }
    }
}

impl From<WireError> for Problem {
    fn from(error: WireError) -> Self {
        let status = StatusCode::from_u16(error.code.status());
        Self { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        fault::store(error).into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { error, status } = self;
        let body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: error.message,
            code: error.code,
            retry_after_ms: error.retry_after_ms,
            outcome: error.outcome,
            reason: error.reason,
        };
        let json = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, PROBLEM_JSON)], json).into_response();
        let headers = response.headers_mut();
        if let Some(ms) = error.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// For a path that is none.
pub async fn not_found() -> Problem {
    WireError::new(ErrorCode::NotFound, "there is nothing at this path").into()
}

/// For a path that is asked with the wrong method; the router adds `Allow`.
pub async fn wrong_method() -> Problem {
    let error = WireError::new(ErrorCode::BadRequest, "this path does not take this method");
    Problem::with_status(StatusCode::METHOD_NOT_ALLOWED, error)
}

/// For a handler that panicked. The panic hook has written where.
pub fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response<Body> {
    tracing::error!("a request's handler panicked");
    Problem::from(WireError::new(ErrorCode::Internal, "a fault of the server")).into_response()
}

/// Where a client is that came by no socket.
pub(super) const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    async fn answer(problem: Problem) -> anyhow::Result<(Response<()>, Value)> {
        let (parts, body) = problem.into_response().into_parts();
        let bytes = axum::body::to_bytes(body, 10_000).await?;
        Ok((Response::from_parts(parts, ()), serde_json::from_slice(&bytes)?))
    }

    #[tokio::test]
    async fn every_code_has_its_status_and_form() -> anyhow::Result<()> {
        use ErrorCode as Code;
        for (code, status) in [
            (Code::BadRequest, 400),
            (Code::Unauthenticated, 401),
            (Code::Forbidden, 403),
            (Code::AccountDisabled, 403),
            (Code::Refused, 422),
            (Code::NotMember, 403),
            (Code::NotFound, 404),
            (Code::Conflict, 409),
            (Code::TooLarge, 413),
            (Code::UnsupportedMedia, 415),
            (Code::RateLimited, 429),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
        ] {
            let (head, body) = answer(WireError::new(code, "why").into()).await?;
            assert_eq!(head.status().as_u16(), status);
            assert_eq!(head.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
            assert_eq!(body["code"], code.as_str());
            assert_eq!(body["status"], status);
            assert_eq!(body["detail"], "why");
            assert_eq!(body["type"], "about:blank");
            assert!(body["title"].is_string() && body.get("outcome").is_none());
            assert_eq!(head.headers().contains_key(header::WWW_AUTHENTICATE), status == 401);
        }
        Ok(())
    }

    #[tokio::test]
    async fn when_to_come_back_and_what_became_of_it() -> anyhow::Result<()> {
        let error = WireError::new(ErrorCode::Unavailable, "no broker")
            .retry_after_ms(1_001)
            .outcome(Outcome::NotSent);
        let (head, body) = answer(error.into()).await?;
        assert_eq!(head.headers()[header::RETRY_AFTER], "2");
        assert_eq!(body["retryAfterMs"], json!(1_001));
        assert_eq!(body["outcome"], "not_sent");
        Ok(())
    }

    #[tokio::test]
    async fn a_wrong_method_is_405() -> anyhow::Result<()> {
        let (head, body) = answer(wrong_method().await).await?;
        assert_eq!((head.status().as_u16(), &body["code"]), (405, &json!("bad_request")));
        Ok(())
    }
}
