//! Changes committed here that feeds must hear of, relayed in order.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use natter_protocol::{
    feed::{
        ChatAdded, ChatRemoved, Entry, Event, Feed, OutboxChat, OutboxItem, OutboxUser, SystemKind,
        UserChange,
    },
    ids::{Seq, Shard, UserId},
    server::Me,
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use crate::{
    Result, Store, StoreError,
    rows::{seq, sql_seq},
};

/// How long a relay waits for its turn among those of this process.
const PERMIT_WAIT: Duration = Duration::from_secs(2);
/// Steps of one relay; a row takes two. The sweep goes on with what is left.
const STEPS: usize = 200;
/// How long one step may take, most of which it may wait for the broker. The server ends a
/// transaction that has waited for 30 s.
const STEP: Duration = Duration::from_secs(45);
/// Users' entries of one row on their way to the broker at once.
const IN_FLIGHT: usize = 32;

/// What a relay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Changes published and done with.
    pub items: usize,
    /// Somebody else was relaying the lane and goes on with it, or the bound of one call was
    /// reached: what is left is theirs, or the sweep's.
    pub left: bool,
}

/// A lane with something to relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingLane {
    /// The lane.
    pub lane: Uuid,
    /// The id of its first change: the next page of lanes begins after it.
    pub first: i64,
}

/// What waits in the outbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxBacklog {
    /// Changes.
    pub changes: u64,
    /// How long the oldest has waited.
    pub age: Duration,
}

/// Why a relay stopped. What was done is kept; the next relay goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RelayError<E: std::error::Error + 'static> {
    /// Postgres failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The broker did not take an entry.
    #[error("an outbox entry was not published")]
    Publish(#[source] E),
}

impl Store {
    /// Lanes whose first change has waited for longer than `older_than`, by the id of that change:
    /// those after `after`, at most `limit`.
    pub async fn lanes_waiting(
        &self,
        older_than: Duration,
        after: i64,
        limit: u32,
    ) -> Result<Vec<WaitingLane>> {
        // Along the primary key, so that a long outbox costs no more than a short one.
        let lanes: Vec<(Uuid, i64)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT lane, id FROM outbox o
             WHERE id > $2 AND created_at < now() - make_interval(secs => $1)
               AND NOT EXISTS (SELECT FROM outbox e WHERE e.lane = o.lane AND e.id < o.id)
             ORDER BY id LIMIT $3",
                )
                .bind(older_than.as_secs_f64())
                .bind(after)
                .bind(i64::from(limit))
                .fetch_all(db)
                .await
            })
            .await?;
        Ok(lanes.into_iter().map(|(lane, first)| WaitingLane { lane, first }).collect())
    }

    /// How many changes wait, counted up to `most`, and for how long the oldest has.
    pub async fn outbox_backlog(&self, most: u32) -> Result<OutboxBacklog> {
        // Along the primary key: a long outbox costs no more than `most`.
        let (changes, seconds): (i64, f64) = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT (SELECT count(*) FROM (SELECT id FROM outbox ORDER BY id LIMIT $1) o),
                            COALESCE((SELECT EXTRACT(EPOCH FROM now() - created_at)
                                      FROM outbox ORDER BY id LIMIT 1), 0)::float8",
                )
                .bind(i64::from(most))
                .fetch_one(db)
                .await
            })
            .await?;
        let age = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Ok(OutboxBacklog { changes: u64::try_from(changes).unwrap_or(0), age })
    }

    /// Publishes what waits on a lane, in order, through `publish(feed, message id, entry)`,
    /// which returns the place that the broker gave the entry. The message id makes a repeat
    /// harmless: for the same one the broker must return the first place.
    ///
    /// # Errors
    /// [`RelayError`]; nothing is lost, and a later relay continues.
    pub async fn relay<F, P, E>(
        &self,
        lane: Uuid,
        publish: F,
    ) -> std::result::Result<Relayed, RelayError<E>>
    where
        F: Fn(Feed, String, Entry) -> P,
        P: Future<Output = std::result::Result<Seq, E>>,
        E: std::error::Error + 'static,
    {
        let mut relayed = Relayed::default();
        let permit = tokio::time::timeout(PERMIT_WAIT, self.relays.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            relayed.left = true;
            return Ok(relayed);
        };
        for _ in 0..STEPS {
            match self.step(lane, &publish).await? {
                Step::Done => relayed.items += 1,
                Step::Taken => {
                    relayed.left = true;
                    return Ok(relayed);
                }
                // Whoever committed a row while this relay still held the lane has passed it by
                // as taken, and relies on this second look, after the lane was let go.
                Step::Empty if !self.waiting(lane).await? => return Ok(relayed),
                Step::ChatPublished | Step::Empty => {}
            }
        }
        relayed.left = true;
        Ok(relayed)
    }
}

/// How far one transaction brought a lane.
enum Step {
    /// Its first row's entry for the chat is published, and its place kept.
    ChatPublished,
    /// Its first row is done with.
    Done,
    /// Somebody else has it.
    Taken,
    /// Nothing waits.
    Empty,
}

