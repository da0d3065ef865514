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
