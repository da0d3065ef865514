//! What a file is, by its content.

use crate::markup;

/// How many of a file's first bytes are enough for [`sniff`], and mostly for
/// [`dimensions`](crate::dimensions()).
pub const HEAD_BYTES: usize = 64 << 10;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Its media type, without parameters.
    pub media_type: &'static str,
    /// How a chat shows it.
    pub class: Class,
}

/// How a chat shows a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// A picture of pixels.
    Image,
    /// A moving picture.
    Video,
    /// A sound.
    Audio,
    /// Anything else; also SVG, which is a program as much as a picture.
    Document,
}

const PICTURES: [&str; 10] = [
    "image/avif",
    "image/bmp",
    "image/gif",
    "image/heif",
    "image/jp2",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/tiff",
    "image/webp",
];

/// What a file is by its first bytes: as many as there are, [`HEAD_BYTES`] at most. Bytes that
/// say nothing are `application/octet-stream`.
///
/// A file that is several things at once is the one thing that is said here, and must be served
/// as that only: with this type and `nosniff`.
pub fn sniff(head: &[u8]) -> Kind {
    let head = &head[..head.len().min(HEAD_BYTES)];
    let text = markup::is_text(head);
    let media_type = match infer::get(head).map(|found| usual(found.mime_type())) {
        // Two or three letters, as "BM" or "MZ", begin many a text.
        Some(found) if !text || is_textual(found) => found,
        _ if text => "text/plain",
        _ => "application/octet-stream",
    };
    // What browsers take for markup is markup, also where it is no text for us.
    let media_type = match media_type {
        "text/plain" | "text/html" | "text/xml" | "application/octet-stream" => {
            markup::media_type(head).unwrap_or(media_type)
        }
        other => other,
    };
    Kind { media_type, class: class(media_type) }
}

/// Whether a browser may show it in place, given `nosniff`: pictures, films and sounds that
/// browsers know. Nothing that can carry a script, so neither SVG nor HTML nor PDF; and no text,
/// which an old browser could take for HTML.
pub fn shows_inline(media_type: &str) -> bool {
    matches!(
        media_type,
        "image/avif"
            | "image/bmp"
            | "image/gif"
            | "image/jpeg"
            | "image/png"
            | "image/webp"
            | "video/mp4"
            | "video/webm"
            | "audio/aac"
            | "audio/flac"
            | "audio/mp4"
            | "audio/mpeg"
            | "audio/ogg"
            | "audio/wav"
    )
}

fn class(media_type: &str) -> Class {
    match media_type.split_once('/') {
        Some(("image", _)) if PICTURES.contains(&media_type) => Class::Image,
        Some(("video", _)) => Class::Video,
        Some(("audio", _)) => Class::Audio,
        _ => Class::Document,
    }
}

