//! Calls of a wrong form.

use anyhow::{Result, ensure};
use natter_e2e::stage::nothing_panicked;
use natter_protocol::ids::{ChatId, MessageId, UserId};
use serde_json::json;

use super::{STAGE, Scenery, nested, scenery};

#[tokio::test]
async fn rest_says_what_is_wrong() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, foreign } = scenery(&cluster).await?;
    let api = ana.api(1);
    let messages = format!("/chats/{direct}/messages");
    let someone = UserId::generate();
    let text = |content: &str| json!({"content": content}).to_string();
    let posts = [
        (messages.as_str(), String::new(), 400, "bad_request"),
        (&messages, "hello".to_owned(), 400, "bad_request"),
        (&messages, "[]".to_owned(), 400, "bad_request"),
        (&messages, "{\"content\":".to_owned(), 400, "bad_request"),
        (&messages, format!("{{\"content\":{}}}", nested(20_000)), 400, "bad_request"),
        (&messages, "{}".to_owned(), 400, "bad_request"),
        (&messages, r#"{"content":7}"#.to_owned(), 400, "bad_request"),
        (&messages, text(""), 400, "bad_request"),
        (&messages, text("nul \0"), 400, "bad_request"),
        (&messages, text(&"x".repeat(16 * 1024 + 1)), 413, "too_large"),
        (&messages, text(&"x".repeat(70_000)), 413, "too_large"),
        (&messages, text(&"x".repeat(1_000_000)), 413, "too_large"),
        (
            &messages,
            json!({"content": "x", "clientMsgId": "x".repeat(65)}).to_string(),
            400,
            "bad_request",
        ),
        (&messages, json!({"content": "x", "senderId": someone}).to_string(), 403, "forbidden"),
        (&format!("/chats/{foreign}/messages"), text("x"), 403, "not_member"),
        (&format!("/chats/{}/messages", ChatId::generate()), text("x"), 403, "not_member"),
        (&format!("/chats/{foreign}/join"), "{}".to_owned(), 403, "forbidden"),
        (&format!("/chats/{foreign}/leave"), "{}".to_owned(), 403, "not_member"),
        ("/chats", "{}".to_owned(), 400, "bad_request"),
        ("/chats", json!({"isGroup": "yes"}).to_string(), 400, "bad_request"),
        (
            "/chats",
            json!({"isGroup": true, "title": "x", "participantIds": [someone]}).to_string(),
            404,
            "not_found",
        ),
        (
            "/auth/register",
            json!({"name": "x", "password": "12345678"}).to_string(),
            400,
            "bad_request",
        ),
        (
            "/auth/register",
            json!({"name": "x", "phone": "+4912345678901", "password": "short"}).to_string(),
            400,
            "bad_request",
        ),
        (
            "/auth/register",
            json!({"name": "", "phone": "+4912345678901", "password": "12345678"}).to_string(),
            400,
            "bad_request",
        ),
        (
            "/auth/register",
            json!({"name": "a\0b", "phone": "+4912345678901", "password": "12345678"}).to_string(),
            400,
            "bad_request",
        ),
        (
            "/auth/register",
            json!({"name": "x", "phone": "12345", "password": "12345678"}).to_string(),
            400,
            "bad_request",
        ),
        ("/auth/login", json!({"password": "12345678"}).to_string(), 400, "bad_request"),
        ("/auth/refresh", json!({"refreshToken": 7}).to_string(), 400, "bad_request"),
        ("/no/such/path", "{}".to_owned(), 404, "not_found"),
    ];
    let mut wrong = Vec::new();
    for (path, body, status, code) in posts {
        let shown: String = body.chars().take(60).collect();
        let answer = api.post_text(path, body).await?;
        if let Err(error) = answer.refused(status, code) {
            wrong.push(format!("{error:#} for {shown}"));
        }
    }
    let gets = [
        (format!("/chats/{foreign}"), 403, "not_member"),
        (format!("/chats/{}", ChatId::generate()), 403, "not_member"),
        (format!("/chats/{foreign}/messages"), 403, "not_member"),
        (format!("/chats/{foreign}/participants"), 403, "not_member"),
        ("/chats/x".to_owned(), 400, "bad_request"),
        ("/chats?limit=0".to_owned(), 400, "bad_request"),
        ("/chats?limit=x".to_owned(), 400, "bad_request"),
        ("/chats?cursor=x".to_owned(), 400, "bad_request"),
        (format!("/chats?cursor={}", MessageId::generate()), 400, "bad_request"),
        ("/chats?search=%00".to_owned(), 400, "bad_request"),
        (format!("/chats/{direct}/participants?cursor=x"), 400, "bad_request"),
        ("/users".to_owned(), 400, "bad_request"),
        ("/no/such/path".to_owned(), 404, "not_found"),
    ];
    for (path, status, code) in gets {
        if let Err(error) = api.get(&path).await?.refused(status, code) {
            wrong.push(format!("{error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    api.get("/users/me").await?.expect(200)?;
    nothing_panicked(&cluster)
}
