//! Official Socket.IO clients, many in one process: requests, and what has come.
//!
//! What happens to a client itself is told as events of the names that Socket.IO reserves:
//! `connect {id, recovered, transport}`, `disconnect {reason}`, `connect_error {message, data}`;
//! and `upgrade {transport}`, which no server of ours says.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Result, ensure};
use natter_protocol::{error::WireError, ids::ChatId, server::Sent};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{heard::Heard, soon::SOON};

mod process;

use process::Process;

/// Milliseconds after which clients come back, at first and at last: stories do not wait for more.
const COMES_BACK: (u64, u64) = (50, 500);

/// Whose client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `socket.io-client`, in Node.js.
    JavaScript,
    /// `python-socketio`, with `asyncio`. It knows nothing of recovery.
    Python,
}

/// Which transports a client uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing else.
    WebSocket,
    /// Nothing else.
    Polling,
    /// What clients do by default: polling first, then a WebSocket.
    Upgrade,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::WebSocket, Self::Polling, Self::Upgrade];

    fn transports(self) -> Value {
        match self {
            Self::WebSocket => json!(["websocket"]),
            Self::Polling => json!(["polling"]),
            Self::Upgrade => json!(["polling", "websocket"]),
        }
    }
}

/// A process for clients.
#[derive(Clone, Debug)]
pub struct Peers {
    process: Arc<Process>,
}

/// One official client. Dropping the last handle of its process cuts it.
#[derive(Debug)]
pub struct Peer {
    heard: Heard,
    name: u64,
    process: Arc<Process>,
    requests: AtomicU64,
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct Dial {
    url: String,
    auth: Value,
    options: Value,
}

/// What a client says of a connection that it has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Connected {
    /// The connection's id.
    pub id: String,
    /// Whether what was missed is going to come.
    pub recovered: bool,
    /// `websocket` or `polling`.
    pub transport: String,
}

/// What a client knows of itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Whether it has a connection.
    pub connected: bool,
    /// Whether that was recovered; JavaScript only, like what follows.
    pub recovered: Option<bool>,
    /// What it recovers with: which session,
    pub pid: Option<String>,
    /// and up to where it was told.
    pub offset: Option<String>,
    /// `websocket` or `polling`.
    pub transport: Option<String>,
}

impl Dial {
    /// With this token, and the transports of `mode`.
    pub fn new(url: &str, token: &str, mode: Mode) -> Self {
        let (first, last) = COMES_BACK;
        let options = json!({
            "transports": mode.transports(),
            "reconnectionDelay": first,
            "reconnectionDelayMax": last,
        });
        Self { url: url.to_owned(), auth: json!({"token": token}), options }
    }

    /// Without a token.
    pub fn without_token(url: &str, mode: Mode) -> Self {
        let mut dial = Self::new(url, "", mode);
        dial.auth = json!({});
        dial
    }

    /// Something else in `auth`.
    #[must_use]
    pub fn auth(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.auth[name] = value.into();
        self
    }

    /// An option of the client's own, in its own words; JavaScript only.
    #[must_use]
    pub fn option(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.options[name] = value.into();
        self
    }
}

impl Peers {
    /// A process without clients, installed before if need be.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(language: Language) -> Result<Self> {
        Ok(Self { process: Arc::new(Process::start(language).await?) })
    }

    /// Has one more client connect, and waits for nothing.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn dial(&self, label: &str, dial: &Dial) -> Result<Peer> {
        let heard = Heard::new(label.to_owned());
        let name = self.process.name(heard.record());
        let process = Arc::clone(&self.process);
        let peer = Peer { heard, name, process, requests: AtomicU64::new(0) };
        let Dial { url, auth, options } = dial;
        peer.tell("connect", json!({"url": url, "auth": auth, "options": options})).await?;
        Ok(peer)
    }

    /// Has one more client connect, and waits until it has and is told `ready`.
    ///
    /// # Errors
    /// When it is not.
    pub async fn connect(&self, label: &str, dial: &Dial) -> Result<Peer> {
        let peer = self.dial(label, dial).await?;
        peer.connected().await?;
        peer.expect("ready", |_| true).await?;
        Ok(peer)
    }
}

