//! Bad input: every kind of it gets the documented code, and closes the connection or not as
//! documented. Whatever happens to one connection, the gateway is there for the next.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use natter_cluster::Cluster;
use natter_e2e::{
    Person, Socket, Stage,
    person::anonymous,
    socket::{Dialled, Presenting, request},
    soon, tokens,
};
use natter_protocol::{
    error::ErrorCode,
    ids::{ChatId, MessageId, UserId},
};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};
use uuid::Uuid;

static STAGE: Stage = Stage::with(|builder| {
    tokens::trusted(builder)
        .gateway_env("NATTER_HANDSHAKE_SECONDS", "2")
        .gateway_env("NATTER_CALLS_PER_SECOND", "20")
});

/// Two people with a one-to-one, and a group that Ana is no part of.
struct Scenery {
    ana: Person,
    direct: ChatId,
    foreign: ChatId,
}

async fn scenery(cluster: &Cluster) -> Result<Scenery> {
    let ana = Person::register(cluster, "Ana").await?;
    let ben = Person::register(cluster, "Ben").await?;
    let direct = ana.api(0).direct(&ben).await?.id;
    let foreign = ben.api(0).group("Not for Ana", &[]).await?.id;
    ben.api(0).say(foreign, "nothing for Ana").await?;
    Ok(Scenery { ana, direct, foreign })
}

async fn usable(socket: &Socket) -> Result<()> {
    let answer = socket.request("presence_subscribe", json!({"userIds": []})).await?;
    ensure!(answer == json!({"items": []}), "{answer}");
    Ok(())
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

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
    usable(&ana.connect(0).await?).await
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
    usable(&socket).await
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
    usable(&socket).await
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
    Ok(())
}

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
        Dialled::Refused(status) => {
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
    Ok(())
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
            Dialled::Refused(status) => ensure!(status.is_client_error(), "refused with {status}"),
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
    Ok(())
}

#[tokio::test]
async fn too_much_is_refused_for_a_while_and_far_too_much_ends_the_connection() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let Scenery { ana, direct, .. } = scenery(&cluster).await?;
    let (socket, other) = (ana.connect(0).await?, ana.connect(0).await?);
    let mut asked = Vec::new();
    for _ in 0..250 {
        asked.push(socket.post("typing_ping", json!({"chatId": direct})).await?);
    }
    let mut limited = 0;
    for id in asked {
        if let Err(error) = socket.reply(id).await? {
            assert_eq!(error.code, ErrorCode::RateLimited);
            assert!(error.retry_after_ms.is_some_and(|ms| (1..5_000).contains(&ms)), "{error:?}");
            limited += 1;
        }
    }
    assert!(limited > 0, "250 at once");
    assert!(socket.is_open());
    soon("it is let through again", async || {
        Ok(socket.ask("typing_stop", json!({"chatId": direct})).await?.ok())
    })
    .await?;
    // The other connection has a measure of its own, and fills it until it overflows.
    usable(&other).await?;
    for _ in 0..20_000 {
        if other.post("typing_ping", json!({"chatId": direct})).await.is_err() || !other.is_open() {
            break;
        }
    }
    other.expect_close(4429).await?;
    usable(&ana.connect(0).await?).await
}

#[tokio::test]
async fn a_device_has_so_many_connections_and_the_oldest_goes() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let mut sockets = Vec::new();
    for _ in 0..5 {
        sockets.push(ana.connect(0).await?);
    }
    sockets[0].expect_close(4409).await?;
    for socket in &sockets[1..] {
        usable(socket).await?;
    }
    Ok(())
}

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
    Ok(())
}

#[tokio::test]
async fn passwords_cannot_be_tried_at_will() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let api = anonymous(&cluster, 0)?;
    for n in 0..40 {
        let body = json!({"phone": ana.phone, "password": format!("try number {n}")});
        let answer = api.post("/auth/login", body).await?;
        if answer.status == 429 {
            let body = answer.refused(429, "rate_limited")?;
            assert!(body["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0), "{body}");
            return Ok(());
        }
        answer.refused(401, "unauthenticated")?;
    }
    anyhow::bail!("40 tries, and no end")
}

#[tokio::test]
async fn rest_cannot_be_called_at_will() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let api = ana.api(1);
    let answers = try_join_all((0..200).map(|_| api.get("/users/me"))).await?;
    let (let_through, limited): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status == 200);
    assert!(let_through.len() >= 100, "{} of a burst of 100", let_through.len());
    assert!(!limited.is_empty(), "200 at once");
    for answer in limited {
        answer.refused(429, "rate_limited")?;
    }
    // Each user has a measure of their own.
    let ben = Person::register(&cluster, "Ben").await?;
    ben.api(1).get("/users/me").await?.expect(200)?;
    soon("it is let through again", async || {
        Ok((api.get("/users/me").await?.status == 200).then_some(()))
    })
    .await
}
