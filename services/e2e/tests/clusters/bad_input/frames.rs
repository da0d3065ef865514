//! Frames of a wrong form, and requests in the name of somebody else.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use natter_e2e::{Person, stage::nothing_panicked};
use natter_protocol::{error::ErrorCode, ids::UserId};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};
use uuid::Uuid;

use super::{STAGE, Scenery, nested, scenery, usable};

#[tokio::test]
async fn a_malformed_frame_closes_the_connection() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let frames = [
        String::new(),
        "hello".to_owned(),
        "{\"event\":\"typing_start\",\"data\":{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        r#"{"event":7}"#.to_owned(),
        r#"{"event":"typing_start","id":"seven","data":{}}"#.to_owned(),
        r#"{"event":"typing_start","id":-1,"data":{}}"#.to_owned(),
        nested(30_000),
    ];
    let frames = frames.into_iter().map(Message::text);
    let binary = br#"{"event":"presence_subscribe","id":1,"data":{"userIds":[]}}"#;
    for frame in frames.chain([Message::binary(&binary[..]), Message::binary(&[0_u8; 3][..])]) {
        let socket = ana.connect(1).await?;
        socket.send_frame(frame.clone()).await?;
        let start: String = frame.to_string().chars().take(50).collect();
        socket.expect_close(4400).await.with_context(|| start)?;
    }
    // Text that is no UTF-8 is no text; the protocol itself has a code for that.
    let socket = ana.connect(0).await?;
    let frame = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    socket.send_frame(Message::Frame(frame)).await?;
    let closed = socket.closed(Duration::from_secs(5)).await?;
    assert!(matches!(closed.code, Some(1007 | 4400)), "{closed}");
    usable(&ana.connect(0).await?).await?;
    nothing_panicked(&cluster)
}

#[tokio::test]
async fn a_frame_over_the_limit_closes_the_connection() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, .. } = scenery(&cluster).await?;
    let frame = |bytes: usize| {
        let empty = json!({"event": "send_message", "data": {"chatId": direct, "content": ""}});
        let filling = "x".repeat(bytes - empty.to_string().len());
        json!({"event": "send_message", "data": {"chatId": direct, "content": filling}}).to_string()
    };
    let limit = ana.connect(0).await?.ready()?.limits.frame_bytes;
    assert_eq!(limit, 64 * 1024);
    for bytes in [limit + 1, 1_000_000] {
        let socket = ana.connect(0).await?;
        // The gateway may hang up while we are still sending.
        socket.send_text(frame(bytes)).await.ok();
        socket.expect_close(4413).await?;
    }
    // In small pieces it is just as large.
    let socket = ana.connect(1).await?;
    for n in 0..40 {
        let kind = if n == 0 { Data::Text } else { Data::Continue };
        let piece = Frame::message(vec![b'['; 8 * 1024], OpCode::Data(kind), false);
        if socket.send_frame(Message::Frame(piece)).await.is_err() {
            break;
        }
    }
    socket.expect_close(4413).await?;
    // Just at the limit it is a frame like any other, though its content is too large.
    let socket = ana.connect(1).await?;
    socket.send_text(frame(limit)).await?;
    let error = socket.expect("exception", |_| true).await?;
    assert_eq!(error["code"], "too_large", "{error}");
    usable(&socket).await?;
    nothing_panicked(&cluster)
}

