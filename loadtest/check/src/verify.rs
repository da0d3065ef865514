//! What must hold of what was seen. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use natter_protocol::ids::{ChatId, MessageId, Seq, UserId};
use serde::Serialize;

use crate::observations::{
    Attempt, Chat, Device, Entry, Kind, Observations, Operation, Outcome, Seen, Text, Told, Turn,
    What,
};

/// Violations listed at most; the rest is counted.
const LISTED: usize = 50;
/// A node may take so long, in microseconds, to end a revoked device's connections, faults
/// included.
const REVOKED: u64 = 10_000_000;

/// What does not hold. Contents are never told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "camelCase")]
#[expect(missing_docs, reason = "the fields say which chat, place, message and device")]
pub enum Violation {
    /// Two gateways tell different histories, first at this place.
    HistoriesDiffer { chat: ChatId, seq: Seq },
    /// A history is not in order, or has something twice.
    HistoryOrder { chat: ChatId, seq: Seq },
    /// A message was acked and is not there, or elsewhere.
    AckedMissing { chat: ChatId, id: MessageId, seq: Seq, client_msg_id: String },
    /// One message has two places, ids, or first acks.
    AckedTwice { chat: ChatId, client_msg_id: String },
    /// A message was refused as not sent, and is there.
    FailedStored { chat: ChatId, seq: Seq, client_msg_id: String },
    /// A message that nobody has sent, or with another content.
    NeverSent { chat: ChatId, seq: Seq, client_msg_id: String },
    /// A message invoked after another was acked stands before it.
    Reordered { chat: ChatId, seq: Seq, after: Seq },
    /// A message stands before one that the same connection sent earlier.
    SenderReordered { chat: ChatId, seq: Seq, after: Seq },
    /// A user could not join or leave, or a device not be revoked, for as long as it was tried; with
    /// the code if it was refused.
    NotDone { operation: Kind, user: UserId, chat: Option<ChatId>, code: Option<String> },
    /// A user is in a chat that they have left, or not in one that they have joined.
    MoveLost { chat: ChatId, user: UserId },
    /// A device could not come back or not send, though nothing stopped it any more.
    ShutOut { device: String },
    /// A device was let in after its revocation.
    LetIn { device: String },
    /// A device has not got what it is entitled to.
    Missing { device: String, chat: ChatId, seq: Seq },
    /// A device got something twice.
    Twice { device: String, chat: ChatId, seq: Seq },
    /// A device got something after a later one.
    OutOfOrder { device: String, chat: ChatId, seq: Seq, after: Seq },
    /// A device got another thing than the history has there.
    Differs { device: String, chat: ChatId, seq: Seq },
    /// A device got what is not its user's.
    NotEntitled { device: String, chat: ChatId, seq: Seq },
    /// A device got something that was sent after its revocation.
    AfterRevocation { device: String, chat: ChatId, seq: Seq },
    /// A connection was told of a predecessor that it had not got.
    Hole { device: String, chat: ChatId, seq: Seq, prev: Seq, last: Seq },
}

/// What came of looking at everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Nothing is wrong.
    pub ok: bool,
    /// How many things are.
    pub violations: usize,
    /// The first 50 of them.
    pub listed: Vec<Violation>,
    /// Entries of all histories.
    pub entries: usize,
    /// Entries that devices got.
    pub deliveries: usize,
}

impl Verdict {
    fn add(&mut self, violation: Violation) {
        self.violations += 1;
        if self.listed.len() < LISTED {
            self.listed.push(violation);
        }
    }
}

/// Looks at everything.
#[must_use]
pub fn verify(seen: &Observations) -> Verdict {
    let mut verdict = Verdict::default();
    let mut chats = HashMap::new();
    let attempts = by_chat(&seen.attempts);
    for chat in &seen.chats {
        let Some(history) = history(chat, &mut verdict) else { continue };
        verdict.entries += history.len();
        let attempts = attempts.get(&chat.id).map(Vec::as_slice).unwrap_or_default();
        sends(chat.id, &history, attempts, &mut verdict);
        real_time(chat.id, attempts, &mut verdict);
        sender_order(chat.id, attempts, &mut verdict);
        chats.insert(chat.id, (members(chat, &history), history));
    }
    operations(&seen.operations, &chats, &mut verdict);
    let invoked: HashMap<(UserId, &str), u64> = first_invocations(&seen.attempts);
    for device in &seen.devices {
        doors(device, &mut verdict);
        deliveries(device, &chats, &invoked, &mut verdict);
    }
    verdict.ok = verdict.violations == 0;
    verdict
}

