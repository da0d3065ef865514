//! Whatever is written and whatever is still in the log's tail, history shows the same: what a simple
//! model of the feed says.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use natter_bus::Stored;
use natter_protocol::{
    feed::{Deleted, Edited, Entry, Event, Expired, MessageSent, Reacted, Target},
    ids::{DeviceId, MessageId},
    server::{Message, UserCard},
};
use natter_store::{NewDevice, NewRefresh, NewUser, Row, RowKind, StoreConfig};
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseError, TestRunner},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;

const OWNER: &str = "worker";
const PEOPLE: usize = 3;
const EMOJI: [&str; 3] = ["👍", "❤️", "🎉"];
const WHOLE: Page = Page { before: None, after: None, limit: 200 };

/// What happens, by somebody, to one of the messages so far; also what no gateway would publish but
/// two that race may.
#[derive(Clone, Debug)]
enum Op {
    Send {
        by: usize,
        answers: Option<usize>,
    },
    Edit {
        by: usize,
        message: usize,
    },
    Delete {
        by: usize,
        message: usize,
    },
    React {
        by: usize,
        message: usize,
        emoji: usize,
        on: bool,
    },
    /// All up to so many entries before.
    Expire {
        before: usize,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let (by, message) = (0..PEOPLE, 0..12_usize);
    let op = prop_oneof![
        3 => (by.clone(), proptest::option::of(message.clone()))
            .prop_map(|(by, answers)| Op::Send { by, answers }),
        3 => (by.clone(), message.clone()).prop_map(|(by, message)| Op::Edit { by, message }),
        1 => (by.clone(), message.clone()).prop_map(|(by, message)| Op::Delete { by, message }),
        1 => (0..12_usize).prop_map(|before| Op::Expire { before }),
        4 => (by, message, 0..EMOJI.len(), any::<bool>())
            .prop_map(|(by, message, emoji, on)| Op::React { by, message, emoji, on }),
    ];
    proptest::collection::vec(op, 1..40)
}

/// A message as the model has it.
#[derive(Clone, Debug)]
struct Modelled {
    id: MessageId,
    seq: Seq,
    by: usize,
    content: String,
    edited: bool,
    deleted: bool,
    answers: Option<usize>,
    reactions: BTreeMap<usize, BTreeSet<usize>>,
}

/// What the model makes of a feed.
struct Modelling {
    messages: Vec<Modelled>,
    /// Nothing up to here is shown.
    begin: Seq,
}

struct World {
    store: Store,
    people: Vec<UserId>,
}

impl World {
    async fn new() -> Result<Self> {
        let store = Store::connect(&StoreConfig {
            acquire_timeout: Duration::from_secs(30),
            ..StoreConfig::new(natter_cluster::testing::postgres().await?)
        })?;
        store.migrate().await?;
        store.ensure_shards(1).await?;
        store.start_epoch(0, 1, 1, None).await?;
        store.claim_shard(0, OWNER, Duration::from_hours(1)).await?.context("free")?;
        let mut people = Vec::new();
        for n in 0..PEOPLE {
            let mut hash = [0; 32];
            hash[..16].copy_from_slice(Uuid::new_v4().as_bytes());
            let new = NewUser {
                id: UserId::generate(),
                name: format!("Person {n}"),
                phone: None,
                email: None,
                password_hash: String::new(),
                shard: 0,
                device: NewDevice {
                    id: DeviceId::generate(),
                    name: None,
                    platform: None,
                    session: Uuid::now_v7(),
                },
                refresh: NewRefresh { hash, expires_at: OffsetDateTime::now_utc() },
            };
            people.push(store.create_user(&new).await?.0.id);
        }
        Ok(Self { store, people })
    }

