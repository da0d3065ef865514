//! TCP connections of the public port: bounded in number, and in how long they may take to say
//! what they want. (`axum::serve` bounds neither.)

use std::{fmt::Display, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo, http::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::{Layer, util::MapRequestLayer};

/// How long to wait when there are no files left for another connection.
const NO_FILES: Duration = Duration::from_millis(100);
/// Connections that may wait in the kernel's queue when the port closes.
const BACKLOG: usize = 1_024;
/// How long answers in flight may take once the port closes.
const CLOSING: Duration = Duration::from_secs(5);
/// How long sockets may take over saying goodbye beyond the time that they have for draining.
const GOODBYES: Duration = Duration::from_secs(2);

/// What a connection may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections; more wait in the kernel's queue.
    pub connections: usize,
    /// For the head of a request.
    pub head: Duration,
    /// For sockets to end by themselves once the port closes.
    pub drain: Duration,
}

/// A connection's place among those that may be open. Requests carry it, because an upgraded
/// connection outlives the HTTP that it began with.
#[derive(Clone, Debug)]
pub struct Place(#[expect(dead_code, reason = "held, not looked at")] Arc<OwnedSemaphorePermit>);

/// Accepts connections until `closing`, and those that wait then; then lets calls in flight end,
/// and waits for sockets, which are upgraded connections and end by themselves: one whose process
/// ends while it says goodbye is reset, and its client does not learn why.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    closing: CancellationToken,
) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.head);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(limits.head);
    let places = Arc::new(Semaphore::new(limits.connections));
    let server = Server { builder, router, limits, closing };
    tokio::select! {
        () = server.accept(&listener, &places) => {}
        () = server.closing.cancelled() => {}
    }
    if let Err(error) = server.accept_waiting(listener, &places) {
        tracing::warn!(%error, "who waited at the port was not let in");
    }
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    // Beyond that, whoever runs this ends.
    let _ = timeout(limits.drain + GOODBYES, places.acquire_many(all)).await;
}

struct Server {
    builder: Builder<TokioExecutor>,
    router: Router,
    limits: Limits,
    closing: CancellationToken,
}

impl Server {
    /// Lets in whoever comes, while there are places. Runs until dropped; nobody is lost then.
    async fn accept(&self, listener: &TcpListener, places: &Arc<Semaphore>) {
        while let Ok(place) = Arc::clone(places).acquire_owned().await {
            match listener.accept().await {
                Ok((socket, peer)) => self.begin(socket, peer, place),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(NO_FILES).await;
                }
            }
        }
    }

    /// Lets in whom the kernel has let in already, and closes the port: hung up on, they could not
    /// tell whether their call was heard. The kernel itself is asked who that is, since the runtime
    /// may not have heard of them yet.
    fn accept_waiting(&self, listener: TcpListener, places: &Arc<Semaphore>) -> io::Result<()> {
        let listener = listener.into_std()?;
        for _ in 0..BACKLOG {
            let Ok(place) = Arc::clone(places).try_acquire_owned() else { break };
            let (socket, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Of the one who waited, who has left.
                Err(_) => continue,
            };
            socket.set_nonblocking(true)?;
            self.begin(TcpStream::from_std(socket)?, peer, place);
        }
        Ok(())
    }

    fn begin(&self, socket: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let peer = Extension(ConnectInfo::<SocketAddr>(peer)).layer(self.router.clone());
        let asked = Arc::new(Notify::new());
        let first = Arc::clone(&asked);
        let service = Extension(Place(Arc::new(place))).layer(peer);
        let service = MapRequestLayer::new(move |request: Request<Incoming>| {
            first.notify_one();
            request
        })
        .layer(service);
        let service = TowerToHyperService::new(service);
        let connection =
            self.builder.serve_connection_with_upgrades(TokioIo::new(socket), service).into_owned();
        let (closing, head) = (self.closing.clone(), self.limits.head);
        tokio::spawn(async move {
            tokio::pin!(connection);
            // hyper's own limit begins when the version of HTTP is known, so that a peer that says
            // nothing at all, or asks for nothing over HTTP/2, would stay. Nor is it told to finish
            // before that: it would hang up on a call that is on its way.
            let ended = tokio::select! {
                ended = &mut connection => return log(ended),
                () = sleep(head) => return,
                () = asked.notified() => tokio::select! {
                    ended = &mut connection => return log(ended),
                    () = closing.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        timeout(CLOSING, connection).await
                    }
                },
            };
            if let Ok(ended) = ended {
                log(ended);
            } else {
                tracing::warn!("a call took too long to end, and was cut");
            }
        });
    }
}

fn log<E: Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMITS: Limits =
        Limits { connections: 8, head: Duration::from_secs(30), drain: Duration::from_secs(30) };

    #[tokio::test]
    async fn whoever_was_let_in_is_answered_though_the_port_closes() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/", get(async || "here"));
        let closing = CancellationToken::new();
        let served = tokio::spawn(serve(listener, router, LIMITS, closing.clone()));
        let mut early = TcpStream::connect(address).await?;
        early.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        let mut heard = [0; 4096];
        let mut read = early.read(&mut heard).await?;
        assert!(heard[..read].ends_with(b"here"));
        // It has said nothing yet, and not even which version of HTTP it speaks.
        let mut late = TcpStream::connect(address).await?;
        closing.cancel();
        assert_eq!(early.read(&mut heard).await?, 0, "one that idles is closed");
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        late.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        read = late.read(&mut heard).await?;
        assert!(heard[..read].ends_with(b"here"));
        assert_eq!(late.read(&mut heard).await?, 0);
        served.await?;
        Ok(())
    }
}