#[derive(sqlx::FromRow)]
struct OutboxRow {
    id: i64,
    committed_us: i64,
    payload: Json<OutboxItem>,
    chat_seq: Option<i64>,
}

impl OutboxRow {
    /// What the ids of its entries begin with. A database that was restored gives the numbers of rows
    /// again, and the broker may still know what came of them: the time keeps two such rows apart,
    /// and is the same in a row that has been restored itself.
    fn msg_id(&self) -> String {
        format!("ob.{}.{}", self.id, self.committed_us)
    }
}

impl Store {
    /// One transaction: the lane's first row, one step further. The chat's place is committed
    /// before any user's entry names it, so a relay that dies leaves either the place that stands
    /// or none, and then the repeated publish gets the same one by its message id. (Only when it
    /// is repeated after the broker's window for duplicates does the chat's feed hold the change
    /// twice, with one `version`.)
    async fn step<F, P, E>(
        &self,
        lane: Uuid,
        publish: &F,
    ) -> std::result::Result<Step, RelayError<E>>
    where
        F: Fn(Feed, String, Entry) -> P,
        P: Future<Output = std::result::Result<Seq, E>>,
        E: std::error::Error + 'static,
    {
        // Rolled back or not, the lane is free when this returns: the second look of the caller,
        // and a retry, rely on it.
        self.transaction_of(STEP, async |tx| advance(tx, lane, publish).await).await
    }

    async fn waiting(&self, lane: Uuid) -> Result<bool> {
        let waiting = self
            .call(async |db| {
                sqlx::query_scalar("SELECT EXISTS (SELECT FROM outbox WHERE lane = $1)")
                    .bind(lane)
                    .fetch_one(db)
                    .await
            })
            .await?;
        Ok(waiting)
    }
}

async fn advance<F, P, E>(
    tx: &mut PgConnection,
    lane: Uuid,
    publish: &F,
) -> std::result::Result<Step, RelayError<E>>
where
    F: Fn(Feed, String, Entry) -> P,
    P: Future<Output = std::result::Result<Seq, E>>,
    E: std::error::Error + 'static,
{
    if !take(tx, lane).await? {
        return Ok(Step::Taken);
    }
    let Some(row) = first(tx, lane).await? else {
        return Ok(Step::Empty);
    };
    let msg_id = row.msg_id();
    let Json(item) = row.payload;
    Ok(match (&item.chat, row.chat_seq) {
        (Some(chat), None) => {
            let place = publish_chat(&msg_id, chat, publish).await?;
            keep_place(tx, row.id, &item, chat, place).await?;
            Step::ChatPublished
        }
        (chat, place) => {
            let place = place.map_or(0, seq);
            publish_users(&msg_id, chat.as_ref(), place, &item.users, publish).await?;
            finish(tx, row.id).await?;
            Step::Done
        }
    })
}

/// Adds a change to a lane whose order the caller holds by a lock.
pub(crate) async fn add(tx: &mut PgConnection, lane: Uuid, item: OutboxItem) -> Result<()> {
    sqlx::query("INSERT INTO outbox (lane, payload) VALUES ($1, $2)")
        .bind(lane)
        .bind(Json(item))
        .execute(tx)
        .await?;
    Ok(())
}

/// Adds a change that only one user's feed hears of. Returns the lane.
pub(crate) async fn add_for_user(
    tx: &mut PgConnection,
    user: UserId,
    shard: Shard,
    change: UserChange,
) -> Result<Uuid> {
    let item = OutboxItem { chat: None, users: vec![OutboxUser { user_id: user, shard, change }] };
    add(tx, user.0, item).await?;
    Ok(user.0)
}

/// Takes the lane until the transaction ends, unless somebody has it. This is a statement of its
/// own: what is read after it sees all that the one before has committed.
async fn take(tx: &mut PgConnection, lane: Uuid) -> Result<bool> {
    let (high, low) = lane.as_u64_pair();
    let taken = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind((high ^ low).cast_signed())
        .fetch_one(tx)
        .await?;
    Ok(taken)
}

async fn first(tx: &mut PgConnection, lane: Uuid) -> Result<Option<OutboxRow>> {
    let row = sqlx::query_as(
        "SELECT id, (extract(epoch FROM created_at) * 1000000)::bigint AS committed_us, payload, chat_seq
         FROM outbox WHERE lane = $1 ORDER BY id LIMIT 1",
    )
    .bind(lane)
    .fetch_optional(tx)
    .await?;
    Ok(row)
}

async fn publish_chat<F, P, E>(
    msg_id: &str,
    chat: &OutboxChat,
    publish: &F,
) -> std::result::Result<Seq, RelayError<E>>
where
    F: Fn(Feed, String, Entry) -> P,
    P: Future<Output = std::result::Result<Seq, E>>,
    E: std::error::Error + 'static,
{
    let entry = Entry { origin: None, event: Event::System(chat.event.clone()) };
    let feed = Feed::chat(chat.shard, chat.chat_id);
    publish(feed, format!("{msg_id}.c"), entry).await.map_err(RelayError::Publish)
}

