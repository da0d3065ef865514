//! What a cluster says is what its documents describe, to the last field.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use natter_cluster::{
    install::{self, Tool},
    progress::Progress,
};
use natter_e2e::{Person, Socket, api::Api};
use natter_protocol::ids::{ChatId, UserId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::stories::STAGE;

const CHECK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/described.cjs");

/// What was said, with where it is described.
#[derive(Default)]
struct Said(Vec<Value>);

impl Said {
    /// A whole frame: whether it has a cursor is described too.
    fn frame(&mut self, event: &str, data: &Value, cursor: Option<&str>) {
        let schema = format!("/channels/websocket/messages/{event}/payload");
        let mut value = json!({"event": event, "data": data});
        if let Some(cursor) = cursor {
            value["cursor"] = json!(cursor);
        }
        self.0.push(json!({"document": "asyncapi", "schema": schema, "value": value}));
    }

    /// What a frame carries.
    fn data(&mut self, message: &str, value: &Value) {
        let schema = format!("/channels/websocket/messages/{message}/payload/properties/data");
        self.0.push(json!({"document": "asyncapi", "schema": schema, "value": value}));
    }

    fn answer(&mut self, schema: &str, value: &Value) {
        let schema = format!("/components/schemas/{schema}");
        self.0.push(json!({"document": "openapi", "schema": schema, "value": value}));
    }

    /// Holds it against the documents.
    async fn check(self, documents: Value) -> Result<()> {
        let input = json!({"documents": documents, "said": self.0}).to_string();
        spawn_blocking(move || {
            install::ensure(&[Tool::NodeJs, Tool::DocumentReaders], Progress::Lines)?;
            let node = install::node_js().context("Node.js is not installed")?.node;
            let readers = install::document_readers().context("no readers")?;
            let mut check = Command::new(node)
                .arg(CHECK)
                .env("NODE_PATH", readers.join("node_modules"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            check.stdin.take().context("no input")?.write_all(input.as_bytes())?;
            let output = check.wait_with_output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            Ok(())
        })
        .await?
    }
}

/// What requests name.
struct Named<'a> {
    chat: ChatId,
    /// One that was sent there.
    message: Value,
    direct: ChatId,
    other: UserId,
    token: &'a str,
    cursor: &'a str,
    /// A group of the one who asks, and somebody who can be added to it.
    own: ChatId,
    third: UserId,
    /// An invite's, into another group.
    code: &'a str,
}

/// A payload that goes well for each request.
fn payload(event: &str, named: &Named<'_>) -> Result<Value> {
    let Named { chat, message, direct, other, token, cursor, own, third, code } = named;
    Ok(match event {
        "edit_message" => json!({"chatId": chat, "messageId": message, "content": "Hello"}),
        "react" => json!({"chatId": chat, "messageId": message, "emoji": "👍"}),
        "delete_message" => json!({"chatId": chat, "messageId": message}),
        "add_participants" => json!({"chatId": own, "userIds": [third]}),
        "remove_participant" => json!({"chatId": own, "participantId": third}),
        "set_role" => json!({"chatId": own, "participantId": third, "role": "admin"}),
        "update_chat" => json!({"chatId": own, "title": "New", "description": "Of the story"}),
        "delete_chat" => json!({"chatId": own}),
        "join_by_invite" => json!({"code": code}),
        "authenticate" => json!({"token": token}),
        "create_chat" => json!({"isGroup": true, "title": "New", "participantIds": [other]}),
        "send_message" => json!({"chatId": chat, "content": "hello"}),
        "presence_subscribe" => json!({"userIds": [other]}),
        "resume" => json!({"cursor": cursor}),
        "history" => json!({"chatId": chat, "limit": 10}),
        "search_messages" => json!({"q": "hello", "chatId": chat, "senderId": other}),
        "read" | "delivered" => json!({"chatId": chat, "seq": 1}),
        "mute_chat" => json!({"chatId": chat, "forever": true}),
        "hide_chat" => json!({"chatId": direct}),
        "unmute_chat" | "join_chat" | "leave_chat" | "typing_start" | "typing_ping"
        | "typing_stop" => {
            json!({"chatId": chat})
        }
        _ => bail!("{event} is described, and this story does not know it"),
    })
}

async fn hear(socket: &Socket, events: &[&str], said: &mut Said) -> Result<()> {
    for event in events {
        let (data, cursor) = socket.expect_placed(event).await?;
        said.frame(event, &data, cursor.as_deref());
    }
    Ok(())
}

async fn rest(api: &Api, chat: ChatId, said: &mut Said) -> Result<()> {
    for (schema, path) in [
        ("User", "/users/me".to_owned()),
        ("UserList", "/users?search=Ana".to_owned()),
        ("DeviceList", "/devices".to_owned()),
        ("ChatPage", "/chats".to_owned()),
        ("Chat", format!("/chats/{chat}")),
        ("UnreadTotal", "/chats/unread".to_owned()),
        ("ReceiptList", format!("/chats/{chat}/receipts")),
        ("ParticipantPage", format!("/chats/{chat}/participants")),
        ("HistoryPage", format!("/chats/{chat}/messages")),
        ("HistoryPage", format!("/chats/{chat}/messages?around=1")),
        ("SearchPage", format!("/search/messages?q=hello&chatId={chat}")),
    ] {
        said.answer(schema, &api.get(&path).await?.expect(200)?);
    }
    let sent = api.post(&format!("/chats/{chat}/messages"), json!({"content": "by REST"})).await?;
    said.answer("Sent", &sent.expect(201)?);
    let nobody = format!("/chats/{}", ChatId::generate());
    said.answer("Problem", &api.get(&nobody).await?.refused(403, "not_member")?);
    Ok(())
}

#[tokio::test]
async fn what_is_said_is_what_is_described() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).open_group("Described", &[]).await?.id;
    let direct = ana.api(0).direct(&ben).await?.id;
    let anas = ana.connect(0).await?;
    let socket = ben.connect(1).await?;
    let cursor = socket.ready()?.cursor.clone();
    let asyncapi = ana.api(0).get("/asyncapi.json").await?.expect(200)?;
    let openapi = ana.api(1).get("/openapi.json").await?.expect(200)?;

    let mut said = Said::default();
    said.data("ready", &serde_json::to_value(socket.ready()?)?);
    let operations = asyncapi["operations"].as_object().context("no operations")?;
    let requests = operations.iter().filter_map(|(key, operation)| {
        let name = key.strip_prefix("websocket.")?;
        // One that is an event's name too.
        let name = name.strip_suffix(".request").unwrap_or(name);
        (operation["action"] == "receive").then_some(name)
    });
    // One is in the chat for the others, and leaves it last.
    let mut ordered: Vec<&str> = requests.collect();
    ordered.sort_by_key(|name| match *name {
        "resume" => 0,
        "join_chat" => 1,
        "send_message" | "add_participants" => 2,
        "delete_message" | "remove_participant" => 4,
        "delete_chat" => 5,
        "leave_chat" => 6,
        _ => 3,
    });
    let cleo = Person::register(&cluster, "Cleo").await?;
    let own = ben.api(0).group("Ben's", &[]).await?.id;
    let invited = ana.api(1).group("By invitation", &[]).await?.id;
    let invite = ana.api(0).post(&format!("/chats/{invited}/invites"), json!({})).await?;
    let invite = invite.expect(201)?;
    said.answer("MadeInvite", &invite);
    let code = invite["code"].as_str().context("no code")?;
    let mut named = Named {
        chat,
        message: Value::Null,
        direct,
        other: ana.id,
        token: &ben.first.access_token,
        cursor: &cursor,
        own,
        third: cleo.id,
        code,
    };
    for name in ordered {
        let reply = socket.request(name, payload(name, &named)?).await?;
        if name == "send_message" {
            named.message = reply["id"].clone();
        }
        said.data(&format!("{name}.reply"), &reply);
    }
    hear(
        &socket,
        &["resume_done", "chat_added", "chat_history", "system", "chat_updated", "chat_removed"],
        &mut said,
    )
    .await?;
    hear(
        &anas,
        &["system", "user_typing", "message", "chat_added", "read", "delivered"],
        &mut said,
    )
    .await?;
    hear(&anas, &["message_edited", "reaction", "message_deleted"], &mut said).await?;
    let block = format!("/users/{}/block", cleo.id);
    ben.api(1).request(Method::PUT, &block).send().await?.error_for_status()?;
    hear(&socket, &["blocking"], &mut said).await?;
    let bans = format!("/chats/{invited}/participants/{}?ban=true", ben.id);
    ana.api(1).delete(&bans).await?.expect(204)?;
    for (schema, path) in [
        ("Invitation", format!("/invites/{code}")),
        ("InviteList", format!("/chats/{invited}/invites")),
        ("BanPage", format!("/chats/{invited}/bans")),
    ] {
        said.answer(schema, &ana.api(0).get(&path).await?.expect(200)?);
    }
    said.answer("BlockPage", &ben.api(0).get("/blocks").await?.expect(200)?);
    let refused = socket.refused("history", json!({"chatId": ChatId::generate()})).await?;
    said.data("exception", &serde_json::to_value(refused)?);
    rest(&ana.api(0), chat, &mut said).await?;
    said.check(json!({"asyncapi": asyncapi, "openapi": openapi})).await
}
