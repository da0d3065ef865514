//! Limits of rate, and a database that goes away.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_cluster::testing;
use reqwest::header::RETRY_AFTER;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

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

const PATIENCE: Duration = Duration::from_secs(30);
/// Of the public port, and short to answer.
const ASK: &str = "GET /v1/users/me HTTP/1.1\r\nhost: x\r\n\r\n";

/// The beginning of an answer.
async fn answered(stream: &mut TcpStream) -> Result<String> {
    let mut head = [0; 64];
    let read = timeout(PATIENCE, stream.read(&mut head)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(&head[..read]).into_owned())
}

#[tokio::test]
async fn what_is_beyond_the_most_connections_waits_for_a_place() -> Result<()> {
    let gateway = Gateway::start(&["--connections-max=2", "--handshake-seconds=60"]).await?;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(gateway.address).await?;
        stream.write_all(ASK.as_bytes()).await?;
        ensure!(answered(&mut stream).await?.starts_with("HTTP/1.1 401"));
        open.push(stream);
    }
    // The kernel takes it, and nobody accepts it.
    let mut third = TcpStream::connect(gateway.address).await?;
    third.write_all(ASK.as_bytes()).await?;
    let early = timeout(Duration::from_millis(300), third.read(&mut [0; 1])).await;
    assert!(early.is_err(), "answered beyond the limit");
    open.pop();
    ensure!(answered(&mut third).await?.starts_with("HTTP/1.1 401"));
    Ok(())
}

#[tokio::test]
async fn who_says_nothing_or_is_slow_to_say_what_does_not_stay() -> Result<()> {
    let gateway = Gateway::start(&["--handshake-seconds=1"]).await?;
    for said in ["", "G", "GET /v1/users/me HTTP/1.1\r\nhost:", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut stream = TcpStream::connect(gateway.address).await?;
        stream.write_all(said.as_bytes()).await?;
        let mut rest = Vec::new();
        // Whatever it is told: the end comes.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{said:?} stays");
    }
    // One that has asked in time, and then is slow with the next.
    let mut stream = TcpStream::connect(gateway.address).await?;
    stream.write_all(ASK.as_bytes()).await?;
    ensure!(answered(&mut stream).await?.starts_with("HTTP/1.1 401"));
    stream.write_all(b"GET /v1").await?;
    ensure!(timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.is_ok(), "it stays");
    Ok(())
}
