//! Connections: kept while somebody is there, given up when nobody is or nobody keeps up.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use natter_cluster::Cluster;
use natter_e2e::{
    Person, Socket, Stage,
    metrics::{SLOW_CONSUMERS, counter},
    person::anonymous,
    socket::{Dialled, Presenting, request},
    tokens,
};
use natter_protocol::{
    ids::{ChatId, Seq},
    rest::User,
    server::{Chat, Sent},
};
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
        // Who does not read does not answer pings either, and is to be given up for the former.
        .gateway_env("NATTER_HEARTBEAT_SECONDS", "300")
        .gateway_env("NATTER_EVENTS_BURST", "1000")
});

type Stream = WebSocketStream<TcpStream>;

/// What is on its way, or over, is there by then.
const SILENCE: Duration = Duration::from_secs(5);

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
    let ready = next(&mut stream).await?;
    ensure!(matches!(&ready, Next::Event(event) if event["event"] == "ready"), "{ready:?}");
    Ok(stream)
}

/// What a connection has next.
#[derive(Debug)]
enum Next {
    Event(Value),
    /// Its end, with this code.
    Closed(Option<u16>),
    /// Its end without a good-bye.
    Cut,
}

async fn next(stream: &mut Stream) -> Result<Next> {
    loop {
        match timeout(SILENCE, stream.next()).await.context("silence")? {
            Some(Ok(Message::Text(text))) => return Ok(Next::Event(serde_json::from_str(&text)?)),
            Some(Ok(Message::Close(frame))) => {
                return Ok(Next::Closed(frame.map(|frame| frame.code.into())));
            }
            Some(Err(_)) | None => return Ok(Next::Cut),
            Some(Ok(_)) => {}
        }
    }
}

/// Its end, whatever comes before.
async fn end(stream: &mut Stream) -> Result<Next> {
    loop {
        match timeout(SILENCE, stream.next()).await.context("silence")? {
            Some(Ok(Message::Close(frame))) => {
                return Ok(Next::Closed(frame.map(|frame| frame.code.into())));
            }
            Some(Err(_)) | None => return Ok(Next::Cut),
            Some(Ok(_)) => {}
        }
    }
}

/// What came of a chat's messages, by place, and where the connection stands with it.
#[derive(Default)]
struct Heard {
    seqs: Vec<Seq>,
    cursor: String,
}

impl Heard {
    /// Takes an event in, which must continue what came before.
    fn take(&mut self, event: &Value) -> Result<()> {
        if let Some(cursor) = event["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        if event["event"] == "message" {
            let last = self.seqs.last();
            ensure!(last.is_none_or(|last| event["data"]["prevSeq"] == *last), "a hole: {event}");
            self.seqs.extend(event["data"]["seq"].as_u64());
        }
        Ok(())
    }

    /// Everything until the connection's end; tells that.
    async fn take_rest(&mut self, stream: &mut Stream) -> Result<Next> {
        loop {
            match next(stream).await? {
                Next::Event(event) => self.take(&event)?,
                end => return Ok(end),
            }
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
    const MOST: usize = 2_000;
    let cluster = CROWD.alone().await?;
    let ana = Person::register(&cluster, "Ana").await?;
    let ben = Person::register(&cluster, "Ben").await?;
    let cleo = Person::register(&cluster, "Cleo").await?;
    let chat = ana.api(0).group("Chatterboxes", &[&ben, &cleo]).await?.id;
    let gateway = cluster.gateway(1);
    let mut slow = unread(&ben, gateway.address()).await?;
    let cleos = cleo.connect(1).await?;
    let filling = "x".repeat(16_000);
    let path = format!("/chats/{chat}/messages");
    let say = async |n: usize| -> Result<Seq> {
        let body = json!({"content": format!("{n} {filling}")});
        Ok(ana.api(0).post(&path, body).await?.read::<Sent>(201)?.seq)
    };
    // He reads one for ten that are sent, until his gateway has given him up.
    let (mut sent, mut heard) = (Vec::new(), Heard::default());
    let before = counter(gateway, SLOW_CONSUMERS).await?;
    while counter(gateway, SLOW_CONSUMERS).await? == before {
        ensure!(sent.len() < MOST, "{} have come in time", heard.seqs.len());
        for _ in 0..10 {
            sent.push(say(sent.len()).await?);
        }
        match next(&mut slow).await? {
            Next::Event(event) => heard.take(&event)?,
            end => bail!("{end:?}, and he is still read for"),
        }
    }
    // What did get through has no hole, and is not all.
    let end = heard.take_rest(&mut slow).await?;
    // Whoever has not taken a frame to its end within a second after that cannot be told why.
    ensure!(matches!(end, Next::Closed(Some(4430)) | Next::Cut), "{end:?}");
    ensure!(sent.starts_with(&heard.seqs) && heard.seqs.len() < sent.len(), "{:?}", heard.seqs);
    // Whoever else is there was not held up.
    let last = *sent.last().context("nothing was sent")?;
    cleos.expect("message", |data| data["seq"] == last).await?;
    assert_eq!(cleos.events("message").len(), sent.len());
    cleos.check_feeds()?;

    // Back again on the other node, with the rest.
    let bens = ben.first.resume(0, &heard.cursor).await?;
    ensure!(bens.ready()?.resumed, bens.failure("it was not resumed"));
    sent.push(cleos.say(chat, "slowly, please").await?.seq);
    bens.hears(chat, "slowly, please").await?;
    let rest: Vec<Seq> = bens.entries()?.iter().map(|got| got.seq).collect();
    assert_eq!(rest, sent[heard.seqs.len()..]);
    bens.check_feeds()
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> Result<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).context("no resident pages")?.parse()?;
    Ok(pages * 4096)
}

/// A thousand devices of one user in a chat.
struct Crowd {
    /// Who speaks in it.
    ana: Person,
    /// A neighbour, with a connection to the same gateway as the thousand.
    cleo: Person,
    chat: ChatId,
}

impl Crowd {
    const SIZE: usize = 1_000;

