//! Log-ins, devices, and refresh tokens used twice.

use anyhow::Result;
use futures::future::try_join_all;
use natter_protocol::{
    feed::Event,
    ids::{DeviceId, UserId},
    webhook::HookFilter,
};
use natter_store::{Conflict, NewEndpoint, NewRefresh, Rotation, Store, StoreError};
use time::OffsetDateTime;

use crate::support::{Broker, device, new_user, person, relay, some_token, store, token};

/// Of everybody's password, in these tests.
const HASH: &str = "$argon2id$";

#[tokio::test]
async fn a_token_is_good_once_and_its_replay_ends_the_login() -> Result<()> {
    let store = store().await?;
    let mut ana = new_user("Ana", None, None);
    ana.refresh = token(1);
    store.create_user(&ana).await?;

    let rotated = store.rotate_refresh(&[1; 32], &token(2)).await?;
    let Rotation::Rotated { user, session, .. } = rotated else {
        panic!("{rotated:?}");
    };
    assert_eq!((user.id, session), (ana.id, ana.device.session));

    let replayed = store.rotate_refresh(&[1; 32], &token(3)).await?;
    let Rotation::Replayed { lane, .. } = replayed else {
        panic!("{replayed:?}");
    };
    assert_eq!(lane, Some(ana.id.0));
    // The token that the first use gave out is void too, and so is the session.
    let after = store.rotate_refresh(&[2; 32], &token(4)).await?;
    assert!(matches!(after, Rotation::Unknown));
    let state = store.device_state(ana.id, ana.device.id).await?.unwrap();
    assert_eq!((state.session, state.revoked), (None, false));

    let broker = Broker::default();
    assert_eq!(relay(&store, &broker, ana.id.0).await?.items, 1);
    let stored = broker.stored();
    let Event::DeviceRevoked(revoked) = &stored[0].2.event else {
        panic!("{stored:?}");
    };
    assert_eq!(revoked.device_id, ana.device.id);
    Ok(())
}

