//! What the old system's rows are here.

use natter_gateway::{
    auth::password::{BCRYPT_COST, is_bcrypt},
    chats::shard_of,
};
use natter_protocol::feed::DELETED_USER;
use natter_protocol::{
    ids::Shard,
    imported::ImportedKind,
    limits,
    rest::{is_email_address, is_phone_number},
    server::Role,
};
use natter_store::{
    ImportedChat, ImportedDevice, ImportedDownload, ImportedFile, ImportedMember, ImportedMessage,
    ImportedUser, NamedFile,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    mapping::{Content, Mapping},
    report::Flaw,
    source::Cells,
    tables::Table,
};

/// Bytes kept of a text.
const TEXT_BYTES: usize = 64 * 1024;
/// Bytes kept of a URL.
const URL_BYTES: usize = 4_096;
/// What a hash of argon2 may cost: KiB, and passes.
const ARGON2_KIB: u64 = 128 * 1024;
const ARGON2_PASSES: u64 = 10;
/// What somebody is called who has no name.
const NAMELESS: &str = "User";

/// Reads the rows of one table.
pub(crate) struct Converter<'a> {
    pub(crate) import: &'a str,
    pub(crate) mapping: &'a Mapping,
    pub(crate) shards: Shard,
}

/// A row by the names of its fields.
pub(crate) struct Row<'a> {
    table: &'a Table,
    cells: Cells,
}

impl<'a> Row<'a> {
    pub(crate) fn new(table: &'a Table, cells: Cells) -> Self {
        Self { table, cells }
    }

    /// What stands there, unless that is nothing.
    pub(crate) fn get(&self, field: &str) -> Option<&str> {
        let text = self.cells.get(self.table.place(field)?)?.as_deref();
        text.filter(|text| !text.is_empty())
    }

    fn take(&mut self, field: &str) -> Option<String> {
        let place = self.table.place(field)?;
        self.cells.get_mut(place)?.take().filter(|text| !text.is_empty())
    }

    fn time(&self, field: &str) -> Option<OffsetDateTime> {
        let number: i64 = self.get(field)?.parse().ok()?;
        // A whole number may count seconds as well.
        let millis =
            if number.abs() < 100_000_000_000 { number.checked_mul(1_000)? } else { number };
        OffsetDateTime::UNIX_EPOCH.checked_add(Duration::milliseconds(millis))
    }

    fn is_true(&self, field: &str) -> Option<bool> {
        self.get(field).map(|text| matches!(text, "1" | "t" | "true" | "TRUE"))
    }

    fn has(&self, field: &str) -> bool {
        self.table.column(field).is_some()
    }
}

/// What a row is here, and what is wrong with it; none when it is left out for that.
type Converted<T> = (Option<T>, Vec<Flaw>);

