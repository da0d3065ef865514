//! How a transport spells what a connection is sent, and reads what it sends: the session is the
//! same for all of them.

use axum::extract::ws::Utf8Bytes;
use natter_protocol::{
    client::ClientFrame,
    error::{ErrorCode, WireError, close},
    server::{ErrorReply, Reply, ServerEvent},
    socketio::{self, EventPacket, Packet},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::hub::frames::frame;

/// A transport's way of spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// `{"event":…}`, over `/v1/ws`.
    Native,
    /// Packets of Socket.IO. A cursor is an event's last argument: stock clients show the last one
    /// that they got when they come back.
    SocketIo,
}

/// What a client's frame is.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Asks for something.
    Request(ClientFrame<'a>),
    /// Asks for it in a form that is refused; so many binary frames belong to it.
    Refused(Option<u64>, WireError, u32),
    /// Is answered with this.
    Answered(Utf8Bytes),
    /// Answers the event that asked with this number; so many binary frames belong to it.
    Acknowledged(u64, u32),
    /// Needs nothing.
    Nothing,
    /// The client leaves.
    Leaves,
}

/// It cannot be read: the connection ends.
#[derive(Debug)]
pub struct Malformed;

impl Codec {
    /// Reads a frame.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(self, text: &str) -> Result<Incoming<'_>, Malformed> {
        match self {
            Self::Native => ClientFrame::parse(text).map(Incoming::Request).map_err(|_| Malformed),
            Self::SocketIo => {
                let packet = text.strip_prefix('4').ok_or(Malformed)?;
                incoming(Packet::parse(packet).map_err(|_| Malformed)?)
            }
        }
    }

    /// An event.
    #[must_use]
    pub fn event(self, event: &ServerEvent<'_>) -> Utf8Bytes {
        match (self, event) {
            (Self::Native, _) => frame(event),
            (Self::SocketIo, ServerEvent::Exception(error)) => {
                packet("exception", &Exception { status: "error", error })
            }
            (Self::SocketIo, _) => Spelled::new(event).packet(None).into(),
        }
    }

    /// An event that tells where the connection stands, so that coming back resumes from there.
    #[must_use]
    pub fn event_at(self, event: &ServerEvent<'_>, cursor: &str) -> Utf8Bytes {
        match self {
            Self::Native => frame(event),
            Self::SocketIo => Spelled::new(event).packet(Some(&[cursor])).into(),
        }
    }

    /// The reply to a request.
    #[must_use]
    pub fn reply<T: Serialize>(self, request: u64, data: &T) -> Utf8Bytes {
        match self {
            Self::Native => frame(&Reply { reply: request, data }),
            Self::SocketIo => ack(request, &Acked { ok: true, data }),
        }
    }

    /// The reply to a request, with what was serialised before and a cursor.
    #[must_use]
    pub fn reply_at(self, request: u64, data: &str, cursor: &[&str]) -> Utf8Bytes {
        let (request, cursor) = (request.to_string(), cursor.concat());
        let [before, between] = match self {
            Self::Native => ["{\"reply\":", ",\"data\":"],
            Self::SocketIo => ["43", "[{\"ok\":true,\"data\":"],
        };
        let after = if self == Self::Native { "\"}" } else { "\"}]" };
        [before, &request, between, data, ",\"cursor\":\"", &cursor, after].concat().into()
    }

    /// Where the connection stands, for a client that takes it from events alone. It is sent
    /// after the client's own messages, which are replied to and are no events.
    #[must_use]
    pub fn place(self, cursor: &[&str]) -> Option<Utf8Bytes> {
        let packet = || ["42[\"cursor\",\"", &cursor.concat(), "\"]"].concat().into();
        (self == Self::SocketIo).then(packet)
    }

    /// Asks whether everything up to the cursor has been dealt with; the answer shows the number.
    #[must_use]
    pub fn checkpoint(self, number: u64, cursor: &str) -> Option<Utf8Bytes> {
        let number = number.to_string();
        let asked = || frame(&Checkpoint { cursor });
        let packet = || ["42", &number, "[\"checkpoint\",", &asked(), "]"].concat().into();
        (self == Self::SocketIo).then(packet)
    }

    /// What a request that failed is told: a reply, or an event when it wants none.
    #[must_use]
    pub fn refusal(self, request: Option<u64>, error: &WireError) -> Utf8Bytes {
        match (self, request) {
            (_, None) => self.event(&ServerEvent::Exception(error)),
            (Self::Native, Some(reply)) => frame(&ErrorReply { reply, error }),
            (Self::SocketIo, Some(request)) => ack(request, &Failed { ok: false, error }),
        }
    }

    /// The last things that are said on a connection that ends with this close code.
    #[must_use]
    pub fn goodbye(self, code: u16) -> Vec<Utf8Bytes> {
        if self == Self::Native {
            return Vec::new();
        }
        let mut said = vec![packet("closing", &Closing { code, reason: reason(code) })];
        if matches!(
            code,
            close::DEVICE_REVOKED | close::ACCOUNT_DISABLED | close::TOO_MANY_CONNECTIONS
        ) {
            // Coming back by itself would be of no use, or drive another connection out.
            said.push(Utf8Bytes::from_static(socketio::DISCONNECT));
        }
        said
    }
}

