//! Lanes are one worker's at a time, shared evenly, and nobody else writes how far they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_protocol::{
    feed::Feed,
    ids::ChatId,
    webhook::{HookFilter, HookKind},
};
use natter_store::{
    Behind, Conflict, EndpointChange, FillRow, LanePlace, LaneSave, NewEndpoint, NewHookLetter,
    Store, StoreError, WebhookEndpoint,
};
use time::OffsetDateTime;

use crate::support::store;

/// Long enough that it does not run out by itself.
const LEASE: Duration = Duration::from_mins(5);

async fn endpoint(store: &Store, name: &str) -> Result<WebhookEndpoint, StoreError> {
    let new = NewEndpoint {
        name: name.to_owned(),
        url: "http://127.0.0.1:9/".to_owned(),
        secret: "whsec_x".to_owned(),
        filter: HookFilter { kinds: Some(vec![HookKind::Edit]), chats: None },
    };
    store.add_endpoint(&new, 2).await
}

fn behind(seq: u64) -> Behind {
    let at = OffsetDateTime::UNIX_EPOCH;
    let feed = Feed::chat(0, ChatId::generate());
    Behind { feed, seq, log_seq: seq, at, attempts: 1, failing_since: Some(at), due_at: at }
}

/// The lanes that a worker has after a look, and its share.
async fn look(store: &Store, worker: &str) -> Result<(Vec<LanePlace>, usize)> {
    let share = store.share_webhooks(worker, 2, LEASE).await?;
    Ok((share.lanes, share.share))
}

#[tokio::test]
async fn endpoints_are_so_many_each_with_a_name_of_its_own_and_are_changed() -> Result<()> {
    let store = store().await?;
    assert_eq!(store.first_endpoint_at().await?, None);
    let one = endpoint(&store, "one").await?;
    assert_eq!(store.first_endpoint_at().await?, Some(one.created_at));
    let clash = endpoint(&store, "one").await;
    ensure!(matches!(clash, Err(StoreError::Conflict(Conflict::Endpoint))), "{clash:?}");
    endpoint(&store, "two").await?;
    let third = endpoint(&store, "three").await;
    ensure!(matches!(third, Err(StoreError::Forbidden)), "{third:?}");

    let chats = vec![ChatId::generate()];
    let change = EndpointChange {
        kinds: Some(None),
        chats: Some(Some(chats.clone())),
        ..EndpointChange::default()
    };
    store.change_endpoint(one.id, &change).await?;
    store.disable_endpoint(one.id, "gone").await?;
    let changed = store.endpoint("one").await?;
    assert_eq!(changed.filter, HookFilter { kinds: None, chats: Some(chats) });
    assert_eq!((changed.enabled, changed.disabled_reason.as_deref()), (false, Some("gone")));
    let enable = EndpointChange { enabled: Some(true), ..EndpointChange::default() };
    store.change_endpoint(one.id, &enable).await?;
    let enabled = store.endpoint(&one.id.to_string()).await?;
    assert_eq!((enabled.enabled, enabled.disabled_reason), (true, None));
    assert_eq!(enabled.url, one.url);

    let test = store.ask_test(one.id).await?;
    assert_eq!(store.endpoint("one").await?.test, Some(test));
    assert_eq!(store.test_answer(one.id, test).await?, None);
    store.answer_test(one.id, test, "204 No Content").await?;
    assert_eq!(store.test_answer(one.id, test).await?.as_deref(), Some("204 No Content"));
    assert_eq!(store.endpoint("one").await?.test, None);
    Ok(())
}

#[tokio::test]
async fn workers_share_lanes_evenly_and_none_has_what_another_has() -> Result<()> {
    let store = store().await?;
    endpoint(&store, "one").await?;
    endpoint(&store, "two").await?;
    let (all, share) = look(&store, "a").await?;
    assert_eq!((all.len(), share), (4, 4));
    // Another comes: half is its share, and is given up first.
    let (none, share) = look(&store, "b").await?;
    assert_eq!((none.len(), share), (0, 2));
    let (still, share) = look(&store, "a").await?;
    assert_eq!((still.len(), share), (4, 2));
    for lane in &all[..2] {
        store.release_lane("a", lane.key).await?;
    }
    let (of_b, _) = look(&store, "b").await?;
    let (of_a, _) = look(&store, "a").await?;
    assert_eq!((of_a.len(), of_b.len()), (2, 2));
    ensure!(of_a.iter().all(|lane| !of_b.contains(lane)), "{of_a:?} {of_b:?}");
    // One that has gone leaves its share to the other.
    store.forget_webhook_worker("b").await?;
    for lane in &of_b {
        store.release_lane("b", lane.key).await?;
    }
    assert_eq!(look(&store, "a").await?.0.len(), 4);
    Ok(())
}

