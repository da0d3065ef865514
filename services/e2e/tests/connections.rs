//! Connections: kept while somebody is there, given up when nobody is or nobody keeps up.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use natter_e2e::{
    Person, Socket, Stage,
    socket::{Dialled, Presenting, request},
    tokens,
};
use natter_protocol::server::Sent;
use serde_json::{Value, json};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

static STAGE: Stage = Stage::with(|builder| {
    builder.gateway_env("NATTER_HEARTBEAT_SECONDS", "2").gateway_env("NATTER_QUEUE_FRAMES", "16")
});

/// With what a thousand sockets of few people need.
static CROWD: Stage = Stage::with(|builder| {
    tokens::trusted(builder)
        .gateway_env("NATTER_QUEUE_FRAMES", "128")
        .gateway_env("NATTER_EVENTS_BURST", "1000")
});

type Stream = WebSocketStream<TcpStream>;

/// A connection that is past `ready`, and that nobody reads from unless asked to. The system
/// buffers as little for it as it can.
async fn unread(person: &Person, gateway: std::net::SocketAddr) -> Result<Stream> {
    stall(&person.first.access_token, gateway).await
}

async fn stall(token: &str, gateway: std::net::SocketAddr) -> Result<Stream> {
    let request = request(&format!("ws://{gateway}/v1/ws"), Presenting::Header(token))?;
    let tcp = TcpSocket::new_v4()?;
    tcp.set_recv_buffer_size(4096)?;
    let (mut stream, _) = client_async(request, tcp.connect(gateway).await?).await?;
    let ready = next(&mut stream).await?.context("closed")?;
    ensure!(ready["event"] == "ready", "{ready}");
    Ok(stream)
}

/// The next event, or none at the connection's end.
async fn next(stream: &mut Stream) -> Result<Option<Value>> {
    loop {
        match timeout(Duration::from_secs(5), stream.next()).await.context("silence")? {
            Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(Some(frame)))) => {
                let code = u16::from(frame.code);
                ensure!(code == 4430, "closed with {code}");
                return Ok(None);
            }
            Some(Ok(Message::Close(None)) | Err(_)) | None => return Ok(None),
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn who_answers_no_ping_is_gone() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    ana.api(0).direct(&ben).await?;
    let anas = ana.connect(1).await?;
    assert_eq!(anas.ready()?.heartbeat_ms, 2_000);
    let mut bens = unread(&ben, cluster.gateway(0).address()).await?;
    let watched = anas.request("presence_subscribe", json!({"userIds": [ben.id]})).await?;
    assert_eq!(watched["items"][0]["online"], true);

    anas.expect("presence", |data| data["online"] == false).await?;
    loop {
        match timeout(Duration::from_secs(5), bens.next()).await? {
            Some(Ok(Message::Close(frame))) => {
                assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(4408));
                break;
            }
            Some(Ok(Message::Ping(_))) => {}
            other => bail!("{other:?}"),
        }
    }
    // Ana has answered hers, all the while.
    anas.request("presence_subscribe", json!({"userIds": []})).await?;
    Ok(())
}

