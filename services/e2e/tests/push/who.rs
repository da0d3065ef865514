//! Who is notified, and of what.

use std::time::Duration;

use anyhow::{Result, ensure};
use natter_e2e::{Api, Person, soon};
use natter_protocol::{
    ids::{ChatId, Seq},
    notify::{NotificationSettings, PushReason, PushState},
    rest::DeviceList,
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::push::support::{
    Held, Offline, STAGE, comes_to, decided, mention, of, services, skips, written,
};

async fn wants(api: &Api, change: Value) -> Result<NotificationSettings> {
    api.patch("/users/me/notifications", change).await?.read(200)
}

async fn reads(api: &Api, chat: ChatId, seq: Seq) -> Result<()> {
    api.post(&format!("/chats/{chat}/read"), json!({"seq": seq})).await?.expect(200).map(drop)
}

/// Waits until this is what is known of whether they are online.
async fn shown(who: &Offline, online: bool) -> Result<()> {
    soon("it is known who is online", async || {
        let devices: DeviceList = who.person.api(0).get("/devices").await?.read(200)?;
        Ok((devices.items.iter().any(|device| device.online) == online).then_some(()))
    })
    .await
}

#[tokio::test]
async fn whoever_reads_it_on_another_device_meanwhile_is_left_alone() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let tablet = ben.person.device("tablet").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let held = Held::of(&cluster)?;
    let sent = ana.api(0).say(chat, "read at once").await?;
    reads(&tablet.api(1), chat, sent.seq).await?;
    let (user, seq) = (ben.person.id, sent.seq);
    let read = format!(
        "SELECT 1 FROM chat_members WHERE chat_id = '{chat}' AND user_id = '{user}' AND read_seq >= {seq}"
    );
    written(&cluster, &read).await?;
    drop(held);
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Read).await?;
    // What comes later on the same way: the first was not on it.
    let sent = ana.api(0).say(chat, "not read").await?;
    ben.notified(sent.id).await?;
    assert_eq!(ben.pushed().len(), 1);
    Ok(())
}

#[tokio::test]
async fn whoever_comes_online_meanwhile_gets_it_live_and_is_left_alone() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let held = Held::of(&cluster)?;
    let sent = ana.api(0).say(chat, "are you there?").await?;
    let socket = ben.person.connect(1).await?;
    shown(&ben, true).await?;
    drop(held);
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Online).await?;
    drop(socket);
    shown(&ben, false).await?;
    let later = ana.api(0).say(chat, "gone again?").await?;
    ben.notified(later.id).await?;
    assert_eq!(ben.pushed().len(), 1);
    Ok(())
}

#[tokio::test]
async fn where_nobody_can_tell_who_is_online_everybody_is_notified() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let _socket = ben.person.connect(1).await?;
    shown(&ben, true).await?;
    let sent = ana.api(0).say(chat, "live").await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Online).await?;
    cluster.redis().kill().await?;
    let sent = ana.api(0).say(chat, "in doubt").await?;
    ben.notified(sent.id).await?;
    cluster.redis().start().await
}

#[tokio::test]
async fn a_mute_holds_but_for_mentions_and_these_as_the_user_wants() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Sailing", &[&ben.person]).await?.id;
    let mute = json!({"forever": true});
    ben.person.api(0).put(&format!("/chats/{chat}/mute"), mute).await?.expect(200)?;
    let sent = ana.api(0).say(chat, "nothing for Ben").await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Muted).await?;
    let sent = mention(&ana.api(0), chat, ben.person.id).await?;
    let notice = ben.notified(sent.id).await?.notice;
    assert_eq!((&notice["title"], &notice["body"]), (&"Sailing".into(), &"Ana: look".into()));
    wants(&ben.person.api(0), json!({"mentionsThroughMute": false})).await?;
    let sent = mention(&ana.api(0), chat, ben.person.id).await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Muted).await
}

#[tokio::test]
async fn nobody_hears_of_whom_they_have_blocked() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Sailing", &[&ben.person]).await?.id;
    ben.person.api(0).put(&format!("/users/{}/block", ana.id), json!({})).await?.expect(204)?;
    let sent = ana.api(0).say(chat, "for whoever listens").await?;
    // And nobody is told that they are blocked: an operator alone sees it.
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Muted).await?;
    let kept = format!(
        "SELECT reasons[array_position(users, '{}')] FROM push_decisions WHERE message_id = '{}'",
        ben.person.id, sent.id
    );
    assert_eq!(cluster.sql(&kept)?.trim(), "b");
    Ok(())
}

