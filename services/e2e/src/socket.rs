//! One WebSocket connection: requests, and what has come.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use natter_protocol::{
    error::WireError,
    ids::ChatId,
    server::{Ready, Sent},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Mutex, watch},
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use crate::{
    heard::Heard,
    record::{Closed, Record},
    soon::SOON,
};

/// A bare connection.
pub type Stream = WebSocketStream<TcpStream>;

/// How a connection shows its token.
#[derive(Clone, Copy, Debug)]
pub enum Presenting<'a> {
    /// In `Authorization: Bearer`.
    Header(&'a str),
    /// In the list of subprotocols, as browsers have to.
    Subprotocol(&'a str),
    /// In a first frame.
    FirstFrame(&'a str),
    /// Not at all.
    Nothing,
}

/// One connection. Dropping it cuts it, as when a phone loses its network; [`Socket::close`]
/// ends it in good order.
#[derive(Debug)]
pub struct Socket {
    heard: Heard,
    sink: Mutex<SplitSink<Stream, tungstenite::Message>>,
    requests: AtomicU64,
    reader: AbortHandle,
    ready: Option<Ready>,
    protocol: Option<String>,
}

/// What became of an attempt to connect.
#[derive(Debug)]
pub enum Dialled {
    /// The connection stands, though it may be closed the next moment.
    Open(Box<Socket>),
    /// It was refused before it was a WebSocket.
    Refused(Refusal),
}

/// The answer to who gets no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// In how many seconds to come again, by `Retry-After`.
    pub retry_after: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status.fmt(f)
    }
}

impl Socket {
    /// Connects with a token in the header, and waits for `ready`.
    ///
    /// # Errors
    /// When it is refused, or `ready` does not come.
    pub async fn connect(gateway: SocketAddr, token: &str) -> Result<Self> {
        Self::present(gateway, Presenting::Header(token)).await
    }

    /// As [`Socket::connect`], the token shown in another way.
    ///
    /// # Errors
    /// When it is refused, or `ready` does not come.
    pub async fn present(gateway: SocketAddr, presenting: Presenting<'_>) -> Result<Self> {
        match Self::dial(gateway, presenting).await? {
            Dialled::Refused(refusal) => bail!("{gateway} refuses the connection: {refusal}"),
            Dialled::Open(mut socket) => {
                socket.ready = Some(socket.expect_as("ready", |_: &Ready| true).await?);
                Ok(*socket)
            }
        }
    }

    /// Connects with a token in the header, and resumes from a cursor; waits for `ready`.
    ///
    /// # Errors
    /// When it is refused, or `ready` does not come.
    pub async fn resume(gateway: SocketAddr, token: &str, cursor: &str) -> Result<Self> {
        let url = format!("ws://{gateway}/v1/ws?cursor={cursor}");
        let request = request(&url, Presenting::Header(token))?;
        match Self::dial_from(Ipv4Addr::LOCALHOST, gateway, request).await? {
            Dialled::Refused(refusal) => bail!("{gateway} refuses the connection: {refusal}"),
            Dialled::Open(mut socket) => {
                socket.ready = Some(socket.expect_as("ready", |_: &Ready| true).await?);
                Ok(*socket)
            }
        }
    }

    /// Connects, and waits for nothing.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn dial(gateway: SocketAddr, presenting: Presenting<'_>) -> Result<Dialled> {
        let request = request(&format!("ws://{gateway}/v1/ws"), presenting)?;
        let dialled = Self::dial_from(Ipv4Addr::LOCALHOST, gateway, request).await?;
        if let (Presenting::FirstFrame(token), Dialled::Open(socket)) = (presenting, &dialled) {
            let frame = json!({"event": "authenticate", "data": {"token": token}});
            socket.send_text(frame.to_string()).await?;
        }
        Ok(dialled)
    }

    /// Makes `request` from one of this machine's addresses.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn dial_from(
        from: Ipv4Addr,
        gateway: SocketAddr,
        request: Request,
    ) -> Result<Dialled> {
        let (stream, protocol) = match open(from, gateway, request).await {
            Ok(open) => open,
            Err(Unopened::Refused(refusal)) => return Ok(Dialled::Refused(refusal)),
            Err(Unopened::Failed(error)) => return Err(error),
        };
        let (sink, stream) = stream.split();
        let heard = Heard::new(gateway.to_string());
        let reader = tokio::spawn(read(stream, heard.record())).abort_handle();
        Ok(Dialled::Open(Box::new(Self {
            heard,
            sink: Mutex::new(sink),
            requests: AtomicU64::new(0),
            reader,
            ready: None,
            protocol,
        })))
    }

    pub(crate) fn labelled(mut self, label: String) -> Self {
        self.heard.set_label(label);
        self
    }

    /// What the handshake told.
    ///
    /// # Errors
    /// When it is not over.
    pub fn ready(&self) -> Result<&Ready> {
        self.ready.as_ref().context("the handshake is not over")
    }

    /// The subprotocol that the server chose.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }
}

/// Sending.
impl Socket {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When it is refused, or no answer comes.
    pub async fn request(&self, event: &str, data: Value) -> Result<Value> {
        let answer = self.ask(event, data.clone()).await?;
        answer.map_err(|error| self.failure(&format!("{event} {data} was refused: {error:?}")))
    }

    /// Asks for what is going to be refused.
    ///
    /// # Errors
    /// When it is not, or no answer comes.
    pub async fn refused(&self, event: &str, data: Value) -> Result<WireError> {
        match self.ask(event, data.clone()).await? {
            Ok(answer) => Err(self.failure(&format!("{event} {data} was not refused: {answer}"))),
            Err(error) => Ok(error),
        }
    }

