//! Registration, search, profile, and an outside issuer's users.

use anyhow::Result;
use natter_protocol::ids::UserId;
use natter_store::{Conflict, Login, StoreError, UserSearch};

use crate::support::{new_user, person, store};

#[tokio::test]
async fn phone_and_email_are_taken_once_whatever_their_case() -> Result<()> {
    let store = store().await?;
    let ana = new_user("Ana", Some("Ana@Example.org"), Some("+3511234567"));
    let (user, device) = store.create_user(&ana).await?;
    assert_eq!(user.email.as_deref(), Some("Ana@Example.org"));
    assert_eq!(device.id, ana.device.id);

    let same_email = store.create_user(&new_user("B", Some("aNA@eXAMPLE.oRG"), None)).await;
    assert!(matches!(same_email, Err(StoreError::Conflict(Conflict::Email))));
    let same_phone = store.create_user(&new_user("B", None, Some("+3511234567"))).await;
    assert!(matches!(same_phone, Err(StoreError::Conflict(Conflict::Phone))));
    let mut same_device = new_user("B", None, None);
    same_device.device.id = ana.device.id;
    assert!(matches!(
        store.create_user(&same_device).await,
        Err(StoreError::Conflict(Conflict::Device))
    ));

    let found = store.credentials(Login::Email("ana@example.org")).await?;
    assert_eq!(found.unwrap().user.id, user.id);
    let found = store.credentials(Login::Phone("+3511234567")).await?;
    assert_eq!(found.unwrap().password_hash, "$argon2id$");
    assert!(store.credentials(Login::Phone("+351")).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn search_finds_the_start_of_a_name_in_any_case_and_takes_nothing_for_a_wildcard()
-> Result<()> {
    let store = store().await?;
    for name in ["Änne", "ännika", "Anna", "100%", "1000"] {
        person(&store, name).await?;
    }
    let names = async |prefix| -> Result<Vec<String>> {
        let found = store.search_users(UserSearch::NamePrefix(prefix), 10);
        Ok(found.await?.into_iter().map(|user| user.name).collect())
    };
    assert_eq!(names("ÄNN").await?, ["Änne", "ännika"]);
    assert_eq!(names("an").await?, ["Anna"]);
    assert_eq!(names("100%").await?, ["100%"]);
    assert_eq!(names("_").await?, [""; 0]);
    assert_eq!(names("").await?.len(), 5);
    let limited = store.search_users(UserSearch::NamePrefix(""), 2).await?;
    assert_eq!(limited.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_text_that_postgres_does_not_take_is_an_error_and_not_unavailability() -> Result<()> {
    let store = store().await?;
    let error = store.search_users(UserSearch::NamePrefix("a\0b"), 10).await.unwrap_err();
    assert!(error.is_data_error(), "{error:?}");
    let error = store.create_user(&new_user("a\0", None, None)).await.unwrap_err();
    assert!(error.is_data_error(), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_profile_keeps_what_is_not_changed_and_its_feed_hears_of_a_new_name() -> Result<()> {
    let store = store().await?;
    let ana = new_user("Ana", Some("a@b.c"), Some("+1234567"));
    store.create_user(&ana).await?;

    let (user, lane) = store.update_user(ana.id, None, Some(None), None).await?;
    assert_eq!((user.phone, user.email.as_deref()), (None, Some("a@b.c")));
    assert_eq!(lane, None);
    let (user, lane) = store.update_user(ana.id, Some("Anna"), None, None).await?;
    assert_eq!((user.name.as_str(), lane), ("Anna", Some(ana.id.0)));
    assert_eq!(store.names(&[ana.id]).await?.get(&ana.id).unwrap(), "Anna");

    let alone = store.update_user(ana.id, None, None, Some(None)).await;
    assert!(matches!(alone, Err(StoreError::Conflict(Conflict::LastLogin))));
    let nobody = store.update_user(UserId::generate(), Some("x"), None, None).await;
    assert!(matches!(nobody, Err(StoreError::NotFound)));
    Ok(())
}

#[tokio::test]
async fn an_outside_issuers_user_is_made_once_by_many_at_once() -> Result<()> {
    let store = store().await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let store = store.clone();
        tasks.spawn(async move {
            store.ensure_external("https://id.example", "subject", "phone-1", Some("Ana"), 0).await
        });
    }
    let mut seen = Vec::new();
    while let Some(made) = tasks.join_next().await {
        seen.push(made??);
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
    let (user, device) = seen[0];

    // Without a session of ours, and still not revoked until somebody does.
    let state = store.device_state(user, device).await?.unwrap();
    assert_eq!((state.session, state.revoked), (None, false));
    assert_eq!(store.revoke_device(user, device).await?, Some(user.0));
    let again = store.ensure_external("https://id.example", "subject", "phone-1", None, 0).await?;
    assert_eq!(again, (user, device));
    assert!(store.device_state(user, device).await?.unwrap().revoked);

    let (other, _) =
        store.ensure_external("https://other.example", "subject", "phone-1", None, 0).await?;
    assert_ne!(other, user);
    Ok(())
}
