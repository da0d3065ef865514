//! Chats made, listed, joined and left.

use std::collections::HashSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::Gateway;

async fn group(gateway: &Gateway, token: &str, title: &str, more: Value) -> Result<Value> {
    let mut request = json!({"isGroup": true, "title": title});
    for (name, value) in more.as_object().into_iter().flatten() {
        request[name] = value.clone();
    }
    gateway.post("/chats", token, request).await?.expect(201)
}

#[tokio::test]
async fn the_same_two_always_get_the_same_chat() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let with = |id: &str| json!({"isGroup": false, "participantIds": [id]});
    let (from_ana, from_ben) = tokio::join!(
        gateway.post("/chats", &ana.token, with(&ben.id)),
        gateway.post("/chats", &ben.token, with(&ana.id)),
    );
    let (from_ana, from_ben) = (from_ana?, from_ben?);
    let mut statuses = [from_ana.status, from_ben.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201]);
    assert_eq!(from_ana.body["id"], from_ben.body["id"]);
    assert_eq!(from_ana.body["me"]["name"], "Ben");
    assert_eq!(from_ben.body["me"]["name"], "Ana");
    let leave = format!("/chats/{}/leave", from_ana.body["id"].as_str().unwrap_or_default());
    gateway.post(&leave, &ana.token, Value::Null).await?.refused(403, "forbidden")?;

    for (request, status, code) in [
        (with(&ana.id), 400, "bad_request"),
        (json!({"isGroup": false}), 400, "bad_request"),
        (json!({"isGroup": true}), 400, "bad_request"),
        (json!({"isGroup": true, "title": "a\u{0}b"}), 400, "bad_request"),
        (with(&Uuid::now_v7().to_string()), 404, "not_found"),
        (with("ben"), 400, "bad_request"),
    ] {
        gateway.post("/chats", &ana.token, request).await?.refused(status, code)?;
    }
    Ok(())
}

#[tokio::test]
async fn a_group_is_joined_where_it_is_open_and_left() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Ben").await?);
    let open = group(&gateway, &ana.token, "Open", json!({"open": true})).await?;
    let private = group(&gateway, &ana.token, "Private", json!({})).await?;
    let path = |chat: &Value, end: &str| {
        format!("/chats/{}{end}", chat["id"].as_str().unwrap_or_default())
    };

    gateway.get(&path(&open, ""), &ben.token).await?.refused(403, "not_member")?;
    gateway
        .post(&path(&private, "/join"), &ben.token, Value::Null)
        .await?
        .refused(403, "forbidden")?;
    let nowhere = format!("/chats/{}", Uuid::now_v7());
    gateway.get(&nowhere, &ben.token).await?.refused(403, "not_member")?;
    let join_nowhere = format!("{nowhere}/join");
    gateway.post(&join_nowhere, &ben.token, Value::Null).await?.refused(404, "not_found")?;

    let joined = gateway.post(&path(&open, "/join"), &ben.token, Value::Null).await?.expect(200)?;
    assert_eq!(joined["chat"]["participantCount"], 2);
    assert_eq!(joined["chat"]["me"]["role"], "member");
    assert_eq!(joined["typing"], json!([]));
    let again = json!({"history": {"limit": 1}});
    let again = gateway.post(&path(&open, "/join"), &ben.token, again).await?.expect(200)?;
    assert_eq!(again["chat"]["participantCount"], 2);
    assert_eq!(again["messages"].as_array().map(Vec::len), Some(1));
    let too_many = json!({"history": {"limit": 201}});
    gateway.post(&path(&open, "/join"), &ben.token, too_many).await?.refused(400, "bad_request")?;

    let participants = path(&open, "/participants?limit=1");
    let first = gateway.get(&participants, &ben.token).await?.expect(200)?;
    assert_eq!(first["items"], json!([{"id": ana.id, "name": "Ana", "role": "owner"}]));
    let cursor = first["nextCursor"].as_str().context("no second page")?;
    let second = gateway.get(&format!("{participants}&cursor={cursor}"), &ben.token).await?;
    let second = second.expect(200)?;
    assert_eq!(second["items"][0]["id"], *ben.id);
    assert_eq!(second["nextCursor"], Value::Null);

    gateway.post(&path(&open, "/leave"), &ben.token, Value::Null).await?.expect(200)?;
    gateway
        .post(&path(&open, "/leave"), &ben.token, Value::Null)
        .await?
        .refused(403, "not_member")?;
    gateway.get(&participants, &ben.token).await?.refused(403, "not_member")?;
    Ok(())
}

#[tokio::test]
async fn all_chats_come_in_pages_newest_first_and_are_searched() -> Result<()> {
    let gateway = Gateway::start(&[]).await?;
    let (ana, ben) = (gateway.person("Ana").await?, gateway.person("Benjamín").await?);
    let mut made = Vec::new();
    for number in 0..5 {
        let title = format!("Group {number}");
        made.push(group(&gateway, &ana.token, &title, json!({})).await?["id"].clone());
    }
    let with_ben = json!({"isGroup": false, "participantIds": [ben.id]});
    let direct = gateway.post("/chats", &ana.token, with_ben).await?.expect(201)?;
    made.push(direct["id"].clone());

    let mut listed = Vec::new();
    let mut path = "/chats?limit=2".to_owned();
    let pages = loop {
        let page = gateway.get(&path, &ana.token).await?.expect(200)?;
        let items = page["items"].as_array().context("no items")?;
        listed.extend(items.iter().map(|chat| chat["id"].clone()));
        let Some(cursor) = page["nextCursor"].as_str() else { break listed.len().div_ceil(2) };
        path = format!("/chats?limit=2&cursor={cursor}");
    };
    assert_eq!(pages, 3);
    assert_eq!(listed.iter().collect::<HashSet<_>>(), made.iter().collect::<HashSet<_>>());
    assert_eq!(listed.len(), 6);
    assert_eq!(listed[0], direct["id"], "the newest");

    for (search, expected) in
        [("group%203", 1), ("GROUP", 5), ("njam%C3%ADn", 1), ("%25", 0), ("", 6)]
    {
        let path = format!("/chats?search={search}");
        let found = gateway.get(&path, &ana.token).await?.expect(200)?;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(expected), "{search}");
    }
    for wrong in
        ["cursor=abc", "limit=0", "limit=201", "limit=many", "search=%00", "limit=1&limit=2"]
    {
        let path = format!("/chats?{wrong}");
        gateway.get(&path, &ana.token).await?.refused(400, "bad_request")?;
    }
    Ok(())
}
