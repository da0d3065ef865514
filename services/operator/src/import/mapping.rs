//! A file that says what the old system's tables, columns and values are called, where that is not as
//! usual:
//!
//! ```json
//! {
//!   "users": {"table": "people", "columns": {"id": "person_no", "email": null}},
//!   "devices": {"table": ""},
//!   "kinds": {"STICKER": "image", "POLL": "skip"},
//!   "roles": {"BOSS": "owner"},
//!   "countryCode": "+49"
//! }
//! ```
//!
//! What is not mentioned is looked for as usual; a table that is `""`, and a column that is `null`, there
//! is not.

use std::{collections::BTreeMap, path::Path};

use natter_protocol::server::Role;
use serde::Deserialize;

use super::tables::{self, Kind};
use crate::outcome::Failure;

/// What a table is called, and its columns by field.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapped {
    #[serde(default)]
    pub(crate) table: Option<String>,
    #[serde(default)]
    pub(crate) columns: BTreeMap<String, Option<String>>,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Content {
    Text,
    #[serde(alias = "image", alias = "video", alias = "audio")]
    File,
    /// A line that the old system wrote itself.
    System,
    /// To be left out.
    Skip,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spelt {
    #[serde(default)]
    kinds: BTreeMap<String, Content>,
    #[serde(default)]
    roles: BTreeMap<String, Role>,
    #[serde(default)]
    country_code: Option<String>,
    #[serde(flatten)]
    tables: BTreeMap<String, Mapped>,
}

/// What is called how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mapping {
    tables: BTreeMap<Kind, Mapped>,
    kinds: BTreeMap<String, Content>,
    roles: BTreeMap<String, Role>,
    /// Of phone numbers that have none: `+` and digits.
    pub(crate) country_code: Option<String>,
}

impl Mapping {
    /// Reads the file.
    ///
    /// # Errors
    /// `Refused` when it cannot be read, or names what there is not.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let refused = |why: String| Failure::refused(format!("{}: {why}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
        Self::parse(&text).map_err(refused)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let spelt: Spelt = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut tables = BTreeMap::new();
        for (name, mapped) in spelt.tables {
            let kind = Kind::parse(&name).ok_or_else(|| format!("there is no kind {name:?}"))?;
            let unknown = mapped.columns.keys().find(|field| !tables::has_field(kind, field));
            if let Some(unknown) = unknown {
                return Err(format!("{name} have no {unknown:?}"));
            }
            tables.insert(kind, mapped);
        }
        let code = spelt.country_code;
        let digits = code.as_deref().and_then(|code| code.strip_prefix('+'));
        if code.is_some()
            && !digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err("countryCode: is not + and digits".to_owned());
        }
        let upper = |(word, meaning): (String, Content)| (word.to_uppercase(), meaning);
        Ok(Self {
            tables,
            kinds: spelt.kinds.into_iter().map(upper).collect(),
            roles: spelt.roles.into_iter().map(|(w, role)| (w.to_uppercase(), role)).collect(),
            country_code: code,
        })
    }

    pub(crate) fn table(&self, kind: Kind) -> Option<&Mapped> {
        self.tables.get(&kind)
    }

    /// What a message of this kind is; none for a word that nobody knows.
    pub(crate) fn content(&self, word: &str) -> Option<Content> {
        let word = word.to_uppercase();
        self.kinds.get(&word).copied().or(match word.as_str() {
            "TEXT" | "MESSAGE" | "CHAT" => Some(Content::Text),
            "IMAGE" | "PHOTO" | "PICTURE" | "GIF" | "VIDEO" | "AUDIO" | "VOICE" | "FILE"
            | "DOCUMENT" | "MEDIA" | "ATTACHMENT" => Some(Content::File),
            "SYSTEM" | "NOTIFICATION" | "EVENT" => Some(Content::System),
            _ => None,
        })
    }

    /// What somebody of this role may do; whoever has none is a member.
    pub(crate) fn role(&self, word: Option<&str>) -> Option<Role> {
        let Some(word) = word.map(str::to_uppercase) else { return Some(Role::Member) };
        self.roles.get(&word).copied().or(match word.as_str() {
            "OWNER" | "CREATOR" => Some(Role::Owner),
            "ADMIN" | "ADMINISTRATOR" | "MODERATOR" => Some(Role::Admin),
            "MEMBER" | "USER" | "PARTICIPANT" => Some(Role::Member),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_meanings_that_a_file_may_change() -> Result<(), String> {
        let usual = Mapping::default();
        assert_eq!(usual.content("text"), Some(Content::Text));
        assert_eq!(usual.content("Video"), Some(Content::File));
        assert_eq!(usual.content("POLL"), None);
        assert_eq!(usual.role(None), Some(Role::Member));
        assert_eq!(usual.role(Some("boss")), None);
        let own = Mapping::parse(
            r#"{"kinds": {"poll": "text", "text": "skip"}, "roles": {"boss": "owner"},
                "users": {"table": "people", "columns": {"email": null}}}"#,
        )?;
        assert_eq!(own.content("Poll"), Some(Content::Text));
        assert_eq!(own.content("TEXT"), Some(Content::Skip));
        assert_eq!(own.role(Some("Boss")), Some(Role::Owner));
        let users = own.table(Kind::Users).expect("named");
        assert_eq!(users.table.as_deref(), Some("people"));
        assert_eq!(users.columns.get("email"), Some(&None));
        Ok(())
    }

    #[test]
    fn what_a_file_names_has_to_be_there() {
        for wrong in [
            r#"{"people": {"table": "people"}}"#,
            r#"{"users": {"columns": {"shoeSize": "size"}}}"#,
            r#"{"users": {"tables": "people"}}"#,
            r#"{"kinds": {"POLL": "poll"}}"#,
            r#"{"countryCode": "49"}"#,
            "[]",
        ] {
            assert!(Mapping::parse(wrong).is_err(), "{wrong}");
        }
    }
}
