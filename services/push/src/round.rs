//! The messages of some chats that are due: decided about their participants, page by page.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::future::try_join_all;
use natter_bus::{PublishError, Queued};
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, Shard, UserId},
    limits::PRESENCE_USERS,
    notify::PushReason,
    push::Provider,
};
use natter_runtime::causes;
use natter_store::{Decided, NewPush, PUSH_PAGE, PushProgress, Recipient, StoreError};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    config::PushConfig,
    deciding::Held,
    judging::{Verdict, judge},
    measures,
    worker::Parts,
};

/// Notifications that are queued without waiting for the broker: a tenth of what it is sent at once.
const QUEUED_AT_ONCE: usize = 1_000;
/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Before the first participant.
const NOBODY: UserId = UserId(Uuid::nil());

/// What is due of a chat.
pub(crate) struct Due {
    pub(crate) chat: ChatId,
    messages: Vec<Held>,
}

impl Due {
    pub(crate) fn new(chat: ChatId, mut messages: Vec<Held>) -> Self {
        // In the order of the feed.
        messages.sort_unstable_by_key(|held| held.seq);
        Self { chat, messages }
    }

    pub(crate) fn hand_back(&self, after: Duration) {
        self.messages.iter().for_each(|held| held.hand_back(after));
    }

    pub(crate) fn still_held(&self) {
        self.messages.iter().for_each(Held::still_held);
    }
}

/// A chat's messages that are still to be decided about.
struct Open<'a> {
    chat: ChatId,
    /// Each with the participant up to whom it has been decided.
    messages: Vec<(&'a Held, UserId)>,
}

/// A page of a chat's participants.
struct Page {
    who: Vec<Recipient>,
    /// Its last one; none for the last page.
    upto: Option<UserId>,
}

pub(crate) struct Round {
    shard: Shard,
    chats: Vec<Due>,
    config: Arc<PushConfig>,
    parts: Parts,
}

