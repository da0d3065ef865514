//! The admin port: what probes and scrapers ask, apart from the public port.
//!
//! | path | answer |
//! |---|---|
//! | `GET /live` | 200 as long as the process can answer at all |
//! | `GET /started` | 200 once the start is complete, 503 before |
//! | `GET /ready` | 200 `{"ready":true}` once started and until it drains, else 503 `{"ready":false}`; with `"reasons":[…]` beside, which tell also what it rests on and cannot reach |
//! | `GET /metrics` | Prometheus' text format |

use std::{future::IntoFuture, io, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Health, metrics};

/// How long answers in flight may take once the port is told to close.
const CLOSING: Duration = Duration::from_secs(1);

/// Serves the admin port until `shutdown`, which should come after the service has drained:
/// until then probes must see a node that is alive and not ready.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "admin port open");
    let server = axum::serve(listener, router(health))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(CLOSING).await;
    };
    tokio::select! {
        served = server.into_future() => served,
        // A peer that keeps a request open must not keep the process alive.
        () = overdue => Ok(()),
    }
}

/// The routes of the admin port, for a service that has its own to add.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/live", get(async || "live\n"))
        .route("/started", get(started))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(health)
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

async fn ready(State(health): State<Health>) -> impl IntoResponse {
    let (ready, reasons) = (health.is_ready(), health.reasons());
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, reasons }))
}

async fn started(State(health): State<Health>) -> impl IntoResponse {
    if health.is_started() {
        (StatusCode::OK, "started\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}

async fn scrape() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::render())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    /// Status and body.
    async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<(String, String)> {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let status = head.split(' ').nth(1).unwrap_or_default();
        Ok((status.to_owned(), body.to_owned()))
    }

    #[tokio::test]
    async fn the_port_tells_life_readiness_and_metrics() -> anyhow::Result<()> {
        metrics::install()?;
        ::metrics::counter!("test_admin_total").increment(3);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (health, stop) = (Health::new(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, health.clone(), stop.clone()));

        assert_eq!(ask(address, "/live").await?.0, "200");
        let (status, body) = ask(address, "/ready").await?;
        assert_eq!(status, "503");
        assert_eq!(body, r#"{"ready":false,"reasons":["starting"]}"#);
        assert_eq!(ask(address, "/started").await?.0, "503");

        health.started();
        assert_eq!(ask(address, "/started").await?.0, "200");
        health.set("nats", false);
        let (status, body) = ask(address, "/ready").await?;
        assert_eq!(
            (status.as_str(), body.as_str()),
            ("200", r#"{"ready":true,"reasons":["nats"]}"#)
        );
        health.set("nats", true);
        let (status, body) = ask(address, "/ready").await?;
        assert_eq!(status, "200");
        assert_eq!(body, r#"{"ready":true}"#);

        health.draining();
        assert_eq!(ask(address, "/live").await?.0, "200");
        assert_eq!(ask(address, "/ready").await?.0, "503");
        let (_, metrics) = ask(address, "/metrics").await?;
        assert!(metrics.contains("test_admin_total 3"), "{metrics}");

        stop.cancel();
        server.await??;
        Ok(())
    }

    #[tokio::test]
    async fn a_peer_that_stalls_does_not_keep_the_port_open() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Health::new(), stop.clone()));
        let mut stalled = TcpStream::connect(address).await?;
        stalled.write_all(b"GET /live HTTP/1.1\r\nhost:").await?;
        assert_eq!(ask(address, "/live").await?.0, "200", "the stalled one was accepted before");
        stop.cancel();
        tokio::time::timeout(CLOSING * 5, server).await???;
        Ok(())
    }
}
