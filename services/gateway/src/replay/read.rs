//! Reading feeds for a replay, within its bounds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use natter_bus::{Stored, follow::Arrival};
use natter_protocol::{
    cursor::{Bases, Cursor},
    feed::{Edited, Entry, Event, Feed},
    ids::{ChatId, MessageId, Seq, Shard},
    limits,
    server::{Chat, Message, ResumeRefusal},
};
use natter_store::FeedEntry;

use super::{NoReplay, Viewer};
use crate::{
    app::App,
    hub::frames::{self, Delivery},
    outlet::Outgoing,
};

/// Entries asked for at once.
const BATCH: usize = 256;
/// Entries of a user's own feed that are looked through, for each that a replay may hold: most tell
/// of reading, and are one in the end.
const OWN: usize = 10;
/// Bytes of entries that one replay may hold.
pub(super) const BYTES: usize = 8 * 1024 * 1024;
/// Bytes that an entry takes besides its own, about.
const ENTRY: usize = 512;

/// A part of a chat's feed as it was read, by its place among those of its reader.
#[derive(Clone, Copy, Debug)]
pub struct Part(usize);

#[derive(Debug)]
struct ReadPart {
    feed: Feed,
    after: Seq,
    until: Option<Seq>,
    /// From Postgres: what the log has cut off.
    older: Vec<FeedEntry>,
    /// From the log.
    entries: Vec<(Entry, Arrival)>,
    /// Nothing up to here is told any more: it has expired.
    expired: Seq,
}

impl ReadPart {
    /// Leaves out what lies up to a place, and what edits behind it say of that. What a message answers
    /// may be among it, and is not quoted then.
    fn expire(&mut self, up_to: Seq) {
        if up_to <= self.expired {
            return;
        }
        self.expired = up_to;
        self.entries.retain(|(_, arrival)| arrival.seq > up_to);
        let there: HashSet<MessageId> = self
            .entries
            .iter()
            .filter_map(|(entry, _)| match &entry.event {
                Event::Message(sent) => Some(sent.id),
                _ => None,
            })
            .collect();
        self.entries.retain(|(entry, _)| match &entry.event {
            Event::Edited(Edited { target, .. }) => {
                target.message_seq > up_to || there.contains(&target.message_id)
            }
            _ => true,
        });
        for (entry, _) in &mut self.entries {
            if let Event::Message(sent) = &mut entry.event
                && sent.reply_to.is_none_or(|answered| !there.contains(&answered))
            {
                sent.quote = None;
            }
        }
    }
}

/// Reads a viewer's feeds.
pub struct Reader<'a> {
    app: &'a App,
    viewer: Viewer,
    bases: &'a Arc<Bases>,
    parts: Vec<ReadPart>,
    /// Where reading the log began, at the lowest, in each shard.
    lowest: BTreeMap<Shard, Seq>,
    own_after: Option<Seq>,
    entries: usize,
    bytes: usize,
}

impl<'a> Reader<'a> {
    /// `bases` is what the cursors of what is read begin with.
    pub fn new(app: &'a App, viewer: Viewer, bases: &'a Arc<Bases>) -> Self {
        Self {
            app,
            viewer,
            bases,
            parts: Vec::new(),
            lowest: BTreeMap::new(),
            own_after: None,
            entries: 0,
            bytes: 0,
        }
    }

    /// About how many bytes have been read.
    pub fn bytes(&self) -> usize {
        self.bytes + self.entries * ENTRY
    }

