//! Requests that are not what they should be.

use anyhow::Result;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Gateway, SECRET, answer};

#[tokio::test]
async fn a_body_that_is_no_body_is_refused_without_an_echo() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let send = async |kind: &'static str, body: Vec<u8>| {
        let url = format!("http://{}/v1/auth/login", gateway.address);
        answer(gateway.client.post(url).header(CONTENT_TYPE, kind).body(body).send().await?).await
    };
    let json = "application/json";
    let login = |more: &str| format!(r#"{{"email":"a@b","password":"s3cret"{more}}}"#).into_bytes();
    for (kind, body, status, code) in [
        (json, b"{\"password\": s3cret".to_vec(), 400, "bad_request"),
        (json, Vec::new(), 400, "bad_request"),
        (json, vec![0xff, 0xfe], 400, "bad_request"),
        (json, "[".repeat(60_000).into_bytes(), 400, "bad_request"),
        (json, br#"{"email":7,"password":"s3cret"}"#.to_vec(), 400, "bad_request"),
        (json, login(r#","device":{"id":"s3cret"}"#), 400, "bad_request"),
        (json, login(r#","device":{"name":"x\u0000"}"#), 400, "bad_request"),
        (json, vec![b' '; 65_537], 413, "too_large"),
        ("text/plain", login(""), 415, "unsupported_media"),
    ] {
        let refused = send(kind, body).await?.refused(status, code)?;
        assert!(!refused.body.to_string().contains("s3cret"), "{}", refused.body);
    }
    Ok(())
}

#[tokio::test]
async fn paths_and_methods_that_are_none_are_problems_too() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    for path in ["/nothing", "/chats/x/y/z", "/auth", "/"] {
        gateway.get(path, &ana.token).await?.refused(404, "not_found")?;
    }
    let wrong = gateway.call("PUT", "/chats", &ana.token, json!({})).await?;
    let wrong = wrong.refused(405, "bad_request")?;
    assert!(wrong.headers.contains_key(ALLOW));
    gateway.get("/auth/login", "").await?.refused(405, "bad_request")?;
    for path in ["/chats/x", "/chats/%00/messages", "/chats/..%2f/participants"] {
        gateway.get(path, &ana.token).await?.refused(400, "bad_request")?;
    }
    let document = gateway.get("/openapi.json", "").await?.expect(200)?;
    assert!(document["paths"]["/v1/chats/{id}/messages"]["post"].is_object());
    Ok(())
}

#[tokio::test]
async fn only_a_good_token_in_its_header_lets_in() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let ana = gateway.person("Ana").await?;
    let missing = gateway.get("/users/me", "").await?.refused(401, "unauthenticated")?;
    assert_eq!(missing.headers[WWW_AUTHENTICATE], "Bearer");
    let elsewhere = format!("/users/me?token={0}&access_token={0}", ana.token);
    gateway.get(&elsewhere, "").await?.refused(401, "unauthenticated")?;
    for header in ["Bearer", "Bearer ", "Basic YTpi", &format!("Token {}", ana.token)] {
        let url = format!("http://{}/v1/users/me", gateway.address);
        let sent = gateway.client.get(url).header(AUTHORIZATION, header).send().await?;
        answer(sent).await?.refused(401, "unauthenticated")?;
    }

    let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&ana.token)?;
    let sign = |algorithm, change: Value, secret: &str| -> Result<String> {
        let mut claims = claims.clone();
        for (name, value) in change.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        let key = EncodingKey::from_secret(secret.as_bytes());
        Ok(encode(&Header::new(algorithm), &claims, &key)?)
    };
    let good = sign(Algorithm::HS256, json!({}), SECRET)?;
    gateway.get("/users/me", &good).await?.expect(200)?;
    let (head, rest) = good.split_once('.').unwrap_or_default();
    let payload = rest.split('.').next().unwrap_or_default();
    // {"alg":"none"}
    let none = format!("eyJhbGciOiJub25lIn0.{payload}.");
    for token in [
        none,
        format!("{head}.{payload}."),
        "x".repeat(10_000),
        sign(Algorithm::HS384, json!({}), SECRET)?,
        sign(Algorithm::HS256, json!({}), "another secret of 32 bytes, say!")?,
        sign(Algorithm::HS256, json!({"aud": "another"}), SECRET)?,
        sign(Algorithm::HS256, json!({"iss": "another"}), SECRET)?,
        sign(Algorithm::HS256, json!({"exp": 1_000_000_000}), SECRET)?,
        sign(Algorithm::HS256, json!({"nbf": 9_000_000_000_u64}), SECRET)?,
        sign(Algorithm::HS256, json!({"sid": Uuid::new_v4()}), SECRET)?,
        sign(Algorithm::HS256, json!({"deviceId": Uuid::new_v4()}), SECRET)?,
        sign(Algorithm::HS256, json!({"deviceId": null}), SECRET)?,
        sign(Algorithm::HS256, json!({"sub": Uuid::new_v4()}), SECRET)?,
    ] {
        gateway.get("/users/me", &token).await?.refused(401, "unauthenticated")?;
    }
    Ok(())
}

#[tokio::test]
async fn a_payload_names_nobody_else() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let group = |hint: &str| json!({"isGroup": true, "title": "Group", "userId": hint});
    gateway.post("/chats", &ana.token, group(&ben.id)).await?.refused(403, "forbidden")?;
    gateway.post("/chats", &ana.token, group(&ana.id)).await?.expect(201)?;
    Ok(())
}