type History<'a> = BTreeMap<Seq, &'a Entry>;
/// Where each user's parts in a chat begin and end, both inclusive.
type Members = HashMap<UserId, Vec<(Seq, Seq)>>;

fn by_chat(attempts: &[Attempt]) -> HashMap<ChatId, Vec<&Attempt>> {
    let mut chats: HashMap<ChatId, Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        chats.entry(attempt.chat).or_default().push(attempt);
    }
    chats
}

fn first_invocations(attempts: &[Attempt]) -> HashMap<(UserId, &str), u64> {
    let mut first = HashMap::new();
    for Attempt { text, invoked, .. } in attempts {
        let at = first.entry((text.sender, text.client_msg_id.as_str())).or_insert(*invoked);
        *at = (*at).min(*invoked);
    }
    first
}

/// The history, on which all gateways agree but for predecessors, which they may know or not.
fn history<'a>(chat: &'a Chat, verdict: &mut Verdict) -> Option<History<'a>> {
    let first = chat.histories.first()?;
    for other in &chat.histories[1..] {
        let differs = |(a, b): &(&Entry, &Entry)| (a.seq, &a.what) != (b.seq, &b.what);
        let place = first.iter().zip(other).find(differs).map(|(entry, _)| entry.seq);
        let shorter = first.len().min(other.len());
        let longer = first.get(shorter).or(other.get(shorter)).map(|entry| entry.seq);
        if let Some(seq) = place.or(longer) {
            verdict.add(Violation::HistoriesDiffer { chat: chat.id, seq });
        }
    }
    let mut messages = HashSet::new();
    for pair in first.windows(2) {
        if pair[0].seq >= pair[1].seq {
            verdict.add(Violation::HistoryOrder { chat: chat.id, seq: pair[1].seq });
        }
    }
    for entry in first {
        if let What::Message { id, text } = &entry.what
            && !(messages.insert((text.sender, text.client_msg_id.clone()))
                && messages.insert((text.sender, id.to_string())))
        {
            verdict.add(Violation::HistoryOrder { chat: chat.id, seq: entry.seq });
        }
    }
    Some(first.iter().map(|entry| (entry.seq, entry)).collect())
}

/// Every acked message is there, once; what is there was sent.
fn sends(chat: ChatId, history: &History<'_>, attempts: &[&Attempt], verdict: &mut Verdict) {
    let mut stored: HashMap<(UserId, &str), (Seq, MessageId, &Text)> = HashMap::new();
    for (seq, entry) in history {
        if let What::Message { id, text } = &entry.what {
            stored.insert((text.sender, &text.client_msg_id), (*seq, *id, text));
        }
    }
    let mut tried: HashMap<(UserId, &str), Vec<&Attempt>> = HashMap::new();
    for attempt in attempts {
        let key = (attempt.text.sender, attempt.text.client_msg_id.as_str());
        tried.entry(key).or_default().push(attempt);
    }
    for (key, attempts) in &tried {
        let client_msg_id = key.1.to_owned();
        let mut firsts = 0;
        let mut place = None;
        for attempt in attempts {
            let Outcome::Acked { id, seq, duplicate, .. } = attempt.outcome else { continue };
            firsts += usize::from(!duplicate);
            if place.is_some_and(|place| place != (seq, id)) || firsts > 1 {
                let client_msg_id = client_msg_id.clone();
                verdict.add(Violation::AckedTwice { chat, client_msg_id });
            }
            place = Some((seq, id));
            if stored.get(key).map(|(seq, id, _)| (*seq, *id)) != Some((seq, id)) {
                let client_msg_id = client_msg_id.clone();
                verdict.add(Violation::AckedMissing { chat, id, seq, client_msg_id });
            }
        }
        let failed = attempts.iter().all(|attempt| attempt.outcome == Outcome::Failed);
        if let (true, Some((seq, ..))) = (failed, stored.get(key)) {
            verdict.add(Violation::FailedStored { chat, seq: *seq, client_msg_id });
        }
    }
    for (key, (seq, _, text)) in &stored {
        if !tried.get(key).is_some_and(|tried| tried.iter().any(|attempt| attempt.text == **text)) {
            let client_msg_id = key.1.to_owned();
            verdict.add(Violation::NeverSent { chat, seq: *seq, client_msg_id });
        }
    }
}