/// Each user has one entry of a row, on a feed of its own: their order does not matter.
async fn publish_users<F, P, E>(
    msg_id: &str,
    chat: Option<&OutboxChat>,
    place: Seq,
    users: &[OutboxUser],
    publish: &F,
) -> std::result::Result<(), RelayError<E>>
where
    F: Fn(Feed, String, Entry) -> P,
    P: Future<Output = std::result::Result<Seq, E>>,
    E: std::error::Error + 'static,
{
    let entries: Vec<(Feed, String, Entry)> = users
        .iter()
        .filter_map(|user| {
            let entry = Entry { origin: None, event: event_of(chat, place, &user.change)? };
            let feed = Feed::user(user.shard, user.user_id);
            Some((feed, format!("{msg_id}.{}", user.user_id), entry))
        })
        .collect();
    stream::iter(entries)
        .map(|(feed, id, entry)| publish(feed, id, entry))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(async |_| Ok(()))
        .await
        .map_err(RelayError::Publish)
}

/// None for a change of a chat in an item without one, which nobody writes.
fn event_of(chat: Option<&OutboxChat>, place: Seq, change: &UserChange) -> Option<Event> {
    Some(match change {
        UserChange::Added { me } => {
            let chat = chat?;
            let mut view = chat.view.clone()?;
            view.me = Some(Me { read_seq: place, ..me.clone() });
            view.last_seq = view.last_seq.max(place);
            Event::ChatAdded(Box::new(ChatAdded { chat: view, shard: chat.shard, from_seq: place }))
        }
        UserChange::Removed => {
            let chat = chat?;
            let (chat_id, shard) = (chat.chat_id, Some(chat.shard));
            Event::ChatRemoved(ChatRemoved { chat_id, until_seq: place, shard })
        }
        UserChange::DeviceRevoked(revoked) => Event::DeviceRevoked(revoked.clone()),
        UserChange::DeviceAdded(added) => Event::DeviceAdded(*added),
        UserChange::ProfileChanged(changed) => Event::ProfileChanged(changed.clone()),
        UserChange::ChatUpdated(chat) => Event::ChatUpdated(chat.clone()),
        UserChange::Blocking(blocking) => Event::Blocking(*blocking),
        UserChange::Disabled => Event::Disabled,
    })
}

/// Notes the chat's place in the row, and in the memberships that the row is about. That is before
/// any user's feed tells of it: who reads a membership without its place will hear of it there. A
/// membership that has changed again since has another version, and a later row of the lane for
/// its place.
async fn keep_place(
    tx: &mut PgConnection,
    row: i64,
    item: &OutboxItem,
    chat: &OutboxChat,
    place: Seq,
) -> Result<()> {
    let of = |wanted: fn(&UserChange) -> bool| -> Vec<Uuid> {
        let users = item.users.iter().filter(|user| wanted(&user.change));
        users.map(|user| user.user_id.0).collect()
    };
    let added = of(|change| matches!(change, UserChange::Added { .. }));
    let removed = of(|change| matches!(change, UserChange::Removed));
    sqlx::query(
        "UPDATE chat_members SET
             from_seq = CASE WHEN user_id = ANY($3) THEN $5 ELSE from_seq END,
             until_seq = CASE WHEN user_id = ANY($4) THEN $5 ELSE until_seq END
         WHERE chat_id = $1 AND user_id IN (
             -- In the order in which workers lock them.
             SELECT user_id FROM chat_members
             WHERE chat_id = $1 AND version = $2 AND (user_id = ANY($3) OR user_id = ANY($4))
             ORDER BY user_id FOR NO KEY UPDATE
         )",
    )
    .bind(chat.chat_id.0)
    .bind(chat.event.version)
    .bind(added)
    .bind(removed)
    .bind(sql_seq(place))
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE outbox SET chat_seq = $2 WHERE id = $1")
        .bind(row)
        .bind(sql_seq(place))
        .execute(&mut *tx)
        .await?;
    if chat.event.kind == SystemKind::Deleted {
        keep_end(tx, chat, place).await?;
    }
    Ok(())
}

/// The same for the end of a chat, which is told in several rows when it is about many users: it has
/// one place, noted in all of them.
async fn keep_end(tx: &mut PgConnection, chat: &OutboxChat, place: Seq) -> Result<()> {
    sqlx::query("UPDATE chat_members SET until_seq = $3 WHERE chat_id = $1 AND version = $2")
        .bind(chat.chat_id.0)
        .bind(chat.event.version)
        .bind(sql_seq(place))
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "UPDATE outbox SET chat_seq = $3
         WHERE lane = $1 AND payload->'chat'->'event'->'version' = $2",
    )
    .bind(chat.chat_id.0)
    .bind(Json(chat.event.version))
    .bind(sql_seq(place))
    .execute(tx)
    .await?;
    Ok(())
}

async fn finish(tx: &mut PgConnection, row: i64) -> Result<()> {
    sqlx::query("DELETE FROM outbox WHERE id = $1").bind(row).execute(tx).await?;
    Ok(())
}
