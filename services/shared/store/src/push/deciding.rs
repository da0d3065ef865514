use std::collections::{HashMap, HashSet};

use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, Seq, UserId},
    notify::PushReason,
    push::Provider,
};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{letter, provider, words};
use crate::{
    Result, Store,
    reads::read_seq,
    rows::{seq, sql_seq},
};

/// Participants in one page.
pub const PUSH_PAGE: usize = 500;
/// Devices of one user that are notified: those that have registered last.
const DEVICES: i64 = 20;

/// Somebody who takes part in a chat, with all that it depends on whether they are notified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Who.
    pub user: UserId,
    /// Where in the chat's feed they came in; none while nobody knows.
    pub from_seq: Option<Seq>,
    /// How far they have read.
    pub read_seq: Seq,
    /// They have muted the chat.
    pub muted: bool,
    /// They want to be notified of mentions all the same.
    pub mentions_through_mute: bool,
    /// These are their quiet hours.
    pub quiet: bool,
    /// Whom of the senders they have blocked.
    pub blocked: Vec<UserId>,
    /// Where their devices are notified.
    pub targets: Vec<RecipientTarget>,
}

/// Where a device is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecipientTarget {
    /// The device.
    pub device: DeviceId,
    /// Who carries it.
    pub provider: Provider,
    /// The target, by its id.
    pub id: Uuid,
}

/// How far it has been decided about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushProgress {
    /// About all up to this participant.
    UpTo(UserId),
    /// About all.
    Done,
}

/// What was decided about a page of a message's recipients.
#[derive(Clone, Debug)]
pub struct Decided {
    /// The message.
    pub message: MessageId,
    /// Of which chat.
    pub chat: ChatId,
    /// Where in its feed.
    pub seq: Seq,
    /// The page is of the participants behind this one.
    pub after: UserId,
    /// Its last one; none for the last page.
    pub upto: Option<UserId>,
    /// Who is not notified, and why.
    pub skipped: Vec<(UserId, PushReason)>,
    /// Nobody was looked at, for this reason.
    pub whole: Option<PushReason>,
    /// Which devices are notified.
    pub pushes: Vec<NewPush>,
}

/// A device that is to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPush {
    /// Whose it is.
    pub user: UserId,
    /// Where.
    pub target: RecipientTarget,
    /// The message names the user.
    pub mentioned: bool,
}

#[derive(sqlx::FromRow)]
struct Row {
    place: i64,
    user_id: Uuid,
    from_seq: Option<i64>,
    read_seq: i64,
    muted: bool,
    mentions_through_mute: bool,
    quiet: bool,
    blocked: Vec<Uuid>,
}

impl Row {
    fn recipient(self, targets: &HashMap<Uuid, Vec<RecipientTarget>>) -> Recipient {
        Recipient {
            user: self.user_id.into(),
            from_seq: self.from_seq.map(seq),
            read_seq: seq(self.read_seq),
            muted: self.muted,
            mentions_through_mute: self.mentions_through_mute,
            quiet: self.quiet,
            blocked: self.blocked.into_iter().map(Into::into).collect(),
            targets: targets.get(&self.user_id).cloned().unwrap_or_default(),
        }
    }
}

/// Who is notified.
impl Store {
    /// Those who take part in each of these chats behind a participant, by their ids, [`PUSH_PAGE`] of each
    /// at most; with whom of `senders` they have blocked, and where they are notified by `providers`.
    pub async fn push_pages(
        &self,
        of: &[(ChatId, UserId)],
        senders: &[UserId],
        providers: &[Provider],
    ) -> Result<Vec<Vec<Recipient>>> {
        let (chats, afters): (Vec<Uuid>, Vec<Uuid>) =
            of.iter().map(|(chat, after)| (chat.0, after.0)).unzip();
        let senders: Vec<Uuid> = senders.iter().map(|sender| sender.0).collect();
        let (rows, targets) = self
            .call(async |db| {
                let rows: Vec<Row> = sqlx::query_as(concat!(
                    "SELECT p.place, m.user_id, m.from_seq, ",
                    read_seq!(),
                    " AS read_seq, COALESCE(m.muted_until > now(), false) AS muted,
                        COALESCE(n.mentions_through_mute, true) AS mentions_through_mute,
                        COALESCE(quiet_now(n.quiet_from, n.quiet_until, n.time_zone), false) AS quiet,
                        ARRAY(SELECT b.blocked_id FROM blocks b
                              WHERE b.user_id = m.user_id AND b.blocked_id = ANY($3)) AS blocked
                     FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS p (chat_id, after, place)
                     CROSS JOIN LATERAL (
                         SELECT * FROM chat_members
                         WHERE chat_id = p.chat_id AND user_id > p.after AND left_at IS NULL
                         ORDER BY user_id LIMIT $4
                     ) m
                     LEFT JOIN notification_settings n ON n.user_id = m.user_id
                     ORDER BY p.place, m.user_id"
                ))
                .bind(chats)
                .bind(afters)
                .bind(senders)
                .bind(PUSH_PAGE as i64)
                .fetch_all(&mut *db)
                .await?;
                let mut users: Vec<Uuid> = rows.iter().map(|row| row.user_id).collect();
                users.sort_unstable();
                users.dedup();
                let targets = targets(db, &users, providers).await?;
                Ok::<_, sqlx::Error>((rows, targets))
            })
            .await?;
        let mut pages = vec![Vec::new(); of.len()];
        for row in rows {
            // Places count from 1.
            let place = usize::try_from(row.place - 1).unwrap_or(usize::MAX);
            if let Some(page) = pages.get_mut(place) {
                page.push(row.recipient(&targets));
            }
        }
        Ok(pages)
    }

