//! The transports of a session: what is read from them, and written.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket};
use bytes::Bytes;
use futures::{Sink, SinkExt};
use natter_protocol::{
    error::close,
    socketio::{self, Engine},
};
use tokio::{sync::oneshot, time::timeout};

use super::GOODBYE;
use crate::{
    codec::{self, Codec},
    socketio::{
        Moved,
        polling::{self, Polling},
    },
};

/// A session's transport.
pub enum Wire {
    /// A WebSocket with the native frames.
    Native(WebSocket),
    /// A WebSocket with packets.
    SocketIo(WebSocket),
    /// Packets, over requests that come and go.
    Polling(Box<polling::End>),
}

/// What a client does.
pub enum Heard {
    /// Sends a frame.
    Frame(Utf8Bytes),
    /// Sends binary data.
    Binary,
    /// Shows that it is there.
    Alive,
    /// Has moved to another transport: the session goes there, as soon as it can.
    MoveOut(oneshot::Sender<Moved>),
}

/// Why there is nothing to read or write any more: a close code to say, or none when nobody
/// listens.
pub type Over = Option<u16>;

impl Wire {
    /// How frames are spelled on it.
    pub fn codec(&self) -> Codec {
        match self {
            Self::Native(_) => Codec::Native,
            Self::SocketIo(_) | Self::Polling(_) => Codec::SocketIo,
        }
    }

    /// What the client does next. Nothing is lost when it is dropped.
    pub async fn hear(&mut self) -> Result<Heard, Over> {
        let (socket, packets) = match self {
            Self::Native(socket) => (socket, false),
            Self::SocketIo(socket) => (socket, true),
            Self::Polling(end) => return end.hear().await,
        };
        match socket.recv().await {
            Some(Ok(Message::Text(text))) if packets => packet(text),
            Some(Ok(Message::Text(text))) => Ok(Heard::Frame(text)),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(Heard::Alive),
            Some(Ok(Message::Binary(_))) => Ok(Heard::Binary),
            Some(Ok(Message::Close(_))) | None => Err(None),
            Some(Err(error)) => Err(code_of(error)),
        }
    }

    /// Too much waits to be fetched: what is to be waited for before more is written. Never so of
    /// a WebSocket.
    pub fn full(&self) -> Option<Arc<Polling>> {
        match self {
            Self::Native(_) | Self::SocketIo(_) => None,
            Self::Polling(end) => end.full(),
        }
    }

    /// Whether another frame can be added without waiting.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                Pin::new(socket).poll_ready(context).map_err(code_of)
            }
            // Who has looked at [`Wire::full`] knows.
            Self::Polling(_) => Poll::Ready(Ok(())),
        }
    }

    /// Adds a frame to what is written with the next flush, once [`Wire::poll_ready`] has said so;
    /// one or two more go as well.
    pub fn add(&mut self, frame: Utf8Bytes) -> Result<(), Over> {
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                Pin::new(socket).start_send(Message::Text(frame)).map_err(code_of)
            }
            Self::Polling(end) => {
                end.add(frame);
                Ok(())
            }
        }
    }

    /// Writes what the socket takes; ready once that is all.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Over>> {
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                Pin::new(socket).poll_flush(context).map_err(code_of)
            }
            Self::Polling(end) => {
                end.flush();
                Poll::Ready(Ok(()))
            }
        }
    }

    /// The task that holds it now is woken to write, and no other: a socket remembers whoever wrote to it
    /// last, and with that the memory of the task that let it in, which has ended.
    pub async fn adopt(&mut self) {
        if let Self::Native(socket) | Self::SocketIo(socket) = self {
            let mut socket = Pin::new(socket);
            // An error comes again when it is read.
            let _ = poll_fn(|context| Poll::Ready(socket.as_mut().poll_flush(context))).await;
        }
    }

    /// Adds a frame to what is written with the next flush, when there is room.
    pub async fn feed(&mut self, frame: Utf8Bytes) -> Result<(), Over> {
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                socket.feed(Message::Text(frame)).await.map_err(code_of)
            }
            Self::Polling(end) => end.feed(frame).await,
        }
    }

    /// Writes all of it.
    pub async fn flush(&mut self) -> Result<(), Over> {
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                SinkExt::<Message>::flush(socket).await.map_err(code_of)
            }
            Self::Polling(end) => {
                end.flush();
                Ok(())
            }
        }
    }

    /// Writes a frame.
    pub async fn send(&mut self, frame: Utf8Bytes) -> Result<(), Over> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Takes what no poll has fetched, for another transport.
    pub fn waiting(&mut self) -> Vec<String> {
        match self {
            Self::Native(_) | Self::SocketIo(_) => Vec::new(),
            Self::Polling(end) => end.waiting(),
        }
    }

    /// Asks whether the client is there.
    pub async fn ping(&mut self) -> Result<(), Over> {
        match self {
            Self::Native(socket) => socket.send(Message::Ping(Bytes::new())).await.map_err(code_of),
            Self::SocketIo(_) | Self::Polling(_) => {
                self.send(Utf8Bytes::from_static(socketio::PING)).await
            }
        }
    }

    /// Ends it with a close code, within a bounded time.
    pub async fn goodbye(self, code: u16) {
        let last = self.codec().goodbye(code);
        match self {
            Self::Native(socket) | Self::SocketIo(socket) => {
                let _ = timeout(GOODBYE, close_with(socket, last, code)).await;
            }
            Self::Polling(end) => end.finish(last).await,
        }
    }
}

async fn close_with(mut socket: WebSocket, last: Vec<Utf8Bytes>, code: u16) {
    for frame in last {
        if socket.feed(Message::Text(frame)).await.is_err() {
            return;
        }
    }
    let reason = Utf8Bytes::from_static(codec::reason(code));
    if socket.send(Message::Close(Some(CloseFrame { code, reason }))).await.is_ok() {
        // The client's own close frame: a socket that is dropped before it has been read is
        // reset, and the client may never see the code.
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// A packet from a client whose session is open.
pub fn packet(text: Utf8Bytes) -> Result<Heard, Over> {
    match Engine::parse(&text) {
        Ok(Engine::Message(_)) => Ok(Heard::Frame(text)),
        Ok(Engine::Pong | Engine::Noop) => Ok(Heard::Alive),
        Ok(Engine::Binary) => Ok(Heard::Binary),
        Ok(Engine::Close) => Err(None),
        Ok(Engine::Probe | Engine::Upgrade) | Err(_) => Err(Some(close::MALFORMED)),
    }
}

/// The close code for a frame that could not be read; none when the socket itself is gone.
fn code_of(error: axum::Error) -> Over {
    let error = error.into_inner();
    match error.downcast_ref::<tungstenite::Error>() {
        Some(tungstenite::Error::Capacity(_)) => Some(close::FRAME_TOO_LARGE),
        Some(tungstenite::Error::Protocol(
            tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
        )) => None,
        Some(tungstenite::Error::Utf8(_) | tungstenite::Error::Protocol(_)) => {
            Some(close::MALFORMED)
        }
        _ => None,
    }
}
