//! What clients write, checked before it is used: form, names, and characters that Postgres
//! cannot store. Answers name the field, never what stood there.

use garde::Validate;
use natter_protocol::error::{ErrorCode, WireError};

/// Checks what the type says of itself.
///
/// # Errors
/// `bad_request` with the first field that is wrong, in the wire's spelling.
pub fn valid<T: Validate<Context = ()>>(value: &T) -> Result<(), WireError> {
    let Err(report) = value.validate() else { return Ok(()) };
    let first = report.iter().next();
    let message = first.map_or_else(
        || "not valid".to_owned(),
        |(path, error)| format!("{}: {}", camel_case(&path.to_string()), error.message()),
    );
    Err(bad_request(message))
}

/// A name or title: one line, without space around it, not blank.
///
/// # Errors
/// `bad_request`.
pub fn line(field: &str, text: &str) -> Result<String, WireError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(bad_request(format!("{field}: is blank")));
    }
    if trimmed.chars().any(char::is_control) {
        return Err(bad_request(format!("{field}: has a control character")));
    }
    Ok(trimmed.to_owned())
}

/// The same for one that may be missing.
///
/// # Errors
/// As [`line`].
pub fn optional_line(field: &str, text: Option<&str>) -> Result<Option<String>, WireError> {
    text.map(|text| line(field, text)).transpose()
}

/// Refuses JSON with an escaped NUL in any of its strings: Postgres has no such text. (A NUL that
/// is not escaped is no JSON.)
///
/// # Errors
/// `bad_request`.
pub fn refuse_nul(json: &str) -> Result<(), WireError> {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        let escape = &rest.as_bytes()[at + 1..];
        if escape.starts_with(b"u0000") {
            return Err(bad_request("a string has a NUL character"));
        }
        // Past the escaped character, which may be a backslash itself. One that is not ASCII is
        // no JSON; the slice must not split it.
        let next = rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        rest = &rest[at + 1 + next..];
    }
    Ok(())
}

pub(crate) fn bad_request(message: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::BadRequest, message)
}

/// `refresh_token` as the wire spells it: `refreshToken`.
fn camel_case(path: &str) -> String {
    let mut words = path.split('_');
    let mut spelt = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut chars = word.chars();
        spelt.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        spelt.push_str(chars.as_str());
    }
    spelt
}

#[cfg(test)]
mod tests {
    use natter_protocol::{
        limits,
        rest::{Refresh, Register},
    };
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_names_the_field_and_not_the_value() -> anyhow::Result<()> {
        let register: Register = serde_json::from_value(json!({
            "name": "Ana", "email": "not-an-address", "password": "long enough",
        }))?;
        let Err(error) = valid(&register) else { panic!("valid") };
        assert!(error.message.starts_with("email: "), "{}", error.message);
        assert!(!error.message.contains("not-an"));
        let long = Refresh { refresh_token: "secret".repeat(100) };
        let Err(error) = valid(&long) else { panic!("valid") };
        assert!(error.message.starts_with("refreshToken: "), "{}", error.message);
        assert!(!error.message.contains("secret"));
        Ok(())
    }

    #[test]
    fn a_line_is_trimmed_and_not_blank() -> anyhow::Result<()> {
        assert_eq!(line("name", "  Ana María ")?, "Ana María");
        assert!(line("name", " \u{a0}\t").is_err());
        assert!(line("name", "A\u{7}na").is_err());
        assert_eq!(optional_line("name", None)?, None);
        Ok(())
    }

    #[test]
    fn nul_is_found_where_it_is_meant() {
        assert!(refuse_nul(r#"{"a":"x\u0000y"}"#).is_err());
        assert!(refuse_nul(r#"{"a":"\\\u0000"}"#).is_err());
        assert!(refuse_nul(r#"{"a":"\\u0000"}"#).is_ok(), "a backslash and a word");
        assert!(refuse_nul(r#"{"a":"\u0001\n\"ä\\"}"#).is_ok());
        assert!(refuse_nul("\\").is_ok() && refuse_nul("\\ä").is_ok());
    }

    proptest! {
        #[test]
        fn nul_is_found_exactly_where_a_parser_finds_it(text in r#"([\\u0"a]|\\\\|\\u0000){0,12}"#) {
            let json = format!("\"{text}\"");
            if let Ok(parsed) = serde_json::from_str::<String>(&json) {
                prop_assert_eq!(refuse_nul(&json).is_err(), parsed.contains('\0'));
            }
        }

        #[test]
        fn anything_is_looked_at(text in "\\PC*") {
            let _ = refuse_nul(&text);
        }

        #[test]
        fn what_is_valid_is_within_its_bounds(
            name in "\\PC{0,120}", phone in "\\+?[0-9a ]{0,18}", email in "\\PC{0,9}@?\\PC{0,9}",
            password in "\\PC{0,100}",
        ) {
            let register = json!({
                "name": name, "phone": phone, "email": email, "password": password,
            });
            let register: Register = serde_json::from_value(register).expect("its form");
            match valid(&register) {
                Ok(()) => {
                    prop_assert!((1..=limits::NAME_CHARS).contains(&name.chars().count()));
                    prop_assert!((8..=256).contains(&password.len()));
                    let digits = phone.strip_prefix('+').unwrap_or_default();
                    prop_assert!((6..=15).contains(&digits.len()), "{}", phone);
                    prop_assert!(digits.bytes().all(|byte| byte.is_ascii_digit()), "{}", phone);
                    prop_assert!(email.contains('@') && !email.contains(char::is_whitespace));
                }
                // Never what stood there, unless that is a word of the answer itself.
                Err(error) => prop_assert!(password.len() < 12 || !error.message.contains(&password)),
            }
            let _ = line("name", &name);
        }
    }
}