    /// The entries of these ops on a new chat's feed, beginning after `base`, and what a model makes of
    /// them.
    fn entries(&self, feed: Feed, base: Seq, ops: &[Op]) -> Result<(Vec<Stored>, Modelling)> {
        let mut model: Vec<Modelled> = Vec::new();
        let mut begin = 0;
        let mut entries = Vec::new();
        // The place is not what names it.
        let target = |message: &Modelled| Target { message_id: message.id, message_seq: 7 };
        for (n, op) in ops.iter().enumerate() {
            let seq = base + 1 + n as Seq;
            let content = format!("{n} {}", "é".repeat(n * 9));
            let event = match *op {
                Op::Send { by, answers } => {
                    let answers = answers.filter(|answers| *answers < model.len());
                    let (sender, client) = (self.people[by], format!("{n}"));
                    let id = MessageId::derive(ChatId(feed.id), sender, &client);
                    let sent = MessageSent {
                        id,
                        sender: UserCard { id: sender, name: format!("Person {by}"), bot: false },
                        device_id: None,
                        content: content.clone(),
                        replaced: false,
                        media: None,
                        client_msg_id: client,
                        reply_to: answers.map(|answers| model[answers].id),
                        quote: None,
                        mentions: Vec::new(),
                    };
                    model.push(Modelled {
                        id,
                        seq,
                        by,
                        content,
                        edited: false,
                        deleted: false,
                        answers,
                        reactions: BTreeMap::new(),
                    });
                    Event::Message(sent)
                }
                Op::Edit { by, message } => {
                    let Some(message) = model.get_mut(message) else { continue };
                    if !message.deleted && message.by == by {
                        message.content.clone_from(&content);
                        message.edited = true;
                    }
                    let actor_id = self.people[by];
                    let mentions = vec![self.people[n % PEOPLE]];
                    Event::Edited(Edited { target: target(message), actor_id, content, mentions })
                }
                Op::Delete { by, message } => {
                    let Some(message) = model.get_mut(message) else { continue };
                    message.deleted = true;
                    message.content.clear();
                    message.edited = false;
                    message.reactions.clear();
                    let actor_id = self.people[by];
                    Event::Deleted(Deleted { target: target(message), actor_id })
                }
                Op::React { by, message, emoji, on } => {
                    let Some(message) = model.get_mut(message) else { continue };
                    if !message.deleted {
                        let users = message.reactions.entry(emoji).or_default();
                        if on {
                            users.insert(by)
                        } else {
                            users.remove(&by)
                        };
                    }
                    let (user_id, emoji) = (self.people[by], EMOJI[emoji].to_owned());
                    Event::Reacted(Reacted { target: target(message), user_id, emoji, on })
                }
                Op::Expire { before } => {
                    let up_to = seq.saturating_sub(before as Seq);
                    // An entry does not take itself away.
                    begin = up_to.min(seq - 1).max(begin);
                    Event::Expired(Expired { up_to })
                }
            };
            entries.push(Stored {
                feed,
                seq,
                at: OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seq),
                body: serde_json::to_vec(&Entry { origin: None, event })?.into(),
                traceparent: None,
            });
        }
        Ok((entries, Modelling { messages: model, begin }))
    }

    async fn write(&self, entries: &[Stored]) -> Result<()> {
        let (from, _) = self.store.persisted_until(0).await?;
        let mut rows = Vec::new();
        for stored in entries {
            let kind = match stored.entry()?.event {
                Event::Message(sent) => RowKind::Message(sent),
                Event::Edited(edited) => RowKind::Edit(edited),
                Event::Deleted(deleted) => RowKind::Delete(deleted),
                Event::Reacted(reacted) => RowKind::Reaction(reacted),
                Event::Expired(expired) => RowKind::Expired(expired),
                other => anyhow::bail!("{other:?}"),
            };
            let Stored { feed, seq, at, .. } = *stored;
            rows.push(Row { feed, seq, at, kind });
        }
        let to = entries.last().map_or(from, |last| last.seq);
        self.store.persist(0, OWNER, from, to, OffsetDateTime::now_utc(), &rows).await?;
        Ok(())
    }

    /// History while `tail` is not written.
    async fn shown(&self, feed: Feed, viewer: usize, tail: &[Stored]) -> Result<Vec<Message>> {
        let slice = self.store.history(ChatId(feed.id), WHOLE).await?;
        self.folded(feed, viewer, slice, tail).await
    }

