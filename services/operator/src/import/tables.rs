//! The old system's tables as they are usually called, after Prisma's models, and which were found.
//!
//! Names are compared without regard to case, `_` and a last `s`: `senderId` is `sender_id`, and
//! `ChatParticipant` is `chat_participants`. A mapping file has the last word.

use std::collections::BTreeMap;

use super::mapping::Mapping;
use crate::outcome::Failure;

/// What is brought over, in the order in which it is: who takes part in a chat comes last, which opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Users,
    Devices,
    Chats,
    Messages,
    Media,
    Downloads,
    Participants,
}

impl Kind {
    pub(crate) const ALL: [Self; 7] = [
        Self::Users,
        Self::Devices,
        Self::Chats,
        Self::Messages,
        Self::Media,
        Self::Downloads,
        Self::Participants,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Devices => "devices",
            Self::Chats => "chats",
            Self::Messages => "messages",
            Self::Media => "media",
            Self::Downloads => "downloads",
            Self::Participants => "participants",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn spec(self) -> &'static Spec {
        match self {
            Self::Users => &USERS,
            Self::Devices => &DEVICES,
            Self::Chats => &CHATS,
            Self::Messages => &MESSAGES,
            Self::Media => &MEDIA,
            Self::Downloads => &DOWNLOADS,
            Self::Participants => &PARTICIPANTS,
        }
    }
}

/// How a column is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    /// As milliseconds since 1970.
    Time,
}

/// What is read of a table, and what its column may be called besides.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) form: Form,
    need: bool,
    also: &'static [&'static str],
}

const fn need(name: &'static str, also: &'static [&'static str]) -> Field {
    Field { name, form: Form::Text, need: true, also }
}

const fn text(name: &'static str, also: &'static [&'static str]) -> Field {
    Field { name, form: Form::Text, need: false, also }
}

const fn time(name: &'static str, also: &'static [&'static str]) -> Field {
    Field { name, form: Form::Time, need: false, also }
}

/// A table, and by what it is gone through: it is gone on with behind a value of the first.
struct Spec {
    tables: &'static [&'static str],
    need: bool,
    fields: &'static [Field],
    order: &'static [&'static str],
}

static USERS: Spec = Spec {
    tables: &["User", "Account"],
    need: true,
    fields: &[
        need("id", &[]),
        text("name", &["displayName", "fullName", "username", "nickname"]),
        text("phone", &["phoneNumber", "mobile", "msisdn"]),
        text("email", &["emailAddress", "mail"]),
        text("password", &["passwordHash", "hashedPassword", "hash"]),
        time("createdAt", &["created", "registeredAt"]),
        time("deletedAt", &[]),
    ],
    order: &["id"],
};

static DEVICES: Spec = Spec {
    tables: &["Device", "UserDevice"],
    need: false,
    fields: &[
        need("id", &[]),
        need("userId", &["user", "ownerId"]),
        text("name", &["deviceName", "label", "model"]),
        text("platform", &["os", "type", "deviceType"]),
        time("createdAt", &["created"]),
        time("lastSeenAt", &["lastSeen", "lastActiveAt", "lastLoginAt", "updatedAt"]),
    ],
    order: &["id"],
};

static CHATS: Spec = Spec {
    tables: &["Chat", "ChatRoom", "Room", "Conversation"],
    need: true,
    fields: &[
        need("id", &[]),
        text("isGroup", &["group"]),
        text("type", &["chatType", "kind"]),
        text("title", &["name", "subject"]),
        text("description", &["about", "topic"]),
        text("createdBy", &["createdById", "creatorId", "ownerId"]),
        time("createdAt", &["created"]),
        time("deletedAt", &[]),
    ],
    order: &["id"],
};

static MESSAGES: Spec = Spec {
    tables: &["Message", "ChatMessage"],
    need: true,
    fields: &[
        need("id", &[]),
        need("chatId", &["roomId", "chatRoomId", "conversationId"]),
        text("senderId", &["userId", "authorId", "fromId"]),
        text("type", &["messageType", "kind", "contentType"]),
        text("content", &["text", "body", "message", "caption"]),
        Field { need: true, ..time("createdAt", &["created", "sentAt", "timestamp"]) },
        time("editedAt", &["edited"]),
        time("deletedAt", &[]),
        text("isDeleted", &["deleted"]),
        text("replyToId", &["replyTo", "parentId", "quotedId", "quotedMessageId"]),
        text("deviceId", &["senderDeviceId"]),
        text("mediaUrl", &["fileUrl", "attachmentUrl"]),
        text("mediaId", &["mediaFileId", "fileId", "attachmentId"]),
    ],
    order: &["chatId", "createdAt", "id"],
};

static MEDIA: Spec = Spec {
    tables: &["MediaFile", "Media", "Attachment", "File"],
    need: false,
    fields: &[
        need("id", &[]),
        text("messageId", &[]),
        text("url", &["path", "fileUrl", "mediaUrl", "location", "key"]),
        text("name", &["fileName", "originalName", "filename"]),
        text("mimeType", &["mediaType", "contentType", "type"]),
        text("size", &["fileSize", "bytes"]),
        time("createdAt", &["created", "uploadedAt"]),
    ],
    order: &["id"],
};

static DOWNLOADS: Spec = Spec {
    tables: &["MediaDownload", "Download"],
    need: false,
    fields: &[
        need("id", &[]),
        need("userId", &["user"]),
        text("mediaId", &["mediaFileId", "fileId", "attachmentId"]),
        text("messageId", &[]),
        text("deviceId", &[]),
        time("createdAt", &["downloadedAt", "created", "at"]),
    ],
    order: &["id"],
};

static PARTICIPANTS: Spec = Spec {
    tables: &["ChatParticipant", "Participant", "ChatMember", "RoomMember", "Membership"],
    need: true,
    fields: &[
        need("chatId", &["roomId", "chatRoomId", "conversationId"]),
        need("userId", &["user", "memberId"]),
        text("role", &[]),
        time("joinedAt", &["createdAt", "created"]),
        time("leftAt", &["removedAt", "deletedAt"]),
    ],
    order: &["chatId", "joinedAt", "userId"],
};

/// A column that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As the server calls its type.
    pub(crate) of_type: String,
}