#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("Postgres")]
    Store(#[from] StoreError),
    #[error("the queue")]
    Queue(#[from] PublishError),
}

impl Round {
    pub(crate) fn new(
        shard: Shard,
        mut chats: Vec<Due>,
        config: Arc<PushConfig>,
        parts: Parts,
    ) -> Self {
        // Two workers may have the same messages: their rows are written in one order.
        chats.sort_unstable_by_key(|due| due.chat);
        Self { shard, chats, config, parts }
    }

    /// Decides, or hands the messages back. Gives the chats that are better decided about each by itself:
    /// those with many participants, of whom only the first have been looked at, so that the others are
    /// done; and all of them after a failure, since it may be one chat's.
    pub(crate) async fn run(self) -> Vec<Due> {
        let began = Instant::now();
        let large: HashSet<ChatId> = match self.decide().await {
            Ok(large) => large,
            Err(error) if self.chats.len() > 1 => {
                tracing::debug!(
                    shard = self.shard, chats = self.chats.len(), error = %causes(&error),
                    "cannot decide about several chats, so each is decided about alone"
                );
                return self.chats;
            }
            Err(error) => {
                self.failed(&error);
                return Vec::new();
            }
        };
        measures::decide_seconds().record(began.elapsed());
        let (large, done): (Vec<Due>, Vec<Due>) =
            self.chats.into_iter().partition(|due| large.contains(&due.chat));
        done.iter().flat_map(|due| &due.messages).for_each(Held::done);
        large
    }

    fn failed(&self, error: &RoundError) {
        measures::failures().increment(1);
        let chat = self.chats.first().map(|due| due.chat.0);
        tracing::warn!(
            shard = self.shard, ?chat, error = %causes(error), "cannot decide whom to notify"
        );
        for due in &self.chats {
            due.hand_back(AGAIN);
        }
    }

    /// Decides about one chat's participants, or of several about the first of each. Gives those that
    /// have more.
    async fn decide(&self) -> Result<HashSet<ChatId>, RoundError> {
        let mut open = self.begin().await?;
        while let [alone] = &mut open[..]
            && self.chats.len() == 1
        {
            match self.decide_next(std::slice::from_ref(alone)).await?[..] {
                [Some(upto)] => alone.go_to(upto),
                _ => open.clear(),
            }
        }
        Ok(open.into_iter().map(|open| open.chat).collect())
    }

    /// Decides about the first participants of all chats together. Gives those that have more.
    async fn begin(&self) -> Result<Vec<Open<'_>>, RoundError> {
        let ids = self.chats.iter().flat_map(|due| &due.messages).map(|held| held.id);
        let progress = self.parts.store.push_progress(&ids.collect::<Vec<_>>()).await?;
        for id in progress.keys() {
            self.queue_again(*id).await?;
        }
        let mut open = Vec::new();
        // One that was handed out again may be in hand twice.
        let mut once = HashSet::new();
        for due in &self.chats {
            let messages = due.messages.iter().filter(|held| once.insert(held.id));
            let left = messages.filter_map(|held| match progress.get(&held.id) {
                Some(PushProgress::Done) => None,
                Some(PushProgress::UpTo(user)) => Some((held, *user)),
                None => Some((held, NOBODY)),
            });
            open.push(Open { chat: due.chat, messages: left.collect() });
        }
        self.leave_out(&mut open).await?;
        open.retain(|open| !open.messages.is_empty());
        let more = self.decide_next(&open).await?;
        let mut more = more.into_iter();
        open.retain_mut(|open| match more.next().flatten() {
            Some(upto) => {
                open.go_to(upto);
                true
            }
            None => false,
        });
        Ok(open)
    }

    /// Leaves out those that are not there any more or too old: about them it is decided as a whole.
    async fn leave_out(&self, open: &mut [Open<'_>]) -> Result<(), RoundError> {
        let places: Vec<_> = open
            .iter()
            .flat_map(|open| open.messages.iter().map(|(held, _)| (open.chat, held.seq)))
            .collect();
        if places.is_empty() {
            return Ok(());
        }
        let there = self.parts.store.still_there(&places).await?;
        let too_old = OffsetDateTime::now_utc() - self.config.max_age;
        let mut ended = Vec::new();
        for open in open {
            let chat = open.chat;
            open.messages.retain(|(held, _)| {
                let whole = match there.get(&(chat, held.seq)) {
                    // Nothing is decided about it here.
                    None => return false,
                    Some(false) => PushReason::Deleted,
                    Some(true) if held.at < too_old => PushReason::TooOld,
                    Some(true) => return true,
                };
                measures::skipped(whole).increment(1);
                let nothing = nothing_of(chat, held, NOBODY, None);
                ended.push(Decided { whole: Some(whole), ..nothing });
                false
            });
        }
        if !ended.is_empty() {
            self.parts.store.keep_decisions(&ended).await?;
        }
        Ok(())
    }

    /// Decides about the next page of participants of each. Gives for each where that ends, if there
    /// are more.
    async fn decide_next(&self, open: &[Open<'_>]) -> Result<Vec<Option<UserId>>, RoundError> {
        if open.is_empty() {
            return Ok(Vec::new());
        }
        let first = |open: &Open<'_>| open.messages.iter().map(|(_, upto)| *upto).min();
        let of: Vec<_> =
            open.iter().map(|open| (open.chat, first(open).unwrap_or(NOBODY))).collect();
        let senders = open.iter().flat_map(|open| &open.messages).map(|(held, _)| held.sender());
        let mut senders: Vec<UserId> = senders.collect();
        senders.sort_unstable();
        senders.dedup();
        let configured = self.parts.providers.configured();
        let pages = self.parts.store.push_pages(&of, &senders, configured).await?;
        let pages: Vec<Page> = pages.into_iter().map(Page::of).collect();
        self.decide_pages(open, &pages).await?;
        Ok(pages.iter().map(|page| page.upto).collect())
    }

    /// Each message is decided about those behind its own `upto`.
    async fn decide_pages(&self, open: &[Open<'_>], pages: &[Page]) -> Result<(), RoundError> {
        let online = self.online(pages).await;
        let decided: Vec<Decided> =
            open.iter().zip(pages).flat_map(|(open, page)| decide(open, page, &online)).collect();
        if decided.is_empty() {
            return Ok(());
        }
        let kept = self.parts.store.keep_decisions(&decided).await?;
        for (_, reason) in decided.iter().flat_map(|decided| &decided.skipped) {
            measures::skipped(*reason).increment(1);
        }
        measures::notified().increment(kept.len() as u64);
        let messages = open.iter().flat_map(|open| &open.messages);
        let traces: HashMap<MessageId, Option<&str>> =
            messages.map(|(held, _)| (held.id, held.traceparent.as_deref())).collect();
        let kept = kept.into_iter().map(|(at, place)| {
            let (message, target) = (decided[at].message, decided[at].pushes[place].target);
            (message, target.device, target.provider)
        });
        self.queue(kept, &traces).await
    }

    /// Nobody knows who is online: then everybody may be offline.
    async fn online(&self, pages: &[Page]) -> HashMap<UserId, bool> {
        let mut users: Vec<UserId> =
            pages.iter().flat_map(|page| &page.who).map(|who| who.user).collect();
        users.sort_unstable();
        users.dedup();
        let mut online = HashMap::new();
        for users in users.chunks(PRESENCE_USERS) {
            match self.parts.presence.presence(users).await {
                Ok(told) => online.extend(told.into_iter().map(|told| (told.user_id, told.online))),
                Err(_) => measures::presence_unknown().increment(1),
            }
        }
        online
    }

    /// What a worker has decided before, and may not have queued.
    async fn queue_again(&self, message: MessageId) -> Result<(), RoundError> {
        let mut messages = self.chats.iter().flat_map(|due| &due.messages);
        let held = messages.find(|held| held.id == message);
        let trace = held.and_then(|held| held.traceparent.as_deref());
        let traces = HashMap::from([(message, trace)]);
        let mut after = DeviceId(Uuid::nil());
        loop {
            let waiting = self.parts.store.queued_pushes(message, after).await?;
            let Some((last, _)) = waiting.last() else { return Ok(()) };
            after = *last;
            let waiting = waiting.into_iter();
            self.queue(waiting.map(|(device, provider)| (message, device, provider)), &traces)
                .await?;
        }
    }

    async fn queue(
        &self,
        pushes: impl Iterator<Item = (MessageId, DeviceId, Provider)>,
        traces: &HashMap<MessageId, Option<&str>>,
    ) -> Result<(), RoundError> {
        let queue = |(message_id, device_id, provider)| {
            let traceparent = traces.get(&message_id).copied().flatten();
            let queued = Queued { message_id, device_id };
            self.parts.bus.queue_push(self.shard, provider, queued, None, traceparent)
        };
        let mut pushes = pushes.map(queue).peekable();
        while pushes.peek().is_some() {
            let queueing: Result<Vec<_>, _> = pushes.by_ref().take(QUEUED_AT_ONCE).collect();
            try_join_all(queueing?).await?;
        }
        Ok(())
    }
}

impl Open<'_> {
    /// About all up to this participant it is decided.
    fn go_to(&mut self, upto: UserId) {
        for (held, of_message) in &mut self.messages {
            held.still_held();
            *of_message = upto.max(*of_message);
        }
    }
}

impl Page {
    fn of(who: Vec<Recipient>) -> Self {
        let full = who.len() == PUSH_PAGE;
        let upto = who.last().filter(|_| full).map(|last| last.user);
        Self { who, upto }
    }
}

fn nothing_of(chat: ChatId, held: &Held, after: UserId, upto: Option<UserId>) -> Decided {
    Decided {
        message: held.id,
        chat,
        seq: held.seq,
        after,
        upto,
        skipped: Vec::new(),
        whole: None,
        pushes: Vec::new(),
    }
}

/// What is decided about a page of a chat's participants.
fn decide(open: &Open<'_>, page: &Page, online: &HashMap<UserId, bool>) -> Vec<Decided> {
    let said: Vec<_> = open.messages.iter().map(|(held, _)| held.said()).collect();
    let messages = open.messages.iter();
    let mut decided: Vec<Decided> =
        messages.map(|(held, after)| nothing_of(open.chat, held, *after, page.upto)).collect();
    for who in &page.who {
        let online = online.get(&who.user).copied().unwrap_or(false);
        for (decided, verdict) in decided.iter_mut().zip(judge(who, online, &said)) {
            match verdict {
                _ if who.user <= decided.after => {}
                Verdict::Stranger => {}
                Verdict::Skip(reason) => decided.skipped.push((who.user, reason)),
                Verdict::Notify { mentioned } => {
                    let new = |target| NewPush { user: who.user, target, mentioned };
                    decided.pushes.extend(who.targets.iter().copied().map(new));
                }
            }
        }
    }
    // What a message's own page has been decided about before needs no other.
    decided.retain(|decided| page.upto.is_none_or(|upto| upto > decided.after));
    decided
}
