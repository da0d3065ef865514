//! Two people who talk over two gateways through all of it, and what must be true of their chat.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use natter_cluster::Cluster;
use natter_e2e::{Device, Person, Socket, soon, soon::within};
use natter_protocol::{
    error::ErrorCode,
    ids::{ChatId, Seq},
    server::ContentType,
};
use serde_json::json;
use tokio::time::Duration;
use uuid::Uuid;

/// A worker that notices, a new epoch, and what comes after.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A device that stays connected as clients do: closed to be resumed, it resumes.
pub struct Listener {
    device: Device,
    gateway: usize,
    sockets: Vec<Socket>,
}

impl Listener {
    pub async fn new(device: &Device, gateway: usize) -> Result<Self> {
        Ok(Self { device: device.clone(), gateway, sockets: vec![device.connect(gateway).await?] })
    }

    pub fn socket(&self) -> Result<&Socket> {
        self.sockets.last().context("it has never been connected")
    }

    pub async fn hears(&mut self, chat: ChatId, content: &str) -> Result<()> {
        let heard = self.socket()?.hears(chat, content).await;
        if heard.is_ok() || self.socket()?.is_open() {
            return heard.map(drop);
        }
        self.come_back().await?;
        self.socket()?.hears(chat, content).await.map(drop)
    }

    /// Says something, again and again with the same client id while that is the advice.
    async fn says(&mut self, chat: ChatId, content: &str) -> Result<Seq> {
        let id = Uuid::now_v7().to_string();
        let data = json!({"chatId": chat, "content": content, "clientMsgId": id});
        within(PATIENCE, &format!("{content:?} is taken"), async || {
            if !self.socket()?.is_open() {
                self.come_back().await?;
            }
            match self.socket()?.ask("send_message", data.clone()).await {
                Ok(Ok(sent)) => Ok(sent["seq"].as_u64()),
                Ok(Err(error)) if error.code == ErrorCode::Unavailable => Ok(None),
                Ok(Err(error)) => bail!("{error:?} is no reason to try again"),
                Err(_) if !self.socket()?.is_open() => Ok(None),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Its connection was cut, or its gateway is another process now.
    pub async fn come_back(&mut self) -> Result<()> {
        let cursor = self.socket()?.cursor()?;
        let back = self.device.resume(self.gateway, &cursor).await?;
        ensure!(back.ready()?.resumed, back.failure("it was not resumed"));
        self.sockets.push(back);
        Ok(())
    }

    /// Everything in order, and no place and no message twice, over all its connections.
    pub fn check(&self) -> Result<()> {
        let (mut places, mut ids) = (HashSet::new(), HashSet::new());
        for socket in &self.sockets {
            socket.check_feeds()?;
            for got in socket.entries()? {
                ensure!(places.insert((got.chat, got.seq)), "place {} came twice", got.seq);
            }
            for message in socket.events("message") {
                ensure!(ids.insert(message["id"].to_string()), "twice: {message}");
            }
        }
        Ok(())
    }
}

/// Ana on one gateway and Ben on the other, in one chat.
pub struct Talk {
    pub ana: Person,
    pub ben: Person,
    pub chat: ChatId,
    pub anas: Listener,
    pub bens: Listener,
    /// What must be in the history, in order: what was said, and its place.
    pub said: Vec<(String, Seq)>,
}

impl Talk {
    pub async fn begin(cluster: &Cluster) -> Result<Self> {
        let ana = Person::register(cluster, "Ana").await?;
        let ben = Person::register(cluster, "Ben").await?;
        let chat = ana.api(0).direct(&ben).await?.id;
        let (anas, bens) =
            (Listener::new(&ana.first, 0).await?, Listener::new(&ben.first, 1).await?);
        Ok(Self { ana, ben, chat, anas, bens, said: Vec::new() })
    }

    /// Both say something, in turns, and hear each other.
    pub async fn goes_on(&mut self, about: &str, times: usize) -> Result<Seq> {
        for n in 0..times {
            let (from, to, who) = if n % 2 == 0 {
                (&mut self.anas, &mut self.bens, "Ana")
            } else {
                (&mut self.bens, &mut self.anas, "Ben")
            };
            let content = format!("{about} {n}, {who}");
            let seq = from.says(self.chat, &content).await?;
            to.hears(self.chat, &content).await?;
            self.said.push((content, seq));
        }
        self.last()
    }

    /// Ana says something that was lost; it is a message like any other.
    pub async fn say_again(&mut self, content: &str) -> Result<()> {
        let seq = self.anas.says(self.chat, content).await?;
        self.bens.hears(self.chat, content).await?;
        self.said.push((content.to_owned(), seq));
        Ok(())
    }

    pub fn last(&self) -> Result<Seq> {
        Ok(self.said.last().context("nothing was said")?.1)
    }

    /// A worker has written all that was said.
    pub async fn is_written(&self) -> Result<()> {
        let last = self.last()?;
        within(PATIENCE, "it is written", async || {
            let answer = self.ana.api(1).get(&format!("/chats/{}", self.chat)).await?;
            if answer.status() != 200 {
                return Ok(None);
            }
            Ok((answer.body["lastSeq"].as_u64() >= Some(last)).then_some(()))
        })
        .await
    }

    /// The history is what was said, on both gateways, and nobody got anything twice.
    pub async fn is_complete(&self) -> Result<()> {
        self.is_written().await?;
        for (gateway, person) in [(0, &self.ben), (1, &self.ana)] {
            let page = person.api(gateway).history(self.chat, "limit=200").await?;
            ensure!(!page.partial && !page.has_more, "not all of it");
            let texts = page.messages.iter().filter(|m| m.content_type != ContentType::System);
            let told: Vec<_> = texts.map(|m| (m.content.clone(), m.seq)).collect();
            assert_eq!(told, self.said, "on gateway {gateway}");
        }
        self.anas.check()?;
        self.bens.check()
    }
}

/// The answer to somebody whom nobody knows any more.
pub async fn is_unknown(person: &Person, gateway: usize) -> Result<()> {
    soon("nobody knows them", async || {
        let status = person.api(gateway).get("/users/me").await?.status();
        Ok((status == 401).then_some(()))
    })
    .await
}
