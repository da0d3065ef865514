//! Unread counts against a model that simply counts: after any order of sending, reading, deleting,
//! joining and leaving, of batches, repetitions and dead letters, at every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, ensure};
use natter_protocol::{
    feed::{Entry, Event, Expired, Feed, FeedKind},
    ids::{ChatId, Seq, UserId},
    rest::UnreadTotal,
};
use natter_store::{Page, Replayed, Row, RowKind, Store};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use sqlx::{Connection, PgConnection};

use crate::{
    reads::read,
    support::{OWNER, at, message, person, store_at, void},
};

const USERS: usize = 3;
const CHATS: usize = 2;
const NEWEST: Page = Page { before: None, after: None, limit: 200 };

#[derive(Clone, Debug)]
enum Step {
    Send {
        user: usize,
        chat: usize,
    },
    /// The same message again, after the broker has forgotten it.
    SendAgain {
        user: usize,
        chat: usize,
        which: usize,
    },
    /// An entry that cannot be read.
    Void {
        chat: usize,
    },
    /// One of those is written after all, as a message.
    Rescue {
        user: usize,
        which: usize,
    },
    /// Up to a place, in thousandths of all that there are.
    Read {
        user: usize,
        chat: usize,
        place: u64,
    },
    Delete {
        which: usize,
    },
    Join {
        user: usize,
        chat: usize,
    },
    Leave {
        user: usize,
        chat: usize,
    },
    /// What is written up to a place expires, in thousandths of all that there is.
    Expire {
        chat: usize,
        place: u64,
    },
    /// Some of what has expired is removed.
    Purge {
        chat: usize,
        rows: u32,
    },
    /// The worker writes so much of what waits.
    Persist {
        entries: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let (user, chat) = (0..USERS, 0..CHATS);
    let both = (user.clone(), chat.clone());
    prop_oneof![
        8 => both.clone().prop_map(|(user, chat)| Step::Send { user, chat }),
        1 => (both.clone(), any::<usize>())
            .prop_map(|((user, chat), which)| Step::SendAgain { user, chat, which }),
        1 => chat.prop_map(|chat| Step::Void { chat }),
        1 => (user, any::<usize>()).prop_map(|(user, which)| Step::Rescue { user, which }),
        4 => (both.clone(), 1..=1_000_u64)
            .prop_map(|((user, chat), place)| Step::Read { user, chat, place }),
        2 => any::<usize>().prop_map(|which| Step::Delete { which }),
        2 => both.clone().prop_map(|(user, chat)| Step::Join { user, chat }),
        2 => both.prop_map(|(user, chat)| Step::Leave { user, chat }),
        1 => (0..CHATS, 1..=1_000_u64).prop_map(|(chat, place)| Step::Expire { chat, place }),
        2 => (0..CHATS, 1..6_u32).prop_map(|(chat, rows)| Step::Purge { chat, rows }),
        6 => (1..8_usize).prop_map(|entries| Step::Persist { entries }),
    ]
}

/// The log of one shard.
#[derive(Default)]
struct Log {
    last: Seq,
    /// Not written yet.
    waiting: Vec<Row>,
}

impl Log {
    fn push(&mut self, row: impl FnOnce(Seq) -> Row) -> Seq {
        self.last += 1;
        self.waiting.push(row(self.last));
        self.last
    }

    fn publish(&mut self, feed: Feed, entry: Entry) -> Seq {
        self.push(|seq| {
            let kind = match entry.event {
                Event::System(event) if feed.kind == FeedKind::Chat => RowKind::System(event),
                _ => RowKind::UserEvent,
            };
            Row { feed, seq, at: at(seq), kind }
        })
    }
}

#[derive(Clone, Copy)]
struct Sent {
    chat: usize,
    deleted: bool,
}

/// What is there to know, the simple way.
#[derive(Default)]
struct Model {
    /// By place.
    messages: BTreeMap<Seq, Sent>,
    voids: Vec<(usize, Seq)>,
    /// What moves a user in a chat, by the place of the entry that tells: to another place.
    moves: Vec<(Seq, usize, usize, Seq)>,
    /// Where chats begin anew, by the place of the entry that tells.
    cuts: Vec<(Seq, usize, Seq)>,
    /// Who takes part, since which entry.
    members: BTreeMap<(usize, usize), Seq>,
}

impl Model {
    fn read_to(&self, user: usize, chat: usize, written: Seq) -> Seq {
        let told =
            self.moves.iter().filter(|(at, u, c, _)| *at <= written && (*u, *c) == (user, chat));
        let joined = self.members.get(&(user, chat)).copied().unwrap_or(0);
        told.map(|(.., to)| *to).max().unwrap_or(0).max(joined)
    }

    /// Nothing of the chat is left up to here.
    fn begin(&self, chat: usize, written: Seq) -> Seq {
        let told = self.cuts.iter().filter(|(at, c, _)| *at <= written && *c == chat);
        told.map(|(.., to)| *to).max().unwrap_or(0)
    }

