//! Names of files that harm nobody, wherever they are saved or shown.

use std::fmt::Write;

/// How long a name may be, in bytes of UTF-8.
const MOST: usize = 120;
/// What counts as an extension at most, in bytes with its dot.
const EXTENSION: usize = 16;

/// A name that is safe anywhere: what follows the last `/` or `\`, without characters that
/// control or turn round the text, without dots in front, and nothing that Windows
/// reserves; at most 120 bytes, of which the extension stays. `file` if nothing is left.
pub fn safe_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = last
        .chars()
        .filter(|char| !char.is_control() && !is_unseen(*char))
        .map(
            |char| if matches!(char, '<' | '>' | ':' | '"' | '|' | '?' | '*') { '_' } else { char },
        )
        .collect();
    let hidden = |char: char| char == '.' || char.is_whitespace();
    // Windows drops dots and spaces at the end.
    let mut name = kept.trim_matches(hidden).to_owned();
    if name.is_empty() {
        return "file".to_owned();
    }
    if is_reserved(&name) {
        name.insert(0, '_');
    }
    if name.len() <= MOST {
        return name;
    }
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= EXTENSION).unwrap_or(name.len());
    let (stem, extension) = name.split_at(dot);
    let stem = &stem[..stem.floor_char_boundary(MOST - extension.len())];
    format!("{}{extension}", stem.trim_end_matches(hidden))
}

/// Marks that turn the direction of a text, as in `photo[U+202E]gpj.exe`; those that end a
/// line; and those that nobody sees at all.
fn is_unseen(char: char) -> bool {
    matches!(
        char,
        '\u{61c}'
            | '\u{200b}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0001}'
    )
}

/// Names of devices, with any extension.
fn is_reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |port| {
        stem.strip_prefix(port).is_some_and(|number| {
            let mut chars = number.chars();
            chars.next().is_some_and(|char| char.is_ascii_digit() || "¹²³".contains(char))
                && chars.next().is_none()
        })
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || numbered("COM")
        || numbered("LPT")
}

/// The value of `Content-Disposition` for a file of this name, which is made safe first: in
/// place or to be saved, with the name in ASCII for old clients (RFC 6266) and whole (RFC 8187).
pub fn disposition(name: &str, inline: bool) -> String {
    let name = safe_name(name);
    let how = if inline { "inline" } else { "attachment" };
    // Some clients decode a percent sign here, so there is none.
    let ascii: String = name
        .chars()
        .map(|char| match char {
            '"' | '\\' | '%' => '_',
            ' '..='~' => char,
            _ => '_',
        })
        .collect();
    let mut whole = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            whole.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(whole, "%{byte:02X}");
        }
    }
    format!("{how}; filename=\"{ascii}\"; filename*=UTF-8''{whole}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_made_safe() {
        let cases = [
            ("photo.jpg", "photo.jpg"),
            ("../../etc/passwd", "passwd"),
            ("C:\\Users\\me\\report.pdf", "report.pdf"),
            (".htaccess", "htaccess"),
            ("...", "file"),
            ("", "file"),
            ("a/", "file"),
            ("con", "_con"),
            ("NUL.txt", "_NUL.txt"),
            ("Com7 .tar.gz", "_Com7 .tar.gz"),
            ("LPT¹", "_LPT¹"),
            ("console.log", "console.log"),
            ("a\r\nSet-Cookie: b.txt", "aSet-Cookie_ b.txt"),
            ("photo\u{202e}gpj.exe", "photogpj.exe"),
            ("what? <b>\"x\"|*.txt . ", "what_ _b__x___.txt"),
            ("Übergrößenträger 🦀.png", "Übergrößenträger 🦀.png"),
        ];
        for (name, safe) in cases {
            assert_eq!(safe_name(name), safe, "{name:?}");
        }
    }

    #[test]
    fn long_names_keep_their_extension() {
        let long = safe_name(&format!("{}.jpeg", "ä".repeat(300)));
        assert!(long.len() <= MOST && long.ends_with("ä.jpeg"), "{long}");
        let dots = safe_name(&format!("a.{}", "b".repeat(300)));
        assert_eq!(dots.len(), MOST);
    }

    #[test]
    fn dispositions_quote() {
        assert_eq!(
            disposition("naïve \"plan\" 100%.pdf", false),
            "attachment; filename=\"na_ve _plan_ 100_.pdf\"; \
             filename*=UTF-8''na%C3%AFve%20_plan_%20100%25.pdf"
        );
        assert_eq!(
            disposition("a.png", true),
            "inline; filename=\"a.png\"; filename*=UTF-8''a.png"
        );
    }

    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[ ./\\\\a:*]{0,12}",
            "(con|NUL|com1)[ .]{0,3}.{0,10}",
            "[a ä.]{100,200}",
            "\\PC{80,200}\\.[a-z]{1,20}",
        ]
    }

    proptest! {
        #[test]
        fn any_name_is_safe(name in names()) {
            let safe = safe_name(&name);
            prop_assert!(!safe.is_empty() && safe.len() <= MOST);
            prop_assert!(!safe.contains(['/', '\\', '"', ':', '\0', '\n', '\r']));
            prop_assert!(!safe.starts_with(['.', ' ']) && !safe.ends_with(['.', ' ']));
            prop_assert!(!safe.chars().any(char::is_control));
            prop_assert!(!is_reserved(&safe));
            prop_assert_eq!(safe_name(&safe), safe);
        }

        #[test]
        fn any_disposition_is_one_header(name in names(), inline: bool) {
            let value = disposition(&name, inline);
            prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}", value);
            prop_assert_eq!(value.matches('"').count(), 2);
        }
    }
}
