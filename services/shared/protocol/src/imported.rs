//! What was brought in from another system, by the ids that it had there.
//!
//! A new id follows from the old one, so that nothing has to be looked up: see [`ImportedKind::id`].

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    ids::{ChatId, Seq},
    words::words,
};

/// Characters of an old id.
pub const OLD_ID_CHARS: usize = 191;

words! {
    /// What an old id names.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum ImportedKind {
        /// A user.
        User,
        /// A device.
        Device,
        /// A chat.
        Chat,
        /// A message.
        Message,
        /// A file.
        Media,
    }
}

impl ImportedKind {
    /// As the wire spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Device => "device",
            Self::Chat => "chat",
            Self::Message => "message",
            Self::Media => "media",
        }
    }

    /// The kind of this spelling.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::MEANINGS.iter().map(|(kind, _)| *kind).find(|kind| kind.as_str() == text)
    }

    /// The id here of what `import` called `old`: itself where it is a UUID, else one made (version 8)
    /// of these three. The same on every node and for ever.
    #[must_use]
    pub fn id(self, import: &str, old: &str) -> Uuid {
        // The long form only: 32 hexadecimal digits may be anything.
        let kept = (old.len() == 36).then(|| Uuid::try_parse(old).ok()).flatten();
        if let Some(kept) = kept.filter(|id| !id.is_nil() && !id.is_max()) {
            return kept;
        }
        let mut digest = Sha256::new();
        for part in [import, self.as_str(), old] {
            // With its length, so that no two ways to cut a text are the same.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest.finalize()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }
}

/// `GET /v1/imported/{kind}/{oldId}`: what is here in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// What it is.
    pub kind: ImportedKind,
    /// As it was called there.
    pub old_id: String,
    /// As it is called here.
    pub id: Uuid,
    /// Of a message or a file: the chat that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub chat_id: Option<ChatId>,
    /// Of a file: the message that it was sent with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub message_id: Option<Uuid>,
    /// Of a message or a file: its place, for a page of history around it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub seq: Option<Seq>,
    /// Of a file that was not copied: where the other system had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub url: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_kept_and_anything_else_makes_one() {
        let old = "7d444840-9dc0-11d1-b245-5ffdce74fad2";
        assert_eq!(ImportedKind::Chat.id("old", old).to_string(), old);
        assert_eq!(ImportedKind::Chat.id("old", &old.to_uppercase()).to_string(), old);
        let made = ImportedKind::Chat.id("old", "17");
        assert_eq!(made, ImportedKind::Chat.id("old", "17"));
        assert_eq!(made.get_version_num(), 8);
        let nil = Uuid::nil().to_string();
        let others = [
            ImportedKind::User.id("old", "17"),
            ImportedKind::Chat.id("older", "17"),
            ImportedKind::Chat.id("old", "18"),
            ImportedKind::Chat.id("old", "cjld2cjxh0000qzrmn831i7rn"),
            ImportedKind::Chat.id("old", &nil),
            ImportedKind::Chat.id("old", "7d4448409dc011d1b2455ffdce74fad2"),
        ];
        for other in others {
            assert_ne!(made, other);
            assert_eq!(other.get_version_num(), 8);
        }
    }

    #[test]
    fn kinds_are_spelt_as_on_the_wire() {
        for (kind, _) in ImportedKind::MEANINGS {
            assert_eq!(serde_json::to_value(kind).ok(), Some(kind.as_str().into()));
            assert_eq!(ImportedKind::parse(kind.as_str()), Some(*kind));
        }
        assert_eq!(ImportedKind::parse("reaction"), None);
    }
}
