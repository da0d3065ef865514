//! What can be done with chats, the same over sockets and REST: a change is committed, then on
//! its feeds, then answered.

use natter_protocol::{
    error::{ErrorCode, Outcome, WireError},
    ids::{ChatId, Shard, UserId},
    rest::CreateChat,
    server::Chat,
    service::CreateServerChat,
};
use natter_store::{ChatCursor, Conflict, Store, StoreError};
use uuid::Uuid;

use crate::{auth::Caller, fault, relay::Relay, room::Room, text};

/// How long one should wait who is refused for want of room: a worker must write some of the log.
const RETRY_MS: u64 = 5_000;

/// Makes chats, and changes who takes part. Cloning shares what it uses.
#[derive(Clone)]
pub struct Chats {
    store: Store,
    relay: Relay,
    room: Room,
    shards: Shard,
}

impl Chats {
    /// `shards` is how many new chats are spread over.
    pub fn new(store: Store, relay: Relay, room: Room, shards: Shard) -> Self {
        Self { store, relay, room, shards }
    }

    /// Makes a group, or opens the one-to-one with the one participant named. Also tells whether
    /// the chat is new.
    ///
    /// # Errors
    /// `bad_request` for a request that names no such chat; `not_found` for an unknown
    /// participant; `forbidden` for a one-to-one between two of whom one has blocked the other;
    /// `unavailable`, with `not_sent` while a log is nearly full.
    pub async fn create(
        &self,
        caller: &Caller,
        request: CreateChat,
    ) -> Result<(Chat, bool), WireError> {
        let plan = Plan::of(request, caller.user_id)?;
        let (chat, made) = self.make(caller.user_id, plan).await?;
        Ok((self.get(caller, chat).await?, made))
    }

    /// The same between others.
    ///
    /// # Errors
    /// As there.
    pub async fn create_between(
        &self,
        request: CreateServerChat,
    ) -> Result<(Chat, bool), WireError> {
        let (actor, plan) = Plan::between(request)?;
        let (chat, made) = self.make(actor, plan).await?;
        Ok((self.for_all(chat).await?, made))
    }

    /// Makes a chat of the actor's, unless it is there.
    async fn make(&self, actor: UserId, plan: Plan) -> Result<(ChatId, bool), WireError> {
        if self.room.any_full() {
            return Ok((self.there(actor, &plan).await?.ok_or_else(no_room)?, false));
        }
        let shard = shard_of(Uuid::now_v7(), self.shards);
        let created = match plan {
            Plan::Direct(other) => self.store.open_direct(actor, other, shard).await,
            Plan::Group { title, open, others } => {
                let title = Some(title.as_str());
                self.store.create_group(actor, title, open, &others, shard).await
            }
        };
        let created = created.map_err(|error| match error {
            StoreError::NotFound => {
                WireError::new(ErrorCode::NotFound, "a participant does not exist")
            }
            // Not who has blocked whom.
            StoreError::Forbidden => {
                let message = "a one-to-one with this user cannot be opened";
                WireError::new(ErrorCode::Forbidden, message)
            }
            other => fault::store(other),
        })?;
        self.relay.lane_if_any(created.lane).await;
        Ok((created.chat, !created.existed))
    }

    /// The one-to-one that the plan asks for, if there is one.
    async fn there(&self, actor: UserId, plan: &Plan) -> Result<Option<ChatId>, WireError> {
        let Plan::Direct(other) = plan else { return Ok(None) };
        let there = self.store.direct(actor, *other).await.map_err(fault::store)?;
        Ok(there.map(|there| there.chat))
    }

    /// One chat, as nobody in particular sees it.
    ///
    /// # Errors
    /// `not_found`, `unavailable`.
    pub async fn for_all(&self, chat: ChatId) -> Result<Chat, WireError> {
        let found = self.store.chat_for_all(chat).await.map_err(fault::store)?;
        found.ok_or_else(|| WireError::new(ErrorCode::NotFound, "there is no such chat"))
    }

