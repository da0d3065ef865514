//! Users and their devices.

use std::collections::{HashMap, HashSet};

use natter_protocol::ids::Shard;
use sqlx::{PgConnection, Postgres, postgres::PgArguments, query::QueryAs};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Brought, Trouble, bounded, chats::count_members};
use crate::{
    Conflict, Result, Store, StoreError,
    rows::{fold, sql_shard},
};

/// Somebody may register with the phone number of one of a batch while that is written: so often it is
/// looked again.
const LOOKS: usize = 5;

/// Somebody who had an account there.
#[derive(Clone)]
pub struct ImportedUser {
    /// The user's id here.
    pub id: Uuid,
    /// Shown to others.
    pub name: String,
    /// To log in with, if nobody else has it.
    pub phone: Option<String>,
    /// Likewise.
    pub email: Option<String>,
    /// As it was there: bcrypt, or a PHC string of argon2.
    pub password_hash: Option<String>,
    /// Where the user's feed lives.
    pub shard: Shard,
    /// When the account was made.
    pub created_at: OffsetDateTime,
    /// When it was deleted.
    pub deleted_at: Option<OffsetDateTime>,
}

/// Without whatever tells who it is.
impl std::fmt::Debug for ImportedUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImportedUser").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A device of one of them, which is not logged in here.
#[derive(Clone, Debug)]
pub struct ImportedDevice {
    /// The device's id here.
    pub id: Uuid,
    /// Whose.
    pub user: Uuid,
    /// As its user sees it.
    pub name: Option<String>,
    /// `web`, `ios`, `android`, …
    pub platform: Option<String>,
    /// When it was first seen.
    pub created_at: OffsetDateTime,
    /// When it was last seen.
    pub last_seen_at: Option<OffsetDateTime>,
}

/// A user as written.
type Login = (Uuid, Option<String>, Option<String>);

pub(super) async fn users(tx: &mut PgConnection, users: &[ImportedUser]) -> Result<Brought> {
    let mut brought = Brought::default();
    let mut left: Vec<usize> = (0..users.len()).collect();
    for _ in 0..LOOKS {
        if left.is_empty() {
            return Ok(brought);
        }
        let batch: Vec<&ImportedUser> = left.iter().map(|nth| &users[*nth]).collect();
        let mut written: HashMap<Uuid, (Option<String>, Option<String>)> = HashMap::new();
        let by_id = |(id, phone, email)| (id, (phone, email));
        written.extend(insert(tx, &batch).await?.into_iter().map(by_id));
        let of_old = batch.iter().filter(|user| !written.contains_key(&user.id));
        let of_old: Vec<&ImportedUser> = of_old.copied().collect();
        written.extend(revive(tx, &of_old).await?.into_iter().map(by_id));
        let missing: Vec<Uuid> =
            batch.iter().map(|user| user.id).filter(|id| !written.contains_key(id)).collect();
        let there = existing(tx, &missing).await?;
        let mut again = Vec::new();
        for nth in left {
            let user = &users[nth];
            if let Some((phone, email)) = written.get(&user.id) {
                brought.written += 1;
                if user.phone.is_some() && phone.is_none() {
                    brought.troubles.push((nth, Trouble::PhoneTaken));
                }
                if user.email.is_some() && email.is_none() {
                    brought.troubles.push((nth, Trouble::EmailTaken));
                }
            } else if there.contains(&user.id) {
                brought.there += 1;
            } else {
                again.push(nth);
            }
        }
        left = again;
    }
    if left.is_empty() { Ok(brought) } else { Err(StoreError::Conflict(Conflict::Phone)) }
}

/// Users of a batch, with what they may log in with: of a phone number or an e-mail address that several
/// have, the first keeps it.
macro_rules! logins {
    () => {
        "(
             SELECT id, name, name_lower, password_hash, shard, created_at, deleted_at,
                    CASE WHEN row_number() OVER (PARTITION BY phone ORDER BY n) = 1 AND NOT EXISTS (
                        SELECT FROM users u WHERE u.phone = b.phone) THEN phone END AS phone,
                    CASE WHEN free THEN email END AS email,
                    CASE WHEN free THEN email_lower END AS email_lower
             FROM (
                 SELECT *, row_number() OVER (PARTITION BY email_lower ORDER BY n) = 1 AND NOT EXISTS (
                            SELECT FROM users u WHERE u.email_lower = g.email_lower) AS free
                 FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
                             $7::text[], $8::smallint[], $9::timestamptz[], $10::timestamptz[])
                      WITH ORDINALITY AS g (id, name, name_lower, phone, email, email_lower,
                           password_hash, shard, created_at, deleted_at, n)
             ) b
         ) e"
    };
}

