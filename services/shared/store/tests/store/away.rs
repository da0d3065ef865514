//! Postgres away, frozen, and back.

use std::time::{Duration, Instant};

use anyhow::Result;
use natter_cluster::testing;
use natter_store::{Store, StoreConfig};

use crate::support::person;

#[tokio::test]
async fn a_store_is_unavailable_while_postgres_is_away_and_recovers_by_itself() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let config = StoreConfig::new(postgres.url());
    let store = Store::connect(&config)?;
    tokio::time::timeout(Duration::from_mins(1), async { while store.migrate().await.is_err() {} })
        .await?;
    let ana = person(&store, "Ana").await?;

    postgres.kill().await?;
    for store in [store.clone(), Store::connect(&config)?] {
        let began = Instant::now();
        let error = store.user(ana).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(began.elapsed() < config.acquire_timeout * 5);
    }
    postgres.start().await?;
    assert!(recovers(&store).await);

    postgres.pause()?;
    let began = Instant::now();
    let frozen = store.user(ana).await;
    postgres.resume()?;
    if let Err(error) = frozen {
        assert!(error.is_unavailable(), "{error:?}");
    }
    assert!(began.elapsed() < config.acquire_timeout * 5);
    assert!(recovers(&store).await);
    assert_eq!(store.user(ana).await?.unwrap().name, "Ana");

    // In good order: idle connections are told so, and a call replaces them.
    postgres.restart().await?;
    assert!(recovers(&store).await);
    Ok(())
}

async fn recovers(store: &Store) -> bool {
    let answered = async { while store.ping().await.is_err() {} };
    tokio::time::timeout(Duration::from_mins(1), answered).await.is_ok()
}
