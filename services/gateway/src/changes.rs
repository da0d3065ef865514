//! What the log's tail does to messages, before it is written: folded over what Postgres holds, so
//! that an edit, a deletion or a reaction that was acknowledged shows in the next answer.
//!
//! The rules are the worker's: an edit by the sender of a message that is not deleted, the last one
//! counts; a deletion is final; of what somebody does with one emoji the last thing counts.

use std::collections::{HashMap, HashSet};

use natter_bus::follow::Arrival;
use natter_protocol::{
    feed::{Edited, Event, Reacted, Target},
    ids::{ChatId, MessageId, Seq, UserId},
    limits,
    server::{ContentType, Message, Quote, ReactionCount},
    timestamp,
};
use natter_store::{Around, Store, StoreError};
use time::OffsetDateTime;

/// The changes of one chat's tail, in order, and where it has the feed begin anew.
#[derive(Debug, Default)]
pub struct Changes {
    all: Vec<Change>,
    expired: Seq,
}

#[derive(Debug)]
struct Change {
    seq: Seq,
    at: OffsetDateTime,
    event: Event,
}

impl Change {
    fn target(&self) -> Option<Target> {
        match &self.event {
            Event::Edited(edited) => Some(edited.target),
            Event::Deleted(deleted) => Some(deleted.target),
            Event::Reacted(reacted) => Some(reacted.target),
            _ => None,
        }
    }
}

impl Changes {
    /// Takes in an entry of the feed, if it changes a message or more.
    pub fn push(&mut self, event: Event, arrival: &Arrival) {
        if let Event::Expired(expired) = event {
            self.expired = self.expired.max(expired.at(arrival.seq));
        }
        let change = Change { seq: arrival.seq, at: timestamp::truncate(arrival.at), event };
        if change.target().is_some() {
            self.all.push(change);
        }
    }

    /// Nothing up to this place is shown any more; 0 when the tail says nothing of that.
    pub fn expired(&self) -> Seq {
        self.expired
    }

    /// Edits and deletes these messages.
    pub fn apply(&self, messages: &mut [Message]) {
        for change in &self.all {
            let Some(Target { message_id, .. }) = change.target() else { continue };
            let message = messages.iter_mut().find(|message| message.id == message_id);
            let Some(message) = message else { continue };
            match &change.event {
                Event::Edited(edited)
                    if !message.deleted && edited.actor_id == message.sender_id =>
                {
                    message.content.clone_from(&edited.content);
                    message.mentions.clone_from(&edited.mentions);
                    message.edited_at = Some(change.at);
                }
                Event::Deleted(_) => message.take_back(),
                _ => {}
            }
        }
    }

    /// Adds to messages how people have reacted, as `viewer` sees it, and what a quote shows of those
    /// that they answer and that are still there. `reacted`: somebody has, as far as is written. `sent`
    /// are the quotes of messages that may not be written yet.
    ///
    /// # Errors
    /// What the store's are; the messages then have what the tail alone tells.
    pub async fn surround(
        &self,
        store: &Store,
        chat: ChatId,
        viewer: UserId,
        messages: &mut [Message],
        reacted: bool,
        sent: &HashMap<MessageId, Quote>,
    ) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let places: Vec<Seq> = messages.iter().map(|message| message.seq).collect();
        let asked: Vec<_> = self
            .reactions(0)
            .filter_map(|Reacted { target, user_id, emoji, .. }| {
                let message = messages.iter().find(|message| message.id == target.message_id)?;
                Some((message.seq, *user_id, emoji.as_str()))
            })
            .collect();
        let answered: HashSet<MessageId> = messages.iter().filter_map(|m| m.reply_to).collect();
        let answered: Vec<MessageId> = answered.into_iter().collect();
        // Most pages have nothing to ask for.
        if !reacted && asked.is_empty() && answered.is_empty() {
            self.show(&Around::default(), viewer, messages, sent);
            return Ok(());
        }
        let around = store.around(chat, viewer, &places, &asked, &answered, self.expired).await;
        let known = around.as_ref().ok();
        if known.is_some() {
            // As it was when the reply was sent: the message may be gone since.
            for message in messages.iter_mut() {
                message.quote = None;
            }
        }
        let nothing = Around::default();
        self.show(known.unwrap_or(&nothing), viewer, messages, sent);
        around.map(drop)
    }

    /// The same from the tail alone.
    pub fn surround_alone(
        &self,
        viewer: UserId,
        messages: &mut [Message],
        sent: &HashMap<MessageId, Quote>,
    ) {
        self.show(&Around::default(), viewer, messages, sent);
    }

    fn show(
        &self,
        around: &Around,
        viewer: UserId,
        messages: &mut [Message],
        sent: &HashMap<MessageId, Quote>,
    ) {
        let last = self.last_reactions(around.persisted_seq);
        for message in messages.iter_mut().filter(|message| !message.deleted) {
            let counts = around.reactions.get(&message.seq).cloned().unwrap_or_default();
            message.reactions = counts;
            if let Some(answered) = message.reply_to {
                let written = around.quotes.get(&answered).map(|q| (q, around.persisted_seq));
                let quote = written.or_else(|| sent.get(&answered).map(|quote| (quote, 0)));
                if let Some((quote, after)) = quote {
                    message.quote = Some(Box::new(self.quote(quote.clone(), after)));
                }
            }
        }
        for ((id, user, emoji), on) in last {
            let message = messages.iter_mut().find(|message| message.id == id && !message.deleted);
            let Some(message) = message else { continue };
            if around.set.contains(&(message.seq, user, emoji.to_owned())) != on {
                count(&mut message.reactions, emoji, on, user == viewer);
            }
        }
        for message in messages {
            ReactionCount::sort(&mut message.reactions);
        }
    }

    /// A quote after the changes beyond `after`.
    fn quote(&self, mut quote: Quote, after: Seq) -> Quote {
        for change in self.all.iter().filter(|change| change.seq > after) {
            match &change.event {
                Event::Edited(Edited { target, actor_id, content, .. })
                    if target.message_id == quote.id
                        && *actor_id == quote.sender_id
                        && !quote.deleted =>
                {
                    quote.content = content.chars().take(limits::QUOTE_CHARS).collect();
                }
                Event::Deleted(deleted) if deleted.target.message_id == quote.id => {
                    quote.content.clear();
                    quote.content_type = ContentType::Text;
                    quote.deleted = true;
                }
                _ => {}
            }
        }
        quote
    }

    fn reactions(&self, after: Seq) -> impl Iterator<Item = &Reacted> {
        self.all.iter().filter(move |change| change.seq > after).filter_map(|change| match &change
            .event
        {
            Event::Reacted(reacted) => Some(reacted),
            _ => None,
        })
    }

    /// By message, user and emoji: whether it is set in the end.
    fn last_reactions(&self, after: Seq) -> HashMap<(MessageId, UserId, &str), bool> {
        let all = self.reactions(after).map(|Reacted { target, user_id, emoji, on }| {
            ((target.message_id, *user_id, emoji.as_str()), *on)
        });
        all.collect()
    }
}

/// Counts one more, or one less.
fn count(counts: &mut Vec<ReactionCount>, emoji: &str, on: bool, mine: bool) {
    let known = counts.iter_mut().find(|known| known.emoji == emoji);
    match known {
        Some(known) => {
            known.count = if on { known.count + 1 } else { known.count.saturating_sub(1) };
            if mine {
                known.mine = on;
            }
            counts.retain(|known| known.count > 0);
        }
        None if on => counts.push(ReactionCount { emoji: emoji.to_owned(), count: 1, mine }),
        None => {}
    }
}