type Writing<'q> = QueryAs<'q, Postgres, Login, PgArguments>;

async fn insert(tx: &mut PgConnection, users: &[&ImportedUser]) -> Result<Vec<Login>> {
    let writing = sqlx::query_as(concat!(
        "INSERT INTO users (id, name, name_lower, phone, email, email_lower, password_hash, shard,
                            created_at, deleted_at)
         SELECT id, name, name_lower, phone, email, email_lower, password_hash, shard, created_at,
                deleted_at
         FROM ",
        logins!(),
        " ON CONFLICT DO NOTHING RETURNING id, phone, email"
    ));
    Ok(bound(writing, users).fetch_all(tx).await?)
}

/// Whoever came to the old system while it was read, and said something there, has been taken to be gone.
/// Who has deleted their account here stays so.
async fn revive(tx: &mut PgConnection, users: &[&ImportedUser]) -> Result<Vec<Login>> {
    let alive: Vec<&ImportedUser> =
        users.iter().filter(|user| user.deleted_at.is_none()).copied().collect();
    if alive.is_empty() {
        return Ok(Vec::new());
    }
    let writing = sqlx::query_as(concat!(
        "UPDATE users u SET name = e.name, name_lower = e.name_lower, phone = e.phone, email = e.email,
             email_lower = e.email_lower, password_hash = e.password_hash, created_at = e.created_at,
             deleted_at = NULL
         FROM ",
        logins!(),
        " WHERE u.id = e.id AND u.deleted_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM erasures x WHERE x.user_id = u.id)
          RETURNING u.id, u.phone, u.email"
    ));
    let revived: Vec<Login> = bound(writing, &alive).fetch_all(&mut *tx).await?;
    if !revived.is_empty() {
        take_part_again(tx, &revived.iter().map(|(id, ..)| *id).collect::<Vec<_>>()).await?;
    }
    Ok(revived)
}

/// They take part in the groups that they had been in until they joined, and one-to-ones with them are open
/// unless one of the two blocks the other.
async fn take_part_again(tx: &mut PgConnection, users: &[Uuid]) -> Result<()> {
    let groups: Vec<Uuid> = sqlx::query_scalar(
        "UPDATE chat_members SET left_at = NULL, until_seq = NULL
         WHERE user_id = ANY($1) AND left_at = joined_at RETURNING chat_id",
    )
    .bind(users)
    .fetch_all(&mut *tx)
    .await?;
    count_members(tx, &groups).await?;
    sqlx::query(
        "UPDATE chats c SET shut = false
         WHERE c.shut AND NOT c.is_group
           AND c.id IN (SELECT chat_id FROM chat_members WHERE user_id = ANY($1))
           AND NOT EXISTS (
               SELECT FROM chat_members m JOIN users u ON u.id = m.user_id
               WHERE m.chat_id = c.id AND u.deleted_at IS NOT NULL)
           AND NOT EXISTS (
               SELECT FROM chat_members m JOIN chat_members o USING (chat_id)
               JOIN blocks b ON b.user_id = m.user_id AND b.blocked_id = o.user_id
               WHERE m.chat_id = c.id)",
    )
    .bind(users)
    .execute(tx)
    .await?;
    Ok(())
}

