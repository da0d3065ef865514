//! Which parts of which feeds a resuming connection has missed, and in which order they are told.
//!
//! The user's own feed says which chats were added and removed since the cursor. A chat that was
//! added is read from its first entry for the user, after `chat_added`; one that was removed up to
//! the removal, before `chat_removed`; all others from where the cursor stands.

use std::{collections::HashSet, sync::Arc, time::Duration};

use natter_protocol::{
    client::Mark,
    cursor::{Bases, Cursor},
    error::WireError,
    feed::{Blocking, ChatAdded, ChatRemoved, Event, Feed},
    ids::{ChatId, Seq},
    server::{BlockChange, Chat, ChatRef, Receipt, ResumeRefusal, ServerEvent},
};
use natter_store::Followed;
use tokio::{sync::oneshot, time::sleep};

use super::{NoReplay, Viewer, read::Reader};
use crate::{
    app::App,
    fault,
    hub::{
        Ask, Command, Standing,
        frames::{self, Delivery},
    },
    outlet::Outgoing,
};

/// The digest that tells which feeds are quiet comes several times a second; for one of these
/// looks at most it is waited for, and then the log itself is asked.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(100);

/// The items of a replay, and about how many bytes they hold.
///
/// All of it follows from one moment, the standing: what the user's own feed has told since is
/// queued, and brings with it what it needs of a chat.
pub async fn everything(
    app: &App,
    viewer: Viewer,
    from: &Cursor,
    standing: &Standing,
    snapshot: Option<&Followed>,
) -> Result<(Vec<Outgoing>, usize), NoReplay> {
    let Standing { at: onto, chats, left } = standing;
    let asks = asks(viewer.feed, chats, from, onto, snapshot);
    let moved = moved(app, asks).await?;
    let mut plan = Plan {
        reader: Reader::new(app, viewer, from.bases()),
        viewer,
        from,
        told: HashSet::new(),
        items: Vec::new(),
    };
    plan.reader.refuse_ahead(from, onto).await?;
    let mut parts = Vec::new();
    if moved.contains(&viewer.feed) {
        let (after, until) = (from.position(viewer.feed), onto.position(viewer.feed));
        let own = plan.reader.own(after, until).await?;
        plan.own(own, &mut parts).await?;
    }
    for &(feed, first) in chats {
        if moved.contains(&feed) && !plan.told.contains(&feed.id) {
            let after = from.position(feed).max(first.saturating_sub(1));
            parts.push(Step::Part(plan.reader.chat(feed, after, None).await?));
        }
    }
    for &(feed, until) in left {
        let after = from.position(feed);
        if after < until && plan.told.insert(feed.id) {
            parts.push(Step::Part(plan.reader.chat(feed, after, Some(until)).await?));
        }
    }
    plan.reader.check().await?;
    let told = parts.iter_mut().filter_map(|step| match step {
        Step::Chat(told) => Some(told.chat_mut()),
        Step::Part(_) | Step::Own(_) => None,
    });
    plan.reader.without_expired(told).await;
    for step in parts {
        match step {
            Step::Part(part) => plan.items.extend(plan.reader.items(part)),
            Step::Chat(told) => {
                let delivery = told.delivery(plan.viewer.feed, plan.bases());
                plan.items.push(Outgoing::Event(Arc::new(delivery)));
            }
            Step::Own(delivery) => plan.items.push(Outgoing::Event(Arc::new(delivery))),
        }
    }
    Ok((plan.items, plan.reader.bytes()))
}

enum Step {
    Part(super::read::Part),
    Own(Delivery),
    /// A chat, which is looked at once more.
    Chat(Told),
}

/// What the user's feed has told of a chat, at a place of it.
enum Told {
    /// It was added, with what follows of its own feed.
    Added(Seq, Box<Chat>, frames::Part),
    /// It has changed.
    Updated(Seq, Box<Chat>),
}

impl Told {
    fn chat_mut(&mut self) -> &mut Chat {
        let (Self::Added(_, chat, _) | Self::Updated(_, chat)) = self;
        chat
    }

    fn delivery(&self, own: Feed, bases: &Arc<Bases>) -> Delivery {
        match self {
            Self::Added(seq, chat, part) => {
                Delivery::own(own, *seq, &ServerEvent::ChatAdded(chat), bases).with(*part)
            }
            Self::Updated(seq, chat) => {
                Delivery::own(own, *seq, &ServerEvent::ChatUpdated(chat), bases)
            }
        }
    }
}

struct Plan<'a> {
    reader: Reader<'a>,
    viewer: Viewer,
    from: &'a Cursor,
    /// Chats that the user's own feed has told of: what was missed of them is among the parts.
    told: HashSet<uuid::Uuid>,
    items: Vec<Outgoing>,
}

