//! The path of one message: in the log, in Postgres, its file, and the devices of those who take part
//! in its chat.

use std::{fmt::Write as _, time::Duration};

use natter_bus::{Bus, DeadLetter, Raw};
use natter_presence::PresenceClient;
use natter_protocol::{
    feed::{Entry, Event},
    ids::{ChatId, DeviceId, MessageId, Seq, Shard, UserId},
    notify::DeliveryPage,
};
use natter_runtime::causes;
use natter_store::{PlaceKind, Reached, ShardRow, Store};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};

use crate::{
    config::MessageArgs,
    dead_letters,
    devices::{self, HEADING},
    outcome::{Failure, Outcome},
    pushes,
    text::{Table, age, bytes, harmless, moment, print, print_json, since},
};

/// Entries read from the log at once.
const BATCH: usize = 1_000;
/// How long a read of the log waits for more.
const WAIT: Duration = Duration::from_secs(2);

/// Where the message is, and how far it has come.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    id: MessageId,
    chat_id: ChatId,
    sender_id: UserId,
    device_id: Option<DeviceId>,
    log: LogPart,
    postgres: PostgresPart,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter: Option<LetterPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<FilePart>,
    participants: Vec<Participant>,
    /// There are more than were asked for.
    more_participants: bool,
    /// Who was notified, who was not, and why.
    notifications: DeliveryPage,
    /// What could not be told.
    unknown: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LogPart {
    shard: Option<Shard>,
    seq: Seq,
    stored_at: String,
    /// The log's life that it was stored in; none for one before the present.
    epoch: Option<i32>,
    /// Whether the log still has it; unknown where it could not be asked.
    held: Option<bool>,
    #[serde(skip)]
    age: Duration,
}

/// How it is in Postgres.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
enum PostgresPart {
    /// Shown in the history.
    Written,
    /// The worker has not come so far.
    Waiting {
        /// Entries between.
        behind: u64,
    },
    /// The worker could not write it: see the dead letter.
    Void { reason: String },
    /// The worker has passed its place, where nothing is, or something else.
    Missing,
}

#[derive(Debug, Serialize)]
struct LetterPart {
    id: u64,
    reason: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FilePart {
    id: String,
    name: String,
    #[serde(rename = "type")]
    media_type: String,
    size: Option<u64>,
    state: String,
    sent: bool,
    downloads: u64,
}

#[derive(Debug, Serialize)]
struct Participant {
    id: UserId,
    name: String,
    /// How far it has come with them; none while the worker has not come so far, since what tells of
    /// it lies behind.
    reached: Option<Reach>,
    devices: Vec<devices::Shown>,
}

/// How far a message has come with a participant, on any device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reach {
    /// It is theirs.
    Sent,
    /// Their part in the chat begins behind it.
    Hidden,
    /// A device says that it is read, …
    Read,
    /// … or that it has it.
    Delivered,
    /// No device has said so.
    Untold,
}

impl Reach {
    fn of(found: &Found, reached: &Reached) -> Self {
        if reached.user == found.sender {
            Self::Sent
        } else if found.seq < reached.from_seq {
            Self::Hidden
        } else if found.seq <= reached.read_seq {
            Self::Read
        } else if found.seq <= reached.delivered_seq {
            Self::Delivered
        } else {
            Self::Untold
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent it",
            Self::Hidden => "joined later",
            Self::Read => "read",
            Self::Delivered => "delivered",
            Self::Untold => "not told",
        }
    }
}

/// Where a message was found.
struct Found {
    chat: ChatId,
    sender: UserId,
    device: Option<DeviceId>,
    shard: Option<Shard>,
    seq: Seq,
    at: time::OffsetDateTime,
    written: bool,
    letter: Option<LetterPart>,
}

/// `message`.
///
/// # Errors
/// When it is nowhere, or Postgres or NATS does not answer.
pub async fn run(args: &MessageArgs) -> Result<Outcome, Failure> {
    let store = args.servers.store()?;
    let bus = args.servers.bus().await?;
    let mut unknown = Vec::new();
    let presence = args.servers.presence();
    let presence = presence.map_err(|failure| unknown.push(causes(&failure).to_string())).ok();
    let shards = store.shards().await?;
    let found = find(args, &store, &bus, &shards).await?;
    let path = follow(args, &store, &bus, presence.as_ref(), &shards, found, unknown).await?;
    let fate = match (&path.postgres, path.unknown.is_empty()) {
        (PostgresPart::Void { .. } | PostgresPart::Missing, _) => Outcome::Wrong,
        (_, true) => Outcome::Well,
        (_, false) => Outcome::Unknown,
    };
    if args.json {
        print_json(&path);
    } else {
        print(&shown(&path));
    }
    Ok(fate)
}

