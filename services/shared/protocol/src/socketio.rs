//! The two small protocols that Socket.IO clients speak: Engine.IO 4 (packets over polling or a
//! WebSocket: <https://socket.io/docs/v4/engine-io-protocol/>) and on it Socket.IO 5 (events, acks,
//! namespaces: <https://socket.io/docs/v4/socket-io-protocol/>). Only the default namespace is
//! served, and no binary data.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// The version of Engine.IO, as clients name it in `EIO`.
pub const ENGINE_VERSION: &str = "4";
/// Stands between packets that travel together over polling.
pub const SEPARATOR: char = '\u{1e}';
/// Packets in one payload; a client has no use for more than its rate allows.
pub const PAYLOAD_PACKETS: usize = 1_000;
/// Binary attachments that an event may announce. They are refused, but have to be passed over.
pub const ATTACHMENTS: u32 = 64;

/// Keeps the transport alive: the server asks …
pub const PING: &str = "2";
/// … and the answer to a client's `2probe`.
pub const PROBED: &str = "3probe";
/// Ends a poll that has nothing to tell.
pub const NOOP: &str = "6";
/// Ends the transport.
pub const CLOSE: &str = "1";
/// Ends the Socket.IO connection: a client told so does not come back by itself.
pub const DISCONNECT: &str = "41";

/// It is none of the packets that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a packet")]
pub struct Malformed;

/// An Engine.IO packet from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine<'a> {
    /// The client leaves.
    Close,
    /// `2probe`: may this WebSocket take the session over?
    Probe,
    /// The answer to a ping.
    Pong,
    /// A Socket.IO packet.
    Message(&'a str),
    /// The WebSocket takes the session over.
    Upgrade,
    /// Nothing.
    Noop,
    /// Binary data, which polling carries as base64.
    Binary,
}

impl<'a> Engine<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`], also for what only a server sends.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        match (text.as_bytes().first(), text) {
            (Some(b'4'), _) => Ok(Self::Message(&text[1..])),
            (Some(b'3'), "3") => Ok(Self::Pong),
            (Some(b'2'), "2probe") => Ok(Self::Probe),
            (Some(b'5'), "5") => Ok(Self::Upgrade),
            (Some(b'1'), "1") => Ok(Self::Close),
            (Some(b'6'), "6") => Ok(Self::Noop),
            (Some(b'b'), _) => Ok(Self::Binary),
            _ => Err(Malformed),
        }
    }
}

/// What a server opens a session with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Open {
    /// The session's id.
    pub sid: String,
    /// What it may be upgraded to.
    pub upgrades: Vec<String>,
    /// Milliseconds between two pings.
    pub ping_interval: u64,
    /// Milliseconds that a ping's answer may take.
    pub ping_timeout: u64,
    /// Bytes of a payload.
    pub max_payload: usize,
}

/// A Socket.IO packet from a client.
#[derive(Debug)]
pub enum Packet<'a> {
    /// Wants in.
    Connect {
        /// Where; empty for the default namespace.
        namespace: &'a str,
        /// What it shows.
        auth: Option<&'a RawValue>,
    },
    /// Leaves a namespace.
    Disconnect {
        /// Which.
        namespace: &'a str,
    },
    /// An event.
    Event(EventPacket<'a>),
    /// The answer to an event of the server.
    Ack {
        /// The number that the event asked with.
        id: u64,
        /// Binary attachments that follow.
        attachments: u32,
    },
}

/// An event from a client.
#[derive(Debug)]
pub struct EventPacket<'a> {
    /// Where; empty for the default namespace.
    pub namespace: &'a str,
    /// Asks for an ack with the same number.
    pub id: Option<u64>,
    /// Which event.
    pub event: Cow<'a, str>,
    /// Its first argument.
    pub data: Option<&'a RawValue>,
    /// It has more arguments.
    pub more: bool,
    /// Binary attachments that follow.
    pub attachments: u32,
}

