//! Clients that stop reading while much is sent to them: they are closed, never skipped, and get
//! the rest elsewhere.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use natter_cluster::Cluster;
use natter_protocol::{
    ids::{ChatId, Seq},
    server::Sent,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    Person, Presenting, Socket,
    socket::{open, request},
};

/// Messages, and bytes of each: more than a connection's queue and the sockets' buffers hold.
const MESSAGES: usize = 700;
const BYTES: usize = 16_000;

/// How long one message may take to be stored, and what was missed to come, faults included.
const PATIENCE: Duration = Duration::from_mins(2);

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Connections closed with 4430.
    pub closed: u64,
    /// Connections that were resumed.
    pub resumed: u64,
    /// Connections that were not, and fetched the rest.
    pub not_resumed: u64,
}

/// Two people with a chat for this.
pub(super) struct Slow {
    speaker: Person,
    listener: Person,
    chat: ChatId,
}

impl Slow {
    pub(super) async fn prepare(cluster: &Cluster) -> Result<Self> {
        let speaker = Person::register(cluster, "Speaker").await?;
        let listener = Person::register(cluster, "Listener").await?;
        let chat = speaker.api(0).direct(&listener).await?.id;
        Ok(Self { speaker, listener, chat })
    }

    /// One client reads nothing while all is sent, then all that it was sent; another gets the
    /// rest. Together they have everything once, or the error says what not.
    pub(super) async fn happen(&self, cluster: &Cluster) -> Result<Outcome> {
        let gateways = cluster.gateways().len();
        let Some(mut silent) = self.listen(cluster).await else { return Ok(Outcome::default()) };
        let sent = self.speak(gateways).await?;
        let mut outcome = Outcome::default();
        if silent.read_all(self.chat, *sent.last().context("nothing was sent")?).await == Some(4430)
        {
            outcome.closed += 1;
        }
        let began = Instant::now();
        let mut got = silent.got.clone();
        loop {
            match self.rest(&silent, gateways, *sent.last().unwrap_or(&0), &mut outcome).await {
                Ok(rest) => {
                    got.extend(rest);
                    break;
                }
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        got.retain(|seq| *seq >= sent[0]);
        ensure!(got == sent, "a slow client: {}", difference(&got, &sent));
        Ok(outcome)
    }

    /// Somewhere; nowhere when all gateways refuse, which a fault beside may be the reason of.
    async fn listen(&self, cluster: &Cluster) -> Option<Silent> {
        for gateway in cluster.gateways() {
            let url = format!("ws://{}/v1/ws", gateway.address());
            let request =
                request(&url, Presenting::Header(&self.listener.first.access_token)).ok()?;
            let Ok((mut stream, _)) = open(Ipv4Addr::LOCALHOST, gateway.address(), request).await
            else {
                continue;
            };
            let ready = timeout(PATIENCE, stream.next()).await;
            if let Ok(Some(Ok(Message::Text(text)))) = ready {
                let ready: Value = serde_json::from_str(&text).ok()?;
                if let Some(cursor) = ready["data"]["cursor"].as_str() {
                    let cursor = cursor.to_owned();
                    return Some(Silent { stream, cursor, got: Vec::new() });
                }
            }
        }
        None
    }

    /// The places of what was sent, in order.
    async fn speak(&self, gateways: usize) -> Result<Vec<Seq>> {
        let content = "x".repeat(BYTES);
        let mut socket: Option<Socket> = None;
        let mut places = Vec::with_capacity(MESSAGES);
        for n in 0..MESSAGES {
            let data = json!({
                "chatId": self.chat,
                "content": content,
                "clientMsgId": Uuid::now_v7().to_string(),
            });
            let began = Instant::now();
            let mut tries = 0;
            let sent: Sent = loop {
                if began.elapsed() > PATIENCE {
                    bail!("a message to a slow client was not taken in {PATIENCE:?}");
                }
                let open = match socket.take().filter(Socket::is_open) {
                    Some(open) => Ok(open),
                    None => self.speaker.connect((n + tries) % gateways).await,
                };
                tries += 1;
                if let Ok(open) = open {
                    let answer = open.ask("send_message", data.clone()).await;
                    if let Ok(Ok(sent)) = answer {
                        socket = Some(open);
                        break serde_json::from_value(sent)?;
                    }
                    if answer.is_ok() {
                        socket = Some(open);
                    }
                }
                sleep(Duration::from_millis(100)).await;
            };
            places.push(sent.seq);
        }
        Ok(places)
    }

    /// What lies beyond the silent client's cursor.
    async fn rest(
        &self,
        silent: &Silent,
        gateways: usize,
        last: Seq,
        outcome: &mut Outcome,
    ) -> Result<Vec<Seq>> {
        let gateway = rand::random_range(0..gateways);
        let socket = self.listener.first.resume(gateway, &silent.cursor).await?;
        if !socket.ready()?.resumed {
            outcome.not_resumed += 1;
            let mut seqs = Vec::new();
            let mut after = silent.got.last().copied().unwrap_or(0);
            loop {
                let query = format!("limit=100&after={after}");
                let page = self.listener.api(gateway).history(self.chat, &query).await?;
                ensure!(!page.partial, "a partial page");
                seqs.extend(page.messages.iter().map(|message| message.seq));
                after = seqs.last().copied().unwrap_or(after);
                if !page.has_more {
                    return Ok(seqs);
                }
            }
        }
        outcome.resumed += 1;
        if silent.got.last().is_none_or(|got| *got < last) {
            let until = |data: &Value| data["seq"] == json!(last);
            socket.expect_within(PATIENCE, "message", until).await?;
        }
        socket.check_feeds()?;
        let entries = socket.entries()?;
        Ok(entries.iter().filter(|got| got.chat == self.chat).map(|got| got.seq).collect())
    }
}

/// A client that reads nothing until it is asked to.
struct Silent {
    stream: tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>,
    cursor: String,
    got: Vec<Seq>,
}

impl Silent {
    /// Reads until the end, or the last that was sent; tells the close code.
    async fn read_all(&mut self, chat: ChatId, last: Seq) -> Option<u16> {
        while self.got.last().is_none_or(|got| *got < last) {
            match timeout(PATIENCE / 10, self.stream.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
                    if let Some(cursor) = frame["cursor"].as_str() {
                        cursor.clone_into(&mut self.cursor);
                    }
                    let data = &frame["data"];
                    if frame["event"] == "message" && data["chatId"] == json!(chat) {
                        self.got.extend(data["seq"].as_u64());
                    }
                }
                Ok(Some(Ok(Message::Close(close)))) => return close.map(|close| close.code.into()),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) | Err(_) => return None,
            }
        }
        None
    }
}

/// Where two lists part.
fn difference(got: &[Seq], sent: &[Seq]) -> String {
    let mut counts: BTreeMap<Seq, (usize, usize)> = BTreeMap::new();
    for seq in got {
        counts.entry(*seq).or_default().0 += 1;
    }
    for seq in sent {
        counts.entry(*seq).or_default().1 += 1;
    }
    let wrong: Vec<_> = counts.iter().filter(|(_, (got, sent))| got != sent).take(20).collect();
    format!("{} of {} came; (place, (came, sent)) first: {wrong:?}", got.len(), sent.len())
}