#[tokio::test]
async fn of_two_uses_at_once_exactly_one_wins() -> Result<()> {
    let store = store().await?;
    for round in 0..10 {
        let mut ana = new_user("Ana", None, None);
        ana.refresh = token(round);
        store.create_user(&ana).await?;
        let (one, two) = (some_token(), some_token());
        let hash = [round; 32];
        let (a, b) =
            tokio::join!(store.rotate_refresh(&hash, &one), store.rotate_refresh(&hash, &two));
        let (a, b) = (a?, b?);
        let won = [&a, &b]
            .into_iter()
            .filter(|rotation| matches!(rotation, Rotation::Rotated { .. }))
            .count();
        assert_eq!(won, 1, "{a:?} {b:?}");
        // The other was a replay, so nothing of the family is left.
        for hash in [one.hash, two.hash] {
            let left = store.rotate_refresh(&hash, &some_token()).await?;
            assert!(matches!(left, Rotation::Unknown));
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_expired_token_is_unknown() -> Result<()> {
    let store = store().await?;
    let mut ana = new_user("Ana", None, None);
    ana.refresh = NewRefresh {
        expires_at: OffsetDateTime::now_utc() - std::time::Duration::from_secs(1),
        ..token(1)
    };
    store.create_user(&ana).await?;
    let rotation = store.rotate_refresh(&[1; 32], &token(2)).await?;
    assert!(matches!(rotation, Rotation::Unknown));
    Ok(())
}

#[tokio::test]
async fn a_device_logs_in_again_with_a_new_session() -> Result<()> {
    let store = store().await?;
    let mut ana = new_user("Ana", None, None);
    ana.refresh = token(1);
    store.create_user(&ana).await?;
    assert_eq!(store.revoke_device(ana.id, ana.device.id).await?, Some(ana.id.0));
    assert_eq!(store.revoke_device(ana.id, ana.device.id).await?, None);
    assert_eq!(store.devices(ana.id).await?.len(), 0);
    let void = store.rotate_refresh(&[1; 32], &token(2)).await?;
    assert!(matches!(void, Rotation::Unknown));

    let again = device(ana.device.id);
    store.log_in(ana.id, HASH, &again, &some_token()).await?.unwrap();
    let state = store.device_state(ana.id, again.id).await?.unwrap();
    assert_eq!((state.session, state.revoked), (Some(again.session), false));
    assert_eq!(store.devices(ana.id).await?.len(), 1);

    let ben = person(&store, "Ben").await?;
    let stolen = store.log_in(ben, HASH, &again, &some_token()).await;
    assert!(matches!(stolen, Err(StoreError::Conflict(Conflict::Device))));
    let nobody = natter_protocol::ids::UserId::generate();
    let nobody = store.log_in(nobody, HASH, &device(DeviceId::generate()), &some_token()).await?;
    assert!(nobody.is_none());
    Ok(())
}

#[tokio::test]
async fn a_new_password_signs_the_other_devices_out() -> Result<()> {
    let store = store().await?;
    let ana = new_user("Ana", None, None);
    store.create_user(&ana).await?;
    let others = [device(DeviceId::generate()), device(DeviceId::generate())];
    for other in &others {
        store.log_in(ana.id, HASH, other, &some_token()).await?.unwrap();
    }
    let lane = store.set_password(ana.id, HASH, "$new$", ana.device.id).await?.unwrap();
    for other in &others {
        let state = store.device_state(ana.id, other.id).await?.unwrap();
        assert_eq!(state.session, None);
    }
    let kept = store.device_state(ana.id, ana.device.id).await?.unwrap();
    assert_eq!(kept.session, Some(ana.device.session));

    // Each of them is told on the user's feed.
    let broker = Broker::default();
    assert_eq!(relay(&store, &broker, lane).await?.items, 2);
    assert_eq!(broker.stored().len(), 2);

    assert_eq!(store.sign_out(ana.id, ana.device.id).await?, Some(ana.id.0));
    assert_eq!(store.sign_out(ana.id, ana.device.id).await?, None);
    assert_eq!(store.credentials_of(ana.id).await?.unwrap().password_hash, "$new$");
    Ok(())
}

#[tokio::test]
async fn last_seen_only_moves_forward() -> Result<()> {
    let store = store().await?;
    let ana = new_user("Ana", None, None);
    let (_, made) = store.create_user(&ana).await?;
    let later = OffsetDateTime::now_utc() + std::time::Duration::from_mins(1);
    let earlier = OffsetDateTime::UNIX_EPOCH;
    let id = ana.device.id;
    store.touch_devices(&[(id, later), (id, earlier)]).await?;
    store.touch_devices(&[(id, earlier)]).await?;
    let seen = store.devices(ana.id).await?[0].last_seen_at;
    assert_eq!(seen, Some(natter_protocol::timestamp::truncate(later)));
    assert!(made.last_seen_at < seen);
    Ok(())
}

#[tokio::test]
async fn a_login_with_the_password_before_does_not_survive_a_new_one() -> Result<()> {
    let store = store().await?;
    for round in 0..20 {
        let ana = new_user("Ana", None, None);
        store.create_user(&ana).await?;
        // Both have checked the password that is there now.
        let (other, token) = (device(DeviceId::generate()), some_token());
        let new = format!("$new{round}$");
        let (logged_in, changed) = tokio::join!(
            store.log_in(ana.id, HASH, &other, &token),
            store.set_password(ana.id, HASH, &new, ana.device.id),
        );
        logged_in?;
        assert!(changed?.is_some());
        let state = store.device_state(ana.id, other.id).await?;
        assert_eq!(state.and_then(|state| state.session), None);
        let rotated = store.rotate_refresh(&token.hash, &some_token()).await?;
        assert!(matches!(rotated, Rotation::Unknown));
        // Nor can it be done afterwards, or the password be changed by who knew the one before.
        assert!(store.log_in(ana.id, HASH, &other, &some_token()).await?.is_none());
        assert_eq!(store.set_password(ana.id, HASH, "$mine$", other.id).await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn of_two_first_logins_at_once_the_one_before_is_ended() -> Result<()> {
    let store = store().await?;
    for _ in 0..20 {
        let ana = new_user("Ana", None, None);
        store.create_user(&ana).await?;
        let id = DeviceId::generate();
        let (one, two) = (device(id), device(id));
        let (one_token, two_token) = (some_token(), some_token());
        let (a, b) = tokio::join!(
            store.log_in(ana.id, HASH, &one, &one_token),
            store.log_in(ana.id, HASH, &two, &two_token),
        );
        assert!(a?.is_some() && b?.is_some());
        let session = store.device_state(ana.id, id).await?.unwrap().session;
        let ended = if session == Some(one.session) { two.session } else { one.session };
        let broker = Broker::default();
        relay(&store, &broker, ana.id.0).await?;
        let told: Vec<_> = broker
            .stored()
            .into_iter()
            .filter_map(|(.., entry)| match entry.event {
                Event::DeviceRevoked(revoked) => revoked.session,
                _ => None,
            })
            .collect();
        assert_eq!(told, [ended]);
    }
    Ok(())
}

/// What a user's feed is told of devices since it was asked before: whether each has come, and which.
async fn told(store: &Store, user: UserId) -> Result<Vec<(bool, DeviceId)>> {
    let broker = Broker::default();
    relay(store, &broker, user.0).await?;
    let of_device = |event| match event {
        Event::DeviceAdded(added) => Some((true, added.device_id)),
        Event::DeviceRevoked(revoked) => Some((false, revoked.device_id)),
        _ => None,
    };
    Ok(broker.stored().into_iter().filter_map(|(_, _, entry)| of_device(entry.event)).collect())
}

#[tokio::test]
async fn a_device_that_comes_is_told_of_whichever_way_it_does() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (new_user("Ana", None, None), new_user("Ben", None, None));
    let first = ana.device.id;
    store.create_user(&ana).await?;
    assert!(told(&store, ana.id).await?.is_empty(), "nobody wants to be told");
    let endpoint = NewEndpoint {
        name: "shop".to_owned(),
        url: "http://127.0.0.1:9/".to_owned(),
        secret: "whsec_x".to_owned(),
        filter: HookFilter::default(),
    };
    store.add_endpoint(&endpoint, 1).await?;
    store.create_user(&ben).await?;
    assert_eq!(told(&store, ben.id).await?, [(true, ben.device.id)]);

    // The login before ends, and then another one begins; or it has ended long ago.
    store.log_in(ana.id, HASH, &device(first), &some_token()).await?;
    assert_eq!(told(&store, ana.id).await?, [(false, first), (true, first)]);
    store.revoke_device(ana.id, first).await?;
    store.log_in(ana.id, HASH, &device(first), &some_token()).await?;
    assert_eq!(told(&store, ana.id).await?, [(false, first), (true, first)]);

    let served = DeviceId::generate();
    store.log_device_in(ana.id, &device(served), &some_token()).await?;
    assert_eq!(told(&store, ana.id).await?, [(true, served)]);

    let seen =
        try_join_all((0..8).map(|_| {
            store.ensure_external("https://id.example", "subject", "phone", Some("Cleo"), 0)
        }));
    let (cleo, phone) = seen.await?[0];
    assert_eq!(told(&store, cleo).await?, [(true, phone)], "once, by many who see it first");

    let (dan, minted) = (UserId::generate(), DeviceId::generate());
    for _ in 0..2 {
        store.ensure_login(dan, minted, "Dan", 0).await?;
    }
    assert_eq!(told(&store, dan).await?, [(true, minted)]);
    store.sign_out(dan, minted).await?;
    store.ensure_login(dan, minted, "Dan", 0).await?;
    assert_eq!(told(&store, dan).await?, [(false, minted), (true, minted)]);
    Ok(())
}