    fn token(device: usize) -> Result<String> {
        tokens::outside(&tokens::outside_claims("crowd", &format!("device {device}")))
    }

    async fn gather(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let cleo = Person::register(cluster, "Cleo").await?;
        let first = anonymous(cluster, 1)?.with_token(&Self::token(0)?);
        let crowd: User = first.get("/users/me").await?.read(200)?;
        let ids = [cleo.id, crowd.id];
        let body = json!({"isGroup": true, "title": "Crowd", "participantIds": ids});
        let chat: Chat = ana.api(0).post("/chats", body).await?.read(201)?;
        Ok(Self { ana, cleo, chat: chat.id })
    }

    async fn stall(gateway: std::net::SocketAddr) -> Result<Vec<Stream>> {
        let devices = (0..Self::SIZE).map(async |n| stall(&Self::token(n)?, gateway).await);
        futures::stream::iter(devices).buffered(16).try_collect().await
    }

    /// What a device of it lacks comes from the other gateway, and nothing else does.
    async fn come_back(cluster: &Cluster, n: usize, heard: &Heard, sent: &[Seq]) -> Result<()> {
        let address = cluster.gateway(0).address();
        let back = Socket::resume(address, &Self::token(n)?, &heard.cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
        back.expect("resume_done", |_| true).await?;
        let rest: Vec<Seq> = back.entries()?.iter().map(|got| got.seq).collect();
        ensure!(sent.starts_with(&heard.seqs) && rest == sent[heard.seqs.len()..], "{n}: {rest:?}");
        Ok(())
    }
}

#[tokio::test]
async fn a_thousand_who_do_not_read_cost_little_and_their_neighbours_nothing() -> Result<()> {
    /// Messages at least and at most, and bytes of each.
    const MESSAGES: [usize; 2] = [300, 2_000];
    const BYTES: usize = 2_000;
    /// What one may cost, in bytes; about 30 KiB are documented.
    const COST: u64 = 48 * 1024;
    let cluster = CROWD.alone().await?;
    let Crowd { ana, cleo, chat } = Crowd::gather(&cluster).await?;
    let gateway = cluster.gateway(1);
    let stalled = Crowd::stall(gateway.address()).await?;
    let cleos = cleo.connect(1).await?;
    let pid = gateway.pid().context("the gateway is not running")?;
    let before = resident(pid)?;
    let (anas, filling) = (ana.connect(0).await?, "x".repeat(BYTES));
    let (mut most, mut sent) = (0, Vec::new());
    let given_up = counter(gateway, SLOW_CONSUMERS).await? + Crowd::SIZE as u64;
    while sent.len() < MESSAGES[0] || counter(gateway, SLOW_CONSUMERS).await? < given_up {
        ensure!(sent.len() < MESSAGES[1], "not all are given up");
        for _ in 0..50 {
            sent.push(anas.say(chat, &format!("{} {filling}", sent.len())).await?.seq);
        }
        // Neighbours get everything, while the others are stuck.
        let last = *sent.last().context("nothing was sent")?;
        let reached = |data: &Value| data["seq"] == last;
        cleos.expect_within(Duration::from_mins(1), "message", reached).await?;
        most = most.max(resident(pid)?.saturating_sub(before));
    }
    assert_eq!(cleos.events("message").len(), sent.len());
    cleos.check_feeds()?;
    println!("{} messages, {} KiB each at most", sent.len(), most / 1024 / Crowd::SIZE as u64);
    ensure!(most < COST * Crowd::SIZE as u64, "{most} bytes more");

    // Those who look again find that they were given up; some of them see what they have got.
    let mut codes = [0, 0];
    for (n, mut stream) in stalled.into_iter().enumerate() {
        let mut heard = Heard::default();
        let looks = n % 50 == 0;
        let end = if looks { heard.take_rest(&mut stream).await } else { end(&mut stream).await };
        match end.with_context(|| format!("device {n}"))? {
            Next::Closed(Some(4430)) => codes[0] += 1,
            // A frame was half written, after which there cannot be a code.
            Next::Cut => codes[1] += 1,
            end => bail!("device {n}: {end:?}"),
        }
        if looks {
            Crowd::come_back(&cluster, n, &heard, &sent).await?;
        }
    }
    println!("{} were closed with 4430, {} cut", codes[0], codes[1]);
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