impl Converter<'_> {
    fn id(&self, kind: ImportedKind, old: &str) -> Uuid {
        kind.id(self.import, old)
    }

    fn user_of(&self, old: Option<&str>) -> (Uuid, Shard) {
        let id = self.id(ImportedKind::User, old.unwrap_or_default());
        (id, shard_of(id, self.shards))
    }

    pub(crate) fn user(&self, row: &Row<'_>) -> Converted<ImportedUser> {
        let mut flaws = Vec::new();
        let Some(old) = row.get("id") else { return (None, vec![Flaw::NoId]) };
        let (id, shard) = self.user_of(Some(old));
        let created_at = row.time("createdAt").unwrap_or_else(OffsetDateTime::now_utc);
        let deleted_at = row.time("deletedAt");
        if deleted_at.is_some() {
            let name = DELETED_USER.to_owned();
            let (phone, email, password_hash) = (None, None, None);
            let user = ImportedUser {
                id,
                name,
                phone,
                email,
                password_hash,
                shard,
                created_at,
                deleted_at,
            };
            return (Some(user), flaws);
        }
        let phone = row.get("phone").and_then(|phone| {
            let phone = phone_number(phone, self.mapping.country_code.as_deref());
            phone.or_else(|| {
                flaws.push(Flaw::Phone);
                None
            })
        });
        let email = row.get("email").map(str::trim).and_then(|email| {
            let good = is_email_address(email).then(|| email.to_owned());
            good.or_else(|| {
                flaws.push(Flaw::Email);
                None
            })
        });
        if phone.is_none() && email.is_none() {
            flaws.push(Flaw::NoLogin);
        }
        let password_hash = match password(row.get("password")) {
            Ok(hash) => Some(hash),
            Err(flaw) => {
                flaws.push(flaw);
                None
            }
        };
        let name = line(row.get("name").unwrap_or_default()).unwrap_or_else(|| NAMELESS.to_owned());
        let user =
            ImportedUser { id, name, phone, email, password_hash, shard, created_at, deleted_at };
        (Some(user), flaws)
    }

    pub(crate) fn device(&self, row: &Row<'_>) -> Converted<ImportedDevice> {
        let Some(old) = row.get("id") else { return (None, vec![Flaw::NoId]) };
        let Some(user) = row.get("userId") else { return (None, vec![Flaw::Incomplete]) };
        let device = ImportedDevice {
            id: self.id(ImportedKind::Device, old),
            user: self.id(ImportedKind::User, user),
            name: row.get("name").and_then(line),
            platform: row.get("platform").and_then(line).map(|name| name.to_lowercase()),
            created_at: row.time("createdAt").unwrap_or_else(OffsetDateTime::now_utc),
            last_seen_at: row.time("lastSeenAt"),
        };
        (Some(device), Vec::new())
    }

    pub(crate) fn chat(&self, row: &Row<'_>) -> Converted<ImportedChat> {
        let Some(old) = row.get("id") else { return (None, vec![Flaw::NoId]) };
        if row.get("deletedAt").is_some() {
            return (None, vec![Flaw::Deleted]);
        }
        let id = self.id(ImportedKind::Chat, old);
        let title = row.get("title").and_then(line);
        let kind = row.get("type").map(str::to_uppercase);
        let group = row.is_true("isGroup").or(kind.map(|kind| !of_two(&kind)));
        let (created_by, creator_shard) = self.user_of(row.get("createdBy"));
        let chat = ImportedChat {
            id,
            one_to_one: !group.unwrap_or(title.is_some()),
            title,
            description: row
                .get("description")
                .map(|text| cut_chars(text, limits::DESCRIPTION_CHARS)),
            created_by,
            creator_shard,
            created_at: row.time("createdAt").unwrap_or_else(OffsetDateTime::now_utc),
            shard: shard_of(id, self.shards),
        };
        (Some(chat), Vec::new())
    }

    pub(crate) fn message(&self, row: &mut Row<'_>) -> Converted<ImportedMessage> {
        let mut flaws = Vec::new();
        let Some(old) = row.get("id").map(str::to_owned) else { return (None, vec![Flaw::NoId]) };
        let Some(chat) = row.get("chatId") else { return (None, vec![Flaw::Incomplete]) };
        let chat = self.id(ImportedKind::Chat, chat);
        let Some(at) = row.time("createdAt") else { return (None, vec![Flaw::NoTime]) };
        let deleted_at = row.time("deletedAt");
        let deleted_at = deleted_at.or(row.is_true("isDeleted").unwrap_or(false).then_some(at));
        let kind = row.get("type").map(|word| self.mapping.content(word));
        let file = match kind {
            None => row.get("mediaUrl").is_some() || row.get("mediaId").is_some(),
            Some(None) => return (None, vec![Flaw::UnknownKind]),
            Some(Some(Content::Text)) => row.get("mediaUrl").is_some(),
            Some(Some(Content::File)) => true,
            Some(Some(Content::System)) => return (None, vec![Flaw::System]),
            Some(Some(Content::Skip)) => return (None, vec![Flaw::Skipped]),
        };
        let id = self.id(ImportedKind::Message, &old);
        let url = row.take("mediaUrl").filter(|_| file).map(|url| cut(harmless(url), URL_BYTES));
        let named = row.get("mediaId").filter(|_| file);
        // Without an id of its own that of its message does as well.
        let named = named.or(url.as_ref().map(|_| old.as_str()));
        let own = |named| self.id(ImportedKind::Media, &format!("{named}/{old}"));
        let named = named.map(|named| (self.id(ImportedKind::Media, named), own(named)));
        let mut content = row.take("content").map(harmless).unwrap_or_default();
        if content.len() > TEXT_BYTES {
            flaws.push(Flaw::TooLong);
            content = cut(content, TEXT_BYTES);
        }
        if deleted_at.is_some() {
            content.clear();
        } else if content.trim().is_empty() {
            if !file {
                return (None, vec![Flaw::NoText]);
            }
            content = url.clone().unwrap_or_default();
        }
        let (sender, sender_shard) = self.user_of(row.get("senderId"));
        let reply_to = row.get("replyToId").map(|old| self.id(ImportedKind::Message, old));
        let message = ImportedMessage {
            id,
            chat,
            sender,
            sender_shard,
            device: row.get("deviceId").map(|old| self.id(ImportedKind::Device, old)),
            client_msg_id: if old.len() <= limits::CLIENT_MSG_ID_CHARS {
                old
            } else {
                id.to_string()
            },
            content,
            reply_to: reply_to.filter(|_| deleted_at.is_none()),
            at,
            edited_at: row.time("editedAt").filter(|_| deleted_at.is_none()),
            deleted_at,
            file: named.map(|(id, own)| NamedFile { id, own, url }),
        };
        (Some(message), flaws)
    }

    pub(crate) fn file(&self, row: &Row<'_>) -> Converted<ImportedFile> {
        let Some(old) = row.get("id") else { return (None, vec![Flaw::NoId]) };
        let file = ImportedFile {
            id: self.id(ImportedKind::Media, old),
            message: row.get("messageId").map(|old| self.id(ImportedKind::Message, old)),
            url: row.get("url").map(|url| cut(harmless(url.to_owned()), URL_BYTES)),
            name: row.get("name").and_then(line),
            media_type: row.get("mimeType").and_then(line),
            size: row.get("size").and_then(|size| size.parse().ok()),
            created_at: row.time("createdAt"),
        };
        (Some(file), Vec::new())
    }

    pub(crate) fn download(&self, row: &Row<'_>) -> Converted<ImportedDownload> {
        let Some(old) = row.get("id") else { return (None, vec![Flaw::NoId]) };
        let (file, message) = (row.get("mediaId"), row.get("messageId"));
        let Some(user) = row.get("userId").filter(|_| file.or(message).is_some()) else {
            return (None, vec![Flaw::Incomplete]);
        };
        let at = row.time("createdAt").unwrap_or(OffsetDateTime::UNIX_EPOCH);
        // In the order of time, and the same whenever it is made.
        let digest = Sha256::digest(format!("{} download {old}", self.import));
        let mut random = [0; 10];
        random.copy_from_slice(&digest[..10]);
        let millis = u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        let device = row.get("deviceId").map(|old| self.id(ImportedKind::Device, old));
        let download = ImportedDownload {
            id: uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid(),
            file: file.map(|old| self.id(ImportedKind::Media, old)),
            message: message.map(|old| self.id(ImportedKind::Message, old)),
            user: self.id(ImportedKind::User, user),
            device: device.unwrap_or_default(),
            at,
        };
        (Some(download), Vec::new())
    }

    /// Somebody who takes part in a chat, and in which.
    pub(crate) fn member(&self, row: &Row<'_>) -> Converted<(Uuid, ImportedMember)> {
        let (Some(chat), Some(user)) = (row.get("chatId"), row.get("userId")) else {
            return (None, vec![Flaw::Incomplete]);
        };
        let role = self.mapping.role(row.get("role"));
        let flaws = if role.is_none() { vec![Flaw::UnknownRole] } else { Vec::new() };
        let member = ImportedMember {
            user: self.id(ImportedKind::User, user),
            role: role.unwrap_or(Role::Member),
            joined_at: row.time("joinedAt").unwrap_or(OffsetDateTime::UNIX_EPOCH),
            left_at: row.time("leftAt").filter(|_| row.has("leftAt")),
        };
        (Some((self.id(ImportedKind::Chat, chat), member)), flaws)
    }
}

