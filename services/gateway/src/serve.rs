//! TCP connections of the public port: bounded in number, and in how long they may take to say
//! what they want. (`axum::serve` bounds neither.)

use std::{
    fmt::Display,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Extension, Router, extract::ConnectInfo, http::Request};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
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
    let _ = timeout(limits.drain.max(CLOSING) + GOODBYES, places.acquire_many(all)).await;
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
        let (socket, writing) = Watched::new(socket);
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
                    () = writing.stalled() => return,
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

/// How long a client may leave what it is answered unread. (A WebSocket's session has a limit of its
/// own.)
const STALLED: Duration = Duration::from_mins(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(15);

/// A socket that tells for how long it has not been able to write.
struct Watched {
    socket: TcpStream,
    writing: Writing,
}

/// Since when a socket waits for its peer to read. Cloning shares it.
#[derive(Clone)]
struct Writing {
    begun: Instant,
    /// Milliseconds since then, and one more; 0 when it does not wait.
    waits: Arc<AtomicU64>,
}

impl Writing {
    /// Waits until it has waited for too long.
    async fn stalled(&self) {
        loop {
            sleep(LOOK).await;
            let since = self.waits.load(Ordering::Relaxed);
            let now = self.begun.elapsed().as_millis() as u64;
            if since > 0 && now.saturating_sub(since) >= STALLED.as_millis() as u64 {
                tracing::debug!("a client does not read what it is answered");
                return;
            }
        }
    }

    fn saw<T>(&self, poll: Poll<T>) -> Poll<T> {
        let since = if poll.is_pending() { self.begun.elapsed().as_millis() as u64 + 1 } else { 0 };
        if since == 0 || self.waits.load(Ordering::Relaxed) == 0 {
            self.waits.store(since, Ordering::Relaxed);
        }
        poll
    }
}

impl Watched {
    fn new(socket: TcpStream) -> (Self, Writing) {
        let writing = Writing { begun: Instant::now(), waits: Arc::default() };
        (Self { socket, writing: writing.clone() }, writing)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.writing.saw(poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.writing.saw(poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
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
    async fn whoever_does_not_read_is_hung_up_on() -> Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let endless = || {
            let zeros = axum::body::Bytes::from(vec![0; 65_536]);
            let zeros = futures::stream::repeat_with(move || Ok::<_, io::Error>(zeros.clone()));
            axum::body::Body::from_stream(zeros)
        };
        let router = Router::new().route("/", get(async move || endless()));
        let closing = CancellationToken::new();
        tokio::spawn(serve(listener, router, LIMITS, closing.clone()));
        let mut client = TcpStream::connect(address).await?;
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await?;
        client.readable().await?;
        // Time is made to pass only once all tasks wait, and so the socket's buffers are full.
        tokio::time::pause();
        sleep(STALLED + LOOK * 2).await;
        let mut heard = Vec::new();
        let end = client.read_to_end(&mut heard).await;
        // What was in the buffers comes, and then the end or a reset, as the kernel has it.
        assert!(end.is_err() || heard.len() > 65_536);
        Ok(())
    }

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
