//! The messages of a chat that are due: decided about its participants, page by page.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::try_join_all;
use natter_bus::{PublishError, Queued};
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, Shard, UserId},
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

/// After a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// Before the first participant.
const NOBODY: UserId = UserId(Uuid::nil());

pub(crate) struct Round {
    shard: Shard,
    chat: ChatId,
    /// In the order of the feed.
    messages: Vec<Held>,
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
        chat: ChatId,
        mut messages: Vec<Held>,
        config: Arc<PushConfig>,
        parts: Parts,
    ) -> Self {
        messages.sort_unstable_by_key(|held| held.seq);
        Self { shard, chat, messages, config, parts }
    }

    /// Decides, or hands the messages back.
    pub(crate) async fn run(self) {
        let began = Instant::now();
        match self.decide().await {
            Ok(()) => {
                measures::decide_seconds().record(began.elapsed());
                self.messages.iter().for_each(Held::done);
            }
            Err(error) => {
                measures::failures().increment(1);
                tracing::warn!(
                    shard = self.shard, chat = %self.chat, error = %causes(&error),
                    "cannot decide whom to notify"
                );
                self.messages.iter().for_each(|held| held.hand_back(AGAIN));
            }
        }
    }

    async fn decide(&self) -> Result<(), RoundError> {
        let ids: Vec<MessageId> = self.messages.iter().map(|held| held.id).collect();
        let progress = self.parts.store.push_progress(&ids).await?;
        for id in progress.keys() {
            self.queue_again(*id).await?;
        }
        let left = self
            .messages
            .iter()
            .filter(|held| !matches!(progress.get(&held.id), Some(PushProgress::Done)));
        let left = self.worth_it(left.collect()).await?;
        let mut open: Vec<(&Held, UserId)> = left
            .into_iter()
            .map(|held| match progress.get(&held.id) {
                Some(PushProgress::UpTo(user)) => (held, *user),
                _ => (held, NOBODY),
            })
            .collect();
        let mut senders: Vec<UserId> = open.iter().map(|(held, _)| held.sender()).collect();
        senders.sort_unstable();
        senders.dedup();
        while let Some(after) = open.iter().map(|(_, upto)| *upto).min() {
            let store = &self.parts.store;
            let configured = self.parts.providers.configured();
            let page = store.push_page(self.chat, after, &senders, configured).await?;
            let upto = (page.len() == PUSH_PAGE).then(|| page.last().map(|last| last.user));
            self.decide_page(&open, &page, upto.flatten()).await?;
            let Some(upto) = upto.flatten() else { break };
            for (held, of_message) in &mut open {
                held.still_held();
                *of_message = upto.max(*of_message);
            }
        }
        Ok(())
    }

    /// Those that are still there and young enough; about the others it is decided as a whole.
    async fn worth_it<'a>(&self, messages: Vec<&'a Held>) -> Result<Vec<&'a Held>, RoundError> {
        let places: Vec<_> = messages.iter().map(|held| held.seq).collect();
        if places.is_empty() {
            return Ok(messages);
        }
        let there = self.parts.store.still_there(self.chat, &places).await?;
        let too_old = OffsetDateTime::now_utc() - self.config.max_age;
        let (mut left, mut ended) = (Vec::new(), Vec::new());
        for held in messages {
            let whole = match there.get(&held.seq) {
                // Nothing is decided about it here.
                None => continue,
                Some(false) => Some(PushReason::Deleted),
                Some(true) => (held.at < too_old).then_some(PushReason::TooOld),
            };
            match whole {
                None => left.push(held),
                Some(reason) => {
                    measures::skipped(reason).increment(1);
                    ended.push(Decided {
                        whole: Some(reason),
                        ..self.nothing_of(held, NOBODY, None)
                    });
                }
            }
        }
        if !ended.is_empty() {
            self.parts.store.keep_decisions(&ended).await?;
        }
        Ok(left)
    }

    fn nothing_of(&self, held: &Held, after: UserId, upto: Option<UserId>) -> Decided {
        Decided {
            message: held.id,
            chat: self.chat,
            seq: held.seq,
            after,
            upto,
            skipped: Vec::new(),
            whole: None,
            pushes: Vec::new(),
        }
    }

    /// Each message is decided about those behind its own `upto`.
    async fn decide_page(
        &self,
        open: &[(&Held, UserId)],
        page: &[Recipient],
        upto: Option<UserId>,
    ) -> Result<(), RoundError> {
        let online = self.online(page).await;
        let said: Vec<_> = open.iter().map(|(held, _)| held.said()).collect();
        let mut decided: Vec<Decided> =
            open.iter().map(|(held, after)| self.nothing_of(held, *after, upto)).collect();
        for who in page {
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
        decided.retain(|decided| upto.is_none_or(|upto| upto > decided.after));
        let kept = self.parts.store.keep_decisions(&decided).await?;
        for (_, reason) in decided.iter().flat_map(|decided| &decided.skipped) {
            measures::skipped(*reason).increment(1);
        }
        measures::notified().increment(kept.len() as u64);
        let traces: HashMap<MessageId, Option<&str>> =
            open.iter().map(|(held, _)| (held.id, held.traceparent.as_deref())).collect();
        let kept = kept.into_iter().map(|(at, place)| {
            let (message, target) = (decided[at].message, decided[at].pushes[place].target);
            (message, target.device, target.provider)
        });
        self.queue(kept, &traces).await
    }

    /// Nobody knows who is online: then everybody may be offline.
    async fn online(&self, page: &[Recipient]) -> HashMap<UserId, bool> {
        let users: Vec<UserId> = page.iter().map(|who| who.user).collect();
        let told = self.parts.presence.presence(&users).await.unwrap_or_else(|_| {
            measures::presence_unknown().increment(1);
            Vec::new()
        });
        told.into_iter().map(|told| (told.user_id, told.online)).collect()
    }

    /// What a worker has decided before, and may not have queued.
    async fn queue_again(&self, message: MessageId) -> Result<(), RoundError> {
        let held = self.messages.iter().find(|held| held.id == message);
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
        let queueing: Result<Vec<_>, _> = pushes.map(queue).collect();
        try_join_all(queueing?).await?;
        Ok(())
    }
}