impl Plan<'_> {
    fn bases(&self) -> &Arc<Bases> {
        self.from.bases()
    }

    async fn own(
        &mut self,
        entries: Vec<(Seq, Event)>,
        steps: &mut Vec<Step>,
    ) -> Result<(), NoReplay> {
        let user = self.viewer.user;
        // Where each chat's removals are, so that what comes after one is not read before it.
        let removals: Vec<(ChatId, Seq)> = entries
            .iter()
            .filter_map(|(_, event)| match event {
                Event::ChatRemoved(removed) => Some((removed.chat_id, removed.until_seq)),
                _ => None,
            })
            .collect();
        for (seq, event) in entries {
            match event {
                Event::ChatAdded(added) => self.added(seq, *added, &removals, steps).await?,
                Event::ChatRemoved(removed) => self.removed(seq, &removed, steps).await?,
                // Of a login. An outside issuer's device has none, and may well have come back
                // since it logged out: Postgres has been asked about it.
                Event::DeviceRevoked(revoked)
                    if revoked.session.is_some()
                        && (revoked.device_id, revoked.session)
                            == (self.viewer.device, self.viewer.session) =>
                {
                    return Err(NoReplay::Revoked);
                }
                Event::Read(Mark { chat_id, seq: read }) => {
                    let event = ServerEvent::Read(Receipt { chat_id, user_id: user, seq: read });
                    let delivery = Delivery::own(self.viewer.feed, seq, &event, self.bases());
                    steps.push(Step::Own(delivery));
                }
                Event::ChatUpdated(chat) => {
                    steps.push(Step::Chat(Told::Updated(seq, chat)));
                }
                // Who is blocked is not told.
                Event::Blocking(Blocking { by, user_id, blocked, chat_id, .. })
                    if by == self.viewer.user =>
                {
                    let event = ServerEvent::Blocking(BlockChange { user_id, blocked, chat_id });
                    let own = Delivery::own(self.viewer.feed, seq, &event, self.bases());
                    steps.push(Step::Own(own));
                }
                Event::DeviceRevoked(_)
                | Event::DeviceAdded(_)
                | Event::ProfileChanged(_)
                | Event::Delivered(_)
                | Event::Blocking(_)
                // Postgres has been asked about it.
                | Event::Disabled
                | Event::Message(_)
                | Event::System(_)
                | Event::Edited(_)
                | Event::Deleted(_)
                | Event::Reacted(_)
                | Event::Expired(_) => {}
            }
        }
        Ok(())
    }

    async fn added(
        &mut self,
        seq: Seq,
        added: ChatAdded,
        removals: &[(ChatId, Seq)],
        steps: &mut Vec<Step>,
    ) -> Result<(), NoReplay> {
        let ChatAdded { chat, shard, from_seq } = added;
        let (feed, after) = (Feed::chat(shard, chat.id), from_seq.saturating_sub(1));
        let until = removals.iter().find(|(other, until)| *other == chat.id && *until >= from_seq);
        let until = until.map(|(_, until)| *until);
        let begins = frames::Part::Begins(feed, after);
        steps.push(Step::Chat(Told::Added(seq, Box::new(chat), begins)));
        steps.push(Step::Part(self.reader.chat(feed, after, until).await?));
        self.told.insert(feed.id);
        Ok(())
    }

    async fn removed(
        &mut self,
        seq: Seq,
        removed: &ChatRemoved,
        steps: &mut Vec<Step>,
    ) -> Result<(), NoReplay> {
        let chat = removed.chat_id;
        if self.told.insert(chat.0) {
            // From before the cursor: what was missed of it until then.
            let Some(shard) = removed.shard else {
                return Err(NoReplay::Refused(ResumeRefusal::TooOld));
            };
            let feed = Feed::chat(shard, chat);
            let after = self.from.position(feed);
            if after < removed.until_seq {
                let part = self.reader.chat(feed, after, Some(removed.until_seq)).await?;
                steps.push(Step::Part(part));
            }
        }
        let event = ServerEvent::ChatRemoved(ChatRef { id: chat });
        steps.push(Step::Own(Delivery::own(self.viewer.feed, seq, &event, self.bases())));
        Ok(())
    }
}

/// What to find out: the feeds on which the node is further than the cursor.
fn asks(
    own: Feed,
    chats: &[(Feed, Seq)],
    from: &Cursor,
    onto: &Cursor,
    snapshot: Option<&Followed>,
) -> Vec<Ask> {
    let known = |feed: Feed| {
        let snapshot = snapshot?;
        let covered = snapshot.persisted.iter().find(|(shard, _)| *shard == feed.shard)?.1;
        let last = match feed.chat_id() {
            Some(chat) => snapshot.chats.iter().find(|known| known.id == chat)?.last_seq,
            None => snapshot.user_last_seq,
        };
        Some((last, covered))
    };
    let feeds = chats.iter().map(|(feed, _)| *feed).chain([own]);
    feeds
        .map(|feed| Ask {
            feed,
            since: from.position(feed),
            until: onto.position(feed),
            known: known(feed),
        })
        .filter(|ask| ask.since < ask.until)
        .collect()
}

/// The feeds that may have moved.
///
/// # Errors
/// When the node is going down.
pub async fn moved(app: &App, asks: Vec<Ask>) -> Result<HashSet<Feed>, WireError> {
    let mut moved = HashSet::new();
    let mut open = asks;
    for look in 0..=LOOKS {
        if open.is_empty() {
            break;
        }
        let (answer, quiet) = oneshot::channel();
        app.hub.tell(Command::Quiet(open.clone(), answer)).await;
        let quiet = quiet.await.map_err(|_| fault::unavailable("the node"))?;
        let mut undecided = Vec::new();
        for (ask, quiet) in open.into_iter().zip(quiet) {
            match quiet {
                Some(true) => {}
                Some(false) => drop(moved.insert(ask.feed)),
                None => undecided.push(ask),
            }
        }
        open = undecided;
        if look < LOOKS && !open.is_empty() {
            sleep(LOOK).await;
        }
    }
    moved.extend(open.into_iter().map(|ask| ask.feed));
    Ok(moved)
}
