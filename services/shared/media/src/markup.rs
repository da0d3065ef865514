//! Text, and the markup that a browser would run. More is taken for markup than browsers
//! do: the worst that comes of it is that a text is downloaded as HTML.

use std::borrow::Cow;

/// Elements that make a browser take a text for HTML, by the WHATWG's rules for sniffing; and
/// those that are written without the rest.
const HTML: [&str; 36] = [
    "a", "audio", "b", "base", "body", "br", "button", "center", "details", "div", "embed", "font",
    "form", "frameset", "h1", "head", "html", "iframe", "img", "input", "link", "marquee", "math",
    "meta", "noscript", "object", "p", "picture", "script", "span", "style", "table", "template",
    "textarea", "title", "video",
];

/// Whether these bytes are text in UTF-8, perhaps cut in the middle of a letter, or say by a
/// mark that they are UTF-16. None at all are not.
pub(crate) fn is_text(head: &[u8]) -> bool {
    if utf16(head).is_some() {
        return true;
    }
    let valid = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && error.valid_up_to() > 0,
    };
    // What the WHATWG calls binary data bytes.
    valid
        && !head.is_empty()
        && !head.iter().any(|byte| matches!(byte, 0..=8 | 0x0B | 0x0E..=0x1A | 0x1C..=0x1F))
}

/// What kind of markup this is, if it begins as such: after a mark of byte order, white space,
/// comments, declarations and document types.
pub(crate) fn media_type(head: &[u8]) -> Option<&'static str> {
    let text: Cow<'_, [u8]> = match utf16(head) {
        Some(text) => Cow::Owned(text.into_bytes()),
        None => Cow::Borrowed(head),
    };
    let mut rest = &text[..];
    let mut xml = false;
    loop {
        rest = rest.trim_ascii_start();
        if let Some(unmarked) = rest.strip_prefix(b"\xef\xbb\xbf") {
            rest = unmarked;
        } else if let Some(comment) = rest.strip_prefix(b"<!--") {
            match after(comment, b"-->") {
                Some(after) => rest = after,
                // Whatever comes after, we do not see it.
                None => return Some("text/html"),
            }
        } else if let Some(instruction) = rest.strip_prefix(b"<?") {
            xml |= named(instruction, "xml");
            match after(instruction, b">") {
                Some(after) => rest = after,
                None => return xml.then_some("text/xml"),
            }
        } else if let Some(declaration) = rest.strip_prefix(b"<!") {
            if !named(declaration, "doctype") {
                return xml.then_some("text/xml");
            }
            let name = declaration[b"doctype".len()..].trim_ascii_start();
            if named(name, "svg") {
                return Some("image/svg+xml");
            }
            if named(name, "html") || !xml {
                return Some("text/html");
            }
            match after(name, b">") {
                Some(after) => rest = after,
                None => return Some("text/xml"),
            }
        } else {
            break;
        }
    }
    let element = rest.strip_prefix(b"<")?;
    // A name may have a prefix, which the file chooses.
    let end = element.iter().position(|byte| !is_name(*byte)).unwrap_or(element.len());
    let local = element[..end].rsplit(|byte| *byte == b':').next().unwrap_or_default();
    if local.eq_ignore_ascii_case(b"svg") {
        Some("image/svg+xml")
    } else if HTML.iter().any(|name| local.eq_ignore_ascii_case(name.as_bytes())) {
        Some("text/html")
    } else {
        xml.then_some("text/xml")
    }
}

fn utf16(head: &[u8]) -> Option<String> {
    let (unit, rest): (fn([u8; 2]) -> u16, _) = match head {
        [0xFF, 0xFE, rest @ ..] => (u16::from_le_bytes, rest),
        [0xFE, 0xFF, rest @ ..] => (u16::from_be_bytes, rest),
        _ => return None,
    };
    let units = rest.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
    Some(char::decode_utf16(units).map(|char| char.unwrap_or('\u{fffd}')).collect())
}

fn named(text: &[u8], name: &str) -> bool {
    text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        && !text.get(name.len()).is_some_and(|byte| is_name(*byte))
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.')
}

fn after<'a>(text: &'a [u8], end: &[u8]) -> Option<&'a [u8]> {
    let at = text.windows(end.len()).position(|window| window == end)?;
    Some(&text[at + end.len()..])
}