    fn unread(&self, user: usize, chat: usize, written: Seq) -> u64 {
        let read = self.read_to(user, chat, written).max(self.begin(chat, written));
        let beyond = self.messages.range(read + 1..).filter(|(seq, _)| **seq <= written);
        beyond.filter(|(_, sent)| sent.chat == chat && !sent.deleted).count() as u64
    }
}

struct World<'a> {
    store: &'a Store,
    admin: &'a mut PgConnection,
    log: &'a Mutex<Log>,
    users: Vec<UserId>,
    chats: Vec<ChatId>,
    model: Model,
    /// Chats with the users, client ids and places of what was sent there.
    sent: Vec<(usize, usize, String, Seq)>,
}

impl<'a> World<'a> {
    async fn new(
        store: &'a Store,
        admin: &'a mut PgConnection,
        log: &'a Mutex<Log>,
    ) -> Result<Self> {
        let mut users = Vec::new();
        for n in 0..USERS {
            users.push(person(store, &format!("P{n}")).await?);
        }
        let (chats, sent) = (Vec::new(), Vec::new());
        let mut world = Self { store, admin, log, users, chats, model: Model::default(), sent };
        for chat in 0..CHATS {
            let made = store.create_group(world.users[0], None, true, &[], 0).await?;
            world.chats.push(made.chat);
            let from = world.relay(chat).await?;
            world.model.members.insert((0, chat), from);
        }
        Ok(world)
    }