    /// The user's own feed after `after`, up to `until`.
    ///
    /// # Errors
    /// When it is too much, or the log cannot be read.
    pub async fn own(&mut self, after: Seq, until: Seq) -> Result<Vec<(Seq, Event)>, NoReplay> {
        self.own_after = Some(after);
        let feed = self.viewer.feed;
        self.begin(feed, after);
        let mut kept: BTreeMap<Seq, Event> = BTreeMap::new();
        let mut reads: HashMap<ChatId, (Seq, Seq)> = HashMap::new();
        let (mut at, mut seen) = (after, 0);
        'reading: loop {
            let read = self.app.bus.read(feed, at, BATCH).await?;
            let more = read.len() >= BATCH;
            for stored in read {
                at = stored.seq;
                if at > until {
                    break 'reading;
                }
                seen += 1;
                let bytes = stored.body.len();
                let arrival = Arrival::from(stored);
                let Some(Entry { event, .. }) = frames::parse(&arrival) else { continue };
                match event {
                    // Nobody's devices are told.
                    Event::Delivered(_) => continue,
                    // Of a chat the furthest is all that there is to tell, and is charged for once.
                    Event::Read(mark) => {
                        let furthest = reads.get(&mark.chat_id).copied();
                        if furthest.is_some_and(|(_, furthest)| mark.seq <= furthest) {
                            continue;
                        }
                        reads.insert(mark.chat_id, (at, mark.seq));
                        if let Some((place, _)) = furthest {
                            kept.remove(&place);
                        } else {
                            self.charge(bytes)?;
                        }
                    }
                    _ => self.charge(bytes)?,
                }
                kept.insert(at, event);
            }
            if seen > self.app.replays.entries.saturating_mul(OWN) {
                return Err(NoReplay::Refused(ResumeRefusal::TooMuch));
            }
            if !more {
                break;
            }
        }
        Ok(kept.into_iter().collect())
    }

    /// Takes out of chats, as the user's feed has them, the newest message of then where that has expired
    /// since; or may have, while Postgres cannot tell. To be called when all has been read.
    pub async fn without_expired<'c>(&self, chats: impl Iterator<Item = &'c mut Chat>) {
        let mut chats: Vec<&mut Chat> = chats.filter(|chat| chat.last_message.is_some()).collect();
        if chats.is_empty() {
            return;
        }
        let ids: Vec<ChatId> = chats.iter().map(|chat| chat.id).collect();
        let written = self.app.store.begins(&ids).await.ok();
        for chat in &mut chats {
            // What tells of it may not be written yet.
            let read = self.parts.iter().filter(|part| part.feed.chat_id() == Some(chat.id));
            let read = read.map(|part| part.expired).max().unwrap_or(0);
            let begin = written.as_ref().map(|begins| begins.get(&chat.id).copied().unwrap_or(0));
            let begin = begin.map_or(Seq::MAX, |written| written.max(read));
            if chat.last_message.as_ref().is_some_and(|last| last.seq <= begin) {
                chat.last_message = None;
            }
        }
    }

    /// Reading the feed begins after `after`.
    fn begin(&mut self, feed: Feed, after: Seq) {
        let lowest = self.lowest.entry(feed.shard).or_insert(after);
        *lowest = (*lowest).min(after);
    }

    /// A chat's feed after `after`, up to `until` or to where the viewer's part in it ended.
    ///
    /// # Errors
    /// When it is too much, or the log cannot be read.
    pub async fn chat(
        &mut self,
        feed: Feed,
        after: Seq,
        until: Option<Seq>,
    ) -> Result<Part, NoReplay> {
        let stored = self.log(feed, after, until).await?;
        let (mut entries, mut expired) = (Vec::new(), 0);
        for arrival in stored.into_iter().map(Arrival::from) {
            let Some(entry) = frames::parse(&arrival) else { continue };
            // Nothing later is delivered.
            let ends = entry.event.ends_part_of(self.viewer.user);
            if let Event::Expired(said) = entry.event {
                expired = said.at(arrival.seq).max(expired);
            }
            entries.push((entry, arrival));
            if ends {
                break;
            }
        }
        let mut part = ReadPart { feed, after, until, older: Vec::new(), entries, expired: 0 };
        part.expire(expired);
        self.parts.push(part);
        Ok(Part(self.parts.len() - 1))
    }

    /// To be called when all has been read: what the log had cut off is read from Postgres. (A cut
    /// takes only what Postgres has, and may come while the log is read: so it is looked at last.)
    ///
    /// # Errors
    /// When it is too much, not kept, or cannot be read.
    pub async fn check(&mut self) -> Result<(), NoReplay> {
        self.expire_ended().await?;
        for (shard, lowest) in std::mem::take(&mut self.lowest) {
            let first = self.log_first(shard).await?;
            if lowest + 1 >= first {
                continue;
            }
            let own = self.own_after.filter(|_| self.viewer.feed.shard == shard);
            if own.is_some_and(|after| after + 1 < first) {
                self.check_own(own.unwrap_or_default()).await?;
            }
            for part in 0..self.parts.len() {
                let ReadPart { feed, after, .. } = self.parts[part];
                if feed.shard == shard && after + 1 < first {
                    self.fill(part, first).await?;
                }
            }
        }
        Ok(())
    }

    /// What has expired of a chat is told by an entry behind it, and a part is read to the log's end; but
    /// not when the viewer's own part in the chat has ended before.
    async fn expire_ended(&mut self) -> Result<(), NoReplay> {
        let ended =
            self.parts.iter().filter(|part| part.until.is_some() && !part.entries.is_empty());
        let chats: Vec<ChatId> = ended.filter_map(|part| part.feed.chat_id()).collect();
        if chats.is_empty() {
            return Ok(());
        }
        let begins = self.app.store.begins(&chats).await?;
        for part in self.parts.iter_mut().filter(|part| part.until.is_some()) {
            let begin = part.feed.chat_id().and_then(|chat| begins.get(&chat));
            part.expire(begin.copied().unwrap_or(0));
        }
        Ok(())
    }

    /// The user's own feed is not kept in Postgres, but whether it has moved is.
    async fn check_own(&self, after: Seq) -> Result<(), NoReplay> {
        let followed = self.app.store.followed(self.viewer.user).await?;
        if followed.user_last_seq > after {
            return Err(NoReplay::Refused(ResumeRefusal::TooOld));
        }
        Ok(())
    }

    /// The part's beginning, below the log's `first` entry, from Postgres.
    async fn fill(&mut self, part: usize, first: Seq) -> Result<(), NoReplay> {
        let ReadPart { feed, mut after, until, .. } = self.parts[part];
        let Some(chat) = feed.chat_id() else { return Ok(()) };
        let before = until.map_or(first, |until| first.min(until + 1));
        loop {
            let (mut entries, up_to) =
                self.app.store.feed(chat, after, before, limits::PAGE).await?;
            self.quote(chat, &mut entries).await?;
            for entry in entries {
                let (bytes, ends) = match &entry {
                    FeedEntry::Message(message) => {
                        (message.content.len(), self.message_ends(message))
                    }
                    FeedEntry::Edited(edited) => (edited.content.len(), false),
                    FeedEntry::Deleted(_) | FeedEntry::Reaction(_) | FeedEntry::Expired(_) => {
                        (0, false)
                    }
                };
                self.charge(bytes)?;
                let part = &mut self.parts[part];
                if entry.seq() > part.expired {
                    part.older.push(entry);
                }
                if ends {
                    part.entries.clear();
                    return Ok(());
                }
            }
            match up_to {
                Some(up_to) => after = up_to,
                None => return Ok(()),
            }
        }
    }

    /// What messages answer, as it is now. (Reactions are told by entries of their own.)
    async fn quote(&self, chat: ChatId, entries: &mut [FeedEntry]) -> Result<(), NoReplay> {
        let answered = |entry: &FeedEntry| match entry {
            FeedEntry::Message(message) if !message.deleted => message.reply_to,
            _ => None,
        };
        let ids: Vec<_> = entries.iter().filter_map(answered).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let around = self.app.store.around(chat, self.viewer.user, &[], &[], &ids, 0).await?;
        for entry in entries {
            let quote = answered(entry).and_then(|id| around.quotes.get(&id));
            if let FeedEntry::Message(message) = entry {
                message.quote = quote.cloned().map(Box::new);
            }
        }
        Ok(())
    }

    fn message_ends(&self, message: &Message) -> bool {
        let detail = message.system.as_ref();
        detail.is_some_and(|detail| detail.kind.ends_part_of(self.viewer.user, detail.user_id))
    }

    /// Whether the cursor lies beyond the log's end, in any shard where it is ahead of `onto`:
    /// then the log has lost what the cursor covers.
    ///
    /// # Errors
    /// When it does, or the log cannot be looked at.
    pub async fn refuse_ahead(&self, from: &Cursor, onto: &Cursor) -> Result<(), NoReplay> {
        for shard in 0..self.app.config.shards {
            let furthest = from.furthest(shard);
            // What is verified was in the log; where a user's feeds begin may be Postgres' word only.
            if furthest <= onto.bases().of(shard) {
                continue;
            }
            let log = self.app.bus.log_state(shard).await?;
            if log.is_some_and(|log| log.last_seq < furthest) {
                return Err(NoReplay::Refused(ResumeRefusal::Ahead));
            }
        }
        Ok(())
    }

    /// What a part is for the viewer's connection.
    pub fn items(&self, part: Part) -> Vec<Outgoing> {
        let own_devices = self.app.config.socket.own_devices_get_messages;
        let Viewer { user, connection, echo, .. } = self.viewer;
        let Some(part) = self.parts.get(part.0) else { return Vec::new() };
        let older = part.older.iter().map(|e| Delivery::of_entry(part.feed, e, self.bases));
        let mut prev = part.older.last().map_or(0, FeedEntry::seq);
        let entries = part.entries.iter().filter_map(|(entry, arrival)| {
            let arrival = Arrival { prev, ..arrival.clone() };
            prev = arrival.seq;
            Delivery::new(part.feed, entry, &arrival, self.bases)
        });
        older
            .chain(entries)
            .filter_map(|delivery| Arc::new(delivery).outgoing(user, connection, echo, own_devices))
            .collect()
    }

    async fn log(
        &mut self,
        feed: Feed,
        mut after: Seq,
        until: Option<Seq>,
    ) -> Result<Vec<Stored>, NoReplay> {
        self.begin(feed, after);
        let mut all = Vec::new();
        loop {
            let read = self.app.bus.read(feed, after, BATCH).await?;
            let more = read.len() >= BATCH;
            for stored in read {
                after = stored.seq;
                if until.is_some_and(|until| after > until) {
                    return Ok(all);
                }
                self.charge(stored.body.len())?;
                all.push(stored);
            }
            if !more {
                return Ok(all);
            }
        }
    }

    async fn log_first(&self, shard: Shard) -> Result<Seq, NoReplay> {
        let log = self.app.bus.log_state(shard).await?;
        Ok(log.map_or(Seq::MAX, |log| log.first_seq))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), NoReplay> {
        self.entries += 1;
        self.bytes += bytes;
        if self.entries > self.app.replays.entries || self.bytes > BYTES {
            return Err(NoReplay::Refused(ResumeRefusal::TooMuch));
        }
        Ok(())
    }
}