#[tokio::test]
async fn who_reads_too_slowly_is_cut_off_rather_than_skipped() -> Result<()> {
    const MESSAGES: usize = 400;
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Chatterboxes", &[&ben, &cleo]).await?.id;
    let mut slow = unread(&ben, cluster.gateway(1).address()).await?;
    let cleos = cleo.connect(1).await?;
    let filling = "x".repeat(16_000);
    let path = format!("/chats/{chat}/messages");
    let mut last = 0;
    for n in 0..MESSAGES {
        let body = json!({"content": format!("{n} {filling}")});
        last = ana.api(0).post(&path, body).await?.read::<Sent>(201)?.seq;
    }
    // Whoever else is there is not held up.
    cleos.expect("message", |data| data["seq"] == last).await?;
    assert_eq!(cleos.events("message").len(), MESSAGES);
    cleos.check_feeds()?;

    // What did get through has no hole, and is not all.
    let mut heard = 0;
    let mut cursor = String::new();
    let mut before: Option<Value> = None;
    while let Some(event) = next(&mut slow).await? {
        if event["event"] == "message" {
            assert!(
                event["data"]["content"]
                    .as_str()
                    .context("no content")?
                    .starts_with(&format!("{heard} "))
            );
            if let Some(before) = &before {
                assert_eq!(event["data"]["prevSeq"], before["seq"]);
            }
            cursor = event["cursor"].as_str().context("no cursor")?.to_owned();
            before = Some(event["data"].clone());
            heard += 1;
        }
    }
    assert!(heard < MESSAGES, "{heard}");
    // Back again on the other node, with the rest.
    let bens = ben.first.resume(0, &cursor).await?;
    ensure!(bens.ready()?.resumed, bens.failure("it was not resumed"));
    cleos.say(chat, "slowly, please").await?;
    bens.hears(chat, "slowly, please").await?;
    let rest = bens.events("message");
    assert_eq!(rest.len(), MESSAGES - heard + 1);
    assert!(rest[0]["content"].as_str().context("no content")?.starts_with(&format!("{heard} ")));
    bens.check_feeds()
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * 4096)
}

#[tokio::test]
async fn a_thousand_who_do_not_read_cost_little_and_their_neighbours_nothing() -> Result<()> {
    const STALLED: usize = 1_000;
    const MESSAGES: usize = 300;
    let cluster = CROWD.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let gateway = cluster.gateway(1);
    let token = |device: usize| {
        tokens::outside(&tokens::outside_claims("crowd", &format!("device {device}")))
    };
    let first = natter_e2e::person::anonymous(&cluster, 1)?.with_token(&token(0)?);
    let crowd: natter_protocol::rest::User = first.get("/users/me").await?.read(200)?;
    let body = json!({"isGroup": true, "title": "Crowd", "participantIds": [cleo.id, crowd.id]});
    let chat: natter_protocol::server::Chat = ana.api(0).post("/chats", body).await?.read(201)?;
    let stalled: Vec<Stream> = futures::stream::iter(
        (0..STALLED).map(async |device| stall(&token(device)?, gateway.address()).await),
    )
    .buffer_unordered(16)
    .try_collect()
    .await?;
    let cleos = cleo.connect(1).await?;
    let pid = gateway.pid().context("the gateway is not running")?;
    let before = resident(pid)?;
    let (anas, filling) = (ana.connect(0).await?, "x".repeat(2_000));
    let mut most = 0;
    for n in 0..MESSAGES {
        let sent = anas.say(chat.id, &format!("{n} {filling}")).await?;
        if n % 50 == 49 {
            // Neighbours get everything, while the others are stuck.
            cleos.expect("message", |data| data["seq"] == sent.seq).await?;
            most = most.max(resident(pid)?.saturating_sub(before));
        }
    }
    assert_eq!(cleos.events("message").len(), MESSAGES);
    cleos.check_feeds()?;
    println!("{STALLED} that do not read: {} KiB each at most", most / 1024 / STALLED as u64);
    ensure!(most < 100 * 1024 * 1024, "{most} bytes more");
    drop(stalled);
    Ok(())
}

#[tokio::test]
async fn who_asks_for_an_echo_gets_their_own_messages_too() -> Result<()> {
    let cluster = STAGE.among_others().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let chat = ana.api(0).direct(&ben).await?.id;
    let gateway = cluster.gateway(0).address();
    let token = Presenting::Subprotocol(&ana.first.access_token);
    let request = request(&format!("ws://{gateway}/v1/ws?echo=true"), token)?;
    let dialled = Socket::dial_from([127, 0, 0, 1].into(), gateway, request).await?;
    let Dialled::Open(anas) = dialled else { bail!("{dialled:?}") };
    assert_eq!(anas.protocol(), Some("natter.v1"));
    anas.expect("ready", |_| true).await?;
    let sent = anas.say(chat, "hello?").await?;
    assert_eq!(anas.hears(chat, "hello?").await?.seq, sent.seq);
    Ok(())
}
