//! The database that a schema is made in.

use anyhow::Result;
use natter_cluster::testing;
use natter_store::{Store, StoreConfig, StoreError};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use url::Url;
use uuid::Uuid;

/// Searches by name, among others, fail in it, and only then would anybody know.
#[tokio::test]
async fn a_database_of_another_encoding_gets_no_schema() -> Result<()> {
    let mut url = Url::parse(&testing::postgres().await?)?;
    let mut connection = PgConnection::connect(url.as_str()).await?;
    let name = format!("ascii_{}", Uuid::now_v7().simple());
    let create =
        format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0");
    sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await?;
    url.set_path(&name);
    let migrated = Store::connect(&StoreConfig::new(url.as_str()))?.migrate().await;
    assert!(
        matches!(&migrated, Err(StoreError::Encoding(encoding)) if encoding == "SQL_ASCII"),
        "{migrated:?}"
    );
    Ok(())
}
