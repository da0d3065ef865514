//! The admin port: what probes and scrapers ask, apart from the public port.
//!
//! | path | answer |
//! |---|---|
//! | `GET /live` | 200 as long as the process can answer at all |
//! | `GET /ready` | 200 `{"ready":true}`, or 503 `{"ready":false,"reasons":[…]}` |
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
    let reasons = health.reasons();
    let ready = reasons.is_empty();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(Readiness { ready, reasons }))
}

async fn scrape() -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        metrics::render(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_port_tells_life_readiness_and_metrics() -> anyhow::Result<()> {
        metrics::install()?;
        ::metrics::counter!("test_admin_total").increment(3);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base = format!("http://{}", listener.local_addr()?);
        let (health, stop) = (Health::new(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, health.clone(), stop.clone()));

        assert_eq!(reqwest::get(format!("{base}/live")).await?.status(), 200);
        let starting = reqwest::get(format!("{base}/ready")).await?;
        assert_eq!(starting.status(), 503);
        assert_eq!(
            starting.text().await?,
            r#"{"ready":false,"reasons":["starting"]}"#
        );

        health.started();
        let ready = reqwest::get(format!("{base}/ready")).await?;
        assert_eq!(ready.status(), 200);
        assert_eq!(ready.text().await?, r#"{"ready":true}"#);

        health.draining();
        assert_eq!(reqwest::get(format!("{base}/live")).await?.status(), 200);
        assert_eq!(reqwest::get(format!("{base}/ready")).await?.status(), 503);
        let metrics = reqwest::get(format!("{base}/metrics"))
            .await?
            .text()
            .await?;
        assert!(metrics.contains("test_admin_total 3"), "{metrics}");

        stop.cancel();
        server.await??;
        Ok(())
    }
}