    /// Whether it has ever been decided about a message, as far as that is still known.
    pub async fn push_began(&self) -> Result<bool> {
        self.call(async |db| {
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM push_decisions)").fetch_one(db).await
        })
        .await
    }

    /// How far it has been decided about these messages; nothing of those about which it has not.
    pub async fn push_progress(
        &self,
        messages: &[MessageId],
    ) -> Result<HashMap<MessageId, PushProgress>> {
        let ids: Vec<Uuid> = messages.iter().map(|message| message.0).collect();
        let rows: Vec<(Uuid, Option<Uuid>)> = self
            .call(async |db| {
                sqlx::query_as(
                    // A look-up for each, also while Postgres knows nothing of what the table holds.
                    "SELECT p.message_id, d.upto_user FROM unnest($1::uuid[]) AS p (message_id)
                     CROSS JOIN LATERAL (
                         SELECT upto_user FROM push_decisions WHERE message_id = p.message_id
                         ORDER BY after_user DESC LIMIT 1
                     ) d",
                )
                .bind(ids)
                .fetch_all(db)
                .await
            })
            .await?;
        let progress = |upto: Option<Uuid>| {
            upto.map_or(PushProgress::Done, |user| PushProgress::UpTo(user.into()))
        };
        Ok(rows.into_iter().map(|(id, upto)| (id.into(), progress(upto))).collect())
    }

    /// Which of these places of chats are messages, and whether they are still shown. One that is at none
    /// of them may yet come at another: what a log that was made anew has salvaged of the one before.
    pub async fn still_there(
        &self,
        places: &[(ChatId, Seq)],
    ) -> Result<HashMap<(ChatId, Seq), bool>> {
        let (chats, seqs): (Vec<Uuid>, Vec<i64>) =
            places.iter().map(|(chat, place)| (chat.0, sql_seq(*place))).unzip();
        let found: Vec<(Uuid, i64, bool)> = self
            .call(async |db| {
                // With its limit each look is one of its own, into one partition.
                sqlx::query_as(
                    "SELECT p.chat_id, p.seq, m.deleted_at IS NULL AND p.seq > c.expired_seq
                     FROM unnest($1::uuid[], $2::bigint[]) AS p (chat_id, seq)
                     CROSS JOIN LATERAL (
                         SELECT deleted_at FROM messages
                         WHERE chat_id = p.chat_id AND seq = p.seq AND kind = 'message' LIMIT 1
                     ) m
                     JOIN chats c ON c.id = p.chat_id",
                )
                .bind(chats)
                .bind(seqs)
                .fetch_all(db)
                .await
            })
            .await?;
        let found = found.into_iter();
        Ok(found.map(|(chat, place, shown)| ((chat.into(), seq(place)), shown)).collect())
    }

    /// Keeps what was decided about a page, of several messages perhaps. Which notifications are new,
    /// as places in `decided` and in its pushes: what another worker has decided meanwhile stays.
    pub async fn keep_decisions(&self, decided: &[Decided]) -> Result<Vec<(usize, usize)>> {
        if decided.iter().all(|page| page.pushes.is_empty()) {
            self.call(async |db| insert(db, decided).await.map(drop)).await?;
            return Ok(Vec::new());
        }
        self.transaction(async |tx| {
            let new = insert(tx, decided).await?;
            let mut kept = Vec::new();
            for (at, page) in decided.iter().enumerate() {
                if !page.pushes.is_empty() && new.contains(&(page.message.0, page.after.0)) {
                    let new = keep_pushes(tx, page).await?;
                    let places = page.pushes.iter().enumerate();
                    let places = places.filter(|(_, push)| new.contains(&push.target.device.0));
                    kept.extend(places.map(|(place, _)| (at, place)));
                }
            }
            Ok(kept)
        })
        .await
    }

    /// Notifications of a message that wait to be sent, behind a device.
    pub async fn queued_pushes(
        &self,
        message: MessageId,
        after: DeviceId,
    ) -> Result<Vec<(DeviceId, Provider)>> {
        let rows: Vec<(Uuid, String)> = self
            .call(async |db| {
                sqlx::query_as(
                    "SELECT device_id, provider FROM pushes
                     WHERE message_id = $1 AND device_id > $2 AND state = 'queued'
                     ORDER BY device_id LIMIT $3",
                )
                .bind(message.0)
                .bind(after.0)
                .bind(PUSH_PAGE as i64)
                .fetch_all(db)
                .await
            })
            .await?;
        let known = |(device, word): (Uuid, String)| Some((device.into(), provider(&word)?));
        Ok(rows.into_iter().filter_map(known).collect())
    }
}