#[derive(Serialize)]
struct Acked<'a, T> {
    ok: bool,
    data: &'a T,
}

#[derive(Serialize)]
struct Failed<'a> {
    ok: bool,
    error: &'a WireError,
}

/// A request that asked for no ack has failed.
// As `NestJS` tells it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exception<'a> {
    /// Always `error`.
    status: &'static str,
    #[serde(flatten)]
    error: &'a WireError,
}

/// Why the connection is about to end: Socket.IO has no close codes.
#[derive(Serialize, ToSchema)]
pub(crate) struct Closing {
    /// A close code.
    code: u16,
    /// The same in words.
    reason: &'static str,
}

/// Asks whether everything up to the cursor has been dealt with.
#[derive(Serialize, ToSchema)]
pub(crate) struct Checkpoint<'a> {
    /// Where a client that acknowledges may go on, even when it is started anew.
    cursor: &'a str,
}

fn packet<T: Serialize>(event: &str, data: &T) -> Utf8Bytes {
    ["42[\"", event, "\",", frame(data).as_str(), "]"].concat().into()
}

fn ack<T: Serialize>(request: u64, data: &T) -> Utf8Bytes {
    ["43", &request.to_string(), "[", frame(data).as_str(), "]"].concat().into()
}

fn incoming(packet: Packet<'_>) -> Result<Incoming<'_>, Malformed> {
    Ok(match packet {
        Packet::Connect { namespace, .. } if !namespace.is_empty() => {
            Incoming::Answered(no_namespace(namespace))
        }
        Packet::Disconnect { namespace: "" } => Incoming::Leaves,
        Packet::Ack { id, attachments } => Incoming::Acknowledged(id, attachments),
        Packet::Connect { .. } | Packet::Disconnect { .. } => Incoming::Nothing,
        // Of a namespace that it has not connected to.
        Packet::Event(EventPacket { namespace, .. }) if !namespace.is_empty() => {
            return Err(Malformed);
        }
        Packet::Event(EventPacket { id, event, data, more, attachments, .. }) => {
            let refused =
                |code, message| Incoming::Refused(id, WireError::new(code, message), attachments);
            if attachments > 0 {
                refused(ErrorCode::UnsupportedMedia, "binary data is not accepted")
            } else if more {
                refused(ErrorCode::BadRequest, "an event has one payload")
            } else {
                Incoming::Request(ClientFrame { event, id, data })
            }
        }
    })
}

/// What a client that wants into another namespace is told.
#[must_use]
pub fn no_namespace(namespace: &str) -> Utf8Bytes {
    ["44", namespace, ",{\"message\":\"Invalid namespace\"}"].concat().into()
}

/// An event, serialised once: its name, and its data.
#[derive(Debug)]
pub struct Spelled {
    /// `{"event":"…","data":…`
    open: Box<str>,
    name: usize,
}

/// What stands before an event's name, and between it and its data.
const BEFORE_NAME: &str = "{\"event\":\"";
const BEFORE_DATA: &str = "\",\"data\":";

impl Spelled {
    /// Of this event.
    #[must_use]
    pub fn new(event: &ServerEvent<'_>) -> Self {
        let whole = frame(event);
        let open = whole.strip_suffix('}').unwrap_or_default();
        let rest = open.strip_prefix(BEFORE_NAME).unwrap_or_default();
        Self { name: rest.find(BEFORE_DATA).unwrap_or_default(), open: open.into() }
    }

    /// About what it takes as a frame or packet, without a cursor.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.len()
    }

    /// Its packet, with a cursor as its last argument.
    #[must_use]
    pub fn packet(&self, cursor: Option<&[&str]>) -> String {
        let rest = self.open.get(BEFORE_NAME.len()..).unwrap_or_default();
        let name = rest.get(..self.name).unwrap_or_default();
        let data = rest.get(self.name + BEFORE_DATA.len()..).unwrap_or("null");
        let Some(cursor) = cursor else { return ["42[\"", name, "\",", data, "]"].concat() };
        let mut parts = vec!["42[\"", name, "\",", data, ",\""];
        parts.extend(cursor);
        parts.push("\"]");
        parts.concat()
    }

    /// Its frame, with a cursor.
    #[must_use]
    pub fn frame(&self, cursor: Option<&[&str]>) -> String {
        let Some(cursor) = cursor else { return [&*self.open, "}"].concat() };
        let mut parts = vec![&*self.open, ",\"cursor\":\""];
        parts.extend(cursor);
        parts.push("\"}");
        parts.concat()
    }
}

