//! Which partition of `messages` holds a chat.
//!
//! A statement that names the table itself is planned anew each time, since a plan for any chat has to
//! lock every partition: twice the work of running it. What is asked very often names the partition,
//! and is planned once for each connection.
//!
//! What names many messages, of any chats, looks each up by a lateral query with a limit of 1, which goes
//! to one partition. Of a plain join Postgres reckons every row with all partitions, so that from some
//! hundred rows on it would rather read all messages, the more of them the longer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sqlx::PgConnection;
use uuid::Uuid;

/// As many as `0003_messages.sql` makes. That cannot change without writing the table anew.
pub(crate) const PARTITIONS: usize = 16;
/// Chats that are remembered: 32 bytes or so each.
const KNOWN: usize = 65_536;

/// A statement for each partition, by its number. What else belongs to messages is partitioned alike.
macro_rules! of_partitions {
    ($statement:ident $(, $argument:literal)*) => {
        [
            $statement!($($argument,)* "p00"),
            $statement!($($argument,)* "p01"),
            $statement!($($argument,)* "p02"),
            $statement!($($argument,)* "p03"),
            $statement!($($argument,)* "p04"),
            $statement!($($argument,)* "p05"),
            $statement!($($argument,)* "p06"),
            $statement!($($argument,)* "p07"),
            $statement!($($argument,)* "p08"),
            $statement!($($argument,)* "p09"),
            $statement!($($argument,)* "p10"),
            $statement!($($argument,)* "p11"),
            $statement!($($argument,)* "p12"),
            $statement!($($argument,)* "p13"),
            $statement!($($argument,)* "p14"),
            $statement!($($argument,)* "p15"),
        ]
    };
}
pub(crate) use of_partitions;

/// The partitions of chats that were asked for. Cloning shares them.
#[derive(Clone, Default)]
pub(crate) struct Partitions(Arc<Mutex<HashMap<Uuid, u8>>>);

impl Partitions {
    /// The number of a chat's partition. How Postgres hashes is for Postgres to say.
    pub(crate) async fn of(&self, db: &mut PgConnection, chat: Uuid) -> sqlx::Result<usize> {
        if let Some(known) = self.known().get(&chat) {
            return Ok(usize::from(*known));
        }
        let number: i32 = sqlx::query_scalar(
            "SELECT n FROM generate_series(0, $2 - 1) AS n
             WHERE satisfies_hash_partition('messages'::regclass, $2, n, $1)",
        )
        .bind(chat)
        .bind(PARTITIONS as i32)
        .fetch_one(db)
        .await?;
        let number = u8::try_from(number).unwrap_or(0);
        let mut known = self.known();
        // All can be asked for again, so forgetting them is cheaper than keeping their order.
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(chat, number);
        Ok(usize::from(number))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Uuid, u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
