//! Entries of the log that could not be written to Postgres: listed, shown, and written after all.

use std::fmt::Write as _;

use natter_bus::{Bus, DeadLetter};
use natter_persistence::batch;
use natter_protocol::{
    feed::FeedKind,
    ids::{Seq, Shard},
};
use natter_runtime::causes;
use natter_store::{Replayed, Store};
use serde::Serialize;

use crate::{
    config::{ListLettersArgs, ReplayArgs, ShowLetterArgs},
    outcome::{Failure, Outcome},
    text::{Table, age, harmless, moment, print, print_json, since},
};

/// Letters that a search for a message looks at.
const SEARCHED: usize = 10_000;

/// A dead letter, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: u64,
    shard: Shard,
    seq: Seq,
    /// `chat …` or `user …`; the subject where it names no feed.
    feed: String,
    stored_at: String,
    died_at: String,
    age_seconds: u64,
    bytes: usize,
    /// Whether the letter has only the beginning; the log may have the rest.
    cut: bool,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl From<&DeadLetter> for Shown {
    fn from(letter: &DeadLetter) -> Self {
        let feed = letter.raw.feed.map(|feed| match feed.kind {
            FeedKind::Chat => format!("chat {}", feed.id),
            FeedKind::User => format!("user {}", feed.id),
        });
        Self {
            id: letter.id,
            shard: letter.shard,
            seq: letter.raw.seq,
            feed: feed.unwrap_or_else(|| letter.raw.subject.clone()),
            stored_at: moment(letter.raw.at),
            died_at: moment(letter.died_at),
            age_seconds: since(letter.died_at).as_secs(),
            bytes: letter.bytes,
            cut: letter.is_cut(),
            reason: letter.reason.clone(),
            body: None,
        }
    }
}

/// `dead-letters list`.
///
/// # Errors
/// When NATS does not answer.
pub async fn list(args: &ListLettersArgs) -> Result<Outcome, Failure> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        total: u64,
        letters: Vec<Shown>,
    }
    let bus = args.servers.bus().await?;
    let total = bus.dead_letters().await?;
    let (mut letters, mut from) = (Vec::new(), args.after.saturating_add(1));
    while letters.len() < args.limit as usize {
        let Some(letter) = bus.next_dead_letter(from).await? else { break };
        from = letter.id + 1;
        letters.push(Shown::from(&letter));
    }
    if args.json {
        print_json(&List { total, letters });
        return Ok(Outcome::Well);
    }
    let mut table = Table::new(&["ID", "SHARD", "SEQ", "AGE", "BYTES", "FEED", "REASON"]);
    let count = letters.len();
    for letter in letters {
        let old = age(std::time::Duration::from_secs(letter.age_seconds));
        let (shard, seq) = (letter.shard.to_string(), letter.seq.to_string());
        let bytes = letter.bytes.to_string();
        table.row([letter.id.to_string(), shard, seq, old, bytes, letter.feed, letter.reason]);
    }
    let more = if count == args.limit as usize {
        format!("more may follow: --after {}\n", from - 1)
    } else {
        String::new()
    };
    print(&format!("{table}{count} of {total}\n{more}"));
    Ok(Outcome::Well)
}

/// `dead-letters show`.
///
/// # Errors
/// When there is no such letter, or NATS does not answer.
pub async fn show(args: &ShowLetterArgs) -> Result<Outcome, Failure> {
    let bus = args.servers.bus().await?;
    let letter = letter(&bus, args.id).await?;
    let mut shown = Shown::from(&letter);
    if args.body {
        shown.body = Some(String::from_utf8_lossy(&letter.raw.body).into_owned());
    }
    if args.json {
        print_json(&shown);
        return Ok(Outcome::Well);
    }
    let mut text = String::new();
    for (name, value) in [
        ("id", shown.id.to_string()),
        ("reason", shown.reason),
        ("shard", shown.shard.to_string()),
        ("seq", shown.seq.to_string()),
        ("feed", shown.feed),
        ("stored", shown.stored_at),
        ("died", shown.died_at),
        ("bytes", shown.bytes.to_string()),
    ] {
        let _ = writeln!(text, "{name:<7} {}", harmless(&value));
    }
    if shown.cut {
        let kept = letter.raw.body.len();
        let _ = writeln!(text, "kept    {kept} bytes of it; the rest is in the log, while it is");
    }
    if let Some(body) = shown.body {
        let _ = writeln!(text, "body    {}", harmless(&body));
    }
    print(&text);
    Ok(Outcome::Well)
}