    async fn folded(
        &self,
        feed: Feed,
        viewer: usize,
        slice: HistorySlice,
        tail: &[Stored],
    ) -> Result<Vec<Message>> {
        let chat = ChatId(feed.id);
        let tail = Tail::new(chat, tail.to_vec(), None, slice.to_seq);
        let viewer = self.people[viewer];
        let page = with_tail(&self.store, viewer, chat, WHOLE, slice, Some(tail)).await?;
        ensure!(!page.partial, "partial");
        Ok(page.messages)
    }

    fn check(&self, model: &Modelling, viewer: usize, shown: &[Message]) -> Result<()> {
        let Modelling { messages: model, begin } = model;
        let there = || model.iter().filter(|message| message.seq > *begin);
        ensure!(shown.len() == there().count(), "{} of {}", shown.len(), there().count());
        for (message, modelled) in shown.iter().zip(there()) {
            ensure!(message.id == modelled.id && message.sender_id == self.people[modelled.by]);
            let (deleted, edited) = (message.deleted, message.edited_at.is_some());
            ensure!(message.content == modelled.content, "{message:?} {modelled:?}");
            ensure!((deleted, edited) == (modelled.deleted, modelled.edited), "{message:?}");
            ensure!(message.mentions.is_empty() != edited, "{message:?}");
            let counted = message.reactions.iter().map(|r| (r.emoji.as_str(), r.count, r.mine));
            let users = modelled.reactions.iter().filter(|(_, users)| !users.is_empty());
            let expected = users
                .map(|(emoji, users)| (EMOJI[*emoji], users.len() as u64, users.contains(&viewer)));
            let (counted, expected): (BTreeSet<_>, BTreeSet<_>) =
                (counted.collect(), expected.collect());
            ensure!(counted == expected, "{counted:?}, not {expected:?}: {message:?}");
            let answered = modelled.answers.filter(|_| !deleted).map(|answers| &model[answers]);
            let answered = answered.filter(|answered| answered.seq > *begin);
            let quoted = message.quote.as_ref().map(|q| (q.id, q.content.clone(), q.deleted));
            let expected = answered.map(|answered| {
                let content: String = answered.content.chars().take(100).collect();
                (answered.id, content, answered.deleted)
            });
            ensure!(quoted == expected, "{quoted:?}, not {expected:?}");
        }
        Ok(())
    }

    async fn story(&self, ops: &[Op], cuts: &[usize], viewer: usize) -> Result<()> {
        let chat =
            self.store.create_group(self.people[0], None, false, &self.people[1..], 0).await?;
        let feed = Feed::chat(0, chat.chat);
        let (base, _) = self.store.persisted_until(0).await?;
        let (entries, model) = self.entries(feed, base, ops)?;
        let all_in_the_tail = self.shown(feed, viewer, &entries).await?;
        self.check(&model, viewer, &all_in_the_tail)?;
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (entries.len() + 1)).collect();
        cuts.extend([0, entries.len()]);
        cuts.sort_unstable();
        for pair in cuts.windows(2) {
            let before = self.store.history(chat.chat, WHOLE).await?;
            self.write(&entries[pair[0]..pair[1]]).await?;
            let shown = self.shown(feed, viewer, &entries[pair[1]..]).await?;
            ensure!(shown == all_in_the_tail, "{shown:?}\n{all_in_the_tail:?}");
            // The worker writes between a reader's looks.
            let crossed = self.folded(feed, viewer, before, &entries[pair[0]..]).await?;
            ensure!(crossed == all_in_the_tail, "{crossed:?}\n{all_in_the_tail:?}");
        }
        // Written again, all of it in one batch: nothing changes.
        self.write(&entries).await?;
        let again = self.shown(feed, viewer, &[]).await?;
        ensure!(again == all_in_the_tail);
        Ok(())
    }
}

#[test]
fn what_is_written_and_what_is_in_the_tail_add_up_to_the_same() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let world = runtime.block_on(World::new())?;
    let mut runner = TestRunner::new(Config { cases: 64, ..Config::default() });
    let cases = (ops(), proptest::collection::vec(any::<usize>(), 0..4), 0..PEOPLE);
    runner.run(&cases, |(ops, cuts, viewer)| {
        let told = runtime.block_on(world.story(&ops, &cuts, viewer));
        told.map_err(|error| TestCaseError::fail(format!("{error:#}")))
    })?;
    Ok(())
}