    /// Makes the caller a participant of an open chat; one who is already stays so.
    ///
    /// # Errors
    /// `not_found` for an unknown chat; `forbidden` when it is not open, or the caller is banned from
    /// it; `unavailable`.
    pub async fn join(&self, caller: &Caller, chat: ChatId) -> Result<Chat, WireError> {
        let joined = self.store.join(caller.user_id, chat).await.map_err(|error| match error {
            StoreError::Forbidden => WireError::new(ErrorCode::Forbidden, "the chat is not open"),
            StoreError::NotFound => WireError::new(ErrorCode::NotFound, "there is no such chat"),
            StoreError::Conflict(Conflict::Banned) => banned(),
            other => fault::store(other),
        })?;
        self.relay.lane_if_any(joined.lane).await;
        self.get(caller, chat).await
    }

    /// Ends the caller's participation in a group.
    ///
    /// # Errors
    /// `not_member`; `forbidden` for a one-to-one; `unavailable`.
    pub async fn leave(&self, caller: &Caller, chat: ChatId) -> Result<(), WireError> {
        let left = self.store.leave(caller.user_id, chat).await.map_err(|error| match error {
            StoreError::Forbidden => {
                WireError::new(ErrorCode::Forbidden, "a one-to-one cannot be left")
            }
            StoreError::NotFound => not_member(),
            other => fault::store(other),
        })?;
        self.relay.lane_if_any(left.lane).await;
        Ok(())
    }

    /// One chat.
    ///
    /// # Errors
    /// `not_member`, also when there is no such chat; `unavailable`.
    pub async fn get(&self, caller: &Caller, chat: ChatId) -> Result<Chat, WireError> {
        let found = self.store.chat(caller.user_id, chat).await.map_err(fault::store)?;
        found.ok_or_else(not_member)
    }

    /// A page of the caller's chats, newest activity first, and where the next page starts.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn list(
        &self,
        caller: &Caller,
        cursor: Option<ChatCursor>,
        limit: u32,
        search: Option<&str>,
    ) -> Result<(Vec<Chat>, Option<ChatCursor>), WireError> {
        self.store.chats(caller.user_id, cursor, limit, search).await.map_err(fault::store)
    }
}

/// The answer to one who takes no part, and for a chat that does not exist: the two look alike.
pub fn not_member() -> WireError {
    WireError::new(ErrorCode::NotMember, "not a participant of this chat")
}

/// The answer to one who would write to a one-to-one in which one has blocked the other; not who.
pub fn shut() -> WireError {
    WireError::new(ErrorCode::Forbidden, "messages cannot be sent in this chat")
}

/// The answer to one who may not come back.
pub fn banned() -> WireError {
    WireError::new(ErrorCode::Forbidden, "banned from this chat")
}

fn no_room() -> WireError {
    WireError::new(ErrorCode::Unavailable, "a log is nearly full: no new chats")
        .retry_after_ms(RETRY_MS)
        .outcome(Outcome::NotSent)
}

/// Where something new lives. UUIDv7 start with the time, so all bytes are folded, the random
/// ones included.
pub fn shard_of(id: Uuid, shards: Shard) -> Shard {
    let (high, low) = id.as_u64_pair();
    ((high ^ low) % u64::from(shards.max(1))) as Shard
}

/// What a request asks for, once it makes sense.
#[derive(Debug, PartialEq)]
enum Plan {
    Direct(UserId),
    Group { title: String, open: bool, others: Vec<UserId> },
}

impl Plan {
    /// Between others than who asks: also whose chat it is.
    fn between(request: CreateServerChat) -> Result<(UserId, Self), WireError> {
        text::valid(&request)?;
        let bad = |why: &str| WireError::new(ErrorCode::BadRequest, why);
        let CreateServerChat { is_group, title, owner_id, mut participant_ids, open } = request;
        let actor = if is_group {
            owner_id.ok_or_else(|| bad("ownerId: a group needs one"))?
        } else {
            participant_ids.sort_unstable();
            participant_ids.dedup();
            let [first, _] = participant_ids[..] else {
                return Err(bad("participantIds: a one-to-one is of exactly two users"));
            };
            if owner_id.is_some() {
                return Err(bad("ownerId: for groups only"));
            }
            participant_ids.remove(0);
            first
        };
        let request = CreateChat { is_group, title, participant_ids, open };
        Ok((actor, Self::of(request, actor)?))
    }

