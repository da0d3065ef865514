//! Stage by stage, batch by batch. Each batch is one transaction with how far the import is, so a run that
//! was killed at any moment is gone on with, and its report is that of one run.

use std::time::{Duration, Instant};

use natter_protocol::ids::Shard;
use natter_store::{Brought, IMPORT_DONE, Import, ImportBatch, ImportPlace, StoreError};
use serde_json::json;
use tokio::time::sleep;

use super::{
    Job,
    bar::Bar,
    batch::{Read, Rooms},
    files,
    report::Report,
    tables::Kind,
};
use crate::outcome::Failure;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

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
        job.store.import_goes_on(&run.import, &place).await?;
    }
    if let Some(folder) = &job.args.media {
        files::copy(job, folder, &mut run.report).await?;
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
        let tally = self.report.of(kind);
        if kind == Kind::Participants {
            // Those of the chat that was being read are read again.
            tally.read -= std::mem::take(&mut tally.open).min(tally.read);
        }
        let before = tally.read;
        let mut bar = Bar::new(kind.name(), job.source.count(table).await?, before);
        // The last chat is read again, and of that passed over what had been read. If the old system has
        // got something in between since, it is told as here, since it is too late for its place.
        let again = kind == Kind::Messages;
        let mut skip = after.as_ref().map_or(0, |_| self.report.of(kind).open);
        let chunk = usize::from(job.args.batch);
        let mut reader = job.source.read(table, after.as_deref(), again, chunk);
        let mut began = Instant::now();
        let mut rooms = Rooms::default();
        while let Some(mut rows) = reader.next().await? {
            let passed = usize::try_from(skip).unwrap_or(usize::MAX).min(rows.len());
            rows.drain(..passed);
            skip -= passed as u64;
            if rows.is_empty() {
                continue;
            }
            let count = rows.len() as u64;
            let (tally, after) = (self.report.of(kind).clone(), self.import.after.clone());
            let mut read = Read::new(kind, tally, after);
            read.take(job, table, rows, &mut rooms);
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
        let Read { batch, ids, mut tally, after } = read;
        tally.seconds += began.elapsed().as_secs_f64();
        *began = Instant::now();
        let counted = |brought: &Brought| {
            let mut report = self.report.clone();
            let mut tally = tally.clone();
            tally.add(brought, &ids);
            *report.of(kind) = tally;
            report
        };
        let place = |brought: &Brought| ImportPlace {
            stage: kind.name().to_owned(),
            after: after.clone(),
            report: json!(counted(brought)),
        };
        let brought = self.insist(&batch, place).await?;
        self.report = counted(&brought);
        self.import.after = after;
        let taken = began.elapsed().as_secs_f64();
        self.report.of(kind).seconds += taken;
        *began = Instant::now();
        Ok(())
    }

    /// A server that is away is waited for.
    async fn insist(
        &self,
        batch: &ImportBatch,
        place: impl Fn(&Brought) -> ImportPlace,
    ) -> Result<Brought, Failure> {
        let deadline = Instant::now() + self.job.patience();
        loop {
            match self.job.store.bring(&self.import, batch, &place).await {
                Err(error) if error.is_unavailable() && Instant::now() < deadline => {
                    sleep(PAUSE).await;
                }
                Err(StoreError::Fenced) => {
                    return Err(Failure::refused("another run of this import has begun"));
                }
                done => return Ok(done?),
            }
        }
    }
}
