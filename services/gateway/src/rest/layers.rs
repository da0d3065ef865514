//! What is around every call: a limit of time, panics caught, headers, metrics.

use std::time::{Duration, Instant};

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use natter_protocol::error::{ErrorCode, Outcome, WireError};
use tokio::time::timeout;
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};

use super::problem::{Problem, panicked};

/// A call that takes longer is answered without its outcome.
const LIMIT: Duration = Duration::from_secs(10);
/// How long browsers may keep the answer to a preflight.
const PREFLIGHT: Duration = Duration::from_hours(1);

/// Answers are data, private, and no page: nothing to sniff, keep, frame or run.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
];

/// Puts them around the calls. CORS is outermost, so that a refused call can be read too.
pub(super) fn around(router: Router, cors: CorsLayer) -> Router {
    router
        .layer(middleware::from_fn(limit_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(add_headers))
        .layer(middleware::from_fn(measure))
        .layer(cors)
}

/// Which origins browsers may call from: none unless configured. Tokens travel in a header that
/// no browser sends by itself, so no credentials are allowed.
pub fn cors(origins: &[HeaderValue]) -> CorsLayer {
    if origins.is_empty() {
        return CorsLayer::new();
    }
    CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
        ])
        .expose_headers([
            header::RETRY_AFTER,
            header::ETAG,
            header::CONTENT_RANGE,
            header::CONTENT_DISPOSITION,
        ])
        .max_age(PREFLIGHT)
}

/// Calls that take as long as their client and the store do, and see to it themselves that they go
/// on: a file is uploaded, or copied.
const LONG: [&str; 2] = ["/v1/chats/{id}/media", "/v1/chats/{id}/media/{mediaId}/complete"];

async fn limit_time(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    if route.is_some_and(|route| LONG.contains(&route.as_str())) {
        return next.run(request).await;
    }
    let Ok(response) = timeout(LIMIT, next.run(request)).await else {
        let error = WireError::new(ErrorCode::Unavailable, "it took too long")
            .retry_after_ms(1_000)
            .outcome(Outcome::Unknown);
        return Problem::from(error).into_response();
    };
    response
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(value);
    }
    response
}

async fn measure(request: Request, next: Next) -> Response {
    // The route's pattern, never the path: ids would make a series each.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let method = match *request.method() {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "other",
    };
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    metrics::histogram!("natter_rest_seconds", "method" => method, "route" => route, "status" => status)
        .record(start.elapsed().as_secs_f64());
    response
}