#[tokio::test]
async fn only_its_owner_writes_how_far_a_lane_is_and_not_behind_an_operator() -> Result<()> {
    let store = store().await?;
    let one = endpoint(&store, "one").await?;
    let (lanes, _) = look(&store, "a").await?;
    let lane = lanes.first().context("a lane")?.clone();
    let (early, late, beyond) = (behind(3), behind(8), behind(15));
    let save = LaneSave {
        seq: 10,
        log_seq: 20,
        lost: 2,
        behind: vec![early, late, beyond],
        most_letters: 5,
        ..LaneSave::default()
    };
    store.save_lane("a", &lane, &save).await?;
    let lane = LanePlace { seq: Some(10), ..lane };
    let fenced = store.save_lane("b", &lane, &save).await;
    ensure!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");

    ensure!(!store.rewind_lane(one.id, lane.key.shard, 10).await?, "it is not so far");
    // Its owner knows nothing of it, and goes on: what waits beyond the place waits as before.
    assert_eq!(store.behind(lane.key).await?.len(), 3);
    store.save_lane("a", &lane, &save).await?;
    ensure!(store.rewind_lane(one.id, lane.key.shard, 5).await?, "it is");
    // What comes again by itself does not wait any more; what lies before does.
    assert_eq!(store.behind(lane.key).await?, [early]);
    let fenced = store.save_lane("a", &lane, &save).await;
    ensure!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    let (lanes, _) = look(&store, "a").await?;
    let moved = lanes.iter().find(|moved| moved.key == lane.key).context("the lane")?;
    assert_eq!((moved.generation, moved.seq, moved.log_seq), (1, Some(5), 0));
    let caught_up = LaneSave { seq: 12, caught_up: vec![early.feed], ..LaneSave::default() };
    store.save_lane("a", moved, &caught_up).await?;
    ensure!(store.behind(lane.key).await?.is_empty());
    let report = store.endpoint_lanes(one.id).await?;
    let report = report.iter().find(|report| report.shard == lane.key.shard).context("it")?;
    assert_eq!((report.seq, report.lost, report.behind), (Some(12), 4, 0));

    store.remove_endpoint(one.id).await?;
    let moved = LanePlace { seq: Some(12), ..moved.clone() };
    let gone = store.save_lane("a", &moved, &caught_up).await;
    ensure!(matches!(gone, Err(StoreError::Fenced)), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_letter_of_another_event_at_the_same_place_takes_the_place_of_the_one_before()
-> Result<()> {
    let store = store().await?;
    let one = endpoint(&store, "one").await?;
    let (lanes, _) = look(&store, "a").await?;
    let lane = lanes.first().context("a lane")?;
    let saved = LanePlace { seq: Some(0), ..lane.clone() };
    let letter = |seq: u64, event: &str| NewHookLetter {
        seq,
        feed: Feed::chat(lane.key.shard, ChatId::generate()),
        event_id: event.to_owned(),
        r#type: "message".to_owned(),
        at: OffsetDateTime::UNIX_EPOCH,
        attempts: 3,
        answer: "500".to_owned(),
    };
    let keeps = async |place: &LanePlace, letters: Vec<NewHookLetter>| {
        let save = LaneSave { letters, most_letters: 5, ..LaneSave::default() };
        store.save_lane("a", place, &save).await
    };
    assert_eq!(keeps(lane, vec![letter(7, "evt_a"), letter(8, "evt_b")]).await?, 0);
    assert_eq!(keeps(&saved, vec![letter(7, "evt_a")]).await?, 0, "it is the same");
    let before = store.webhook_letters(one.id, 0, 10).await?;
    assert_eq!(keeps(&saved, vec![letter(7, "evt_c")]).await?, 1, "the one before is lost");
    let letters = store.webhook_letters(one.id, 0, 10).await?;
    let named: Vec<_> = letters.iter().map(|letter| letter.of.event_id.as_str()).collect();
    assert_eq!(named, ["evt_b", "evt_c"]);
    // Whoever tells of the one before just now does not take the new one for told.
    store.letter_told(before[0].id).await?;
    assert_eq!(store.webhook_letters(one.id, 0, 10).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn nobody_writes_on_from_a_place_that_a_backup_does_not_have() -> Result<()> {
    let store = store().await?;
    endpoint(&store, "one").await?;
    let (lanes, _) = look(&store, "a").await?;
    let in_backup = lanes.first().context("a lane")?.clone();
    let save = LaneSave { seq: 10, behind: vec![behind(3)], ..LaneSave::default() };
    store.save_lane("a", &in_backup, &save).await?;
    // As if what was written had never been: only the backup's place is good.
    let later = LanePlace { seq: Some(12), ..in_backup.clone() };
    let fenced = store.save_lane("a", &later, &LaneSave { seq: 14, ..save.clone() }).await;
    ensure!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    let there = LanePlace { seq: Some(10), ..in_backup };
    store.save_lane("a", &there, &LaneSave { seq: 11, ..save }).await?;
    Ok(())
}

#[tokio::test]
async fn one_worker_fills_a_shard_and_another_goes_on_where_it_was() -> Result<()> {
    let store = store().await?;
    let one = endpoint(&store, "one").await?;
    look(&store, "a").await?;
    let from = FillRow { log_seq: 40, stream_seq: 0 };
    assert_eq!(store.fill(0).await?, None);
    assert_eq!(store.claim_fill(0, "a", LEASE, 40).await?, Some(from));
    assert_eq!(store.claim_fill(0, "b", LEASE, 90).await?, None);
    let row = FillRow { log_seq: 60, stream_seq: 7 };
    store.save_fill(0, "a", row, 1).await?;
    let fenced = store.save_fill(0, "b", row, 0).await;
    ensure!(matches!(fenced, Err(StoreError::Fenced)), "{fenced:?}");
    assert_eq!(store.fill(0).await?, Some(row));
    store.release_fill(0, "a").await?;
    assert_eq!(store.claim_fill(0, "b", LEASE, 90).await?, Some(row));
    // What nobody could keep is lost to every endpoint that there is, of this shard.
    store.lose_hooks(0, 3).await?;
    let lanes = store.endpoint_lanes(one.id).await?;
    assert_eq!(lanes.iter().map(|lane| lane.lost).collect::<Vec<_>>(), [4, 0]);
    Ok(())
}
