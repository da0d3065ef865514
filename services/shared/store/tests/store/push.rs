//! Where devices are notified, and the life of a notification: taken by one at a time, ended once.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use natter_protocol::{
    ids::{ChatId, DeviceId, MessageId, UserId},
    notify::{
        ChangeNotifications, Preview, PushKey as Configured, PushReason, PushState, QuietHours,
    },
    push::{Provider, Registration, Target},
};
use natter_store::{
    Attempted, Claimed, Decided, DeliveryCursor, NewPush, PushKey, PushProgress, PushTest,
    Recipient, Store, StoreError, ToSend,
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::{
    reads::read,
    support::{
        Broker, device, message, new_user, persist, person, registered, relay, some_token, store_at,
    },
};

const LEASE: Duration = Duration::from_mins(1);
const AGE: Duration = Duration::from_hours(24);
const NOBODY: UserId = UserId(Uuid::nil());

fn token(token: &str) -> Target {
    Target::Webhook(Registration { token: token.to_owned() })
}

/// Two people in a one-to-one; the second has a device that has registered, as `token`.
struct Pair {
    store: Store,
    admin: PgConnection,
    ana: UserId,
    ben: UserId,
    phone: DeviceId,
    session: Uuid,
    chat: ChatId,
}

async fn pair(token: &Target) -> Result<Pair> {
    let database = crate::support::migrated().await?;
    let store = store_at(&database).await?;
    let (ana, _) = registered(&store, "Ana").await?;
    let new = new_user("Ben", None, None);
    let session = new.device.session;
    let (ben, phone) = store.create_user(&new).await?;
    let opened = store.open_direct(ana.id, ben.id, 0).await?;
    let chat = opened.chat;
    relay(&store, &Broker::default(), chat.0).await?;
    store.set_push_target(ben.id, phone.id, Some(session), token, None).await?;
    let admin = PgConnection::connect(&database).await?;
    Ok(Pair { store, admin, ana: ana.id, ben: ben.id, phone: phone.id, session, chat })
}

impl Pair {
    /// Those of a chat.
    async fn page(&self, chat: ChatId) -> Result<Vec<Recipient>> {
        let of = [(chat, NOBODY)];
        let pages = self.store.push_pages(&of, &[self.ana], &[Provider::Webhook]).await?;
        pages.into_iter().next().context("a page for each chat")
    }

    /// Ana says something at this place, and it is decided to notify Ben.
    async fn said(&self, seq: u64) -> Result<PushKey> {
        let client = seq.to_string();
        persist(&self.store, &[message(self.chat, self.ana, seq, &client, "hello")]).await?;
        let page = self.page(self.chat).await?;
        let who = page.iter().find(|who| who.user == self.ben).context("Ben")?;
        let id = MessageId::derive(self.chat, self.ana, &client);
        let target = *who.targets.first().context("no target")?;
        let decided = Decided {
            message: id,
            chat: self.chat,
            seq,
            after: NOBODY,
            upto: None,
            skipped: vec![(self.ana, PushReason::Sender)],
            whole: None,
            pushes: vec![NewPush { user: self.ben, target, mentioned: false }],
        };
        let kept = self.store.keep_decisions(std::slice::from_ref(&decided)).await?;
        ensure!(kept == [(0, 0)], "{kept:?}");
        // Whoever decides again changes nothing.
        ensure!(self.store.keep_decisions(&[decided]).await?.is_empty(), "twice");
        Ok((id, self.phone))
    }

    async fn claim(&self, key: PushKey) -> Result<Claimed> {
        let mut claimed = self.store.claim_pushes(&[key], LEASE, AGE).await?;
        claimed.remove(&key).context("not told")
    }

    async fn take(&self, key: PushKey) -> Result<Box<ToSend>> {
        match self.claim(key).await? {
            Claimed::Send(push) => Ok(push),
            other => bail!("{other:?}"),
        }
    }

    async fn keep(&self, key: PushKey, attempt: u16, state: PushState) -> Result<()> {
        let again = (state == PushState::Retrying).then_some(Duration::ZERO);
        let answer = "told".to_owned();
        let attempted = Attempted { key, attempt, state, reason: None, again, answer, sent: true };
        Ok(self.store.keep_attempts(&[attempted]).await?)
    }

    async fn state(&self, key: PushKey) -> Result<PushState> {
        let page = self.store.deliveries(key.0, DeliveryCursor::default(), 10).await?;
        let line = page.items.iter().find(|line| line.device_id == Some(key.1));
        Ok(line.with_context(|| format!("{page:?}"))?.state)
    }

    async fn sql(&mut self, statement: &str) -> Result<()> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned())).execute(&mut self.admin).await?;
        Ok(())
    }

    async fn ends(&self, key: PushKey, reason: PushReason) -> Result<()> {
        match self.claim(key).await? {
            Claimed::Ended(ended) if ended.reason == reason => Ok(()),
            other => bail!("{reason:?} expected, it is {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_notification_is_one_workers_until_its_time_is_over_and_ends_once() -> Result<()> {
    let mut pair = pair(&token("a")).await?;
    let key = pair.said(10_100).await?;
    assert_eq!(pair.state(key).await?, PushState::Queued);
    let push = pair.take(key).await?;
    let about = push.about.as_ref().context("no message")?;
    assert_eq!((push.attempt, about.unread, about.content.as_str()), (1, 1, "hello"));
    assert_eq!((about.sender_name.as_str(), about.preview), ("Ana", Preview::Full));
    ensure!(matches!(pair.claim(key).await?, Claimed::Later(_)), "it is another's");

    // Its worker is dead: another takes it over, and the first changes nothing any more.
    pair.sql("UPDATE pushes SET due_at = now() - interval '1 second'").await?;
    assert_eq!(pair.take(key).await?.attempt, 2);
    pair.keep(key, 1, PushState::Delivered).await?;
    assert_eq!(pair.state(key).await?, PushState::Sending);
    pair.keep(key, 2, PushState::Retrying).await?;
    assert_eq!(pair.state(key).await?, PushState::Retrying);
    assert_eq!(pair.take(key).await?.attempt, 3);
    pair.keep(key, 3, PushState::Delivered).await?;
    assert_eq!(pair.state(key).await?, PushState::Delivered);
    ensure!(matches!(pair.claim(key).await?, Claimed::Over), "it is over");
    let last = pair.store.push_target(pair.ben, pair.phone).await?.context("there")?.last;
    assert_eq!(last.map(|last| last.state), Some(PushState::Delivered));
    Ok(())
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_not_sent() -> Result<()> {
    let mut pair = pair(&token("a")).await?;
    let key = pair.said(10_100).await?;
    persist(&pair.store, &[read(pair.ben, pair.chat, 10_101, 10_100)]).await?;
    pair.ends(key, PushReason::Read).await?;

    let key = pair.said(10_102).await?;
    pair.sql("UPDATE messages SET deleted_at = now() WHERE seq = 10102").await?;
    pair.ends(key, PushReason::Deleted).await?;

    let (older, newer) = (pair.said(10_103).await?, pair.said(10_104).await?);
    let mut both = pair.store.claim_pushes(&[newer, older], LEASE, AGE).await?;
    ensure!(matches!(both.remove(&newer), Some(Claimed::Send(_))), "the newest is sent");
    let collapsed = both.remove(&older);
    ensure!(
        matches!(&collapsed, Some(Claimed::Ended(ended)) if ended.reason == PushReason::Collapsed),
        "{collapsed:?}"
    );
    pair.keep(newer, 1, PushState::Delivered).await?;

    // One that was taken back shows nothing, and keeps nothing else from being shown.
    let (older, newer) = (pair.said(10_105).await?, pair.said(10_106).await?);
    pair.sql("UPDATE messages SET deleted_at = now() WHERE seq = 10106").await?;
    let mut both = pair.store.claim_pushes(&[newer, older], LEASE, AGE).await?;
    ensure!(matches!(both.remove(&older), Some(Claimed::Send(_))), "what is left is sent");
    ensure!(matches!(both.remove(&newer), Some(Claimed::Ended(_))), "it was taken back");
    pair.keep(older, 1, PushState::Delivered).await?;

    let key = pair.said(10_107).await?;
    pair.sql("UPDATE chat_members SET muted_until = 'infinity'").await?;
    pair.ends(key, PushReason::Muted).await?;
    pair.sql("UPDATE chat_members SET muted_until = NULL").await?;

    let key = pair.said(10_108).await?;
    pair.sql("UPDATE pushes SET queued_at = now() - interval '25 hours'").await?;
    pair.ends(key, PushReason::TooOld).await?;
    assert_eq!(pair.state(key).await?, PushState::GivenUp);

    // Decided before the user was disabled, sent at first or tried again: nobody is notified meanwhile.
    let (key, tried) = (pair.said(10_109).await?, pair.said(10_110).await?);
    pair.take(tried).await?;
    pair.keep(tried, 1, PushState::Retrying).await?;
    pair.store.set_disabled(pair.ben, true).await?;
    pair.ends(key, PushReason::NoTarget).await?;
    pair.ends(tried, PushReason::NoTarget).await?;
    assert_eq!(pair.state(key).await?, PushState::Cancelled);
    pair.store.set_disabled(pair.ben, false).await?;

    let key = pair.said(10_111).await?;
    pair.store.set_push_target(pair.ben, pair.phone, Some(pair.session), &token("b"), None).await?;
    pair.ends(key, PushReason::Unregistered).await
}

#[tokio::test]
async fn a_target_that_is_gone_is_forgotten_unless_there_is_another_by_then() -> Result<()> {
    let pair = pair(&token("a")).await?;
    let (first, second) = (pair.said(10_100).await?, pair.said(10_101).await?);
    pair.ends(first, PushReason::Collapsed).await?;
    pair.take(second).await?;
    pair.store.set_push_target(pair.ben, pair.phone, Some(pair.session), &token("b"), None).await?;
    pair.keep(second, 1, PushState::Gone).await?;
    ensure!(
        !pair.store.push_target(pair.ben, pair.phone).await?.context("there")?.gone,
        "b is there"
    );

    let third = pair.said(10_102).await?;
    pair.take(third).await?;
    pair.keep(third, 1, PushState::Gone).await?;
    ensure!(
        pair.store.push_target(pair.ben, pair.phone).await?.context("there")?.gone,
        "b is gone"
    );
    let page = pair.page(pair.chat).await?;
    ensure!(page.iter().all(|who| who.targets.is_empty()), "{page:?}");
    Ok(())
}

#[tokio::test]
async fn a_target_is_one_devices_and_ends_with_its_login() -> Result<()> {
    let pair = pair(&token("a")).await?;
    let Pair { store, ana, ben, phone, session, .. } = &pair;
    let tablet = device(DeviceId::generate());
    store.log_in(*ana, "$argon2id$", &tablet, &some_token()).await?;
    store.set_push_target(*ana, tablet.id, Some(tablet.session), &token("a"), None).await?;
    ensure!(store.push_target(*ben, *phone).await?.is_none(), "it is Ana's");
    store.set_push_target(*ben, *phone, Some(*session), &token("b"), None).await?;

    let wrong = Some(Uuid::new_v4());
    let refused = store.set_push_target(*ben, *phone, wrong, &token("c"), None).await;
    ensure!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    store.sign_out(*ben, *phone).await?;
    ensure!(store.push_target(*ben, *phone).await?.is_none(), "logged out");
    let refused = store.set_push_target(*ben, *phone, Some(*session), &token("c"), None).await;
    ensure!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    store.revoke_device(*ana, tablet.id).await?;
    ensure!(store.push_target(*ana, tablet.id).await?.is_none(), "revoked");
    assert_eq!(store.begin_push_test(*ana, tablet.id).await?, PushTest::NoTarget);
    Ok(())
}

#[tokio::test]
async fn a_worker_that_takes_a_message_over_goes_on_where_the_last_page_ended() -> Result<()> {
    let pair = pair(&token("a")).await?;
    let id = MessageId::generate();
    let page = |after, upto| Decided {
        message: id,
        chat: pair.chat,
        seq: 10_100,
        after,
        upto,
        skipped: Vec::new(),
        whole: None,
        pushes: Vec::new(),
    };
    let (first, second) = (UserId::generate(), UserId::generate());
    let progress = async || anyhow::Ok(pair.store.push_progress(&[id]).await?.remove(&id));
    assert_eq!(progress().await?, None);
    pair.store.keep_decisions(&[page(NOBODY, Some(first))]).await?;
    assert_eq!(progress().await?, Some(PushProgress::UpTo(first)));
    pair.store.keep_decisions(&[page(first, Some(second))]).await?;
    assert_eq!(progress().await?, Some(PushProgress::UpTo(second)));
    pair.store.keep_decisions(&[page(second, None)]).await?;
    assert_eq!(progress().await?, Some(PushProgress::Done));
    Ok(())
}

#[tokio::test]
async fn several_chats_are_looked_at_and_decided_about_at_once() -> Result<()> {
    let mut pair = pair(&token("a")).await?;
    let (store, ana, ben, chat) = (&pair.store, pair.ana, pair.ben, pair.chat);
    let cleo = person(store, "Cleo").await?;
    let group = store.create_group(ana, Some("Three"), false, &[ben, cleo], 0).await?;
    relay(store, &Broker::default(), group.chat.0).await?;
    let of = [(chat, NOBODY), (group.chat, ben), (ChatId::generate(), NOBODY), (chat, ana)];
    let pages = store.push_pages(&of, &[ana], &[Provider::Webhook]).await?;
    let told: Vec<Vec<(UserId, usize)>> = pages
        .iter()
        .map(|page| page.iter().map(|who| (who.user, who.targets.len())).collect())
        .collect();
    // Ana came first, then Ben, then Cleo, and so do their ids.
    let expected = [vec![(ana, 0), (ben, 1)], vec![(cleo, 0)], vec![], vec![(ben, 1)]];
    assert_eq!(told, expected);

    persist(store, &[message(chat, ana, 10_200, "one", "hello")]).await?;
    let places = [(chat, 10_200), (group.chat, 10_200), (chat, 10_201)];
    assert_eq!(store.still_there(&places).await?, [((chat, 10_200), true)].into());

    let of = |skipped: &[(UserId, PushReason)], whole| Decided {
        message: MessageId::generate(),
        chat,
        seq: 10_200,
        after: NOBODY,
        upto: None,
        skipped: skipped.to_vec(),
        whole,
        pushes: Vec::new(),
    };
    let decided = [
        of(&[(ana, PushReason::Sender), (ben, PushReason::Online)], None),
        of(&[], Some(PushReason::Deleted)),
        of(&[(cleo, PushReason::NoTarget)], None),
    ];
    store.keep_decisions(&decided).await?;
    let mut kept = Vec::new();
    for page in &decided {
        let row: (Vec<Uuid>, Vec<i8>, Option<i8>) = sqlx::query_as(
            "SELECT users, reasons, whole FROM push_decisions WHERE message_id = $1",
        )
        .bind(page.message.0)
        .fetch_one(&mut pair.admin)
        .await?;
        kept.push((row.0, row.1.len(), row.2.is_some()));
    }
    let expected = [(vec![ana.0, ben.0], 2, false), (vec![], 0, true), (vec![cleo.0], 1, false)];
    assert_eq!(kept, expected);
    Ok(())
}

#[tokio::test]
async fn quiet_hours_go_over_midnight_and_a_zone_that_is_unknown_is_refused() -> Result<()> {
    let mut pair = pair(&token("a")).await?;
    let hours = |zone: &str| ChangeNotifications {
        quiet_hours: Some(Some(QuietHours {
            from: "22:00".to_owned(),
            until: "07:00".to_owned(),
            time_zone: zone.to_owned(),
        })),
        ..ChangeNotifications::default()
    };
    for zone in ["Mars/Base", "FOO+3", ""] {
        assert_eq!(pair.store.change_notifications(pair.ben, &hours(zone)).await?, None, "{zone}");
    }
    let changed = pair.store.change_notifications(pair.ben, &hours("Asia/Tokyo")).await?;
    assert_eq!(changed, Some(pair.store.notification_settings(pair.ben).await?));
    let quiet: Vec<(String, bool)> = sqlx::query_as(
        "SELECT t, quiet_now((now() AT TIME ZONE 'UTC')::time + f::interval,
                             (now() AT TIME ZONE 'UTC')::time + u::interval, z)
         FROM (VALUES ('around', '-1 hour', '1 hour', 'UTC'), ('before', '-3 hours', '-1 hour', 'UTC'),
                      ('all but this', '1 minute', '-1 minute', 'UTC'), ('never', '0', '0', 'UTC'),
                      ('unknown', '-1 hour', '1 hour', 'Mars/Base')) AS v (t, f, u, z)",
    )
    .fetch_all(&mut pair.admin)
    .await?;
    let quiet: Vec<(&str, bool)> =
        quiet.iter().map(|(what, quiet)| (what.as_str(), *quiet)).collect();
    let expected = [
        ("around", true),
        ("before", false),
        ("all but this", false),
        ("never", false),
        ("unknown", false),
    ];
    assert_eq!(quiet, expected);
    Ok(())
}

#[tokio::test]
async fn what_is_set_up_is_what_the_last_worker_has_said() -> Result<()> {
    let pair = pair(&token("a")).await?;
    let key = |key: Option<&str>, providers: &[Provider]| Configured {
        public_key: key.map(ToOwned::to_owned),
        providers: providers.to_vec(),
    };
    for told in
        [key(Some("BCV"), &[Provider::Fcm, Provider::WebPush]), key(None, &[Provider::Apns])]
    {
        pair.store.set_push_providers(&told).await?;
        assert_eq!(pair.store.push_providers().await?, told);
    }
    Ok(())
}