    fn of(request: CreateChat, caller: UserId) -> Result<Self, WireError> {
        text::valid(&request)?;
        let bad = |why: &str| Err(WireError::new(ErrorCode::BadRequest, why));
        let mut others = request.participant_ids;
        others.sort_unstable();
        others.dedup();
        if request.is_group {
            others.retain(|user| *user != caller);
            let Some(title) = request.title else { return bad("title: a group needs one") };
            let title = text::line("title", &title)?;
            return Ok(Self::Group { title, open: request.open, others });
        }
        if request.title.is_some() || request.open {
            return bad("title, open: for groups only");
        }
        match others.as_slice() {
            [other] if *other != caller => Ok(Self::Direct(*other)),
            [_] => bad("participantIds: a one-to-one is with somebody else"),
            _ => bad("participantIds: a one-to-one is with exactly one other user"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(is_group: bool, title: Option<&str>, participants: &[UserId]) -> CreateChat {
        CreateChat {
            is_group,
            title: title.map(str::to_owned),
            participant_ids: participants.to_vec(),
            open: false,
        }
    }

    fn refusal(request: CreateChat, caller: UserId) -> String {
        match Plan::of(request, caller) {
            Err(error) if error.code == ErrorCode::BadRequest => error.message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_one_to_one_is_with_exactly_one_other() -> anyhow::Result<()> {
        let (me, other, third) = (UserId::generate(), UserId::generate(), UserId::generate());
        assert_eq!(Plan::of(request(false, None, &[other, other]), me)?, Plan::Direct(other));
        for wrong in [&[][..], &[me], &[me, other], &[other, third]] {
            assert!(refusal(request(false, None, wrong), me).starts_with("participantIds"));
        }
        refusal(request(false, Some("Title"), &[other]), me);
        refusal(CreateChat { open: true, ..request(false, None, &[other]) }, me);
        Ok(())
    }

    #[test]
    fn what_is_made_between_others_is_a_chat_of_theirs() -> anyhow::Result<()> {
        let (one, two) = (UserId::generate(), UserId::generate());
        let between = |is_group, owner_id, participants: &[UserId]| {
            Plan::between(CreateServerChat {
                is_group,
                title: is_group.then(|| "Team".to_owned()),
                owner_id,
                participant_ids: participants.to_vec(),
                open: false,
            })
        };
        let direct = between(false, None, &[two, one, two])?;
        assert_eq!(direct, (one.min(two), Plan::Direct(one.max(two))));
        let group = Plan::Group { title: "Team".to_owned(), open: false, others: vec![two] };
        assert_eq!(between(true, Some(one), &[two, one])?, (one, group));
        for (is_group, owner, participants) in [
            (false, None, &[one][..]),
            (false, None, &[one, one]),
            (false, None, &[one, two, UserId::generate()]),
            (false, Some(one), &[one, two]),
            (true, None, &[one, two]),
        ] {
            let refused = between(is_group, owner, participants);
            assert_eq!(refused.map_err(|error| error.code), Err(ErrorCode::BadRequest));
        }
        Ok(())
    }

    #[test]
    fn a_group_has_a_title_and_counts_nobody_twice() -> anyhow::Result<()> {
        let (me, other) = (UserId::generate(), UserId::generate());
        let plan = Plan::of(request(true, Some(" Team "), &[me, other, other]), me)?;
        let others = vec![other];
        assert_eq!(plan, Plan::Group { title: "Team".to_owned(), open: false, others });
        for title in [None, Some(""), Some("  "), Some("a\nb"), Some(&*"x".repeat(101))] {
            assert!(refusal(request(true, title, &[]), me).starts_with("title"));
        }
        let crowd: Vec<_> = (0..1_001).map(|_| UserId::generate()).collect();
        assert!(refusal(request(true, Some("Crowd"), &crowd), me).starts_with("participantIds"));
        Ok(())
    }

    proptest! {
        #[test]
        fn shards_are_those_that_there_are(id: u128, shards in 1_u16..=16) {
            prop_assert!(shard_of(Uuid::from_u128(id), shards) < shards);
        }
    }

    #[test]
    fn new_ids_spread_over_all_shards() {
        let mut hits = [0; 8];
        for _ in 0..8_000 {
            hits[usize::from(shard_of(Uuid::now_v7(), 8))] += 1;
        }
        assert!(hits.iter().all(|hits| (700..1_300).contains(hits)), "{hits:?}");
    }
}