    /// Asks, and gives whichever answer comes.
    ///
    /// # Errors
    /// When none comes.
    pub async fn ask(&self, event: &str, data: Value) -> Result<Result<Value, WireError>> {
        let id = self.post(event, data).await?;
        self.reply(id).await
    }

    /// Asks, and leaves the reply for later.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn post(&self, event: &str, data: Value) -> Result<u64> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let frame = json!({"event": event, "id": id, "data": data});
        self.send_text(frame.to_string()).await?;
        Ok(id)
    }

    /// The reply to a request of [`Socket::post`].
    ///
    /// # Errors
    /// When none comes.
    pub async fn reply(&self, id: u64) -> Result<Result<Value, WireError>> {
        self.reply_within(SOON, id).await
    }

    /// The same, which may take up to `limit`.
    ///
    /// # Errors
    /// When none comes.
    pub async fn reply_within(&self, limit: Duration, id: u64) -> Result<Result<Value, WireError>> {
        self.heard.reply_within(limit, id).await
    }

    /// Sends a message, with a client id of this moment.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn say(&self, chat: ChatId, content: &str) -> Result<Sent> {
        self.say_as(chat, content, &uuid::Uuid::now_v7().to_string()).await
    }

    /// Sends a message with this client id.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn say_as(&self, chat: ChatId, content: &str, id: &str) -> Result<Sent> {
        let data = json!({"chatId": chat, "content": content, "clientMsgId": id});
        Ok(serde_json::from_value(self.request("send_message", data).await?)?)
    }

    /// `typing_start`, `typing_ping` or `typing_stop`, or anything else that takes a chat.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn tell(&self, event: &str, chat: ChatId) -> Result<Value> {
        self.request(event, json!({"chatId": chat})).await
    }

    /// Sends a text frame as it is.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_text(&self, text: impl Into<String>) -> Result<()> {
        self.send_frame(tungstenite::Message::text(text.into())).await
    }

    /// Sends any frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send_frame(&self, frame: tungstenite::Message) -> Result<()> {
        let sent = self.sink.lock().await.send(frame).await;
        sent.map_err(|error| self.failure(&format!("cannot send: {error}")))
    }

    /// Ends the connection in good order.
    ///
    /// # Errors
    /// When the server does not answer the close.
    pub async fn close(self) -> Result<()> {
        self.send_frame(tungstenite::Message::Close(None)).await?;
        self.closed(SOON).await.map(drop)
    }
}

impl Deref for Socket {
    type Target = Heard;

    fn deref(&self) -> &Heard {
        &self.heard
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// The request that opens a connection.
///
/// # Errors
/// When the token has characters that no header has.
pub fn request(url: &str, presenting: Presenting<'_>) -> Result<Request> {
    let mut request = url.into_client_request()?;
    let (name, value) = match presenting {
        Presenting::Header(token) => (header::AUTHORIZATION, format!("Bearer {token}")),
        Presenting::Subprotocol(token) => {
            (header::SEC_WEBSOCKET_PROTOCOL, format!("natter.v1, bearer.{token}"))
        }
        Presenting::FirstFrame(_) | Presenting::Nothing => return Ok(request),
    };
    request.headers_mut().insert(name, HeaderValue::from_str(&value)?);
    Ok(request)
}

/// Why there is no connection.
#[derive(Debug)]
pub enum Unopened {
    /// The gateway said no.
    Refused(Refusal),
    /// Nobody answered, or not as a gateway does.
    Failed(anyhow::Error),
}

/// Opens a bare connection, with buffers so small that one process can have thousands. Also
/// tells the subprotocol that the server chose.
///
/// # Errors
/// When there is none.
pub async fn open(
    from: Ipv4Addr,
    gateway: SocketAddr,
    request: Request,
) -> Result<(Stream, Option<String>), Unopened> {
    let tcp = async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let stream = socket.connect(gateway).await?;
        stream.set_nodelay(true)?;
        anyhow::Ok(stream)
    };
    let tcp = tcp.await.with_context(|| format!("cannot connect to {gateway}"));
    let tcp = tcp.map_err(Unopened::Failed)?;
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
    match timeout(SOON, client_async_with_config(request, tcp, Some(config))).await {
        Ok(Ok((stream, response))) => {
            let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            let protocol = protocol.and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok((stream, protocol))
        }
        Ok(Err(tungstenite::Error::Http(response))) => {
            let after = response.headers().get(header::RETRY_AFTER);
            let retry_after = after.and_then(|value| value.to_str().ok()?.parse().ok());
            Err(Unopened::Refused(Refusal { status: response.status(), retry_after }))
        }
        Ok(Err(error)) => Err(Unopened::Failed(error.into())),
        Err(_) => Err(Unopened::Failed(anyhow::anyhow!("{gateway} does not answer the handshake"))),
    }
}

async fn read(mut stream: SplitStream<Stream>, record: Arc<watch::Sender<Record>>) {
    let (code, reason) = loop {
        match stream.next().await {
            Some(Ok(tungstenite::Message::Text(text))) => {
                let mut pushed = Ok(());
                record.send_modify(|record| pushed = record.push(&text));
                if let Err(error) = pushed {
                    break (None, format!("{error:#}"));
                }
            }
            Some(Ok(tungstenite::Message::Close(frame))) => {
                let code = frame.as_ref().map(|frame| frame.code.into());
                break (code, frame.map(|frame| frame.reason.to_string()).unwrap_or_default());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => break (None, error.to_string()),
            None => break (None, "no close frame".to_owned()),
        }
    };
    record.send_modify(|record| record.close(Closed { code, reason, at: Instant::now() }));
    // The close handshake ends when the server has our answer and hangs up.
    while let Some(Ok(_)) = stream.next().await {}
}
