//! WebSocket frames (RFC 6455), as a client reads and writes them: no more of it than a load
//! driver needs, so that what it costs is little beside what it measures.

/// A whole frame. Servers do not split messages here; one that does is malformed to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// Text or binary.
    Data(&'a [u8]),
    /// To be answered with the same.
    Ping(&'a [u8]),
    /// Nothing that we have asked for.
    Pong,
    /// The server hangs up, with this code; 1005 where it says none.
    Close(u16),
}

/// What no server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// Set beside the length of what clients send.
const MASKED: u8 = 0x80;
/// In place of a length: two bytes with it follow.
const SHORT: u8 = 0x7E;
/// Eight do.
const LONG: u8 = 0x7F;

/// The largest frame that is taken, in bytes; servers send far less.
pub const LARGEST: usize = 1 << 20;

/// The first frame of `bytes`, and how long it is there; none while there is no whole one.
///
/// # Errors
/// When it can never become one.
pub fn first(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Malformed> {
    let &[start, short, ref rest @ ..] = bytes else { return Ok(None) };
    // Final, not reserved, and not masked: servers do not mask.
    if start & 0xF0 != 0x80 || short & 0x80 != 0 {
        return Err(Malformed);
    }
    let (length, head) = match short {
        SHORT => match rest {
            [a, b, ..] => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            _ => return Ok(None),
        },
        LONG => match rest.first_chunk() {
            Some(length) => {
                (usize::try_from(u64::from_be_bytes(*length)).map_err(|_| Malformed)?, 10)
            }
            None => return Ok(None),
        },
        short => (usize::from(short), 2),
    };
    if length > LARGEST {
        return Err(Malformed);
    }
    let Some(payload) = bytes.get(head..head + length) else { return Ok(None) };
    let frame = match start & 0x0F {
        TEXT | BINARY => Frame::Data(payload),
        PING => Frame::Ping(payload),
        PONG => Frame::Pong,
        CLOSE => match payload.first_chunk() {
            Some(code) => Frame::Close(u16::from_be_bytes(*code)),
            None => Frame::Close(1005),
        },
        CONTINUATION.. => return Err(Malformed),
    };
    Ok(Some((frame, head + length)))
}

/// Appends a text frame.
pub fn text(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, TEXT, payload);
}

/// Appends a binary frame.
pub fn binary(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, BINARY, payload);
}

/// Appends the answer to a ping.
pub fn pong(out: &mut Vec<u8>, payload: &[u8]) {
    write(out, PONG, payload);
}

fn write(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    out.push(0x80 | kind);
    match payload.len() {
        length @ 0..126 => out.push(MASKED | length as u8),
        length @ 126..65_536 => {
            out.push(MASKED | SHORT);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(MASKED | LONG);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let key: [u8; 4] = rand::random();
    out.extend_from_slice(&key);
    let start = out.len();
    out.extend_from_slice(payload);
    for (byte, key) in out[start..].iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As a server would have it: the same without a mask.
    fn unmasked(frame: &[u8]) -> Vec<u8> {
        let head = match frame[1] & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let mut plain = frame[..head].to_vec();
        plain[1] &= 0x7F;
        let (key, payload) = frame[head..].split_at(4);
        plain.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        plain
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_wherever_it_is_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..5),
            large in 65_530_usize..65_545,
        ) {
            let mut all = Vec::new();
            for payload in payloads.iter().chain([&vec![7; large]]) {
                let mut frame = Vec::new();
                binary(&mut frame, payload);
                all.extend(unmasked(&frame));
            }
            let mut at = 0;
            for payload in payloads.iter().chain([&vec![7; large]]) {
                let (frame, length) = first(&all[at..]).expect("well-formed").expect("whole");
                prop_assert_eq!(frame, Frame::Data(payload));
                prop_assert_eq!(first(&all[at..at + length - 1]), Ok(None));
                at += length;
            }
            prop_assert_eq!(at, all.len());
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = first(&bytes);
        }
    }

    #[test]
    fn what_no_server_may_send_is_told() {
        for bad in [&[0x01, 0x00][..], &[0x81, 0x80], &[0xC1, 0x00], &[0x80, 0x00], &[0x83, 0]] {
            assert_eq!(first(bad), Err(Malformed), "{bad:?}");
        }
        assert_eq!(first(&[0x88, 0x02, 0x11, 0x4E]), Ok(Some((Frame::Close(4430), 4))));
    }
}