/// What was asked for after something was acked stands behind it, whoever sent them.
fn real_time(chat: ChatId, attempts: &[&Attempt], verdict: &mut Verdict) {
    let first = |attempt: &&&Attempt| match attempt.outcome {
        Outcome::Acked { seq, at, duplicate: false, .. } => Some((attempt.invoked, at, seq)),
        _ => None,
    };
    let mut by_invocation: Vec<_> = attempts.iter().filter_map(|a| first(&a)).collect();
    let mut by_ack = by_invocation.clone();
    by_invocation.sort_unstable();
    by_ack.sort_unstable_by_key(|(_, at, _)| *at);
    let (mut acked, mut highest) = (by_ack.into_iter().peekable(), 0);
    for (invoked, _, seq) in by_invocation {
        while let Some((_, _, seq)) = acked.next_if(|(_, at, _)| *at < invoked) {
            highest = highest.max(seq);
        }
        if seq < highest {
            verdict.add(Violation::Reordered { chat, seq, after: highest });
        }
    }
}

/// What one connection sent stands in the order in which it did, also what was under way at once.
fn sender_order(chat: ChatId, attempts: &[&Attempt], verdict: &mut Verdict) {
    let first = |attempt: &&Attempt| match (attempt.turn, &attempt.outcome) {
        // A duplicate stands where the first attempt put it, perhaps on another connection.
        (Some(turn), Outcome::Acked { seq, duplicate: false, .. }) => Some((turn, *seq)),
        _ => None,
    };
    let mut turns: Vec<(Turn, Seq)> = attempts.iter().filter_map(first).collect();
    turns.sort_unstable();
    for pair in turns.windows(2) {
        let [(one, after), (other, seq)] = [pair[0], pair[1]];
        if one.connection == other.connection && seq < after {
            verdict.add(Violation::SenderReordered { chat, seq, after });
        }
    }
}

