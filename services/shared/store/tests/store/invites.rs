//! Links into groups.

use std::time::Duration;

use anyhow::Result;
use futures::future::join_all;
use natter_protocol::{
    ids::{ChatId, InviteId},
    limits,
    server::Role,
};
use natter_store::{Conflict, NewInvite, Store, StoreError};

use crate::support::{person, store};

fn invite(byte: u8) -> NewInvite {
    let good_for = Duration::from_hours(1);
    NewInvite { id: InviteId::generate(), hash: [byte; 32], good_for, max_uses: None }
}

fn none<T: std::fmt::Debug>(result: natter_store::Result<T>) {
    match result {
        Err(StoreError::NotFound) => {}
        other => panic!("{other:?}"),
    }
}

async fn uses(
    store: &Store,
    owner: natter_protocol::ids::UserId,
    chat: ChatId,
) -> Result<Vec<u32>> {
    Ok(store.invites(owner, chat).await?.iter().map(|invite| invite.uses).collect())
}

#[tokio::test]
async fn an_invite_lets_in_until_it_is_used_up_has_expired_or_was_revoked() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let ben = person(&store, "Ben").await?;
    let cleo = person(&store, "Cleo").await?;
    let chat = store.create_group(ana, Some("T"), false, &[], 0).await?.chat;
    let once = NewInvite { max_uses: Some(1), ..invite(1) };
    store.create_invite(ana, chat, &once).await?;
    let leads = store.invitation(&once.hash).await?;
    assert_eq!((leads.chat_id, leads.title.as_deref()), (chat, Some("T")));
    assert_eq!(leads.participant_count, 1);
    none(store.invitation(&[9; 32]).await);
    none(store.join_by_invite(ben, &[9; 32]).await);

    // One who is there already does not use it.
    assert!(!store.join_by_invite(ana, &once.hash).await?.1.changed);
    assert_eq!(uses(&store, ana, chat).await?, [0]);
    let (joined, membership) = store.join_by_invite(ben, &once.hash).await?;
    assert!(joined == chat && membership.changed && membership.lane == Some(chat.0));
    none(store.join_by_invite(cleo, &once.hash).await);
    none(store.invitation(&once.hash).await);
    assert_eq!(uses(&store, ana, chat).await?, [] as [u32; 0], "those that are good are listed");

    let short = NewInvite { good_for: Duration::from_millis(1), ..invite(2) };
    store.create_invite(ana, chat, &short).await?;
    tokio::time::sleep(Duration::from_millis(5)).await;
    none(store.join_by_invite(cleo, &short.hash).await);

    let revoked = invite(3);
    store.create_invite(ana, chat, &revoked).await?;
    let refused = store.revoke_invite(ben, chat, revoked.id).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    let refused = store.create_invite(ben, chat, &invite(4)).await;
    assert!(matches!(refused, Err(StoreError::Forbidden)), "{refused:?}");
    let refused = store.invites(cleo, chat).await;
    assert!(matches!(refused, Err(StoreError::NotMember)), "{refused:?}");
    store.revoke_invite(ana, chat, revoked.id).await?;
    none(store.revoke_invite(ana, chat, revoked.id).await);
    none(store.join_by_invite(cleo, &revoked.hash).await);

    let other = store.create_group(ben, Some("Other"), false, &[], 0).await?.chat;
    let others = invite(5);
    store.create_invite(ben, other, &others).await?;
    store.join_by_invite(ana, &others.hash).await?;
    none(store.revoke_invite(ana, chat, others.id).await);
    // A group that is gone has none.
    store.delete_chat(ben, other).await?;
    none(store.join_by_invite(cleo, &others.hash).await);
    none(store.invitation(&others.hash).await);
    Ok(())
}

#[tokio::test]
async fn many_at_once_use_it_as_often_as_it_may_be() -> Result<()> {
    let store = store().await?;
    let ana = person(&store, "Ana").await?;
    let chat = store.create_group(ana, Some("T"), false, &[], 0).await?.chat;
    let few = NewInvite { max_uses: Some(3), ..invite(1) };
    store.create_invite(ana, chat, &few).await?;
    let mut users = Vec::new();
    for n in 0..8 {
        users.push(person(&store, &format!("P{n}")).await?);
    }
    let joins = join_all(users.iter().map(|user| store.join_by_invite(*user, &few.hash))).await;
    assert_eq!(joins.iter().filter(|join| join.is_ok()).count(), 3);
    none(store.invitation(&few.hash).await);
    let (there, _) = store.participants(chat, None, 100).await?;
    assert_eq!(there.len(), 4);
    assert!(there[1..].iter().all(|one| one.role == Role::Member));
    Ok(())
}

#[tokio::test]
async fn a_ban_holds_for_those_with_an_invite_and_a_chat_has_so_many() -> Result<()> {
    let store = store().await?;
    let (ana, ben) = (person(&store, "Ana").await?, person(&store, "Ben").await?);
    let chat = store.create_group(ana, Some("T"), false, &[ben], 0).await?.chat;
    store.remove_participant(ana, chat, ben, true).await?;
    for n in 0..limits::INVITES {
        store.create_invite(ana, chat, &invite(n as u8)).await?;
    }
    let banned = store.join_by_invite(ben, &[0; 32]).await;
    assert!(matches!(banned, Err(StoreError::Conflict(Conflict::Banned))), "{banned:?}");
    assert_eq!(uses(&store, ana, chat).await?.iter().sum::<u32>(), 0);
    let more = store.create_invite(ana, chat, &invite(200)).await;
    assert!(matches!(more, Err(StoreError::Conflict(Conflict::Invites))), "{more:?}");
    Ok(())
}