#[tokio::test]
async fn what_has_the_wrong_form_is_answered_and_the_connection_stays() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, foreign } = scenery(&cluster).await?;
    let socket = ana.connect(1).await?;
    let someone = UserId::generate();
    let text = |content: &str| json!({"chatId": direct, "content": content});
    let deep: Value = serde_json::from_str(&nested(100))?;
    let late = {
        let ahead = time::OffsetDateTime::now_utc() + time::Duration::HOUR;
        let stamp =
            uuid::Timestamp::from_unix(uuid::NoContext, u64::try_from(ahead.unix_timestamp())?, 0);
        Uuid::new_v7(stamp).to_string()
    };
    let cases = [
        ("no_such_event", json!({}), "bad_request"),
        ("", json!({}), "bad_request"),
        ("ready", json!({}), "bad_request"),
        ("send_message", json!(null), "bad_request"),
        ("send_message", json!([]), "bad_request"),
        ("send_message", json!("text"), "bad_request"),
        ("send_message", deep, "bad_request"),
        ("send_message", json!({"chatId": direct}), "bad_request"),
        ("send_message", json!({"content": "no chat"}), "bad_request"),
        ("send_message", json!({"chatId": "x", "content": "x"}), "bad_request"),
        ("send_message", json!({"chatId": 7, "content": "x"}), "bad_request"),
        ("send_message", json!({"chatId": direct, "content": 7}), "bad_request"),
        ("send_message", json!({"chatId": direct, "content": {"a": 1}}), "bad_request"),
        ("send_message", text(""), "bad_request"),
        ("send_message", text("nul \0 nul"), "bad_request"),
        ("send_message", text(&"x".repeat(16 * 1024 + 1)), "too_large"),
        (
            "send_message",
            json!({"chatId": direct, "content": "x", "clientMsgId": "x".repeat(65)}),
            "bad_request",
        ),
        (
            "send_message",
            json!({"chatId": direct, "content": "x", "clientMsgId": ""}),
            "bad_request",
        ),
        (
            "send_message",
            json!({"chatId": direct, "content": "x", "clientMsgId": 7}),
            "bad_request",
        ),
        (
            "send_message",
            json!({"chatId": direct, "content": "x", "clientMsgId": "\0"}),
            "bad_request",
        ),
        (
            "send_message",
            json!({"chatId": direct, "content": "x", "clientMsgId": late}),
            "bad_request",
        ),
        ("send_message", json!({"chatId": direct, "content": "x", "replyTo": "x"}), "bad_request"),
        ("send_message", json!({"chatId": foreign, "content": "x"}), "not_member"),
        ("send_message", json!({"chatId": Uuid::nil(), "content": "x"}), "not_member"),
        ("history", json!({"chatId": foreign}), "not_member"),
        ("history", json!({"chatId": Uuid::now_v7()}), "not_member"),
        ("history", json!({"chatId": direct, "limit": 0}), "bad_request"),
        ("history", json!({"chatId": direct, "limit": -1}), "bad_request"),
        ("history", json!({"chatId": direct, "before": -1}), "bad_request"),
        ("history", json!({"chatId": direct, "before": 1e30}), "bad_request"),
        ("history", json!({"chatId": direct, "before": 9, "after": 1}), "bad_request"),
        ("typing_start", json!({}), "bad_request"),
        ("typing_start", json!({"chatId": foreign}), "not_member"),
        ("typing_ping", json!({"chatId": Uuid::now_v7()}), "not_member"),
        ("leave_chat", json!({"chatId": foreign}), "not_member"),
        ("join_chat", json!({"chatId": foreign}), "forbidden"),
        ("join_chat", json!({"chatId": direct, "history": {"limit": "many"}}), "bad_request"),
        ("create_chat", json!({}), "bad_request"),
        ("create_chat", json!({"isGroup": true, "title": "", "participantIds": []}), "bad_request"),
        ("create_chat", json!({"isGroup": true, "title": "a\0b"}), "bad_request"),
        ("create_chat", json!({"isGroup": true, "title": "x".repeat(101)}), "bad_request"),
        ("create_chat", json!({"isGroup": false, "participantIds": []}), "bad_request"),
        ("create_chat", json!({"isGroup": false, "participantIds": [ana.id]}), "bad_request"),
        ("create_chat", json!({"isGroup": false, "participantIds": [someone]}), "not_found"),
        (
            "create_chat",
            json!({"isGroup": true, "title": "x", "participantIds": [someone]}),
            "not_found",
        ),
        ("presence_subscribe", json!({"userIds": "all"}), "bad_request"),
        ("presence_subscribe", json!({"userIds": vec![someone; 501]}), "too_large"),
        ("authenticate", json!({}), "bad_request"),
    ];
    let mut wrong = Vec::new();
    for (event, data, code) in cases {
        let shown: String = format!("{event} {data}").chars().take(100).collect();
        match socket.ask(event, data).await? {
            Err(error) if error.code.as_str() == code => {}
            other => wrong.push(format!("{shown}: {code} expected, it is {other:?}")),
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    usable(&socket).await?;
    // Half a character, which a parser of JSON has to refuse; and nesting that would exhaust a
    // stack, hidden in a part that nobody needs.
    for data in [
        format!(r#"{{"chatId":"{direct}","content":"\ud800"}}"#),
        format!(r#"{{"chatId":"{direct}","extra":{}}}"#, nested(20_000)),
        format!(r#"{{"chatId":"{direct}","user":{}}}"#, nested(20_000)),
        nested(20_000),
    ] {
        let mark = socket.mark();
        socket.send_text(format!(r#"{{"event":"send_message","id":9999,"data":{data}}}"#)).await?;
        let error = socket.reply(9999).await?;
        let code = error.map_err(|error| error.code);
        assert_eq!(code, Err(ErrorCode::BadRequest), "{}", &data[..60]);
        assert!(socket.since(mark, "exception").is_empty());
    }
    // Without an id there is nobody to reply to; an exception it is.
    socket.send_text(r#"{"event":"no_such_event"}"#).await?;
    let exception = socket.expect("exception", |_| true).await?;
    assert_eq!(exception["code"], "bad_request");
    usable(&socket).await?;
    nothing_panicked(&cluster)
}

#[tokio::test]
async fn nobody_acts_for_somebody_else() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, .. } = scenery(&cluster).await?;
    let other = Person::register(&cluster, "Cleo").await?;
    let socket = ana.connect(0).await?;
    for (name, value) in [
        ("user", json!(other.id)),
        ("userId", json!(other.id)),
        ("senderId", json!(other.id)),
        ("user", json!({"id": other.id, "name": "Cleo"})),
        ("userId", json!("admin")),
        ("senderId", json!(1)),
    ] {
        for (event, mut data) in [
            ("send_message", json!({"chatId": direct, "content": "as somebody else"})),
            ("typing_start", json!({"chatId": direct})),
            ("leave_chat", json!({"chatId": direct})),
            ("history", json!({"chatId": direct})),
        ] {
            data[name] = value.clone();
            let error = socket.refused(event, data.clone()).await?;
            assert_eq!(error.code, ErrorCode::Forbidden, "{event} {data}");
        }
    }
    let own =
        json!({"chatId": direct, "content": "as myself", "userId": ana.id, "senderId": ana.id});
    socket.request("send_message", own).await?;

    // Nor by a token: a connection stays whose it is.
    let token = &other.first.access_token;
    let error = socket.refused("authenticate", json!({"token": token})).await?;
    assert!(matches!(error.code, ErrorCode::Forbidden | ErrorCode::Unauthenticated), "{error:?}");
    let tablet = ana.device("tablet").await?;
    socket.refused("authenticate", json!({"token": tablet.access_token})).await?;
    socket.refused("authenticate", json!({"token": "x"})).await?;
    let sent = socket.say(direct, "still Ana").await?;
    let page = ana.api(1).history(direct, "limit=1").await?;
    assert_eq!((page.messages[0].id, page.messages[0].sender_id), (sent.id, ana.id));
    nothing_panicked(&cluster)
}