/// Postgres first, then what could not be written to it, then what is not written yet.
async fn find(
    args: &MessageArgs,
    store: &Store,
    bus: &Bus,
    shards: &[ShardRow],
) -> Result<Found, Failure> {
    let bound = Duration::from_secs(args.seconds);
    let chat = match args.chat {
        Some(chat) => Some(chat),
        None => store.file_of(args.id).await?.and_then(|file| file.chat_id),
    };
    // The tail is read from where the worker was before the search: what it writes meanwhile is in
    // one of the two.
    let in_postgres = store.find_message(args.id, chat, bound).await;
    let late = match in_postgres {
        Ok(Some(place)) => {
            if let PlaceKind::Message { sender, device, .. } = place.kind {
                let (chat, shard, seq, at) = (place.chat_id, place.shard, place.seq, place.at);
                return Ok(Found {
                    chat,
                    sender,
                    device,
                    shard,
                    seq,
                    at,
                    written: true,
                    letter: None,
                });
            }
            false
        }
        Ok(None) => false,
        Err(error) if error.is_unavailable() && chat.is_none() => true,
        Err(error) => return Err(error.into()),
    };
    let is_it = |letter: &DeadLetter| message_of(&letter.raw, args.id).is_some();
    let (letter, all_letters) = dead_letters::of_message(bus, is_it).await?;
    if let Some(letter) = letter
        && let Some(mut found) = message_of(&letter.raw, args.id)
    {
        found.letter = Some(LetterPart { id: letter.id, reason: letter.reason });
        return Ok(found);
    }
    let deadline = Instant::now() + bound;
    let mut all_entries = true;
    for row in shards {
        let (found, all) = in_tail(bus, row, args.id, deadline).await?;
        if let Some(found) = found {
            return Ok(found);
        }
        all_entries &= all;
    }
    let mut missed = Vec::new();
    if late {
        missed
            .push("not all of Postgres was read in time: name the --chat, or allow more --seconds");
    }
    if !all_letters {
        missed.push("there are more dead letters than were looked at");
    }
    if !all_entries {
        missed.push("not all of the log's unwritten tail was read in time: allow more --seconds");
    }
    if missed.is_empty() {
        Err(Failure::refused(format!("there is no message {}", args.id)))
    } else {
        Err(Failure::Server { server: "not found", cause: missed.join("; ").into() })
    }
}

/// The message among what the shard's log has and Postgres does not, and whether all of that was
/// read.
async fn in_tail(
    bus: &Bus,
    row: &ShardRow,
    id: MessageId,
    deadline: Instant,
) -> Result<(Option<Found>, bool), Failure> {
    let Some(log) = bus.log_state(row.shard).await? else { return Ok((None, true)) };
    let mut reader = bus.log_reader(row.shard, row.persisted_seq + 1);
    let mut result = (None, true);
    while result.0.is_none() && reader.next_seq() <= log.last_seq {
        let Ok(batch) = timeout_at(deadline, reader.next_batch(BATCH, WAIT)).await else {
            result.1 = false;
            break;
        };
        let batch = batch?;
        if batch.is_empty() {
            break;
        }
        result.0 = batch.iter().find_map(|raw| message_of(raw, id));
    }
    reader.close().await;
    Ok(result)
}

/// What an entry says of the message, if it is that.
fn message_of(raw: &Raw, id: MessageId) -> Option<Found> {
    let (feed, entry) = (raw.feed?, serde_json::from_slice::<Entry>(&raw.body).ok()?);
    let Event::Message(message) = entry.event else { return None };
    let found = || {
        Some(Found {
            chat: feed.chat_id()?,
            sender: message.sender.id,
            device: message.device_id,
            shard: Some(feed.shard),
            seq: raw.seq,
            at: raw.at,
            written: false,
            letter: None,
        })
    };
    (message.id == id).then(found).flatten()
}

async fn follow(
    args: &MessageArgs,
    store: &Store,
    bus: &Bus,
    presence: Option<&PresenceClient>,
    shards: &[ShardRow],
    found: Found,
    mut unknown: Vec<String>,
) -> Result<Path, Failure> {
    let row = shards.iter().find(|row| Some(row.shard) == found.shard);
    let held = match found.shard {
        None => None,
        Some(shard) => match bus.entry(shard, found.seq).await {
            Ok(raw) => Some(raw.is_some_and(|raw| raw.feed.is_some_and(|f| f.id == found.chat.0))),
            Err(error) => {
                unknown.push(format!("the log: {}", causes(&error)));
                None
            }
        },
    };
    let postgres = in_postgres(store, row, &found, args.id).await?;
    let (participants, more_participants) = if args.participants == 0 {
        (Vec::new(), true)
    } else {
        let written = !matches!(postgres, PostgresPart::Waiting { .. });
        let reached =
            if written { store.reached(found.chat, args.participants).await? } else { Vec::new() };
        take_part(args, store, presence, &found, &reached, &mut unknown).await?
    };
    Ok(Path {
        id: args.id,
        chat_id: found.chat,
        sender_id: found.sender,
        device_id: found.device,
        log: LogPart {
            shard: found.shard,
            seq: found.seq,
            stored_at: moment(found.at),
            epoch: row.filter(|row| found.seq >= row.first_seq).map(|row| row.epoch),
            held,
            age: since(found.at),
        },
        postgres,
        dead_letter: found.letter,
        file: store.file_of(args.id).await?.map(|file| FilePart {
            id: file.id.to_string(),
            name: file.name,
            media_type: file.media_type,
            size: file.size,
            state: file.state,
            sent: file.sent,
            downloads: file.downloads,
        }),
        participants,
        more_participants,
        notifications: pushes::of(store, args.id, args.participants).await?,
        unknown,
    })
}