async fn targets(
    db: &mut PgConnection,
    users: &[Uuid],
    providers: &[Provider],
) -> sqlx::Result<HashMap<Uuid, Vec<RecipientTarget>>> {
    let rows: Vec<(Uuid, Uuid, String, Uuid)> = sqlx::query_as(
        "SELECT u.id, t.device_id, t.provider, t.id
         FROM users u
         CROSS JOIN LATERAL (
             SELECT device_id, provider, id FROM push_targets
             WHERE user_id = u.id AND target IS NOT NULL AND provider = ANY($2)
               AND (expires_at IS NULL OR expires_at > now())
             ORDER BY set_at DESC LIMIT $3
         ) t
         WHERE u.id = ANY($1) AND u.disabled_at IS NULL",
    )
    .bind(users)
    .bind(words(providers))
    .bind(DEVICES)
    .fetch_all(db)
    .await?;
    let mut found: HashMap<Uuid, Vec<RecipientTarget>> = HashMap::new();
    for (user, device, word, id) in rows {
        if let Some(provider) = provider(&word) {
            let target = RecipientTarget { device: device.into(), provider, id };
            found.entry(user).or_default().push(target);
        }
    }
    Ok(found)
}

/// Keeps these pages, by one statement: of most messages that is all there is to keep. Which are new,
/// by message and `after`.
async fn insert(tx: &mut PgConnection, decided: &[Decided]) -> sqlx::Result<HashSet<(Uuid, Uuid)>> {
    // SQL has no arrays of arrays of several lengths: all pages' users stand in one, and of each page
    // where its own begin and end, counted from 1.
    let (mut users, mut reasons) = (Vec::<Uuid>::new(), Vec::<i8>::new());
    let (mut firsts, mut lasts) = (Vec::<i32>::new(), Vec::<i32>::new());
    for page in decided {
        let first = users.len() + 1;
        users.extend(page.skipped.iter().map(|(user, _)| user.0));
        reasons.extend(page.skipped.iter().map(|(_, reason)| letter(*reason)));
        firsts.push(i32::try_from(first).unwrap_or(i32::MAX));
        lasts.push(i32::try_from(users.len()).unwrap_or(i32::MAX));
    }
    let column = |of: fn(&Decided) -> Uuid| decided.iter().map(of).collect::<Vec<_>>();
    let new: Vec<(Uuid, Uuid)> = sqlx::query_as(
        r#"INSERT INTO push_decisions
               (message_id, after_user, upto_user, chat_id, seq, users, reasons, whole)
           SELECT d.message_id, d.after_user, d.upto_user, d.chat_id, d.seq,
                  ($6::uuid[])[d.first:d.last], ($7::"char"[])[d.first:d.last], d.whole
           FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[],
                       $8::int[], $9::int[], $10::"char"[])
                AS d (message_id, after_user, upto_user, chat_id, seq, first, last, whole)
           ON CONFLICT DO NOTHING RETURNING message_id, after_user"#,
    )
    .bind(column(|page| page.message.0))
    .bind(column(|page| page.after.0))
    .bind(decided.iter().map(|page| page.upto.map(|user| user.0)).collect::<Vec<_>>())
    .bind(column(|page| page.chat.0))
    .bind(decided.iter().map(|page| sql_seq(page.seq)).collect::<Vec<_>>())
    .bind(users)
    .bind(reasons)
    .bind(firsts)
    .bind(lasts)
    .bind(decided.iter().map(|page| page.whole.map(letter)).collect::<Vec<_>>())
    .fetch_all(tx)
    .await?;
    Ok(new.into_iter().collect())
}

async fn keep_pushes(tx: &mut PgConnection, page: &Decided) -> Result<HashSet<Uuid>> {
    let pushes = &page.pushes;
    let users: Vec<Uuid> = pushes.iter().map(|push| push.user.0).collect();
    let devices: Vec<Uuid> = pushes.iter().map(|push| push.target.device.0).collect();
    let providers: Vec<&str> = pushes.iter().map(|push| push.target.provider.as_str()).collect();
    let targets: Vec<Uuid> = pushes.iter().map(|push| push.target.id).collect();
    let mentioned: Vec<bool> = pushes.iter().map(|push| push.mentioned).collect();
    let kept: Vec<Uuid> = sqlx::query_scalar(
        "INSERT INTO pushes
             (message_id, chat_id, seq, device_id, user_id, provider, target_id, mentioned)
         SELECT $1, $2, $3, n.*
         FROM unnest($4::uuid[], $5::uuid[], $6::text[], $7::uuid[], $8::boolean[]) AS n
         ON CONFLICT DO NOTHING RETURNING device_id",
    )
    .bind(page.message.0)
    .bind(page.chat.0)
    .bind(sql_seq(page.seq))
    .bind(devices)
    .bind(users)
    .bind(providers)
    .bind(targets)
    .bind(mentioned)
    .fetch_all(tx)
    .await?;
    Ok(kept.into_iter().collect())
}
