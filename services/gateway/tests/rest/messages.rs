//! Messages sent and read over REST alone.

use anyhow::Result;
use serde_json::json;
use uuid::Uuid;

use crate::support::Gateway;

#[tokio::test]
async fn a_message_is_sent_once_and_read_at_once() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let request = json!({"isGroup": true, "title": "Group"});
    let chat = gateway.post("/chats", &ana.token, request).await?.expect(201)?;
    let path = format!("/chats/{}/messages", chat["id"].as_str().unwrap_or_default());

    let draft = json!({"content": "hello", "clientMsgId": Uuid::now_v7()});
    let sent = gateway.post(&path, &ana.token, draft.clone()).await?.expect(201)?;
    let again = gateway.post(&path, &ana.token, draft.clone()).await?.expect(200)?;
    assert_eq!((&again["id"], &again["seq"]), (&sent["id"], &sent["seq"]));
    assert_eq!(again["duplicate"], true);
    let page = gateway.get(&path, &ana.token).await?.expect(200)?;
    let newest = page["messages"].as_array().and_then(|messages| messages.last());
    assert_eq!(newest.map(|message| &message["content"]), Some(&json!("hello")));

    gateway.post(&path, &ben.token, draft).await?.refused(403, "not_member")?;
    gateway.get(&path, &ben.token).await?.refused(403, "not_member")?;
    for (draft, status, code) in [
        (json!({"content": ""}), 400, "bad_request"),
        (json!({"content": "a\u{0}b"}), 400, "bad_request"),
        (json!({"content": "x".repeat(16_385)}), 413, "too_large"),
        (json!({"content": "x", "clientMsgId": "y".repeat(65)}), 400, "bad_request"),
        (json!({"content": "x", "senderId": ben.id}), 403, "forbidden"),
        (json!({"content": "x", "user": {"id": ben.id}}), 403, "forbidden"),
    ] {
        gateway.post(&path, &ana.token, draft).await?.refused(status, code)?;
    }
    let as_herself = json!({"content": "x", "senderId": ana.id});
    gateway.post(&path, &ana.token, as_herself).await?.expect(201)?;
    for wrong in ["before=1&after=2", "before=-1", "limit=201", "after=x"] {
        let path = format!("{path}?{wrong}");
        gateway.get(&path, &ana.token).await?.refused(400, "bad_request")?;
    }
    Ok(())
}

/// A check of messages at which nobody listens.
const DEAD: [&str; 2] =
    ["--hook-url=http://127.0.0.1:9/check", "--hook-secret=whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];

#[tokio::test]
async fn a_check_that_is_not_there_refuses_or_lets_through() -> Result<()> {
    for (on_failure, status) in [("--hook-failure=refuse", 503), ("--hook-failure=allow", 201)] {
        let gateway = Gateway::start(&[&DEAD[..], &[on_failure]].concat()).await?;
        let ana = gateway.person("Ana").await?;
        let group = json!({"isGroup": true, "title": "Group"});
        let chat = gateway.post("/chats", &ana.token, group).await?.expect(201)?;
        let path = format!("/chats/{}/messages", chat["id"].as_str().unwrap_or_default());
        // More than are tried before it is left alone.
        for n in 0..12 {
            let draft = json!({"content": format!("{n}"), "clientMsgId": Uuid::now_v7()});
            let answer = gateway.post(&path, &ana.token, draft).await?;
            assert_eq!(answer.status, status, "{on_failure} {n}: {}", answer.body);
            if status == 503 {
                let refused = answer.refused(503, "unavailable")?.body;
                assert_eq!(refused["outcome"], "not_sent");
                assert!(refused["retryAfterMs"].as_u64().is_some_and(|ms| ms >= 1_000));
            }
        }
        let page = gateway.get(&path, &ana.token).await?.expect(200)?;
        let texts = page["messages"].as_array().into_iter().flatten();
        let texts = texts.filter(|message| message["contentType"] == "text").count();
        assert_eq!(texts, if status == 201 { 12 } else { 0 });
    }
    Ok(())
}
