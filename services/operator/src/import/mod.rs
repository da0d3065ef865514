//! `natter import`: moving over from an older backend, whose database is read as it is.
//!
//! | module | holds |
//! |---|---|
//! | `tables` | the old system's tables, found by their usual names |
//! | `mapping` | a file that says what is called otherwise |
//! | `source` | its database: PostgreSQL, or MySQL and MariaDB |
//! | `convert` | what its rows are here |
//! | `batch` | rows made a batch |
//! | `bring` | stage by stage, batch by batch |
//! | `dry` | the same without writing |
//! | `files` | files that are copied |
//! | `report` | what was done, and what had to be left out |
//! | `bar` | how far it is |
//!
//! How it is written, and why it can be killed and done twice, is in the store's `imports`.

mod bar;
mod batch;
mod bring;
mod convert;
mod dry;
mod files;
mod mapping;
mod report;
mod source;
mod tables;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::Args;
use natter_persistence::renew::{RenewError, begin_epochs_of};
use natter_protocol::ids::{Seq, Shard};
use natter_store::{Store, StoreError};
use secrecy::SecretString;
use time::OffsetDateTime;
use tokio::time::sleep;

use self::{
    mapping::Mapping,
    source::Source,
    tables::{Kind, Table},
};
use crate::{
    config::Servers,
    outcome::{Failure, Outcome},
    text::{print, print_json},
};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Of `import`.
#[derive(Args, Debug)]
pub struct ImportArgs {
    /// The old system's database, as `postgres://user:password@host:port/database?schema=public` or
    /// `mysql://…`: as Prisma has it. It is only read.
    #[arg(long, env = "NATTER_IMPORT_SOURCE", hide_env_values = true)]
    pub source: Option<SecretString>,

    /// What the import is called: 1 to 32 letters, digits and dashes. It is a part of the ids that are
    /// made, so it stays the same for the same system.
    #[arg(long, default_value = "old", value_parser = import_name)]
    pub name: String,

    /// A JSON file that says what tables, columns and words are called, where that is not as usual.
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,

    /// Read everything and tell what would be left out and why; write nothing.
    #[arg(long)]
    pub dry_run: bool,

    /// A folder with the old system's files: they are copied to where Natter keeps its own.
    #[arg(long, value_name = "DIR")]
    pub media: Option<PathBuf>,

    /// Where Natter keeps files, as its gateways say it. For `--media`.
    #[arg(long, env = "NATTER_MEDIA_STORE", default_value = "media")]
    pub media_store: String,

    /// Rows in one transaction: 1 to 20,000.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    pub batch: u16,

    /// Seconds that a server which is away, or a worker that is to begin a new log, is waited for: 0 to
    /// 3,600.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub patience: u64,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,

    /// Where the servers are; Postgres is asked, and NATS where a log has to begin anew.
    #[command(flatten)]
    pub servers: Servers,
}

fn import_name(text: &str) -> Result<String, String> {
    let good = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if good && (1..=32).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err("is not 1 to 32 letters, digits and dashes".to_owned())
    }
}

/// What is asked, and of whom.
struct Job<'a> {
    args: &'a ImportArgs,
    source: Source,
    tables: Vec<Table>,
    mapping: Mapping,
    store: Store,
    shards: Shard,
}

impl Job<'_> {
    fn table(&self, kind: Kind) -> Option<&Table> {
        self.tables.iter().find(|table| table.kind == kind)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(self.args.patience)
    }

    /// Asks the store. One that is away is waited for, so what is asked may be done twice.
    async fn insist<T>(&self, ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, Failure> {
        let deadline = Instant::now() + self.patience();
        loop {
            match ask().await {
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

    /// The logs of these shards are beyond places that chats without a log are to have: a new epoch is,
    /// where they are not.
    async fn make_room(&self, needs: &[(Shard, Seq)]) -> Result<(), Failure> {
        let rows = self.store.shards().await?;
        let short = needs.iter().filter(|(shard, places)| {
            rows.iter().any(|row| row.shard == *shard && row.persisted_seq < *places)
        });
        let short: Vec<Shard> = short.map(|(shard, _)| *shard).collect();
        if short.is_empty() {
            return Ok(());
        }
        // Nobody could write to a log that is sealed and not made anew.
        let now = OffsetDateTime::now_utc();
        let owned = |shard| {
            rows.iter().any(|row| row.shard == shard && row.owner_until.is_some_and(|t| t > now))
        };
        if let Some(free) = short.iter().find(|shard| !owned(**shard)) {
            let why = "a new log has to begin, and a worker must be running";
            return Err(Failure::refused(format!("shard {free} has no owner: {why}")));
        }
        let bus = self.args.servers.bus().await?;
        begin_epochs_of(&self.store, &bus, &short, self.patience()).await.map_err(|error| {
            match error {
                RenewError::Store(error) => error.into(),
                RenewError::Bus(error) => error.into(),
                error => Failure::refused(error.to_string()),
            }
        })
    }
}

/// Moves over, or tells what would come of it.
///
/// # Errors
/// [`Failure`]. What is done stays done, and the next run goes on from there.
pub(crate) async fn run(args: &ImportArgs) -> Result<Outcome, Failure> {
    let url = args
        .source
        .as_ref()
        .ok_or(Failure::NotSet { variable: "NATTER_IMPORT_SOURCE", flag: "--source" })?;
    let source = Source::parse(url)?;
    let mapping = args.map.as_deref().map(Mapping::read).transpose()?.unwrap_or_default();
    let tables = tables::find(&source.schema().await?, &mapping)?;
    let store = args.servers.store()?;
    let begun = store.shards().await?.into_iter().filter(|row| row.epoch > 0).count();
    let shards = Shard::try_from(begun).unwrap_or(Shard::MAX);
    if shards == 0 {
        return Err(Failure::refused("there is no log yet: natter migrate makes it"));
    }
    let job = Job { args, source, tables, mapping, store, shards };
    let report = if args.dry_run { dry::run(&job).await? } else { bring::run(&job).await? };
    if args.json {
        print_json(&report);
    } else {
        print(&report.shown(args.dry_run));
    }
    Ok(Outcome::Well)
}
