//! Clients that stop reading while much is sent to them: they are closed, never skipped, and get
//! the rest elsewhere.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use anyhow::{Result, bail, ensure};
use futures::{StreamExt, future::try_join};
use natter_cluster::{Cluster, Node};
use natter_protocol::{
    ids::{ChatId, Seq},
    server::Sent,
};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::{
    Person, Presenting, Socket,
    metrics::{SLOW_CONSUMERS, counter},
    socket::{open, request},
};

/// Messages, and bytes of each: more than a connection's queue and the sockets' buffers hold.
const MESSAGES: usize = 700;
const BYTES: usize = 16_000;

/// Between two looks whether the silent client has been given up.
const LOOK: Duration = Duration::from_millis(50);

/// How long one message may take to be stored, and what was missed to come, faults included.
const PATIENCE: Duration = Duration::from_mins(2);

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    /// Connections closed with 4430.
    pub closed: u64,
    /// Connections that ended otherwise before they had read all.
    pub cut: u64,
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

    /// One client reads nothing until its gateway has given it up, or all is sent; then all that
    /// it was sent. Another gets the rest. Together they have everything once, or the error says
    /// what not.
    pub(super) async fn happen(&self, cluster: &Cluster) -> Result<Outcome> {
        let gateways = cluster.gateways().len();
        let Some((gateway, mut silent)) = self.listen(cluster).await else {
            return Ok(Outcome::default());
        };
        let (over, last) = watch::channel(None);
        let speak = async {
            let sent = self.speak(gateways).await?;
            over.send_replace(sent.last().copied());
            anyhow::Ok(sent)
        };
        let listen = async {
            // When it has been given up it has a second to take the code in.
            let given_up = counter(gateway, SLOW_CONSUMERS);
            let before = given_up.await.unwrap_or(0);
            while last.borrow().is_none()
                && counter(gateway, SLOW_CONSUMERS).await.is_ok_and(|now| now == before)
            {
                sleep(LOOK).await;
            }
            anyhow::Ok(silent.read_all(self.chat, last.clone()).await)
        };
        let (sent, end) = try_join(speak, listen).await?;
        let mut outcome = Outcome::default();
        match end {
            End::Closed(4430) => outcome.closed += 1,
            End::Closed(_) | End::Cut => outcome.cut += 1,
            End::All => {}
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
    async fn listen<'a>(&self, cluster: &'a Cluster) -> Option<(&'a Node, Silent)> {
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
                    return Some((gateway, Silent { stream, cursor, got: Vec::new() }));
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
                let open = match socket.take().filter(|socket| socket.is_open()) {
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
    /// Reads until the connection ends, or the last that was sent, once that is known.
    async fn read_all(&mut self, chat: ChatId, mut last: watch::Receiver<Option<Seq>>) -> End {
        loop {
            let known = *last.borrow_and_update();
            if known.is_some_and(|last| self.got.last().is_some_and(|got| *got >= last)) {
                return End::All;
            }
            let message = tokio::select! {
                message = timeout(PATIENCE, self.stream.next()) => message,
                changed = last.changed(), if known.is_none() => match changed {
                    Ok(()) => continue,
                    Err(_) => return End::Cut,
                },
            };
            match message {
                Ok(Some(Ok(Message::Text(text)))) => self.take_in(chat, &text),
                Ok(Some(Ok(Message::Close(Some(close))))) => return End::Closed(close.code.into()),
                Ok(Some(Ok(Message::Close(None)) | Err(_)) | None) | Err(_) => return End::Cut,
                Ok(Some(Ok(_))) => {}
            }
        }
    }

    fn take_in(&mut self, chat: ChatId, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        if let Some(cursor) = frame["cursor"].as_str() {
            cursor.clone_into(&mut self.cursor);
        }
        let data = &frame["data"];
        if frame["event"] == "message" && data["chatId"] == json!(chat) {
            self.got.extend(data["seq"].as_u64());
        }
    }
}

/// How a silent client's reading ended.
enum End {
    Closed(u16),
    Cut,
    /// It has read everything.
    All,
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