    fn log(&self) -> MutexGuard<'a, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts changes of membership on the feeds; answers the chat's entry.
    async fn relay(&self, chat: usize) -> Result<Seq> {
        let place = Mutex::new(0);
        let publish = async |feed: Feed, _, entry| -> Result<Seq, Infallible> {
            let seq = self.log().publish(feed, entry);
            if feed.kind == FeedKind::Chat {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = seq;
            }
            Ok(seq)
        };
        self.store.relay(self.chats[chat].0, publish).await?;
        Ok(place.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn takes_part(&self, user: usize, chat: usize) -> bool {
        self.model.members.contains_key(&(user, chat))
    }

    async fn written(&self) -> Result<Seq> {
        Ok(self.store.persisted_until(0).await?.0)
    }

    async fn take(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Send { user, chat } if self.takes_part(user, chat) => {
                let client = format!("m{}", self.sent.len());
                let (id, of) = (self.chats[chat], self.users[user]);
                let seq = self.log().push(|seq| message(id, of, seq, &client, "x"));
                self.sent.push((user, chat, client, seq));
                self.model.messages.insert(seq, Sent { chat, deleted: false });
                self.model.moves.push((seq, user, chat, seq));
            }
            Step::SendAgain { user, chat, which } => {
                // What has expired may be sent again as something new.
                let begin = self.model.begin(chat, Seq::MAX);
                let own = |(u, c, _, at): &&(usize, usize, String, Seq)| {
                    (*u, *c) == (user, chat) && *at > begin
                };
                let own: Vec<_> = self.sent.iter().filter(own).collect();
                if let Some((_, _, client, _)) = own.get(which % own.len().max(1)) {
                    let (id, of) = (self.chats[chat], self.users[user]);
                    self.log().push(|seq| message(id, of, seq, client, "x"));
                }
            }
            Step::Void { chat } => {
                let id = self.chats[chat];
                let seq = self.log().push(|seq| void(id, seq));
                self.model.voids.push((chat, seq));
            }
            Step::Rescue { user, which } if !self.model.voids.is_empty() => {
                let place = which % self.model.voids.len();
                let (chat, seq) = self.model.voids[place];
                let rescued =
                    message(self.chats[chat], self.users[user], seq, &format!("r{seq}"), "x");
                let done = self.store.replay(0, &rescued).await?;
                let written = self.written().await?;
                if seq <= self.model.begin(chat, written) {
                    ensure!(done == Replayed::Expired, "{done:?}");
                } else if seq > written {
                    ensure!(done == Replayed::NotYet, "{done:?}");
                } else {
                    ensure!(done == Replayed::Written, "{done:?}");
                    self.model.voids.remove(place);
                    self.model.messages.insert(seq, Sent { chat, deleted: false });
                    // Whoever has never taken part has no row that could be moved.
                    self.model.moves.push((seq, user, chat, seq));
                }
            }
            Step::Read { user, chat, place } if self.takes_part(user, chat) => {
                let (id, of) = (self.chats[chat], self.users[user]);
                let up_to = (self.log().last * place).div_ceil(1_000);
                let seq = self.log().push(|seq| read(of, id, seq, up_to));
                self.model.moves.push((seq, user, chat, up_to));
            }
            Step::Delete { which } => {
                let written = self.written().await?;
                let there: Vec<Seq> =
                    self.model.messages.range(..=written).map(|(seq, _)| *seq).collect();
                let Some(&seq) = there.get(which % there.len().max(1)) else { return Ok(()) };
                let Some(sent) = self.model.messages.get_mut(&seq) else { return Ok(()) };
                sent.deleted = true;
                sqlx::query(
                    "UPDATE messages SET deleted_at = now(), content = ''
                     WHERE chat_id = $1 AND seq = $2",
                )
                .bind(self.chats[sent.chat].0)
                .bind(i64::try_from(seq)?)
                .execute(&mut *self.admin)
                .await?;
            }
            Step::Join { user, chat } if !self.takes_part(user, chat) => {
                self.store.join(self.users[user], self.chats[chat]).await?;
                let from = self.relay(chat).await?;
                self.model.members.insert((user, chat), from);
            }
            Step::Leave { user, chat } if self.takes_part(user, chat) => {
                self.store.leave(self.users[user], self.chats[chat]).await?;
                self.relay(chat).await?;
                self.model.members.remove(&(user, chat));
            }
            Step::Expire { chat, place } => {
                // As the worker, which looks at what is written.
                let up_to = (self.written().await? * place).div_ceil(1_000);
                let id = self.chats[chat];
                let seq = self.log().push(|seq| {
                    let kind = RowKind::Expired(Expired { up_to });
                    Row { feed: Feed::chat(0, id), seq, at: at(seq), kind }
                });
                self.model.cuts.push((seq, chat, up_to));
            }
            Step::Purge { chat, rows } => {
                self.store.purge(self.chats[chat], rows).await?;
            }
            Step::Persist { entries } => {
                let rows: Vec<Row> = {
                    let mut log = self.log();
                    let count = entries.min(log.waiting.len());
                    log.waiting.drain(..count).collect()
                };
                let (from, to) = (self.written().await?, rows.last().map(|row| row.seq));
                let to = to.unwrap_or(from);
                self.store.persist(0, OWNER, from, to, at(to), &rows).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn check(&self) -> Result<()> {
        let written = self.written().await?;
        for (user, id) in self.users.iter().enumerate() {
            let mut total = UnreadTotal::default();
            let (listed, _) = self.store.chats(*id, None, 10, None).await?;
            for (chat, chat_id) in self.chats.iter().enumerate() {
                let view = self.store.chat(*id, *chat_id).await?;
                if !self.takes_part(user, chat) {
                    ensure!(view.is_none(), "left");
                    continue;
                }
                let view = view.context("takes part")?;
                let me = view.me.clone().context("a viewer")?;
                let expected = (
                    self.model.read_to(user, chat, written),
                    self.model.unread(user, chat, written),
                );
                ensure!(
                    (me.read_seq, me.unread_count) == expected,
                    "user {user}, chat {chat}: {me:?}, not {expected:?}, at {written}"
                );
                let begin = self.model.begin(chat, written);
                let there =
                    self.model.messages.range(begin + 1..).filter(|(seq, _)| **seq <= written);
                let there: Vec<Seq> =
                    there.filter(|(_, sent)| sent.chat == chat).map(|(seq, _)| *seq).collect();
                ensure!(
                    view.last_message.map(|last| last.seq) == there.last().copied(),
                    "{there:?}"
                );
                if user == 0 {
                    let page = self.store.history(*chat_id, NEWEST).await?;
                    let page = page.messages.iter().filter(|message| message.system.is_none());
                    let shown: Vec<Seq> = page.map(|message| message.seq).collect();
                    ensure!(shown == there, "{shown:?}, not {there:?}");
                }
                let entry = listed.iter().find(|chat| chat.id == *chat_id);
                ensure!(entry.and_then(|chat| chat.me.as_ref()) == Some(&me), "{listed:?}");
                total.total += expected.1;
                total.chats += u64::from(expected.1 > 0);
            }
            let told = self.store.unread_total(*id).await?;
            ensure!(told == total, "user {user}: {told:?}, not {total:?}");
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_counts_are_those_of_a_simple_model() -> Result<()> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let mut admin = PgConnection::connect(&database).await?;
    let log = Mutex::new(Log::default());
    let runtime = tokio::runtime::Handle::current();
    tokio::task::block_in_place(|| -> Result<()> {
        let mut runner = TestRunner::new(Config {
            cases: 12,
            // A sequence is told whole; a shorter one would need another database.
            max_shrink_iters: 100,
            failure_persistence: None,
            ..Config::default()
        });
        let mut seen = BTreeSet::new();
        let steps = proptest::collection::vec(step(), 10..80);
        let admin = Mutex::new(&mut admin);
        let counted = Mutex::new(&mut seen);
        runner.run(&steps, |steps| {
            let mut admin = admin.lock().unwrap_or_else(PoisonError::into_inner);
            let done = runtime.block_on(async {
                let mut world = World::new(&store, &mut admin, &log).await?;
                for step in &steps {
                    world.take(step).await?;
                    world.check().await?;
                }
                world.take(&Step::Persist { entries: usize::MAX }).await?;
                world.check().await?;
                let end = world.written().await?;
                let unread = (0..USERS).map(|user| world.model.unread(user, 0, end));
                let mut seen = counted.lock().unwrap_or_else(PoisonError::into_inner);
                seen.extend(unread);
                anyhow::Ok(())
            });
            done.map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })?;
        // It is not always nothing that is unread.
        ensure!(seen.len() > 3, "{seen:?}");
        Ok(())
    })
}