fn bound<'q>(writing: Writing<'q>, users: &[&ImportedUser]) -> Writing<'q> {
    let texts = |of: fn(&ImportedUser) -> Option<String>| -> Vec<Option<String>> {
        users.iter().map(|user| of(user)).collect()
    };
    writing
        .bind(users.iter().map(|user| user.id).collect::<Vec<_>>())
        .bind(users.iter().map(|user| user.name.clone()).collect::<Vec<_>>())
        .bind(users.iter().map(|user| fold(&user.name)).collect::<Vec<_>>())
        .bind(texts(|user| user.phone.clone()))
        .bind(texts(|user| user.email.clone()))
        .bind(texts(|user| user.email.as_deref().map(fold)))
        .bind(texts(|user| user.password_hash.clone()))
        .bind(users.iter().map(|user| sql_shard(user.shard)).collect::<Vec<_>>())
        .bind(users.iter().map(|user| bounded(user.created_at)).collect::<Vec<_>>())
        .bind(users.iter().map(|user| user.deleted_at.map(bounded)).collect::<Vec<_>>())
}

/// Those of them that there are.
pub(super) async fn existing(tx: &mut PgConnection, users: &[Uuid]) -> Result<HashSet<Uuid>> {
    if users.is_empty() {
        return Ok(HashSet::new());
    }
    let there: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM users WHERE id = ANY($1)")
        .bind(users)
        .fetch_all(tx)
        .await?;
    Ok(there.into_iter().collect())
}

pub(super) async fn devices(tx: &mut PgConnection, devices: &[ImportedDevice]) -> Result<Brought> {
    let written: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO devices (id, user_id, name, platform, created_at, last_seen_at)
         SELECT e.id, e.user_id, e.name, e.platform, e.created_at, e.last_seen_at
         FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[],
                     $6::timestamptz[])
              AS e (id, user_id, name, platform, created_at, last_seen_at)
         JOIN users u ON u.id = e.user_id AND u.deleted_at IS NULL
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(devices.iter().map(|device| device.id).collect::<Vec<_>>())
    .bind(devices.iter().map(|device| device.user).collect::<Vec<_>>())
    .bind(devices.iter().map(|device| device.name.clone()).collect::<Vec<_>>())
    .bind(devices.iter().map(|device| device.platform.clone()).collect::<Vec<_>>())
    .bind(devices.iter().map(|device| bounded(device.created_at)).collect::<Vec<_>>())
    .bind(devices.iter().map(|device| device.last_seen_at.map(bounded)).collect::<Vec<_>>())
    .fetch_all(&mut *tx)
    .await?;
    let written: HashSet<Uuid> = written.into_iter().collect();
    let missing: Vec<Uuid> =
        devices.iter().map(|device| device.id).filter(|id| !written.contains(id)).collect();
    let there: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM devices WHERE id = ANY($1)")
        .bind(missing)
        .fetch_all(tx)
        .await?;
    let there: HashSet<Uuid> = there.into_iter().collect();
    let mut brought = Brought { written: written.len() as u64, ..Brought::default() };
    for (nth, device) in devices.iter().enumerate() {
        if there.contains(&device.id) {
            brought.there += 1;
        } else if !written.contains(&device.id) {
            brought.troubles.push((nth, Trouble::NoUser));
        }
    }
    Ok(brought)
}

/// What would be wrong.
impl Store {
    /// Those of these users whose phone number or e-mail address somebody else here has, by their
    /// number among them.
    pub async fn logins_taken(&self, users: &[ImportedUser]) -> Result<Vec<(usize, Trouble)>> {
        let taken: Vec<(i64, bool, bool)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT e.n,
                            EXISTS (SELECT FROM users u WHERE u.phone = e.phone AND u.id <> e.id),
                            EXISTS (SELECT FROM users u
                                    WHERE u.email_lower = e.email AND u.id <> e.id)
                     FROM unnest($1::uuid[], $2::text[], $3::text[])
                          WITH ORDINALITY AS e (id, phone, email, n)",
                )
                .bind(users.iter().map(|user| user.id).collect::<Vec<_>>())
                .bind(users.iter().map(|user| user.phone.clone()).collect::<Vec<_>>())
                .bind(users.iter().map(|user| user.email.as_deref().map(fold)).collect::<Vec<_>>())
                .fetch_all(db)
                .await
            })
            .await?;
        let mut troubles = Vec::new();
        for (n, phone, email) in taken {
            let nth = usize::try_from(n - 1).unwrap_or_default();
            troubles.extend(phone.then_some((nth, Trouble::PhoneTaken)));
            troubles.extend(email.then_some((nth, Trouble::EmailTaken)));
        }
        Ok(troubles)
    }
}
