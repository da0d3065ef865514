//! What a driven connection says and hears, in either transport's words. It looks for the few
//! fields that it needs, where a parser of JSON would cost more than the server's delivery.

use std::io::Write as _;

use memchr::memmem;
use natter_protocol::ids::ChatId;
use uuid::Uuid;

use crate::frame;

/// How a client speaks to a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Transport {
    /// Natter's own WebSocket.
    Native,
    /// Socket.IO over a WebSocket.
    SocketIo,
}

impl Transport {
    /// Where a gateway takes it.
    pub fn path(self) -> &'static str {
        match self {
            Self::Native => "/v1/ws",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        }
    }
}

/// What is in a message's content, so that whoever hears it knows what it is: the run, the chat,
/// who of its members sent it, and when it was due, in µs since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Which run.
    pub run: u32,
    /// The chat's number.
    pub chat: u32,
    /// When it was due.
    pub due: u64,
}

/// Bytes of every message's content.
pub const CONTENT: usize = 100;

impl Mark {
    /// Appends the content.
    fn write(self, out: &mut Vec<u8>) {
        let start = out.len();
        // Writing to memory does not fail.
        let _ = write!(out, "{} {} {} ", self.run, self.chat, self.due);
        out.resize(start + CONTENT, b'.');
    }

    /// The content.
    pub fn content(self) -> Vec<u8> {
        let mut content = Vec::with_capacity(CONTENT);
        self.write(&mut content);
        content
    }

    /// What a content says; none when it is no driver's.
    pub fn read(content: &[u8]) -> Option<Self> {
        let (run, rest) = number(content)?;
        let (chat, rest) = number(rest.get(1..)?)?;
        let (due, _) = number(rest.get(1..)?)?;
        Some(Self { run: run.try_into().ok()?, chat: chat.try_into().ok()?, due })
    }
}

/// What a gateway said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message.
    Message {
        /// Its place in the chat's feed.
        seq: u64,
        /// Its content.
        mark: Mark,
    },
    /// What we sent is stored.
    Stored {
        /// As we numbered it.
        id: u64,
        /// Its place in the chat's feed.
        seq: u64,
    },
    /// It is not.
    Refused {
        /// As we numbered it.
        id: u64,
        /// All that was said.
        why: &'a [u8],
    },
    /// All is set up.
    Ready,
    /// What was missed is told, up to here.
    Resumed,
    /// Engine.IO's handshake: Socket.IO's is to follow.
    Opened,
    /// Engine.IO's ping.
    Ping,
    /// What does not concern a driver.
    Other,
}

/// Reads a frame's payload.
pub fn read(transport: Transport, text: &[u8]) -> Heard<'_> {
    let found = match transport {
        Transport::Native => native(text),
        Transport::SocketIo => socket_io(text),
    };
    found.unwrap_or(Heard::Other)
}

fn native(text: &[u8]) -> Option<Heard<'_>> {
    if text.starts_with(b"{\"event\":\"message\",") {
        return message(text);
    }
    if let Some(rest) = text.strip_prefix(b"{\"reply\":") {
        return Some(reply(number(rest)?.0, text, b"\"error\":{"));
    }
    if text.starts_with(b"{\"event\":\"ready\"") {
        return Some(Heard::Ready);
    }
    text.starts_with(b"{\"event\":\"resume_done\"").then_some(Heard::Resumed)
}

fn socket_io(text: &[u8]) -> Option<Heard<'_>> {
    match text {
        b"2" => Some(Heard::Ping),
        [b'0', b'{', ..] => Some(Heard::Opened),
        [b'4', b'3', rest @ ..] => Some(reply(number(rest)?.0, text, b"\"ok\":false")),
        [b'4', b'2', rest @ ..] if rest.starts_with(b"[\"message\",") => message(text),
        [b'4', b'2', rest @ ..] if rest.starts_with(b"[\"ready\",") => Some(Heard::Ready),
        [b'4', b'2', rest @ ..] if rest.starts_with(b"[\"resume_done\",") => Some(Heard::Resumed),
        _ => None,
    }
}

fn message(text: &[u8]) -> Option<Heard<'_>> {
    let seq = number(after(text, b"\"seq\":")?)?.0;
    let mark = Mark::read(after(text, b"\"content\":\"")?)?;
    Some(Heard::Message { seq, mark })
}

fn reply<'a>(id: u64, text: &'a [u8], failed: &[u8]) -> Heard<'a> {
    let seq = after(text, b"\"seq\":").and_then(number);
    match seq {
        Some((seq, _)) if memmem::find(text, failed).is_none() => Heard::Stored { id, seq },
        _ => Heard::Refused { id, why: text },
    }
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find(text, what)?;
    text.get(at + what.len()..)
}

fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(digits);
    Some((std::str::from_utf8(number).ok()?.parse().ok()?, rest))
}

/// Appends a frame that sends a message, numbered `id`.
pub fn send(out: &mut Vec<u8>, transport: Transport, id: u64, chat: ChatId, mark: Mark) {
    let mut text = Vec::with_capacity(320);
    let key = Uuid::now_v7();
    // Writing to memory does not fail.
    let _ = match transport {
        Transport::Native => write!(
            text,
            "{{\"event\":\"send_message\",\"id\":{id},\"data\":{{\"chatId\":\"{chat}\",\"clientMsgId\":\"{key}\",\"content\":\""
        ),
        Transport::SocketIo => write!(
            text,
            "42{id}[\"send_message\",{{\"chatId\":\"{chat}\",\"clientMsgId\":\"{key}\",\"content\":\""
        ),
    };
    mark.write(&mut text);
    text.extend_from_slice(match transport {
        Transport::Native => b"\"}}",
        Transport::SocketIo => b"\"}]",
    });
    frame::text(out, &text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MARK: Mark = Mark { run: 3, chat: 17, due: 1_234_567 };

    #[test]
    fn a_message_is_told_from_what_else_comes() {
        let mut content = Vec::new();
        MARK.write(&mut content);
        assert_eq!(content.len(), CONTENT);
        let content = String::from_utf8(content).expect("text");
        let data = format!("{{\"id\":\"x\",\"seq\":42,\"prevSeq\":40,\"content\":\"{content}\"}}");
        let heard = Heard::Message { seq: 42, mark: MARK };
        let native = format!("{{\"event\":\"message\",\"data\":{data},\"cursor\":\"c\"}}");
        assert_eq!(read(Transport::Native, native.as_bytes()), heard);
        let theirs = format!("42[\"message\",{data}]");
        assert_eq!(read(Transport::SocketIo, theirs.as_bytes()), heard);
    }

    #[test]
    fn replies_say_whether_it_is_stored() {
        let stored = b"{\"reply\":7,\"data\":{\"id\":\"x\",\"seq\":9,\"prevSeq\":8}}";
        assert_eq!(read(Transport::Native, stored), Heard::Stored { id: 7, seq: 9 });
        let stored = b"4312[{\"ok\":true,\"data\":{\"seq\":9}}]";
        assert_eq!(read(Transport::SocketIo, stored), Heard::Stored { id: 12, seq: 9 });
        let refused = b"{\"reply\":7,\"error\":{\"code\":\"unavailable\"}}";
        assert_eq!(read(Transport::Native, refused), Heard::Refused { id: 7, why: refused });
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in ".{0,80}", at in 0_usize..4) {
            let begins = ["{\"reply\":", "43", "{\"event\":\"message\",", "42[\"message\","][at];
            for transport in [Transport::Native, Transport::SocketIo] {
                read(transport, format!("{begins}{text}").as_bytes());
            }
        }
    }
}