impl<'a> Packet<'a> {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`], also for what only a server sends.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        let kind = *text.as_bytes().first().ok_or(Malformed)?;
        let rest = text.get(1..).ok_or(Malformed)?;
        let binary = matches!(kind, b'5' | b'6');
        let (attachments, rest) = if binary { attachments(rest)? } else { (0, rest) };
        let (namespace, rest) = namespace(rest);
        match kind {
            b'0' if rest.is_empty() => Ok(Self::Connect { namespace, auth: None }),
            b'0' => {
                let auth = serde_json::from_str(rest).map_err(|_| Malformed)?;
                Ok(Self::Connect { namespace, auth: Some(auth) })
            }
            b'1' if rest.is_empty() => Ok(Self::Disconnect { namespace }),
            b'2' | b'5' => {
                let (id, rest) = number(rest)?;
                let Arguments { event, data, more } =
                    serde_json::from_str(rest).map_err(|_| Malformed)?;
                Ok(Self::Event(EventPacket { namespace, id, event, data, more, attachments }))
            }
            b'3' | b'6' => {
                let (id, rest) = number(rest)?;
                let _: Vec<IgnoredAny> = serde_json::from_str(rest).map_err(|_| Malformed)?;
                id.map(|id| Self::Ack { id, attachments }).ok_or(Malformed)
            }
            _ => Err(Malformed),
        }
    }
}

/// `2-…`: how many attachments follow.
fn attachments(text: &str) -> Result<(u32, &str), Malformed> {
    let (count, rest) = text.split_once('-').ok_or(Malformed)?;
    let count = digits(count).filter(|count| *count <= u64::from(ATTACHMENTS)).ok_or(Malformed)?;
    Ok((u32::try_from(count).map_err(|_| Malformed)?, rest))
}

/// `/name,…`; the comma may be missing at the end.
fn namespace(text: &str) -> (&str, &str) {
    if !text.starts_with('/') {
        return ("", text);
    }
    let (name, rest) = text.split_once(',').unwrap_or((text, ""));
    (if name == "/" { "" } else { name }, rest)
}

/// `12…`: an ack's number, if there is one.
fn number(text: &str) -> Result<(Option<u64>, &str), Malformed> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    if end == 0 {
        return Ok((None, text));
    }
    let number = digits(&text[..end]).ok_or(Malformed)?;
    Ok((Some(number), &text[end..]))
}

/// A number that JavaScript has too.
fn digits(text: &str) -> Option<u64> {
    const SAFE: u64 = (1 << 53) - 1;
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| all && *number <= SAFE)
}

/// `["event",{…}]`
struct Arguments<'a> {
    event: Cow<'a, str>,
    data: Option<&'a RawValue>,
    more: bool,
}

impl<'de> Deserialize<'de> for Arguments<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Array;
        impl<'de> Visitor<'de> for Array {
            type Value = Arguments<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array that begins with the event's name")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let Name(event) = seq
                    .next_element()?
                    .ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                let data = seq.next_element()?;
                let mut more = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more = true;
                }
                Ok(Arguments { event, data, more })
            }
        }
        deserializer.deserialize_seq(Array)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// What a client shows in its `CONNECT`.
#[derive(Deserialize, Default, ToSchema)]
#[schema(as = SocketIoAuth)]
pub struct Auth {
    /// A JWT; it may be in the handshake's `Authorization` instead.
    #[serde(default)]
    pub token: Option<String>,
    /// Its own messages come as events too.
    #[serde(default)]
    pub echo: bool,
    /// It is asked now and then whether it has dealt with what it was sent.
    #[serde(default)]
    pub checkpoints: bool,
    /// Where it stood when it ran before: what it kept. Of no account when it comes back, with the
    /// two below.
    #[serde(default)]
    pub cursor: Option<String>,
    /// Of the connection that it had before: as it was told at its beginning.
    #[serde(default)]
    pub pid: Option<String>,
    /// The cursor of the last event that it has.
    #[serde(default)]
    pub offset: Option<String>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth { .. }")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Read = (String, Option<u64>, Option<String>, bool, u32);

    fn event(text: &str) -> Option<Read> {
        match Packet::parse(text) {
            Ok(Packet::Event(event)) if event.namespace.is_empty() => Some((
                event.event.into_owned(),
                event.id,
                event.data.map(|data| data.get().to_owned()),
                event.more,
                event.attachments,
            )),
            _ => None,
        }
    }

    #[test]
    fn the_examples_of_the_specification_are_read() {
        let is = |text, name: &str, id, data: Option<&str>, more, attachments| {
            let expected = (name.to_owned(), id, data.map(str::to_owned), more, attachments);
            assert_eq!(event(text), Some(expected), "{text}");
        };
        is(r#"2["foo"]"#, "foo", None, None, false, 0);
        is(r#"2["foo",{"a":1}]"#, "foo", None, Some(r#"{"a":1}"#), false, 0);
        is(r#"212["foo","bar",3]"#, "foo", Some(12), Some(r#""bar""#), true, 0);
        is(r#"2/,0["foo"]"#, "foo", Some(0), None, false, 0);
        is(
            r#"51-7["baz",{"_placeholder":true,"num":0}]"#,
            "baz",
            Some(7),
            Some(r#"{"_placeholder":true,"num":0}"#),
            false,
            1,
        );
        assert!(matches!(Packet::parse("0"), Ok(Packet::Connect { namespace: "", auth: None })));
        let connect = Packet::parse(r#"0/admin,{"token":"x"}"#);
        let Ok(Packet::Connect { namespace: "/admin", auth: Some(auth) }) = connect else {
            panic!("{connect:?}");
        };
        assert_eq!(auth.get(), r#"{"token":"x"}"#);
        assert!(matches!(
            Packet::parse("0/admin"),
            Ok(Packet::Connect { namespace: "/admin", .. })
        ));
        assert!(matches!(
            Packet::parse("1/admin,"),
            Ok(Packet::Disconnect { namespace: "/admin" })
        ));
        assert!(matches!(Packet::parse("1"), Ok(Packet::Disconnect { namespace: "" })));
        assert!(matches!(Packet::parse("312[]"), Ok(Packet::Ack { id: 12, attachments: 0 })));
        let ack = Packet::parse(r#"61-12[{"_placeholder":true}]"#);
        assert!(matches!(ack, Ok(Packet::Ack { id: _, attachments: 1 })));
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for text in [
            "",
            "2",
            "2[]",
            "2[1]",
            "2{}",
            r#"2["a""#,
            r#"2["a"]x"#,
            "3[]",
            "312",
            "4{}",
            "7",
            "abc",
            r#"5["a"]"#,
            r#"5-["a"]"#,
            r#"5+1-["a"]"#,
            r#"5999-["a"]"#,
            r#"2-1["a"]"#,
            "0{",
            "1x",
            r#"29007199254740992["a"]"#,
            r#"299999999999999999999999["a"]"#,
        ] {
            assert!(Packet::parse(text).is_err(), "{text}");
        }
        for text in ["", "0", "2", "3probe", "5x", "7", "11", "é4"] {
            assert!(Engine::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nesting_does_not_exhaust_the_stack() {
        let deep = format!(r#"2["a",{}{}]"#, "[".repeat(100_000), "]".repeat(100_000));
        let _ = Packet::parse(&deep);
        let deep = format!("0{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = Packet::parse(&deep);
    }

    proptest! {
        #[test]
        fn an_event_is_read_as_it_was_written(
            name in ".{0,20}", id in proptest::option::of(0..(1u64 << 53)), data in ".{0,40}",
            more in 0usize..3, default in any::<bool>(),
        ) {
            let mut arguments = vec![serde_json::json!(name), serde_json::json!({"data": data})];
            arguments.extend(std::iter::repeat_n(serde_json::json!(1), more));
            let text = format!(
                "2{}{}{}",
                if default { "/," } else { "" },
                id.map(|id| id.to_string()).unwrap_or_default(),
                serde_json::to_string(&arguments).unwrap_or_default(),
            );
            let read = event(&text);
            let expected = Some((name, id, Some(arguments[1].to_string()), more > 0, 0));
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn anything_is_read_or_refused(text in ".*", kind in "[0-9b]", rest in ".*") {
            let _ = (Engine::parse(&text), Packet::parse(&text));
            let packet = format!("{kind}{rest}");
            let _ = (Engine::parse(&packet), Packet::parse(&packet));
        }

        #[test]
        fn anything_that_looks_like_a_packet_is_read_or_refused(
            text in r#"[0-6][0-9]{0,3}-?(/[a-z]{0,3},?)?[0-9]{0,20}[\[\]{}",:a-z0-9\\]{0,40}"#,
        ) {
            let _ = Packet::parse(&text);
        }
    }
}