/// A table that was found.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// By field; none for what the old system did not have.
    columns: Vec<Option<Column>>,
}

impl Table {
    /// What is read of it.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&'static Field, Option<&Column>)> {
        self.kind.spec().fields.iter().zip(self.columns.iter().map(Option::as_ref))
    }

    /// Where a field stands in what is read.
    pub(crate) fn place(&self, field: &str) -> Option<usize> {
        self.kind.spec().fields.iter().position(|known| known.name == field)
    }

    /// The column of a field.
    pub(crate) fn column(&self, field: &str) -> Option<&Column> {
        self.columns.get(self.place(field)?)?.as_ref()
    }

    /// By what it is gone through.
    pub(crate) fn order(&self) -> impl Iterator<Item = &Column> {
        self.kind.spec().order.iter().filter_map(|field| self.column(field))
    }

    fn find(
        kind: Kind,
        schema: &BTreeMap<String, Vec<Column>>,
        mapping: &Mapping,
    ) -> Result<Option<Self>, Failure> {
        let spec = kind.spec();
        let mapped = mapping.table(kind);
        let name = match mapped.and_then(|mapped| mapped.table.as_deref()) {
            Some("") => None,
            Some(name) => {
                let there = schema.contains_key(name);
                let missing = || Failure::refused(format!("{}: no table {name}", kind.name()));
                Some(there.then(|| name.to_owned()).ok_or_else(missing)?)
            }
            None => spec.tables.iter().find_map(|wanted| same(schema.keys(), wanted)).cloned(),
        };
        let Some(name) = name else {
            let missing = || format!("{0}: no table was found; name it in --map", kind.name());
            return if spec.need { Err(Failure::refused(missing())) } else { Ok(None) };
        };
        let there = schema.get(&name).map(Vec::as_slice).unwrap_or_default();
        let mut columns = Vec::with_capacity(spec.fields.len());
        for field in spec.fields {
            let column = match mapped.and_then(|mapped| mapped.columns.get(field.name)) {
                Some(None) => None,
                Some(Some(wanted)) => {
                    let found = there.iter().find(|column| column.name == *wanted);
                    let missing = || Failure::refused(format!("{name}: no column {wanted}"));
                    Some(found.ok_or_else(missing)?)
                }
                None => std::iter::once(&field.name)
                    .chain(field.also)
                    .find_map(|wanted| there.iter().find(|column| alike(&column.name, wanted))),
            };
            if column.is_none() && field.need {
                let missing = format!("{name}: no column for {}; name it in --map", field.name);
                return Err(Failure::refused(missing));
            }
            columns.push(column.cloned());
        }
        Ok(Some(Self { kind, name, columns }))
    }
}