/// A close code in words.
#[must_use]
pub fn reason(code: u16) -> &'static str {
    close::ALL.iter().find(|close| close.code == code).map_or("", |close| close.reason)
}

#[cfg(test)]
mod tests {
    use natter_protocol::{ids::ChatId, server::ChatRef};

    use super::*;

    #[test]
    fn an_event_is_spelled_for_each_transport() {
        let id = ChatId::generate();
        let event = ServerEvent::ChatRemoved(ChatRef { id });
        let spelled = Spelled::new(&event);
        assert_eq!(
            spelled.frame(Some(&["a", ".", "b"])),
            format!(r#"{{"event":"chat_removed","data":{{"id":"{id}"}},"cursor":"a.b"}}"#)
        );
        assert_eq!(
            spelled.packet(Some(&["a", ".", "b"])),
            format!(r#"42["chat_removed",{{"id":"{id}"}},"a.b"]"#)
        );
        let packet = Codec::SocketIo.event(&event);
        assert_eq!(packet.as_str(), format!(r#"42["chat_removed",{{"id":"{id}"}}]"#));
        assert_eq!(Codec::Native.event(&event), frame(&event));
    }

    #[test]
    fn what_fails_is_told_as_clients_expect_it() {
        let error = WireError::new(ErrorCode::Forbidden, "not allowed");
        assert_eq!(
            Codec::SocketIo.refusal(None, &error).as_str(),
            r#"42["exception",{"status":"error","code":"forbidden","message":"not allowed"}]"#
        );
        assert_eq!(
            Codec::SocketIo.refusal(Some(3), &error).as_str(),
            r#"433[{"ok":false,"error":{"code":"forbidden","message":"not allowed"}}]"#
        );
        assert_eq!(Codec::SocketIo.reply(3, &"x").as_str(), r#"433[{"ok":true,"data":"x"}]"#);
    }

    #[test]
    fn a_packet_is_a_request_or_refused() {
        let refused = |text| match Codec::SocketIo.read(text) {
            Ok(Incoming::Refused(id, error, attachments)) => Some((id, error.code, attachments)),
            _ => None,
        };
        let binary = r#"452-7["send_message",{"_placeholder":true,"num":0}]"#;
        assert_eq!(refused(binary), Some((Some(7), ErrorCode::UnsupportedMedia, 2)));
        assert_eq!(refused(r#"42["a",{},1]"#), Some((None, ErrorCode::BadRequest, 0)));
        assert!(Codec::SocketIo.read(r#"42/other,1["a",{}]"#).is_err());
        let read = Codec::SocketIo.read(r#"421["a",{"b":1}]"#);
        let Ok(Incoming::Request(ClientFrame { event, id: Some(1), data: Some(data) })) = read
        else {
            panic!("{read:?}");
        };
        assert_eq!((&*event, data.get()), ("a", r#"{"b":1}"#));
    }
}