#[tokio::test]
async fn quiet_hours_are_those_of_where_the_user_lives() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    // An hour around now in Kathmandu, which is 5:45 ahead; not where Postgres or anybody else is.
    let there = OffsetDateTime::now_utc() + Duration::from_mins(345);
    let clock = |at: OffsetDateTime| format!("{:02}:{:02}", at.hour(), at.minute());
    let hours = |from: OffsetDateTime| {
        let until = from + Duration::from_hours(1);
        json!({"quietHours":
            {"from": clock(from), "until": clock(until), "timeZone": "Asia/Kathmandu"}})
    };
    wants(&ben.person.api(0), hours(there - Duration::from_mins(30))).await?;
    let sent = ana.api(0).say(chat, "at night").await?;
    skips(&ana.api(0), &sent, ben.person.id, PushReason::Quiet).await?;
    wants(&ben.person.api(0), hours(there + Duration::from_hours(2))).await?;
    let sent = ana.api(0).say(chat, "by day").await?;
    ben.notified(sent.id).await?;
    assert_eq!(wants(&ben.person.api(0), json!({"quietHours": null})).await?.quiet_hours, None);
    let nowhere =
        json!({"quietHours": {"from": "22:00", "until": "07:00", "timeZone": "Mars/Base"}});
    let answer = ben.person.api(0).patch("/users/me/notifications", nowhere).await?;
    answer.refused(400, "bad_request").map(drop)
}

#[tokio::test]
async fn no_more_is_shown_than_the_user_wants() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).group("Sailing", &[&ben.person]).await?.id;
    for (preview, title) in [("sender", "Ana in Sailing"), ("none", "New message")] {
        wants(&ben.person.api(0), json!({"preview": preview})).await?;
        let sent = ana.api(0).say(chat, "a secret").await?;
        let notice = ben.notified(sent.id).await?.notice;
        assert_eq!(notice["title"], title);
        ensure!(!notice.to_string().contains("secret"), "{notice}");
        ensure!(
            preview == "sender" || !notice.to_string().contains(&ana.id.to_string()),
            "{notice}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn of_messages_that_come_together_one_is_notified_of_with_the_number_of_the_chat_list()
-> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let first = ana.api(0).say(chat, "one").await?;
    reads(&ben.person.api(0), chat, first.seq).await?;
    let mut sent = Vec::new();
    for text in ["two", "three", "four"] {
        sent.push(ana.api(0).say(chat, text).await?);
    }
    let (before, newest) = (&sent[..2], &sent[2]);
    let pushed = ben.notified(newest.id).await?;
    let listed = ben.person.api(1).chat(chat).await?.me.map(|me| me.unread_count);
    assert_eq!((pushed.notice["unread"].as_u64(), listed), (Some(3), Some(3)));
    // They may have been due at different looks; then the device was told of each, in one place.
    for sent in before {
        let page = decided(&ana.api(0), sent.id).await?;
        let line = of(&page, ben.person.id)?;
        ensure!(
            line.reason == Some(PushReason::Collapsed) || line.state == PushState::Delivered,
            "{line:?}"
        );
    }
    let name = &pushed.target;
    let left = services().web_push.desk.left();
    let left: Vec<_> = left.into_iter().filter(|pushed| pushed.target == *name).collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].notice["body"], "four");
    Ok(())
}

#[tokio::test]
async fn what_is_taken_back_meanwhile_nobody_hears_of() -> Result<()> {
    let cluster = STAGE.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let held = Held::of(&cluster)?;
    let sent = ana.api(0).say(chat, "oops").await?;
    soon("it can be taken back", async || {
        let path = format!("/chats/{chat}/messages/{}", sent.id);
        Ok((ana.api(0).delete(&path).await?.status() == 200).then_some(()))
    })
    .await?;
    let deleted =
        format!("SELECT 1 FROM messages WHERE id = '{}' AND deleted_at IS NOT NULL", sent.id);
    written(&cluster, &deleted).await?;
    drop(held);
    let page = decided(&ana.api(0), sent.id).await?;
    assert_eq!((page.reason, page.items.len()), (Some(PushReason::Deleted), 0));
    let later = ana.api(0).say(chat, "what I meant").await?;
    ben.notified(later.id).await?;
    assert_eq!(ben.pushed().len(), 1);
    Ok(())
}

#[tokio::test]
async fn each_device_that_has_registered_is_notified_and_no_other() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Offline::register(&cluster, "Ben").await?;
    let (tablet, watch) = (ben.person.device("tablet").await?, ben.person.device("watch").await?);
    let second = services().subscribe()?;
    crate::push::support::register(&tablet, &second).await?;
    let chat = ana.api(0).direct(&ben.person).await?.id;
    let sent = ana.api(0).say(chat, "everywhere").await?;
    for device in [ben.person.first.id, tablet.id] {
        comes_to(&ana.api(0), sent.id, device, PushState::Delivered).await?;
    }
    let page = decided(&ana.api(0), sent.id).await?;
    ensure!(page.items.iter().all(|line| line.device_id != Some(watch.id)), "{page:?}");
    Ok(())
}
