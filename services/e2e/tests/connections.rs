//! Connections: kept while somebody is there, given up when nobody is or nobody keeps up.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use natter_e2e::{
    Person, Socket, Stage,
    socket::{Dialled, Presenting, request},
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

type Stream = WebSocketStream<TcpStream>;

/// A connection that is past `ready`, and that nobody reads from unless asked to. The system
/// buffers as little for it as it can.
async fn unread(person: &Person, gateway: std::net::SocketAddr) -> Result<Stream> {
    let token = &person.first.access_token;
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
            before = Some(event["data"].clone());
            heard += 1;
        }
    }
    assert!(heard < MESSAGES, "{heard}");
    // Back again, with the rest to be had from the history.
    let bens = ben.connect(1).await?;
    cleos.say(chat, "slowly, please").await?;
    bens.hears(chat, "slowly, please").await?;
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
