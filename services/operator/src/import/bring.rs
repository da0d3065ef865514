//! Stage by stage, batch by batch. Each batch is one transaction with how far the import is, so a run that
//! was killed at any moment is gone on with, and its report is that of one run.

use std::time::Instant;

use natter_protocol::ids::Shard;
use natter_store::{Brought, IMPORT_DONE, Import, ImportPlace};
use serde_json::json;

use super::{
    Job,
    bar::Bar,
    batch::{Again, Read, Rooms},
    files,
    report::Report,
    tables::Kind,
};
use crate::outcome::Failure;

/// Moves everything over that is not here yet.
pub(super) async fn run(job: &Job<'_>) -> Result<Report, Failure> {
    if let Some(messages) = job.table(Kind::Messages) {
        // Before anything is written: whoever has to begin a log anew may not be there.
        let longest = job.source.longest(messages).await?;
        let needs: Vec<(Shard, u64)> = (0..job.shards).map(|shard| (shard, longest)).collect();
        job.make_room(&needs).await?;
    }
    let first = Kind::ALL[0].name();
    let import = job.store.begin_import(&job.args.name, first, &json!(Report::default())).await?;
    let report: Report = serde_json::from_value(import.report.clone()).unwrap_or_default();
    if import.resumed {
        eprintln!("going on from where the run before was ended: {}", import.stage);
    }
    let at = Kind::parse(&import.stage).unwrap_or(Kind::Users);
    let mut run = Run { job, import, report };
    let stages: Vec<Kind> = Kind::ALL.into_iter().skip_while(|kind| *kind != at).collect();
    for (nth, kind) in stages.iter().enumerate() {
        let after = run.import.after.clone().filter(|_| nth == 0);
        run.stage(*kind, after).await?;
        let next = stages.get(nth + 1).map_or(IMPORT_DONE, |next| next.name());
        let place = ImportPlace { stage: next.to_owned(), after: None, report: json!(run.report) };
        job.insist(async || job.store.import_goes_on(&run.import, &place).await).await?;
    }
    if let Some(folder) = &job.args.media {
        files::copy(job, &run.import, folder, &mut run.report).await?;
    }
    Ok(run.report)
}

struct Run<'a> {
    job: &'a Job<'a>,
    import: Import,
    report: Report,
}

impl Run<'_> {
    async fn stage(&mut self, kind: Kind, after: Option<String>) -> Result<(), Failure> {
        let job = self.job;
        let Some(table) = job.table(kind) else { return Ok(()) };
        if kind == Kind::Participants {
            job.make_room(&job.store.import_needs(&job.args.name).await?).await?;
        }
        let tally = self.report.of(kind).clone();
        let mut bar = Bar::new(kind.name(), job.source.count(table).await?, tally.read);
        // The chat that was being read is read again. Of messages it is the one that is noted; participants
        // are noted by whole chats, so theirs is the one behind it.
        let from = kind == Kind::Messages;
        let mut again = match kind {
            Kind::Messages => Again::new(tally.open, after.clone()),
            Kind::Participants => Again::new(tally.open, None),
            _ => Again::default(),
        };
        let chunk = usize::from(job.args.batch);
        let mut reader = job.source.read(table, after.as_deref(), from, chunk);
        let mut began = Instant::now();
        let mut rooms = Rooms::default();
        while let Some(rows) = reader.next().await? {
            let (tally, after) = (self.report.of(kind).clone(), self.import.after.clone());
            let before = tally.read;
            let mut read = Read::new(kind, tally, after);
            read.take(job, table, rows, &mut rooms, &mut again);
            let count = read.tally.read - before;
            self.write(kind, read, &mut began).await?;
            bar.forward(count);
        }
        let mut read = Read::new(kind, self.report.of(kind).clone(), None);
        if read.take_last(&mut rooms) {
            self.write(kind, read, &mut began).await?;
        }
        bar.end();
        self.report.of(kind).open = 0;
        self.import.after = None;
        Ok(())
    }

    async fn write(&mut self, kind: Kind, read: Read, began: &mut Instant) -> Result<(), Failure> {
        let Read { batch, ids, again, mut tally, after } = read;
        tally.seconds += began.elapsed().as_secs_f64();
        *began = Instant::now();
        let counted = |brought: &Brought| {
            let mut report = self.report.clone();
            let mut tally = tally.clone();
            tally.add(brought, &ids, again);
            *report.of(kind) = tally;
            report
        };
        let place = |brought: &Brought| ImportPlace {
            stage: kind.name().to_owned(),
            after: after.clone(),
            report: json!(counted(brought)),
        };
        let (job, import) = (self.job, &self.import);
        let brought = job.insist(async || job.store.bring(import, &batch, &place).await).await?;
        self.report = counted(&brought);
        self.import.after = after;
        let taken = began.elapsed().as_secs_f64();
        self.report.of(kind).seconds += taken;
        *began = Instant::now();
        Ok(())
    }
}
