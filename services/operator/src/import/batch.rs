//! Rows of the old system, made a batch.

use natter_store::{ImportBatch, ImportedMember, ImportedRoom};
use uuid::Uuid;

use super::{
    Job,
    convert::{Converter, Row},
    report::{Flaw, Tally},
    source::Cells,
    tables::{Kind, Table},
};

/// Rows of a batch: what they are here, their old ids, and what their own is counted in.
pub(super) struct Read {
    pub(super) batch: ImportBatch,
    pub(super) ids: Vec<String>,
    /// So many of the first rows of the batch were counted by a run before.
    pub(super) again: usize,
    pub(super) tally: Tally,
    /// The old id up to which the table has been read.
    pub(super) after: Option<String>,
}

impl Read {
    /// Nothing yet, but what has been counted, and the old id up to which the table has been read.
    pub(super) fn new(kind: Kind, tally: Tally, after: Option<String>) -> Self {
        let batch = match kind {
            Kind::Users => ImportBatch::Users(Vec::new()),
            Kind::Devices => ImportBatch::Devices(Vec::new()),
            Kind::Chats => ImportBatch::Chats(Vec::new()),
            Kind::Messages => ImportBatch::Messages(Vec::new()),
            Kind::Media => ImportBatch::Files(Vec::new()),
            Kind::Downloads => ImportBatch::Downloads(Vec::new()),
            Kind::Participants => ImportBatch::Rooms(Vec::new()),
        };
        Self { batch, ids: Vec::new(), again: 0, tally, after }
    }

    /// Takes rows of a table. Those that are read `again` are not counted.
    pub(super) fn take(
        &mut self,
        job: &Job<'_>,
        table: &Table,
        rows: Vec<Cells>,
        rooms: &mut Rooms,
        again: &mut Again,
    ) {
        let converter =
            Converter { import: &job.args.name, mapping: &job.mapping, shards: job.shards };
        let by_chat = matches!(table.kind, Kind::Messages | Kind::Participants);
        for cells in rows {
            let mut row = Row::new(table, cells);
            let key = row.get(if by_chat { "chatId" } else { "id" }).map(str::to_owned);
            let id = row.get("id").or(row.get("userId")).unwrap_or_default().to_owned();
            let counted = again.take(key.as_deref());
            if !counted {
                self.tally.read += 1;
            }
            // A row of no chat is no part of the last one.
            if by_chat && !counted && key.is_some() {
                let last = if table.kind == Kind::Messages { &self.after } else { &rooms.old };
                self.tally.open = if key == *last { self.tally.open + 1 } else { 1 };
            }
            for flaw in self.add(&converter, &mut row, &id, key.as_deref(), rooms) {
                if !counted {
                    self.tally.flaw(flaw, &id);
                }
            }
            if counted && table.kind == Kind::Messages {
                self.again = self.ids.len();
            }
            // Of a chat whose participants are being read the rest is to come.
            if table.kind != Kind::Participants && key.is_some() {
                self.after = key;
            }
        }
    }

    /// Takes the last of the chats whose participants have been read, if there is one.
    pub(super) fn take_last(&mut self, rooms: &mut Rooms) -> bool {
        let (Some(room), ImportBatch::Rooms(whole)) = (rooms.last.take(), &mut self.batch) else {
            return false;
        };
        whole.push(room);
        self.after = rooms.old.take();
        self.ids.extend(self.after.clone());
        true
    }

    /// Adds a row to its batch, if it is not left out.
    fn add(
        &mut self,
        converter: &Converter<'_>,
        row: &mut Row<'_>,
        id: &str,
        key: Option<&str>,
        rooms: &mut Rooms,
    ) -> Vec<Flaw> {
        macro_rules! push {
            ($batch:ident, $converted:expr) => {{
                let (converted, flaws) = $converted;
                if let Some(converted) = converted {
                    $batch.push(converted);
                    self.ids.push(id.to_owned());
                }
                flaws
            }};
        }
        match &mut self.batch {
            ImportBatch::Users(users) => push!(users, converter.user(row)),
            ImportBatch::Devices(devices) => push!(devices, converter.device(row)),
            ImportBatch::Chats(chats) => push!(chats, converter.chat(row)),
            ImportBatch::Messages(messages) => push!(messages, converter.message(row)),
            ImportBatch::Files(files) => push!(files, converter.file(row)),
            ImportBatch::Downloads(downloads) => push!(downloads, converter.download(row)),
            ImportBatch::Rooms(whole) => {
                let (converted, flaws) = converter.member(row);
                if let Some((chat, member)) = converted
                    && let Some((room, old)) = rooms.push(chat, key.unwrap_or_default(), member)
                {
                    whole.push(room);
                    self.ids.push(old.clone());
                    self.after = Some(old);
                }
                flaws
            }
        }
    }
}

/// Rows of a chat that a run before has read and counted. They are read again all the same: the old system
/// may have removed some of them since, or got others among them, so their number says nothing of which.
#[derive(Default)]
pub(super) struct Again {
    left: u64,
    of: Option<String>,
}

impl Again {
    /// So many rows, of this chat or else of the first that is read.
    pub(super) fn new(rows: u64, of: Option<String>) -> Self {
        Self { left: rows, of }
    }

    /// Whether the next row, of this chat, is one of them.
    fn take(&mut self, chat: Option<&str>) -> bool {
        if self.left == 0 {
            return false;
        }
        let of = self.of.get_or_insert_with(|| chat.unwrap_or_default().to_owned());
        let one = chat == Some(of);
        self.left = if one { self.left - 1 } else { 0 };
        one
    }
}

/// The chat whose participants are being read, which may not be all yet.
#[derive(Default)]
pub(super) struct Rooms {
    last: Option<ImportedRoom>,
    old: Option<String>,
}

impl Rooms {
    /// Another participant; and the chat before, when they are of the next.
    fn push(
        &mut self,
        chat: Uuid,
        old: &str,
        member: ImportedMember,
    ) -> Option<(ImportedRoom, String)> {
        match &mut self.last {
            Some(room) if room.chat == chat => {
                room.members.push(member);
                None
            }
            last => {
                let before = last.replace(ImportedRoom { chat, members: vec![member] });
                let name = self.old.replace(old.to_owned());
                before.zip(name)
            }
        }
    }
}