/// Whether a chat of this kind is a one-to-one.
fn of_two(kind: &str) -> bool {
    matches!(kind, "DIRECT" | "PRIVATE" | "ONE_TO_ONE" | "ONETOONE" | "SINGLE" | "DM" | "PERSONAL")
}

/// A hash that can be checked here.
fn password(hash: Option<&str>) -> Result<String, Flaw> {
    let hash = hash.map(str::trim).ok_or(Flaw::NoPassword)?;
    if is_bcrypt(hash) {
        let cost: Option<u32> = hash.get(4..6).and_then(|cost| cost.parse().ok());
        let well_formed = hash.len() == 60 && hash.is_ascii();
        return match cost.filter(|_| well_formed) {
            None => Err(Flaw::NoPassword),
            Some(cost) if cost > BCRYPT_COST => Err(Flaw::DearPassword),
            Some(_) => Ok(hash.to_owned()),
        };
    }
    if hash.starts_with("$argon2") {
        let costs = hash.split('$').find(|part| part.starts_with("m=")).ok_or(Flaw::NoPassword)?;
        let cost = |name: &str| -> Option<u64> {
            costs.split(',').find_map(|cost| cost.strip_prefix(name))?.parse().ok()
        };
        let (memory, passes) = cost("m=").zip(cost("t=")).ok_or(Flaw::NoPassword)?;
        let dear = memory > ARGON2_KIB || passes > ARGON2_PASSES;
        return if dear { Err(Flaw::DearPassword) } else { Ok(hash.to_owned()) };
    }
    Err(Flaw::NoPassword)
}