/// What was insisted on was done in the end, and has had its effect.
fn operations(
    operations: &[Operation],
    chats: &HashMap<ChatId, (Members, History<'_>)>,
    verdict: &mut Verdict,
) {
    let mut last: BTreeMap<(ChatId, UserId), &Operation> = BTreeMap::new();
    for operation in operations {
        let Operation { kind, user, chat, told, .. } = operation;
        if matches!(kind, Kind::Typing | Kind::Resume) {
            continue;
        }
        if *told != Told::Ok {
            let code = if let Told::Failed(code) = told { Some(code.clone()) } else { None };
            let (operation, user, chat) = (*kind, *user, *chat);
            verdict.add(Violation::NotDone { operation, user, chat, code });
        }
        if let Some(chat) = chat {
            let last = last.entry((*chat, *user)).or_insert(operation);
            if last.invoked <= operation.invoked {
                *last = operation;
            }
        }
    }
    for ((chat, user), Operation { kind, told, .. }) in last {
        let Some((members, _)) = chats.get(&chat).filter(|_| *told == Told::Ok) else { continue };
        let parts = members.get(&user).map(Vec::as_slice).unwrap_or_default();
        if (*kind == Kind::Join) != is_in(parts) {
            verdict.add(Violation::MoveLost { chat, user });
        }
    }
}

/// Whether the last of a user's parts in a chat has not ended.
fn is_in(parts: &[(Seq, Seq)]) -> bool {
    parts.last().is_some_and(|(_, until)| *until == Seq::MAX)
}

/// Who may come in does, and who may not does not.
fn doors(device: &Device, verdict: &mut Verdict) {
    let name = || device.name.clone();
    let Some(revoked) = device.revoked else {
        if device.shut_out {
            verdict.add(Violation::ShutOut { device: name() });
        }
        return;
    };
    let late = |(at, seen): &(u64, Seen)| *seen == Seen::Connected && *at > revoked + REVOKED;
    if device.seen.iter().any(late) {
        verdict.add(Violation::LetIn { device: name() });
    }
}

fn members(chat: &Chat, history: &History<'_>) -> Members {
    let mut members = Members::new();
    for (seq, entry) in history {
        match entry.what {
            What::Created => {
                for user in &chat.founders {
                    members.entry(*user).or_default().push((*seq, Seq::MAX));
                }
            }
            What::Joined(user) => members.entry(user).or_default().push((*seq, Seq::MAX)),
            What::Left(user) => {
                if let Some(part) = members.get_mut(&user).and_then(|parts| parts.last_mut()) {
                    part.1 = part.1.min(*seq);
                }
            }
            What::Message { .. } | What::Other => {}
        }
    }
    members
}

/// What one device got.
fn deliveries(
    device: &Device,
    chats: &HashMap<ChatId, (Members, History<'_>)>,
    invoked: &HashMap<(UserId, &str), u64>,
    verdict: &mut Verdict,
) {
    let mut got: HashMap<ChatId, HashSet<Seq>> = HashMap::new();
    let mut read: HashMap<ChatId, HashSet<Seq>> = HashMap::new();
    let mut lost: HashSet<ChatId> = HashSet::new();
    let mut last: HashMap<ChatId, Seq> = HashMap::new();
    // Of this connection: where each chat's chain stands, and up to where it was fetched.
    let mut chains: HashMap<ChatId, Seq> = HashMap::new();
    let mut fetched: HashMap<ChatId, Seq> = HashMap::new();
    let name = || device.name.clone();
    for (_, seen) in &device.seen {
        match seen {
            Seen::Connected => {
                chains.clear();
                fetched.clear();
            }
            Seen::Added(chat) => drop(chains.remove(chat)),
            Seen::Lost(chat) => drop(lost.insert(*chat)),
            Seen::Fetched(chat, entries) => {
                for entry in entries {
                    read.entry(*chat).or_default().insert(entry.seq);
                    let end = fetched.entry(*chat).or_default();
                    *end = (*end).max(entry.seq);
                    let last = last.entry(*chat).or_default();
                    *last = (*last).max(entry.seq);
                }
            }
            Seen::Entry(chat, entry) => {
                let (chat, seq) = (*chat, entry.seq);
                verdict.deliveries += 1;
                let stands = chains.insert(chat, seq);
                if let Some(stands) = stands
                    && entry.prev != 0
                    && entry.prev != stands
                    && seq > stands
                {
                    let (prev, last) = (entry.prev, stands);
                    verdict.add(Violation::Hole { device: name(), chat, seq, prev, last });
                }
                let again = !got.entry(chat).or_default().insert(seq);
                let known = fetched.get(&chat).is_some_and(|end| seq <= *end);
                if again && !known {
                    verdict.add(Violation::Twice { device: name(), chat, seq });
                } else if !known {
                    let last = last.entry(chat).or_default();
                    if seq < *last {
                        let after = *last;
                        verdict.add(Violation::OutOfOrder { device: name(), chat, seq, after });
                    }
                    *last = (*last).max(seq);
                }
                let stored = chats.get(&chat).and_then(|(_, history)| history.get(&seq));
                if !stored.is_some_and(|stored| stored.what == entry.what) {
                    verdict.add(Violation::Differs { device: name(), chat, seq });
                }
                if let (Some(revoked), What::Message { text, .. }) = (device.revoked, &entry.what)
                    && let Some(at) = invoked.get(&(text.sender, text.client_msg_id.as_str()))
                    && *at > revoked + REVOKED
                {
                    verdict.add(Violation::AfterRevocation { device: name(), chat, seq });
                }
            }
        }
    }
    entitled(device, chats, &[&got, &read], &lost, verdict);
}

fn entitled(
    device: &Device,
    chats: &HashMap<ChatId, (Members, History<'_>)>,
    [got, read]: &[&HashMap<ChatId, HashSet<Seq>>; 2],
    lost: &HashSet<ChatId>,
    verdict: &mut Verdict,
) {
    let nothing = HashSet::new();
    for (&chat, (members, history)) in chats {
        let parts = members.get(&device.user).map(Vec::as_slice).unwrap_or_default();
        let (got, read) = (got.get(&chat).unwrap_or(&nothing), read.get(&chat).unwrap_or(&nothing));
        let part_of = |seq: Seq| parts.iter().any(|(from, until)| (*from..=*until).contains(&seq));
        for &seq in got.iter().filter(|seq| !part_of(**seq)) {
            verdict.add(Violation::NotEntitled { device: device.name.clone(), chat, seq });
        }
        if device.revoked.is_some() {
            continue;
        }
        // What was lost lies before the user left; a part that has begun since is whole.
        let begun = parts.last().filter(|_| is_in(parts)).map_or(Seq::MAX, |(from, _)| *from);
        let excused = if lost.contains(&chat) { begun } else { 0 };
        let has = |seq: &Seq| *seq < excused || got.contains(seq) || read.contains(seq);
        for &seq in history.keys().filter(|seq| part_of(**seq) && !has(seq)) {
            verdict.add(Violation::Missing { device: device.name.clone(), chat, seq });
        }
    }
}
