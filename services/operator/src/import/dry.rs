//! What an import would leave out, and why; nothing is written.
//!
//! What is wrong with a row by itself is found by reading all of them. Rows that name others which are
//! not there are counted by the old system's server, since nothing here could remember them all; whether
//! somebody here has a phone number or an e-mail address already, by Natter's.

use natter_store::{ImportBatch, Trouble};

use super::{
    Job,
    bar::Bar,
    batch::{Again, Read, Rooms},
    report::{Report, Tally},
    tables::Kind,
};
use crate::outcome::Failure;

/// What names what, and what becomes of a row that names nothing.
const NAMES: [(Kind, &str, Kind, Trouble); 7] = [
    (Kind::Devices, "userId", Kind::Users, Trouble::NoUser),
    (Kind::Messages, "chatId", Kind::Chats, Trouble::NoChat),
    (Kind::Messages, "senderId", Kind::Users, Trouble::SenderGone),
    (Kind::Messages, "replyToId", Kind::Messages, Trouble::NoAnswered),
    (Kind::Participants, "chatId", Kind::Chats, Trouble::NoChat),
    (Kind::Participants, "userId", Kind::Users, Trouble::NoUser),
    (Kind::Downloads, "userId", Kind::Users, Trouble::NoUser),
];

pub(super) async fn run(job: &Job<'_>) -> Result<Report, Failure> {
    let mut report = Report::default();
    for table in &job.tables {
        let kind = table.kind;
        let mut bar = Bar::new(kind.name(), job.source.count(table).await?, 0);
        let mut reader = job.source.read(table, None, false, usize::from(job.args.batch));
        let mut rooms = Rooms::default();
        while let Some(rows) = reader.next().await? {
            let count = rows.len() as u64;
            let mut read = Read::new(kind, std::mem::take(report.of(kind)), None);
            read.take(job, table, rows, &mut rooms, &mut Again::default());
            if let ImportBatch::Users(users) = &read.batch {
                for (nth, trouble) in job.store.logins_taken(users).await? {
                    let id = read.ids.get(nth).map_or("", String::as_str);
                    read.tally.trouble(trouble, id);
                }
            }
            *report.of(kind) = read.tally;
            bar.forward(count);
        }
        bar.end();
    }
    for (from, field, to, trouble) in NAMES {
        if let (Some(names), Some(named)) = (job.table(from), job.table(to)) {
            let count = job.source.dangling((names, field), named).await?;
            report.of(from).troubles(trouble, count);
        }
    }
    if let Some(users) = job.table(Kind::Users) {
        let tally: &mut Tally = report.of(Kind::Users);
        for (field, trouble) in [("phone", Trouble::PhoneTaken), ("email", Trouble::EmailTaken)] {
            tally.troubles(trouble, job.source.repeated(users, field).await?);
        }
    }
    Ok(report)
}
