//! Limits of rate, and a database that goes away.

use anyhow::{Context, Result};
use natter_cluster::testing;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;

use crate::support::{Gateway, PASSWORD};

#[tokio::test]
async fn one_user_may_call_so_often_and_no_other_pays_for_it() -> Result<()> {
    let gateway = Gateway::start(&["--calls-per-second=1", "--calls-burst=3"]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let mut refused = None;
    // At one a second, ten at once are too many however slow they are.
    for _ in 0..10 {
        let answer = gateway.get("/users/me", &ana.token).await?;
        if answer.status != 200 {
            refused = Some(answer);
        }
    }
    let refused = refused.context("never refused")?.refused(429, "rate_limited")?;
    assert!(refused.body["retryAfterMs"].as_u64().is_some_and(|ms| (1..=1_001).contains(&ms)));
    assert_eq!(refused.headers[RETRY_AFTER], "1");
    gateway.get("/users/me", &ben.token).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn passwords_are_tried_a_few_times_a_minute() -> Result<()> {
    let gateway = Gateway::start(&["--attempts-per-account=3"]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    for _ in 0..3 {
        let wrong = gateway.log_in(&ana.email, "wrong horse", Value::Null).await?;
        wrong.refused(401, "unauthenticated")?;
    }
    let refused = gateway.log_in(&ana.email, PASSWORD, Value::Null).await?;
    assert!(refused.refused(429, "rate_limited")?.headers.contains_key(RETRY_AFTER));
    gateway.log_in(&ben.email, PASSWORD, Value::Null).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn an_address_is_the_proxys_word_only_where_that_is_trusted() -> Result<()> {
    for (trusting, second) in [("--trust-proxy=true", 401), ("--trust-proxy=false", 429)] {
        let gateway = Gateway::start(&[trusting, "--attempts-per-address=1"]).await?;
        for (address, status) in [("192.0.2.1", 401), ("192.0.2.2", second)] {
            let url = format!("http://{}/v1/auth/login", gateway.address);
            let login = serde_json::json!({"email": "nobody@example.org", "password": "x"});
            let request = gateway.client.post(url).header("x-forwarded-for", address);
            let answer = request.json(&login).send().await?;
            assert_eq!(answer.status().as_u16(), status, "{trusting} {address}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn without_postgres_calls_are_unavailable_and_come_back() -> Result<()> {
    let postgres = testing::postgres_fresh().await?;
    let gateway = Gateway::start_on(postgres.url(), &[]).await?;
    let ana = gateway.person("Ana").await?;
    postgres.kill().await?;
    let refused = gateway.get("/users/me", &ana.token).await?.refused(503, "unavailable")?;
    assert!(refused.headers.contains_key(RETRY_AFTER));
    let login = gateway.log_in(&ana.email, PASSWORD, Value::Null).await?;
    login.refused(503, "unavailable")?;
    postgres.restart().await?;
    gateway.get("/users/me", &ana.token).await?.expect(200)?;
    Ok(())
}