/// What became of a letter that was to be replayed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    id: u64,
    /// `written`, `already_there` or `repeats` when the letter is gone; `kept` when it is not.
    outcome: &'static str,
    why: String,
}

/// `dead-letters replay`.
///
/// # Errors
/// When a server does not answer. What was replayed before stays so.
pub async fn replay(args: &ReplayArgs) -> Result<Outcome, Failure> {
    let bus = args.servers.bus().await?;
    let store = args.servers.store()?;
    let mut done = Vec::new();
    let ended = if args.all {
        replay_all(&bus, &store, &mut done).await
    } else {
        replay_these(&bus, &store, &args.ids, &mut done).await
    };
    if args.json {
        print_json(&done);
    } else {
        let mut table = Table::new(&["ID", "OUTCOME", "WHY"]);
        for told in &done {
            table.row([told.id.to_string(), told.outcome.to_owned(), told.why.clone()]);
        }
        print(&table.to_string());
    }
    ended?;
    let kept = done.iter().any(|told| told.outcome == KEPT);
    Ok(if kept { Outcome::Wrong } else { Outcome::Well })
}

const KEPT: &str = "kept";

async fn replay_these(
    bus: &Bus,
    store: &Store,
    ids: &[u64],
    done: &mut Vec<Told>,
) -> Result<(), Failure> {
    for &id in ids {
        match letter(bus, id).await {
            Ok(letter) => done.push(replay_one(bus, store, &letter).await?),
            Err(Failure::Refused(why)) => done.push(Told { id, outcome: KEPT, why }),
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// As many as there are now: one that a worker writes meanwhile waits for the next time.
async fn replay_all(bus: &Bus, store: &Store, done: &mut Vec<Told>) -> Result<(), Failure> {
    let (total, mut from) = (bus.dead_letters().await?, 1);
    for _ in 0..total {
        let Some(letter) = bus.next_dead_letter(from).await? else { break };
        from = letter.id + 1;
        done.push(replay_one(bus, store, &letter).await?);
    }
    Ok(())
}

/// Written first, then removed: who dies in between finds it written the next time.
async fn replay_one(bus: &Bus, store: &Store, letter: &DeadLetter) -> Result<Told, Failure> {
    let id = letter.id;
    let kept = |why: String| Told { id, outcome: KEPT, why };
    let raw = if letter.is_cut() {
        // A log that lost its end may have given the sequence to another entry.
        match bus.entry(letter.shard, letter.raw.seq).await? {
            Some(raw) if raw.at == letter.raw.at => raw,
            _ => return Ok(kept("the letter has only its beginning, and the log nothing".into())),
        }
    } else {
        letter.raw.clone()
    };
    let row = match batch::row(&raw) {
        Ok(row) => row,
        Err(why) => return Ok(kept(format!("this version cannot read it: {why}"))),
    };
    let replayed = match store.replay(letter.shard, &row).await {
        Ok(replayed) => replayed,
        Err(error) if error.is_data_error() => return Ok(kept(causes(&error).to_string())),
        Err(error) => return Err(error.into()),
    };
    let (outcome, why) = match replayed {
        Replayed::Written if row.feed.kind == FeedKind::User => {
            ("written", "of a user's feed only the place counts")
        }
        Replayed::Written => ("written", "at its own place in the feed"),
        Replayed::AlreadyThere => ("already_there", "it has been replayed before"),
        Replayed::Repeats => ("repeats", "its sender has sent it again: it is at another place"),
        Replayed::Expired => ("expired", "what lies there is not kept any longer"),
        Replayed::Taken => return Ok(kept("something else is at its place".into())),
        Replayed::NotYet => return Ok(kept("the worker has not come to its place yet".into())),
    };
    bus.forget_dead_letter(id).await?;
    Ok(Told { id, outcome, why: why.to_owned() })
}

/// The first letter whose entry is this message, among the first 10,000, and whether those were all.
pub(crate) async fn of_message(
    bus: &Bus,
    is_it: impl Fn(&DeadLetter) -> bool,
) -> Result<(Option<DeadLetter>, bool), Failure> {
    let mut from = 1;
    for _ in 0..SEARCHED {
        let Some(letter) = bus.next_dead_letter(from).await? else { return Ok((None, true)) };
        if is_it(&letter) {
            return Ok((Some(letter), true));
        }
        from = letter.id + 1;
    }
    Ok((None, false))
}

async fn letter(bus: &Bus, id: u64) -> Result<DeadLetter, Failure> {
    let found = bus.next_dead_letter(id).await?.filter(|letter| letter.id == id);
    found.ok_or_else(|| Failure::refused(format!("there is no dead letter {id}")))
}