async fn in_postgres(
    store: &Store,
    row: Option<&ShardRow>,
    found: &Found,
    id: MessageId,
) -> Result<PostgresPart, Failure> {
    if found.written {
        return Ok(PostgresPart::Written);
    }
    Ok(match store.place(found.chat, found.seq).await?.map(|place| place.kind) {
        Some(PlaceKind::Message { id: there, .. }) if there == id => PostgresPart::Written,
        Some(PlaceKind::Void { reason }) => PostgresPart::Void { reason },
        None if row.is_some_and(|row| found.seq > row.persisted_seq) => {
            let persisted = row.map_or(0, |row| row.persisted_seq);
            PostgresPart::Waiting { behind: found.seq - persisted }
        }
        _ => PostgresPart::Missing,
    })
}

async fn take_part(
    args: &MessageArgs,
    store: &Store,
    presence: Option<&PresenceClient>,
    found: &Found,
    reached: &[Reached],
    unknown: &mut Vec<String>,
) -> Result<(Vec<Participant>, bool), Failure> {
    let (members, more) = store.participants(found.chat, None, args.participants).await?;
    let (mut participants, mut presence) = (Vec::new(), presence);
    for member in members {
        let (devices, trouble) = devices::of(store, presence, member.id).await?;
        if let Some(trouble) = trouble {
            unknown.push(causes(&trouble).to_string());
            // Once is enough.
            presence = None;
        }
        let reached = reached.iter().find(|reached| reached.user == member.id);
        let reached = reached.map(|reached| Reach::of(found, reached));
        participants.push(Participant { id: member.id, name: member.name, reached, devices });
    }
    Ok((participants, more.is_some()))
}

fn shown(path: &Path) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<12} {}", harmless(&value));
    };
    line("message", path.id.to_string());
    line("chat", path.chat_id.to_string());
    let device = path.device_id.map_or_else(String::new, |device| format!(", device {device}"));
    line("sender", format!("{}{device}", path.sender_id));
    let LogPart { shard, seq, stored_at, epoch, held, age: old } = &path.log;
    let shard = shard.map_or_else(|| "of no known chat".to_owned(), |shard| shard.to_string());
    let epoch =
        epoch.map_or_else(|| "an earlier epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    line("stored", format!("{stored_at} ({} ago), shard {shard}, seq {seq}, {epoch}", age(*old)));
    line(
        "log",
        match held {
            Some(true) => "has it".to_owned(),
            Some(false) => "has it no more: purged".to_owned(),
            None => "could not be asked".to_owned(),
        },
    );
    line(
        "postgres",
        match &path.postgres {
            PostgresPart::Written => "written".to_owned(),
            PostgresPart::Waiting { behind } => {
                format!("waits: the worker is {behind} entries before it")
            }
            PostgresPart::Void { reason } => format!("void: {reason}"),
            PostgresPart::Missing => "missing: the worker has passed its place".to_owned(),
        },
    );
    if let Some(letter) = &path.dead_letter {
        line("dead letter", format!("{}: {}", letter.id, letter.reason));
    }
    if let Some(file) = &path.file {
        let size = file.size.map_or_else(|| "unknown size".to_owned(), bytes);
        let sent = if file.sent { "sent" } else { "not sent yet" };
        let FilePart { id, name, media_type, state, downloads, .. } = file;
        let what = format!("{id} {name:?}, {media_type}, {size}, {state}, {sent}");
        line("file", format!("{what}, {downloads} downloads"));
    }
    text.push_str(&participants(path));
    text.push_str(&pushes::shown(&path.notifications));
    for unknown in &path.unknown {
        let _ = writeln!(text, "could not tell: {}", harmless(unknown));
    }
    text
}

fn participants(path: &Path) -> String {
    let heading = ["PARTICIPANT", "REACHED"].into_iter().chain(HEADING);
    let mut table = Table::new(&heading.collect::<Vec<_>>());
    for participant in &path.participants {
        let who = format!("{} {}", participant.id, participant.name);
        let reached = participant.reached.map_or("?", Reach::name);
        if participant.devices.is_empty() {
            table.row([who.clone(), reached.to_owned()]);
        }
        for device in &participant.devices {
            table.row([who.clone(), reached.to_owned()].into_iter().chain(device.cells()));
        }
    }
    let more = if path.more_participants { "and more participants\n" } else { "" };
    if path.participants.is_empty() { more.to_owned() } else { format!("\n{table}{more}") }
}
