//! Users as an embedding product manages them, service tokens, and what the deployment itself does.

use anyhow::{Context, Result};
use natter_protocol::{
    feed::{Event, Feed, SystemKind},
    ids::{ChatId, DeviceId, ServiceTokenId, UserId},
    server::Role,
    service::Scope,
};
use natter_store::{
    Actor, Called, Conflict, NewManagedUser, NewServiceToken, Rotation, Store, StoreError, UserEdit,
};

use crate::support::{Broker, device, new_user, person, relay, store, token};

async fn made(store: &Store, name: &str, external_id: Option<&str>) -> Result<UserId> {
    let new = NewManagedUser {
        id: UserId::generate(),
        external_id,
        name,
        phone: None,
        email: None,
        bot: false,
        shard: 0,
    };
    Ok(store.ensure_managed(&new).await?.0.id)
}

#[tokio::test]
async fn an_external_id_is_one_users_until_the_account_is_deleted() -> Result<()> {
    let store = store().await?;
    let ana = made(&store, "Ana", Some("7")).await?;
    assert_eq!(made(&store, "Somebody", Some("7")).await?, ana);
    let found = store.managed(Called::ExternalId("7")).await?.context("there")?;
    assert_eq!((found.id, &*found.name), (ana, "Ana"));
    assert_ne!(made(&store, "Nobody", None).await?, made(&store, "Nobody", None).await?);

    let ben = made(&store, "Ben", None).await?;
    let edit = UserEdit { external_id: Some(Some("7")), ..UserEdit::default() };
    let taken = store.change_managed(ben, &edit).await;
    assert!(matches!(taken, Err(StoreError::Conflict(Conflict::ExternalId))), "{taken:?}");
    let (changed, lane) = store
        .change_managed(ana, &UserEdit { external_id: Some(None), ..UserEdit::default() })
        .await?;
    assert_eq!((changed.external_id, lane), (None, None));
    let (changed, _) = store.change_managed(ben, &edit).await?;
    assert_eq!(changed.external_id.as_deref(), Some("7"));

    assert!(store.delete_user(ben, None, false).await?);
    assert_eq!(store.managed(Called::Id(ben)).await?, None);
    assert_eq!(store.speaker(ben).await?, None);
    assert_ne!(made(&store, "Ben", Some("7")).await?, ben);
    let gone = store.change_managed(ben, &edit).await;
    assert!(matches!(gone, Err(StoreError::NotFound)), "{gone:?}");
    Ok(())
}

#[tokio::test]
async fn a_disabled_users_logins_stay_and_their_feed_is_told() -> Result<()> {
    let (store, broker) = (store().await?, Broker::default());
    let ana = new_user("Ana", Some("ana@example.org"), None);
    store.create_user(&ana).await?;
    assert!(!store.is_shut_out(ana.id).await?);
    let (disabled, lane) = store.set_disabled(ana.id, true).await?;
    assert!(disabled.disabled && store.is_shut_out(ana.id).await?);
    relay(&store, &broker, lane.context("a lane")?).await?;
    let told: Vec<_> = broker.stored().into_iter().map(|(_, feed, it)| (feed, it.event)).collect();
    assert_eq!(told, [(Feed::user(0, ana.id), Event::Disabled)]);

    let state = store.device_state(ana.id, ana.device.id).await?.context("there")?;
    assert!(state.disabled && !state.revoked && state.session == Some(ana.device.session));
    let refresh = store.rotate_refresh(&ana.refresh.hash, &token(1)).await?;
    assert!(matches!(refresh, Rotation::Disabled), "{refresh:?}");
    let login = store.log_device_in(ana.id, &device(DeviceId::generate()), &token(2)).await;
    assert!(matches!(login, Err(StoreError::Forbidden)), "{login:?}");

    let (enabled, lane) = store.set_disabled(ana.id, false).await?;
    assert_eq!((enabled.disabled, lane), (false, None));
    assert!(!store.is_shut_out(ana.id).await?);
    assert!(store.is_shut_out(UserId::generate()).await?, "there is no such user");
    let refresh = store.rotate_refresh(&ana.refresh.hash, &token(1)).await?;
    assert!(matches!(refresh, Rotation::Rotated { .. }), "{refresh:?}");
    Ok(())
}