/// The tables among those of a schema.
///
/// # Errors
/// `Refused` when one that is needed, or that the mapping names, is not there.
pub(crate) fn find(
    schema: &BTreeMap<String, Vec<Column>>,
    mapping: &Mapping,
) -> Result<Vec<Table>, Failure> {
    let found = Kind::ALL.into_iter().map(|kind| Table::find(kind, schema, mapping));
    found.filter_map(Result::transpose).collect()
}

/// Whether there is such a field: for the names of a mapping.
pub(crate) fn has_field(kind: Kind, field: &str) -> bool {
    kind.spec().fields.iter().any(|known| known.name == field)
}

/// The one that is spelt so, or else like it.
fn same<'a>(names: impl Iterator<Item = &'a String> + Clone, wanted: &str) -> Option<&'a String> {
    let exact = names.clone().find(|name| *name == wanted);
    exact.or_else(|| names.into_iter().find(|name| alike(name, wanted)))
}

fn alike(name: &str, wanted: &str) -> bool {
    let plain = |name: &str| {
        let letters = name.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase());
        let plain: String = letters.collect();
        plain.strip_suffix('s').map(str::to_owned).unwrap_or(plain)
    };
    plain(name) == plain(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(tables: &[(&str, &[&str])]) -> BTreeMap<String, Vec<Column>> {
        let column = |name: &&str| Column { name: (*name).to_owned(), of_type: "text".to_owned() };
        let tables = tables.iter().map(|(table, columns)| {
            ((*table).to_owned(), columns.iter().map(column).collect::<Vec<_>>())
        });
        tables.collect()
    }

    #[test]
    fn usual_names_are_found_in_any_spelling() -> Result<(), Failure> {
        let schema = schema(&[
            ("User", &["id", "username", "phone_number", "password_hash", "createdAt"]),
            ("chats", &["id", "is_group", "name"]),
            ("ChatParticipant", &["id", "chatId", "userId", "role"]),
            ("messages", &["id", "chat_id", "sender_id", "text", "created_at"]),
            ("mediaDownload", &["id", "userId", "messageId"]),
        ]);
        let found = find(&schema, &Mapping::default())?;
        let names: Vec<&str> = found.iter().map(|table| table.name.as_str()).collect();
        assert_eq!(names, ["User", "chats", "messages", "mediaDownload", "ChatParticipant"]);
        let column =
            |nth: usize, field| found[nth].column(field).map(|column| column.name.as_str());
        assert_eq!(column(0, "name"), Some("username"));
        assert_eq!(column(0, "password"), Some("password_hash"));
        assert_eq!(column(0, "email"), None);
        assert_eq!(column(1, "isGroup"), Some("is_group"));
        assert_eq!(column(2, "content"), Some("text"));
        let order: Vec<&str> = found[2].order().map(|column| column.name.as_str()).collect();
        assert_eq!(order, ["chat_id", "created_at", "id"]);
        Ok(())
    }

    #[test]
    fn what_is_needed_and_missing_is_named() {
        let only = schema(&[("User", &["name"])]);
        let said = find(&only, &Mapping::default()).map(drop).map_err(|error| error.to_string());
        assert_eq!(said, Err("User: no column for id; name it in --map".to_owned()));
        let none = schema(&[]);
        let said = find(&none, &Mapping::default()).map(drop).map_err(|error| error.to_string());
        assert_eq!(said, Err("users: no table was found; name it in --map".to_owned()));
    }
}