/// In the form that people log in with: what people write between digits is left out, `00` is `+`, and a
/// number of no country is one of `country`.
fn phone_number(text: &str, country: Option<&str>) -> Option<String> {
    let plain: String = text
        .chars()
        .filter(|c| !matches!(c, ' ' | '-' | '(' | ')' | '.' | '/' | '\u{a0}'))
        .collect();
    let number = match (plain.strip_prefix("00"), plain.strip_prefix('0'), country) {
        (Some(rest), ..) => format!("+{rest}"),
        (None, Some(rest), Some(country)) => format!("{country}{rest}"),
        (None, None, Some(country)) if !plain.starts_with('+') => {
            let of_country = plain.starts_with(country.trim_start_matches('+'));
            if of_country { format!("+{plain}") } else { format!("{country}{plain}") }
        }
        _ => plain,
    };
    is_phone_number(&number).then_some(number)
}

/// A name or title: one line, as long as it may be; none for nothing.
fn line(text: &str) -> Option<String> {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = cut_chars(plain.trim(), limits::NAME_CHARS);
    let line = line.trim_end();
    (!line.is_empty()).then(|| line.to_owned())
}

/// PostgreSQL has no such text as MySQL may.
fn harmless(mut text: String) -> String {
    text.retain(|c| c != '\0');
    text
}

fn cut_chars(text: &str, most: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(most).collect()
}

fn cut(mut text: String, most: usize) -> String {
    text.truncate(text.floor_char_boundary(most));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phone_numbers_take_the_form_that_people_log_in_with() {
        let with = |text| phone_number(text, Some("+49"));
        for text in ["+49 171 123-4567", "0049 (171) 1234567", "0171/1234567", "49.171.1234567"] {
            assert_eq!(with(text).as_deref(), Some("+491711234567"), "{text}");
        }
        assert_eq!(with("171 1234567").as_deref(), Some("+491711234567"));
        assert_eq!(phone_number("+1 (555) 010-1", None).as_deref(), Some("+15550101"));
        for text in ["0171 1234567", "12345678", "", "+12", "+1234567890123456", "phone"] {
            assert_eq!(phone_number(text, None), None, "{text}");
        }
    }

    #[test]
    fn hashes_that_can_be_checked_are_kept() {
        let bcrypt = "$2b$10$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";
        assert_eq!(password(Some(bcrypt)), Ok(bcrypt.to_owned()));
        assert_eq!(password(Some(&bcrypt.replace("$10$", "$16$"))), Err(Flaw::DearPassword));
        assert_eq!(password(Some(&bcrypt[..59])), Err(Flaw::NoPassword));
        let argon2 = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaA";
        assert_eq!(password(Some(argon2)), Ok(argon2.to_owned()));
        assert_eq!(password(Some(&argon2.replace("65536", "9999999"))), Err(Flaw::DearPassword));
        for none in [None, Some(""), Some("plain"), Some("5f4dcc3b5aa765d61d8327deb882cf99")] {
            assert_eq!(password(none), Err(Flaw::NoPassword));
        }
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(line("  Ada\nLovelace\u{0} ").as_deref(), Some("Ada Lovelace"));
        assert_eq!(line(" \u{7} "), None);
        assert_eq!(
            line(&"é".repeat(300)).map(|name| name.chars().count()),
            Some(limits::NAME_CHARS)
        );
        assert_eq!(cut("aé".to_owned(), 2), "a");
    }
}