#[tokio::test]
async fn the_deployment_itself_manages_groups_and_nobody_is_it() -> Result<()> {
    let (store, broker) = (store().await?, Broker::default());
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, Some("Group"), false, &[], 0).await?;
    relay(&store, &broker, chat.lane.context("a lane")?).await?;
    let chat = chat.chat;
    store.add_participants(Actor::System, chat, &[ben]).await?.context("a change")?;
    store.set_role(Actor::System, chat, ben, Role::Admin, false).await?.context("a change")?;
    let last = store.set_role(Actor::System, chat, ana, Role::Member, false).await;
    assert!(matches!(last, Err(StoreError::Conflict(Conflict::LastOwner))), "{last:?}");
    // Its last owner is taken out, and somebody else becomes one.
    store.remove_participant(Actor::System, chat, ana, true).await?.context("a change")?;
    let (left, _) = store.participants(chat, None, 10).await?;
    let left: Vec<_> = left.into_iter().map(|one| (one.id, one.role)).collect();
    assert_eq!(left, [(ben, Role::Owner)]);
    relay(&store, &broker, chat.0).await?;
    let told: Vec<_> = broker
        .stored()
        .into_iter()
        .filter_map(|(_, _, entry)| match entry.event {
            Event::System(event) => Some((event.kind, event.actor_id, event.msg)),
            _ => None,
        })
        .skip(1)
        .collect();
    let by = UserId::SYSTEM;
    assert_eq!(
        told,
        [
            (SystemKind::Added, by, "System added Ben".to_owned()),
            (SystemKind::Role, by, "Ben is an admin now".to_owned()),
            (SystemKind::Removed, by, "System removed Ana".to_owned()),
            (SystemKind::Role, by, "Ben is an owner now".to_owned()),
        ]
    );

    for refused in [
        store.add_participants(Actor::System, ChatId::generate(), &[ben]).await,
        store.add_participants(UserId::SYSTEM, chat, &[ana]).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotMember)), "{refused:?}");
    }
    let pair = store.open_direct(ana, ben, 0).await?.chat;
    let refused = store.add_participants(Actor::System, pair, &[ana]).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    // It takes part in nothing.
    for refused in [
        store.open_direct(ana, UserId::SYSTEM, 0).await,
        store.create_group(ana, Some("Group"), false, &[UserId::SYSTEM], 0).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotFound)), "{refused:?}");
    }
    assert_eq!(store.managed(Called::Id(UserId::SYSTEM)).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_service_token_is_good_until_it_is_revoked() -> Result<()> {
    let store = store().await?;
    let id = ServiceTokenId::generate();
    let new = NewServiceToken {
        id,
        name: "shop".to_owned(),
        hash: [7; 32],
        scopes: vec![Scope::Users, Scope::Send],
        calls_per_second: Some(5),
    };
    store.create_service_token(&new).await?;
    let found = store.service_token(id).await?.context("there")?;
    assert_eq!(
        (found.hash, found.scopes, found.calls_per_second),
        (vec![7; 32], new.scopes, Some(5))
    );
    assert!(found.use_unnoted);
    store.note_service_token(id).await?;
    let listed = store.service_tokens().await?;
    let [listed] = &listed[..] else { anyhow::bail!("{listed:?}") };
    let used = listed.last_used_at.context("its use is noted")?;
    assert_eq!((used.second(), used.millisecond()), (0, 0), "to the minute");

    assert!(store.revoke_service_token(id).await?);
    assert!(store.revoke_service_token(id).await?, "again");
    assert_eq!(store.service_token(id).await?, None);
    assert!(store.service_tokens().await?[0].revoked_at.is_some());
    assert!(!store.revoke_service_token(ServiceTokenId::generate()).await?);
    Ok(())
}