/// The types that browsers use, where others are found.
fn usual(media_type: &'static str) -> &'static str {
    match media_type {
        "audio/m4a" => "audio/mp4",
        "audio/opus" => "audio/ogg",
        "audio/x-flac" => "audio/flac",
        "audio/x-wav" => "audio/wav",
        "video/x-m4v" => "video/mp4",
        "application/font-woff" => "font/woff",
        "application/font-sfnt" => "font/sfnt",
        other => other,
    }
}

/// What can be all text, and begins with more than two letters.
fn is_textual(media_type: &str) -> bool {
    media_type.starts_with("text/")
        || matches!(
            media_type,
            "application/pdf" | "application/postscript" | "application/rtf" | "image/gif"
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn media_type(head: &[u8]) -> &'static str {
        sniff(head).media_type
    }

    fn utf16(text: &str, little: bool) -> Vec<u8> {
        std::iter::once(0xFEFF)
            .chain(text.encode_utf16())
            .flat_map(|unit| if little { unit.to_le_bytes() } else { unit.to_be_bytes() })
            .collect()
    }

    #[test]
    fn content_tells_the_type() {
        let cases: [(&[u8], &str, Class); 15] = [
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png", Class::Image),
            (b"\xff\xd8\xff\xe0\0\x10JFIF\0", "image/jpeg", Class::Image),
            (b"GIF89a\x01\0\x01\0\0\0\0", "image/gif", Class::Image),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp", Class::Image),
            (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1", "image/avif", Class::Image),
            (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "video/mp4", Class::Video),
            (b"\0\0\0\x20ftypM4A \0\0\x02\0isomiso2", "audio/mp4", Class::Audio),
            (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav", Class::Audio),
            (b"OggS\0\x02\0\0\0\0\0\0\0\0", "audio/ogg", Class::Audio),
            (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg", Class::Audio),
            (b"%PDF-1.7\n%\xe2\xe3", "application/pdf", Class::Document),
            (b"PK\x03\x04\x14\0\0\0\x08\0", "application/zip", Class::Document),
            (b"#!/bin/sh\nrm -r .\n", "text/x-shellscript", Class::Document),
            (b"", "application/octet-stream", Class::Document),
            (b"\0\x01\x02\x03", "application/octet-stream", Class::Document),
        ];
        for (head, media_type, class) in cases {
            assert_eq!(sniff(head), Kind { media_type, class }, "{:?}", head.escape_ascii());
        }
    }

    #[test]
    fn programs_are_told() {
        let cases: [(&[u8], &str); 4] = [
            (b"\x7fELF\x02\x01\x01", "application/x-executable"),
            (b"MZ\x90\0\x03", "application/vnd.microsoft.portable-executable"),
            (b"\xcf\xfa\xed\xfe\x07", "application/x-mach-binary"),
            (b"\0asm\x01", "application/wasm"),
        ];
        for (head, expected) in cases {
            assert_eq!(media_type(&[head, &[0; 100]].concat()), expected);
        }
    }

    #[test]
    fn letters_that_begin_a_format_may_begin_a_text() {
        for text in ["BMW is a car", "MZ, the initials", "ID3 is a tag", "BZhappens", "Grüße\n"] {
            assert_eq!(media_type(text.as_bytes()), "text/plain", "{text}");
        }
        // Cut in the middle of a letter.
        assert_eq!(media_type(&"Grüße".as_bytes()[..3]), "text/plain");
        assert_eq!(media_type(&utf16("plain", true)), "text/plain");
    }

    #[test]
    fn what_a_browser_would_run_is_never_something_harmless() {
        let cases: [(&str, &str); 14] = [
            ("<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "image/svg+xml"),
            ("<?xml version='1.0'?>\n<!-- x --><svg onload='1'/>", "image/svg+xml"),
            ("<!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' 'x'><svg/>", "image/svg+xml"),
            ("<!DOCTYPE svg [<!ENTITY a \"b\">]><svg/>", "image/svg+xml"),
            ("<a:svg xmlns:a='http://www.w3.org/2000/svg'/>", "image/svg+xml"),
            ("<!doctype html><p>x", "text/html"),
            ("\u{feff} \r\n<!-- a --> <!-- b -->\n<HTML><script>1</script>", "text/html"),
            ("<ScRiPt>1</sCrIpT>", "text/html"),
            ("<script\n>1", "text/html"),
            ("<!-- <p>never ends", "text/html"),
            ("<img src=x onerror=1>", "text/html"),
            ("<iframe/src=x>", "text/html"),
            ("<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'/>", "text/html"),
            ("<?xml version='1.0'?><rss/>", "text/xml"),
        ];
        for (head, expected) in cases {
            assert_eq!(media_type(head.as_bytes()), expected, "{head}");
            assert_eq!(media_type(&utf16(head, true)), expected, "UTF-16LE {head}");
            assert_eq!(media_type(&utf16(head, false)), expected, "UTF-16BE {head}");
            assert_eq!(sniff(head.as_bytes()).class, Class::Document, "{head}");
            // Not in any Unicode.
            let broken = [head.as_bytes(), b"\xe9\xff\x01"].concat();
            assert_eq!(media_type(&broken), expected, "{head} in Latin-1");
        }
    }

    #[test]
    fn a_file_that_is_two_things_is_the_one_it_begins_as() {
        let script = b"=1;/*<html><script>alert(1)</script>*/";
        assert_eq!(media_type(&[b"GIF89a", &script[..]].concat()), "image/gif");
        assert_eq!(media_type(b"%PDF-1.4\n<html><script>1</script>"), "application/pdf");
        assert_eq!(media_type(b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01PK\x03\x04"), "image/jpeg");
        assert_eq!(media_type(b"PK\x03\x04\x14\0\0\0<html>"), "application/zip");
    }

    #[test]
    fn nothing_that_can_carry_a_script_shows_in_place() {
        let never = [
            "image/svg+xml",
            "text/html",
            "text/xml",
            "text/plain",
            "application/pdf",
            "application/xhtml+xml",
            "application/octet-stream",
            "image/tiff",
            "IMAGE/PNG",
            "image/png; charset=x",
            "",
        ];
        for media_type in never {
            assert!(!shows_inline(media_type), "{media_type}");
        }
        for media_type in ["image/png", "video/mp4", "audio/mpeg"] {
            assert!(shows_inline(media_type), "{media_type}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_something(head in proptest::collection::vec(any::<u8>(), 0..2000)) {
            sniff(&head);
        }

        #[test]
        fn any_bytes_after_a_signature_are_something(
            start in prop::sample::select(vec![
                &b"PK\x03\x04"[..], b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\0\0\0\x20ftyp", b"\0\0\0\x03ftyp", b"RIFF",
                b"\x1a\x45\xdf\xa3", b"\xff\xfe", b"\xfe\xff\0", b"<!--", b"<!doctype ", b"<?", b"<",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            sniff(&[start, &rest].concat());
        }

        #[test]
        fn html_is_never_shown(junk in "[ \t\r\n]{0,20}(<!--[a-z]{0,9}-->)?", rest in ".{0,200}") {
            let found = sniff(format!("{junk}<html {rest}").as_bytes());
            prop_assert!(!shows_inline(found.media_type), "{}", found.media_type);
            prop_assert_eq!(found.class, Class::Document);
        }
    }
}
