//! Tokens that are none, and connections that show none.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_cluster::Cluster;
use natter_e2e::{
    Person, Socket,
    person::anonymous,
    socket::{Dialled, Presenting, request},
    stage::nothing_panicked,
    tokens,
};
use natter_protocol::ids::UserId;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::STAGE;

/// Tokens that are none, with what is wrong with them.
fn bad_tokens(cluster: &Cluster, ana: &Person) -> Result<Vec<(&'static str, String)>> {
    let good = &ana.first.access_token;
    let claims = tokens::claims(good)?;
    let secret = cluster.jwt_secret().as_bytes();
    let own = |name, value| tokens::shared_secret(secret, &tokens::altered(&claims, name, value));
    let foreign = tokens::outside_claims("somebody", "a phone");
    let outside = |name, value| tokens::outside(&tokens::altered(&foreign, name, value));
    let past = time::OffsetDateTime::now_utc().unix_timestamp() - 60;
    let (signed, signature) = good.rsplit_once('.').context("no JWT")?;
    let swapped = {
        let payload = tokens::altered(&claims, "sub", json!(UserId::generate()));
        let other = tokens::shared_secret(b"whatever", &payload)?;
        let (other, _) = other.rsplit_once('.').context("no JWT")?;
        format!("{other}.{signature}")
    };
    let public = tokens::OUTSIDE_PUBLIC_KEY;
    Ok(vec![
        ("no token", "x".to_owned()),
        ("only dots", "..".to_owned()),
        ("no signature", format!("{signed}.")),
        ("another's signature", swapped),
        ("alg none", tokens::unsigned(&claims)),
        ("alg none, outside", tokens::unsigned(&foreign)),
        ("another secret", tokens::shared_secret(b"a secret that nobody here knows of", &claims)?),
        ("the public key as a secret", tokens::shared_secret(public.as_bytes(), &foreign)?),
        ("the same, trimmed", tokens::shared_secret(public.trim().as_bytes(), &foreign)?),
        ("the own secret for outside", tokens::shared_secret(secret, &foreign)?),
        ("the outside key for our own", tokens::outside(&claims)?),
        ("a stranger's key", tokens::strangers(&foreign)?),
        ("expired", own("exp", json!(past))?),
        ("expired, outside", outside("exp", json!(past))?),
        ("without expiry", own("exp", json!(null))?),
        ("without expiry, outside", outside("exp", json!(null))?),
        ("not yet valid", own("nbf", json!(past + 3600))?),
        ("another audience", own("aud", json!("another"))?),
        ("another audience, outside", outside("aud", json!("another"))?),
        ("without audience", own("aud", json!(null))?),
        ("another issuer", own("iss", json!("another"))?),
        ("another issuer, outside", outside("iss", json!("https://id.example.net/"))?),
        ("without a device", own("deviceId", json!(null))?),
        ("without a device, outside", outside("deviceId", json!(null))?),
        ("an empty device, outside", outside("deviceId", json!(""))?),
        ("an unknown device", own("deviceId", json!(Uuid::now_v7()))?),
        ("without a user", own("sub", json!(null))?),
        ("another user", own("sub", json!(UserId::generate()))?),
        ("another session", own("sid", json!(Uuid::new_v4()))?),
        ("far too long", format!("{}.{}.{}", "x".repeat(3000), "y".repeat(3000), "z".repeat(3000))),
    ])
}

async fn turned_away(cluster: &Cluster, presenting: Presenting<'_>) -> Result<()> {
    match Socket::dial(cluster.gateway(1).address(), presenting).await? {
        // The header may be more than the server is willing to read.
        Dialled::Refused(refusal) => {
            let status = refusal.status;
            ensure!(status == 401 || status == 431, "refused with {status}");
        }
        Dialled::Open(socket) => {
            socket.expect_close(4401).await?;
            ensure!(socket.events("ready").is_empty(), "it was let in first");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_none_gets_nobody_in() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    // What the forgeries are measured by: made the same way, these are good.
    let claims = tokens::claims(&ana.first.access_token)?;
    let again = tokens::shared_secret(cluster.jwt_secret().as_bytes(), &claims)?;
    let outside = tokens::outside(&tokens::outside_claims("somebody", "a phone"))?;
    for good in [&again, &outside] {
        Socket::connect(cluster.gateway(1).address(), good).await?;
    }
    let api = anonymous(&cluster, 0)?;
    let (cluster, api) = (&*cluster, &api);
    try_join_all(bad_tokens(cluster, &ana)?.iter().map(async |(wrong, token)| {
        for presenting in [
            Presenting::Header(token),
            Presenting::Subprotocol(token),
            Presenting::FirstFrame(token),
        ] {
            let kind = match presenting {
                Presenting::Header(_) => "header",
                Presenting::Subprotocol(_) => "subprotocol",
                _ => "first frame",
            };
            turned_away(cluster, presenting)
                .await
                .with_context(|| format!("{wrong} in the {kind}"))?;
        }
        let answer = api.with_token(token).get("/users/me").await?;
        answer.refused(401, "unauthenticated").with_context(|| format!("{wrong} over REST"))
    }))
    .await?;
    api.get("/users/me").await?.refused(401, "unauthenticated")?;
    nothing_panicked(cluster)
}

#[tokio::test]
async fn who_does_not_say_who_they_are_is_sent_away() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let address = cluster.gateway(0).address();
    let dial = async || match Socket::dial(address, Presenting::Nothing).await? {
        Dialled::Open(socket) => anyhow::Ok(socket),
        Dialled::Refused(status) => anyhow::bail!("refused with {status}"),
    };
    let silent = dial().await?;
    // Nothing can be asked for before.
    let eager = dial().await?;
    eager.send_text(r#"{"event":"presence_subscribe","id":1,"data":{"userIds":[]}}"#).await?;
    eager.expect_close(4401).await?;
    let confused = dial().await?;
    confused.send_text("who am I?").await?;
    let closed = confused.closed(Duration::from_secs(5)).await?;
    assert!(matches!(closed.code, Some(4400 | 4401)), "{closed}");
    let binary = dial().await?;
    binary.send_frame(Message::binary(&b"{}"[..])).await?;
    let closed = binary.closed(Duration::from_secs(5)).await?;
    assert!(matches!(closed.code, Some(4400 | 4401)), "{closed}");
    let large = dial().await?;
    large.send_text("x".repeat(1_000_000)).await.ok();
    large.expect_close(4413).await?;

    // A token in a URL ends up in logs; it is worth nothing there.
    let token = &ana.first.access_token;
    for name in ["token", "access_token", "auth"] {
        let url = format!("ws://{address}/v1/ws?{name}={token}");
        let request = request(&url, Presenting::Nothing)?;
        match Socket::dial_from([127, 0, 0, 1].into(), address, request).await? {
            Dialled::Refused(refusal) => {
                ensure!(refusal.status.is_client_error(), "refused with {refusal}");
            }
            Dialled::Open(socket) => {
                socket.send_text(r#"{"event":"typing_start","id":1,"data":{}}"#).await?;
                socket.expect_close(4401).await?;
                assert!(socket.events("ready").is_empty());
            }
        }
        let path = format!("/users/me?{name}={token}");
        anonymous(&cluster, 0)?.get(&path).await?.refused(401, "unauthenticated")?;
    }
    silent.expect_close(4408).await?;
    nothing_panicked(&cluster)
}