/// Sending.
impl Peer {
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
        let id = self.post(event, json!([data])).await?;
        self.reply(id).await
    }

    /// Emits an event with an acknowledgement, which is left for later.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn post(&self, event: &str, args: Value) -> Result<u64> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell("emit", json!({"event": event, "args": args, "ack": id})).await?;
        Ok(id)
    }

    /// The acknowledgement of [`Peer::post`].
    ///
    /// # Errors
    /// When none comes.
    pub async fn reply(&self, id: u64) -> Result<Result<Value, WireError>> {
        self.heard.reply_within(SOON, id).await
    }

    /// Emits an event without an acknowledgement, as the clients of the old backend do.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn emit(&self, event: &str, data: Value) -> Result<()> {
        self.emit_all(event, json!([data])).await
    }

    /// As [`Peer::emit`], with any number of arguments.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn emit_all(&self, event: &str, args: Value) -> Result<()> {
        self.tell("emit", json!({"event": event, "args": args, "ack": null})).await
    }

    /// Sends a message, with a client id of this moment, and waits for its acknowledgement.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn say(&self, chat: ChatId, content: &str) -> Result<Sent> {
        let id = uuid::Uuid::now_v7();
        let data = json!({"chatId": chat, "content": content, "clientMsgId": id});
        Ok(serde_json::from_value(self.request("send_message", data).await?)?)
    }
}

/// The client itself.
impl Peer {
    /// Waits until it says that it has connected, once for each time.
    ///
    /// # Errors
    /// When it does not.
    pub async fn connected(&self) -> Result<Connected> {
        self.expect_as("connect", |_: &Connected| true).await
    }

    /// Waits until it comes back by itself with all that it missed, and is told so.
    ///
    /// # Errors
    /// When it does not come back, or without that.
    pub async fn recovered(&self) -> Result<Connected> {
        let connected = self.connected().await?;
        ensure!(connected.recovered, self.failure("it was not recovered"));
        self.expect("ready", |data| data["resumed"] == true).await?;
        self.expect("resume_done", |_| true).await?;
        Ok(connected)
    }

    /// Waits until it says that it has lost its connection, and why.
    ///
    /// # Errors
    /// When it does not.
    pub async fn disconnected(&self) -> Result<String> {
        let data = self.expect("disconnect", |data| data["reason"].is_string()).await?;
        Ok(data["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// What it knows of itself.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn state(&self) -> Result<State> {
        let id = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        self.tell("state", json!({"ack": id})).await?;
        let state = self.reply(id).await?.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(serde_json::from_value(state)?)
    }

    /// Cuts its connection, as when a phone loses its network. It comes back by itself.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn drop_transport(&self) -> Result<()> {
        self.tell("drop", json!({})).await
    }

    /// Ends its connection in good order.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn disconnect(&self) -> Result<()> {
        self.tell("disconnect", json!({})).await
    }

    /// Has it connect after [`Peer::disconnect`]; JavaScript only.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn reconnect(&self) -> Result<()> {
        self.tell("reconnect", json!({})).await
    }

    /// What it recovers with from here on, of `pid` and `offset`; null where it is to have
    /// nothing. JavaScript only.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn forge(&self, what: Value) -> Result<()> {
        self.tell("forge", json!({"what": what})).await
    }

    /// Acknowledges all checkpoints, those that have come and those that will.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn acknowledge(&self) -> Result<()> {
        self.tell("acknowledge", json!({})).await
    }

    /// What it shows in `auth` the next time.
    ///
    /// # Errors
    /// When the process is gone.
    pub async fn set_token(&self, token: &str) -> Result<()> {
        self.tell("auth", json!({"auth": {"token": token}})).await
    }

    async fn tell(&self, action: &str, what: Value) -> Result<()> {
        let told = self.process.tell(self.name, action, what).await;
        told.map_err(|error| self.failure(&format!("{error:#}")))
    }
}

impl Deref for Peer {
    type Target = Heard;

    fn deref(&self) -> &Heard {
        &self.heard
    }
}
